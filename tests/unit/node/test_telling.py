"""Who hears of sweeps and cleanups: the log and the metrics."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from synsweep.cluster.listwatch import Added, Deleted, Listed
from synsweep.core.cleanup import Mode
from synsweep.node.telling import Teller
from synsweep.node.watching import follow
from tests.unit.core.samples import SYN_SENT_TIMEOUT, cleanup, entry
from tests.unit.node.world import World, body

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pytest

    from synsweep.cluster.client import Body
    from synsweep.cluster.listwatch import Event


def test_every_deletion_has_a_log_line_in_the_words_of_conntrack(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    world = World()
    world.list(body())
    world.table.put(entry(age=5))
    world.run(0.1)
    (record,) = [record for record in caplog.records if "outcome" in vars(record)]
    line = vars(record)
    assert record.getMessage() == "deleted a stale entry"
    assert {name: line[name] for name in ("outcome", "cleanup", "policy", "service")} == {
        "outcome": "Deleted",
        "cleanup": "endpoint-removed-17",
        "policy": "cluster-default",
        "service": "shop/cart",
    }
    assert line["original"] == "src=10.0.1.7 dst=10.96.0.10 sport=40000 dport=80"
    assert line["reply"] == "src=10.0.0.10 dst=10.0.1.7 sport=8080 dport=40000"
    assert (line["zone"], line["id"], line["age"]) == (0, 7, 5)


def test_a_refused_delete_is_a_warning_with_the_errors_name(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World()
    world.list(body())
    world.table.put(entry())
    world.table.refuse(deletes="EPERM")
    world.run(0.1)
    (record,) = caplog.records
    assert (record.levelname, vars(record)["error"]) == ("WARNING", "EPERM")


def test_the_ages_in_the_log_cost_one_look_at_the_kernels_setting_for_each_sweep() -> None:
    world, looks = World(), 0

    def look() -> int:
        nonlocal looks
        looks += 1
        return SYN_SENT_TIMEOUT

    teller = Teller(
        metrics=world.metrics,
        record=world.record,
        syn_sent_timeout=look,
        last_dump=lambda: None,
    )
    world.list(body())
    for port in range(40000, 40005):
        world.table.put(entry(client_port=port, id=0))
    report = world.sweeper.sweep()
    teller.swept(report)
    assert (len(report.deletions), looks) == (5, 1)


def test_a_sweep_is_counted() -> None:
    world = World()
    world.list(body(), body(cleanup(name="endpoint-removed-18", uid="b", mode=Mode.DRY_RUN)))
    world.table.put(entry(client_port=40000, id=0))
    world.table.put(entry(client_port=40001, id=0, age=1))
    world.run(0.1)
    assert world.sample("synsweep_sweeps_total") == 1
    assert world.sample("synsweep_entries_listed_total") == 2
    assert world.sample("synsweep_deletions_total", {"outcome": "Deleted"}) == 1
    assert world.sample("synsweep_entries_kept_total", {"reason": "TooYoung"}) == 1
    assert world.sample("synsweep_sweep_duration_seconds_count") == 1


class Told:
    """A list-and-watch that tells what the test says."""

    def __init__(self, *events: Event) -> None:
        self._events = events

    def events(self) -> Iterable[Event]:
        return self._events


def tell(world: World, *events: Event) -> None:
    follow(
        Told(*events),
        cleanups=world.cleanups,
        loop=world.loop,
        record=world.record,
        metrics=world.metrics,
        clock=world.clock,
    )


def listed(world: World, *bodies: Body) -> Listed:
    return Listed(items=bodies, vanished=(), server_time=world.server_time)


def test_what_is_watched_goes_into_memory_and_into_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    world = World()
    tell(world, listed(world), Added(body=body(), server_time=world.server_time))
    (record,) = caplog.records
    assert record.getMessage() == "a cleanup arrived"
    assert vars(record)["cleanup"] == "endpoint-removed-17"
    assert len(world.cleanups.live()) == 1


def test_a_refused_cleanup_is_one_log_line_counted_and_waits_to_be_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World()
    refused = body()
    refused["spec"]["formatVersion"] = 2
    tell(world, listed(world, refused), listed(world, refused))
    (record,) = caplog.records
    assert record.getMessage() == (
        "refused ConntrackCleanup endpoint-removed-17: spec.formatVersion is 2, allowed is 1"
    )
    labels = {"reason": "UnknownFormatVersion"}
    assert world.sample("synsweep_cleanups_refused_total", labels) == 1
    assert world.record.has_news()


def test_a_refused_cleanup_that_is_gone_waits_to_be_told_too() -> None:
    world = World()
    refused = body()
    refused["spec"]["formatVersion"] = 2
    tell(world, listed(world, refused))
    world.record.begin()  # a report that names it
    tell(world, listed(world, refused))
    assert not world.record.has_news()
    tell(world, Deleted(body=refused, server_time=world.server_time))
    assert world.record.has_news()
