"""The table as the rest of the program sees it: two verbs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Set as AbstractSet

    from synsweep.core.flow import Address, ConntrackEntry
    from synsweep.core.staleness import CondemnedEntry, Deletion, KeepReason

    Judge = Callable[[ConntrackEntry], KeepReason | None]


class ConntrackError(Exception):
    """The kernel did not do what was asked; the message says which verb and why."""


class ConntrackUnavailable(ConntrackError):
    """No conntrack over netlink here: a capability, a module or the protocol is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """One dump of the table.

    `entries` holds the half-open DNATed TCP entries, and those of any state whose backend was asked
    for. `others` counts the half-open ones that were left out for their backend (`among`);
    `listed` counts what the kernel sent, `skipped` what could not be decoded (never judged,
    only counted). `filtered` tells whether the kernel filtered by status. `seconds` is wall time.
    A single dump proves no absence: a resize in mid-dump can lose entries (ctnetlink never
    sets NLM_F_DUMP_INTR).
    """

    entries: tuple[ConntrackEntry, ...]
    listed: int
    others: int = 0
    skipped: int = 0
    filtered: bool = True
    seconds: float = 0.0
    skipped_reasons: dict[str, int] = field(default_factory=dict)


class ConntrackTable(Protocol):
    """The two verbs. Implementations: `netlink.NetlinkTable`, `memory.MemoryTable`."""

    def entries(
        self,
        asked_for: AbstractSet[Address] = frozenset(),
        *,
        among: AbstractSet[Address] | None = None,
    ) -> Listing:
        """List half-open DNATed TCP entries, v4 and v6, and all whose backend is asked for.

        With `among` only half-open entries to these backends are kept, the others are counted: in a
        flood of SYNs there may be hundreds of thousands.

        Raises:
            ConntrackUnavailable: no capability, no module.
            ConntrackError: the dump failed.
        """
        ...

    def delete(self, condemned: CondemnedEntry, judge: Judge) -> Deletion:
        """Delete exactly the judged entry: get it again, judge it again, delete it at once.

        An entry that is gone, was replaced or is kept by `judge` now is an outcome, never an error;
        what the kernel refuses (EPERM, EINVAL, ...) is the outcome FAILED with the error's name.
        """
        ...
