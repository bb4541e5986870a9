"""How long a stale entry outlives its backend: `python -m bench.latency` (root; writes a table).

For each of REMOVALS (200) removals, on a cluster of three nodes with synsweep installed from
manifests/: half-open entries to a backend exist on every node; the backend is taken out of its
EndpointSlice; and three observers that share nothing with synsweep note the time on one monotonic
clock: a raw watch of the slices (when the removal is visible in the API), a raw watch of the
cleanups, and `conntrack -E` on every node. Backends are addresses written by hand into slices, so
that the cluster has nothing else to do. SPACING (1.5): seconds between removals, on average.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.cluster import installation
from tests.cluster.observers import Lines, Told, eventually, parse_entry
from tests.cluster.paper import Paper, terminating
from tests.cluster.parts import CONTROLLER, HELPER, HTTP_PORT, node_of, pods, process_of
from tests.rig import binaries, images
from tests.rig.cluster import Cluster, build, default_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.cluster.paper import PaperService

REMOVALS = int(os.environ.get("REMOVALS") or 200)
SPACING = float(os.environ.get("SPACING") or 1.5)
ENTRIES = int(os.environ.get("ENTRIES") or 10)  # for each removal, on each node
BATCH = 20  # removals whose entries exist at the same time
METRICS = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1]).read().decode())"
CLEAN_WITHIN = 60.0  # seconds after which a removal counts as failed


@dataclass(slots=True)
class Removal:
    """One backend, and what the observers saw of its end; times are monotonic seconds."""

    service: PaperService
    address: str
    entries: int = 0
    removed_at: float = 0.0  # the removal is visible in the API
    cleanup_at: float = 0.0  # the cleanup is
    ended: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    @property
    def gone_at(self) -> float:
        """When the last of the entries went, on the last of the nodes."""
        return max(moment for moments in self.ended.values() for moment in moments)

    @property
    def is_clean(self) -> bool:
        """Whether all entries that were counted before have ended."""
        return sum(map(len, self.ended.values())) >= self.entries


class Observers:
    """The raw watches and the listeners on the nodes."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.endings = {node.name: Lines(node, "endings.py") for node in cluster.nodes}
        for listener in self.endings.values():
            listener.wait_for(lambda line: line.get("event") == "listening", 20)
        slices = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
        orders = f"/apis/synsweep.io/v1alpha1/namespaces/{installation.NAMESPACE}/conntrackcleanups"
        self.slices, self.cleanups = raw_watch(cluster, slices), raw_watch(cluster, orders)

    def stop(self) -> None:
        """End them."""
        for listener in self.endings.values():
            listener.stop()
        for watch in (self.slices, self.cleanups):
            watch.process.kill()
            watch.stop()

    def look(self, removals: Iterable[Removal]) -> None:
        """Fill in what was seen so far."""
        by_pair = {(each.service.frontend, each.address): each for each in removals}
        by_service = {each.service.name: each for each in by_pair.values()}
        for each in by_pair.values():
            each.ended.clear()
        for node, listener in self.endings.items():
            for line in list(listener.lines):
                seen = parse_entry(line.get("ended", ""))
                found = seen and by_pair.get((seen.frontend[0], seen.backend[0]))
                if seen and found and seen.deleted:
                    found.ended[node].append(line["t"])
        for line in list(self.slices.lines):
            found = by_service.get(line["object"]["metadata"]["name"])
            present = [e["addresses"][0] for e in line["object"].get("endpoints") or ()]
            if found and line["type"] == "MODIFIED" and found.address not in present:
                found.removed_at = found.removed_at or line["t"]
        for line in list(self.cleanups.lines):
            for name in named_in(line["object"]):
                if name in by_pair and not by_pair[name].cleanup_at:
                    by_pair[name].cleanup_at = line["t"]


def named_in(cleanup: dict[str, Any]) -> list[tuple[str, str]]:
    """List frontend and backend addresses that a cleanup names together."""
    return [
        (frontend.get("ip", ""), backend["ip"])
        for target in cleanup["spec"]["targets"]
        for frontend in target["frontends"]
        for backend in target["backends"]
    ]


def raw_watch(cluster: Cluster, path: str) -> Told:
    """Watch a collection; every event is a line, stamped when it arrives."""
    listed = json.loads(cluster.kubectl("get", "--raw", f"{path}?limit=1").stdout)
    newest = listed["metadata"]["resourceVersion"]
    process = cluster.control_plane.popen(
        *(str(binaries.path("kubectl")), "--kubeconfig", str(cluster.kubeconfig), "get", "--raw"),
        f"{path}?watch=1&timeoutSeconds=3600&resourceVersion={newest}",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    return Told(process)


def measure(cluster: Cluster, removals: int, spacing: float, entries: int) -> list[Removal]:
    """Make removals and return what was seen of each.

    Args:
        cluster: with synsweep installed and a policy in force.
        removals: how many.
        spacing: seconds between two, on average; each pause is random.
        entries: half-open ones on each node for each removal, at least.

    Raises:
        TimeoutError: entries were still there after CLEAN_WITHIN.
    """
    paper = Paper(cluster, "latency", network="198.19.0.0/20")
    paper.open()
    observers = Observers(cluster, paper.name)
    done: list[Removal] = []
    try:
        while len(done) < removals:
            size = min(BATCH, removals - len(done))
            batch = prepare(paper, size, first=len(done), entries=entries)
            perform(observers, batch, spacing)
            done += batch
            print(f"{len(done)} of {removals} removals", file=sys.stderr, flush=True)
    finally:
        observers.stop()
        paper.close()
    return done


def prepare(paper: Paper, size: int, *, first: int, entries: int) -> list[Removal]:
    """Make Services with one backend each, and half-open entries to it on every node."""
    batch = []
    for number in range(first, first + size):
        address = paper.address()
        batch.append(Removal(service=paper.service(f"s{number}", address), address=address))
    for each in batch:
        for node in paper.cluster.nodes:
            each.entries += len(each.service.fill(node, each.address, least=entries, syns=entries))
    return batch


def perform(observers: Observers, batch: Sequence[Removal], spacing: float) -> None:
    """Remove the backends one after the other, as the API shows the end of a killed pod."""
    for each in batch:
        each.service.set(terminating(each.address))
        each.service.set()
        time.sleep(random.uniform(0.5, 1.5) * spacing)

    def clean() -> bool:
        observers.look(batch)
        return all(each.is_clean and each.removed_at and each.cleanup_at for each in batch)

    eventually(clean, CLEAN_WITHIN, "all entries to be gone", every=0.5)


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of all values does not exceed."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def row(what: str, values: Sequence[float], goal: str) -> str:
    """One line of the table, in seconds."""
    figures = (statistics.median(values), percentile(values, 0.99), max(values))
    return f"| {what} | {' | '.join(f'{figure:.2f} s' for figure in figures)} | {goal} |"


def memory(cluster: Cluster, component: str) -> list[float]:
    """Resident memory of a component's processes, in MiB."""
    found = []
    for pod in pods(cluster, component):
        node = node_of(cluster, pod)
        pid = process_of(node, pod["metadata"]["name"]).pid
        status = node.run("cat", f"/proc/{pid}/status").stdout
        found.append(int(status.partition("VmRSS:")[2].split()[0]) / 1024)
    return found


def sweep_cost(cluster: Cluster) -> float:
    """Mean CPU of one sweep on the nodes, in ms: the helper paces itself by it."""
    cpu = sweeps = 0.0
    for node in cluster.nodes:
        url = f"http://127.0.0.1:{HTTP_PORT}/metrics"
        lines = node.run(sys.executable, "-c", METRICS, url).stdout.splitlines()
        values = dict(line.rsplit(" ", 1) for line in lines if line[:1] not in {"", "#"})
        cpu += float(values["synsweep_sweep_cpu_seconds_total"])
        sweeps += float(values["synsweep_sweeps_total"])
    return 1000 * cpu / sweeps


def table(done: Sequence[Removal]) -> str:
    """The figures as Markdown."""
    rows = [
        "| from the removal's slice event to | p50 | p99 | longest | goal |",
        "|---|---|---|---|---|",
        row(
            "the cleanup, visible in the API", [e.cleanup_at - e.removed_at for e in done], "0.5 s"
        ),
        row(
            "a node rid of all its entries",
            [max(moments) - e.removed_at for e in done for moments in e.ended.values()],
            "p50 0.5 s, p99 2 s",
        ),
        row(
            "all three nodes rid of all their entries",
            [e.gone_at - e.removed_at for e in done],
            "p99 2 s",
        ),
    ]
    return "\n".join(rows)


def main() -> None:
    """Bring a cluster up, measure, print."""
    build()
    mode = os.environ.get("PROXY_MODE") or "iptables"
    archives = [images.operator()]
    name = default_name("bench")
    with Cluster.up(nodes=3, proxy_mode=mode, images=archives, name=name) as cluster:
        installation.install(cluster)
        installation.apply_policy(cluster)
        done = measure(cluster, REMOVALS, SPACING, ENTRIES)
        cost = sweep_cost(cluster)
        helpers, (controller,) = memory(cluster, HELPER), memory(cluster, CONTROLLER)
    total = sum(each.entries for each in done)
    print(
        f"{len(done)} removals, {total} entries, one removal every {SPACING:g} s on average, "
        f"kube-proxy in {mode} mode\n\n{table(done)}\n\n"
        f"A sweep took {cost:.1f} ms of CPU on average. "
        f"Resident memory afterwards: helpers {max(helpers):.0f} MiB at most, "
        f"controller {controller:.0f} MiB."
    )


if __name__ == "__main__":
    main()
