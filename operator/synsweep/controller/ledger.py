"""The cleanups that are in the API: what is covered, what may be revoked, what is over.

Fed by a list-and-watch of its own, so a controller that starts adopts all live ones, and at once by
the writer after each of its own writes. A cleanup only ever shrinks, so of two accounts of one the
smaller is the newer.
"""

from __future__ import annotations

import logging
import math
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from synsweep.cluster.listwatch import Deleted, Event, Listed, ListWatch, age
from synsweep.core.cleanup import Cleanup, CleanupRefused
from synsweep.core.cleanup_wire import cleanup_from_wire

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """One cleanup in the API. Moments are monotonic seconds of this process.

    `cleanup` is None for an object that we cannot read (a newer controller's): it is only tidied
    up in its time.
    """

    name: str
    cleanup: Cleanup | None
    born_at: float
    changed_at: float = -math.inf  # when we last patched it

    @property
    def gone_at(self) -> float:
        """When the first of its backends went."""
        return self.born_at - (self.cleanup.gone_for_seconds if self.cleanup else 0.0)


class Ledger:
    """All of them, by name. Thread-safe."""

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self.synced = False
        self._clock = clock
        self._lock = threading.Lock()
        self._live: dict[str, Live] = {}
        self._highest = 0

    def follow(self, watch: ListWatch) -> None:
        """Fold what the API says until the watch is stopped. Runs in a thread of its own."""
        for event in watch.events():
            self.fold(event)

    def fold(self, event: Event) -> None:
        """Take one event."""
        if isinstance(event, Listed):
            for body in event.vanished:
                self.deleted(body["metadata"]["name"])
            for body in event.items:
                self._adopt(body, event.server_time)
            self.synced = True
        elif isinstance(event, Deleted):
            self.deleted(event.body["metadata"]["name"])
        else:
            self._adopt(event.body, event.server_time)

    def live(self) -> tuple[Live, ...]:
        """All that are in the API, in the order in which they came."""
        with self._lock:
            return tuple(self._live.values())

    def readable(self) -> dict[str, tuple[Live, Cleanup]]:
        """Those that we understand, by name."""
        return {one.name: (one, one.cleanup) for one in self.live() if one.cleanup is not None}

    @property
    def highest_sequence(self) -> int:
        """The highest sequence that was ever seen; 0 if none was."""
        return self._highest

    def created(self, cleanup: Cleanup) -> None:
        """The writer published it just now."""
        self._put(Live(name=cleanup.name, cleanup=cleanup, born_at=self._clock()))

    def shrunk(self, cleanup: Cleanup) -> None:
        """The writer took targets out of it just now."""
        now = self._clock()
        with self._lock:
            live = self._live.get(cleanup.name)
            if live is not None:
                self._live[cleanup.name] = replace(live, cleanup=cleanup, changed_at=now)

    def deleted(self, name: str) -> None:
        """It is not in the API any more."""
        with self._lock:
            self._live.pop(name, None)

    def _adopt(self, body: Mapping[str, Any], server_time: float) -> None:
        name = body["metadata"]["name"]
        cleanup: Cleanup | None = None
        try:
            cleanup = cleanup_from_wire(body)
            born_at = self._clock() - age(body, server_time)
        except CleanupRefused as refused:
            if name not in self.readable():
                log.warning("ConntrackCleanup %s is not ours to understand: %s", name, refused)
            born_at = self._clock()
        except ValueError as error:
            log.warning("ConntrackCleanup %s: %s", name, error)
            born_at = self._clock()
        with self._lock:
            known = self._live.get(name)
            if known is not None:
                if cleanup and known.cleanup and _smaller(cleanup, known.cleanup):
                    self._live[name] = replace(known, cleanup=cleanup)
                return
        self._put(Live(name=name, cleanup=cleanup, born_at=born_at))

    def _put(self, live: Live) -> None:
        with self._lock:
            self._live[live.name] = live
            self._highest = max(self._highest, _sequence(live.name))


def _sequence(name: str) -> int:
    """Read it from the name, which a cleanup that we cannot read has, too, and nobody may reuse."""
    number = name.rpartition("-")[2]
    return int(number) if number.isdecimal() else 0


def _smaller(one: Cleanup, other: Cleanup) -> bool:
    return one.backends_total < other.backends_total
