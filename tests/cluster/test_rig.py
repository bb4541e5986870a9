"""The rig itself: a cluster that works, faults on demand, and nothing left behind, ever."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.rig import cgroups, claims, places
from tests.rig.cluster import PROXY_MODES, Cluster
from tests.rig.commands import run
from tests.rig.errors import RigError
from tests.rig.processes import Process, end, ourselves

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.rig.control_plane import ControlPlane

pytestmark = [pytest.mark.cluster, pytest.mark.any_proxy, pytest.mark.timeout(300)]

RUNS = int(os.environ.get("RUNS") or 3)
PODS = """\
apiVersion: v1
kind: Pod
metadata: {{name: server, labels: {{app: server}}}}
spec:
  nodeName: {server}
  terminationGracePeriodSeconds: 1
  containers:
  - name: server
    image: localhost/rig-python:1
    command: [python3, -m, http.server, --bind, "::", "8080"]
    readinessProbe: {{tcpSocket: {{port: 8080}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Pod
metadata: {{name: client}}
spec:
  nodeName: {client}
  terminationGracePeriodSeconds: 1
  containers:
  - {{name: client, image: "localhost/rig-python:1", command: [sleep, "100000"]}}
---
apiVersion: v1
kind: Service
metadata: {{name: server}}
spec:
  type: NodePort
  ipFamilyPolicy: PreferDualStack
  selector: {{app: server}}
  ports: [{{port: 80, targetPort: 8080, nodePort: 30080}}]
"""
FETCH = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=5).status)"
CONNECT = "import sys, socket; socket.create_connection((sys.argv[1], 10250), 1)"
START = (
    "import sys; from tests.rig.cluster import Cluster; "
    "Cluster.start(nodes=1, proxy_mode='iptables', name=sys.argv[1])"
)


def left_of(name: str) -> list[str]:
    """Name everything of a cluster that is still on this machine."""
    folder = places.state() / name
    found = [str(path) for path in places.NETNS.glob(f"ss-{name}-*")]
    found += [str(path) for path in Path("/sys/class/net").glob(f"ss-{name}")]
    found += [str(folder)] if folder.exists() else []
    for tree in cgroups.hierarchies():
        found += [str(path) for path in tree.path.glob(cgroups.root_of(name))]
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    found += [line for line in mounts if str(folder) in line]
    for cmdline in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = cmdline.read_bytes().split(b"\0")
        except OSError:
            continue
        if any(str(folder).encode() in word for word in words):
            found.append(f"{cmdline.parent.name}: {b' '.join(words).decode()[:200]}")
    return found


def url(address: str, port: int) -> str:
    """Spell a URL for an address of either family."""
    return f"http://[{address}]:{port}/" if ":" in address else f"http://{address}:{port}/"


def eventually(condition: Callable[[], bool], within: float, what: str) -> None:
    """Wait for a condition, by name."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, f"not within {within} s: {what}"
        time.sleep(0.2)


def wait_answer(fetch: Callable[[], subprocess.CompletedProcess[str]], address: str) -> None:
    """Fetch until kube-proxy has programmed the Service."""
    eventually(lambda: fetch().stdout == "200\n", 30, f"an answer from {address}")


def serve(cluster: Cluster) -> None:
    """Start a server on the last node, a client on the first, and a Service."""
    last = cluster.nodes[-1]
    cluster.apply(PODS.format(server=last.name, client=cluster.node(1).name))
    pods = ("pod/server", "pod/client")
    cluster.kubectl("wait", "--for=condition=Ready", *pods, "--timeout=60s")


@pytest.fixture(scope="module")
def small() -> Iterator[Cluster]:
    """Give a cluster of two nodes to break."""
    with Cluster.up(nodes=2, proxy_mode="nftables", name="small") as running:
        serve(running)
        yield running
    assert left_of("small") == []


@pytest.mark.parametrize("proxy_mode", PROXY_MODES)
def test_pods_reach_a_service_in_both_families_and_nothing_is_left(proxy_mode: str) -> None:
    with Cluster.up(nodes=2, proxy_mode=proxy_mode, name="self") as cluster:
        serve(cluster)
        service = cluster.get_json("service", "server")["spec"]
        assert len(service["clusterIPs"]) == 2
        for address in service["clusterIPs"]:
            fetch = ("python3", "-c", FETCH, url(address, 80))
            inside = partial(cluster.kubectl, "exec", "client", "--", *fetch, check=False)
            wait_answer(inside, address)
        for address in cluster.node(1).addresses:
            fetch = ("python3", "-c", FETCH, url(address, 30080))
            wait_answer(partial(cluster.outside.run, *fetch, check=False), address)
        listing = cluster.node(1).run("conntrack", "-L", "-p", "tcp", "--dport", "80").stdout
        assert "sport=8080" in listing, "the client's node translates the destination"
        proxy = cluster.node(1).run("nft", "list", "tables").stdout
        assert ("kube-proxy" in proxy) == (proxy_mode == "nftables")
    assert left_of("self") == []


@pytest.mark.parametrize("run_number", range(RUNS))
@pytest.mark.parametrize("seconds", [0.2, 1.0, 2.5, 4.0, 6.0, 9.0])
def test_nothing_is_left_of_a_cluster_whose_maker_was_killed(
    seconds: float, run_number: int
) -> None:
    with subprocess.Popen([sys.executable, "-c", START, "crash"], cwd=places.ROOT) as maker:
        time.sleep(seconds + run_number * 0.3)
        maker.kill()
    down = (sys.executable, "-m", "tests.rig", "down", "--name", "crash")
    run(*down, cwd=places.ROOT)
    assert left_of("crash") == []


def test_a_name_in_use_is_refused_and_a_left_one_is_taken_over(small: Cluster) -> None:
    with pytest.raises(RigError, match=f"in use by process {os.getpid()}"):
        claims.claim(small.name, with_nodes=True)
    down = (sys.executable, "-m", "tests.rig", "down", "--name", small.name)
    refused = run(*down, cwd=places.ROOT, check=False)
    assert refused.returncode == 1
    assert f"in use by process {os.getpid()}" in refused.stderr
    status = run(sys.executable, "-m", "tests.rig", "status", cwd=places.ROOT)
    assert f"{small.name}: in use by process {os.getpid()}" in status.stdout


def test_a_process_with_a_reused_pid_is_left_alone() -> None:
    me = ourselves()
    Process(pid=me.pid, started=me.started - 1).signal(signal.SIGKILL)
    end([Process(pid=me.pid, started=me.started - 1)])
    assert me.is_alive()


def test_a_power_cut_is_silent_and_the_pods_run_again_after_it(small: Cluster) -> None:
    node = small.node(2)
    node.power_off()
    with pytest.raises(RigError, match="node2 is off"):
        node.run("true")
    node.power_on()

    def answers() -> bool:
        pod = small.get_json("pod", "server")["status"]
        fetch = ("python3", "-c", FETCH, url(pod.get("podIP", "0.0.0.0"), 8080))
        return small.node(1).run(*fetch, check=False).stdout == "200\n"

    eventually(answers, 60, "the pod runs again")


def test_a_link_can_be_pulled_and_plugged(small: Cluster) -> None:
    def answer() -> list[bool]:
        """Say for each address of node2 whether its kubelet takes connections."""
        return [
            small.node(1).run("python3", "-c", CONNECT, address, check=False).returncode == 0
            for address in small.node(2).addresses
        ]

    eventually(lambda: answer() == [True, True], 30, "node2 answers")
    small.node(2).link_down()
    assert answer() == [False, False]
    small.node(2).link_up()
    eventually(lambda: answer() == [True, True], 10, "node2 is back")


def test_a_pod_gets_the_address_of_the_one_before(small: Cluster) -> None:
    node = small.node(1)
    wanted = [node.pod_cidrs[0].replace("0/24", "77"), node.pod_cidrs[1].replace("/64", "77")]
    node.limit_pod_ips(wanted)
    try:
        for _ in range(2):
            small.kubectl("delete", "pod", "client", "--now")
            small.apply(PODS.format(server=small.node(2).name, client=node.name))
            small.kubectl("wait", "--for=condition=Ready", "pod/client", "--timeout=60s")
            got = [item["ip"] for item in small.get_json("pod", "client")["status"]["podIPs"]]
            assert got == wanted
    finally:
        node.limit_pod_ips(())
    with pytest.raises(RigError, match="neighbours"):
        node.limit_pod_ips([wanted[0], wanted[0].replace("77", "99")])
    with pytest.raises(RigError, match=r"not in 10\.244\.1\.0/24"):
        node.limit_pod_ips(["10.244.9.1"])


def test_a_frozen_kube_proxy_keeps_its_old_rules_until_it_thaws(small: Cluster) -> None:
    node = small.node(1)

    def rules() -> str:
        return node.run("nft", "list", "table", "ip", "kube-proxy").stdout

    node.freeze_service("kube-proxy")
    small.kubectl("create", "service", "nodeport", "late", "--tcp=80", "--node-port=30099")
    try:
        time.sleep(2)
        assert "30099" not in rules()
        node.thaw_service("kube-proxy")
        eventually(lambda: "30099" in rules(), 10, "kube-proxy catches up")
    finally:
        small.kubectl("delete", "service", "late")


def test_services_of_a_node_stop_and_start_and_its_pods_run_on(small: Cluster) -> None:
    node = small.node(1)
    for service in ("kubelet", "kube-proxy", "containerd"):
        node.stop_service(service)
        with pytest.raises(RigError, match=f"{service} does not run on node1"):
            node.freeze_service(service)
    for service in ("containerd", "kube-proxy", "kubelet"):
        node.start_service(service)
    eventually(
        lambda: small.kubectl("exec", "client", "--", "true", check=False).returncode == 0,
        90,
        "the kubelet answers for the pod that ran on",
    )


def test_the_api_server_can_be_killed_frozen_and_brought_back(api_server: ControlPlane) -> None:
    api_server.freeze("kube-apiserver")
    frozen = api_server.kubectl("get", "ns", "--request-timeout=1s", check=False)
    api_server.thaw("kube-apiserver")
    assert frozen.returncode != 0
    api_server.kill("kube-apiserver")
    with pytest.raises(RigError, match="refused"):
        api_server.kubectl("get", "ns", "--request-timeout=2s")
    api_server.start("kube-apiserver")
    assert api_server.get_json("ns", "default")["metadata"]["name"] == "default"
