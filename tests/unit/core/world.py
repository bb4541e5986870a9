"""A small cluster to judge: raw bodies as the API server sends them, and the index over them."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from synsweep.core.cleanup import CleanupReason, Frontend, NodePort
from synsweep.core.endpoints import ServiceKey, SliceKey, read_slice
from synsweep.core.flow import Address
from synsweep.core.index import BackendIndex
from synsweep.core.services import read_service

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from synsweep.core.removals import Change

Raw = dict[str, Any]

HTTP: Mapping[str, int] = {"http": 8080}
REMOVED = CleanupReason.ENDPOINT_REMOVED
UNREADY = CleanupReason.ENDPOINT_UNREADY


def at(text: str) -> Address:
    """Parse `ip:port`."""
    ip, _, port = text.rpartition(":")
    return Address(ip_address(ip.strip("[]")), int(port))


def up(ip: str, *, node: str = "node1", **conditions: bool) -> Raw:
    """An endpoint; ready, serving and staying unless told otherwise."""
    states = {"ready": True, "serving": True, "terminating": False, **conditions}
    target = {"kind": "Pod", "name": f"pod-{ip}", "uid": f"uid-{ip}"}
    return {"addresses": [ip], "nodeName": node, "conditions": states, "targetRef": target}


def down(ip: str, *, node: str = "node1") -> Raw:
    """Not ready, for example since its node is lost."""
    return up(ip, node=node, ready=False, serving=False)


def leaving(ip: str, *, node: str = "node1", serving: bool = True) -> Raw:
    """Its pod is being deleted."""
    return up(ip, node=node, ready=False, serving=serving, terminating=True)


def slice_body(
    name: str,
    endpoints: Sequence[Raw],
    *,
    service: str = "a",
    ports: Mapping[str, int] = HTTP,
    labels: Mapping[str, str] | None = None,
    address_type: str = "IPv4",
) -> Raw:
    """An EndpointSlice in Namespace `shop`."""
    own = {"kubernetes.io/service-name": service} | dict(labels or {})
    return {
        "addressType": address_type,
        "metadata": {"namespace": "shop", "name": name, "labels": own, "uid": f"uid-{name}"},
        "ports": [
            {"name": port, "port": number, "protocol": "TCP"} for port, number in ports.items()
        ],
        "endpoints": list(endpoints),
    }


def service_body(
    name: str = "a",
    *,
    ips: Sequence[str] = ("10.96.0.1",),
    ports: Mapping[str, int] | None = None,
    node_ports: Mapping[str, int] | None = None,
    labels: Mapping[str, str] | None = None,
    **spec: Any,
) -> Raw:
    """A Service in Namespace `shop`, port http = 80 unless told otherwise."""
    numbers = {"http": 80} if ports is None else ports
    return {
        "metadata": {
            "namespace": "shop",
            "name": name,
            "labels": dict(labels or {}),
            "uid": f"uid-{name}",
            "resourceVersion": "7",
        },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": ips[0] if ips else "None",
            "clusterIPs": list(ips) or ["None"],
            "ports": [
                {
                    "name": port,
                    "port": number,
                    "protocol": "TCP",
                    "nodePort": (node_ports or {}).get(port, 0),
                }
                for port, number in numbers.items()
            ],
        }
        | spec,
    }


class World:
    """An index and a clock; every verb is one event that the controller would see."""

    def __init__(self) -> None:
        self.index = BackendIndex()
        self.now = 100.0
        self.index.apply_namespace("shop", {"kubernetes.io/metadata.name": "shop"}, now=self.now)

    def slice(self, name: str, *endpoints: Raw, **options: Any) -> Change:
        read = read_slice(slice_body(name, endpoints, **options))
        return self.index.apply_slice(_slice_key(name), read, now=self.now)

    def delete_slice(self, name: str) -> Change:
        return self.index.apply_slice(_slice_key(name), None, now=self.now)

    def service(self, name: str = "a", **options: Any) -> Change:
        read = read_service(service_body(name, **options))
        return self.index.apply_service(read.key, read, now=self.now)

    def delete_service(self, name: str = "a") -> Change:
        return self.index.apply_service(service_key(name), None, now=self.now)

    def wait(self, seconds: float) -> None:
        self.now += seconds

    def gone(
        self, reason: CleanupReason | None = None, within: float | None = None
    ) -> set[tuple[str, str]]:
        """All gone pairs, as text."""
        return {
            (_text(frontend), str(one.backend))
            for one in self.index.gone(now=self.now, within=within)
            for frontend in one.frontends
            if reason in {None, one.reason}
        }

    def removed(self) -> set[tuple[str, str]]:
        """All pairs that are gone because an endpoint or a frontend was removed."""
        return self.gone(REMOVED)

    def unready(self) -> set[tuple[str, str]]:
        """All pairs that no kube-proxy would choose."""
        return self.gone(UNREADY)


def service_key(name: str = "a") -> ServiceKey:
    return ServiceKey(namespace="shop", name=name)


def _slice_key(name: str) -> SliceKey:
    return SliceKey(namespace="shop", name=name)


def _text(frontend: Frontend) -> str:
    return f"*:{frontend.port}" if isinstance(frontend, NodePort) else str(frontend)
