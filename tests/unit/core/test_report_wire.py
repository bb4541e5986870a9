"""A node's report in its ConntrackNode, and how it stays small."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from synsweep.core.conditions import Condition
from synsweep.core.fields import BadField
from synsweep.core.flow import Address
from synsweep.core.report import NodeReport, PolicyCounters, RefusedCleanup, Suspect
from synsweep.core.report_wire import MAX_STATUS_BYTES, SYSCTLS, report_from_wire, report_to_wire

EXAMPLE = Path(__file__).parents[3] / "crds" / "examples" / "conntracknode.yaml"
METADATA = {
    "name": "node1",
    "ownerReferences": [{"kind": "Other", "uid": "o"}, {"kind": "Node", "uid": "n1"}],
}

WORDS = st.text("abcdefghijklmnopqrstuvwxyz-0123456789", min_size=1, max_size=30)
COUNTS = st.integers(min_value=0, max_value=2**63 - 1)
ADDRESSES = st.builds(Address, st.ip_addresses(), st.integers(min_value=1, max_value=65535))


def reports(*, most: int, words: st.SearchStrategy[str] = WORDS) -> st.SearchStrategy[NodeReport]:
    """Reports with lists of up to so many items."""
    return st.builds(
        NodeReport,
        node_name=st.just("node1"),
        node_uid=st.just("n1"),
        helper_version=WORDS,
        swept_through=COUNTS,
        last_sweep_time=st.just("") | st.just("2026-01-01T00:00:00Z"),
        addresses=st.lists(st.ip_addresses().map(str), max_size=most).map(tuple),
        kernel=WORDS,
        kube_proxy_mode=st.sampled_from(["IPTables", "Unknown"]),
        sysctls=st.dictionaries(st.sampled_from(sorted(SYSCTLS)), st.integers(0, 2**31 - 1)),
        conditions=st.lists(
            st.builds(
                Condition,
                type=WORDS,
                status=WORDS,
                reason=WORDS,
                message=words,
                last_transition_time=WORDS,
            ),
            max_size=3,
        ).map(tuple),
        counters=st.lists(
            st.builds(
                PolicyCounters,
                policy_uid=WORDS,
                deleted=COUNTS,
                already_gone=COUNTS,
                failed=COUNTS,
                dry_run=COUNTS,
                kept=COUNTS,
            ),
            max_size=most,
        ).map(tuple),
        refused=st.lists(
            st.builds(RefusedCleanup, name=WORDS, reason=WORDS, message=words), max_size=most
        ).map(tuple),
        suspects=st.lists(
            st.builds(
                Suspect,
                frontend=ADDRESSES,
                backend=ADDRESSES,
                count=st.integers(1, 2**40),
                oldest_seconds=st.integers(0, 120),
            ),
            max_size=most,
        ).map(tuple),
    )


def stored(report: NodeReport) -> dict[str, Any]:
    return {"metadata": METADATA, "status": json.loads(json.dumps(report_to_wire(report)))}


def size(report: NodeReport) -> int:
    return len(json.dumps(report_to_wire(report), separators=(",", ":")))


@given(report=reports(most=3))
def test_what_is_written_is_read_again(report: NodeReport) -> None:
    assert report_from_wire(stored(report)) == report


@given(report=reports(most=60, words=st.text(max_size=300)))
def test_a_report_is_never_too_big(report: NodeReport) -> None:
    assert size(report) <= MAX_STATUS_BYTES


def suspects(count: int) -> tuple[Suspect, ...]:
    one = Suspect(
        frontend=Address(ip_address("10.96.0.10"), 80),
        backend=Address(ip_address("10.0.0.10"), 8080),
        count=3,
        oldest_seconds=60,
    )
    return (one,) * count


BUSY = NodeReport(
    node_name="node1",
    helper_version="0.1.0",
    swept_through=123456,
    last_sweep_time="2026-01-01T00:00:00Z",
    addresses=("10.0.1.17", "fe80::1", "2001:db8::17"),
    kernel="6.12.37-61.105.amzn2023.x86_64",
    kube_proxy_mode="IPTables",
    sysctls=dict.fromkeys(SYSCTLS, 86400),
    conditions=tuple(
        Condition(
            type=type_,
            status="True",
            reason="Sweeping",
            message="Watching cleanups; the last sweep was complete.",
            last_transition_time="2026-01-01T00:00:00Z",
        )
        for type_ in ("Ready", "DatapathSupported", "KubeProxyStale")
    ),
    counters=tuple(
        PolicyCounters(policy_uid=f"8f14e45f-ceea-467f-a5f4-0e1e5d2f6a{n:02}", deleted=123456)
        for n in range(3)
    ),
)


def test_what_a_node_usually_says_fits_with_room_for_suspects() -> None:
    status = report_to_wire(replace(BUSY, suspects=suspects(20)))
    assert len(status["suspects"]) == 20
    assert len(status["counters"]) == 3


def test_suspects_give_way_first_and_the_busiest_policies_stay() -> None:
    counters = tuple(replace(BUSY.counters[0], policy_uid=f"uid-{n}") for n in range(64))
    refused = (RefusedCleanup(name="c", reason="R", message="m" * 500),) * 10
    status = report_to_wire(
        replace(BUSY, suspects=suspects(50), counters=counters, refused=refused)
    )
    assert status["suspects"] == status["refusedCleanups"] == []
    kept = [one["policyUID"] for one in status["counters"]]
    assert len(kept) > 20
    assert kept == [one.policy_uid for one in counters[: len(kept)]]
    assert len(status["addresses"]) == 3


def test_one_long_message_does_not_fill_a_report() -> None:
    refused = (RefusedCleanup(name="c", reason="R", message="m" * 5000),)
    status = report_to_wire(replace(BUSY, refused=refused))
    assert len(status["refusedCleanups"][0]["message"]) == 160


def test_only_sysctls_that_are_known_and_sane_are_written() -> None:
    status = report_to_wire(
        replace(BUSY, sysctls={"tcp_syn_retries": 6, "tcp_tw_reuse": -1, "kernel.panic": 1})
    )
    assert status["sysctls"] == {"tcpSynRetries": 6}


def test_the_example_of_the_documentation_is_read() -> None:
    report = report_from_wire(yaml.safe_load(EXAMPLE.read_text()))
    assert report.swept_through == 17
    assert report.node_uid == ""
    assert report.sysctls["nf_conntrack_tcp_timeout_syn_sent"] == 120
    assert [one.type for one in report.conditions] == [
        "Ready",
        "DatapathSupported",
        "KubeProxyStale",
    ]
    assert report.counters[0].deleted == 12
    assert report.suspects[0].backend == Address(ip_address("10.0.2.4"), 8443)


def test_a_new_object_is_an_empty_report() -> None:
    assert report_from_wire({"metadata": METADATA}) == NodeReport(node_name="node1", node_uid="n1")


@pytest.mark.parametrize(
    ("status", "message"),
    [
        ({"formatVersion": 2}, "status.formatVersion is 2; allowed: 1 to 1"),
        ({"sweptThrough": -1}, "status.sweptThrough is -1; allowed: 0 to 9223372036854775807"),
        ({"addresses": "10.0.0.1"}, "status.addresses is '10.0.0.1'; allowed: a list"),
        ({"counters": [{}]}, "status.counters[0].policyUID is missing; allowed: a string"),
        ({"sysctls": 3}, "status.sysctls is 3; allowed: an object"),
        (
            {"suspects": [{"frontend": {"ip": "x", "port": 1}}]},
            "status.suspects[0].frontend.ip is 'x'; allowed: an IPv4 or IPv6 address",
        ),
    ],
)
def test_what_is_wrong_is_named(status: dict[str, Any], message: str) -> None:
    with pytest.raises(BadField) as bad:
        report_from_wire({"metadata": METADATA, "status": status})
    assert str(bad.value) == message
