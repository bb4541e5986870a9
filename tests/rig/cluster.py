"""A whole cluster: control plane, nodes, and clients beyond the nodes.

with Cluster.up(nodes=3, proxy_mode="nftables", images=[images.operator()]) as cluster:
    cluster.apply(manifest)
    cluster.node(1).run("conntrack", "-L")
"""

from __future__ import annotations

import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.rig import binaries, images, needs, packages
from tests.rig.addresses import MAX_NODES
from tests.rig.claims import claim, release
from tests.rig.commands import run
from tests.rig.control_plane import APISERVER, MANAGER, SCHEDULER, ControlPlane, tail
from tests.rig.errors import RigError
from tests.rig.node import Node

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tests.rig.network import Namespace

PROXY_MODES = ("iptables", "nftables")
READY_WITHIN = 120.0  # seconds
MEMORY_TO_SPARE = 4 << 30  # bytes, for the programs and whoever else is here
MEMORY_PER_NODE = 1 << 30  # bytes: images packed and unpacked, and what pods write


def build(*, operator: bool = True) -> None:
    """Check, install and build all that a cluster needs; at once if it is there.

    Args:
        operator: the operator's image too.

    Raises:
        NeedsMissing: what this machine lacks.
        RigError: a step failed.
    """
    needs.check()
    packages.ensure()
    needs.check_tools()
    binaries.ensure()
    images.pause()
    images.python()
    if operator:
        images.operator()


class Cluster:
    """A running cluster."""

    def __init__(self, plane: ControlPlane, nodes: Sequence[Node], outside: Namespace) -> None:
        self.control_plane = plane
        self.kubeconfig = plane.kubeconfig
        self.nodes = tuple(nodes)
        self.outside = outside
        self.name = plane.claim.name

    @classmethod
    @contextmanager
    def up(
        cls,
        *,
        nodes: int = 3,
        proxy_mode: str = "iptables",
        images: Sequence[Path] = (),
        name: str | None = None,
        ipv6: bool = True,
        flags: Mapping[str, Sequence[str]] | None = None,
        audit: bool = False,
    ) -> Iterator[Cluster]:
        """Bring a cluster up, and take it down at the end; see start() for the arguments."""
        chosen = name or default_name("test")
        cluster = cls.start(
            nodes=nodes,
            proxy_mode=proxy_mode,
            archives=images,
            name=chosen,
            ipv6=ipv6,
            flags=flags,
            audit=audit,
        )
        try:
            yield cluster
        finally:
            release(chosen)

    @classmethod
    def start(
        cls,
        *,
        nodes: int,
        proxy_mode: str,
        archives: Sequence[Path] = (),
        name: str,
        ipv6: bool = True,
        flags: Mapping[str, Sequence[str]] | None = None,
        audit: bool = False,
    ) -> Cluster:
        """Bring a cluster up, until all nodes are Ready and have all images.

        Args:
            nodes: how many; they are counted from 1.
            proxy_mode: kube-proxy's: iptables or nftables.
            archives: docker archives for all nodes, beside pause and rig-python.
            name: part of the names of all that is made; two clusters have different ones.
            ipv6: both families for nodes, pods and Services; else IPv4 alone.
            flags: more flags of the control plane, by program.
            audit: see ControlPlane.up.

        Raises:
            NeedsMissing: what this machine lacks.
            RigError: a bad argument, a name in use, or a step that failed; nothing is left then.
        """
        refuse_bad(nodes, proxy_mode)
        build(operator=False)
        owner = claim(name, with_nodes=True)
        try:
            plane = ControlPlane(owner, ipv6=ipv6, flags=flags, audit=audit)
            plane.prepare()
            outside = plane.network.add_leg("out", owner.plan.outside(), ipv6=ipv6)
            for program in ("etcd", APISERVER, MANAGER, SCHEDULER):
                plane.start(program)
            made = [
                Node(plane, index, proxy_mode=proxy_mode, ipv6=ipv6)
                for index in range(1, nodes + 1)
            ]
            cluster = cls(plane, made, outside)
            cluster.start_nodes(archives)
        except BaseException:
            release(name)
            raise
        return cluster

    def start_nodes(self, archives: Sequence[Path]) -> None:
        """Boot all nodes side by side, then give them the images while their kubelets register."""

        def boot(node: Node) -> None:
            node.write_config()
            node.power_on([images.pause()])
            for archive in (images.python(), *archives):
                node.load_image(archive)

        self._make_disks()
        self._on_all(boot)
        self.wait_ready()

    def _make_disks(self) -> None:
        """Keep the nodes' disks in memory where there is plenty: 50,000 files go at once then."""
        disks = self.control_plane.claim.folder / "nodes"
        disks.mkdir()
        if available_memory() > MEMORY_TO_SPARE + MEMORY_PER_NODE * len(self.nodes):
            run("mount", "-t", "tmpfs", "-o", "mode=700", "synsweep-rig", str(disks))

    def wait_ready(self, within: float = READY_WITHIN) -> None:
        """Wait until all nodes are Ready and pods may be made.

        Raises:
            RigError: one is not within that many seconds.
        """
        deadline = time.monotonic() + within
        while missing := {node.name for node in self.nodes} - self._ready_nodes():
            if time.monotonic() > deadline:
                log = self.control_plane.claim.log(f"{min(missing)}-kubelet")
                raise RigError(f"not Ready: {', '.join(sorted(missing))}; kubelet: {tail(log)}")
            time.sleep(0.25)
        while not self._has_service_account():  # without it every pod is refused
            if time.monotonic() > deadline:
                raise RigError(f"no ServiceAccount in namespace default: see the log of {MANAGER}")
            time.sleep(0.25)

    def _has_service_account(self) -> bool:
        return self.kubectl("get", "serviceaccount", "default", check=False).returncode == 0

    def _ready_nodes(self) -> set[str]:
        return {
            item["metadata"]["name"]
            for item in self.get_json("nodes")["items"]
            for condition in item["status"].get("conditions", [])
            if condition["type"] == "Ready" and condition["status"] == "True"
        }

    def _on_all(self, action: Callable[[Node], None]) -> None:
        with ThreadPoolExecutor(max_workers=8) as pool:
            list(pool.map(action, self.nodes))

    def node(self, index: int) -> Node:
        """Return a node, counted from 1."""
        if not 1 <= index <= len(self.nodes):
            raise RigError(f"node {index}: there are {len(self.nodes)}, counted from 1")
        return self.nodes[index - 1]

    def kubectl(
        self,
        *args: str,
        input: str | None = None,  # noqa: A002 -- subprocess.run's own word
        check: bool = True,
        timeout: float = 180.0,
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl as administrator."""
        return self.control_plane.kubectl(*args, input=input, check=check, timeout=timeout)

    def apply(self, manifest: str | Path) -> None:
        """Apply a file or folder, or YAML text."""
        self.control_plane.apply(manifest)

    def get_json(self, *args: str) -> Any:
        """Return what `kubectl get ARGS -o json` says."""
        return self.control_plane.get_json(*args)

    def load_image(self, archive: Path) -> None:
        """Import a docker archive on all nodes."""
        self._on_all(lambda node: node.load_image(archive))


def refuse_bad(nodes: int, proxy_mode: str) -> None:
    """Raise RigError for arguments that no cluster can have."""
    if proxy_mode not in PROXY_MODES:
        raise RigError(f"proxy mode {proxy_mode!r}: one of {', '.join(PROXY_MODES)}")
    if not 1 <= nodes <= MAX_NODES:
        raise RigError(f"{nodes} nodes: 1 to {MAX_NODES}")


def available_memory() -> int:
    """Return how many bytes new programs could use without swapping."""
    text = Path("/proc/meminfo").read_text(encoding="ascii")
    found = re.search(r"^MemAvailable:\s+(\d+) kB$", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def default_name(otherwise: str) -> str:
    """Return the cluster name that RIG_NAME sets, so that two people can share a machine."""
    return os.environ.get("RIG_NAME") or otherwise
