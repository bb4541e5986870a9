"""Which pairs are gone, case by case: what a cluster goes through, and what the index says of it.

Each case starts from Service `a` (10.96.0.1:80) with the ready backends X = 10.0.0.1:8080 and
Y = 10.0.0.2:8080 in slice `a-1`, and expects exactly the pairs that are gone in the end.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address

import pytest

from tests.unit.core.world import World, down, leaving, up

Case = Callable[[World], object]
Pairs = set[tuple[str, str]]

A, B = "10.96.0.1:80", "10.96.0.2:80"
X, Y, Z = "10.0.0.1:8080", "10.0.0.2:8080", "10.0.0.3:8080"
X_UP, Y_UP, Z_UP = up("10.0.0.1"), up("10.0.0.2"), up("10.0.0.3")
SHARED = {"externalIPs": ["192.0.2.7"]}
S = "192.0.2.7:80"


@pytest.fixture
def world() -> World:
    made = World()
    made.service("a")
    made.slice("a-1", X_UP, Y_UP)
    assert made.gone() == set()
    made.wait(5)
    return made


def removed_then_served_by_another_service(world: World) -> None:
    world.slice("a-1", Y_UP)
    world.service("b", ips=["10.96.0.2"])
    world.slice("b-1", X_UP, service="b")


def removed_and_back(world: World) -> None:
    world.slice("a-1", Y_UP)
    world.wait(3)
    world.slice("a-1", X_UP, Y_UP)


def never_seen_before(world: World) -> None:
    world.slice("b-1", Z_UP, service="b")
    world.service("b", ips=["10.96.0.2"])


def moved_between_slices(world: World) -> None:
    world.slice("a-1", Y_UP)
    world.slice("a-2", X_UP)


def one_of_two_slices_deleted(world: World) -> None:
    world.slice("a-2", Z_UP)
    world.delete_slice("a-1")


def listed_twice_and_one_slice_deleted(world: World) -> None:
    world.slice("a-2", X_UP, Y_UP)
    world.delete_slice("a-1")


def service_deleted(world: World) -> None:
    world.delete_service("a")
    world.delete_slice("a-1")


def service_deleted_after_its_slices(world: World) -> None:
    world.delete_slice("a-1")
    world.wait(1)
    world.delete_service("a")


def scaled_to_zero(world: World) -> None:
    world.slice("a-1")


def selector_emptied(world: World) -> None:
    world.delete_slice("a-1")


def in_two_services(world: World) -> None:
    world.service("b", ips=["10.96.0.2"])
    world.slice("b-1", X_UP, service="b")
    world.slice("a-1", Y_UP)


def one_of_two_ports_dropped(world: World) -> None:
    both = {"http": 80, "admin": 81}
    world.service("a", ports=both)
    world.slice("a-1", X_UP, ports={"http": 8080, "admin": 8081})
    world.slice("a-2", Y_UP)
    world.service("a")
    world.slice("a-1", X_UP)


def target_port_changed(world: World) -> None:
    world.slice("a-1", X_UP, Y_UP, ports={"http": 9090})


def load_balancer_address_changed(world: World) -> None:
    world.service("a", externalIPs=["192.0.2.1"])
    world.service("a", externalIPs=["192.0.2.2"])


def node_port_dropped(world: World) -> None:
    world.service("a", node_ports={"http": 30080})
    world.service("a")


def frontend_dropped_and_back(world: World) -> None:
    world.service("a", **SHARED)
    world.service("a")
    world.service("a", **SHARED)


def headless(world: World) -> None:
    world.service("h", ips=[])
    world.slice("h-1", Z_UP, service="h")
    world.slice("h-1", service="h")


def external_name(world: World) -> None:
    world.service("a", type="ExternalName", externalName="elsewhere.example")


def handed_to_another_proxy(world: World) -> None:
    label = {"service.kubernetes.io/service-proxy-name": "other"}
    world.slice("a-1", X_UP, Y_UP, labels=label)
    world.service("a", labels=label)


def without_selector(world: World) -> None:
    world.service("ext", ips=["10.96.0.9"])
    world.slice("ext-hand-made", up("203.0.113.5", node=""), service="ext", ports={"http": 443})
    world.slice("ext-hand-made", service="ext", ports={"http": 443})


def unknown_frontend(world: World) -> None:
    world.slice("b-1", Z_UP, service="b")
    world.slice("b-1", service="b")


def port_renamed_service_first(world: World) -> None:
    world.service("a", ports={"web": 80})
    world.slice("a-1", X_UP, Y_UP, ports={"web": 8080})


def port_renamed_slice_first(world: World) -> None:
    world.slice("a-1", X_UP, Y_UP, ports={"web": 8080})
    world.service("a", ports={"web": 80})


def port_renamed_only_in_the_service_so_far(world: World) -> None:
    world.service("a", ports={"web": 80})


def port_renamed_only_in_the_slice_so_far(world: World) -> None:
    world.slice("a-1", X_UP, Y_UP, ports={"web": 8080})


def port_renamed_and_a_backend_removed(world: World) -> None:
    world.service("a", ports={"web": 80})
    world.slice("a-1", Y_UP, ports={"web": 8080})


def recreated_with_the_same_address(world: World) -> None:
    world.delete_service("a")
    world.delete_slice("a-1")
    world.service("a")
    world.slice("a-2", X_UP, Y_UP)


def recreated_under_another_name(world: World) -> None:
    world.delete_service("a")
    world.service("a2")
    world.slice("a2-1", X_UP, service="a2")
    world.delete_slice("a-1")


def shared_address_still_leads_there(world: World) -> None:
    world.service("a", **SHARED)
    world.service("b", ips=["10.96.0.2"], **SHARED)
    world.slice("b-1", X_UP, service="b")
    world.slice("a-1", Y_UP)


def shared_address_and_the_last_service_lets_go(world: World) -> None:
    shared_address_still_leads_there(world)
    world.delete_service("b")


def selector_switched(world: World) -> None:
    world.slice("a-1", Z_UP)


def on_the_network_of_its_node(world: World) -> None:
    world.index.set_node_addresses(frozenset({ip_address("10.0.0.1")}))
    world.slice("a-1")


def moved_to_another_service(world: World) -> None:
    world.slice("a-1", Y_UP)
    world.service("b", ips=["10.96.0.2"])
    world.slice("b-1", X_UP, service="b")
    world.wait(20)


def slice_moved_to_another_service(world: World) -> None:
    world.service("b", ips=["10.96.0.2"])
    world.slice("a-1", X_UP, Y_UP, service="b")


def address_in_use_by_two_pods_and_one_goes(world: World) -> None:
    world.slice("a-1", X_UP, leaving("10.0.0.1"), Y_UP)
    world.slice("a-1", X_UP, Y_UP)


def both_families(world: World) -> None:
    world.service("a", ips=["10.96.0.1", "fd00::1"], node_ports={"http": 30080})
    world.slice("a-6", up("fd00:1::1"), address_type="IPv6")
    world.slice("a-6", address_type="IPv6")


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        pytest.param(
            removed_then_served_by_another_service,
            {(A, X)},
            id="H1: the IP already serves another Service: only the old Service's frontend",
        ),
        pytest.param(removed_and_back, set(), id="H2: it came back: nothing"),
        pytest.param(never_seen_before, set(), id="H3: what was never in is not gone"),
        pytest.param(moved_between_slices, set(), id="H6: an endpoint moves between slices"),
        pytest.param(
            one_of_two_slices_deleted, {(A, X), (A, Y)}, id="H6: one slice of several deleted"
        ),
        pytest.param(
            listed_twice_and_one_slice_deleted, set(), id="H6: still listed by another slice"
        ),
        pytest.param(service_deleted, {(A, X), (A, Y)}, id="H7: Service deleted"),
        pytest.param(
            service_deleted_after_its_slices, {(A, X), (A, Y)}, id="H7: Service deleted last"
        ),
        pytest.param(scaled_to_zero, {(A, X), (A, Y)}, id="H7: scaled to zero"),
        pytest.param(selector_emptied, {(A, X), (A, Y)}, id="H7: selector emptied"),
        pytest.param(in_two_services, {(A, X)}, id="H8: in two Services and left one"),
        pytest.param(
            one_of_two_ports_dropped,
            {("10.96.0.1:81", "10.0.0.1:8081")},
            id="H8: one of two ports dropped",
        ),
        pytest.param(target_port_changed, {(A, X), (A, Y)}, id="H8: targetPort changed"),
        pytest.param(
            load_balancer_address_changed,
            {("192.0.2.1:80", X), ("192.0.2.1:80", Y)},
            id="H9: an external address is taken away: its own pairs only",
        ),
        pytest.param(
            node_port_dropped, {("*:30080", X), ("*:30080", Y)}, id="H9: nodePort taken away"
        ),
        pytest.param(frontend_dropped_and_back, set(), id="H9: an external address came back"),
        pytest.param(headless, set(), id="H10: headless"),
        pytest.param(external_name, {(A, X), (A, Y)}, id="H10: turned into ExternalName"),
        pytest.param(handed_to_another_proxy, set(), id="H10: handed to another proxy"),
        pytest.param(
            without_selector,
            {("10.96.0.9:80", "203.0.113.5:443")},
            id="H11: slices without a selector: the same rules",
        ),
        pytest.param(unknown_frontend, set(), id="H12: no known frontend leads there"),
        pytest.param(
            both_families,
            {("[fd00::1]:80", "[fd00:1::1]:8080"), ("*:30080", "[fd00:1::1]:8080")},
            id="H14: families do not mix, a nodePort has both",
        ),
        pytest.param(port_renamed_service_first, set(), id="H20: port renamed, Service first"),
        pytest.param(port_renamed_slice_first, set(), id="H20: port renamed, slice first"),
        pytest.param(
            port_renamed_only_in_the_service_so_far, set(), id="H20: renamed in the Service alone"
        ),
        pytest.param(
            port_renamed_only_in_the_slice_so_far, set(), id="H20: renamed in the slice alone"
        ),
        pytest.param(
            port_renamed_and_a_backend_removed, {(A, X)}, id="H20: port renamed, and one removed"
        ),
        pytest.param(
            recreated_with_the_same_address, set(), id="H20: Service re-created, same address"
        ),
        pytest.param(
            recreated_under_another_name,
            {(A, Y)},
            id="H20: another Service took the address over, with one of the backends",
        ),
        pytest.param(
            shared_address_still_leads_there,
            {(A, X)},
            id="H20: two Services with one external IP: the other one still leads there",
        ),
        pytest.param(
            shared_address_and_the_last_service_lets_go,
            {(A, X), (S, X), (B, X)},
            id="H20: two Services with one external IP: until the last one lets go",
        ),
        pytest.param(selector_switched, {(A, X), (A, Y)}, id="H21: selector switched"),
        pytest.param(on_the_network_of_its_node, {(A, Y)}, id="H23: hostNetwork"),
        pytest.param(moved_to_another_service, {(A, X)}, id="H24: pod moved to another Service"),
        pytest.param(
            slice_moved_to_another_service,
            {(A, X), (A, Y)},
            id="H24: a whole slice moved to another Service",
        ),
        pytest.param(
            address_in_use_by_two_pods_and_one_goes, set(), id="one of two pods with one address"
        ),
    ],
)
def test_what_is_gone(world: World, case: Case, expected: Pairs) -> None:
    case(world)

    assert world.removed() == expected
    assert world.unready() == set()


def replica_serves_while_terminating(world: World) -> None:
    world.slice("a-1", leaving("10.0.0.1"), leaving("10.0.0.2"))


def one_terminates_beside_a_ready_one(world: World) -> None:
    world.slice("a-1", leaving("10.0.0.1"), Y_UP)


def last_ready_one_goes(world: World) -> None:
    one_terminates_beside_a_ready_one(world)
    world.wait(3)
    world.slice("a-1", leaving("10.0.0.1"), down("10.0.0.2"))


def published_though_not_ready(world: World) -> None:
    world.slice("a-1", up("10.0.0.1", serving=False), Y_UP)


def terminating_without_serving(world: World) -> None:
    world.slice("a-1", leaving("10.0.0.1", serving=False), Y_UP)


def local_and_alone_on_its_node(world: World) -> None:
    world.service("a", externalTrafficPolicy="Local")
    world.slice("a-1", leaving("10.0.0.1", node="node1"), up("10.0.0.2", node="node2"))


def local_beside_a_ready_one(world: World) -> None:
    world.service("a", externalTrafficPolicy="Local")
    world.slice("a-1", leaving("10.0.0.1", node="node1"), up("10.0.0.2", node="node1"))


def no_more_local(world: World) -> None:
    local_and_alone_on_its_node(world)
    world.service("a")


def node_lost(world: World) -> None:
    world.slice("a-1", down("10.0.0.1"), Y_UP)


def node_back(world: World) -> None:
    node_lost(world)
    world.wait(60)
    world.slice("a-1", X_UP, Y_UP)


def ready_only_in_the_other_family(world: World) -> None:
    world.slice("a-1", leaving("10.0.0.1"), leaving("10.0.0.2"))
    world.slice("a-6", up("fd00:1::1"), address_type="IPv6")


def unready_in_one_service_of_a_shared_address(world: World) -> None:
    world.service("a", **SHARED)
    world.service("b", ips=["10.96.0.2"], **SHARED)
    world.slice("b-1", X_UP, service="b")
    world.slice("a-1", down("10.0.0.1"), Y_UP)


def unready_by_one_slice_ready_by_another(world: World) -> None:
    world.slice("a-2", down("10.0.0.1"))


def unready_on_the_network_of_its_node(world: World) -> None:
    on_the_network_of_its_node(world)
    world.slice("a-1", down("10.0.0.1"))
    world.slice("a-2", Y_UP)


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        pytest.param(
            replica_serves_while_terminating, set(), id="H4: serve while terminating, none ready"
        ),
        pytest.param(
            one_terminates_beside_a_ready_one, {(A, X)}, id="H4: terminating beside a ready one"
        ),
        pytest.param(
            last_ready_one_goes, {(A, Y)}, id="H4: with the last ready one the fallback begins"
        ),
        pytest.param(published_though_not_ready, set(), id="H4: publishNotReadyAddresses"),
        pytest.param(
            terminating_without_serving, {(A, X)}, id="H4: terminating and failing its probe"
        ),
        pytest.param(local_and_alone_on_its_node, set(), id="H5: Local: none ready on its node"),
        pytest.param(local_beside_a_ready_one, {(A, X)}, id="H5: Local: another on its node is"),
        pytest.param(no_more_local, {(A, X)}, id="H5: policy Local given up"),
        pytest.param(ready_only_in_the_other_family, set(), id="H14: each family by itself"),
        pytest.param(node_lost, {(A, X)}, id="H22: node lost"),
        pytest.param(node_back, set(), id="H22: node back"),
        pytest.param(
            unready_in_one_service_of_a_shared_address,
            {(A, X)},
            id="H20: not ready in one of two Services with one external IP",
        ),
        pytest.param(
            unready_by_one_slice_ready_by_another, set(), id="H6: two slices disagree: it serves"
        ),
        pytest.param(unready_on_the_network_of_its_node, set(), id="H23: hostNetwork, not ready"),
    ],
)
def test_what_no_kube_proxy_would_choose(world: World, case: Case, expected: Pairs) -> None:
    case(world)
    world.wait(30)

    assert world.unready() == expected
    # Listed is valid, whatever its conditions: being unready is another reason, with a delay.
    assert all(
        world.index.is_valid(frontend, one.backend)
        for one in world.index.gone(now=world.now)
        for frontend in one.frontends
        if str(one.backend) in {backend for _, backend in expected}
    )
