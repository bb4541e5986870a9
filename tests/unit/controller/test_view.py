"""The fold of events: in which order they come, how often, and when nobody tells."""

from __future__ import annotations

import logging
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from synsweep.cluster.metadata import Version
from synsweep.controller.view import Kind
from synsweep.core.flow import Address
from tests.unit.controller.world import World, a_slice

if TYPE_CHECKING:
    from typing import Any

FRONTEND = Address(ip_address("10.96.0.10"), 80)
KEY = ("shop", "web-1")


def serves(world: World, ip: str) -> bool:
    return world.view.index.is_valid(FRONTEND, Address(ip_address(ip), 8080))


def versioned(version: int, *ips: str, uid: str = "uid-web-1") -> dict[str, Any]:
    body = a_slice("web-1", "web", *ips)
    body["metadata"] |= {"resourceVersion": str(version), "uid": uid}
    return body


def a_world() -> World:
    world = World()
    world.service("web", "10.96.0.10")
    world.view.take(Kind.SLICE, None, versioned(10, "10.0.0.1"))
    return world


@pytest.mark.parametrize(
    ("events", "left"),
    [
        pytest.param([("MODIFIED", 11, "10.0.0.2", "u1")], "10.0.0.2", id="a newer version counts"),
        pytest.param([("MODIFIED", 9, "10.0.0.2", "u1")], "10.0.0.1", id="an older one does not"),
        pytest.param([("MODIFIED", 10, "10.0.0.2", "u1")], "10.0.0.1", id="nor the same again"),
        pytest.param([("DELETED", 11, "", "u1")], "", id="a deletion counts"),
        pytest.param([("DELETED", 9, "", "u1")], "10.0.0.1", id="an old deletion does not"),
        pytest.param(
            [("ADDED", 12, "10.0.0.2", "u2"), ("DELETED", 11, "", "u1")],
            "10.0.0.2",
            id="deleted and created again, told the other way round",
        ),
        pytest.param(
            [("DELETED", 11, "", "u1"), ("ADDED", 12, "10.0.0.2", "u2")],
            "10.0.0.2",
            id="deleted and created again",
        ),
        pytest.param(
            [("ADDED", 12, "10.0.0.2", "u2"), ("MODIFIED", 11, "10.0.0.3", "u1")],
            "10.0.0.2",
            id="a late event of the former object of that name",
        ),
        pytest.param(
            [("DELETED", 11, "", "u1"), ("DELETED", 11, "", "u1")], "", id="deleted twice"
        ),
    ],
)
def test_the_last_version_of_a_name_decides(
    events: list[tuple[str, int, str, str]], left: str
) -> None:
    world = World()
    world.service("web", "10.96.0.10")
    world.view.take(Kind.SLICE, None, versioned(10, "10.0.0.1", uid="u1"))
    for type_, version, ip, uid in events:
        world.view.take(Kind.SLICE, type_, versioned(version, *filter(None, [ip]), uid=uid))
    serving = {ip for ip in ("10.0.0.1", "10.0.0.2", "10.0.0.3") if serves(world, ip)}
    assert serving == ({left} if left else set())


def test_a_malformed_object_is_said_and_leaves_what_was_known(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = a_world()
    body = versioned(11)
    body["endpoints"] = [{"addresses": ["not an address"]}]
    with caplog.at_level(logging.WARNING):
        world.view.take(Kind.SLICE, "MODIFIED", body)
        world.view.take(Kind.SERVICE, "MODIFIED", {"metadata": {"namespace": "shop"}})
    assert serves(world, "10.0.0.1")
    first, second = (record.message for record in caplog.records)
    assert "EndpointSlice shop/web-1: endpoints" in first
    assert "metadata.name" in second
    assert world.counted("objects_malformed_total", kind="EndpointSlice") == 1
    assert world.counted("objects_malformed_total", kind="Service") == 1


def test_what_nobody_told_is_forgotten_only_in_the_version_that_was_compared() -> None:
    world = a_world()
    version = world.view.known(Kind.SLICE)[KEY]
    world.view.take(Kind.SLICE, "MODIFIED", versioned(11, "10.0.0.1"))
    assert not world.view.forget(Kind.SLICE, KEY, version)
    assert serves(world, "10.0.0.1")
    newer = Version(uid="uid-web-1", resource_version="11")
    assert world.view.forget(Kind.SLICE, KEY, newer)
    assert not serves(world, "10.0.0.1")
    assert world.view.newest(Kind.SLICE) == 11


def test_a_second_listing_of_kopf_asks_for_a_comparison() -> None:
    world = a_world()
    assert not world.view.listed_again.is_set()
    world.view.fill()
    world.view.take(Kind.SLICE, "MODIFIED", versioned(12, "10.0.0.1"))
    assert not world.view.listed_again.is_set()
    world.view.take(Kind.SLICE, None, versioned(12, "10.0.0.1"))
    assert world.view.listed_again.is_set()


def test_namespaces_give_services_the_labels_that_policies_select_by() -> None:
    world = a_world()
    namespace = {"metadata": {"name": "shop", "labels": {"team": "a"}}}
    world.take(Kind.NAMESPACE, namespace)
    [labels] = world.view.index.proxied_services()
    assert labels.namespace == {"team": "a"}
    world.take(Kind.NAMESPACE, {"metadata": {"name": "shop", "uid": "uid-shop"}}, "DELETED")
    assert world.view.known(Kind.NAMESPACE) == {}


def test_a_policy_that_never_was_valid_decides_nothing_until_it_is() -> None:
    world = a_world()
    world.policy("all", unreadyAfterSeconds=-3)
    assert world.view.policies() == ()
    world.policy("all")
    assert [policy.name for policy in world.view.policies()] == ["all"]


def test_a_policy_created_again_does_not_inherit_the_behaviour_of_its_namesake() -> None:
    world = a_world()
    world.policy("all")
    body = {"metadata": {"name": "all", "uid": "another"}, "spec": {"mode": "Odd"}}
    world.take(Kind.POLICY, body)
    assert world.view.policies() == ()
