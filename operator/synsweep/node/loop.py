"""When to sweep: one thread that waits for cleanups, for the ruleset and for the clock.

It needs no API server: what it knows of cleanups is in memory, and stays there while the API server
is away. A sweep that the kernel cuts short is told, counted, and made again a little later.
"""

from __future__ import annotations

import logging
import os
import select
from typing import TYPE_CHECKING, Protocol

from synsweep.conntrack.table import ConntrackError
from synsweep.core.schedule import Pace

if TYPE_CHECKING:
    from collections.abc import Callable

    from synsweep.core.report import SweepReport
    from synsweep.node.cleanups import KnownCleanups
    from synsweep.node.sweep import Sweeper

logger = logging.getLogger(__name__)

LONGEST_WAIT = 10.0  # seconds between two signs of life
STUCK_AFTER = 120.0  # seconds without one; the largest table takes a few
RETRY_FROM, RETRY_TO = 1.0, 10.0  # seconds after a sweep that failed


class Ruleset(Protocol):
    """Changes of the node's ruleset: `conntrack.ruleset.RulesetWatch`."""

    @property
    def available(self) -> bool:
        """Whether the kernel would tell of a change."""
        ...

    def fileno(self) -> int:
        """What to select on; -1 when not available."""
        ...

    def changed(self) -> bool:
        """Whether the ruleset changed since the last call; never waits."""
        ...


class Listener(Protocol):
    """Who wants to know what the sweeps did."""

    def swept(self, report: SweepReport) -> None:
        """Hear of a whole sweep."""
        ...

    def failed(self, why: ConntrackError) -> None:
        """Hear of a sweep that the kernel cut short."""
        ...

    def ruleset_changed(self) -> None:
        """Hear of a change of the node's ruleset."""
        ...


class SweepLoop:
    """The sweeping thread.

    Args:
        sweeper: makes one sweep.
        cleanups: says when the next one is due.
        ruleset: tells of changes of the node's ruleset.
        supported: says whether Services are DNAT in conntrack on this node.
        listener: hears of everything.
        clock: monotonic, seconds.
    """

    def __init__(
        self,
        sweeper: Sweeper,
        *,
        cleanups: KnownCleanups,
        ruleset: Ruleset,
        supported: Callable[[], bool],
        listener: Listener,
        clock: Callable[[], float],
    ) -> None:
        self._sweeper = sweeper
        self._cleanups = cleanups
        self._ruleset = ruleset
        self._supported = supported
        self._listener = listener
        self._clock = clock
        self._pace = Pace()
        self._retry_after = RETRY_FROM
        self._not_before = 0.0
        self._trouble = ""  # why the last sweep failed, if it did
        self._alive_at = clock()
        self._caught_up = False
        self._stopping = False
        self._wakeup = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def run(self) -> None:
        """Sweep when it is due, until `stop`."""
        while not self._stopping:
            self._wait(self.step())

    def wake(self) -> None:
        """Look at once what is due; from any thread."""
        os.eventfd_write(self._wakeup, 1)

    def stop(self) -> None:
        """End `run` after the sweep that is under way; from any thread."""
        self._stopping = True
        self.wake()

    def step(self) -> float:
        """Sweep if it is due; returns for how many seconds there is nothing to do."""
        now = self._alive_at = self._clock()
        if self._ruleset.changed():
            self._cleanups.ruleset_changed(now=now)
            self._listener.ruleset_changed()
        listed = self._cleanups.listed
        due = self._cleanups.next_due(self._pace, now=now) if self._supported() else None
        if due is None:
            self._caught_up = self._caught_up or listed
            return LONGEST_WAIT
        due = max(due, self._not_before)
        if due > now:
            return min(due - now, LONGEST_WAIT)
        if self._sweep(now):
            self._caught_up = self._caught_up or listed
        return 0.0

    def not_live(self) -> str | None:
        """Say why the process should be restarted, or None."""
        silent = self._clock() - self._alive_at
        return f"the sweeping thread is stuck for {silent:.0f} s" if silent > STUCK_AFTER else None

    def not_ready(self) -> str | None:
        """Say what is missing before this node is swept for all that there is, or None."""
        if not self._cleanups.listed:
            return "no list of cleanups from the API server yet"
        if self._trouble:
            return f"sweeps fail: {self._trouble}"
        return None if self._caught_up else "the first sweep is still to come"

    def _sweep(self, now: float) -> bool:
        try:
            report = self._sweeper.sweep()
        except ConntrackError as error:
            self._not_before = self._clock() + self._retry_after
            self._retry_after = min(self._retry_after * 2, RETRY_TO)
            self._trouble = str(error)
            self._listener.failed(error)
            return False
        self._pace = self._pace.swept(now, cpu_seconds=report.cpu_seconds)
        self._retry_after = RETRY_FROM
        self._trouble = ""
        self._listener.swept(report)
        return True

    def _wait(self, seconds: float) -> None:
        watched = [self._wakeup]
        if self._ruleset.available:
            watched.append(self._ruleset.fileno())
        ready, _, _ = select.select(watched, (), (), seconds)
        if self._wakeup in ready:
            os.eventfd_read(self._wakeup)
