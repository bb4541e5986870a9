"""The index itself: moments, forgetting, changes, look-ups. The cases are in test_judging_gone."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from synsweep.core.endpoints import SliceKey
from synsweep.core.index import BackendIndex, ObjectVersion
from synsweep.core.policy import ServiceLabels
from synsweep.core.removals import Change, RemovedBackend
from tests.unit.core.world import REMOVED, UNREADY, World, at, down, leaving, service_key, up

if TYPE_CHECKING:
    from synsweep.core.cleanup import CleanupReason

A, X, Y = at("10.96.0.1:80"), at("10.0.0.1:8080"), at("10.0.0.2:8080")
SHARED = {"externalIPs": ["192.0.2.7"]}
S = at("192.0.2.7:80")
X_UP, Y_UP = up("10.0.0.1"), up("10.0.0.2")


@pytest.fixture
def world() -> World:
    made = World()
    made.service("a")
    made.slice("a-1", X_UP, Y_UP)
    return made


def only(world: World, reason: CleanupReason = REMOVED) -> RemovedBackend:
    (found,) = (one for one in world.index.gone(now=world.now) if one.reason is reason)
    return found


# ------------------------------------------------------------------ never chosen


def test_a_pod_that_is_slow_to_start_was_never_chosen_and_is_not_gone(world: World) -> None:
    world.index.fill_is_complete()
    world.slice("a-1", X_UP, down("10.0.0.2"), down("10.0.0.3"))
    world.wait(20)
    assert world.gone(UNREADY) == {(str(A), str(Y))}, "Y was ready when we came, the other never"

    world.slice("a-1", X_UP, down("10.0.0.2"), up("10.0.0.3"))
    world.slice("a-1", X_UP, down("10.0.0.2"), down("10.0.0.3"))
    assert world.gone(UNREADY) == {(str(A), str(Y)), (str(A), "10.0.0.3:8080")}


def test_what_was_not_ready_when_we_came_may_have_been_chosen_before(world: World) -> None:
    world.slice("a-1", X_UP, down("10.0.0.3"))
    world.index.fill_is_complete()
    assert world.gone(UNREADY) == {(str(A), "10.0.0.3:8080")}


def test_one_that_comes_back_unready_was_chosen_before(world: World) -> None:
    world.index.fill_is_complete()
    world.slice("a-1", X_UP)
    world.slice("a-1", X_UP, down("10.0.0.2"))
    assert world.gone(UNREADY) == {(str(A), str(Y))}


def test_one_that_served_only_while_terminating_was_chosen(world: World) -> None:
    world.index.fill_is_complete()
    world.slice("a-1")
    world.slice("a-1", leaving("10.0.0.3"))
    assert world.gone(UNREADY) == set()
    world.slice("a-1", leaving("10.0.0.3", serving=False))
    assert world.gone(UNREADY) == {(str(A), "10.0.0.3:8080")}


# ------------------------------------------------------------------ moments


def test_a_removal_counts_from_the_event_and_stays_the_same_when_asked_again(world: World) -> None:
    world.wait(7)
    world.slice("a-1", Y_UP)
    world.wait(20)

    first, again = only(world), only(world)

    assert first == again
    assert (first.gone_at, first.terminated) == (107.0, False)
    assert (first.backend, first.frontends) == (X, frozenset({A}))
    assert str(first.service_port) == "shop/a:http"


def test_one_that_was_unchosen_before_counts_from_its_removal(world: World) -> None:
    world.slice("a-1", leaving("10.0.0.1"), Y_UP)
    world.wait(30)
    draining = only(world, UNREADY)
    assert draining.gone_at == 100.0
    assert not draining.terminated, "it may drain for minutes, and answer"

    world.slice("a-1", Y_UP)

    assert (only(world).gone_at, only(world).terminated) == (130.0, True)


def test_with_two_owners_the_moment_is_when_the_last_one_let_go(world: World) -> None:
    world.service("a", **SHARED)
    world.service("b", ips=["10.96.0.2"], **SHARED)
    world.slice("b-1", X_UP, service="b")
    world.wait(1)
    world.slice("a-1", Y_UP)
    world.wait(1)
    world.slice("b-1", service="b")
    world.wait(1)

    moments = {
        (frontend, one.gone_at)
        for one in world.index.gone(now=world.now)
        for frontend in one.frontends
    }

    assert moments == {(A, 101.0), (S, 102.0), (at("10.96.0.2:80"), 102.0)}


def test_an_unready_one_counts_from_when_the_last_owner_stopped_choosing_it(world: World) -> None:
    world.service("a", **SHARED)
    world.service("b", ips=["10.96.0.2"], **SHARED)
    world.slice("b-1", X_UP, up("10.0.0.9"), service="b")
    world.wait(1)
    world.slice("a-1", Y_UP)
    world.wait(1)
    world.slice("b-1", down("10.0.0.1"), up("10.0.0.9"), service="b")
    world.wait(1)

    found = {
        (frontend, one.reason, one.gone_at)
        for one in world.index.gone(now=world.now)
        for frontend in one.frontends
    }

    # b still lists it: what is shared is unready; a's own address is removed.
    assert found == {
        (A, REMOVED, 101.0),
        (S, UNREADY, 102.0),
        (at("10.96.0.2:80"), UNREADY, 102.0),
    }


def test_unready_stays_since_its_beginning_while_slices_are_written_again(world: World) -> None:
    world.slice("a-1", down("10.0.0.1"), Y_UP)
    world.wait(4)
    world.slice("a-1", down("10.0.0.1"), Y_UP, up("10.0.0.3"))
    world.wait(4)

    assert only(world, UNREADY).gone_at == 100.0


def test_two_ports_that_list_one_address_are_both_asked(world: World) -> None:
    world.service("a", ports={"http": 80, "web": 81})
    world.slice("a-1", down("10.0.0.1"), ports={"http": 8080})
    world.wait(2)
    world.slice("a-2", down("10.0.0.1"), ports={"web": 8080})
    world.wait(2)

    assert {one.gone_at for one in world.index.gone(now=104.0) if one.reason is UNREADY} == {102.0}

    world.slice("a-2", X_UP, ports={"web": 8080})

    assert world.unready() == set()


def test_removals_older_than_asked_for_are_left_out_but_unready_ones_are_not(world: World) -> None:
    world.slice("a-2", up("10.0.0.3"), down("10.0.0.4"))
    world.service("a", **SHARED)
    world.slice("a-1", Y_UP)
    world.wait(100)
    world.service("a")
    world.wait(50)

    recent = {(str(S), f"10.0.0.{last}:8080") for last in (2, 3, 4)}
    assert world.gone(REMOVED, within=60) == recent
    assert world.gone(REMOVED, within=200) == recent | {(str(S), str(X)), (str(A), str(X))}
    assert world.gone(REMOVED, within=10) == set()
    assert world.gone(UNREADY, within=10) == {(str(A), "10.0.0.4:8080")}


# ------------------------------------------------------------------ forgetting


def test_a_removed_backend_is_forgotten_after_its_time(world: World) -> None:
    world.slice("a-1", Y_UP)
    world.wait(300)
    world.index.expire(now=world.now - 0.1, keep_for=300)
    assert world.removed() == {(str(A), str(X))}

    world.index.expire(now=world.now, keep_for=300)

    assert world.removed() == set()
    assert world.index.is_valid(A, Y)


def test_a_deleted_service_is_remembered_with_its_labels_for_a_while(world: World) -> None:
    world.service("a", labels={"app": "x"})
    world.delete_service("a")
    world.delete_slice("a-1")
    world.index.apply_namespace("shop", None, now=world.now)
    world.wait(299)
    world.index.expire(now=world.now, keep_for=300)

    labels = world.index.labels(service_key())
    assert labels == ServiceLabels(
        namespace={"kubernetes.io/metadata.name": "shop"}, service={"app": "x"}
    )
    assert world.removed() == {(str(A), str(X)), (str(A), str(Y))}

    world.wait(1)
    world.index.expire(now=world.now, keep_for=300)

    assert world.index.labels(service_key()) is None
    assert world.removed() == set()


def test_an_index_from_which_everything_vanished_is_an_empty_one(world: World) -> None:
    world.service("b", ips=["10.96.0.2"], **SHARED)
    world.service("a", **SHARED)
    world.slice("b-1", X_UP, service="b")
    for name in ("a", "b"):
        world.delete_service(name)
        world.delete_slice(f"{name}-1")
    world.index.apply_namespace("shop", None, now=world.now)
    world.wait(300)
    world.index.expire(now=world.now, keep_for=300)

    assert vars(world.index) == vars(BackendIndex())


def test_an_empty_slice_of_an_unknown_service_leaves_nothing_behind() -> None:
    world = World()
    world.slice("a-1")
    world.delete_slice("a-1")
    world.index.apply_namespace("shop", None, now=world.now)
    world.index.expire(now=world.now + 300, keep_for=300)

    assert vars(world.index) == vars(BackendIndex())


def test_frontends_that_went_are_forgotten_while_the_service_lives(world: World) -> None:
    world.service("a", **SHARED)
    world.service("a")
    assert world.removed() == {(str(S), str(X)), (str(S), str(Y))}

    world.wait(301)
    world.index.expire(now=world.now, keep_for=300)

    assert world.removed() == set()
    assert not world.index.is_valid(S, X)


def test_the_labels_of_a_service_whose_slices_linger_are_forgotten_all_the_same(
    world: World,
) -> None:
    world.delete_service("a")
    world.wait(301)
    world.index.expire(now=world.now, keep_for=300)

    assert world.index.labels(service_key()) is None
    assert world.index.backends_total() == 2


# ------------------------------------------------------------------ what an event did


@pytest.mark.parametrize(
    ("endpoints", "expected"),
    [
        pytest.param([X_UP, Y_UP], Change(), id="the same again"),
        pytest.param([X_UP], Change(gone=True), id="one vanished"),
        pytest.param([X_UP, Y_UP, up("10.0.0.3")], Change(back=True), id="one appeared"),
        pytest.param([X_UP, down("10.0.0.3")], Change(gone=True, back=True), id="both"),
        pytest.param([X_UP, down("10.0.0.2")], Change(), id="one is not ready: only time tells"),
    ],
)
def test_a_slice_says_what_it_changed(
    world: World, endpoints: list[dict[str, object]], expected: Change
) -> None:
    assert world.slice("a-1", *endpoints) == expected
    assert bool(expected) == (expected != Change())


def test_a_backend_that_is_chosen_again_is_back(world: World) -> None:
    world.slice("a-1", down("10.0.0.1"), Y_UP)
    assert not world.index.is_chosen(A, X)
    assert world.slice("a-1", X_UP, Y_UP) == Change(back=True)
    assert world.index.is_chosen(A, X)


def test_the_fallback_to_terminating_ones_brings_them_back(world: World) -> None:
    world.slice("a-1", leaving("10.0.0.1"), Y_UP)
    assert not world.index.is_chosen(A, X)

    assert world.slice("a-1", leaving("10.0.0.1")) == Change(gone=True, back=True)
    assert world.index.is_chosen(A, X)


def test_a_service_says_what_it_changed(world: World) -> None:
    assert world.service("a") == Change()
    assert world.service("a", **SHARED) == Change(back=True)
    assert world.service("a") == Change(gone=True)
    assert world.delete_service("a") == Change(gone=True)
    assert world.delete_service("a") == Change()
    assert world.delete_service("never-seen") == Change()
    assert world.service("a") == Change(back=True)


def test_deleting_what_was_never_seen_changes_nothing(world: World) -> None:
    assert world.delete_slice("never-seen") == Change()
    world.index.apply_namespace("never-seen", None, now=world.now)
    world.index.apply_namespace("shop", None, now=world.now)
    world.index.apply_namespace("shop", None, now=world.now + 50)

    assert world.index.namespaces() == frozenset()
    world.index.expire(now=world.now + 300, keep_for=300)
    labels = world.index.labels(service_key())
    assert labels is not None
    assert labels.namespace is None


def test_another_proxy_takes_over_and_gives_back(world: World) -> None:
    label = {"service.kubernetes.io/service-proxy-name": "other"}
    world.service("a", labels=label)
    assert world.removed() == set()
    assert not world.index.is_valid(A, X)

    world.service("a")

    assert world.index.is_valid(A, X)
    assert world.removed() == set()


# ------------------------------------------------------------------ look-ups


def test_validity_is_of_the_pair(world: World) -> None:
    assert world.index.is_valid(A, X)
    assert not world.index.is_valid(A, at("10.0.0.1:8081"))
    assert not world.index.is_valid(at("10.96.0.1:81"), X)
    assert not world.index.is_chosen(at("10.96.0.1:81"), X)


def test_an_address_of_a_node_is_always_valid(world: World) -> None:
    world.index.set_node_addresses(frozenset({ip_address("10.0.0.7")}))

    assert world.index.is_valid(A, at("10.0.0.7:8080"))
    assert world.index.is_chosen(A, at("10.0.0.7:8080"))


def test_versions_tell_what_is_known(world: World) -> None:
    world.slice("b-1", X_UP, service="b")

    assert world.index.slice_versions() == {
        SliceKey(namespace="shop", name="a-1"): ObjectVersion(uid="uid-a-1", resource_version=""),
        SliceKey(namespace="shop", name="b-1"): ObjectVersion(uid="uid-b-1", resource_version=""),
    }
    assert world.index.service_versions() == {
        service_key(): ObjectVersion(uid="uid-a", resource_version="7")
    }
    assert world.index.namespaces() == {"shop"}


def test_only_services_with_frontends_are_counted_for_policies(world: World) -> None:
    world.service("headless", ips=[], labels={"app": "h"})
    world.service("b", ips=["10.96.0.2"], labels={"app": "b"})
    world.slice("c-1", X_UP, service="c")
    shop = {"kubernetes.io/metadata.name": "shop"}

    assert world.index.labels(service_key("c")) is None
    assert world.index.labels(service_key("never-seen")) is None
    assert world.index.proxied_services() == (
        ServiceLabels(namespace=shop, service={}),
        ServiceLabels(namespace=shop, service={"app": "b"}),
    )


def test_backends_are_counted_once_per_service_port(world: World) -> None:
    world.slice("a-2", X_UP)
    world.slice("b-1", X_UP, service="b", ports={"http": 8080, "admin": 8081})

    assert world.index.backends_total() == 4
