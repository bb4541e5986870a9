"""Every call that cluster/ makes succeeds with the permissions of the account that makes it."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest

from synsweep.cluster.audit import Involved, Note, Recorder
from synsweep.cluster.cleanups import Cleanups
from synsweep.cluster.client import Api
from synsweep.cluster.errors import ApiRefused
from synsweep.cluster.listwatch import Added, Listed
from synsweep.cluster.metadata import missing_kinds, take_inventory
from synsweep.cluster.nodes import ConntrackNodes, DaemonSets
from synsweep.cluster.policies import Policies
from synsweep.core import cleanup as cleanups
from synsweep.core.flow import Address
from tests.cluster import crd_objects as objects
from tests.cluster.test_manifests import BASE, NAMESPACE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from synsweep.cluster.listwatch import ListWatch
    from tests.rig.control_plane import ControlPlane

pytestmark = pytest.mark.cluster

KINDS = ("conntrackpolicies", "conntrackcleanups", "conntracknodes")
BACKENDS = tuple(Address(ip_address(ip), 8080) for ip in ("10.0.0.10", "10.0.0.11"))


@pytest.fixture(scope="module")
def api_of(
    api_server: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Api]]:
    """Both accounts, each with a token of its own as in its pod."""
    api_server.kubectl("apply", "-k", BASE)
    api_server.kubectl("wait", "--for=condition=Established", "--timeout=30s", "crd", "--all")
    folder = tmp_path_factory.mktemp("accounts")
    apis = {
        account: Api.load(
            user_agent="test",
            environ={"KUBECONFIG": str(_kubeconfig(api_server, f"synsweep-{account}", folder))},
        )
        for account in ("controller", "node")
    }
    yield apis
    for api in apis.values():
        api.close()


def _kubeconfig(api_server: ControlPlane, account: str, folder: Path) -> Path:
    """The administrator's kubeconfig with a token in the place of its certificate."""
    config = json.loads(api_server.kubeconfig.read_text())
    token = api_server.kubectl("-n", NAMESPACE, "create", "token", account).stdout.strip()
    config["users"][0]["user"] = {"token": token}
    path = folder / account
    path.write_text(json.dumps(config))
    return path


def _first_events(watch: ListWatch, trigger: Any) -> list[Any]:
    """The list, and the first event of the watch after `trigger` has been called."""
    seen = []
    for event in watch.events():
        seen.append(event)
        if isinstance(event, Listed):
            trigger()
        if isinstance(event, Added):
            watch.stop()
    assert watch.failures == 0
    return [type(event) for event in seen]


def _cleanup(sequence: int) -> cleanups.Cleanup:
    return cleanups.Cleanup(
        name=f"endpoint-removed-{sequence}",
        uid="",
        policy="gone",
        policy_uid="8f14e45f-ceea-467f-a5f4-0e1e5d2f6a01",
        sequence=sequence,
        mode=cleanups.Mode.ENFORCE,
        misrouted=cleanups.Misrouted.REPORT,
        reason=cleanups.CleanupReason.ENDPOINT_REMOVED,
        gone_for_seconds=0.0,
        removed_at=objects.NOON,
        reuse_after_seconds=30,
        sweep_for_seconds=60,
        report_within_seconds=1,
        nodes=(),
        targets=(
            cleanups.CleanupTarget(
                id=0,
                namespace="shop",
                service="cart",
                port_name="",
                frontends=(Address(ip_address("10.96.0.10"), 80),),
                backends=tuple(
                    cleanups.TargetBackend(address=address, terminated=True) for address in BACKENDS
                ),
            ),
        ),
    )


@pytest.mark.parametrize("account", ["controller", "node"])
def test_an_account_sees_that_the_kinds_are_there(api_of: dict[str, Api], account: str) -> None:
    assert missing_kinds(api_of[account], KINDS) == ()


@pytest.mark.parametrize(
    "path",
    [
        "/apis/discovery.k8s.io/v1/endpointslices",
        "/api/v1/services",
        "/api/v1/namespaces",
        "/apis/synsweep.io/v1alpha1/conntrackpolicies",
        "/apis/synsweep.io/v1alpha1/conntracknodes",
    ],
)
def test_the_controller_lists_and_watches(api_of: dict[str, Api], path: str) -> None:
    inventory = take_inventory(api_of["controller"], path)
    query = {"watch": "true", "timeoutSeconds": "1"}
    query["resourceVersion"] = inventory.resource_version
    with api_of["controller"].stream(path, query=query, read_timeout=5) as stream:
        assert list(stream.lines()) == []


def test_the_controller_writes_cleanups_and_the_helper_follows_them(
    api_of: dict[str, Api],
) -> None:
    written = Cleanups(api_of["controller"], NAMESPACE)
    first = _cleanup(1)
    try:
        events = _first_events(
            Cleanups(api_of["node"], NAMESPACE).watch(), lambda: written.create(first)
        )
        assert events == [Listed, Added]
        assert written.create(first).uid, "its own, whose answer was lost"
        target = first.targets[0]
        smaller = replace(target, backends=target.backends[1:])
        written.replace_targets(replace(first, targets=(smaller,)))
        events = _first_events(written.watch(), lambda: written.create(_cleanup(2)))
        assert events == [Listed, Added]
    finally:
        written.delete("endpoint-removed-1")
        written.delete("endpoint-removed-2")


def test_the_controller_counts_helpers(api_of: dict[str, Api]) -> None:
    daemonsets = DaemonSets(api_of["controller"])
    assert daemonsets.desired(NAMESPACE, "synsweep-node") == 0


def test_the_controller_speaks_on_policies_and_services(
    api_server: ControlPlane, api_of: dict[str, Api]
) -> None:
    policy = json.loads(
        api_server.kubectl(
            "create", "-o", "json", "-f", "-", input=json.dumps(objects.minimal_policy())
        ).stdout
    )
    try:
        Policies(api_of["controller"]).patch_status("minimal", {"matchedServices": 1})
        service = api_server.get_json("service", "kubernetes")
        recorder = Recorder(api_of["controller"], component="controller", instance="test")
        recorder.start()
        for body in (policy, service):
            for _ in range(2):  # the second one raises the count of the first
                recorder.record(_note(body))
        recorder.stop(within=10)
        assert recorder.dropped == 0
        events = api_server.get_json("events", "-n", "default")["items"]
        counts = {e["involvedObject"]["kind"]: e["count"] for e in events if e["reason"] == "Tried"}
        assert counts == {"ConntrackPolicy": 2, "Service": 2}
    finally:
        api_server.kubectl("delete", "ctp", "minimal")


def _note(body: dict[str, Any]) -> Note:
    metadata = body["metadata"]
    involved = Involved(
        api_version=body["apiVersion"],
        kind=body["kind"],
        namespace=metadata.get("namespace", ""),
        name=metadata["name"],
        uid=metadata["uid"],
    )
    return Note(
        involved=involved, severity="Normal", reason="Tried", action="Try", message="Tried."
    )


def test_the_helper_keeps_its_report(api_server: ControlPlane, api_of: dict[str, Api]) -> None:
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node1"}}
    api_server.kubectl("create", "-f", "-", input=json.dumps(node))
    reports = ConntrackNodes(api_of["node"])
    try:
        assert reports.get("node1") is None
        owner = reports.node_owner("node1")
        assert owner is not None
        created = reports.create("node1", owner=owner)
        assert reports.create("node1", owner=owner)["metadata"]["uid"] == created["metadata"]["uid"]
        reports.patch_status("node1", {"formatVersion": 1, "sweptThrough": 3})
        reports.annotate("node1", {"synsweep.io/test": "1"})
        own = reports.get("node1")
        assert own is not None
        assert own["status"]["sweptThrough"] == 3
    finally:
        api_server.kubectl("delete", "node", "node1")
        api_server.kubectl("delete", "ctn", "node1", "--ignore-not-found")


def test_the_helper_writes_no_cleanup(api_of: dict[str, Api]) -> None:
    with pytest.raises(ApiRefused) as refused:
        Cleanups(api_of["node"], NAMESPACE).create(_cleanup(3))
    assert refused.value.reason == "Forbidden"


def test_the_controller_writes_no_report(api_of: dict[str, Api]) -> None:
    with pytest.raises(ApiRefused) as refused:
        ConntrackNodes(api_of["controller"]).create("node1", owner=None)
    assert refused.value.reason == "Forbidden"
