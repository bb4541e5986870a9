"""What the code writes and reads, and what the API server takes and gives, are the same."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from synsweep.core import cleanup as cleanups
from synsweep.core.cleanup_wire import cleanup_from_wire, cleanup_to_wire, targets_to_wire
from synsweep.core.conditions import Condition
from synsweep.core.flow import Address
from synsweep.core.policy import read_policy
from synsweep.core.report import NodeReport, PolicyCounters, RefusedCleanup, Suspect
from synsweep.core.report_wire import SYSCTLS, report_from_wire, report_to_wire
from tests.cluster import crd_objects as objects
from tests.cluster.crd_schema import CRDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.crd_schema import Json
    from tests.rig.control_plane import ControlPlane

pytestmark = pytest.mark.cluster

FRONTEND = Address(ip_address("10.96.0.10"), 80)
FRONTEND_V6 = Address(ip_address("2001:db8::10"), 80)
BACKENDS = tuple(Address(ip_address(ip), 8080) for ip in ("10.0.0.10", "10.0.0.11", "2001:db8::b"))
REUSE = cleanups.Reuse(namespace="shop", service="search", pod_uid="4d3b1c0e")


def cleanup() -> cleanups.Cleanup:
    """Every field, both families, node ports."""
    return cleanups.Cleanup(
        name=cleanups.cleanup_name(cleanups.CleanupReason.ENDPOINT_REMOVED, 2**62),
        uid="",
        policy="shop",
        policy_uid="8f14e45f-ceea-467f-a5f4-0e1e5d2f6a01",
        sequence=2**62,
        mode=cleanups.Mode.ENFORCE,
        misrouted=cleanups.Misrouted.REPORT,
        reason=cleanups.CleanupReason.ENDPOINT_REMOVED,
        gone_for_seconds=0.257,
        removed_at=objects.NOON,
        reuse_after_seconds=30,
        sweep_for_seconds=60,
        report_within_seconds=1,
        nodes=("node1", "node2"),
        targets=tuple(
            cleanups.CleanupTarget(
                id=number,
                namespace="shop",
                service="cart",
                port_name=port_name,
                frontends=(FRONTEND, FRONTEND_V6, cleanups.NodePort(30080)),
                backends=tuple(
                    cleanups.TargetBackend(address=address, terminated=at == 0)
                    for at, address in enumerate(BACKENDS)
                ),
            )
            for number, port_name in enumerate(("", "http"))
        ),
    )


@pytest.fixture(scope="module")
def api(api_server: ControlPlane) -> ControlPlane:
    """An API server that knows the three kinds."""
    api_server.kubectl("apply", "-k", str(CRDS))
    api_server.kubectl("wait", "--for=condition=Established", "--timeout=30s", "crd", "--all")
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": objects.NAMESPACE}}
    api_server.kubectl("apply", "-f", "-", input=json.dumps(namespace))
    return api_server


@pytest.fixture
def created(api: ControlPlane) -> Iterator[Json]:
    """The cleanup, as the API holds it."""
    wire = json.dumps(cleanup_to_wire(cleanup(), namespace=objects.NAMESPACE))
    yield json.loads(api.kubectl("create", "-o", "json", "-f", "-", input=wire).stdout)
    api.kubectl("delete", "-f", "-", input=wire)


def test_a_cleanup_comes_back_as_it_was_written(created: Json) -> None:
    read = cleanup_from_wire(created)
    assert replace(read, uid="", created_at="") == cleanup()
    assert read.uid
    assert read.created_at


def _patched(api: ControlPlane, smaller: cleanups.Cleanup) -> cleanups.Cleanup:
    patch = json.dumps({"spec": {"targets": targets_to_wire(smaller.targets)}})
    arguments = ("patch", "ctc", smaller.name, "--type=merge", "-p", patch, "-o", "json")
    done = api.kubectl("-n", objects.NAMESPACE, *arguments)
    return cleanup_from_wire(json.loads(done.stdout))


def test_a_revocation_is_a_change_that_the_api_server_allows(
    api: ControlPlane, created: Json
) -> None:
    before = cleanup_from_wire(created)
    first = cleanups.without(before, {(FRONTEND, BACKENDS[0])})
    assert first is not None
    assert first.backends_total == 4
    assert _patched(api, first) == first
    one_target = replace(first, targets=first.targets[1:])
    assert _patched(api, one_target) == one_target


def test_a_reuse_is_a_change_that_the_api_server_allows(api: ControlPlane, created: Json) -> None:
    before = cleanup_from_wire(created)
    first, *others = before.targets
    reused = replace(first.backends[0], reused=REUSE)
    target = replace(first, backends=(reused, *first.backends[1:]))
    after = replace(before, targets=(target, *others))
    assert _patched(api, after) == after


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(objects.minimal_policy(), id="smallest"),
        pytest.param(objects.biggest_policy(), id="biggest"),
        pytest.param(objects.example("ConntrackPolicy"), id="example"),
    ],
)
def test_the_schema_and_the_code_have_the_same_defaults(api: ControlPlane, body: Json) -> None:
    arguments = ("create", "--dry-run=server", "-o", "json", "-f", "-")
    defaulted = json.loads(api.kubectl(*arguments, input=json.dumps(body)).stdout)
    metadata = {"metadata": defaulted["metadata"]}
    assert read_policy(body | metadata) == read_policy(defaulted)


def _condition(name: str) -> Condition:
    return Condition(
        type=name,
        status="True",
        reason="AsExpected",
        message="All is well.",
        last_transition_time=objects.NOON,
        observed_generation=1,
    )


FULL_REPORT = NodeReport(
    node_name="wire",
    helper_version="0.1.0",
    swept_through=17,
    last_sweep_time=objects.NOON,
    addresses=("10.0.1.17", "2001:db8::17", "fe80::1"),
    kernel="6.12.37-61.105.amzn2023.x86_64",
    kube_proxy_mode="NFTables",
    sysctls=dict.fromkeys(SYSCTLS, 120),
    conditions=tuple(map(_condition, ("Ready", "DatapathSupported", "KubeProxyStale"))),
    counters=(
        PolicyCounters(
            policy_uid="8f14e45f-ceea-467f-a5f4-0e1e5d2f6a01",
            deleted=12,
            already_gone=1,
            failed=2,
            dry_run=3,
            kept=4,
        ),
    ),
    refused=(
        RefusedCleanup(
            name="endpoint-removed-16",
            reason="UnknownFormatVersion",
            message="spec.formatVersion is 2, allowed is 1",
        ),
    ),
    suspects=(Suspect(frontend=FRONTEND_V6, backend=BACKENDS[2], count=2, oldest_seconds=7),),
)


@pytest.mark.parametrize(
    "report",
    [
        pytest.param(NodeReport(node_name="wire"), id="nothing yet"),
        pytest.param(FULL_REPORT, id="every field"),
    ],
)
def test_a_report_comes_back_as_it_was_written(api: ControlPlane, report: NodeReport) -> None:
    body = objects.minimal_node() | {"metadata": {"name": report.node_name}}
    api.kubectl("create", "-f", "-", input=json.dumps(body))
    try:
        patch = json.dumps({"status": report_to_wire(report)})
        arguments = ("--subresource=status", "--type=merge", "-p", patch, "-o", "json")
        patched = api.kubectl("patch", "ctn", report.node_name, *arguments)
        assert report_from_wire(json.loads(patched.stdout)) == report
    finally:
        api.kubectl("delete", "ctn", report.node_name)
