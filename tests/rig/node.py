"""One node: net, mount, uts, ipc and pid namespaces of its own, containerd, kubelet, kube-proxy.

Its pid 1 is a power switch: when that is killed, the kernel ends all its services and pods.
"""

from __future__ import annotations

import shutil
import sys
import time
from typing import TYPE_CHECKING

from tests.rig import binaries, cgroups, node_config, places
from tests.rig.addresses import pods
from tests.rig.commands import SYSTEM_PATH, run, start
from tests.rig.errors import RigError
from tests.rig.processes import Process, children, end, identify, spawn

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Sequence
    from pathlib import Path

    from tests.rig.control_plane import ControlPlane

SERVICES = ("containerd", "kubelet", "kube-proxy")
BOOT_WITHIN = 60.0  # seconds
IMPORT_WITHIN = 240.0
STOP_WITHIN = 10.0
# In the node: a service goes on as a child of pid 1 when this shell ends.
LAUNCH = (
    "name=$1 log=$2; shift 2; "
    'setsid env -i PATH="$PATH" HOME=/ "$@" </dev/null >>"$log" 2>&1 & echo $! >"/run/$name.pid"'
)
# Signals a service of the node if its pid is still that program's (comm has 15 characters).
SIGNAL = (
    'pid=$(cat "/run/$1.pid") && [ "$(cat "/proc/$pid/comm")" = "$1" ] && kill "-$2" "$pid" '
    '&& echo "$pid"'
)


class Node:
    """A node of a cluster, counted from 1."""

    def __init__(
        self, plane: ControlPlane, index: int, *, proxy_mode: str, ipv6: bool = True
    ) -> None:
        self.index = index
        self.name = f"node{index}"
        self.netns = plane.claim.netns(f"n{index}")
        self.addresses = plane.claim.plan.node(index).address[: 2 if ipv6 else 1]
        self.ip = self.addresses[0]
        self.pod_cidr = pods(index)[0]
        self.pod_cidrs = pods(index)[: 2 if ipv6 else 1]
        self.folder = plane.claim.folder / "nodes" / self.name
        self._plane = plane
        self._ipv6 = ipv6
        self._proxy_mode = proxy_mode
        self._unshare: Process | None = None
        self._init: Process | None = None

    @property
    def pid(self) -> int:
        """The pid, on this machine, of the node's pid 1: the door to all its namespaces.

        Raises:
            RigError: the node is off.
        """
        if not self._init or not self._init.is_alive():
            raise RigError(f"{self.name} is off")
        return self._init.pid

    def argv(self, *argv: str) -> tuple[str, ...]:
        """Return the command line that runs `argv` in the node."""
        spaces = ("--mount", "--uts", "--net", "--ipc", "--pid")
        path = f"PATH={binaries.folder()}:{SYSTEM_PATH}"
        return ("nsenter", "-t", str(self.pid), *spaces, "--", "env", path, *argv)

    def run(
        self,
        *argv: str,
        input: str | None = None,  # noqa: A002 -- subprocess.run's own word
        check: bool = True,
        timeout: float = 60.0,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end in the node; see tests.rig.commands.run for errors."""
        return run(*self.argv(*argv), input=input, check=check, timeout=timeout)

    def popen(self, *argv: str, **options: object) -> subprocess.Popen[str]:
        """Start a program in the node; it ends with the node at the latest."""
        return start(*self.argv(*argv), **options)

    def write_config(self) -> None:
        """Make the node's folder, identity and configuration; once, before the first boot."""
        pki = self._plane.pki
        self.folder.mkdir(parents=True)
        (self.folder / "cni").mkdir()
        identity = pki.issue(self.name, user=f"system:node:{self.name}", group="system:nodes")
        pki.kubeconfig(self.name, identity, self._plane.server)
        proxy = pki.issue(f"{self.name}-proxy", user="system:kube-proxy")
        proxy_config = pki.kubeconfig(f"{self.name}-proxy", proxy, self._plane.server)
        cgroup = f"/{cgroups.root_of(self._plane.claim.name)}/{self.name}"
        kubelet = node_config.kubelet(client_ca=pki.certificate, cgroup=cgroup)
        kube_proxy = node_config.kube_proxy(
            mode=self._proxy_mode, kubeconfig=proxy_config, hostname=self.name, ipv6=self._ipv6
        )
        node_config.write(self.folder / "containerd.toml", node_config.CONTAINERD)
        node_config.write(self.folder / "kubelet.json", kubelet)
        node_config.write(self.folder / "kube-proxy.json", kube_proxy)
        self.limit_pod_ips(())

    def power_on(self, images: Sequence[Path] = ()) -> None:
        """Boot: fresh namespaces, then the services; disks are as they were.

        Args:
            images: archives to import before the kubelet starts.

        Raises:
            RigError: it is on already, or a service does not start.
        """
        if self._init and self._init.is_alive():
            raise RigError(f"{self.name} is on already")
        claim = self._plane.claim
        # Cgroups of the last boot's containers would cost the kubelet 3 s each before it is Ready.
        for tree in cgroups.hierarchies():
            cgroups.remove(tree.path / cgroups.root_of(claim.name) / self.name)
        cgroups.make(claim.name, self.name, claim.journal)
        network = self._plane.network
        network.add_leg(f"n{self.index}", claim.plan.node(self.index), ipv6=self._ipv6)
        network.node_link(self.index, up=True, ipv6=self._ipv6)
        self._boot()
        self.start_service("containerd")
        self._wait_containerd()
        self.start_service("kube-proxy")
        for image in images:
            self.load_image(image)
        self.start_service("kubelet")

    def _boot(self) -> None:
        booted = self.folder / "booted"
        booted.unlink(missing_ok=True)
        claim = self._plane.claim
        spaces = ("--mount", "--uts", "--ipc", "--pid", "--propagation", "private")
        argv = ["nsenter", f"--net=/run/netns/{self.netns}", "--", "unshare", *spaces]
        argv += ["--fork", "--kill-child", "--mount-proc", "--", sys.executable, "-I"]
        argv += [str(places.HERE / "node_init.py"), str(self.folder), self.name]
        self._unshare = spawn(self.name, argv, log=claim.log(self.name), journal=claim.journal)
        deadline = time.monotonic() + BOOT_WITHIN
        while not booted.exists():
            if not self._unshare.is_alive() or time.monotonic() > deadline:
                said = claim.log(self.name).read_text(encoding="utf-8", errors="replace")
                raise RigError(f"{self.name} does not boot: {said[-1500:].strip()}")
            time.sleep(0.02)
        (first,) = children(self._unshare.pid)
        self._init = identify(first)

    def _wait_containerd(self) -> None:
        deadline = time.monotonic() + BOOT_WITHIN
        while self.run("ctr", "version", check=False).returncode:
            if time.monotonic() > deadline:
                raise RigError(f"containerd of {self.name} does not answer: see its log")
            time.sleep(0.1)

    def power_off(self) -> None:
        """Cut the power: nothing is told to anyone, and its network is gone at once."""
        if not self._init or not self._unshare:
            raise RigError(f"{self.name} is off")
        end([self._init, self._unshare])
        self._init = self._unshare = None
        self._plane.network.remove_leg(f"n{self.index}")

    def link_down(self) -> None:
        """Pull the node's cable."""
        self._plane.network.node_link(self.index, up=False, ipv6=self._ipv6)

    def link_up(self) -> None:
        """Plug it in again."""
        self._plane.network.node_link(self.index, up=True, ipv6=self._ipv6)

    def start_service(self, service: str) -> None:
        """Start containerd, kubelet or kube-proxy."""
        log = self._plane.claim.log(f"{self.name}-{service}")
        self.run("sh", "-c", LAUNCH, "sh", service, str(log), *self._service_argv(service))

    def stop_service(self, service: str) -> None:
        """Stop a service with SIGTERM, after 10 s with SIGKILL; its pods run on."""
        pid = self._signal(service, "TERM")
        deadline = time.monotonic() + STOP_WITHIN
        while self.run("test", "-d", f"/proc/{pid}", check=False).returncode == 0:
            if time.monotonic() > deadline:
                self._signal(service, "KILL")
                deadline += STOP_WITHIN
            time.sleep(0.05)

    def freeze_service(self, service: str) -> None:
        """Stop a service with SIGSTOP: what it has set up stays as it is."""
        self._signal(service, "STOP")

    def thaw_service(self, service: str) -> None:
        """Let a frozen service go on."""
        self._signal(service, "CONT")

    def _signal(self, service: str, number: str) -> str:
        if service not in SERVICES:
            raise RigError(f"{service}: a node has {', '.join(SERVICES)}")
        done = self.run("sh", "-c", SIGNAL, "sh", service, number, check=False)
        if done.returncode:
            raise RigError(f"{service} does not run on {self.name}")
        return done.stdout.strip()

    def _service_argv(self, service: str) -> tuple[str, ...]:
        if service == "containerd":
            return ("containerd", "--config", str(self.folder / "containerd.toml"))
        if service == "kube-proxy":
            return (str(binaries.path(service)), f"--config={self.folder / 'kube-proxy.json'}")
        if service == "kubelet":
            return (
                str(binaries.path(service)),
                f"--config={self.folder / 'kubelet.json'}",
                f"--kubeconfig={self._plane.pki.folder / f'{self.name}.kubeconfig'}",
                f"--hostname-override={self.name}",
                f"--node-ip={','.join(self.addresses)}",
            )
        raise RigError(f"{service}: a node has {', '.join(SERVICES)}")

    def load_image(self, archive: Path) -> None:
        """Import a docker archive.

        Raises:
            RigError: containerd refuses it.
        """
        self.run(*("ctr", "-n", "k8s.io", "images", "import", str(archive)), timeout=IMPORT_WITHIN)

    def limit_pod_ips(self, addresses: Sequence[str]) -> None:
        """Let new pods have only these addresses, so that one is used again on demand.

        host-local hands them out in turn. Neighbours only; none lifts the limit. Pods that run keep
        theirs. The node's containerd reads the file when it changes.
        """
        config = node_config.pod_network(self.index, ipv6=self._ipv6, only=addresses)
        node_config.write(self.folder / "cni" / "10-pods.conflist", config)

    def remove_disk(self) -> None:
        """Forget what the node's disk held: at the next boot it is a new machine."""
        for name in ("changes", "containerd", "kubelet"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
