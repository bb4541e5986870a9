"""Remove all that a cluster made, from its journal alone: from any process, at any point, twice.

Each step tolerates that its thing was never made or is gone already. Processes are killed by pid
and start time; beside those of the journal, whatever still has one of our network namespaces as
its own (clients that a test left there).
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.rig import cgroups, journal, places, sysctls
from tests.rig.commands import run
from tests.rig.errors import RigError
from tests.rig.journal import boot_id, read
from tests.rig.processes import Process, children, end, identify

if TYPE_CHECKING:
    from collections.abc import Iterable

LOGS_KEPT = 10  # clusters


def take_down(name: str) -> None:
    """Remove a cluster; under the lock `state`.

    Raises:
        RigError: something could not be removed; the journal stays for another try.
    """
    folder = places.state() / name
    entries = read(folder)
    if any(entry["kind"] == "boot" and entry["id"] == boot_id() for entry in entries):
        end_processes(entries)
        remove_networks(entries)
        for path in {entry["path"] for entry in entries if entry["kind"] == "cgroup"}:
            cgroups.remove(Path(path))
    remove_folder(folder)
    if not any(places.state().glob("*/")):
        sysctls.restore()


def end_processes(entries: Iterable[dict[str, Any]]) -> None:
    """Kill the journal's processes, and with each node's first process its pid namespace."""
    recorded = [
        Process(pid=entry["pid"], started=entry["started"])
        for entry in entries
        if entry["kind"] == "process"
    ]
    alive = [process for process in recorded if process.is_alive()]
    # The child of a node's unshare(1) is pid 1 of the node; its end is that of all its pods.
    first = [identify(child) for process in alive for child in children(process.pid)]
    end([process for process in first if process] + alive)


def remove_networks(entries: Iterable[dict[str, Any]]) -> None:
    """Remove links of the machine itself, then the network namespaces."""
    known = list(entries)
    for link in {entry["name"] for entry in known if entry["kind"] == "link"}:
        run("ip", "link", "del", link, check=False)
    for name in {entry["name"] for entry in known if entry["kind"] == "netns"}:
        remove_netns(name)


def remove_netns(name: str) -> None:
    """End whatever runs in a network namespace, and remove it.

    Raises:
        RigError: it is still there.
    """
    path = places.NETNS / name
    if not path.exists():
        return
    end(inhabitants(path))
    # `ip netns add` makes the file before it mounts the namespace on it: del copes with both.
    run("ip", "netns", "del", name, check=False)
    if path.exists():
        path.unlink(missing_ok=True)
    if path.exists():
        raise RigError(f"network namespace {name} cannot be removed")


def inhabitants(path: Path) -> list[Process]:
    """Return the processes whose network namespace this is."""
    ours = path.stat()
    if os.path.samestat(ours, Path("/proc/self/ns/net").stat()):
        return []  # never the machine's own
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if os.path.samestat(ours, (folder / "ns" / "net").stat()):
                found.append(identify(int(folder.name)))
        except OSError:  # it has ended, or is more privileged than we are: not ours
            continue
    return [process for process in found if process]


def remove_folder(folder: Path) -> None:
    """Remove the state folder, the journal last; logs are kept for a look afterwards.

    Raises:
        RigError: something is mounted in it, or writes to it.
    """
    if not folder.exists():
        return
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        place = line.split()[4]
        if Path(place).is_relative_to(folder):  # the nodes' disks, if in memory
            run("umount", "--lazy", place)
    if (folder / "log").exists():
        kept = places.last_logs(folder.name)
        shutil.rmtree(kept, ignore_errors=True)
        kept.parent.mkdir(parents=True, exist_ok=True)
        (folder / "log").rename(kept)
        _forget_old_logs(kept.parent)
    for part in sorted(folder.iterdir(), key=lambda path: path.name == journal.NAME):
        if part.is_dir():
            shutil.rmtree(part)
        else:
            part.unlink()
    folder.rmdir()


def _forget_old_logs(folder: Path) -> None:
    by_age = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime)
    for old in by_age[:-LOGS_KEPT]:
        shutil.rmtree(old, ignore_errors=True)
