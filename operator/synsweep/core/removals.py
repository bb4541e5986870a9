"""What the index says after an event, and what of it counts as a removal.

A removal is a pair of frontend and backend, as the kernel sees it: an entry sends a client to X
only through the frontend that the client dialled. A removed backend names all frontends of its
Service port for which the pair is gone for the same reason since the same moment.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from synsweep.core.cleanup import CleanupReason, Frontend
    from synsweep.core.endpoints import ServicePortName
    from synsweep.core.flow import Address

MASS_WINDOW: Final = 10.0  # seconds
MASS_MINIMUM: Final = 500  # backends
MASS_SHARE: Final = 0.1  # of all backends


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What one event did.

    `gone`: a frontend or a backend vanished, so ask for the removals after the batch window.
    `back`: one is there or is chosen (again), so look at once whether a live cleanup must lose it.
    Backends that are merely unchosen are neither: time alone makes them removals.
    """

    gone: bool = False
    back: bool = False

    def __bool__(self) -> bool:
        """Whether anything is to be done."""
        return self.gone or self.back

    def __or__(self, other: Change) -> Change:
        """Both changes as one."""
        return Change(gone=self.gone or other.gone, back=self.back or other.back)


NO_CHANGE: Final = Change()


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovedBackend:
    """A backend that is gone for these frontends of one Service port.

    `gone_at` is when the pairs stopped being valid (ENDPOINT_REMOVED) or since when no kube-proxy
    would choose them (ENDPOINT_UNREADY: the policy says after how long that counts). A backend that
    was unchosen before it left its slices is gone since it left: the pod's IP is free from then on,
    and it is the IP's cooldown that every deadline is counted from. `terminated`: it was last seen
    terminating, so its pod is being deleted and nothing at that address is about to answer.
    """

    service_port: ServicePortName
    backend: Address
    frontends: frozenset[Frontend]
    reason: CleanupReason
    gone_at: float
    terminated: bool


def mass_removal(removed: Iterable[RemovedBackend], *, now: float, backends_total: int) -> bool:
    """Whether so much vanished in 10 s that the index itself is in doubt (the brake).

    More than a tenth of all backends, and at least 500. `backends_total` counts what is there now.
    """
    recent = {
        (one.service_port, one.backend) for one in removed if now - one.gone_at <= MASS_WINDOW
    }
    before = backends_total + len(recent)
    return len(recent) >= MASS_MINIMUM and len(recent) > MASS_SHARE * before
