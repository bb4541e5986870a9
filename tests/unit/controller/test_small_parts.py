"""Inbox, budget, kopf's settings, the log filter, the count of nodes."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from typing import TYPE_CHECKING

import pytest

from synsweep.cluster.nodes import DaemonSets
from synsweep.controller.budget import Budget
from synsweep.controller.count import ASK_EVERY, Count
from synsweep.controller.following import EndlessBackOff, Seldom, kopf_settings
from synsweep.controller.inbox import Inbox, Notes
from tests.unit.cluster.scripted_api import refusal, reply, serving
from tests.unit.controller.world import World

if TYPE_CHECKING:
    from pathlib import Path


def test_the_oldest_removal_starts_the_window() -> None:
    inbox = Inbox()
    inbox.gone(5.0)
    inbox.gone(6.0)
    inbox.back()
    assert inbox.take() == Notes(gone_since=5.0, back=True)
    assert inbox.take() == Notes()


def test_a_policy_makes_everything_looked_at_again() -> None:
    inbox = Inbox()
    inbox.gone(5.0)
    inbox.policies(6.0)
    assert inbox.take() == Notes(gone_since=5.0, back=True, policies=True)
    inbox.policies(7.0)
    assert inbox.take().gone_since == 7.0


def test_a_note_wakes_and_closing_ends() -> None:
    inbox = Inbox()
    threading.Timer(0.05, inbox.back).start()
    started = time.monotonic()
    assert inbox.wait(5.0)
    assert time.monotonic() - started < 1.0
    inbox.take()
    assert inbox.wait(0.01)
    threading.Timer(0.05, inbox.close).start()
    assert not inbox.wait(5.0)
    assert not inbox.wait(5.0)


@pytest.mark.parametrize(("pressed", "per_second"), [(False, 2), (True, 4)])
def test_a_budget_is_two_creates_a_second_and_four_under_pressure(
    *, pressed: bool, per_second: int
) -> None:
    budget = Budget(now=0.0)
    made = 0
    for tick in range(1001):
        now = tick / 100
        while budget.wait(now=now, pressed=pressed) == 0:
            budget.spend()
            made += 1
    assert made == pytest.approx(10 * per_second + 2, abs=1)


def test_kopf_never_runs_out_of_tries_and_writes_to_nothing() -> None:
    settings = kopf_settings()
    pauses = settings.networking.error_backoffs
    assert isinstance(pauses, EndlessBackOff)
    for _ in range(2):  # it is iterated anew for each request
        assert list(itertools.islice(pauses, 1000)) == [0.5] * 1000
    assert isinstance(settings.watching.server_timeout, int)
    assert settings.watching.inactivity_timeout == 18
    assert settings.peering.standalone
    assert settings.scanning.disabled
    assert not settings.posting.enabled
    assert settings.process.ultimate_exiting_timeout is None


def test_lines_that_differ_in_numbers_only_are_said_seldom() -> None:
    seldom = Seldom()
    lines = ["Request attempt #1 failed", "Request attempt #2 failed", "Something else"]
    records = [logging.LogRecord("kopf", logging.ERROR, "", 0, line, (), None) for line in lines]
    assert [seldom.filter(record) for record in records] == [True, False, True]


def test_a_line_is_said_again_after_half_a_minute_and_then_forgotten() -> None:
    now = 0.0
    seldom = Seldom(clock=lambda: now)

    def passes(line: str) -> bool:
        return seldom.filter(logging.LogRecord("kopf", logging.ERROR, "", 0, line, (), None))

    assert passes("the watch failed")
    now = 20.0
    assert not passes("the watch failed")
    assert passes("<object at 0xab> failed")
    now = 30.0
    assert passes("the watch failed")
    now = 60.0
    assert passes("the watch failed")
    assert len(vars(seldom)["_said"]) == 1


def test_the_urgent_take_the_count_of_nodes_without_asking(tmp_path: Path) -> None:
    world = World()
    answer = reply(200, {"status": {"desiredNumberScheduled": 7}})
    with serving(tmp_path, answer, refusal(403, "Forbidden")) as (api, script):
        count = Count(DaemonSets(api), namespace="ns", fleet=world.fleet, clock=world.now)
        assert count.last_known() == 0
        assert script.asked == []
        assert count.nodes_total() == 7
        world.time += ASK_EVERY
        assert count.last_known() == 7
        assert len(script.asked) == 1
        assert count.nodes_total() == 7  # the last answer stays
        assert len(script.asked) == 2
