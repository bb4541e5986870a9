"""The controller against a real API server, with exactly the rights that the manifests give it.

No nodes and no kubelets: EndpointSlices and reports are written by the test, which makes every
moment exact.
"""

from __future__ import annotations

import os
import signal
import time
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from synsweep.cluster.client import Api
from synsweep.cluster.errors import ApiRefused
from synsweep.cluster.listwatch import Added, ListWatch, age
from tests.cluster.running import (
    NAMESPACE,
    ROOT,
    RunningController,
    controller,
    eventually,
    service_account,
)
from tests.rig.control_plane import APISERVER, ControlPlane

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.cluster, pytest.mark.any_proxy]

GROUP = "/apis/synsweep.io/v1alpha1"
CLEANUPS = f"{GROUP}/namespaces/{NAMESPACE}/conntrackcleanups"
POLICIES = f"{GROUP}/conntrackpolicies"
NODES = f"{GROUP}/conntracknodes"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
SERVICES = "/api/v1/namespaces/default/services"


class Desk:
    """The test's own hand in the API."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane
        self.api = Api.load(user_agent="test", environ={"KUBECONFIG": str(plane.kubeconfig)})

    def service(self, name: str = "web") -> str:
        """Create a Service; returns its cluster IP."""
        ports = [{"name": "http", "port": 80, "targetPort": 8080}]
        body = {"metadata": {"name": name}, "spec": {"ports": ports}}
        return str(self.api.post(SERVICES, body).body["spec"]["clusterIP"])

    def slice(self, *ips: str, name: str = "web-1", unready: tuple[str, ...] = ()) -> None:
        """Create or change an EndpointSlice."""
        endpoints = [{"addresses": [ip], "conditions": {"ready": ip not in unready}} for ip in ips]
        try:
            self.api.patch(f"{SLICES}/{name}", {"endpoints": endpoints})
        except ApiRefused as refused:
            if not refused.not_found:
                raise
            service = name.rpartition("-")[0]
            labels = {"kubernetes.io/service-name": service}
            body = {
                "metadata": {"name": name, "labels": labels},
                "addressType": "IPv4",
                "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
                "endpoints": endpoints,
            }
            self.api.post(SLICES, body)

    def policy(self, name: str = "all", **spec: Any) -> None:
        """Create a policy."""
        body = {
            "apiVersion": "synsweep.io/v1alpha1",
            "kind": "ConntrackPolicy",
            "metadata": {"name": name},
            "spec": spec,
        }
        self.api.post(POLICIES, body)

    def report(self, node: str, **status: Any) -> None:
        """Write a ConntrackNode."""
        body = {
            "apiVersion": "synsweep.io/v1alpha1",
            "kind": "ConntrackNode",
            "metadata": {"name": node},
        }
        try:
            self.api.post(NODES, body)
        except ApiRefused as refused:
            if refused.reason != "AlreadyExists":
                raise
        ready = {
            "type": "Ready",
            "status": "True",
            "reason": "Sweeping",
            "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
        status = {"formatVersion": 1, "conditions": [ready]} | status
        self.api.patch(f"{NODES}/{node}/status", {"status": status})

    def cleanups(self) -> list[dict[str, Any]]:
        """All that are in the API."""
        return list(self.api.get(CLEANUPS).body["items"])

    def condemned(self) -> set[str]:
        """All backends that some cleanup names."""
        return {
            backend["ip"]
            for body in self.cleanups()
            for target in body["spec"]["targets"]
            for backend in target["backends"]
        }

    def status(self, name: str = "all") -> dict[str, Any]:
        """A policy's status."""
        return dict(self.api.get(f"{POLICIES}/{name}").body.get("status") or {})

    def condition(self, type_: str, name: str = "all") -> dict[str, Any]:
        """One of a policy's conditions."""
        conditions = self.status(name).get("conditions") or ()
        return next((one for one in conditions if one["type"] == type_), {})

    def clear(self) -> None:
        """Delete what tests made."""
        for path in (POLICIES, CLEANUPS, NODES, SLICES):
            for body in self.api.get(path).body["items"]:
                if body["metadata"]["name"] != "kubernetes":
                    self.api.delete(f"{path}/{body['metadata']['name']}")
        for body in self.api.get(SERVICES).body["items"]:
            if body["metadata"]["name"] != "kubernetes":
                self.api.delete(f"{SERVICES}/{body['metadata']['name']}")


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    """An API server of our own: some tests kill it."""
    with ControlPlane.up(name=f"ctl-{os.getpid() % 100_000}") as running:
        yield running


@pytest.fixture(scope="module")
def kubeconfig(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The controller's own rights, and no more."""
    plane.kubectl("apply", "-k", str(ROOT / "manifests" / "base"))
    plane.kubectl("wait", "--for=condition=Established", "--timeout=30s", "crd", "--all")
    return service_account(plane, "synsweep-controller", tmp_path_factory.mktemp("kubeconfig"))


@pytest.fixture
def desk(plane: ControlPlane, kubeconfig: Path) -> Iterator[Desk]:
    """A cluster in which nothing is left of other tests."""
    del kubeconfig
    found = Desk(plane)
    yield found
    found.clear()


@pytest.fixture
def running(kubeconfig: Path, desk: Desk, tmp_path: Path) -> Iterator[RunningController]:
    """A controller that is ready, a Service with two backends, a policy for everything."""
    desk.service()
    desk.slice("10.1.0.1", "10.1.0.2")
    desk.policy()
    with controller(kubeconfig, tmp_path) as process:
        yield process


def test_a_removal_is_published_within_half_a_second_and_a_return_taken_out_at_once(
    desk: Desk, running: RunningController
) -> None:
    frontend = desk.api.get(f"{SERVICES}/web").body["spec"]["clusterIP"]
    for _ in range(3):
        desk.slice("10.1.0.1")
        took = eventually(desk.cleanups, within=5, describe=f"a cleanup\n{running.log}")
        assert took < 0.5
        [body] = desk.cleanups()
        spec = body["spec"]
        assert (spec["mode"], spec["reason"]) == ("Enforce", "EndpointRemoved")
        assert (spec["reuseAfterSeconds"], spec["sweepForSeconds"]) == (30, 60)
        [target] = spec["targets"]
        assert target["frontends"] == [{"ip": frontend, "port": 80}]
        assert [backend["ip"] for backend in target["backends"]] == ["10.1.0.2"]
        assert body["metadata"]["ownerReferences"][0]["name"] == "all"
        desk.slice("10.1.0.1", "10.1.0.2")
        assert eventually(lambda: not desk.cleanups(), within=5, describe="revoked") < 0.5


def test_part_of_a_cleanup_is_taken_out(desk: Desk, running: RunningController) -> None:
    desk.slice()
    eventually(lambda: len(desk.condemned()) == 2, within=5, describe=running.log)
    desk.slice("10.1.0.2")
    eventually(lambda: desk.condemned() == {"10.1.0.1"}, within=1, describe=running.log)
    assert len(desk.cleanups()) == 1


def test_nothing_is_condemned_by_starting(desk: Desk, running: RunningController) -> None:
    del running
    time.sleep(2)
    assert desk.cleanups() == []


def test_deleted_services_and_slices_are_cleaned_from_what_was_known(
    desk: Desk, running: RunningController
) -> None:
    desk.api.delete(f"{SERVICES}/web")
    desk.api.delete(f"{SLICES}/web-1")
    eventually(lambda: desk.condemned() == {"10.1.0.1", "10.1.0.2"}, within=5, describe=running.log)


def test_a_policys_mode_and_end_act_on_cleanups_in_progress(
    desk: Desk, running: RunningController
) -> None:
    desk.slice("10.1.0.1")
    eventually(desk.cleanups, within=5, describe=running.log)
    desk.api.patch(f"{POLICIES}/all", {"spec": {"mode": "DryRun"}})
    eventually(
        lambda: [one["spec"]["mode"] for one in desk.cleanups()] == ["DryRun"],
        within=2,
        describe=running.log,
    )
    desk.api.patch(f"{POLICIES}/all", {"spec": {"mode": "Disabled"}})
    eventually(lambda: not desk.cleanups(), within=1, describe=running.log)
    desk.api.patch(f"{POLICIES}/all", {"spec": {"mode": "Enforce"}})
    eventually(desk.cleanups, within=2, describe=running.log)
    desk.api.delete(f"{POLICIES}/all")
    eventually(lambda: not desk.cleanups(), within=1, describe=running.log)


def test_an_unready_backend_is_condemned_after_its_policys_time(
    desk: Desk, running: RunningController
) -> None:
    desk.api.patch(f"{POLICIES}/all", {"spec": {"unreadyAfterSeconds": 2}})
    desk.slice("10.1.0.1", "10.1.0.2", unready=("10.1.0.2",))
    took = eventually(desk.cleanups, within=6, describe=running.log)
    assert took > 1.9
    [body] = desk.cleanups()
    assert body["spec"]["reason"] == "EndpointUnready"


def test_addresses_of_nodes_are_never_condemned(desk: Desk, running: RunningController) -> None:
    del running
    desk.report("node1", addresses=["10.1.0.2"])
    time.sleep(0.5)
    desk.slice("10.1.0.1")
    time.sleep(1.5)
    assert desk.cleanups() == []


def test_the_policys_status_says_what_happens_and_what_does_not(
    desk: Desk, running: RunningController
) -> None:
    desk.report("node1")
    eventually(
        lambda: desk.condition("Ready").get("status") == "True", within=25, describe=running.log
    )
    status = desk.status()
    assert status["observedGeneration"] == 1
    assert (status["nodesReady"], status["nodesTotal"]) == (1, 0)  # nobody runs the DaemonSet here
    assert status["matchedServices"] == 2  # and the API server's own
    assert desk.condition("MisroutedHandled")["reason"] == "NotSupported"
    versions = set()
    for _ in range(12):
        versions.add(desk.api.get(f"{POLICIES}/all").body["metadata"]["resourceVersion"])
        time.sleep(1)
    assert len(versions) <= 2


def test_what_the_nodes_deleted_is_seen_by_kubectl_describe(
    desk: Desk, running: RunningController, plane: ControlPlane
) -> None:
    uid = desk.api.get(f"{POLICIES}/all").body["metadata"]["uid"]
    desk.report("node1", counters=[{"policyUID": uid, "deleted": 5}])
    time.sleep(1)
    desk.report("node1", counters=[{"policyUID": uid, "deleted": 8, "dryRun": 1}])
    eventually(lambda: desk.status().get("deletedEntries") == 8, within=25, describe=running.log)

    def described() -> str:
        return plane.kubectl("describe", "conntrackpolicy", "all").stdout

    eventually(lambda: "StaleEntriesFound" in described(), within=5, describe=described())
    assert "StaleEntriesDeleted" in described()
    assert "on node node1" in described()


def test_a_bad_policy_that_the_schema_lets_through_is_set_aside_by_name(
    desk: Desk, running: RunningController, plane: ControlPlane
) -> None:
    """The CRD's own rules are lifted for this one: an older CRD may be installed."""
    crd = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/conntrackpolicies.synsweep.io"
    mode = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/mode/enum"
    lift = [{"op": "add", "path": f"{mode}/-", "value": "Sometimes"}]
    desk.api.patch(crd, lift, content_type="application/json-patch+json")
    try:

        def accepted() -> bool:
            try:
                desk.api.patch(f"{POLICIES}/all", {"spec": {"mode": "Sometimes"}})
            except ApiRefused:
                return False
            return True

        eventually(accepted, within=10, describe="the lifted schema")
        eventually(
            lambda: desk.condition("Ready").get("reason") == "PolicyInvalid",
            within=15,
            describe=running.log,
        )
        assert "spec.mode" in desk.condition("Ready")["message"]
        desk.slice("10.1.0.1")
        eventually(desk.cleanups, within=2, describe=running.log)  # the last good behaviour
        eventually(
            lambda: "PolicyInvalid" in plane.kubectl("describe", "ctp", "all").stdout,
            within=5,
            describe="the Event",
        )
    finally:
        desk.api.delete(f"{POLICIES}/all")
        plane.kubectl("apply", "-k", str(ROOT / "crds"))


def test_a_restart_adopts_what_it_finds(
    desk: Desk, running: RunningController, kubeconfig: Path, tmp_path: Path
) -> None:
    desk.slice()
    eventually(lambda: len(desk.condemned()) == 2, within=5, describe=running.log)
    [before] = desk.cleanups()
    running.kill()
    desk.slice("10.1.0.1")
    with controller(kubeconfig, tmp_path) as second:
        eventually(lambda: desk.condemned() == {"10.1.0.2"}, within=5, describe=second.log)
        desk.slice("10.1.0.3", name="web-2")
        time.sleep(0.2)
        desk.api.delete(f"{SLICES}/web-2")
        eventually(lambda: len(desk.cleanups()) == 2, within=5, describe=second.log)
        sequences = [one["spec"]["sequence"] for one in desk.cleanups()]
        assert max(sequences) > before["spec"]["sequence"]
        assert second.stop() == 0


def test_cleanups_that_are_over_are_deleted_also_those_of_a_former_controller(
    desk: Desk, running: RunningController, kubeconfig: Path, tmp_path: Path
) -> None:
    desk.slice("10.1.0.1")
    eventually(desk.cleanups, within=5, describe=running.log)
    running.kill()
    with controller(kubeconfig, tmp_path, "--keep-for", "60s", "--sweep-for", "5s") as second:
        assert len(desk.cleanups()) == 1
        assert second.stop() == 0
    [body] = desk.cleanups()
    with controller(kubeconfig, tmp_path, "--keep-for", "5s", "--sweep-for", "5s") as third:
        eventually(lambda: not desk.cleanups(), within=15, describe=f"{body}\n{third.log}")


def test_the_api_server_may_die(
    desk: Desk, running: RunningController, plane: ControlPlane
) -> None:
    """Killed right after a removal: the removal is published when it is back, with its true age."""
    desk.slice("10.1.0.1")
    removed_at = time.monotonic()
    plane.kill(APISERVER)
    try:
        eventually(
            lambda: running.ask("/readyz")[0] == 503, within=25, describe="not ready without API"
        )
        assert running.ask("/healthz")[0] == 200
    finally:
        plane.start(APISERVER)
    eventually(desk.cleanups, within=7, describe=running.log)
    [body] = desk.cleanups()
    in_api_for = age(body, desk.api.get("/version").server_time)  # > 0: written before the kill
    gone_for = body["spec"]["goneForSeconds"] + in_api_for
    assert gone_for == pytest.approx(time.monotonic() - removed_at, abs=8)
    desk.slice("10.1.0.2")
    eventually(lambda: desk.condemned() == {"10.1.0.1"}, within=2, describe=running.log)
    running.wait_ready()
    assert running.process.poll() is None


def test_removals_while_it_was_frozen_are_found(desk: Desk, running: RunningController) -> None:
    running.process.send_signal(signal.SIGSTOP)
    desk.api.delete(f"{SLICES}/web-1")
    time.sleep(1)
    running.process.send_signal(signal.SIGCONT)
    eventually(lambda: len(desk.condemned()) == 2, within=3, describe=running.log)


def test_it_ends_in_good_order_within_3_s(running: RunningController) -> None:
    started = time.monotonic()
    assert running.stop() == 0
    assert time.monotonic() - started < 3


def test_its_metrics_tell_of_its_work(desk: Desk, running: RunningController) -> None:
    desk.slice("10.1.0.1")
    eventually(desk.cleanups, within=5, describe=running.log)
    _, metrics = running.ask("/metrics")
    assert 'synsweep_cleanups_published_total{reason="EndpointRemoved"} 1.0' in metrics
    assert 'synsweep_cleanup_publish_delay_seconds_bucket{le="0.5"} 1.0' in metrics
    assert "synsweep_watch_restarts_total 0.0" in metrics


def test_it_needs_no_right_that_it_does_not_have(running: RunningController) -> None:
    time.sleep(2)
    assert "orbidden" not in running.log
    assert "Traceback" not in running.log


def test_the_watch_loop_survives_a_real_api_server(desk: Desk) -> None:
    """Bookmarks, the server's timeout and resuming, on TLS; and stop() while it reads."""
    watch = ListWatch(desk.api, POLICIES, watch_seconds=(1, 1))
    events = watch.events()
    next(events)
    started = time.monotonic()
    while time.monotonic() - started < 2.5:
        desk.policy(f"p-{uuid.uuid4()}")
        assert isinstance(next(events), Added)
    assert watch.failures == 0
    watch.stop()
    assert list(events) == []


def test_without_the_kinds_it_waits_and_says_so(tmp_path: Path) -> None:
    with (
        ControlPlane.up(name=f"ctl-w{os.getpid() % 10_000}") as bare,
        controller(bare.kubeconfig, tmp_path, ready=False) as waiting,
    ):
        eventually(
            lambda: "conntrackpolicies" in waiting.ask("/readyz")[1],
            within=10,
            describe=waiting.log,
        )
        assert waiting.ask("/healthz")[0] == 200
        bare.kubectl("apply", "-k", str(ROOT / "manifests" / "base"))
        waiting.wait_ready()
        assert "does not serve" in waiting.log
        assert waiting.stop() == 0


def test_without_a_configuration_it_says_what_to_do(tmp_path: Path) -> None:
    lost = RunningController(tmp_path / "nowhere", tmp_path)
    assert lost.process.wait(10) == 4
    assert "set KUBECONFIG" in lost.log
