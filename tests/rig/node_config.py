"""The files that a node's services read. JSON throughout: the YAML ones take it too."""

from __future__ import annotations

import json
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any

from tests.rig.addresses import PODS, pods
from tests.rig.errors import RigError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PAUSE = "registry.k8s.io/pause:3.8"  # a name only: the image is made here

# restrict_oom_score_adj: without CAP_SYS_RESOURCE no sandbox starts else ("can't get final child's
# PID from pipe: EOF"). The plug-in folder would otherwise be made under /opt of the machine.
CONTAINERD = f"""\
version = 2
[plugins."io.containerd.internal.v1.opt"]
  path = "/var/lib/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
"""


def kubelet(*, client_ca: Path, cgroup: str) -> dict[str, Any]:
    """Return a KubeletConfiguration."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(client_ca)},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroup,
        "failSwapOn": False,
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "clusterDomain": "cluster.local",
        "resolvConf": "/etc/resolv.conf",
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        "imageGCHighThresholdPercent": 100,
        "maxPods": 200,
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "1%",
            "imagefs.available": "1%",
            "nodefs.inodesFree": "1%",
        },
    }


def kube_proxy(*, mode: str, kubeconfig: Path, hostname: str, ipv6: bool) -> dict[str, Any]:
    """Return a KubeProxyConfiguration.

    maxPerCore 0: nf_conntrack_max cannot be written in a network namespace, and kube-proxy would
    end over it.
    """
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": mode,
        "clientConnection": {"kubeconfig": str(kubeconfig)},
        "clusterCIDR": ",".join(PODS if ipv6 else PODS[:1]),
        "hostnameOverride": hostname,
        "conntrack": {"maxPerCore": 0},
    }


def pod_network(index: int, *, ipv6: bool, only: Sequence[str] = ()) -> dict[str, Any]:
    """Return a CNI configuration: a veth for each pod, and a route to it.

    Args:
        index: the node.
        ipv6: give each pod an address of both families.
        only: the addresses that pods may get; all of the node's if empty. host-local takes one
            range, so those of one family must be neighbours; a family that is not named is free.

    Raises:
        RigError: addresses of another node, or with gaps.
    """
    ranges = [_range(network, only) for network in pods(index)[: 2 if ipv6 else 1]]
    routes = [{"dst": "0.0.0.0/0"}] + ([{"dst": "::/0"}] if ipv6 else [])
    ipam = {"type": "host-local", "ranges": [[item] for item in ranges], "routes": routes}
    wire = {"type": "ptp", "ipMasq": False, "mtu": 1500, "ipam": ipam}
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    unknown = [
        address
        for address in only
        if not any(ip_address(address) in ip_network(network) for network in pods(index))
    ]
    if unknown:
        raise RigError(f"{', '.join(unknown)}: not in {' or '.join(pods(index))}")
    return {"cniVersion": "0.3.1", "name": "pods", "plugins": [wire, ports]}


def _range(network: str, only: Sequence[str]) -> dict[str, str]:
    inside = ip_network(network)
    wanted = sorted(int(ip_address(a)) for a in only if ip_address(a).version == inside.version)
    if not wanted:
        return {"subnet": network}
    if wanted[-1] - wanted[0] != len(set(wanted)) - 1:
        raise RigError(f"addresses for pods must be neighbours: {', '.join(only)}")
    ends = {"rangeStart": wanted[0], "rangeEnd": wanted[-1]}
    base = inside.network_address
    spelled = {key: str(base + (value - int(base))) for key, value in ends.items()}
    return {"subnet": network, **spelled}


def write(path: Path, content: dict[str, Any] | str) -> None:
    """Write a file so that a reader sees the old or the new one, never half of it."""
    fresh = path.with_name(f".{path.name}.new")
    text = content if isinstance(content, str) else json.dumps(content, indent=1)
    fresh.write_text(text, encoding="utf-8")
    fresh.rename(path)
