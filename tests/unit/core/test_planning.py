"""From what is gone to cleanups: who decides, when it is due, what is covered, what is revoked."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from synsweep.core.cleanup import Cleanup, CleanupReason, Misrouted, Mode
from synsweep.core.planning import (
    PlanSettings,
    covered_pairs,
    plan_cleanups,
    plan_revocations,
    plan_withdrawals,
    report_within_seconds,
)
from synsweep.core.policy import Policy, read_policy
from synsweep.core.removals import RemovedBackend, mass_removal
from tests.unit.core.world import REMOVED, UNREADY, World, at, down, leaving, service_key, up

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synsweep.core.planning import PairKey

SETTINGS = PlanSettings(reuse_after=30, sweep_for=60)
X_UP, Y_UP = up("10.0.0.1"), up("10.0.0.2")


def policy(name: str = "p", **spec: Any) -> Policy:
    return read_policy({"metadata": {"name": name, "uid": f"uid-{name}"}, "spec": spec})


DEFAULT = policy()


@pytest.fixture
def world() -> World:
    made = World()
    made.service("a", labels={"app": "a"})
    made.slice("a-1", X_UP, Y_UP)
    return made


def plan(
    world: World,
    *policies: Policy,
    covered: Mapping[PairKey, float] | None = None,
    first_sequence: int = 17,
) -> tuple[Cleanup, ...]:
    return plan_cleanups(
        world.index.gone(now=world.now, within=SETTINGS.sweep_for),
        policies=policies or [DEFAULT],
        labels=world.index.labels,
        covered=covered or {},
        settings=SETTINGS,
        first_sequence=first_sequence,
        now=world.now,
        wall_now="2026-03-01T12:00:00Z",
        nodes_total=3,
    )


def backends(*cleanups: Cleanup) -> set[str]:
    return {
        str(backend.address)
        for cleanup in cleanups
        for target in cleanup.targets
        for backend in target.backends
    }


def revocations(
    world: World, *live: Cleanup, policies: list[Policy] | None = None
) -> dict[str, set[str] | None]:
    """Name and what remains of every cleanup that must change."""
    found = plan_revocations(
        live,
        pairs=world.index,
        policies=[DEFAULT] if policies is None else policies,
        labels=world.index.labels,
    )
    return {
        one.cleanup.name: None if one.remaining is None else backends(one.remaining)
        for one in found
    }


# ------------------------------------------------------------------ planning


def test_a_removed_backend_becomes_a_cleanup_with_all_that_a_node_needs(world: World) -> None:
    world.slice("a-1", leaving("10.0.0.1"), Y_UP)
    world.slice("a-1", Y_UP)
    world.wait(0.25)

    (cleanup,) = plan(world, policy(mode="DryRun", misrouted="Ignore"))

    assert (cleanup.name, cleanup.sequence) == ("endpoint-removed-17", 17)
    assert (cleanup.policy, cleanup.policy_uid) == ("p", "uid-p")
    assert (cleanup.mode, cleanup.misrouted) == (Mode.DRY_RUN, Misrouted.IGNORE)
    assert (cleanup.reason, cleanup.gone_for_seconds) == (REMOVED, 0.25)
    assert cleanup.removed_at == "2026-03-01T11:59:59Z"
    assert (cleanup.reuse_after_seconds, cleanup.sweep_for_seconds) == (30, 60)
    assert (cleanup.report_within_seconds, cleanup.nodes) == (1, ())
    assert (cleanup.uid, cleanup.created_at) == ("", "")
    (target,) = cleanup.targets
    assert (target.id, target.namespace, target.service, target.port_name) == (
        0,
        "shop",
        "a",
        "http",
    )
    assert target.frontends == (at("10.96.0.1:80"),)
    (backend,) = target.backends
    assert (backend.address, backend.terminated, backend.reused) == (
        at("10.0.0.1:8080"),
        True,
        None,
    )


@pytest.mark.parametrize(
    ("policies", "decides"),
    [
        pytest.param([policy(mode="Disabled")], None, id="a disabled policy: nothing"),
        pytest.param([policy(serviceSelector={"matchLabels": {"app": "b"}})], None, id="none"),
        pytest.param(
            [
                policy("all"),
                policy("own", priority=1, serviceSelector={"matchLabels": {"app": "a"}}),
            ],
            "own",
            id="the one that decides for the Service",
        ),
        pytest.param(
            [policy("all"), policy("off", mode="Disabled")], None, id="the more cautious one"
        ),
    ],
)
def test_the_policy_of_the_service_decides(
    world: World, policies: list[Policy], decides: str | None
) -> None:
    world.slice("a-1", Y_UP)

    assert {cleanup.policy for cleanup in plan(world, *policies)} == {decides} - {None}


def test_a_deleted_service_is_cleaned_by_the_policy_that_its_labels_chose(world: World) -> None:
    world.delete_service("a")
    world.delete_slice("a-1")
    world.index.apply_namespace("shop", None, now=world.now)

    cleanups = plan(world, policy(serviceSelector={"matchLabels": {"app": "a"}}))

    assert backends(*cleanups) == {"10.0.0.1:8080", "10.0.0.2:8080"}


def test_a_service_whose_labels_are_forgotten_is_left_alone(world: World) -> None:
    world.slice("a-1")
    removed = world.index.gone(now=world.now)

    cleanups = plan_cleanups(
        removed,
        policies=[DEFAULT],
        labels=lambda _: None,
        covered={},
        settings=SETTINGS,
        first_sequence=1,
        now=world.now,
        wall_now="2026-03-01T12:00:00Z",
        nodes_total=3,
    )

    assert removed
    assert cleanups == ()


@pytest.mark.parametrize(
    ("waited", "planned"),
    [
        pytest.param(0, True, id="at once"),
        pytest.param(60, True, id="just in time"),
        pytest.param(61, False, id="older than nodes sweep for: left to the suspects"),
    ],
)
def test_a_removal_is_planned_while_nodes_would_sweep_for_it(
    world: World, *, waited: float, planned: bool
) -> None:
    world.slice("a-1", Y_UP)
    world.wait(waited)

    removed = world.index.gone(now=world.now)
    cleanups = plan_cleanups(
        removed,
        policies=[DEFAULT],
        labels=world.index.labels,
        covered={},
        settings=SETTINGS,
        first_sequence=1,
        now=world.now,
        wall_now="2026-03-01T12:00:00Z",
        nodes_total=3,
    )

    assert bool(cleanups) == planned


@pytest.mark.parametrize(
    ("threshold", "waited", "gone_for"),
    [
        pytest.param(10, 9.9, None, id="H4: not ready for less than the policy says"),
        pytest.param(10, 10, 0.0, id="H22: node lost: gone from the end of that time on"),
        pytest.param(10, 15, 5.0, id="H22: and counted from there"),
        pytest.param(10, 70.5, None, id="older than nodes sweep for"),
        pytest.param(300, 301, 1.0, id="the longest time"),
        pytest.param(0, 5, None, id="0 is never: soon"),
        pytest.param(0, 500, None, id="0 is never: late"),
    ],
)
def test_an_unready_backend_counts_as_gone_when_the_policy_says(
    world: World, threshold: int, waited: float, gone_for: float | None
) -> None:
    world.slice("a-1", down("10.0.0.1"), Y_UP)
    world.wait(waited)

    cleanups = plan(world, policy(unreadyAfterSeconds=threshold))

    assert [one.gone_for_seconds for one in cleanups] == ([] if gone_for is None else [gone_for])
    assert all(one.name == "endpoint-unready-17" for one in cleanups)
    assert backends(*cleanups) <= {"10.0.0.1:8080"}


def test_one_cleanup_is_of_one_policy_and_one_reason_and_they_are_numbered(world: World) -> None:
    world.slice("a-2", down("10.0.0.7"))
    world.service("b", ips=["10.96.0.2"])
    world.slice("b-1", X_UP, service="b")
    world.wait(10)
    world.slice("a-1", Y_UP)
    world.delete_slice("b-1")

    cleanups = plan(
        world, DEFAULT, policy("q", priority=1, serviceSelector={"matchLabels": {"app": "a"}})
    )

    assert [(one.name, one.policy) for one in cleanups] == [
        ("endpoint-removed-17", "p"),
        ("endpoint-removed-18", "q"),
        ("endpoint-unready-19", "q"),
    ]


def test_pairs_of_one_service_that_two_of_its_ports_had_are_planned_once(world: World) -> None:
    world.service("a", ports={"web": 80})
    world.slice("a-1", X_UP, Y_UP, ports={"web": 8080})
    world.slice("a-1", Y_UP, ports={"web": 8080})

    assert {str(one.service_port) for one in world.index.gone(now=world.now)} == {
        "shop/a:http",
        "shop/a:web",
    }
    (cleanup,) = plan(world)

    assert [target.port_name for target in cleanup.targets] == ["http"]


def test_the_number_of_nodes_sets_how_fast_they_report() -> None:
    assert [report_within_seconds(nodes) for nodes in (0, 3, 50, 51, 5_000, 1_000_000)] == [
        1,
        1,
        1,
        2,
        100,
        3600,
    ]


# ------------------------------------------------------------------ what is covered


def test_what_a_live_cleanup_covers_is_not_planned_again(world: World) -> None:
    world.slice("a-1", Y_UP)
    (live,) = plan(world)
    covered = covered_pairs([(live, world.now - live.gone_for_seconds)])
    world.wait(30)
    world.slice("a-1")

    (more,) = plan(world, covered=covered)

    assert backends(more) == {"10.0.0.2:8080"}


@pytest.mark.parametrize(
    ("change", "planned"),
    [
        pytest.param({}, False, id="the same"),
        pytest.param({"policy_uid": "other"}, True, id="another policy's cleanup"),
        pytest.param({"mode": Mode.DRY_RUN}, True, id="a dry run"),
        pytest.param({"reason": UNREADY}, True, id="it was only unready then"),
    ],
)
def test_only_a_cleanup_of_the_same_policy_mode_and_reason_covers(
    world: World, *, change: dict[str, Any], planned: bool
) -> None:
    world.slice("a-1", Y_UP)
    (live,) = plan(world)
    covered = covered_pairs([(replace(live, **change), world.now)])

    assert bool(plan(world, covered=covered)) == planned


def test_one_that_came_back_and_went_again_is_planned_anew(world: World) -> None:
    world.slice("a-1", Y_UP)
    (live,) = plan(world)
    covered = covered_pairs([(live, world.now)])
    world.wait(20)
    world.slice("a-1", X_UP, Y_UP)
    world.slice("a-1", Y_UP)

    (again,) = plan(world, covered=covered)

    assert again.gone_for_seconds == 0.0
    assert backends(again) == {"10.0.0.1:8080"}


def test_the_younger_removals_of_a_late_cleanup_are_covered_too(world: World) -> None:
    world.slice("a-1", Y_UP)
    world.wait(7)
    world.slice("a-1")
    world.wait(25)
    (live,) = plan(world)
    assert (live.gone_for_seconds, len(backends(live))) == (32.0, 2)

    assert plan(world, covered=covered_pairs([(live, world.now - 32.0)])) == ()


def test_of_two_cleanups_about_one_pair_the_younger_covers(world: World) -> None:
    world.slice("a-1", Y_UP)
    (live,) = plan(world)

    for order in ([(live, 0.0), (live, 100.0)], [(live, 100.0), (live, 0.0)]):
        assert plan(world, covered=covered_pairs(order)) == ()


def test_only_the_frontends_that_are_not_covered_are_planned(world: World) -> None:
    world.service("a", externalIPs=["192.0.2.7"])
    world.service("a")
    (live,) = plan(world)
    world.slice("a-1", Y_UP)

    (more,) = plan(world, covered=covered_pairs([(live, world.now)]))

    (target,) = more.targets
    assert (target.frontends, backends(more)) == ((at("10.96.0.1:80"),), {"10.0.0.1:8080"})


# ------------------------------------------------------------------ revocation


def test_what_serves_again_is_taken_out_at_once(world: World) -> None:
    world.slice("a-1")
    (live,) = plan(world)
    assert revocations(world, live) == {}

    world.slice("a-2", X_UP)
    assert revocations(world, live) == {live.name: {"10.0.0.2:8080"}}

    world.slice("a-2", X_UP, Y_UP)
    assert revocations(world, live) == {live.name: None}
    assert plan(world) == ()


def test_what_is_back_but_not_ready_yet_is_no_removal_any_more(world: World) -> None:
    world.slice("a-1", Y_UP)
    (live,) = plan(world)
    world.slice("a-1", down("10.0.0.1"), Y_UP)

    assert revocations(world, live) == {live.name: None}


def test_an_unready_one_stays_until_it_is_chosen_again(world: World) -> None:
    world.slice("a-1", down("10.0.0.1"), Y_UP)
    world.wait(10)
    (live,) = plan(world)
    assert revocations(world, live) == {}

    world.slice("a-1", X_UP, Y_UP)
    assert revocations(world, live) == {live.name: None}


def test_an_unready_one_that_is_removed_stays_and_is_a_removal_as_well(world: World) -> None:
    world.slice("a-1", down("10.0.0.1"), Y_UP)
    world.wait(10)
    (live,) = plan(world)
    world.slice("a-1", Y_UP)

    assert revocations(world, live) == {}
    (more,) = plan(world, covered=covered_pairs([(live, world.now)]))
    assert more.reason is REMOVED


def test_unready_backends_are_let_go_when_the_policy_no_longer_says_so(world: World) -> None:
    world.slice("a-1", down("10.0.0.1"), Y_UP)
    world.wait(10)
    (live,) = plan(world)

    assert revocations(world, live, policies=[policy(unreadyAfterSeconds=0)]) == {live.name: None}
    assert revocations(world, live, policies=[policy(unreadyAfterSeconds=60)]) == {}


def test_a_service_that_another_policy_decides_for_is_let_go(world: World) -> None:
    world.service("b", ips=["10.96.0.2"])
    world.slice("b-1", up("10.0.1.1"), service="b")
    world.slice("a-1")
    world.delete_slice("b-1")
    (live,) = plan(world)
    off = policy("off", mode="Disabled", priority=1, serviceSelector={"matchLabels": {"app": "a"}})

    assert revocations(world, live, policies=[DEFAULT, off]) == {live.name: {"10.0.1.1:8080"}}
    assert revocations(world, live, policies=[]) == {live.name: None}


def test_while_the_labels_are_unknown_nothing_is_let_go(world: World) -> None:
    world.slice("a-1", Y_UP)
    (live,) = plan(world)
    elsewhere = replace(live, targets=(replace(live.targets[0], service="forgotten"),))
    world.index.apply_namespace("shop", None, now=world.now)
    world.index.expire(now=world.now + 300, keep_for=300)
    only_here = policy(namespaceSelector={"matchLabels": {"kubernetes.io/metadata.name": "shop"}})

    labels = world.index.labels(service_key())
    assert labels is not None
    assert labels.namespace is None
    assert revocations(world, live, elsewhere, policies=[only_here]) == {}


def test_through_one_frontend_again_takes_the_backend_out_and_the_rest_is_planned_anew(
    world: World,
) -> None:
    shared = {"externalIPs": ["192.0.2.7"]}
    world.service("a", **shared)
    world.service("b", ips=["10.96.0.2"], **shared)
    world.slice("a-1", Y_UP)
    (live,) = plan(world)
    world.slice("b-1", X_UP, service="b")

    assert revocations(world, live) == {live.name: None}
    (anew,) = plan(world)
    assert anew.targets[0].frontends == (at("10.96.0.1:80"),)


def test_an_address_that_turns_out_to_be_a_nodes_is_let_go(world: World) -> None:
    world.slice("a-1", Y_UP)
    (live,) = plan(world)
    world.index.set_node_addresses(frozenset({at("10.0.0.1:1").ip}))

    assert revocations(world, live) == {live.name: None}


# ------------------------------------------------------------------ withdrawal


@pytest.mark.parametrize(
    ("policies", "withdrawn"),
    [
        pytest.param([DEFAULT], False, id="nothing changed"),
        pytest.param([policy(priority=5)], False, id="another priority"),
        pytest.param([policy(mode="DryRun")], True, id="another mode"),
        pytest.param([policy(mode="Disabled")], True, id="disabled"),
        pytest.param([], True, id="the policy is gone"),
        pytest.param([replace(DEFAULT, uid="new")], True, id="deleted and made again"),
    ],
)
def test_a_cleanup_is_withdrawn_when_its_policy_changes_its_mode_or_goes(
    world: World, *, policies: list[Policy], withdrawn: bool
) -> None:
    world.slice("a-1", Y_UP)
    live = plan(world)

    assert plan_withdrawals(live, policies) == (live if withdrawn else ())


# ------------------------------------------------------------------ brake


def removals(
    count: int, *, gone_at: float, reason: CleanupReason = REMOVED
) -> list[RemovedBackend]:
    world = World()
    world.service("a")
    world.slice("a-1", *(up(f"10.0.{number // 250}.{number % 250}") for number in range(count)))
    world.delete_slice("a-1")
    return [replace(one, gone_at=gone_at, reason=reason) for one in world.index.gone(now=world.now)]


@pytest.mark.parametrize(
    ("count", "gone_at", "left", "expected"),
    [
        pytest.param(500, 95.0, 0, True, id="H25: everything, and it is much"),
        pytest.param(499, 95.0, 0, False, id="everything, but it is little"),
        pytest.param(500, 95.0, 4_499, True, id="a little more than a tenth"),
        pytest.param(500, 95.0, 4_500, False, id="a tenth"),
        pytest.param(500, 89.0, 0, False, id="more than 10 s ago"),
    ],
)
def test_a_mass_removal_is_much_at_once(
    *, count: int, gone_at: float, left: int, expected: bool
) -> None:
    removed = removals(count, gone_at=gone_at)

    assert mass_removal(removed, now=100.0, backends_total=left) == expected
    assert not mass_removal([], now=100.0, backends_total=left)


def test_what_its_policy_decides_in_another_mode_now_is_taken_back(world: World) -> None:
    world.slice("a-1", X_UP)
    [cleanup] = plan(world)
    assert revocations(world, cleanup) == {}
    for mode in (Mode.DRY_RUN, Mode.DISABLED):
        changed = policy(mode=mode)
        assert revocations(world, cleanup, policies=[changed]) == {cleanup.name: None}
