"""From a ConntrackCleanup's body and back, and the bodies that are refused by field."""

from __future__ import annotations

import copy
import re
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from synsweep.core.cleanup import (
    Cleanup,
    CleanupReason,
    CleanupRefused,
    CleanupTarget,
    Misrouted,
    Mode,
    NodePort,
    Reuse,
    TargetBackend,
)
from synsweep.core.cleanup_wire import cleanup_from_wire, cleanup_to_wire, targets_to_wire
from synsweep.core.flow import Address
from tests.unit.core.samples import cleanup

EXAMPLE = Path(__file__).parents[3] / "crds" / "examples" / "conntrackcleanup.yaml"
DELETE = object()

NAMES = st.text("abcdefghijklmnopqrstuvwxyz-0123456789", min_size=1, max_size=63)
PORTS = st.integers(min_value=1, max_value=65535)
ADDRESSES = st.builds(Address, st.ip_addresses(), PORTS)
FRONTENDS = ADDRESSES | st.builds(NodePort, PORTS)
BACKENDS = st.builds(
    TargetBackend,
    address=ADDRESSES,
    terminated=st.booleans(),
    reused=st.none() | st.builds(Reuse, namespace=NAMES, service=NAMES, pod_uid=NAMES),
)
TARGETS = st.builds(
    CleanupTarget,
    id=st.integers(min_value=0, max_value=499),
    namespace=NAMES,
    service=NAMES,
    port_name=NAMES | st.just(""),
    frontends=st.lists(FRONTENDS, max_size=5).map(tuple),
    backends=st.lists(BACKENDS, max_size=5).map(tuple),
)
SECONDS = st.integers(min_value=5, max_value=3600)
CLEANUPS = st.builds(
    Cleanup,
    name=NAMES,
    uid=NAMES,
    policy=NAMES,
    policy_uid=NAMES,
    sequence=st.integers(min_value=1, max_value=2**63 - 1),
    mode=st.sampled_from([Mode.ENFORCE, Mode.DRY_RUN]),
    misrouted=st.sampled_from(Misrouted),
    reason=st.sampled_from(CleanupReason),
    gone_for_seconds=st.integers(min_value=0, max_value=10**7).map(lambda ms: ms / 1000),
    removed_at=st.just("2026-01-01T00:00:00Z"),
    reuse_after_seconds=SECONDS,
    sweep_for_seconds=SECONDS,
    report_within_seconds=st.integers(min_value=1, max_value=3600),
    nodes=st.lists(NAMES, max_size=3).map(tuple),
    targets=st.lists(TARGETS, max_size=4).map(tuple),
    created_at=st.just("") | st.just("2026-01-01T00:00:01Z"),
)


def as_stored(of: Cleanup) -> dict[str, Any]:
    """The body as the API server gives it back."""
    body = cleanup_to_wire(of, namespace="synsweep-system")
    body["metadata"] |= {"uid": of.uid, "creationTimestamp": of.created_at or None}
    return body


def spoilt(path: str, value: object) -> dict[str, Any]:
    """A good body with one thing changed, given as `spec.targets.0.backends.0.port`."""
    body = copy.deepcopy(as_stored(cleanup()))
    *way, last = path.split(".")
    at: Any = body
    for step in way:
        at = at[int(step)] if step.isdigit() else at[step]
    key: Any = int(last) if last.isdigit() else last
    if value is DELETE:
        del at[key]
    else:
        at[key] = value
    return body


def named(path: str) -> str:
    """The field's path as a refusal names it."""
    return re.sub(r"\.(\d+)", r"[\1]", path)


@given(of=CLEANUPS)
def test_what_is_written_is_read_again(of: Cleanup) -> None:
    assert cleanup_from_wire(as_stored(of)) == of


@given(of=CLEANUPS, junk=st.dictionaries(st.text(min_size=20), st.integers(), max_size=2))
def test_unknown_fields_are_ignored(of: Cleanup, junk: dict[str, int]) -> None:
    body = as_stored(of)
    for place in (body, body["metadata"], body["spec"], *body["spec"]["targets"]):
        place.update(junk)
    assert cleanup_from_wire(body) == of


def test_the_example_of_the_documentation_is_read() -> None:
    body = yaml.safe_load(EXAMPLE.read_text())
    body["metadata"]["ownerReferences"] = [
        {"kind": "Other", "name": "x", "uid": "y"},
        {"kind": "ConntrackPolicy", "name": "shop-dry-run", "uid": "u1"},
    ]
    read = cleanup_from_wire(body)
    assert (read.name, read.policy, read.mode) == ("endpoint-removed-17", "shop-dry-run", "DryRun")
    assert read.targets[0].frontends[2] == NodePort(30080)
    assert read.targets[0].backends[1].reused is not None


def test_the_object_goes_with_its_policy() -> None:
    metadata = cleanup_to_wire(cleanup(policy="p" * 63), namespace="synsweep-system")["metadata"]
    assert metadata["namespace"] == "synsweep-system"
    assert metadata["labels"] == {"synsweep.io/policy": "p" * 63}
    assert metadata["ownerReferences"][0]["uid"] == "policy-1"


def test_targets_alone_are_written_for_a_revocation() -> None:
    of = cleanup()
    assert targets_to_wire(of.targets) == as_stored(of)["spec"]["targets"]


UNKNOWN_VERSIONS = [
    ("spec.formatVersion", 2),
    ("spec.formatVersion", DELETE),
    ("spec.formatVersion", True),
]
MALFORMED = [
    ("spec", DELETE),
    ("spec", []),
    ("metadata", "x"),
    ("metadata.name", 3),
    ("metadata.ownerReferences", []),
    ("metadata.ownerReferences.0.uid", DELETE),
    ("spec.sequence", "17"),
    ("spec.mode", DELETE),
    ("spec.goneForSeconds", "1"),
    ("spec.goneForSeconds", True),
    ("spec.reuseAfterSeconds", 30.5),
    ("spec.reuseAfterSeconds", True),
    ("spec.reportWithinSeconds", DELETE),
    ("spec.nodes", "node1"),
    ("spec.targets", {}),
    ("spec.targets.0", None),
    ("spec.targets.0.frontends.0.ip", "10.96.0"),
    ("spec.targets.0.frontends.0.ip", "fe80::1%eth0"),
    ("spec.targets.0.frontends.0.ip", 7),
    ("spec.targets.0.frontends.0", {}),
    ("spec.targets.0.backends.0.terminated", DELETE),
    ("spec.targets.0.backends.0.terminated", 1),
]
OUT_OF_LIMITS = [
    ("metadata.name", ""),
    ("spec.sequence", 0),
    ("spec.sequence", 2**63),
    ("spec.mode", "Disabled"),
    ("spec.misrouted", "Kill"),
    ("spec.reason", "Whim"),
    ("spec.goneForSeconds", -0.1),
    ("spec.goneForSeconds", float("nan")),
    ("spec.goneForSeconds", float("inf")),
    ("spec.removedAt", "x" * 65),
    ("spec.reuseAfterSeconds", 4),
    ("spec.reuseAfterSeconds", 3601),
    ("spec.sweepForSeconds", 4),
    ("spec.sweepForSeconds", 3601),
    ("spec.reportWithinSeconds", 0),
    ("spec.nodes", ["n"] * 5001),
    ("spec.targets", [{}] * 501),
    ("spec.targets.0.id", 500),
    ("spec.targets.0.namespace", "n" * 64),
    ("spec.targets.0.portName", "n" * 64),
    ("spec.targets.0.frontends.0.port", 0),
    ("spec.targets.0.frontends.1.nodePort", 65536),
    ("spec.targets.0.frontends", [{"nodePort": 1}] * 65),
    ("spec.targets.0.backends.0.port", 65536),
]
NESTED = [  # the field that is named is a part, or the whole, of what was changed
    ("spec.nodes", [1], "spec.nodes[0]"),
    ("spec.targets.0.frontends.0.nodePort", 1, "spec.targets[0].frontends[0]"),
    ("spec.targets.0.backends.0.reused", {}, "spec.targets[0].backends[0].reused.namespace"),
]


@pytest.mark.parametrize(
    ("path", "value", "reason", "field"),
    [
        *((path, value, "UnknownFormatVersion", named(path)) for path, value in UNKNOWN_VERSIONS),
        *((path, value, "MalformedCleanup", named(path)) for path, value in MALFORMED),
        *((path, value, "FieldOutOfLimits", named(path)) for path, value in OUT_OF_LIMITS),
        *((path, value, "MalformedCleanup", field) for path, value, field in NESTED),
    ],
)
def test_what_is_wrong_is_refused_by_field(
    path: str, value: object, reason: str, field: str
) -> None:
    with pytest.raises(CleanupRefused) as refused:
        cleanup_from_wire(spoilt(path, value))
    assert (refused.value.reason, refused.value.field) == (reason, field)
    assert field in str(refused.value)
    assert refused.value.allowed in str(refused.value)
    assert len(refused.value.value) <= 80


def test_too_many_backends_in_total_are_refused() -> None:
    body = as_stored(cleanup())
    target = body["spec"]["targets"][0]
    backend = target["backends"][0]
    body["spec"]["targets"] = [
        target | {"id": number, "backends": [backend | {"port": 1 + port} for port in range(200)]}
        for number in range(3)
    ]
    with pytest.raises(CleanupRefused) as refused:
        cleanup_from_wire(body)
    assert str(refused.value) == (
        "spec.targets is '600 backends', allowed is at most 500 backends in total"
    )


def test_another_version_is_refused_before_anything_else_is_looked_at() -> None:
    with pytest.raises(CleanupRefused, match=r"spec\.formatVersion is 2, allowed is 1"):
        cleanup_from_wire({"metadata": {}, "spec": {"formatVersion": 2, "everything": "else"}})


@pytest.mark.parametrize("body", [None, [], "x", 3])
def test_no_object_at_all_is_refused(body: Any) -> None:
    with pytest.raises(CleanupRefused):
        cleanup_from_wire(body)


@given(
    body=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["metadata", "spec", "formatVersion", "targets", "backends", "ip"]),
                inner,
                max_size=3,
            )
        ),
        max_leaves=10,
    )
)
def test_garbage_is_refused_and_nothing_else_is_raised(body: Any) -> None:
    with pytest.raises(CleanupRefused):
        cleanup_from_wire(body)


def test_missing_lists_and_port_name_are_empty() -> None:
    body = spoilt("spec.nodes", DELETE)
    del body["spec"]["targets"][0]["portName"]
    del body["spec"]["targets"][0]["backends"]
    read = cleanup_from_wire(body)
    assert read.nodes == ()
    assert (read.targets[0].port_name, read.targets[0].backends) == ("", ())


def test_addresses_of_both_families() -> None:
    body = spoilt("spec.targets.0.backends.0.ip", "2001:DB8::0:1")
    backend = cleanup_from_wire(body).targets[0].backends[0]
    assert backend.address == Address(ip_address("2001:db8::1"), 8080)
