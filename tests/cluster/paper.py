"""Services whose backends exist on paper only: EndpointSlices written by hand, over no pods at all.

Every address of theirs is in a network that the rig's router swallows without a word, as a network
does that has lost a pod. So a removal is one write, nobody but the test ever changes a slice, and
of half-open entries there are exactly those that a test made, whenever it wants them.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from ipaddress import ip_network
from itertools import count
from typing import TYPE_CHECKING, Any, TypeAlias

from tests.cluster import workloads
from tests.cluster.installation import cleanups
from tests.cluster.observers import Seen, entries, eventually
from tests.rig.commands import run

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.rig.cluster import Cluster
    from tests.rig.node import Node

VOID = "198.18.0.0/15"  # RFC 2544: never on a real network
PORT, BACKEND_PORT = 80, 8080
SYNS = workloads.PROGRAMS / "syns.py"
SOURCE_PORTS = range(20_000, 32_000)  # below the kernel's own choice

Endpoint: TypeAlias = dict[str, Any]

_ports: Iterator[int] = count(SOURCE_PORTS.start)


def endpoint(address: str, **conditions: bool) -> Endpoint:
    """Make an endpoint; absent conditions are those of a healthy pod."""
    healthy = {"ready": True, "serving": True, "terminating": False}
    return {"addresses": [address], "conditions": healthy | conditions}


def unready(address: str) -> Endpoint:
    """Make an endpoint that failed its readiness probe."""
    return endpoint(address, ready=False, serving=False)


def terminating(address: str) -> Endpoint:
    """Make an endpoint whose pod is being deleted and does not answer any more."""
    return endpoint(address, ready=False, serving=False, terminating=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperService:
    """A Service and its one slice."""

    cluster: Cluster
    namespace: str
    name: str
    frontend: str

    def set(self, *endpoints: Endpoint | str) -> None:
        """Write the slice: from now on the Service has these backends."""
        made = [endpoint(each) if isinstance(each, str) else each for each in endpoints]
        patch = json.dumps({"endpoints": made})
        self.cluster.kubectl(
            "-n", self.namespace, "patch", "endpointslice", self.name, "--type=merge", "-p", patch
        )

    def knock(self, node: Node, syns: int = 8) -> None:
        """Send SYNs from a node to the Service, each from a source port never used before."""
        first = next(_ports)
        if first + syns > SOURCE_PORTS.stop:
            raise ValueError("all source ports have been used")
        for _ in range(syns - 1):
            next(_ports)
        node.run(
            *(sys.executable, str(SYNS), "--to", self.frontend, "--port", str(PORT)),
            *("--count", str(syns), "--first-source-port", str(first)),
        )

    def half_open(self, node: Node, address: str) -> list[Seen]:
        """List the half-open entries on a node that lead from this Service to one backend."""
        found = entries(node, backend=address, frontend=self.frontend)
        return [seen for seen in found if seen.half_open]

    def fill(self, node: Node, address: str, least: int = 4, syns: int = 8) -> list[Seen]:
        """Knock until there are entries to that backend, which kube-proxy may not know yet."""

        def filled() -> list[Seen]:
            self.knock(node, syns)
            found = self.half_open(node, address)
            return found if len(found) >= least else []

        what = f"half-open entries from {self.name} to {address} on {node.name}"
        return eventually(filled, 30, what, every=0.3)

    def condemned(self, address: str) -> list[dict[str, Any]]:
        """List the live cleanups that name that backend behind this Service's frontend."""
        return [
            cleanup
            for cleanup in cleanups(self.cluster)
            for target in cleanup["spec"]["targets"]
            if {"ip": self.frontend, "port": PORT} in target["frontends"]
            and any(backend["ip"] == address for backend in target["backends"])
        ]

    def wait_condemned(self, address: str, within: float) -> None:
        """Wait until a live cleanup names that backend."""
        what = f"a cleanup for {address} behind {self.name}"
        eventually(lambda: self.condemned(address), within, what)

    def wait_revoked(self, address: str, within: float) -> None:
        """Wait until no live cleanup names that backend any more."""
        what = f"{address} behind {self.name} to be taken out of all cleanups"
        eventually(lambda: not self.condemned(address), within, what)

    def wait_clean(self, node: Node, address: str, within: float) -> None:
        """Wait until no entry leads from this Service to that backend."""
        what = f"{node.name} to be rid of what leads from {self.name} to {address}"
        eventually(lambda: not self.half_open(node, address), within, what)


@dataclass(slots=True)
class Paper:
    """A namespace full of them; `network` is a part of VOID that is this one's alone."""

    cluster: Cluster
    name: str
    network: str
    _used: int = 0

    def open(self, labels: Mapping[str, str] | None = None) -> None:
        """Make the namespace, and the void that its backends live in."""
        swallow(self.cluster)
        self.cluster.apply(workloads.as_yaml(workloads.namespace(self.name, labels)))

    def close(self) -> None:
        """Delete the namespace; nobody waits for the last of it."""
        self.cluster.kubectl("delete", "namespace", self.name, "--wait=false")

    def address(self) -> str:
        """Give an address that no backend has had."""
        self._used += 1
        return str(ip_network(self.network)[self._used])

    def service(
        self, name: str, *endpoints: Endpoint | str, labels: Mapping[str, str] | None = None
    ) -> PaperService:
        """Make a Service with these backends."""
        made = [endpoint(each) if isinstance(each, str) else each for each in endpoints]
        service = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": self.name, "labels": dict(labels or {})},
            "spec": {"ports": [{"name": "http", "port": PORT, "targetPort": BACKEND_PORT}]},
        }
        slice_ = {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": name,
                "namespace": self.name,
                "labels": {"kubernetes.io/service-name": name},
            },
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": BACKEND_PORT, "protocol": "TCP"}],
            "endpoints": made,
        }
        self.cluster.apply(workloads.as_yaml(service, slice_))
        known = self.cluster.get_json("-n", self.name, "service", name)
        return PaperService(
            cluster=self.cluster,
            namespace=self.name,
            name=name,
            frontend=str(known["spec"]["clusterIP"]),
        )


def swallow(cluster: Cluster) -> None:
    """Let the router drop what goes into the void, once for a cluster."""
    router = cluster.control_plane.network.router
    rules = (
        "table ip ss_void { chain drop_it { type filter hook prerouting priority -400; "
        f"ip daddr {VOID} drop; }}; }}"
    )
    enter = ("nsenter", f"--net=/run/netns/{router}", "--", "nft")
    if run(*enter, "list", "table", "ip", "ss_void", check=False).returncode:
        run(*enter, "-f", "-", input=rules)
