"""The Debian packages that the rig stands on."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.rig import binaries
from tests.rig.commands import run
from tests.rig.errors import RigError
from tests.rig.places import say

# What is looked for, and the package that brings it.
PACKAGES = {
    "containerd": "containerd",
    "runc": "runc",
    "/usr/lib/cni/ptp": "containernetworking-plugins",
    "etcd": "etcd-server",
    "iptables": "iptables",
    "nft": "nftables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "busybox": "busybox-static",
    "mmdebstrap": "mmdebstrap",
    "buildah": "buildah",
    "newuidmap": "uidmap",
    "/etc/ssl/certs/ca-certificates.crt": "ca-certificates",
}


def missing() -> tuple[str, ...]:
    """Return the packages that must be installed."""
    return tuple(
        package
        for what, package in PACKAGES.items()
        if not (Path(what).exists() if what.startswith("/") else binaries.find(what))
    )


def ensure() -> None:
    """Install what is missing, after saying it.

    Raises:
        RigError: this is not Debian, or apt fails.
    """
    wanted = missing()
    if not wanted:
        return
    if not shutil.which("apt-get"):
        raise RigError(f"install these yourself (no apt-get here): {', '.join(wanted)}")
    say(f"installing Debian packages: {' '.join(wanted)}")
    if {"etcd-server", "containerd"} & set(wanted) and Path("/run/systemd/system").exists():
        say("  (Debian starts services etcd and containerd with them; the rig does not use those)")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    install = ("apt-get", "install", "-y", "--no-install-recommends", *wanted)
    if run(*install, check=False, timeout=900, env=quiet).returncode:
        run("apt-get", "update", timeout=300, env=quiet)
        run(*install, timeout=900, env=quiet)
    binaries.forget()
    say("installed")
