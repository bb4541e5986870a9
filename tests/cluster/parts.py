"""The operator's own processes: found in their pods, asked, ended, and started from a shell."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tests.cluster.installation import NAMESPACE
from tests.cluster.observers import Lines, PodNetwork, Told, eventually, pod_network
from tests.rig.control_plane import MANAGER, SCHEDULER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.rig.cluster import Cluster
    from tests.rig.network import Namespace
    from tests.rig.node import Node

CONTROLLER, HELPER = "controller", "node"
HTTP_PORT = 9469
FORWARD_PORT = 16443
SHELL_PORT = 19469  # of a program that a test starts beside the one in a pod
ENDS_WITHIN = {CONTROLLER: 9.0, HELPER: 6.0}  # seconds after SIGTERM: three times the promise
FETCH = (
    "import sys, urllib.error, urllib.request as r\n"
    "try: print(r.urlopen(sys.argv[1], timeout=5).status)\n"
    "except urllib.error.HTTPError as e: print(e.code, e.read().decode())\n"
    "except OSError as e: print(0, e)"
)


def pods(cluster: Cluster, component: str) -> list[dict[str, Any]]:
    """List the operator's pods of one component that are not being deleted."""
    label = f"app.kubernetes.io/component={component}"
    items: list[dict[str, Any]] = cluster.get_json("-n", NAMESPACE, "pods", "-l", label)["items"]
    return [pod for pod in items if not pod["metadata"].get("deletionTimestamp")]


def node_of(cluster: Cluster, pod: dict[str, Any]) -> Node:
    """Give the node that a pod runs on."""
    return next(node for node in cluster.nodes if node.name == pod["spec"]["nodeName"])


def helper_pod(cluster: Cluster, node: Node) -> str:
    """Give the name of the helper's pod on a node."""
    found = [pod for pod in pods(cluster, HELPER) if pod["spec"]["nodeName"] == node.name]
    return str(found[0]["metadata"]["name"])


def process_of(node: Node, pod: str) -> PodNetwork:
    """Give the main process of a pod of the operator; its `pid` is that on the node."""
    return pod_network(node, pod, NAMESPACE)


def kill(node: Node, pod: str) -> None:
    """End a pod's main process with SIGKILL."""
    node.run("kill", "-KILL", str(process_of(node, pod).pid))


def readyz(node: Node, host: str = "127.0.0.1", port: int = HTTP_PORT) -> str:
    """Ask a part whether it is ready: "200" if it is, else the status and what is missing."""
    url = f"http://{host}:{port}/readyz"
    return node.run(sys.executable, "-c", FETCH, url).stdout.strip()


def log_of(cluster: Cluster, pod: str, *options: str) -> str:
    """Read a pod's log."""
    return cluster.kubectl("-n", NAMESPACE, "logs", pod, *options, check=False).stdout


def renew(cluster: Cluster, component: str) -> None:
    """Replace the pods of a component, so that no test pays for another's restarts."""
    label = f"app.kubernetes.io/component={component}"
    cluster.kubectl("-n", NAMESPACE, "delete", "pod", "-l", label, "--wait=true")
    kind = "deployment" if component == CONTROLLER else "daemonset"
    name = f"{kind}/synsweep-{component}"
    cluster.kubectl("-n", NAMESPACE, "rollout", "status", name, "--timeout=120s")


def report(cluster: Cluster, node: Node) -> dict[str, Any]:
    """Give the status of a node's ConntrackNode."""
    status: dict[str, Any] = cluster.get_json("conntracknode", node.name).get("status", {})
    return status


def counted(cluster: Cluster, policy: str, what: str = "deleted") -> int:
    """Sum one of the counters that the nodes keep for a policy."""
    uid = cluster.get_json("conntrackpolicy", policy)["metadata"]["uid"]
    return sum(
        counters.get(what, 0)
        for node in cluster.get_json("conntracknodes")["items"]
        for counters in node.get("status", {}).get("counters", ())
        if counters["policyUID"] == uid
    )


class Shell:
    """`synsweep controller` or `synsweep node`, started from a shell with KUBECONFIG."""

    def __init__(
        self, component: str, *flags: str, kubeconfig: str, place: Node | Namespace
    ) -> None:
        self._component = component
        self._place = place
        argv = (
            *("sh", "-c", 'echo "{\\"pid\\": $$}"; exec "$@"', "sh"),
            *("env", f"KUBECONFIG={kubeconfig}", sys.executable, "-m", "synsweep"),
            *(component, "--http-address", f"127.0.0.1:{SHELL_PORT}", *flags),
        )
        pipes: dict[str, Any] = {
            "stdin": subprocess.PIPE,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.STDOUT,
        }
        self.told = Told(place.popen(*argv, **pipes))
        self._pid = int(self.told.wait_for(lambda line: "pid" in line, 10)["pid"])

    def wait_for(self, words: str, within: float = 30.0) -> dict[str, Any]:
        """Wait for a line of its log that has these words."""
        return self.told.wait_for(lambda line: words in str(line.get("message", line)), within)

    def wait_ready(self) -> None:
        """Wait until it says that it is ready."""
        url = f"http://127.0.0.1:{SHELL_PORT}/readyz"

        def ready() -> bool:
            return self._place.run(sys.executable, "-c", FETCH, url).stdout.strip() == "200"

        eventually(ready, 30, f"`synsweep {self._component}` to be ready", every=0.2)

    def signal(self, name: str) -> None:
        """Send it a signal."""
        self._place.run("kill", f"-{name}", str(self._pid), check=False)
        if name != "STOP":  # the nsenter in front of it stops with it, but does not wake with it
            self.told.process.send_signal(signal.SIGCONT)

    def wait_end(self, within: float) -> int:
        """Wait until it has ended, and give its exit code."""
        return self.told.process.wait(within)

    def terminate(self) -> int:
        """Send SIGTERM, hold it to the time it has, and give its exit code."""
        began = time.monotonic()
        self.signal("TERM")
        code = self.wait_end(30)
        assert time.monotonic() - began < ENDS_WITHIN[self._component]
        return code

    def close(self) -> None:
        """End it whatever it does."""
        if self.told.process.poll() is None:
            self.signal("KILL")
            self.wait_end(10)
        self.told.stop()


@contextmanager
def shell(
    cluster: Cluster, component: str, *flags: str, node: Node | None = None
) -> Iterator[Shell]:
    """Start one from a shell: on a node if one is given, else beside the API server."""
    place = node or cluster.control_plane
    started = Shell(component, *flags, kubeconfig=str(cluster.kubeconfig), place=place)
    try:
        yield started
    finally:
        started.close()


@contextmanager
def cut_off(
    cluster: Cluster, component: str, *flags: str, node: Node | None = None
) -> Iterator[Shell]:
    """Start one from a shell, wait until it is ready, and take the API server away from it alone.

    Kubernetes' own programs take half a minute to recover where it is killed again and again.
    """
    place = node or cluster.control_plane
    server = cluster.control_plane.server
    config = cluster.kubeconfig.read_text().replace(server, f"https://127.0.0.1:{FORWARD_PORT}")
    path = f"/tmp/synsweep-{component}.kubeconfig"  # noqa: S108 -- on a node that is thrown away
    place.run("sh", "-c", f"umask 077; cat >{path}", input=config)
    way = ("--port", str(FORWARD_PORT), "--to", server.removeprefix("https://"))
    with Lines(place, "forward.py", *way) as forward:
        forward.wait_for(lambda line: line.get("event") == "listening", 10)
        started = Shell(component, *flags, kubeconfig=path, place=place)
        try:
            started.wait_ready()
            forward.stop()
            yield started
        finally:
            started.close()
            place.run("rm", "-f", path)


@contextmanager
def away(cluster: Cluster, program: str = "kube-apiserver") -> Iterator[None]:
    """Kill the API server, and start it again at the end."""
    cluster.control_plane.kill(program)
    try:
        yield
    finally:
        cluster.control_plane.start(program)


def renew_watches(cluster: Cluster) -> None:
    """Restart what waits up to a minute after an outage before it follows the API server again."""
    for program in (MANAGER, SCHEDULER):
        cluster.control_plane.kill(program)
        cluster.control_plane.start(program)
    for node in cluster.nodes:
        node.stop_service("kube-proxy")
        node.start_service("kube-proxy")


@contextmanager
def frozen(node: Node, service: str) -> Iterator[None]:
    """Freeze a service of a node for a while."""
    node.freeze_service(service)
    try:
        yield
    finally:
        node.thaw_service(service)


@contextmanager
def no_controller(cluster: Cluster) -> Iterator[None]:
    """Run without the controller of the Deployment for a while."""
    scale(cluster, 0)
    try:
        yield
    finally:
        scale(cluster, 1)


def scale(cluster: Cluster, replicas: int) -> None:
    """Set how many controllers there are, and wait until it is so."""
    name = "deployment/synsweep-controller"
    cluster.kubectl("-n", NAMESPACE, "scale", name, f"--replicas={replicas}")
    if replicas:
        cluster.kubectl("-n", NAMESPACE, "rollout", "status", name, "--timeout=120s")
    else:
        label = "app.kubernetes.io/component=controller"
        cluster.kubectl(
            "-n", NAMESPACE, "wait", "pod", "-l", label, "--for=delete", "--timeout=60s"
        )
