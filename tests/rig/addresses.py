"""Which addresses a cluster uses, so that neither the machine's own nor another cluster's clash.

Only the nodes' network needs a route on the machine, so only that one differs between clusters;
pods and Services live inside the namespaces and are the same in all of them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network

from tests.rig.commands import run
from tests.rig.errors import RigError

CONTROL_PLANE_LEG = 0
OUTSIDE_LEG = 254
HOST_LEG = 255
MAX_NODES = 200
PODS = ("10.244.0.0/16", "fd73:244::/48")
SERVICES = ("10.96.0.0/16", "fd73:96::/112")
API_SERVICE = "10.96.0.1"
CANDIDATES = (30, 29, 28, 27, 26, 25, 24, 23, 22, 21, 20, 31, 19, 18, 17, 16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Leg:
    """One veth off the router: addresses of both ends, with prefix lengths."""

    gateway: tuple[str, str]  # IPv4, IPv6 of the router's end
    address: tuple[str, str]
    lengths: tuple[int, int] = (24, 64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The addresses of one cluster."""

    octet: int  # nodes live in 172.OCTET.0.0/16 and fd73:OCTET::/32

    @property
    def network(self) -> str:
        """The IPv4 network that the machine gets a route to."""
        return f"172.{self.octet}.0.0/16"

    def leg(self, index: int, host: int) -> Leg:
        """Return leg `index`; its far end has host part `host`."""
        v4, v6 = f"172.{self.octet}.{index}", f"fd73:{self.octet}:{index}:"
        return Leg(gateway=(f"{v4}.1", f"{v6}:1"), address=(f"{v4}.{host}", f"{v6}:{host}"))

    def control_plane(self) -> Leg:
        """Return the leg of etcd, kube-apiserver and their like."""
        return self.leg(CONTROL_PLANE_LEG, 2)

    def node(self, index: int) -> Leg:
        """Return the leg of node `index`, counted from 1."""
        return self.leg(index, 10)

    def outside(self) -> Leg:
        """Return the leg of the clients beyond the nodes."""
        return self.leg(OUTSIDE_LEG, 10)

    def host(self) -> Leg:
        """Return the leg by which this machine itself reaches the API server."""
        return self.leg(HOST_LEG, 2)


def pods(index: int) -> tuple[str, str]:
    """Return the pod networks of node `index`, IPv4 and IPv6."""
    return f"10.244.{index}.0/24", f"fd73:244:0:{index}::/64"


def free_plan(taken: frozenset[int]) -> Plan:
    """Choose a node network that no address or route of this machine overlaps.

    Args:
        taken: octets of the clusters that are up.

    Raises:
        RigError: all are in use.
    """
    ours = _networks_in_use()
    for octet in CANDIDATES:
        plan = Plan(octet=octet)
        if octet not in taken and not any(net.overlaps(ip_network(plan.network)) for net in ours):
            return plan
    raise RigError("every network from 172.16.0.0/16 to 172.31.0.0/16 is in use on this machine")


def _networks_in_use() -> list[IPv4Network]:
    found: list[IPv4Network | IPv6Network] = []
    for link in json.loads(run("ip", "-4", "-j", "addr").stdout or "[]"):
        found += [
            ip_network(f"{a['local']}/{a['prefixlen']}", strict=False)
            for a in link.get("addr_info", [])
            if "local" in a
        ]
    for route in json.loads(run("ip", "-4", "-j", "route").stdout or "[]"):
        if route.get("dst", "default") != "default":
            found.append(ip_network(route["dst"], strict=False))
    return [net for net in found if isinstance(net, IPv4Network)]
