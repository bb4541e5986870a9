"""The one place that writes: a single thread, and one question before each write.

A step gives each job, in order of urgency, one look at what is known: take out of live cleanups
what serves again, withdraw what no policy wants, publish removals, tidy up, report. Everything is
level-triggered: a step that fails leaves nothing behind but the wish to look again, so nothing can
be lost here, and no batch is ever older than one look.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from synsweep.cluster.backoff import BackOff
from synsweep.cluster.errors import ApiError, ApiRefused, ApiUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from synsweep.controller.fleet import Fleet
    from synsweep.controller.inbox import Inbox, Notes
    from synsweep.controller.ledger import Ledger
    from synsweep.controller.view import View
    from synsweep.core.cleanup import Cleanup
    from synsweep.observe.metrics_controller import ControllerMetrics

log = logging.getLogger(__name__)

TICK = 1.0  # seconds: time alone makes an unready backend a removal
SOONEST_RETRY = 0.25  # also when notes keep coming: they must not make a hot loop
SLOWEST_RETRY = 2.0  # there is one writer, and the cooldown goes on meanwhile
COMPLAIN_EVERY = 30.0


class Instructions(Protocol):
    """The three verbs on ConntrackCleanups (`cluster.cleanups.Cleanups`)."""

    def create(self, cleanup: Cleanup) -> Cleanup:
        """Publish."""
        ...

    def replace_targets(self, cleanup: Cleanup) -> None:
        """Revoke."""
        ...

    def delete(self, name: str) -> None:
        """Withdraw or tidy up; absent is fine."""
        ...


class NotHolding(ApiUnavailable):
    """We may not write (any more)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarded:
    """Instructions that ask before each write: a step may have waited long for the API server."""

    instructions: Instructions
    holds: Callable[[float], bool]
    clock: Callable[[], float]

    def create(self, cleanup: Cleanup) -> Cleanup:
        """Publish, if we may."""
        self._ask()
        return self.instructions.create(cleanup)

    def replace_targets(self, cleanup: Cleanup) -> None:
        """Revoke, if we may."""
        self._ask()
        self.instructions.replace_targets(cleanup)

    def delete(self, name: str) -> None:
        """Withdraw or tidy up, if we may."""
        self._ask()
        self.instructions.delete(name)

    def _ask(self) -> None:
        if not self.holds(self.clock()):
            raise NotHolding("not the writer any more")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What the jobs look at."""

    view: View
    ledger: Ledger
    fleet: Fleet

    @property
    def is_whole(self) -> bool:
        """Whether Services, cleanups and nodes have all been listed: before, nothing is judged."""
        return self.view.filled and self.ledger.synced and self.fleet.synced


class Job(Protocol):
    """One kind of write."""

    name: str

    def notice(self, notes: Notes) -> None:
        """Take what came in since the last step."""
        ...

    def work(self, now: float) -> None:
        """Write what is due, but little: the more urgent jobs want to look again."""
        ...

    def due_in(self, now: float) -> float:
        """Seconds until this job wants to look again."""
        ...


class Writer:
    """Runs the jobs. `run` it in one thread; `step` is one look of each."""

    def __init__(
        self,
        *,
        inbox: Inbox,
        sight: Sight,
        jobs: Sequence[Job],
        metrics: ControllerMetrics,
        holds: Callable[[float], bool],
        clock: Callable[[], float],
    ) -> None:
        self._inbox = inbox
        self._sight = sight
        self._jobs = jobs
        self._metrics = metrics
        self._holds = holds
        self._clock = clock
        self._back_off = BackOff(cap=SLOWEST_RETRY)
        self._not_before = -math.inf
        self._complained_at: dict[str, float] = {}

    def run(self) -> None:
        """Step until the inbox is closed."""
        pause = 0.0
        while self._inbox.wait(pause):
            pause = self.step()

    def step(self) -> float:
        """Let each job look; returns after how many seconds one may want to look again."""
        notes = self._inbox.take()
        for job in self._jobs:
            job.notice(notes)
        now = self._clock()
        if not self._sight.is_whole or not self._holds(now):
            return TICK
        if now < self._not_before:
            return self._not_before - now
        refused = False
        for job in self._jobs:
            try:
                job.work(self._clock())
            except ApiRefused as error:  # of this job only: the others may be allowed theirs
                refused = True
                self._complain(job, error)
            except ApiError as error:
                self._complain(job, error)
                return self._pause()
            except Exception:  # a bug must not end the only thread that writes
                refused = True
                log.exception("%s failed", job.name)
        if refused:
            return self._pause()
        self._back_off.reset()
        now = self._clock()
        return max(0.0, min(TICK, *(job.due_in(now) for job in self._jobs)))

    def _pause(self) -> float:
        """After a failure: how long to wait, which a note may shorten, but not to nothing."""
        self._not_before = self._clock() + SOONEST_RETRY
        return max(SOONEST_RETRY, self._back_off.next())

    def _complain(self, job: Job, error: ApiError) -> None:
        """Count each failure; say it once per half minute and job."""
        refused = isinstance(error, ApiRefused)
        self._metrics.write_failures.labels(result="refused" if refused else "unavailable").inc()
        now = self._clock()
        if now - self._complained_at.get(job.name, now - COMPLAIN_EVERY) >= COMPLAIN_EVERY:
            self._complained_at[job.name] = now
            level = logging.ERROR if refused else logging.WARNING
            log.log(level, "%s: %s; trying again", job.name, error)
