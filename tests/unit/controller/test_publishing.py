"""A removal becomes a cleanup: when, how fast at most, and when not at all."""

from __future__ import annotations

from dataclasses import replace

import pytest

from synsweep.cluster.errors import ApiUnavailable
from synsweep.cluster.listwatch import Added, Listed
from synsweep.controller.writing import Guarded, NotHolding
from synsweep.core.cleanup import CleanupReason
from synsweep.core.cleanup_wire import cleanup_to_wire
from tests.unit.controller.world import EPOCH, START, World, a_report


def test_a_removed_backend_is_published_after_the_batch_window() -> None:
    world = World().ready()
    world.slice("web-1", "web", "10.0.0.1")
    world.run(0.2)
    assert world.written.objects == {}
    world.run(0.1)
    [cleanup] = world.written.objects.values()
    assert cleanup.name == "endpoint-removed-1"
    assert world.written.backends() == {"10.0.0.2"}
    assert cleanup.gone_for_seconds == pytest.approx(0.25, abs=0.01)
    assert cleanup.policy == "all"
    assert world.publishing.last_cleanup == {"uid-all": world.wall_now()}


def test_it_is_published_once() -> None:
    world = World().ready()
    world.slice("web-1", "web", "10.0.0.1")
    world.run(30.0)
    assert len(world.written.times("create")) == 1


def test_a_backend_that_only_moves_between_slices_is_left_alone() -> None:
    world = World().ready()
    world.slice("web-1", "web", "10.0.0.1")
    world.run(0.1)
    world.slice("web-2", "web", "10.0.0.2")
    world.run(5.0)
    assert world.written.log == []


def test_without_a_policy_nothing_is_done() -> None:
    world = World().ready(policies=False)
    world.slice("web-1", "web", "10.0.0.1")
    world.run(5.0)
    assert world.written.log == []


def test_a_disabled_policy_does_nothing() -> None:
    world = World().ready(policies=False)
    world.policy("all", mode="Disabled")
    world.slice("web-1", "web", "10.0.0.1")
    world.run(5.0)
    assert world.written.log == []


def test_an_unready_backend_counts_after_its_policys_time() -> None:
    world = World().ready()
    world.slice("web-1", "web", "10.0.0.1", "10.0.0.2", unready=("10.0.0.2",))
    world.run(9.5)
    assert world.written.objects == {}
    world.run(2.0)
    [cleanup] = world.written.objects.values()
    assert cleanup.reason is CleanupReason.ENDPOINT_UNREADY


def test_backends_on_the_hosts_network_are_never_condemned() -> None:
    world = World().ready()
    report = a_report("node1", addresses=["10.0.0.2"])
    world.fleet.fold(Added(body=report, server_time=EPOCH))
    world.slice("web-1", "web", "10.0.0.1")
    world.run(5.0)
    assert world.written.log == []


@pytest.mark.parametrize("missing", ["view", "ledger", "fleet"])
def test_nothing_is_judged_before_everything_was_listed(missing: str) -> None:
    world = World()
    world.service("web", "10.96.0.10")
    world.slice("web-1", "web", "10.0.0.1", "10.0.0.2")
    world.policy("all")
    if missing != "view":
        world.view.fill()
    for part in (world.ledger, world.fleet):
        if part is not getattr(world, missing):
            part.fold(Listed(items=(), vanished=(), server_time=EPOCH))
    world.slice("web-1", "web", "10.0.0.1")
    world.run(5.0)
    assert world.written.log == []


def test_who_may_not_write_does_not_and_loses_nothing() -> None:
    world = World().ready()
    world.holds = False
    world.slice("web-1", "web", "10.0.0.1")
    world.run(5.0)
    assert world.written.log == []
    world.holds = True
    world.run(1.0)
    assert world.written.backends() == {"10.0.0.2"}


def test_the_right_to_write_is_asked_for_again_before_each_write() -> None:
    world = World().ready()
    guarded = Guarded(instructions=world.written, holds=lambda _: False, clock=world.now)
    world.slice("web-1", "web", "10.0.0.1")
    world.run(0.3)
    [cleanup] = world.written.objects.values()
    for write in (
        lambda: guarded.create(cleanup),
        lambda: guarded.replace_targets(cleanup),
        lambda: guarded.delete(cleanup.name),
    ):
        with pytest.raises(NotHolding):
            write()
    assert len(world.written.log) == 1


def test_many_removals_keep_to_two_and_under_pressure_four_creates_a_second() -> None:
    world = World().ready()
    ips = [f"10.{1 + number // 250}.{number % 250}.1" for number in range(4000)]
    for at in range(0, 4000, 100):
        world.slice(f"big-{at}", "web", *ips[at : at + 100])
    world.run(1.0)
    for at in range(0, 4000, 100):
        world.no_slice(f"big-{at}")
    before = world.time - START
    world.run(10.0)
    created = [at - before for at in world.written.times("create")]
    assert len(created) == 8
    assert created[-1] < 4.0
    for start in created:
        assert sum(start <= at < start + 1.0 for at in created) <= 6  # a burst of two, then four/s
    assert world.written.backends() == set(ips)


def test_what_comes_back_while_it_waits_for_its_turn_is_not_published() -> None:
    world = World().ready()
    world.written.trouble["create"] = ApiUnavailable("down")
    world.slice("web-1", "web", "10.0.0.1")
    world.run(3.0)
    world.slice("web-1", "web", "10.0.0.1", "10.0.0.2")
    del world.written.trouble["create"]
    world.run(10.0)
    assert world.written.objects == {}


def test_while_the_api_is_away_nothing_is_lost_and_ages_stay_right() -> None:
    world = World().ready()
    world.written.trouble["create"] = ApiUnavailable("down")
    world.slice("web-1", "web", "10.0.0.1")
    gone_at = world.time
    world.run(20.0)
    assert world.counted("api_write_failures_total", result="unavailable") > 1
    del world.written.trouble["create"]
    world.run(6.0)
    [cleanup] = world.written.objects.values()
    published_at = world.written.log[-1][2]
    assert cleanup.gone_for_seconds == pytest.approx(published_at - gone_at, abs=0.01)


def test_a_refused_cleanup_does_not_hold_up_the_others() -> None:
    world = World().ready()
    world.policy("other", priority=5, serviceSelector={"matchLabels": {"app": "other"}})
    world.service("other", "10.96.0.11", labels={"app": "other"})
    world.slice("other-1", "other", "10.0.1.1")
    world.run(1.0)
    world.written.refused_policy = "all"
    world.slice("web-1", "web", "10.0.0.1")
    world.no_slice("other-1")
    world.run(5.0)
    assert world.written.backends() == {"10.0.1.1"}
    assert world.counted("api_write_failures_total", result="refused") >= 1


def test_a_bug_in_one_job_does_not_end_the_writer() -> None:
    world = World().ready()
    world.written.trouble["create"] = ZeroDivisionError()
    world.slice("web-1", "web", "10.0.0.1")
    world.run(3.0)
    del world.written.trouble["create"]
    world.run(6.0)
    assert world.written.backends() == {"10.0.0.2"}


def test_the_sequence_goes_on_after_all_that_is_known() -> None:
    first = World().ready()
    first.slice("web-1", "web", "10.0.0.1")
    first.run(1.0)
    [old] = first.written.objects.values()
    body = cleanup_to_wire(replace(old, name="endpoint-removed-41", sequence=41), namespace="ns")
    body["metadata"] |= {"uid": "c", "creationTimestamp": "2025-10-09T08:53:20Z"}
    world = World()
    world.ledger.fold(Listed(items=(body,), vanished=(), server_time=EPOCH))
    world.fleet.fold(
        Listed(items=(a_report("node1", sweptThrough=77),), vanished=(), server_time=0)
    )
    world.service("web", "10.96.0.10")
    world.policy("all")
    world.slice("web-1", "web", "10.0.0.1", "10.0.0.2")
    world.view.fill()
    world.run(1.0)
    world.slice("web-1", "web", "10.0.0.2")
    world.run(1.0)
    assert [name for verb, name, _ in world.written.log if verb == "create"] == [
        "endpoint-removed-78"
    ]


def test_an_old_plan_is_made_anew() -> None:
    world = World().ready()
    world.slice("web-1", "web", "10.0.0.1")
    world.run(0.249)
    world.inbox.gone(world.time)
    world.publishing.work(world.time + 0.001)
    world.time += 6.0
    world.run(0.5)
    assert len(world.written.objects) == 1


def test_events_are_taken_while_a_plan_is_made() -> None:
    held: list[bool] = []

    class Planned(World):
        def wall_now(self) -> str:
            held.append(self.view.lock.locked())
            return super().wall_now()

    world = Planned().ready()
    world.slice("web-1", "web", "10.0.0.1")
    world.run(0.3)
    assert world.written.backends() == {"10.0.0.2"}
    assert set(held) == {False}
