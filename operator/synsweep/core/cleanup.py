"""One instruction to the nodes: which pairs of frontend and backend are gone, how long to look.

Addresses only. No filter, state or pattern travels, so no instruction can make a node delete
anything but half-open flows to those backends through those frontends; the delete rule itself is
compiled into `staleness`. Reading and writing the API object is in `cleanup_wire`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

from synsweep.core.flow import Address

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

FORMAT_VERSION = 1


class Mode(StrEnum):
    """What a policy wants done. A cleanup is `Enforce` or `DryRun`; `Disabled` never makes one."""

    ENFORCE = "Enforce"
    DRY_RUN = "DryRun"
    DISABLED = "Disabled"


class Misrouted(StrEnum):
    """What a policy wants done about a connection that did reach the IP's next owner."""

    REPORT = "Report"
    RESET = "Reset"
    IGNORE = "Ignore"


class CleanupReason(StrEnum):
    """Why the controller wrote it."""

    ENDPOINT_REMOVED = "EndpointRemoved"  # in no EndpointSlice of any Service with that frontend
    ENDPOINT_UNREADY = "EndpointUnready"  # still there, but no kube-proxy would choose it
    NODE_SUSPECT = "NodeSuspect"  # a node asked about it


@dataclass(frozen=True, slots=True, order=True)
class NodePort:
    """A frontend on any address of the node that judges: port only."""

    port: int

    def __str__(self) -> str:
        """Write it as kubectl users say it."""
        return f"nodePort {self.port}"


Frontend: TypeAlias = Address | NodePort  # what the client dialled: the original destination


@dataclass(frozen=True, slots=True, kw_only=True)
class Reuse:
    """The pod that has the backend's ip:port now, and the other Service it is in."""

    namespace: str
    service: str
    pod_uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetBackend:
    """A backend that is gone from the target's Service port.

    `terminated`: it was last seen terminating, that is, its pod is being deleted and nothing at
    this address will answer any more. Otherwise the pod may live on (a selector moved, not ready).
    """

    address: Address
    terminated: bool
    reused: Reuse | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanupTarget:
    """One Service port: every frontend of it is gone for every backend of it.

    `id` numbers the targets of one cleanup from 0 and stays when others are taken out: the API
    server tells by it that targets only shrink. Service and port name would not do, since a Service
    port whose frontends are more than one target may hold is split.
    """

    id: int
    namespace: str
    service: str
    port_name: str
    frontends: tuple[Frontend, ...]
    backends: tuple[TargetBackend, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleanup:
    """A ConntrackCleanup. Durations are whole seconds unless the field says otherwise."""

    name: str  # metadata.name: see cleanup_name()
    uid: str  # metadata.uid; "" while it is not in the API yet
    policy: str  # owner reference: the ConntrackPolicy's name
    policy_uid: str  # owner reference: its uid, the key of all counters
    sequence: int  # increasing; a node's `sweptThrough` refers to it
    mode: Mode
    misrouted: Misrouted
    reason: CleanupReason
    gone_for_seconds: float  # when written: how long the first of its backends had been gone
    removed_at: str  # RFC 3339, for people only: never compared with any clock
    reuse_after_seconds: int  # the CNI's cooldown: from then on another pod may get the IP
    sweep_for_seconds: int  # from the removal on, nodes sweep again and again for so long
    report_within_seconds: int  # a node with news writes it within so long, at a random moment
    nodes: tuple[str, ...]  # for these nodes only; empty = all
    targets: tuple[CleanupTarget, ...]
    created_at: str = ""  # metadata.creationTimestamp

    def is_for(self, node_name: str) -> bool:
        """Whether that node is to act on it."""
        return not self.nodes or node_name in self.nodes

    @property
    def backends_total(self) -> int:
        """How many backends it names, over all targets."""
        return sum(len(target.backends) for target in self.targets)


class CleanupRefused(ValueError):
    """A ConntrackCleanup that must not be acted on.

    `reason` is a word for the status (UnknownFormatVersion, FieldOutOfLimits, MalformedCleanup),
    `field` the path such as `spec.targets[3].backends[0].port`, `value` what stood there,
    shortened; the message adds what is allowed.
    """

    def __init__(self, *, reason: str, field: str, value: str, allowed: str) -> None:
        super().__init__(f"{field} is {value}, allowed is {allowed}")
        self.reason = reason
        self.field = field
        self.value = value
        self.allowed = allowed


_NAME_PREFIX = {
    CleanupReason.ENDPOINT_REMOVED: "endpoint-removed",
    CleanupReason.ENDPOINT_UNREADY: "endpoint-unready",
    CleanupReason.NODE_SUSPECT: "node-suspect",
}


def cleanup_name(reason: CleanupReason, sequence: int) -> str:
    """The object's name, such as `endpoint-removed-17`."""
    return f"{_NAME_PREFIX[reason]}-{sequence}"


def without(cleanup: Cleanup, pairs: AbstractSet[tuple[Frontend, Address]]) -> Cleanup | None:
    """Take out every backend that serves again: the one change a cleanup may undergo (revocation).

    A backend goes from a target when any of the target's frontends leads to it again: frontends
    themselves cannot be taken out, and keeping a stale entry costs less than deleting a live one.

    Args:
        cleanup: what the API holds.
        pairs: (frontend, backend) pairs that are valid now.

    Returns:
        The same object when nothing changes, a smaller one, or None when no backend is left.
    """
    targets = tuple(
        kept for target in cleanup.targets if (kept := _target_without(target, pairs)).backends
    )
    if targets == cleanup.targets:
        return cleanup
    return replace(cleanup, targets=targets) if targets else None


def _target_without(
    target: CleanupTarget, pairs: AbstractSet[tuple[Frontend, Address]]
) -> CleanupTarget:
    backends = tuple(
        backend
        for backend in target.backends
        if not any((frontend, backend.address) in pairs for frontend in target.frontends)
    )
    return replace(target, backends=backends)
