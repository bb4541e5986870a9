"""What a node knows of cleanups: told by the API server, dated by our own clock, only shrinking."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest

from synsweep.cluster.listwatch import Added
from synsweep.core.cleanup import Cleanup, CleanupTarget, Reuse
from synsweep.core.flow import Address
from synsweep.core.schedule import Pace
from synsweep.core.staleness import CondemnedEntry
from tests.unit.core.samples import DEAD, FRONTEND, NODE_PORT, candidate, cleanup, entry, target
from tests.unit.node.world import World, body

if TYPE_CHECKING:
    from synsweep.core.staleness import LiveCleanup

OTHER = Address(ip_address("10.0.0.11"), 8080)
THIRD = Address(ip_address("10.0.0.12"), 8080)


def only(world: World) -> LiveCleanup:
    (live,) = world.cleanups.live()
    return live


def due(world: World) -> float | None:
    return world.cleanups.next_due(Pace(), now=world.clock.now)


def test_the_age_of_a_removal_is_measured_by_the_api_servers_clock_then_by_ours() -> None:
    world = World()
    world.list(body(gone_for_seconds=0.4, created=world.clock.now - 7))
    live = only(world)
    assert live.arrived_at == world.clock.now
    assert live.arrived_at - live.gone_at == pytest.approx(7.4)


def test_a_creation_in_the_api_servers_future_counts_as_now() -> None:
    world = World()
    world.list(body(gone_for_seconds=0.4, created=world.clock.now + 1))
    assert only(world).gone_at == pytest.approx(world.clock.now - 0.4)


def test_what_was_there_before_us_is_swept_for_at_once_and_what_comes_later_after_a_jitter() -> (
    None
):
    world = World()
    world.list(body(name="endpoint-removed-17", uid="a"))
    assert due(world) == world.clock.now
    world.delete(body(uid="a"))
    world.add(body(name="endpoint-removed-18", uid="b", sequence=18))
    assert due(world) == world.clock.now + 0.2


def test_a_list_is_all_there_is() -> None:
    world = World()
    world.list(body(uid="a"), body(name="endpoint-removed-18", uid="b", sequence=18))
    world.list(body(name="endpoint-removed-18", uid="b", sequence=18))
    assert only(world).cleanup.uid == "b"


def test_hearing_of_a_cleanup_again_changes_nothing() -> None:
    world = World()
    world.list(body())
    before = only(world)
    world.clock.now += 20
    world.add(body())
    world.list(body())
    world.modify(body())
    assert only(world) == before


def test_a_deleted_cleanup_is_forgotten_at_once() -> None:
    world = World()
    world.list(body())
    world.delete(body())
    assert world.cleanups.live() == ()
    assert due(world) is None


def test_a_cleanup_that_was_made_again_under_its_name_is_another_one() -> None:
    world = World()
    world.list(body(uid="a"))
    world.clock.now += 5
    world.list(body(uid="b"))
    assert only(world).cleanup.uid == "b"
    assert only(world).arrived_at == world.clock.now


def test_a_cleanup_for_other_nodes_is_none_of_ours() -> None:
    world = World()
    world.list(body(nodes=("node2",)))
    assert world.cleanups.live() == ()
    assert world.cleanups.refused() == ()


@pytest.mark.parametrize(
    ("edited", "left"),
    [
        pytest.param(
            (target(OTHER),), (target(OTHER),), id="a backend that serves again is taken out"
        ),
        pytest.param(
            (target(DEAD, OTHER, frontends=[FRONTEND]),),
            (target(DEAD, OTHER, frontends=[FRONTEND]),),
            id="so is a frontend",
        ),
        pytest.param(
            (target(DEAD, OTHER, THIRD),), None, id="a backend that is added is not taken"
        ),
        pytest.param((target(DEAD, OTHER), target(id=1)), None, id="nor a target"),
        pytest.param(
            (target(DEAD, OTHER, terminated=True),), None, id="nor that its pod is being deleted"
        ),
        pytest.param((target(THIRD, id=0),), (), id="what is put in the place of all is nothing"),
    ],
)
def test_an_edit_only_ever_takes_away(
    edited: tuple[CleanupTarget, ...], left: tuple[CleanupTarget, ...] | None
) -> None:
    world = World()
    first = (target(DEAD, OTHER),)
    world.list(body(targets=first))
    world.modify(body(targets=edited))
    expected = first if left is None else left
    assert [live.cleanup.targets for live in world.cleanups.live()] == [expected] * bool(expected)


def test_an_edit_starts_no_sweep_and_changes_nothing_else() -> None:
    world = World()
    world.list(body(targets=(target(DEAD, OTHER),)))
    world.run(1.0)
    sweeps, before = world.table.requests, due(world)
    world.modify(body(targets=(target(DEAD),), gone_for_seconds=0.0, sweep_for_seconds=3600))
    assert due(world) == before
    assert only(world).cleanup.sweep_for_seconds == 60
    world.run(1.0)
    assert world.table.requests == sweeps


def test_what_happened_to_the_backends_address_is_taken_over() -> None:
    world = World()
    world.list(body())
    reuse = Reuse(namespace="shop", service="stock", pod_uid="42")
    backend = replace(target().backends[0], reused=reuse)
    world.modify(body(targets=(replace(target(), backends=(backend,)),)))
    assert only(world).cleanup.targets[0].backends == (backend,)


def broken(**spec: Any) -> dict[str, Any]:
    made = body()
    made["spec"] |= spec
    return made


@pytest.mark.parametrize(
    ("refused", "reason", "field"),
    [
        pytest.param(
            broken(formatVersion=2), "UnknownFormatVersion", "spec.formatVersion", id="version"
        ),
        pytest.param(
            broken(sweepForSeconds=4000), "FieldOutOfLimits", "spec.sweepForSeconds", id="limits"
        ),
        pytest.param(broken(targets="all"), "MalformedCleanup", "spec.targets", id="no list"),
        pytest.param(
            {**body(), "metadata": {**body()["metadata"], "creationTimestamp": "yesterday"}},
            "MalformedCleanup",
            "metadata.creationTimestamp",
            id="no moment",
        ),
    ],
)
def test_what_cannot_be_understood_is_refused_once_and_by_field(
    refused: dict[str, Any], reason: str, field: str
) -> None:
    world = World()
    world.list(refused)
    (why,) = world.cleanups.refused()
    assert (why.name, why.reason) == ("endpoint-removed-17", reason)
    assert why.message.startswith(f"{field} is ")
    assert world.cleanups.live() == ()
    world.delete(refused)
    assert world.cleanups.refused() == ()


def test_a_refusal_is_told_once() -> None:
    world = World()
    event = Added(body=broken(formatVersion=2), server_time=world.server_time)
    assert len(world.cleanups.apply(event, now=0.0).refused) == 1
    assert world.cleanups.apply(event, now=1.0).refused == ()


def test_an_edit_that_cannot_be_understood_takes_the_cleanup_with_it() -> None:
    world = World()
    world.list(body())
    world.modify(broken(formatVersion=2))
    assert world.cleanups.live() == ()
    assert len(world.cleanups.refused()) == 1


def condemned(world: World) -> CondemnedEntry:
    return CondemnedEntry(entry=entry(), candidate=candidate(only(world)))


def revoked(one: CondemnedEntry) -> bool:
    return one.candidate.live.revoked


def test_an_entry_that_was_condemned_stays_so_while_its_cleanup_is_there() -> None:
    world = World()
    world.list(body(targets=(target(DEAD, OTHER),)))
    one = condemned(world)
    assert not revoked(world.cleanups.current(one))
    world.modify(body(targets=(target(DEAD),)))
    assert not revoked(world.cleanups.current(one))


@pytest.mark.parametrize(
    "how", ["deleted", "made again", "backend serves again", "frontend taken out"]
)
def test_an_entry_that_was_condemned_is_spared_by_what_happens_in_the_middle_of_a_sweep(
    how: str,
) -> None:
    world = World()
    first: Cleanup = cleanup(target(DEAD, OTHER))
    world.list(body(first))
    one = condemned(world)
    match how:
        case "deleted":
            world.delete(body(first))
        case "made again":
            world.list(body(replace(first, uid="another")))
        case "backend serves again":
            world.modify(body(replace(first, targets=(target(OTHER),))))
        case "frontend taken out":
            left = target(DEAD, OTHER, frontends=[NODE_PORT])
            world.modify(body(replace(first, targets=(left,))))
    assert revoked(world.cleanups.current(one))


def test_a_cleanup_that_is_over_is_forgotten_and_stays_so_while_the_api_server_keeps_it() -> None:
    world = World()
    world.list(body())
    world.run(75.0)
    assert world.cleanups.live() == ()
    requests = world.table.requests
    world.list(body())
    world.run(30.0)
    assert world.table.requests == requests


def test_those_that_wait_for_their_first_sweep_are_told() -> None:
    world = World()
    world.list(body(uid="a"))
    assert world.cleanups.waiting() == (17,)
    world.run(0.0)
    assert world.cleanups.waiting() == ()
