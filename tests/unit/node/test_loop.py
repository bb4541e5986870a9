"""When a node sweeps: by cleanups, by the ruleset, by the clock, and after failures."""

from __future__ import annotations

import threading
import time

import pytest

from synsweep.node import loop as loop_module
from synsweep.node.discovery import KubeProxyMode
from tests.unit.core.samples import cleanup, entry
from tests.unit.node.world import World, body


def sweeps(world: World) -> int:
    return int(world.sample("synsweep_sweeps_total") or 0)


def test_without_a_cleanup_the_table_is_never_read() -> None:
    world = World()
    world.list()
    world.run(600.0)
    assert world.table.requests == 0


def test_a_helper_is_ready_when_it_has_a_list_and_has_swept_for_all_of_it() -> None:
    world = World()
    assert world.loop.not_ready() == "no list of cleanups from the API server yet"
    world.list(body())
    assert world.loop.not_ready() == "the first sweep is still to come"
    world.loop.step()
    assert world.loop.not_ready() is None


def test_a_helper_without_cleanups_is_ready_with_the_list() -> None:
    world = World()
    world.list()
    world.loop.step()
    assert world.loop.not_ready() is None


def test_a_helper_whose_first_sweep_fails_is_not_ready() -> None:
    world = World()
    world.list(body())
    world.table.refuse(lists="EPERM")
    world.run(5.0)
    assert world.loop.not_ready() == "sweeps fail: list entries: EPERM"
    world.table.refuse()
    world.run(10.0)
    assert world.loop.not_ready() is None


def test_a_helper_whose_later_sweeps_fail_is_not_ready_until_one_succeeds() -> None:
    world = World()
    world.list(body())
    world.run(5.0)
    assert world.loop.not_ready() is None
    world.table.refuse(lists="EPERM")
    world.run(30.0)
    assert world.loop.not_ready() == "sweeps fail: list entries: EPERM"
    world.table.refuse()
    world.run(15.0)
    assert world.loop.not_ready() is None


def test_a_cleanup_is_swept_for_on_arrival_and_until_it_is_over() -> None:
    world = World()
    world.list()
    world.add(body())
    world.run(0.3)
    assert sweeps(world) == 1
    world.run(60.0)
    assert 3 <= sweeps(world) <= 4  # arrival, before the deadline, every 30 s
    world.run(600.0)
    assert sweeps(world) <= 4


def test_a_change_of_the_ruleset_is_answered_when_it_has_settled_and_a_second_later() -> None:
    world = World()
    world.list(body())
    world.run(5.0)
    assert sweeps(world) == 1
    world.ruleset.pending = True
    world.table.put(entry(age=1, client_port=40000, id=0))
    world.table.put(entry(age=5, client_port=40001, id=0))
    world.run(0.4)
    assert sweeps(world) == 1
    world.run(0.2)
    assert sweeps(world) == 2
    world.run(1.0)
    assert sweeps(world) == 3
    assert world.sample("synsweep_ruleset_changes_total") == 1


def test_a_late_cleanup_gets_exactly_one_sweep() -> None:
    world = World()
    world.list(body(created=world.clock.now - 200))
    world.table.put(entry())
    world.run(300.0)
    assert sweeps(world) == 1
    assert world.table.everything() == ()


def test_many_cleanups_share_their_sweeps() -> None:
    world = World()
    world.list()
    for number in range(100):
        world.add(
            body(
                cleanup(name=f"endpoint-removed-{number + 1}", uid=str(number), sequence=number + 1)
            )
        )
    world.run(1.0)
    assert sweeps(world) == 1


def test_sweeps_cost_no_more_than_a_twentieth_of_a_core() -> None:
    world = World()
    world.table.while_listed = lambda: world.cpu.forward(0.2)
    world.list()
    for second in range(20):
        world.add(body(cleanup(name=f"endpoint-removed-{second}", uid=str(second))))
        world.run(1.0)
    assert sweeps(world) <= 6


def test_a_sweep_that_fails_is_told_and_made_again() -> None:
    world = World()
    world.list(body())
    world.table.put(entry())
    world.table.refuse(lists="ENOBUFS")
    world.run(4.0)
    failures = world.sample("synsweep_sweep_failures_total")
    assert failures == 3  # after 1 s, then 2 s
    world.table.refuse()
    world.run(10.0)
    assert world.table.everything() == ()
    assert sweeps(world) == 1


def test_where_services_are_no_dnat_nothing_is_read_or_deleted() -> None:
    world = World()
    world.mode = KubeProxyMode.IPVS
    assert world.datapath.refresh(now=0.0)
    world.list(body())
    world.table.put(entry())
    world.run(120.0)
    assert world.table.requests == 0
    assert world.loop.not_ready() is None


def test_an_unknown_datapath_is_swept() -> None:
    world = World()
    world.mode = KubeProxyMode.UNKNOWN
    world.datapath.refresh(now=0.0)
    world.list(body())
    world.table.put(entry())
    world.run(1.0)
    assert world.table.everything() == ()


def test_while_the_api_server_is_away_sweeps_go_on_from_memory() -> None:
    world = World()
    world.list(body())
    world.run(1.0)
    world.table.put(entry())
    world.run(30.0)  # nothing is told in the meantime
    assert world.table.everything() == ()


def test_a_thread_that_does_not_move_is_not_live() -> None:
    world = World()
    world.loop.step()
    assert world.loop.not_live() is None
    world.clock.now += loop_module.STUCK_AFTER + 5
    assert world.loop.not_live() == "the sweeping thread is stuck for 125 s"


@pytest.mark.parametrize("how", ["wake", "stop"])
def test_the_thread_moves_at_once_when_it_is_woken(how: str) -> None:
    world = World()
    thread = threading.Thread(target=world.loop.run, daemon=True)
    thread.start()
    time.sleep(0.05)
    if how == "wake":
        world.list()
        world.loop.wake()
        deadline = time.monotonic() + 5
        while world.loop.not_ready() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert world.loop.not_ready() is None
    world.loop.stop()
    thread.join(5)
    assert not thread.is_alive()
