"""What may not happen in any test, watched all the time: a wrong deletion, a wrong instruction.

It hears the kernel say which entries a program has ended, on every node, and the API server say
which cleanups there are. A deletion is right if the entry was half-open and led from a frontend to
a backend that some cleanup names together; all else that a program ends is wrong.
"""

from __future__ import annotations

import subprocess
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.cluster.installation import NAMESPACE, cleanups
from tests.cluster.observers import Lines, Seen, Told, parse_entry
from tests.rig import binaries

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.rig.cluster import Cluster
    from tests.rig.node import Node

EVENTS = "net.netfilter.nf_conntrack_events=1"  # tell of the end of every entry, whoever listens

Endpoint = tuple[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Condemned:
    """A frontend and a backend that a cleanup names together."""

    named_at: float  # monotonic, as seen by this process
    reason: str
    namespace: str
    service: str
    frontend: Endpoint  # the address is "" for a node port
    backend: Endpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    """An entry that a program has ended, on a node."""

    at: float  # monotonic
    node: str
    seen: Seen


@dataclass(slots=True)
class Oracle:
    """Watches a cluster from `start` until `stop`."""

    cluster: Cluster
    excused: set[str] = field(default_factory=set)  # lines of deletions that a test made itself
    _nodes: dict[str, list[Lines]] = field(default_factory=dict)
    _cleanups: list[Told] = field(default_factory=list)

    def start(self) -> None:
        """Begin to watch."""
        for node in self.cluster.nodes:
            self.watch(node)
        self._watch_cleanups()

    def stop(self) -> None:
        """End."""
        for listeners in self._nodes.values():
            for listener in listeners:
                listener.stop()
        for watch in self._cleanups:
            watch.process.kill()
            watch.stop()

    def watch(self, node: Node) -> None:
        """Listen to a node, anew after it was off."""
        node.run("sysctl", "-qw", EVENTS)
        listener = Lines(node, "endings.py")
        listener.wait_for(lambda line: line.get("event") == "listening", 20)
        self._nodes.setdefault(node.name, []).append(listener)

    def _watch_cleanups(self) -> None:
        process = self.cluster.control_plane.popen(
            *(str(binaries.path("kubectl")), "--kubeconfig", str(self.cluster.kubeconfig)),
            *("-n", NAMESPACE, "get", "conntrackcleanups", "--watch"),
            *("-o", 'jsonpath={.spec}{"\\n"}'),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._cleanups.append(Told(process))

    def _specs(self) -> Iterator[dict[str, Any]]:
        if self._cleanups[-1].process.poll() is not None:  # it ends with the API server
            self._watch_cleanups()
        for watch in self._cleanups:
            yield from (line for line in list(watch.lines) if "targets" in line)

    def condemned(self, namespace: str = "", service: str = "") -> list[Condemned]:
        """List everything that cleanups have ever named, optionally of one namespace or Service."""
        return [
            each
            for each in _condemned(self._specs())
            if not namespace or each.namespace == namespace
            if not service or each.service == service
        ]

    def deletions(self) -> list[Deletion]:
        """List the TCP entries that programs have ended so far."""
        return [
            Deletion(at=line["t"], node=node, seen=seen)
            for node, listeners in self._nodes.items()
            for listener in listeners
            for line in list(listener.lines)
            if (seen := parse_entry(line.get("ended", ""))) and seen.deleted
        ]

    def wrong(self) -> list[str]:
        """List the deletions that no cleanup covers, and where this oracle went blind."""
        pairs = {(each.frontend, each.backend) for each in self.condemned()}
        found = [
            f"{deletion.node}: {deletion.seen.line}"
            for deletion in self.deletions()
            if deletion.seen.line not in self.excused
            if not deletion.seen.half_open
            or not {
                (deletion.seen.frontend, deletion.seen.backend),
                (("", deletion.seen.frontend[1]), deletion.seen.backend),
            }
            & pairs
        ]
        return found + [
            f"{node}: the oracle is blind: {line}"
            for node, listeners in self._nodes.items()
            for listener in listeners
            for line in list(listener.lines)
            if line.get("event") in {"blind", "garbage"}
        ]


def serving(cluster: Cluster) -> set[tuple[Endpoint, Endpoint]]:
    """List each frontend (address "" for a node port) with each backend that is ready behind it."""
    frontends: dict[tuple[str, str, str], set[Endpoint]] = defaultdict(set)
    for each in cluster.get_json("services", "-A")["items"]:
        spec = each["spec"]
        for port in spec.get("ports", ()):
            if port["protocol"] != "TCP":
                continue
            key = (each["metadata"]["namespace"], each["metadata"]["name"], port.get("name", ""))
            ips = (*spec.get("clusterIPs", ()), *spec.get("externalIPs", ()))
            frontends[key] |= {(ip, port["port"]) for ip in ips}
            if "nodePort" in port:
                frontends[key].add(("", port["nodePort"]))
    return {
        (frontend, (address, port["port"]))
        for each in cluster.get_json("endpointslices", "-A")["items"]
        for endpoint in each.get("endpoints") or ()
        if endpoint.get("conditions", {}).get("ready")
        for address in endpoint["addresses"]
        for port in each.get("ports") or ()
        if port["protocol"] == "TCP"
        for frontend in frontends[
            each["metadata"]["namespace"],
            each["metadata"]["labels"]["kubernetes.io/service-name"],
            port.get("name", ""),
        ]
    }


def serving_but_condemned(cluster: Cluster) -> set[tuple[Endpoint, Endpoint]]:
    """List the pairs of frontend and backend that serve and that a live cleanup names."""
    specs = [cleanup["spec"] for cleanup in cleanups(cluster)]
    return {(each.frontend, each.backend) for each in _condemned(specs)} & serving(cluster)


def _condemned(specs: Iterable[dict[str, Any]]) -> Iterator[Condemned]:
    for spec in specs:
        for target in spec["targets"]:
            for frontend in target["frontends"]:
                for backend in target["backends"]:
                    yield Condemned(
                        named_at=spec.get("t", 0.0),
                        reason=spec["reason"],
                        namespace=target["namespace"],
                        service=target["service"],
                        frontend=(
                            frontend.get("ip", ""),
                            frontend.get("port") or frontend["nodePort"],
                        ),
                        backend=(backend["ip"], backend["port"]),
                    )


def restarts(cluster: Cluster) -> dict[str, int]:
    """Count, by pod of the operator, how often its container was started again."""
    return {
        pod["metadata"]["name"]: sum(
            status["restartCount"] for status in pod["status"].get("containerStatuses", ())
        )
        for pod in cluster.get_json("-n", NAMESPACE, "pods")["items"]
    }
