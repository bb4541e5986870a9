"""A cgroup for each node, so that their kubelets do not see each other's pods.

Version 1 is what this was tried on, also beside an empty version 2 tree (systemd's hybrid mode).
The branch for a machine with version 2 alone was written from the kernel's documentation
(admin-guide/cgroup-v2) and is untried.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.rig.errors import RigError

if TYPE_CHECKING:
    from tests.rig.journal import Journal

BASE = Path("/sys/fs/cgroup")
NEEDED = frozenset({"cpu", "cpuset", "memory", "pids"})
NEEDED_V1 = NEEDED | {"cpuacct", "devices", "freezer"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Hierarchy:
    """One mounted cgroup tree."""

    path: Path
    version: int
    controllers: frozenset[str]


def hierarchies() -> tuple[Hierarchy, ...]:
    """Return the cgroup trees mounted under /sys/fs/cgroup."""
    found: dict[Path, Hierarchy] = {}
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        left, _, right = line.partition(" - ")
        path, kind = Path(left.split()[4]), right.split()[0]
        if kind == "cgroup2" and path.is_relative_to(BASE):
            controllers = (path / "cgroup.controllers").read_text(encoding="ascii").split()
            found[path] = Hierarchy(path=path, version=2, controllers=frozenset(controllers))
        elif kind == "cgroup" and path.is_relative_to(BASE):
            options = frozenset(right.split()[-1].split(","))
            found[path] = Hierarchy(path=path, version=1, controllers=options)
    return tuple(found.values())


def missing() -> tuple[str, ...]:
    """Name the controllers that a kubelet needs and this machine does not offer."""
    trees = hierarchies()
    offered = frozenset().union(*(tree.controllers for tree in trees))
    version_1 = any(tree.version == 1 for tree in trees)
    return tuple(sorted((NEEDED_V1 if version_1 else NEEDED) - offered))


def root_of(cluster: str) -> str:
    """Return the name of a cluster's cgroup, below the root of each tree."""
    return f"synsweep-{cluster}"


def make(cluster: str, node: str, journal: Journal) -> str:
    """Make a node's cgroups and return their path for the kubelet's `cgroupRoot`."""
    for tree in hierarchies():
        parent = tree.path / root_of(cluster)
        journal.note("cgroup", path=str(parent))
        if tree.version == 2 and tree.controllers:
            _delegate(tree.path, tree.controllers)
        for folder in (parent, parent / node):
            try:
                folder.mkdir(exist_ok=True)
            except OSError as error:
                raise RigError(f"cannot make a cgroup: {error}") from error
            if "cpuset" in tree.controllers and tree.version == 1:
                _fill_cpuset(folder)
        if tree.version == 2 and tree.controllers:
            _delegate(parent, tree.controllers)
    return f"/{root_of(cluster)}/{node}"


def _fill_cpuset(folder: Path) -> None:
    """Version 1: a new cpuset is empty, and nothing can join it until it has cpus and mems."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        value = (folder.parent / name).read_text(encoding="ascii")
        (folder / name).write_text(value, encoding="ascii")


def _delegate(folder: Path, controllers: frozenset[str]) -> None:
    """Version 2: children see only the controllers that their parent hands down."""
    control = folder / "cgroup.subtree_control"
    enabled = set(control.read_text(encoding="ascii").split())
    for controller in sorted(controllers & (NEEDED | {"io", "hugetlb"}) - enabled):
        try:
            control.write_text(f"+{controller}", encoding="ascii")
        except OSError as error:
            if controller in NEEDED:
                raise RigError(
                    f"cannot hand cgroup controller {controller} down: {error}"
                ) from error


def remove(path: Path, *, within: float = 10.0) -> None:
    """Remove a cgroup with all below it; its processes have been killed before.

    Raises:
        RigError: something still lives in it after `within` seconds.
    """
    deadline = time.monotonic() + within
    while path.exists():
        for folder in sorted((p for p in path.rglob("*") if p.is_dir()), reverse=True):
            _rmdir(folder)
        _rmdir(path)
        if path.exists():
            if time.monotonic() > deadline:
                raise RigError(f"cgroup {path} is still in use")
            time.sleep(0.05)


def _rmdir(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:  # a dead process is still being taken out of it: the caller tries again
        return
