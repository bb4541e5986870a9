"""What a sweep came to, added up once, and told in time."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synsweep.core.cleanup import Mode
from synsweep.core.report import (
    News,
    PolicyCounters,
    first_found,
    fold_deletions,
    report_due,
    report_sweep,
    swept_through,
)
from synsweep.core.staleness import CondemnedEntry, Deletion, KeepReason, Outcome
from synsweep.core.sweep_plan import SweepPlan
from tests.unit.core.samples import candidate, cleanup, entry, live

NOW = 1000.0


def condemned(policy_uid: str = "policy-1", port: int = 1) -> CondemnedEntry:
    of = live(cleanup(policy_uid=policy_uid, mode=Mode.ENFORCE))
    return CondemnedEntry(entry=entry(client_port=port), candidate=candidate(of))


def deletion(outcome: Outcome, policy_uid: str = "policy-1") -> Deletion:
    kept = KeepReason.SEEN_REPLY if outcome is Outcome.KEPT else None
    return Deletion(condemned=condemned(policy_uid), outcome=outcome, kept=kept)


def test_a_report_adds_what_was_kept_at_the_last_moment() -> None:
    plan = SweepPlan(
        condemned=(), dry_run=(), kept={KeepReason.SEEN_REPLY: 2, KeepReason.TOO_YOUNG: 1}
    )
    report = report_sweep(
        plan,
        [deletion(Outcome.KEPT), deletion(Outcome.DELETED)],
        listed=9,
        skipped=1,
        seconds=0.2,
        cpu_seconds=0.1,
        swept_through=17,
    )
    assert report.kept == {KeepReason.SEEN_REPLY: 3, KeepReason.TOO_YOUNG: 1}
    assert [report.count(outcome) for outcome in Outcome] == [1, 0, 0, 0, 1]
    assert (report.listed, report.skipped, report.swept_through) == (9, 1, 17)


def test_a_dry_run_finds_each_entry_once() -> None:
    first, second = condemned(port=1), condemned(port=2)
    new, keys = first_found([first], frozenset())
    assert new == (first,)
    new, keys = first_found([first, second, second], keys)
    assert new == (second,)
    new, keys = first_found([], keys)
    assert (new, keys) == ((), frozenset())


def test_the_counters_of_each_policy() -> None:
    counters = (PolicyCounters(policy_uid="old", deleted=5), PolicyCounters(policy_uid="b", kept=1))
    after = fold_deletions(
        counters,
        [
            deletion(Outcome.DELETED, "b"),
            deletion(Outcome.ALREADY_GONE, "new"),
            deletion(Outcome.FAILED, "b"),
            deletion(Outcome.DRY_RUN, "new"),
            deletion(Outcome.KEPT, "b"),
        ],
    )
    assert after == (
        PolicyCounters(policy_uid="b", deleted=1, failed=1, kept=2),
        PolicyCounters(policy_uid="new", already_gone=1, dry_run=1),
        PolicyCounters(policy_uid="old", deleted=5),
    )
    assert fold_deletions(after, []) == after


@given(
    sweeps=st.lists(
        st.lists(st.tuples(st.sampled_from(Outcome), st.sampled_from("abc")), max_size=6),
        max_size=6,
    )
)
def test_every_deletion_is_counted_once(sweeps: list[list[tuple[Outcome, str]]]) -> None:
    counters: tuple[PolicyCounters, ...] = ()
    for sweep in sweeps:
        counters = fold_deletions(counters, [deletion(*one) for one in sweep])
    done = [one for sweep in sweeps for one in sweep]
    for of in counters:
        assert [of.deleted, of.already_gone, of.failed, of.dry_run, of.kept] == [
            done.count((outcome, of.policy_uid)) for outcome in Outcome
        ]
    assert {of.policy_uid for of in counters} == {uid for _, uid in done}


@pytest.mark.parametrize(
    ("previous", "swept", "waiting", "expected"),
    [
        pytest.param(0, [], [], 0, id="nothing yet"),
        pytest.param(0, [3, 5], [], 5, id="all swept"),
        pytest.param(0, [3, 5], [4], 3, id="not past one that waits"),
        pytest.param(4, [3, 5], [2], 4, id="never back"),
        pytest.param(4, [], [9], 4, id="waiting alone moves nothing"),
    ],
)
def test_swept_through(previous: int, swept: list[int], waiting: list[int], expected: int) -> None:
    assert swept_through(previous, swept=swept, waiting=waiting) == expected


def found(
    news: News, *outcomes: Outcome, now: float, random: float = 0.5, within: float = 10
) -> News:
    return news.found([deletion(one) for one in outcomes], now=now, random=random, within=within)


WRITTEN = News().written(NOW)


def test_the_first_report_is_due_at_once() -> None:
    assert report_due(News()) == -math.inf


def test_a_heartbeat_after_five_minutes() -> None:
    assert report_due(WRITTEN) == NOW + 300


@pytest.mark.parametrize(
    ("outcomes", "due"),
    [
        pytest.param([], NOW + 300, id="a sweep that found nothing causes no write"),
        pytest.param([Outcome.ALREADY_GONE, Outcome.KEPT], NOW + 300, id="nor do these"),
        pytest.param([Outcome.KEPT, Outcome.DELETED], NOW + 6, id="a deletion does"),
        pytest.param([Outcome.DRY_RUN], NOW + 6, id="so does what a dry run would have deleted"),
        pytest.param([Outcome.FAILED], NOW + 6, id="and a failure"),
    ],
)
def test_what_is_news(outcomes: list[Outcome], due: float) -> None:
    assert report_due(found(WRITTEN, *outcomes, now=NOW + 1)) == due


def test_further_news_waits_for_the_same_report() -> None:
    news = found(WRITTEN, Outcome.DELETED, now=NOW, random=0.2, within=100)
    assert report_due(found(news, Outcome.DELETED, now=NOW + 10, within=100)) == NOW + 20


def test_news_that_is_due_earlier_pulls_the_report_forward() -> None:
    news = found(WRITTEN, Outcome.DELETED, now=NOW, random=0.9, within=100)
    assert report_due(found(news, Outcome.DELETED, now=NOW + 10, within=1)) == NOW + 11


def test_failures_are_told_at_most_every_ten_seconds() -> None:
    told = found(WRITTEN, Outcome.FAILED, now=NOW, random=0, within=1).written(NOW)
    again = found(told, Outcome.FAILED, now=NOW + 1, random=0, within=1)
    assert report_due(again) == NOW + 10
    assert report_due(again.trouble(now=NOW + 30, random=0, within=1)) == NOW + 10


def test_deletions_do_not_wait_for_failures() -> None:
    told = WRITTEN.trouble(now=NOW, random=0, within=1).written(NOW)
    news = found(told, Outcome.FAILED, Outcome.DELETED, now=NOW + 1, random=0.5, within=2)
    assert report_due(news) == NOW + 2
    assert report_due(news.written(NOW + 2).trouble(now=NOW + 3, random=0, within=1)) == NOW + 12


def test_a_write_tells_everything() -> None:
    news = found(WRITTEN, Outcome.FAILED, Outcome.DELETED, now=NOW)
    assert report_due(news.written(NOW + 5)) == NOW + 305


def test_a_write_that_failed_leaves_what_it_told_and_what_came_meanwhile() -> None:
    told = found(WRITTEN, Outcome.DELETED, now=NOW + 1)
    begun = told.written(NOW + 6)
    assert begun.not_written(told) == told
    assert WRITTEN.written(NOW + 300).not_written(WRITTEN) == WRITTEN
    since = found(begun, Outcome.DELETED, Outcome.FAILED, now=NOW + 7, within=2)
    assert since.not_written(told).findings_at == NOW + 6
    assert since.not_written(told).trouble_at == since.trouble_at == NOW + 8
    assert since.not_written(WRITTEN).findings_at == NOW + 8


def test_the_heartbeat_does_not_wait_for_news() -> None:
    news = found(WRITTEN, Outcome.DELETED, now=NOW + 299, random=0.99, within=100)
    assert report_due(news) == NOW + 300


@given(random=st.floats(min_value=0, max_value=1, exclude_max=True), within=st.integers(1, 250))
def test_a_report_comes_within_the_time_that_the_cleanup_says(random: float, within: int) -> None:
    news = found(WRITTEN, Outcome.DELETED, now=NOW, random=random, within=within)
    assert NOW <= report_due(news) <= NOW + within
