"""When a node looks at its table: the moments of one cleanup, and the pace of the node.

Rules of this file:

1. A sweep serves all live cleanups, so a moment has had its sweep once any began at or after it.
2. What a cleanup wants: a sweep on its arrival; soon after a change of the node's ruleset and 1 s
   later, because the SYN that kube-proxy let through just before its sync is the one that matters
   (at 1, 4 and 10 s where the kernel does not tell of changes); one in the last 10 s before the
   deadline, 5 s before the IP may be given away; one 30 s after any other, until it is over; one a
   second after a sweep that met entries too young to judge, since kube-proxy may have changed its
   rules before the cleanup came; and one a second later while the rate brakes hold something back.
3. The first change after the arrival is answered half a second later: one sync of kube-proxy is
   several changes, and the one that a removal causes comes a moment before that removal's cleanup,
   whose first sweep it must not put off. Of later changes, which on a busy node are mostly other
   people's, one in 5 s is answered: perhaps late, but no change is left without an answer.
4. Every cleanup is owed one whole sweep, however late it comes; that one is then all it gets.
5. The node paces itself: sweeps begin at least 0.5 s apart, and after one that took c seconds of
   CPU the next begins no earlier than 20 c after it, which is 5 % of one core. Only the sweep
   before a deadline, useless afterwards, does not wait for that. Where a cleanup comes 10 s or more
   before its deadline, that is never needed unless a sweep takes about half a second of CPU.

Times are seconds of the node's own monotonic clock.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from synsweep.core.staleness import LiveCleanup

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from synsweep.core.cleanup import Cleanup

CHANGE_SETTLES = 0.5  # from a change of the ruleset to the first sweep for it,
AFTER_CHANGE = 1.0  # and from that to the second
CHANGES_APART = 5.0
WITHOUT_NOTIFICATIONS = (1.0, 4.0, 10.0)  # after the arrival
BEFORE_DEADLINE = 10.0  # the sweep before the deadline is in this window
AIM = 2.0  # at so long before its end,
LAST_CALL = 0.5  # but where the pace does not allow that, no later than so long before it
REUSE_MARGIN = 5.0  # the deadline is so long before the IP may be given away
REGULARLY = 30.0
HELD_BACK = 1.0
OLD_ENOUGH_AFTER = 1.0  # what shows an age of 1 shows 2 then
APART = 0.5
CPU_SHARE = 0.05  # of one core
LONGEST_DEBT = 120.0  # what it would have to wait for longer, the pace forgets


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """When a sweep is wanted, and by when it must begin whatever it costs (inf: no such moment)."""

    at: float
    at_latest: float = math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepSchedule:
    """One live cleanup and what has been done for it."""

    live: LiveCleanup
    first_at: float  # its arrival, and a little jitter so that not all nodes sweep at once
    notified: bool  # whether the kernel tells this node of changes of the ruleset
    answers: tuple[float, ...] = ()  # the last change that is being answered, and the next one
    last_sweep: float | None = None  # when the last sweep for it began
    held_back: bool = False  # whether that sweep left something to the rate brakes
    left_young: bool = False  # whether it left something that was too young

    @classmethod
    def arrived(cls, live: LiveCleanup, *, jitter: float, notified: bool) -> SweepSchedule:
        """Start with its arrival; `jitter` in seconds."""
        return cls(live=live, first_at=live.arrived_at + jitter, notified=notified)

    @property
    def deadline(self) -> float:
        """Until then the last stale entry must be gone."""
        return self.live.gone_at + max(1.0, self.live.cleanup.reuse_after_seconds - REUSE_MARGIN)

    @property
    def ends_at(self) -> float:
        """When it is over, once it has had the sweep that it is owed."""
        return self.live.gone_at + self.live.cleanup.sweep_for_seconds

    def changed(self, at: float) -> SweepSchedule:
        """Note a change of the node's ruleset."""
        last = self.answers[-1] if self.answers else -math.inf
        if at <= last:
            return self  # the answer is still to come, and will be for this change too
        last_call = max(at, self.ends_at - AFTER_CHANGE)
        answer = min(max(at + CHANGE_SETTLES, last + CHANGES_APART), last_call)
        return replace(self, answers=(*self.answers[-1:], answer))

    def swept(
        self, began_at: float, *, held_back: bool = False, left_young: bool = False
    ) -> SweepSchedule:
        """Note a sweep in which this cleanup took part.

        Args:
            began_at: seconds, monotonic.
            held_back: whether a brake held anything back.
            left_young: whether it kept anything that had less than a second to be answered.
        """
        live = replace(self.live, over_at=math.inf if held_back else self.ends_at)
        return replace(
            self, live=live, last_sweep=began_at, held_back=held_back, left_young=left_young
        )

    def with_cleanup(self, cleanup: Cleanup) -> SweepSchedule:
        """Take over what the object says now. A change never starts a sweep by itself."""
        return replace(self, live=replace(self.live, cleanup=cleanup))

    def revoked(self) -> SweepSchedule:
        """Note that the object is gone: nothing more is deleted on its account."""
        return replace(self, live=replace(self.live, revoked=True))

    def is_finished(self, now: float) -> bool:
        """Whether the node may forget it."""
        if self.live.revoked:
            return True
        return self.last_sweep is not None and not self.held_back and now >= self.ends_at

    def next_due(self, now: float) -> Due | None:
        """Say when it wants its next sweep, perhaps in the past.

        None: as things stand it wants none any more, but until it is finished a change of the
        ruleset may still make it want one.
        """
        if self.is_finished(now):
            return None
        if self.last_sweep is None:
            return Due(at=self.first_at, at_latest=self._latest())
        if self.held_back:
            return Due(at=self.last_sweep + HELD_BACK, at_latest=self._latest())
        at = min(self._moments(self.last_sweep))
        return Due(at=at, at_latest=self._latest()) if at < self.ends_at else None

    def _moments(self, last_sweep: float) -> Iterator[float]:
        """All moments that have not had their sweep."""
        wanted = [moment for answer in self.answers for moment in (answer, answer + AFTER_CHANGE)]
        if not self.notified:
            wanted += [self.live.arrived_at + after for after in WITHOUT_NOTIFICATIONS]
        yield from (moment for moment in wanted if moment > last_sweep)
        if self.left_young:
            yield last_sweep + OLD_ENOUGH_AFTER
        if self._deadline_is_open():
            yield self.deadline - AIM
        yield last_sweep + REGULARLY

    def _deadline_is_open(self) -> bool:
        swept_in_time = (
            self.last_sweep is not None and self.last_sweep >= self.deadline - BEFORE_DEADLINE
        )
        return not swept_in_time and self.live.arrived_at <= self.deadline <= self.ends_at

    def _latest(self) -> float:
        return self.deadline - LAST_CALL if self._deadline_is_open() else math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How soon this node may sweep again."""

    apart_from: float = -math.inf  # 0.5 s after the last sweep began
    cheap_from: float = -math.inf  # when its CPU is paid for

    def swept(self, began_at: float, *, cpu_seconds: float) -> Pace:
        """Note a sweep and what it cost. What was swept ahead of the pace stays to be paid for."""
        paid_at = max(began_at, self.cheap_from) + cpu_seconds / CPU_SHARE
        return Pace(apart_from=began_at + APART, cheap_from=min(paid_at, began_at + LONGEST_DEBT))

    def allows(self, due: Due) -> float:
        """Say when a sweep that is wanted may begin."""
        paced = max(due.at, self.cheap_from)
        return max(min(paced, due.at_latest), self.apart_from)


def next_sweep(schedules: Iterable[SweepSchedule], pace: Pace, *, now: float) -> float | None:
    """Say when the node's next sweep begins, perhaps in the past (at once), or None."""
    wanted = (schedule.next_due(now) for schedule in schedules)
    return min((pace.allows(due) for due in wanted if due is not None), default=None)


def first_seen(cleanup: Cleanup, *, now: float, in_api_for: float) -> LiveCleanup:
    """Date a cleanup on this node's own clock.

    The age of the removal is what the controller measured on its monotonic clock and how long the
    object has been in the API by the API server's clock; no clock of ours is compared with another
    machine's.

    Args:
        cleanup: as read.
        now: seconds, monotonic.
        in_api_for: seconds from `creationTimestamp` to the `Date` of the API server's answer.
    """
    age = cleanup.gone_for_seconds + max(0.0, in_api_for)
    return LiveCleanup(cleanup=cleanup, arrived_at=now, gone_at=now - age)
