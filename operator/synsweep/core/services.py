"""Services as kube-proxy reads them (pkg/proxy/serviceport.go of Kubernetes 1.33).

A Service is its frontends, what a client dials: cluster IPs, external IPs, the load balancer's IPs
that kube-proxy answers for, and nodePorts. None, and never an error: ExternalName, headless,
and what is labelled for another proxy.
"""

from __future__ import annotations

from dataclasses import dataclass
from sys import intern
from typing import TYPE_CHECKING, Any, Final

from synsweep.core.bodies import (
    HEADLESS_LABEL,
    PROXY_NAME_LABEL,
    BodyReader,
)
from synsweep.core.cleanup import NodePort
from synsweep.core.endpoints import ServiceKey, is_tcp
from synsweep.core.flow import Address

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synsweep.core.bodies import Labels, RawBody
    from synsweep.core.cleanup import Frontend
    from synsweep.core.flow import IPAddress

_NO_CLUSTER_IP: Final = frozenset({"", "None"})
_LOCAL: Final = "Local"
_VIP_MODES: Final = (None, "VIP")  # absent is VIP


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What we keep of one Service.

    `local` says that any of its traffic policies is Local: then each node falls back to terminating
    backends by itself. `foreign` says that its labels hide it from kube-proxy: another proxy may
    serve the same addresses, so nothing of it is ever condemned, not even what we saw before.
    """

    namespace: str
    name: str
    uid: str
    resource_version: str
    labels: Labels
    frontends: Mapping[str, frozenset[Frontend]]  # by port name, TCP only
    local: bool
    foreign: bool

    @property
    def key(self) -> ServiceKey:
        """The Service's key."""
        return ServiceKey(namespace=self.namespace, name=self.name)


def read_service(body: Any) -> Service:
    """Read a raw Service. Raises MalformedObject."""
    reader = BodyReader.of(body, kind="Service")
    labels = reader.labels()
    spec = reader.mapping(body.get("spec"), "spec")
    foreign = HEADLESS_LABEL in labels or PROXY_NAME_LABEL in labels
    cluster_ips = _cluster_ips(reader, spec)
    proxied = bool(cluster_ips) and spec.get("type") != "ExternalName" and not foreign
    ips = (
        cluster_ips
        | {
            reader.ip(raw, f"spec.externalIPs[{position}]")
            for position, raw in enumerate(
                reader.sequence(spec.get("externalIPs"), "spec.externalIPs")
            )
        }
        | _load_balancer_ips(reader, body)
    )
    policies = (spec.get("externalTrafficPolicy"), spec.get("internalTrafficPolicy"))
    return Service(
        namespace=reader.namespace,
        name=reader.name,
        uid=reader.uid,
        resource_version=reader.resource_version,
        labels=labels,
        frontends=_frontends(reader, spec, ips) if proxied else {},
        local=_LOCAL in policies,
        foreign=foreign,
    )


def _cluster_ips(reader: BodyReader, spec: RawBody) -> frozenset[IPAddress]:
    """Read the cluster IPs; none for a headless Service."""
    first = reader.text(spec.get("clusterIP"), "spec.clusterIP")
    raw = reader.sequence(spec.get("clusterIPs"), "spec.clusterIPs") or (first,)
    return frozenset(
        reader.ip(value, f"spec.clusterIPs[{position}]")
        for position, value in enumerate(raw)
        if reader.text(value, f"spec.clusterIPs[{position}]") not in _NO_CLUSTER_IP
    )


def _load_balancer_ips(reader: BodyReader, body: RawBody) -> frozenset[IPAddress]:
    """Read the load balancer's IPs of mode VIP (the default): kube-proxy's only ones."""
    status = reader.mapping(body.get("status"), "status")
    balancer = reader.mapping(status.get("loadBalancer"), "status.loadBalancer")
    field = "status.loadBalancer.ingress"
    ips = set()
    for position, item in enumerate(reader.sequence(balancer.get("ingress"), field)):
        ingress = reader.mapping(item, f"{field}[{position}]")
        if ingress.get("ip") and ingress.get("ipMode") in _VIP_MODES:
            ips.add(reader.ip(ingress["ip"], f"{field}[{position}].ip"))
    return frozenset(ips)


def _frontends(
    reader: BodyReader, spec: RawBody, ips: frozenset[IPAddress]
) -> dict[str, frozenset[Frontend]]:
    """Combine every TCP port with every address, and add the nodePorts."""
    found: dict[str, frozenset[Frontend]] = {}
    for position, item in enumerate(reader.sequence(spec.get("ports"), "spec.ports")):
        field = f"spec.ports[{position}]"
        port = reader.mapping(item, field)
        if not is_tcp(reader.text(port.get("protocol"), f"{field}.protocol")):
            continue
        number = reader.port(port.get("port"), f"{field}.port")
        node_port = reader.port(port.get("nodePort"), f"{field}.nodePort")
        name = intern(reader.text(port.get("name"), f"{field}.name"))
        if not number:
            raise reader.refusal(f"{field}.port", number, "a port from 1 to 65535")
        of_node: set[Frontend] = {NodePort(node_port)} if node_port else set()
        found[name] = frozenset({Address(ip, number) for ip in ips} | of_node)
    return found
