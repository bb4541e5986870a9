"""When a node sweeps, played through on a clock of its own."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synsweep.core.schedule import APART, Due, Pace, SweepSchedule, first_seen, next_sweep
from tests.unit.core.samples import cleanup

T0 = 1000.0  # when the cleanup arrives; it was written 0.3 s after the removal


def schedule(
    *,
    reuse_after: int = 30,
    sweep_for: int = 60,
    in_api_for: float = 0.0,
    notified: bool = True,
    jitter: float = 0.0,
    at: float = T0,
) -> SweepSchedule:
    of = cleanup(reuse_after_seconds=reuse_after, sweep_for_seconds=sweep_for)
    seen = first_seen(of, now=at, in_api_for=in_api_for)
    return SweepSchedule.arrived(seen, jitter=jitter, notified=notified)


@dataclass
class Node:
    """The loop of a helper, on a clock that only the schedule moves."""

    cost: float = 0.01  # CPU seconds of a sweep
    held_back: int = 0  # sweeps that leave something to the brakes
    left_young: int = 0  # sweeps that meet something too young
    sweeps: list[float] = field(default_factory=list)
    schedules: list[SweepSchedule] = field(default_factory=list)
    pace: Pace = field(default_factory=Pace)
    forgotten_at: list[float] = field(default_factory=list)

    def play(
        self,
        arrivals: list[SweepSchedule],
        *,
        changes: list[float] | None = None,
        until: float = T0 + 4000,
    ) -> list[float]:
        """Run from the first arrival; sweep whenever the schedule says so."""
        waiting = sorted(arrivals, key=lambda one: one.live.arrived_at)
        changes = sorted(changes or [])
        now = waiting[0].live.arrived_at
        while now < until:
            while waiting and waiting[0].live.arrived_at <= now:
                self.schedules.append(waiting.pop(0))
            while changes and changes[0] <= now:
                at = changes.pop(0)
                self.schedules = [one.changed(at) for one in self.schedules]
            due = next_sweep(self.schedules, self.pace, now=now)
            if due is not None and due <= now:
                self._sweep(now)
                continue
            coming = [one.live.arrived_at for one in waiting[:1]] + changes[:1]
            coming += [due] if due is not None else []
            if not coming and not self.schedules:
                break
            coming += [one.ends_at for one in self.schedules if one.ends_at > now]
            now = min(coming, default=until)
            self._forget(now)
        return self.sweeps

    def _sweep(self, now: float) -> None:
        self.sweeps.append(now)
        held_back = len(self.sweeps) <= self.held_back
        left_young = len(self.sweeps) <= self.left_young
        self.pace = self.pace.swept(now, cpu_seconds=self.cost)
        self.schedules = [
            one.swept(now, held_back=held_back, left_young=left_young) for one in self.schedules
        ]
        self._forget(now)

    def _forget(self, now: float) -> None:
        self.forgotten_at += [now for one in self.schedules if one.is_finished(now)]
        self.schedules = [one for one in self.schedules if not one.is_finished(now)]


def since_arrival(sweeps: list[float]) -> list[float]:
    return [round(at - T0, 3) for at in sweeps]


def test_without_changes_of_the_ruleset() -> None:
    """On arrival, before the deadline (24.7 s after it), then every 30 s until the end."""
    node = Node()
    assert since_arrival(node.play([schedule()])) == [0, 22.7, 52.7]
    assert since_arrival(node.forgotten_at) == [59.7]


def test_without_notifications_of_changes() -> None:
    assert since_arrival(Node().play([schedule(notified=False)])) == [0, 1, 4, 10, 22.7, 52.7]


def test_with_jitter() -> None:
    assert since_arrival(Node().play([schedule(jitter=0.2)]))[0] == 0.2


def test_after_a_change_when_it_has_settled_and_a_second_later() -> None:
    sweeps = Node().play([schedule()], changes=[T0 + 3])
    assert since_arrival(sweeps) == [0, 3.5, 4.5, 22.7, 52.7]


def test_a_late_change_is_answered_too() -> None:
    """A kube-proxy that was frozen until then has let stale SYNs through."""
    sweeps = Node().play([schedule()], changes=[T0 + 1, T0 + 20.5, T0 + 58])
    assert since_arrival(sweeps) == [0, 1.5, 2.5, 21, 22, 52, 58.5, 59.5]


def test_many_changes_are_answered_one_in_five_seconds_and_none_is_forgotten() -> None:
    changes = [T0 + 0.7 + 0.1 * step for step in range(60)]  # the last at 6.6 s
    sweeps = Node().play([schedule()], changes=changes)
    assert since_arrival(sweeps)[:7] == [0, 1.2, 2.2, 6.2, 7.2, 11.2, 12.2]


def test_changes_a_few_hundred_milliseconds_apart_are_coalesced() -> None:
    sweeps = Node().play([schedule()], changes=[T0 + 0.1, T0 + 0.2])
    assert since_arrival(sweeps) == [0, 0.6, 1.6, 22.7, 52.7]


def test_one_sweep_serves_all_cleanups() -> None:
    arrivals = [schedule(at=T0 + number * 0.01) for number in range(40)]
    sweeps = Node().play(arrivals)
    assert len([at for at in sweeps if at < T0 + 10]) == 2


def test_a_late_cleanup_gets_exactly_one_sweep() -> None:
    node = Node()
    assert since_arrival(node.play([schedule(in_api_for=100)], changes=[T0 + 1])) == [0]
    assert since_arrival(node.forgotten_at) == [0]


def test_past_the_deadline_sweeps_go_on_until_the_end() -> None:
    assert since_arrival(Node().play([schedule(in_api_for=26)])) == [0, 30]


def test_what_the_brakes_hold_back_is_swept_a_second_later() -> None:
    sweeps = Node(held_back=3).play([schedule()])
    assert since_arrival(sweeps)[:4] == [0, 1, 2, 3]


def test_what_was_too_young_is_judged_again_a_second_later() -> None:
    sweeps = Node(left_young=2).play([schedule()])
    assert since_arrival(sweeps)[:4] == [0, 1, 2, 22.7]


def test_what_is_always_too_young_keeps_no_cleanup_alive() -> None:
    node = Node(left_young=1000)
    assert since_arrival(node.play([schedule()]))[-1] < 59.7
    assert since_arrival(node.forgotten_at) == [59.7]
    assert since_arrival(Node(left_young=9).play([schedule(in_api_for=100)])) == [0]


def test_even_a_late_cleanup_is_not_over_while_the_brakes_hold_it_back() -> None:
    node = Node(held_back=2)
    assert since_arrival(node.play([schedule(in_api_for=100)])) == [0, 1, 2]


def test_over_for_the_checks_only_after_a_whole_sweep() -> None:
    late = schedule(in_api_for=100)
    assert late.live.over_at == math.inf
    assert late.swept(T0, held_back=True).live.over_at == math.inf
    assert late.swept(T0, held_back=False).live.over_at < T0


def test_a_revoked_cleanup_is_forgotten_at_once() -> None:
    revoked = schedule().revoked()
    assert revoked.live.revoked
    assert revoked.is_finished(T0)
    assert revoked.next_due(T0) is None
    assert next_sweep([revoked], Pace(), now=T0) is None


def test_an_edit_starts_no_sweep() -> None:
    swept = schedule().swept(T0, held_back=False)
    smaller = cleanup(uid="edited")
    edited = swept.with_cleanup(smaller)
    assert edited.live.cleanup is smaller
    assert edited.next_due(T0) == swept.next_due(T0)


def test_a_change_in_the_last_second_is_answered_at_once() -> None:
    sweeps = Node().play([schedule()], changes=[T0 + 59.5])
    assert since_arrival(sweeps)[-1] == 59.5


def test_the_change_that_a_removal_itself_causes_does_not_delay_its_cleanup() -> None:
    """kube-proxy commits before the cleanup comes; an older cleanup is live."""
    later = schedule(at=T0 + 10.3)
    assert T0 + 10.3 in Node().play([schedule(), later], changes=[T0 + 10.03])


def test_quiet_but_not_finished_in_the_last_half_minute() -> None:
    swept = schedule().swept(T0 + 40, held_back=False)
    assert swept.next_due(T0 + 41) is None
    assert not swept.is_finished(T0 + 41)
    assert swept.changed(T0 + 50).next_due(T0 + 50) == Due(at=T0 + 50.5)


@pytest.mark.parametrize(
    ("cost", "expected"),
    [
        pytest.param(0.2, [0, 4, 8, 22.7, 52.7], id="a dear sweep waits for its pace"),
        pytest.param(2.0, [0, 24.2], id="the deadline does not"),
    ],
)
def test_the_pace(cost: float, expected: list[float]) -> None:
    assert since_arrival(Node(cost=cost).play([schedule()], changes=[T0 + 1, T0 + 2])) == expected


def test_the_pace_forgets_a_debt_of_more_than_two_minutes() -> None:
    pace = Pace()
    for at in range(10):
        pace = pace.swept(at, cpu_seconds=2)  # each is paid for in 40 s
    assert pace.cheap_from == 9 + 120


def test_a_sweep_ahead_of_the_pace_is_paid_for_afterwards() -> None:
    pace = Pace().swept(0, cpu_seconds=2).swept(10, cpu_seconds=2)
    assert pace.allows(Due(at=11)) == 80
    assert pace.allows(Due(at=11, at_latest=20)) == 20
    assert pace.allows(Due(at=10.1, at_latest=10.2)) == 10 + APART


@pytest.mark.parametrize("in_api_for", [5.0, 0.0, -5.0])
def test_the_age_of_a_removal_is_never_counted_from_our_wall_clock(in_api_for: float) -> None:
    seen = first_seen(cleanup(gone_for_seconds=0.5), now=T0, in_api_for=in_api_for)
    assert seen.gone_at == T0 - 0.5 - max(0.0, in_api_for)
    assert seen.arrived_at == T0


MOMENTS = st.floats(min_value=0, max_value=90, allow_nan=False)
ARRIVALS = st.builds(
    schedule,
    reuse_after=st.integers(min_value=5, max_value=60),
    sweep_for=st.integers(min_value=60, max_value=90),
    in_api_for=st.floats(min_value=0, max_value=120),
    notified=st.booleans(),
    jitter=st.floats(min_value=0, max_value=0.2),
    at=MOMENTS.map(lambda after: T0 + after),
)
IN_GOOD_TIME = st.builds(  # ten seconds or more before their deadlines
    schedule,
    reuse_after=st.integers(min_value=21, max_value=60),
    in_api_for=st.floats(min_value=0, max_value=5),
    notified=st.booleans(),
    jitter=st.floats(min_value=0, max_value=0.2),
    at=MOMENTS.map(lambda after: T0 + after),
)
CHANGES = st.lists(MOMENTS.map(lambda after: T0 + after), max_size=30)


def assert_deadlines_are_kept(arrivals: list[SweepSchedule], sweeps: list[float]) -> None:
    """Whoever came a second or more before its deadline had a sweep in the last ten before it."""
    for one in arrivals:
        if one.live.arrived_at <= one.deadline - 1:
            assert any(one.deadline - 10 - 1e-6 <= at <= one.deadline for at in sweeps), one


@given(
    arrivals=st.lists(ARRIVALS, min_size=1, max_size=6),
    changes=CHANGES,
    cost=st.sampled_from([0.001, 0.02]),
)
def test_rules_that_always_hold(
    arrivals: list[SweepSchedule], changes: list[float], cost: float
) -> None:
    node = Node(cost=cost)
    sweeps = node.play(arrivals, changes=changes)
    assert_deadlines_are_kept(arrivals, sweeps)
    assert all(after - before >= APART - 1e-6 for before, after in pairwise(sweeps))
    assert len(node.forgotten_at) == len(arrivals)
    for one in arrivals:
        begin, end = one.live.arrived_at, max(one.ends_at, one.live.arrived_at)
        mine = [at for at in sweeps if begin <= at]
        assert mine[0] <= one.first_at + APART
        gaps = [begin, *(at for at in mine if at < end), end]
        assert all(after - before <= 31 for before, after in pairwise(gaps))
        for change in changes:
            if begin <= change < end - 1.5:
                assert any(change <= at <= change + 5 + APART for at in sweeps)


@given(
    arrivals=st.lists(IN_GOOD_TIME, min_size=1, max_size=6),
    changes=CHANGES,
    cost=st.floats(min_value=0.03, max_value=0.4),
)
def test_never_more_than_five_percent_of_a_core(
    arrivals: list[SweepSchedule], changes: list[float], cost: float
) -> None:
    sweeps = Node(cost=cost).play(arrivals, changes=changes)
    assert all(after - before >= cost / 0.05 - 1e-6 for before, after in pairwise(sweeps))


@given(
    arrivals=st.lists(ARRIVALS, min_size=1, max_size=6),
    changes=CHANGES,
    cost=st.floats(min_value=0.5, max_value=3),
)
def test_the_deadline_is_kept_however_dear_a_sweep_is(
    arrivals: list[SweepSchedule], changes: list[float], cost: float
) -> None:
    sweeps = Node(cost=cost).play(arrivals, changes=changes)
    assert_deadlines_are_kept(arrivals, sweeps)


@given(
    arrivals=st.lists(IN_GOOD_TIME, min_size=1, max_size=6),
    changes=CHANGES,
    cost=st.floats(min_value=0.5, max_value=3),
)
def test_sweeps_ahead_of_the_pace_are_rare(
    arrivals: list[SweepSchedule], changes: list[float], cost: float
) -> None:
    sweeps = Node(cost=cost).play(arrivals, changes=changes)
    assert_deadlines_are_kept(arrivals, sweeps)
    for start in sweeps:
        assert len([at for at in sweeps if start <= at < start + 9]) <= 2
