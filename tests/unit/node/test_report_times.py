"""When a node writes, by a clock and a dice of the test."""

from __future__ import annotations

from synsweep.node.report_times import ReportTimes


def written_once(*, at: float = 0.0, draw: float = 0.5) -> ReportTimes:
    times = ReportTimes(now=at, draw=lambda: draw)
    times.began(now=at)
    times.written()
    return times


def test_the_first_report_is_due_at_start() -> None:
    assert ReportTimes(now=7.0, draw=lambda: 0.9).next_due() == 7.0


def test_without_news_the_next_one_is_a_heartbeat_within_five_minutes() -> None:
    assert written_once(draw=0.0).next_due() == 300.0
    assert 270.0 < written_once(draw=0.999).next_due() < 300.0


def test_news_are_written_at_a_random_moment_within_the_time_given() -> None:
    times = written_once(draw=0.25)
    times.news(now=10.0, within=4.0)
    assert times.next_due() == 11.0


def test_more_news_never_put_a_report_off() -> None:
    times = written_once(draw=0.25)
    times.news(now=10.0, within=4.0)
    times.news(now=10.5, within=100.0)
    assert times.next_due() == 11.0


def test_trouble_is_written_at_once_but_not_more_than_every_ten_seconds() -> None:
    times = written_once()
    times.trouble(now=3.0)
    assert times.next_due() == 10.0
    times.began(now=10.0)
    times.written()
    times.trouble(now=45.0)
    assert times.next_due() == 45.0


def test_news_that_come_while_a_report_is_written_go_into_the_next_one() -> None:
    times = ReportTimes(now=0.0, draw=lambda: 0.5)
    times.began(now=0.0)
    times.news(now=0.1, within=1.0)
    times.written()
    assert times.next_due() == 0.6


def test_a_failed_write_is_tried_again_after_growing_pauses() -> None:
    times = ReportTimes(now=0.0, draw=lambda: 0.0)
    pauses = []
    now = 0.0
    for _ in range(8):
        times.began(now=now)
        times.failed(now=now)
        pauses.append(times.next_due() - now)
        now = times.next_due()
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0]


def test_news_do_not_hurry_a_write_that_has_just_failed() -> None:
    times = ReportTimes(now=0.0, draw=lambda: 0.999)
    times.began(now=0.0)
    times.failed(now=0.0)
    times.news(now=0.1, within=0.0)
    assert times.next_due() > 0.9
    times.began(now=1.0)
    times.written()
    times.news(now=1.1, within=0.0)
    assert times.next_due() == 1.1
