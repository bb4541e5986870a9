"""Reading raw Kubernetes bodies: what is not as the API promises is refused by name.

Bodies are JSON as the API server sent it; it has validated them, so a refusal here means a newer
API, a broken proxy or somebody's hand in etcd. The caller logs the one line of `MalformedObject`,
counts it and keeps what it knew of that object.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, ip_address
from sys import intern
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

if TYPE_CHECKING:
    from synsweep.core.flow import IPAddress

RawBody: TypeAlias = Mapping[str, Any]
Labels: TypeAlias = Mapping[str, str]

# kube-proxy asks the API server to leave out Services and slices that carry one of these labels
# (cmd/kube-proxy/app/server.go, noProxyName and noHeadlessEndpoints).
PROXY_NAME_LABEL: Final = "service.kubernetes.io/service-proxy-name"
HEADLESS_LABEL: Final = "service.kubernetes.io/headless"

MAX_PORT: Final = 65535
_SHOWN_CHARACTERS: Final = 100
_NOTHING: Final[RawBody] = MappingProxyType({})

_Word = TypeVar("_Word", bound=StrEnum)


class MalformedObject(ValueError):
    """A body that is not what the API promises: which object, which field, what it holds."""

    def __init__(
        self, *, kind: str, namespace: str, name: str, field: str, value: object, allowed: str
    ) -> None:
        """Put everything that a person needs to find the object into the one line."""
        shown = repr(value)[:_SHOWN_CHARACTERS]
        where = f"{namespace}/{name}" if namespace else name
        super().__init__(f"{kind} {where}: {field} is {shown}; allowed: {allowed}")
        self.kind = kind
        self.namespace = namespace
        self.name = name
        self.field = field
        self.value = value
        self.allowed = allowed


def parse_ip(raw: str) -> IPAddress:
    """Parse an address as kube-proxy does (ParseIPSloppy), in the one form the kernel shows.

    Leading zeros are decimal, and an IPv4 address written as IPv6 (`::ffff:10.0.0.1`) is IPv4.
    Raises ValueError.
    """
    ip: IPv4Address | IPv6Address
    try:
        ip = ip_address(raw)
    except ValueError:
        ip = IPv4Address(".".join(part.lstrip("0") or part[-1:] for part in raw.split(".")))
    return (ip.ipv4_mapped or ip) if isinstance(ip, IPv6Address) else ip


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyReader:
    """Typed access to the fields of one body; every method raises MalformedObject.

    null and absent are the same everywhere, as in the Go types that the API server uses.
    """

    kind: str
    namespace: str
    name: str
    metadata: RawBody

    @classmethod
    def of(cls, body: object, *, kind: str) -> BodyReader:
        """Read what every object has: a name, and a namespace unless it is cluster-scoped."""
        nameless = cls(kind=kind, namespace="", name="?", metadata=_NOTHING)
        metadata = nameless.mapping(nameless.mapping(body, "").get("metadata"), "metadata")
        name = nameless.text(metadata.get("name"), "metadata.name")
        namespace = nameless.text(metadata.get("namespace"), "metadata.namespace")
        if not name:
            raise nameless.refusal("metadata.name", name, "a name")
        return cls(kind=kind, namespace=intern(namespace), name=intern(name), metadata=metadata)

    def refusal(self, field: str, value: object, allowed: str) -> MalformedObject:
        """Make the exception for one field."""
        return MalformedObject(
            kind=self.kind,
            namespace=self.namespace,
            name=self.name,
            field=field,
            value=value,
            allowed=allowed,
        )

    def mapping(self, value: object, field: str) -> RawBody:
        """Read an object; absent is empty."""
        if value is None:
            return _NOTHING
        if not isinstance(value, Mapping):
            raise self.refusal(field, value, "an object")
        return value

    def sequence(self, value: object, field: str) -> Sequence[Any]:
        """Read a list; absent is empty."""
        if value is None:
            return ()
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise self.refusal(field, value, "a list")
        return value

    def text(self, value: object, field: str) -> str:
        """Read a string; absent is empty."""
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self.refusal(field, value, "a string")
        return value

    def flag(self, value: object, field: str, *, absent: bool) -> bool:
        """Read a boolean."""
        if value is None:
            return absent
        if not isinstance(value, bool):
            raise self.refusal(field, value, "true or false")
        return value

    def number(self, value: object, field: str, *, absent: int, lowest: int, highest: int) -> int:
        """Read an integer within limits."""
        if value is None:
            return absent
        if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
            raise self.refusal(field, value, f"an integer from {lowest} to {highest}")
        return value

    def port(self, value: object, field: str) -> int:
        """Read a port number; absent is 0, which kube-proxy skips."""
        return self.number(value, field, absent=0, lowest=0, highest=MAX_PORT)

    def word(
        self, value: object, field: str, words: type[_Word], *, absent: _Word | None = None
    ) -> _Word:
        """Read one of the words of an enum; without `absent` the field is required."""
        if value is None and absent is not None:
            return absent
        if not isinstance(value, str) or value not in {word.value for word in words}:
            raise self.refusal(field, value, ", ".join(words))
        return words(value)

    def ip(self, value: object, field: str) -> IPAddress:
        """Read an IPv4 or IPv6 address."""
        try:
            return parse_ip(self.text(value, field))
        except ValueError as error:
            raise self.refusal(field, value, "an IPv4 or IPv6 address") from error

    def labels(self) -> Labels:
        """Read metadata.labels."""
        raw = self.mapping(self.metadata.get("labels"), "metadata.labels")
        return {
            intern(str(key)): intern(self.text(value, f"metadata.labels[{key}]"))
            for key, value in raw.items()
        }

    @property
    def uid(self) -> str:
        """metadata.uid."""
        return self.text(self.metadata.get("uid"), "metadata.uid")

    @property
    def resource_version(self) -> str:
        """metadata.resourceVersion."""
        return self.text(self.metadata.get("resourceVersion"), "metadata.resourceVersion")
