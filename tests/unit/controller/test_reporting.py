"""When a status is written: soon after a policy is seen, on change only, at most every 10 s."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from synsweep.cluster.audit import Recorder
from synsweep.cluster.errors import ApiRefused
from synsweep.cluster.listwatch import Modified
from synsweep.cluster.nodes import DaemonSets
from synsweep.cluster.policies import Policies
from synsweep.controller.count import Count
from synsweep.controller.reporting import Outlets, Reporting
from synsweep.controller.view import Kind
from tests.unit.cluster.scripted_api import eventually, refusal, reply, serving
from tests.unit.controller.world import EPOCH, World, a_report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.unit.cluster.scripted_api import Answering, Script

DAEMONSET = reply(200, {"status": {"desiredNumberScheduled": 1}})
OK = reply(200, {})


class Desk:
    """A world whose policies are reported to a scripted API server."""

    def __init__(self, api: Any, script: Script) -> None:
        self.world = World().ready(policies=False)
        self.script = script
        self.recorder = Recorder(api, component="controller", instance="pod")
        self.recorder.start()
        count = Count(DaemonSets(api), namespace="ns", fleet=self.world.fleet, clock=self.world.now)
        self.reporting = Reporting(
            sight=self.world.sight,
            outlets=Outlets(
                policies=Policies(api),
                recorder=self.recorder,
                count=count,
                metrics=self.world.metrics,
            ),
            last_cleanup={},
            clocks=self.world.clocks,
        )
        self.world.fleet.fold(Modified(body=a_report("node1"), server_time=EPOCH))

    def pass_time(self, seconds: float) -> None:
        end = self.world.time + seconds
        while self.world.time < end:
            self.reporting.work(self.world.time)
            self.world.time += self.reporting.due_in(self.world.time)

    def statuses(self) -> list[dict[str, Any]]:
        return [asked.body["status"] for asked in self.script.asked if asked.method == "PATCH"]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Callable[..., Desk]]:
    contexts = []

    def make(*answers: Answering) -> Desk:
        contexts.append(serving(tmp_path, *answers))
        return Desk(*contexts[-1].__enter__())

    yield make
    for context in contexts:
        context.__exit__(None, None, None)


def test_the_first_status_comes_soon_and_the_same_is_not_written_again(
    desk: Callable[..., Desk],
) -> None:
    one = desk(DAEMONSET, OK, DAEMONSET, DAEMONSET)
    one.world.policy("all")
    one.pass_time(0.5)
    [status] = one.statuses()
    assert (status["nodesReady"], status["nodesTotal"], status["matchedServices"]) == (1, 1, 1)
    one.pass_time(60.0)
    assert len(one.statuses()) == 1


def test_changes_are_written_at_most_every_10_s(desk: Callable[..., Desk]) -> None:
    one = desk(DAEMONSET, *[OK] * 3)
    one.world.policy("all")
    one.pass_time(1.0)
    for number in range(18):
        one.world.service(f"more-{number}", f"10.96.1.{number}")
        one.pass_time(1.0)
    assert 2 <= len(one.statuses()) <= 3


def test_a_status_that_the_api_has_is_not_written_again_after_a_restart(
    desk: Callable[..., Desk],
) -> None:
    one = desk(DAEMONSET, OK, DAEMONSET)
    one.world.policy("all")
    one.pass_time(1.0)
    [status] = one.statuses()
    other = desk(DAEMONSET)
    body = {"metadata": {"name": "all", "generation": status["observedGeneration"]}}
    other.world.take(Kind.POLICY, body | {"spec": {}, "status": status})
    other.pass_time(20.0)
    assert other.statuses() == []


def test_what_the_nodes_did_becomes_an_event(desk: Callable[..., Desk]) -> None:
    one = desk(DAEMONSET, OK, OK, OK)
    one.world.policy("all")
    one.pass_time(1.0)
    counters = [{"policyUID": "uid-all", "deleted": 3}]
    report = a_report("node1", counters=counters)
    one.world.fleet.fold(Modified(body=report, server_time=EPOCH))
    one.pass_time(12.0)
    eventually(lambda: len(one.script.asked) == 4)
    [event] = [asked.body for asked in one.script.asked if asked.method == "POST"]
    assert event["reason"] == "StaleEntriesDeleted"
    assert one.statuses()[-1]["deletedEntries"] == 3


def test_an_invalid_policy_is_warned_of_once_per_version(desk: Callable[..., Desk]) -> None:
    one = desk(*[OK] * 10)
    one.world.policy("all", mode="Odd")
    one.pass_time(15.0)
    eventually(lambda: len(one.script.asked) >= 3)
    events = [asked.body for asked in one.script.asked if asked.method == "POST"]
    assert [event["reason"] for event in events] == ["PolicyInvalid"]
    assert one.world.counted("policies_invalid") == 1


def test_a_policy_that_went_meanwhile_is_no_trouble_and_a_missing_right_is(
    desk: Callable[..., Desk],
) -> None:
    one = desk(DAEMONSET, refusal(404, "NotFound"), refusal(403, "Forbidden"))
    one.world.policy("all")
    one.pass_time(9.0)
    with pytest.raises(ApiRefused, match="Forbidden"):
        one.pass_time(3.0)
    one.world.no_policy("all")
    one.pass_time(3.0)


def test_without_an_answer_about_the_daemonset_the_last_one_stays(
    desk: Callable[..., Desk],
) -> None:
    one = desk(DAEMONSET, OK, refusal(403, "Forbidden"))
    one.world.policy("all")
    one.pass_time(40.0)
    assert [status["nodesTotal"] for status in one.statuses()] == [1]
