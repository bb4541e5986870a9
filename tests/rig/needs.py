"""What this machine must have, checked before anything is installed, built or started."""

from __future__ import annotations

import os
import re
import shutil
import socket
import struct
from pathlib import Path

from tests.rig import binaries, cgroups
from tests.rig.commands import run
from tests.rig.errors import NeedsMissing, RigError

OLDEST_GO = (1, 24)
NETLINK_NETFILTER = 12
CONNTRACK_STATS = (1 << 8) | 5  # subsystem ctnetlink, IPCTNL_MSG_CT_GET_STATS
NLM_F_REQUEST_DUMP = 0x301


def missing(*, nodes: bool) -> tuple[str, ...]:
    """Return one line for each thing that is missing and cannot be installed by us.

    Args:
        nodes: with nodes, or only an API server.
    """
    lines = [_programs(), _go(nodes=nodes)]
    if os.geteuid() != 0:
        lines.insert(0, "root: run it as root, or in a virtual machine where you are root")
    elif not lines[0]:  # the probes need both
        lines += [_network_namespaces(), _conntrack() if nodes else None]
    if nodes:
        lines += [_overlay(), _cgroups()]
    return tuple(line for line in lines if line)


def check() -> None:
    """Raise NeedsMissing if a cluster with nodes cannot run here."""
    if lines := missing(nodes=True):
        raise NeedsMissing(lines)


def check_control_plane() -> None:
    """Raise NeedsMissing if not even an API server can run here."""
    lines = missing(nodes=False)
    if not lines and not binaries.find("etcd"):
        lines = ("etcd: run `python -m tests.rig build`, which installs it, or put it into PATH",)
    if lines:
        raise NeedsMissing(lines)


def _programs() -> str | None:
    wanted = ("nsenter", "unshare", "mount", "setsid")
    lacking = [name for name in wanted if not shutil.which(name)]
    return f"{', '.join(lacking)}: install util-linux" if lacking else None


def _go(*, nodes: bool) -> str | None:
    wanted = binaries.missing(binaries.KUBERNETES if nodes else binaries.API_SERVER)
    if not wanted:
        return None
    advice = (
        f"Go >= {OLDEST_GO[0]}.{OLDEST_GO[1]} in PATH, to build {', '.join(wanted)}; "
        "or ready ones in PATH or KUBEBUILDER_ASSETS"
    )
    try:
        said = run("go", "version", check=False).stdout
    except RigError:
        return advice
    found = re.search(r"go(\d+)\.(\d+)", said)
    if found and (int(found[1]), int(found[2])) >= OLDEST_GO:
        return None
    return f"{advice} (it is {said.strip()})"


def _network_namespaces() -> str | None:
    if run("unshare", "--net", "true", check=False).returncode:
        return "network namespaces: CONFIG_NET_NS and CAP_SYS_ADMIN"
    if shutil.which("ip"):  # else it is about to be installed
        probe = ("link", "add", "name", "probe0", "type", "veth", "peer", "name", "probe1")
        made = run("unshare", "--net", "ip", *probe, check=False)
        if made.returncode:
            return f"veth links: CONFIG_VETH and CAP_NET_ADMIN ({made.stderr.strip()})"
    return None


def _conntrack() -> str | None:
    """Ask the kernel for conntrack statistics over netlink: needs both modules, loads them."""
    message = struct.pack("=LHHLLBBH", 20, CONNTRACK_STATS, NLM_F_REQUEST_DUMP, 1, 0, 0, 0, 0)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as netlink:
            netlink.settimeout(5)
            netlink.send(message)
            answer = netlink.recv(65536)
    except OSError as error:
        return f"conntrack over netlink: nf_conntrack and nf_conntrack_netlink ({error})"
    kind, error_code = struct.unpack_from("=H", answer, 4)[0], 0
    if kind == 2:  # NLMSG_ERROR
        error_code = -struct.unpack_from("=i", answer, 16)[0]
    if error_code:
        return f"conntrack over netlink: nf_conntrack_netlink ({os.strerror(error_code)})"
    return None


def _overlay() -> str | None:
    known = Path("/proc/filesystems")
    if "\toverlay\n" not in known.read_text(encoding="ascii") and shutil.which("modprobe"):
        run("modprobe", "overlay", check=False)
    if "\toverlay\n" in known.read_text(encoding="ascii"):
        return None
    return "overlay file system: CONFIG_OVERLAY_FS"


def _cgroups() -> str | None:
    if not cgroups.hierarchies():
        return "cgroups: nothing is mounted at /sys/fs/cgroup"
    if lacking := cgroups.missing():
        return f"cgroup controllers {', '.join(lacking)} under /sys/fs/cgroup"
    return None


def check_tools() -> None:
    """Raise NeedsMissing if the kernel cannot do what kube-proxy asks for; after installing."""
    hook = "type nat hook output priority -100;"
    rules = f"table ip t {{ chain c {{ {hook} ip daddr 192.0.2.1 dnat to 192.0.2.2; }}; }}"
    probes = {
        "NAT by nftables: nf_tables and nft_nat": ("nft", rules),
        "NAT by iptables: ip_tables or nft_compat, xt_comment": (
            *("iptables", "-t", "nat", "-A", "OUTPUT", "-d", "192.0.2.1", "-p", "tcp"),
            *("-m", "comment", "--comment", "x", "-j", "DNAT", "--to-destination", "192.0.2.2:1"),
        ),
    }
    lines = []
    for what, argv in probes.items():
        done = run("unshare", "--net", *argv, check=False)
        if done.returncode:
            lines.append(f"{what} ({done.stderr.strip()[:200]})")
    if lines:
        raise NeedsMissing(tuple(lines))
