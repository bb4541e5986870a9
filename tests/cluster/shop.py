"""A namespace with Services, backends and clients on several nodes: where removals are played."""

from __future__ import annotations

from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.cluster import workloads
from tests.cluster.installation import wait_account
from tests.cluster.observers import (
    Lines,
    PodNetwork,
    Seen,
    eventually,
    half_open,
    pod_network,
    wait_programmed,
)
from tests.rig.network import Namespace

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tests.cluster.observers import Place
    from tests.rig.cluster import Cluster
    from tests.rig.node import Node

VICTIM_NODE, SURVIVOR_NODE = 2, 3
CLIENT_NODES = (1, 3)  # a client far from everything, and one beside the survivor

# Cleanups aim at 5 s before the IP may be used again (30 s); a third of that leaves slack for a
# busy machine and still says "in time". How fast it really is, the bench measures.
IN_TIME = (30 - 5) / 3  # seconds

SYN_EACH_SECOND = "net.ipv4.tcp_syn_linear_timeouts=100"  # instead of ever more seldom


@dataclass(slots=True)
class Shop:
    """A namespace that tests fill; client pods stand ready on CLIENT_NODES."""

    cluster: Cluster
    name: str
    client_nodes: Sequence[int] = CLIENT_NODES
    _networks: dict[str, PodNetwork] = field(default_factory=dict)

    def open(self, labels: Mapping[str, str] | None = None) -> None:
        """Make the namespace and the clients."""
        self.apply(workloads.namespace(self.name, labels), workloads.programs(self.name))
        wait_account(self.cluster, self.name)
        self.apply(
            *(
                workloads.idle_pod(f"client{node}", self.name, node=self.cluster.node(node).name)
                for node in self.client_nodes
            )
        )
        self.wait_ready(*(f"client{node}" for node in self.client_nodes))
        for node in self.client_nodes:
            self.client(node).run("sysctl", "-qw", SYN_EACH_SECOND)

    def close(self) -> None:
        """Delete the namespace; nobody waits for the last of it."""
        self.cluster.kubectl("delete", "namespace", self.name, "--wait=false")

    def apply(self, *objects: Mapping[str, Any]) -> None:
        """Apply objects."""
        self.cluster.apply(workloads.as_yaml(*objects))

    def kubectl(self, *arguments: str) -> str:
        """Run kubectl in this namespace, and return what it says."""
        return self.cluster.kubectl("-n", self.name, *arguments).stdout

    def get(self, *arguments: str) -> Any:
        """Get an object or a list from this namespace."""
        return self.cluster.get_json("-n", self.name, *arguments)

    def wait_ready(self, *pods: str) -> None:
        """Wait until pods are Ready."""
        names = [f"pod/{pod}" for pod in pods]
        self.kubectl("wait", "--for=condition=Ready", *names, "--timeout=60s")

    def open_service(self, service: Mapping[str, Any], *backends: workloads.Backend) -> None:
        """Make a Service and its pods, and wait until it has all of them."""
        self.apply(service, *(backend.pod(self.name) for backend in backends))
        self.wait_ready(*(backend.name for backend in backends))
        ips = {ip for backend in backends for ip in self.ips_of(backend.name)[:1]}
        name = service["metadata"]["name"]
        eventually(lambda: ips <= self.endpoints(name, ready=True), 30, f"endpoints of {name}")
        frontends = [ip for ip in self.frontends(name) if ip != "None"]
        for node in self.client_nodes:
            wait_programmed(self.cluster.node(node), *frontends, *ips)

    def ips_of(self, pod: str) -> tuple[str, ...]:
        """Give the IPs of a pod, IPv4 first."""
        return tuple(each["ip"] for each in self.get("pod", pod)["status"]["podIPs"])

    def frontends(self, service: str) -> tuple[str, ...]:
        """Give the cluster IPs of a Service."""
        return tuple(self.get("service", service)["spec"]["clusterIPs"])

    def endpoints(self, service: str, *, ready: bool = False) -> set[str]:
        """Give the addresses in a Service's slices, optionally those that are ready only."""
        selector = f"kubernetes.io/service-name={service}"
        return {
            address
            for each in self.get("endpointslices", "-l", selector)["items"]
            for endpoint in each.get("endpoints") or ()
            if endpoint.get("conditions", {}).get("ready") or not ready
            for address in endpoint["addresses"]
        }

    def wait_left(self, service: str, addresses: Sequence[str], within: float = 30) -> None:
        """Wait until no slice of a Service has any of the addresses."""
        eventually(
            lambda: not self.endpoints(service) & set(addresses),
            within,
            f"{', '.join(addresses)} to leave the slices of {service}",
        )

    def network(self, pod: str, node: int) -> PodNetwork:
        """Give the network of a pod on a node."""
        if pod not in self._networks:
            self._networks[pod] = pod_network(self.cluster.node(node), pod, self.name)
        return self._networks[pod]

    def client(self, node: int) -> PodNetwork:
        """Give the network of the client pod on a node."""
        return self.network(f"client{node}", node)

    @contextmanager
    def clients(
        self, *frontends: str, port: int = 80, options: Sequence[str] = ()
    ) -> Iterator[dict[int, Lines]]:
        """Let the client pods connect to frontends, again and again; gives their lines by node."""
        told = {
            node: connect(self.client(node), frontend, port=port, options=options)
            for node in self.client_nodes
            for frontend in frontends
        }
        try:
            yield told
        finally:
            for lines in told.values():
                lines.stop()

    def force_delete(self, *pods: str) -> None:
        """Delete pods as nobody should."""
        self.kubectl("delete", "pod", *pods, "--force", "--grace-period=0", "--wait=false")


# A flow makes one request a connection, then the next connection: sooner or later each flow meets
# the backend that does not answer, and stays there with the kernel repeating its SYN.
FLOWS = 12
RESTLESS = ("--flows", str(FLOWS), "--again", "--requests", "1", "--every", "0.05")


def connect(
    place: Place, frontend: str, *, port: int = 80, options: Sequence[str] = (), seconds: int = 300
) -> Lines:
    """Start client.py somewhere."""
    where = ("--to", frontend, "--port", str(port), "--seconds", str(seconds))
    return Lines(place, "client.py", *where, *(options or RESTLESS))


@contextmanager
def lost(cluster: Cluster, *addresses: str, port: int = 0) -> Iterator[None]:
    """Let packets to addresses vanish between the nodes, without an answer.

    Args:
        cluster: whose router.
        addresses: of either family.
        port: only those to this TCP port.
    """
    router = Namespace(cluster.control_plane.network.router, "")
    table = f"lost_{abs(hash((addresses, port)))}"
    narrow = f"tcp dport {port} " if port else ""
    rules = "".join(
        f"  {'ip6' if ':' in address else 'ip'} daddr {address} {narrow}drop\n"
        for address in addresses
    )
    chain = " chain f {\n  type filter hook forward priority 0\n" + rules + " }\n"
    router.run("nft", "-f", "-", input=f"table inet {table} {{\n{chain}}}\n")
    try:
        yield
    finally:
        router.run("nft", "delete", "table", "inet", table)


def deafen(pod: PodNetwork, *, source: str = "", port: int = workloads.BACKEND_PORT) -> None:
    """Let a running pod lose the SYNs to a port, optionally those of one client only."""
    family = "ip6" if ":" in source else "ip"
    narrow = f"{family} saddr {source} " if source else ""
    rule = f"  {narrow}tcp dport {port} tcp flags & (syn | ack) == syn drop\n"
    chain = " chain i {\n  type filter hook input priority 0\n" + rule + " }\n"
    command = ("nsenter", "-t", str(pod.pid), "-n", "--", "nft", "-f", "-")
    pod.node.run(*command, input=f"table inet deaf {{\n{chain}}}\n")


def stale(nodes: Sequence[Node], addresses: Sequence[str]) -> dict[str, list[Seen]]:
    """List by node the half-open entries to backends; nodes without any are not named."""
    found: dict[str, list[Seen]] = defaultdict(list)
    for node in nodes:
        for address in addresses:
            if seen := half_open(node, address):
                found[node.name] += seen
    return dict(found)


def wait_stuck(nodes: Sequence[Node], addresses: Sequence[str]) -> None:
    """Wait until each of the nodes has half-open entries to some of the addresses."""
    names = {node.name for node in nodes}
    eventually(
        lambda: set(stale(nodes, addresses)) == names,
        30,
        f"half-open entries to {', '.join(addresses)} on {', '.join(sorted(names))}",
    )
