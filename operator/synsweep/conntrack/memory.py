"""A conntrack table in memory: held to the same contract tests as the kernel's.

For unit tests of what stands on the table, and for trying the program without a kernel. Like the
kernel's it has one entry per zone and tuple, gives ids, and can refuse.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING

from synsweep.conntrack.table import ConntrackUnavailable, Listing
from synsweep.core.flow import IPPROTO_TCP, ConntrackEntry, FlowTuple
from synsweep.core.staleness import Deletion, KeepReason, Outcome, is_same_entry

if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Set as AbstractSet

    from synsweep.conntrack.table import Judge
    from synsweep.core.flow import Address
    from synsweep.core.staleness import CondemnedEntry


class MemoryTable:
    """Two verbs over a dictionary, and `put`, `drop` and `refuse` to play the kernel's part.

    `requests` counts what the netlink table would have sent.
    """

    def __init__(self, entries: Iterable[ConntrackEntry] = ()) -> None:
        self.requests = 0
        self._ids = itertools.count(1)
        self._by_reply: dict[tuple[int, int, FlowTuple], ConntrackEntry] = {}
        self._refused_lists = ""
        self._refused_deletes = ""
        for entry in entries:
            self.put(entry)

    def put(self, entry: ConntrackEntry) -> ConntrackEntry:
        """Add an entry, or replace the one with its reply tuple; id 0 means: give it a new one."""
        if entry.id == 0:
            entry = replace(entry, id=next(self._ids))
        self._by_reply[entry.zone, entry.protocol, entry.reply] = entry
        return entry

    def drop(self, entry: ConntrackEntry) -> None:
        """Remove what has this entry's reply tuple, as a timer or somebody else would."""
        self._by_reply.pop((entry.zone, entry.protocol, entry.reply), None)

    def refuse(self, *, lists: str = "", deletes: str = "") -> None:
        """From now on refuse a verb with this error's name, such as EPERM; empty: allow it."""
        self._refused_lists, self._refused_deletes = lists, deletes

    def everything(self) -> tuple[ConntrackEntry, ...]:
        """All entries, for assertions."""
        return tuple(self._by_reply.values())

    def close(self) -> None:
        """Nothing is open; the netlink table has a socket to close."""

    def entries(
        self,
        asked_for: AbstractSet[Address] = frozenset(),
        *,
        among: AbstractSet[Address] | None = None,
    ) -> Listing:
        """List the unanswered DNATed TCP entries, and all TCP entries whose backend is asked for.

        Raises:
            ConntrackUnavailable: after `refuse(lists=...)`.
        """
        self.requests += 1
        if self._refused_lists:
            raise ConntrackUnavailable(f"list entries: {self._refused_lists}")
        half_open = [e for e in self._by_reply.values() if e.is_dnat and not e.seen_reply]
        sent = list(self._by_reply.values()) if asked_for else half_open
        found = tuple(
            entry
            for entry in sent
            if entry.protocol == IPPROTO_TCP
            and ((entry.is_dnat and not entry.seen_reply) or entry.backend in asked_for)
        )
        kept = tuple(
            entry
            for entry in found
            if among is None or entry.backend in among or entry.backend in asked_for
        )
        return Listing(
            entries=kept,
            listed=len(sent),
            others=len(found) - len(kept),
            filtered=not asked_for,
        )

    def delete(self, condemned: CondemnedEntry, judge: Judge) -> Deletion:
        """Delete exactly the judged entry: get it again, judge it again, delete it at once."""
        judged = condemned.entry
        key = judged.zone, judged.protocol, judged.reply
        self.requests += 1
        now = self._by_reply.get(key)
        if now is None:
            return Deletion(condemned=condemned, outcome=Outcome.ALREADY_GONE)
        reason = judge(now) if is_same_entry(judged, now) else KeepReason.REPLACED
        if reason is not None:
            return Deletion(condemned=condemned, outcome=Outcome.KEPT, kept=reason, entry=now)
        self.requests += 1
        if self._refused_deletes:
            return Deletion(
                condemned=condemned,
                outcome=Outcome.FAILED,
                error=self._refused_deletes,
                entry=now,
            )
        if self._by_reply.get(key) != now:  # what the judge did meanwhile is its own affair
            return Deletion(condemned=condemned, outcome=Outcome.ALREADY_GONE, entry=now)
        del self._by_reply[key]
        return Deletion(condemned=condemned, outcome=Outcome.DELETED, entry=now)
