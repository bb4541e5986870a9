"""One pass over the table in memory: what is left of it, and what is told."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from itertools import product
from typing import TYPE_CHECKING

import pytest

from synsweep.conntrack.table import ConntrackUnavailable
from synsweep.core.brake import Brakes
from synsweep.core.cleanup import Mode
from synsweep.core.flow import IPPROTO_UDP, Address, ConntrackEntry, Status, TcpState
from synsweep.core.staleness import KeepReason, Outcome
from tests.unit.core.samples import (
    DEAD,
    FRONTEND,
    SYN_SENT_TIMEOUT,
    UNREPLIED,
    cleanup,
    entry,
    target,
)
from tests.unit.node.world import World, body

if TYPE_CHECKING:
    from collections.abc import Iterator

LIVE = Address(ip_address("10.0.0.20"), 8080)
OTHER_PORT = Address(DEAD.ip, 9090)
DEAD6 = Address(ip_address("fd00::10"), 8080)
FRONTEND6 = Address(ip_address("fd96::10"), 80)
OTHER_FRONTEND = Address(ip_address("10.96.0.99"), 80)
ANSWERED = UNREPLIED | Status.SEEN_REPLY
DIRECT = UNREPLIED & ~Status.DST_NAT


def everything() -> Iterator[tuple[ConntrackEntry, bool]]:
    """Entries of every kind, and beside each whether it must go."""
    port = 20000
    for backend, frontend, state, status, age, protocol in product(
        (DEAD, LIVE, OTHER_PORT, DEAD6),
        (FRONTEND, FRONTEND6, OTHER_FRONTEND),
        (TcpState.SYN_SENT, TcpState.SYN_RECV, TcpState.ESTABLISHED, TcpState.TIME_WAIT),
        (UNREPLIED, ANSWERED, DIRECT),
        (1, 2, 100),
        (6, IPPROTO_UDP),
    ):
        if backend.ip.version != frontend.ip.version:
            continue
        port += 1
        goes = (
            (backend, frontend) in {(DEAD, FRONTEND), (DEAD6, FRONTEND6)}
            and state is TcpState.SYN_SENT
            and status == UNREPLIED
            and age >= 2
            and protocol == 6
        )
        made = entry(
            backend=backend,
            frontend=frontend,
            client_port=port,
            age=age,
            tcp_state=state,
            status=status,
            protocol=protocol,
            id=0,
        )
        yield made, goes


def gone_backends() -> World:
    world = World()
    targets = (target(DEAD), target(DEAD6, frontends=[FRONTEND6], id=1))
    world.list(body(cleanup(*targets)))
    return world


def test_of_every_kind_of_entry_exactly_the_stale_ones_go() -> None:
    world = gone_backends()
    put = [(world.table.put(made), goes) for made, goes in everything()]
    survivors = {made for made, goes in put if not goes}
    stale = len(put) - len(survivors)
    assert stale == 4

    report = world.sweeper.sweep()

    assert set(world.table.everything()) == survivors
    assert report.count(Outcome.DELETED) == stale
    assert world.table.requests == 1 + 2 * stale  # one dump, then a get and a delete each


def test_without_a_cleanup_nothing_goes() -> None:
    world = World()
    put = [world.table.put(made) for made, _ in everything()]
    world.list()
    world.sweeper.sweep()
    assert list(world.table.everything()) == put


def test_a_dry_run_does_everything_but_the_delete_and_tells_each_entry_once() -> None:
    world = World()
    world.list(body(mode=Mode.DRY_RUN))
    first = world.table.put(entry(client_port=40000, id=0))
    report = world.sweeper.sweep()
    assert [one.outcome for one in report.deletions] == [Outcome.DRY_RUN]
    second = world.table.put(entry(client_port=40001, id=0))
    report = world.sweeper.sweep()
    assert [one.entry for one in report.deletions] == [second]
    assert report.kept == {KeepReason.DRY_RUN: 2}
    assert set(world.table.everything()) == {first, second}
    assert world.table.requests == 2


def test_an_entry_is_judged_again_by_what_is_known_right_before_its_delete() -> None:
    world = World()
    world.list(body())
    made = [world.table.put(entry(client_port=port, id=0)) for port in (40000, 40001)]
    world.table.after_delete = lambda: world.delete(body())
    report = world.sweeper.sweep()
    assert [one.outcome for one in report.deletions] == [Outcome.DELETED, Outcome.KEPT]
    assert report.kept == {KeepReason.CLEANUP_REVOKED: 1}
    assert list(world.table.everything()) == made[1:]


@pytest.mark.parametrize(
    ("age_by_then", "kept"),
    [
        pytest.param(4, {}, id="it was there when the cleanup came"),
        pytest.param(1, {KeepReason.TOO_YOUNG: 1}, id="it came while the table was read"),
    ],
)
def test_a_slow_dump_neither_passes_over_an_entry_nor_makes_it_look_older(
    age_by_then: int, kept: dict[KeepReason, int]
) -> None:
    world = World()
    world.list(body(targets=(target(terminated=True),)))
    made = world.table.put(entry(age=1))

    def three_seconds_pass() -> None:
        world.clock.forward(3)
        world.table.put(replace(made, timeout=SYN_SENT_TIMEOUT - age_by_then))

    world.table.once_listed = three_seconds_pass
    assert world.sweeper.sweep().kept == kept
    assert len(world.table.everything()) == len(kept)


def test_what_was_there_when_the_cleanup_of_a_deleted_pod_came_goes_at_any_age() -> None:
    world = World()
    world.list(body(targets=(target(terminated=True),)))
    world.table.put(entry(age=1))
    assert world.sweeper.sweep().count(Outcome.DELETED) == 1


def test_what_the_brake_holds_back_goes_in_the_next_sweeps() -> None:
    world = World()
    world.sweeper.brakes = Brakes(node_rate=10.0, target_rate=10.0)
    world.list(body())
    for port in range(40000, 40025):
        world.table.put(entry(client_port=port, id=0))
    report = world.sweeper.sweep()
    assert report.count(Outcome.DELETED) == 10
    assert report.kept == {KeepReason.TARGET_BRAKE: 15}
    world.run(5.0)
    assert world.table.everything() == ()


def test_a_delete_that_the_kernel_refuses_is_told_and_the_others_go_on() -> None:
    world = World()
    world.list(body())
    world.table.put(entry())
    world.table.refuse(deletes="EPERM")
    (deletion,) = world.sweeper.sweep().deletions
    assert (deletion.outcome, deletion.error) == (Outcome.FAILED, "EPERM")


def test_a_table_that_cannot_be_listed_is_the_callers_to_handle() -> None:
    world = World()
    world.list(body())
    world.table.refuse(lists="EPERM")
    with pytest.raises(ConntrackUnavailable):
        world.sweeper.sweep()
    assert world.cleanups.waiting() == (17,)


def test_a_sweep_tells_up_to_which_sequence_it_swept_and_how_late() -> None:
    world = World()
    world.list(body(gone_for_seconds=0.4), body(cleanup(name="endpoint-removed-30", sequence=30)))
    assert world.sweeper.sweep().swept_through == 30
    world.list()
    assert world.sweeper.sweep().swept_through == 30
    assert world.delays == pytest.approx([0.4, 0.3])


def test_an_entry_that_somebody_else_replaced_is_kept() -> None:
    world = World()
    world.list(body())
    made = world.table.put(entry())
    world.table.once_listed = lambda: world.table.put(replace(made, id=99))
    assert world.sweeper.sweep().kept == {KeepReason.REPLACED: 1}
    assert len(world.table.everything()) == 1
