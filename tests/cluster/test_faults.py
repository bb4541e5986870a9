"""The API server away, helpers and controllers killed, ended, doubled and misnamed.

AWAY (30): seconds that the API server is away in the middle of a removal.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster import parts, workloads
from tests.cluster.figures import repetitions
from tests.cluster.installation import NAMESPACE, cleanups
from tests.cluster.observers import Lines, eventually, parse_entry
from tests.cluster.paper import Paper, PaperService, terminating, unready
from tests.cluster.parts import (
    CONTROLLER,
    HELPER,
    away,
    counted,
    cut_off,
    frozen,
    helper_pod,
    log_of,
    no_controller,
    pods,
    readyz,
    report,
    shell,
)
from tests.cluster.shop import IN_TIME, Shop

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.rig.cluster import Cluster
    from tests.rig.node import Node

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

AWAY = repetitions("AWAY", 30)
REUSE_AFTER = 30  # seconds: the controller's default
POLICY = "cluster-default"
SHORT = 5  # seconds of nf_conntrack_tcp_timeout_syn_sent where cleanups are to end soon
SYN_SENT = "net.netfilter.nf_conntrack_tcp_timeout_syn_sent"
NO_CAPABILITY = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "no-capability", "namespace": NAMESPACE},
    "spec": {
        "restartPolicy": "Never",
        "containers": [
            {
                "name": "node",
                "image": "synsweep:0.1.0",
                "imagePullPolicy": "IfNotPresent",
                "args": ["node", "--node-name", "node1"],
                "securityContext": {"runAsUser": 65532, "capabilities": {"drop": ["ALL"]}},
            }
        ],
    },
}


@pytest.fixture(scope="module")
def paper(synsweep: Cluster) -> Iterator[Paper]:
    """Give a namespace for Services without pods."""
    made = Paper(synsweep, "faults", network="198.18.1.0/24")
    made.open()
    yield made
    made.close()


@pytest.fixture(scope="module", autouse=True)
def settled(synsweep: Cluster) -> Iterator[None]:
    """Leave a cluster on which pods start and Services work, for the tests of other modules."""
    yield
    parts.renew_watches(synsweep)
    probe = Shop(synsweep, "settled", (1, 2, 3))
    probe.open()
    probe.close()


def lose(service: PaperService, address: str) -> None:
    """Remove the only backend as a killed pod goes: terminating first, then absent."""
    service.set(terminating(address))
    service.set()


@pytest.mark.usefixtures("operator_may_restart")
def test_a_helper_that_was_killed_sweeps_before_it_is_ready(
    synsweep: Cluster, paper: Paper
) -> None:
    node, gone = synsweep.node(1), paper.address()
    service, pod = paper.service("helper", gone), helper_pod(synsweep, synsweep.node(1))
    service.fill(node, gone)
    with frozen(node, "kube-proxy"), Lines(node, "endings.py") as endings:
        lose(service, gone)
        service.wait_clean(node, gone, IN_TIME)
        with frozen(node, "kubelet"):
            parts.kill(node, pod)
            endings.wait_for(lambda line: line.get("event") == "listening", 10)
            late = service.fill(node, gone)
            time.sleep(2.5)  # older than one second: the rule for what came after the cleanup
            assert service.half_open(node, gone)
        eventually(lambda: readyz(node) == "200", 60, "the helper to be back", every=0.02)
        ready_at = time.monotonic()
        assert service.half_open(node, gone) == []
        ended = [
            line["t"]
            for line in list(endings.lines)
            if (seen := parse_entry(line.get("ended", "")))
            and seen.frontend[0] == service.frontend
            and seen.backend[0] == gone
        ]
    assert len(ended) >= len(late)
    assert max(ended) < ready_at
    assert '"Deleted"' in log_of(synsweep, pod)
    parts.renew(synsweep, HELPER)


@pytest.mark.any_proxy
@pytest.mark.usefixtures("operator_may_restart")
def test_a_controller_that_was_killed_adopts_what_it_finds(synsweep: Cluster, paper: Paper) -> None:
    gone, stays = paper.address(), paper.address()
    service = paper.service("adopted", gone, stays)
    service.set(stays)
    service.wait_condemned(gone, IN_TIME)
    before = {each["metadata"]["name"] for each in cleanups(synsweep)}
    (controller,) = pods(synsweep, CONTROLLER)
    name, node = controller["metadata"]["name"], parts.node_of(synsweep, controller)
    address = controller["status"]["podIP"]
    parts.kill(node, name)
    eventually(lambda: not readyz(node, address).startswith("200"), 5, "the controller to go")
    eventually(lambda: readyz(node, address) == "200", 60, "the controller to be back", every=0.2)
    time.sleep(3)  # it plans once a second
    new = {
        each["metadata"]["name"]: targets
        for each in cleanups(synsweep)
        if each["metadata"]["name"] not in before
        # Other tests' namespaces are deleted at leisure: what goes with them is new.
        if (targets := [t for t in each["spec"]["targets"] if t["namespace"] == paper.name])
    }
    assert not new, "what was there before it came is nothing new"
    assert service.condemned(gone)
    service.set(stays, gone)
    service.wait_revoked(gone, IN_TIME)
    parts.renew(synsweep, CONTROLLER)


@pytest.mark.any_proxy
def test_a_backend_that_serves_again_is_taken_out_at_once(synsweep: Cluster, paper: Paper) -> None:
    node, returns, gone = synsweep.node(2), paper.address(), paper.address()
    service = paper.service("returns", returns)
    other = paper.service("stays-gone", gone)
    service.set()
    other.set()
    service.wait_condemned(returns, IN_TIME)
    other.wait_condemned(gone, IN_TIME)
    service.set(returns)  # a new pod with the old address
    service.wait_revoked(returns, IN_TIME)
    assert other.condemned(gone)
    service.fill(node, returns)
    time.sleep(2.5)
    assert service.half_open(node, returns), "entries to a backend that serves are left alone"


@pytest.mark.any_proxy
def test_a_backend_that_was_unready_for_long_is_gone_until_it_is_ready(
    synsweep: Cluster, paper: Paper
) -> None:
    node, flapping, healthy = synsweep.node(2), paper.address(), paper.address()
    service = paper.service("flapping", flapping)
    service.fill(node, flapping)
    service.set(unready(flapping), healthy)
    unready_at = time.monotonic()
    time.sleep(5)
    assert not service.condemned(flapping), "half of unreadyAfterSeconds is not enough"
    service.wait_condemned(flapping, 10 + IN_TIME)
    assert time.monotonic() - unready_at > 9
    service.wait_clean(node, flapping, IN_TIME)
    service.set(flapping, healthy)
    service.wait_revoked(flapping, IN_TIME)


@pytest.mark.any_proxy
@pytest.mark.usefixtures("operator_may_restart")
def test_the_controller_runs_from_a_shell_and_deletes_cleanups_that_are_over(
    synsweep: Cluster, paper: Paper
) -> None:
    gone, flags = paper.address(), ("--keep-for", "10s", "--sweep-for", "5s", "--reuse-after", "5s")
    service = paper.service("over", gone)
    for node in synsweep.nodes:
        node.run("sysctl", "-qw", f"{SYN_SENT}={SHORT}")
    parts.renew(synsweep, HELPER)  # they report the new timeout: a cleanup stays for twice of it
    try:
        with no_controller(synsweep), shell(synsweep, CONTROLLER, *flags) as controller:
            controller.wait_ready()
            service.set()
            service.wait_condemned(gone, IN_TIME)
            (cleanup,) = service.condemned(gone)
            spec = cleanup["spec"]
            assert (spec["reuseAfterSeconds"], spec["sweepForSeconds"]) == (5, 5)
            time.sleep(5)
            assert service.condemned(gone), "it stays for twice the time that an entry can live"
            eventually(lambda: not cleanups(synsweep), 90, "all cleanups to be deleted", every=0.5)
            assert controller.terminate() == 0
    finally:
        for node in synsweep.nodes:
            node.run("sysctl", "-qw", f"{SYN_SENT}=120")
        parts.renew(synsweep, HELPER)


@pytest.fixture
def without_helper(synsweep: Cluster) -> Iterator[Node]:
    """Give a node whose helper is dead, and stays dead because its kubelet does not look."""
    (controller,) = pods(synsweep, CONTROLLER)
    node = next(node for node in synsweep.nodes if node.name != controller["spec"]["nodeName"])
    pod = helper_pod(synsweep, node)
    with frozen(node, "kubelet"):
        parts.kill(node, pod)
        yield node
    eventually(lambda: readyz(node) == "200", 60, "the helper to be back", every=0.2)
    parts.renew(synsweep, HELPER)


@pytest.mark.any_proxy
@pytest.mark.usefixtures("operator_may_restart")
def test_the_helper_runs_from_a_shell_and_ends_in_time(
    synsweep: Cluster, paper: Paper, without_helper: Node
) -> None:
    node, gone = without_helper, paper.address()
    service = paper.service("shell", gone)
    service.fill(node, gone)
    with shell(synsweep, HELPER, "--node-name", node.name, node=node) as helper:
        helper.wait_ready()
        service.set()
        service.wait_clean(node, gone, IN_TIME)
        helper.wait_for("deleted a stale entry")
        assert helper.terminate() == 0
    with cut_off(synsweep, HELPER, "--node-name", node.name, node=node) as helper:
        time.sleep(2)
        assert helper.terminate() == 0


@pytest.mark.any_proxy
@pytest.mark.usefixtures("operator_may_restart")
def test_the_controller_ends_in_time_while_the_api_server_is_away(synsweep: Cluster) -> None:
    with no_controller(synsweep), cut_off(synsweep, CONTROLLER) as controller:
        time.sleep(2)
        assert controller.terminate() == 0


@pytest.mark.any_proxy
@pytest.mark.usefixtures("operator_may_restart")
def test_a_second_helper_on_a_node_is_noticed_and_said(synsweep: Cluster, paper: Paper) -> None:
    node, gone = synsweep.node(3), paper.address()
    service, pod = paper.service("twice", gone), helper_pod(synsweep, synsweep.node(3))
    service.fill(node, gone)

    def said() -> bool:
        ready = [each for each in report(synsweep, node)["conditions"] if each["type"] == "Ready"]
        return bool(ready and ready[0]["reason"] == "SecondHelper")

    with shell(synsweep, HELPER, "--node-name", node.name, node=node) as second:
        second.wait_ready()
        time.sleep(2)  # its first report, with its mark
        second.signal("STOP")
        service.set()
        service.wait_clean(node, gone, IN_TIME)
        words = f"another helper writes ConntrackNode {node.name}"
        eventually(lambda: words in log_of(synsweep, pod), 30, "the helper to say so", every=0.5)
        eventually(said, 30, "its condition to say so", every=0.5)
        second.signal("CONT")
    parts.renew(synsweep, HELPER)
    eventually(lambda: not said(), 60, "the condition to go with the second helper", every=0.5)


@pytest.mark.any_proxy
def test_a_wrong_node_name_is_said_in_one_line(synsweep: Cluster) -> None:
    node = synsweep.node(1)
    with shell(synsweep, HELPER, "--node-name", "node9", node=node) as helper:
        line = helper.wait_for("no Node node9 in this cluster: --node-name is wrong")
        assert line["level"] == "ERROR"
        assert helper.wait_end(30) == 2
    assert synsweep.kubectl("get", "conntracknode", "node9", check=False).returncode


@pytest.mark.any_proxy
def test_without_the_capability_the_helper_says_which_and_ends_with_3(synsweep: Cluster) -> None:
    pod = str(NO_CAPABILITY["metadata"]["name"])  # type: ignore[index]
    synsweep.apply(workloads.as_yaml(NO_CAPABILITY))

    def ended() -> Any:
        status = synsweep.get_json("-n", NAMESPACE, "pod", pod)["status"]
        states = [each["state"] for each in status.get("containerStatuses", ())]
        return states[0].get("terminated") if states else None

    try:
        assert eventually(ended, 60, "the pod to end", every=0.3)["exitCode"] == 3
        (line,) = log_of(synsweep, pod).splitlines()
        assert "CAP_NET_ADMIN" in line
    finally:
        synsweep.kubectl("-n", NAMESPACE, "delete", "pod", pod, "--force", "--grace-period=0")


def test_nodes_clean_from_memory_while_the_api_server_is_away(
    synsweep: Cluster, paper: Paper
) -> None:
    node, gone, next_gone = synsweep.node(1), paper.address(), paper.address()
    lost, after = paper.service("lost", gone), paper.service("after", next_gone)
    lost.fill(node, gone)
    early = after.fill(node, next_gone)
    before = counted(synsweep, POLICY)
    (controller,) = pods(synsweep, CONTROLLER)
    with frozen(node, "kube-proxy"):
        removed_at = time.monotonic()
        lose(lost, gone)
        lost.wait_clean(node, gone, IN_TIME)
        with away(synsweep):
            away_at = time.monotonic()
            late = lost.fill(node, gone)
            # The last sweep before the IP may be used again needs nobody.
            lost.wait_clean(node, gone, removed_at + REUSE_AFTER - time.monotonic())
            address = controller["status"]["podIP"]
            eventually(
                lambda: readyz(node, address).startswith("503 no word from the API server"),
                60,
                "the controller to say that it is not ready",
                every=0.5,
            )
            with shell(synsweep, CONTROLLER) as newcomer:  # it has never seen an API server
                newcomer.wait_for("waiting")
                assert newcomer.terminate() == 0
            time.sleep(max(0.0, away_at + AWAY - time.monotonic()))
        lose(after, next_gone)
        after.wait_clean(node, next_gone, IN_TIME)
    eventually(
        lambda: counted(synsweep, POLICY) >= before + len(late) + len(early),
        60,
        "the report of what was deleted meanwhile",
        every=0.5,
    )
    eventually(lambda: readyz(node, address) == "200", 30, "the controller to be ready again")
    synsweep.wait_ready()  # Kubernetes itself backs off for longer than we do
