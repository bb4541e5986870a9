"""EndpointSlices as kube-proxy reads them (pkg/proxy/endpointslicecache.go of Kubernetes 1.33).

Only the first address of an endpoint counts; an absent condition means ready and serving but not
terminating; ports without a number are skipped. TCP only: kube-proxy cleans UDP itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from sys import intern
from typing import TYPE_CHECKING, Any, Final

from synsweep.core.bodies import (
    HEADLESS_LABEL,
    PROXY_NAME_LABEL,
    BodyReader,
    MalformedObject,
)

if TYPE_CHECKING:
    from synsweep.core.flow import IPAddress

__all__ = [
    "Endpoint",
    "MalformedObject",
    "ServiceKey",
    "ServicePortName",
    "Slice",
    "SliceKey",
    "SlicePort",
    "read_slice",
]

SERVICE_NAME_LABEL: Final = "kubernetes.io/service-name"
_ADDRESS_TYPES: Final = ("IPv4", "IPv6")
_FQDN: Final = "FQDN"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class ServiceKey:
    """Which Service."""

    namespace: str
    name: str

    def __str__(self) -> str:
        """Write `namespace/name`, as kubectl does."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class SliceKey:
    """Which EndpointSlice."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class ServicePortName:
    """kube-proxy's key of one port of one Service; always TCP here, "" for the unnamed port."""

    namespace: str
    name: str
    port_name: str

    @property
    def service(self) -> ServiceKey:
        """The Service that has this port."""
        return ServiceKey(namespace=self.namespace, name=self.name)

    def __str__(self) -> str:
        """Write `namespace/name:port`, as kube-proxy does."""
        tail = f":{self.port_name}" if self.port_name else ""
        return f"{self.namespace}/{self.name}{tail}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One endpoint of a slice, without its ports."""

    ip: IPAddress
    node_name: str  # "" where it is not on a node (slices written by hand)
    ready: bool
    serving: bool
    terminating: bool
    pod_uid: str  # targetRef.uid; "" where it is no pod


@dataclass(frozen=True, slots=True, kw_only=True)
class SlicePort:
    """A port that all endpoints of a slice have; `port` is where the backend listens."""

    name: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """What we keep of one EndpointSlice."""

    namespace: str
    name: str
    service: str
    uid: str
    resource_version: str
    ports: tuple[SlicePort, ...]
    endpoints: tuple[Endpoint, ...]

    @property
    def key(self) -> SliceKey:
        """The slice's own key."""
        return SliceKey(namespace=self.namespace, name=self.name)

    @property
    def service_key(self) -> ServiceKey:
        """The Service that the slice belongs to."""
        return ServiceKey(namespace=self.namespace, name=self.service)


def read_slice(body: Any) -> Slice | None:
    """Read a raw EndpointSlice; None where kube-proxy has nothing to do with it.

    That is: names instead of addresses, no Service, a headless Service, or another proxy's.
    Raises MalformedObject.
    """
    reader = BodyReader.of(body, kind="EndpointSlice")
    labels = reader.labels()
    service = labels.get(SERVICE_NAME_LABEL)
    if not service or HEADLESS_LABEL in labels or PROXY_NAME_LABEL in labels:
        return None
    address_type = body.get("addressType")
    if address_type == _FQDN:
        return None
    if address_type not in _ADDRESS_TYPES:
        raise reader.refusal("addressType", address_type, ", ".join((*_ADDRESS_TYPES, _FQDN)))
    return Slice(
        namespace=reader.namespace,
        name=reader.name,
        service=service,
        uid=reader.uid,
        resource_version=reader.resource_version,
        ports=_ports(reader, body.get("ports")),
        endpoints=_endpoints(reader, body.get("endpoints")),
    )


def is_tcp(protocol: str) -> bool:
    """Whether a port's protocol is TCP, the default of the API."""
    return protocol in {"", "TCP"}


def _ports(reader: BodyReader, raw: object) -> tuple[SlicePort, ...]:
    """Read the TCP ports that have a number."""
    ports = []
    for position, item in enumerate(reader.sequence(raw, "ports")):
        field = f"ports[{position}]"
        fields = reader.mapping(item, field)
        if not is_tcp(reader.text(fields.get("protocol"), f"{field}.protocol")):
            continue
        number = reader.port(fields.get("port"), f"{field}.port")
        name = reader.text(fields.get("name"), f"{field}.name")
        if number:
            ports.append(SlicePort(name=intern(name), port=number))
    return tuple(ports)


def _endpoints(reader: BodyReader, raw: object) -> tuple[Endpoint, ...]:
    """Read the endpoints that have an address."""
    endpoints = []
    for position, item in enumerate(reader.sequence(raw, "endpoints")):
        field = f"endpoints[{position}]"
        fields = reader.mapping(item, field)
        addresses = reader.sequence(fields.get("addresses"), f"{field}.addresses")
        if not addresses:  # kube-proxy says "ignoring", too
            continue
        conditions = reader.mapping(fields.get("conditions"), f"{field}.conditions")
        flags = {
            name: reader.flag(conditions.get(name), f"{field}.conditions.{name}", absent=absent)
            for name, absent in (("ready", True), ("serving", True), ("terminating", False))
        }
        target = reader.mapping(fields.get("targetRef"), f"{field}.targetRef")
        endpoints.append(
            Endpoint(
                ip=reader.ip(addresses[0], f"{field}.addresses[0]"),
                node_name=intern(reader.text(fields.get("nodeName"), f"{field}.nodeName")),
                pod_uid=_pod_uid(reader, target, field),
                **flags,
            )
        )
    return tuple(endpoints)


def _pod_uid(reader: BodyReader, target: Any, field: str) -> str:
    """Read targetRef.uid where the target is a pod."""
    if target.get("kind") != "Pod":
        return ""
    return reader.text(target.get("uid"), f"{field}.targetRef.uid")
