"""Pid 1 of a node: its mounts, then reaping until it is killed. A script, not a module.

Run as `python -I node_init.py FOLDER HOSTNAME` inside fresh net, mount, uts, ipc and pid
namespaces. Writes FOLDER/booted when the mounts stand. Services are started from outside, through
a shell that ends at once, so they become this process' children and it must reap them.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

# Where services write beside their own data: an overlay keeps the machine's folders as they are.
OVERLAID = ("/etc", "/var/lib", "/var/log")
# Not on an overlay: containerd makes overlays of its own in it, the kubelet shares mounts from it.
OWN = ("/var/lib/containerd", "/var/lib/kubelet")


def mount(*args: str) -> None:
    """Call the program of that name, which must succeed."""
    subprocess.run(["mount", *args], check=True)


def remount_sys() -> None:
    """Show /sys of this network namespace, with the machine's cgroup mounts kept in it."""
    keep = "/run/cgroups"
    Path(keep).mkdir()
    mount("--rbind", "/sys/fs/cgroup", keep)
    mount("-t", "sysfs", "sysfs", "/sys")
    mount("--rbind", keep, "/sys/fs/cgroup")
    subprocess.run(["umount", "--lazy", "--recursive", keep], check=True)
    Path(keep).rmdir()


def make_mounts(folder: Path) -> None:
    """Make what this node sees differ from the machine, and from the last boot where it should."""
    # Copies of these mounts would keep all namespaces of the cluster alive as long as we live.
    subprocess.run(["umount", "--lazy", "--recursive", "/run/netns"], check=False)
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        mounted = Path(line.split()[4])
        if mounted.is_relative_to(folder.parents[2]) and not folder.is_relative_to(mounted):
            subprocess.run(["umount", "--lazy", str(mounted)], check=False)  # another cluster's
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    for name in ("lock", "netns"):
        Path("/run", name).mkdir()
    remount_sys()
    for place in OVERLAID:
        changes = folder / "changes" / place.strip("/").replace("/", "-")
        upper, work = changes / "upper", changes / "work"
        upper.mkdir(parents=True, exist_ok=True)
        work.mkdir(exist_ok=True)
        mount(
            *("-t", "overlay", "overlay"),
            *("-o", f"lowerdir={place},upperdir={upper},workdir={work}", place),
        )
    for place in OWN:
        own = folder / place.rsplit("/", 1)[1]
        own.mkdir(exist_ok=True)
        Path(place).mkdir(exist_ok=True)
        mount("--bind", str(own), place)
    mount("--make-rshared", "/var/lib/kubelet")
    network = Path("/etc/cni/net.d")
    network.mkdir(parents=True, exist_ok=True)
    mount("--bind", str(folder / "cni"), str(network))


def reap_for_ever() -> None:
    """Stay, as pid 1 must; collect whatever the services and shims leave."""
    while True:
        try:
            os.wait()
        except ChildProcessError:
            time.sleep(0.2)


def main() -> None:
    """Boot."""
    folder, hostname = Path(sys.argv[1]), sys.argv[2]
    socket.sethostname(hostname)
    make_mounts(folder)
    (folder / "booted").touch()
    reap_for_ever()


main()
