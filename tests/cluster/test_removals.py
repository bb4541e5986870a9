"""Every way a backend goes: its half-open entries go too, on all nodes, in time, and no others.

Packets to the backend are lost on the way before it is removed, so that half-open entries to it are
certain. What must stay is watched beside it: the oracle of conftest.py hears of every deletion.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.cluster import installation, workloads
from tests.cluster.observers import eventually
from tests.cluster.shop import (
    CLIENT_NODES,
    FLOWS,
    IN_TIME,
    SURVIVOR_NODE,
    VICTIM_NODE,
    Shop,
    lost,
    stale,
    wait_stuck,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.cluster.observers import Lines
    from tests.cluster.oracle import Condemned, Oracle

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

QUIET = 2.5  # seconds: longer than kube-proxy may lag (1 s) and a SYN may take to come again (1 s)
UNREADY_AFTER = 10  # policy cluster-default, by the schema's default


@dataclass(slots=True)
class Removals:
    """Plays removals in a shop."""

    shop: Shop
    oracle: Oracle

    def pod(
        self, name: str, app: str, node: int = VICTIM_NODE, grace: int = 0
    ) -> workloads.Backend:
        return workloads.Backend(
            name=name, app=app, node=self.shop.cluster.node(node).name, grace=grace
        )

    def pair(self, app: str) -> tuple[str, ...]:
        """Open a Service over a victim and a survivor; give the victim's IPs."""
        self.shop.open_service(
            workloads.service(app, self.shop.name, app=app),
            self.pod(f"{app}-victim", app),
            self.pod(f"{app}-survivor", app, SURVIVOR_NODE),
        )
        return self.shop.ips_of(f"{app}-victim")[:1]

    def deployment(self, app: str, replicas: int) -> tuple[str, ...]:
        """Open a Service over a Deployment; give the IPs of its pods."""
        self.shop.apply(
            workloads.service(app, self.shop.name, app=app),
            self.pod(app, app, grace=1).deployment(self.shop.name, replicas=replicas),
        )
        eventually(
            lambda: len(self.shop.endpoints(app, ready=True)) == replicas, 30, f"pods of {app}"
        )
        return tuple(sorted(self.shop.endpoints(app)))

    def named(self, service: str, frontend: str) -> list[Condemned]:
        """Give what cleanups have said of a Service's address."""
        everything = self.oracle.condemned(self.shop.name, service)
        return [each for each in everything if each.frontend[0] == frontend]

    def wait_stuck(self, gone: Sequence[str]) -> None:
        wait_stuck([self.shop.cluster.node(node) for node in CLIENT_NODES], gone)

    def play(self, service: str, gone: Sequence[str], remove: Callable[[], object]) -> float:
        """Remove while clients are stuck; hold it to the promise; give when it was removed."""
        frontend = self.shop.frontends(service)[0]
        with lost(self.shop.cluster, *gone), self.shop.clients(frontend) as clients:
            self.wait_stuck(gone)
            remove()
            self.shop.wait_left(service, gone)
            removed_at = time.monotonic()
            self.cleaned_in_time(gone)
            if self.shop.endpoints(service, ready=True):
                self.all_answered(clients, since=removed_at)
        named = self.named(service, frontend)
        assert {each.backend[0] for each in named} == set(gone)
        return removed_at

    def cleaned_in_time(self, gone: Sequence[str]) -> None:
        """Wait until no node has half-open entries to them, and none comes again."""
        nodes = self.shop.cluster.nodes
        eventually(lambda: not stale(nodes, gone), IN_TIME, f"no half-open entries to {gone}")
        ends_at = time.monotonic() + IN_TIME
        clean_since = time.monotonic()
        while time.monotonic() < clean_since + QUIET:
            left = stale(nodes, gone)
            assert not left or time.monotonic() < ends_at, f"still there: {left}"
            clean_since = time.monotonic() if left else clean_since
            time.sleep(0.1)

    def all_answered(self, clients: dict[int, Lines], *, since: float) -> None:
        """Wait until every flow has had an answer after the removal: the survivor's."""
        for node, lines in clients.items():

            def served(lines: Lines = lines) -> bool:
                answers = [each for each in list(lines.lines) if each.get("event") == "response"]
                return len({each["flow"] for each in answers if each["t"] > since}) == FLOWS

            eventually(served, IN_TIME, f"the survivor to answer every flow from node{node}")


@pytest.fixture
def removals(shop: Shop, oracle: Oracle) -> Removals:
    return Removals(shop, oracle)


def test_a_force_deleted_pod(removals: Removals) -> None:
    gone = removals.pair("forced")
    removals.play("forced", gone, lambda: removals.shop.force_delete("forced-victim"))


def test_a_deleted_deployment(removals: Removals) -> None:
    gone = removals.deployment("undeployed", 2)
    removals.play(
        "undeployed",
        gone,
        lambda: removals.shop.kubectl("delete", "deployment", "undeployed", "--wait=false"),
    )


def test_a_deployment_scaled_to_zero(removals: Removals) -> None:
    gone = removals.deployment("scaled", 2)
    removals.play(
        "scaled",
        gone,
        lambda: removals.shop.kubectl("scale", "deployment", "scaled", "--replicas=0"),
    )


def test_a_deleted_service_whose_pods_live_on(removals: Removals) -> None:
    shop, pods = removals.shop, ("closed-1", "closed-2")
    service = workloads.service("closed", shop.name, app="closed")
    shop.open_service(service, *(removals.pod(name, "closed") for name in pods))
    gone = [shop.ips_of(pod)[0] for pod in pods]
    removals.play("closed", gone, lambda: shop.kubectl("delete", "service", "closed"))


def test_a_selector_switched_from_blue_to_green_takes_only_entries_older_than_a_second(
    removals: Removals,
) -> None:
    shop = removals.shop
    shop.open_service(
        workloads.service("colour", shop.name, app="blue"), removals.pod("blue", "blue")
    )
    shop.apply(removals.pod("green", "green", SURVIVOR_NODE).pod(shop.name))
    shop.wait_ready("green")
    blue = shop.ips_of("blue")[:1]
    patch = '{"spec": {"selector": {"app": "green"}}}'
    removals.play("colour", blue, lambda: shop.kubectl("patch", "service", "colour", "-p", patch))
    ages = [
        120 - each.seen.timeout
        for each in removals.oracle.deletions()
        if each.seen.backend[0] in blue
    ]
    assert ages
    assert min(ages) >= 2, "a computed age of 2 means more than 1 s"


def test_a_manual_slice_of_addresses_that_are_no_pods(removals: Removals) -> None:
    shop, gone = removals.shop, "198.51.100.7"
    shop.apply(
        workloads.service("manual", shop.name, app=""),
        workloads.slice_of("manual", shop.name, gone),
    )
    empty = workloads.slice_of("manual", shop.name)
    removals.play("manual", [gone], lambda: shop.apply(empty))


def test_the_only_replica_is_kept_while_it_serves_on_and_cleaned_when_it_is_gone(
    removals: Removals,
) -> None:
    shop = removals.shop
    last = workloads.Backend(
        name="last", app="last", node=shop.cluster.node(VICTIM_NODE).name, grace=4, stubborn=True
    )
    shop.open_service(workloads.service("last", shop.name, app="last"), last)
    gone = shop.ips_of("last")[:1]
    named: list[float] = []

    def remove() -> None:
        shop.kubectl("delete", "pod", "last", "--wait=false")
        eventually(lambda: not shop.endpoints("last", ready=True), 10, "the endpoint not ready")
        ends_at = time.monotonic() + 2
        while time.monotonic() < ends_at:  # kube-proxy falls back to it: it is not gone yet
            named.extend(each.named_at for each in removals.oracle.condemned(shop.name, "last"))
            assert stale([shop.cluster.node(1)], gone)
            time.sleep(0.2)

    removed_at = removals.play("last", gone, remove)
    assert not named
    first = min(each.named_at for each in removals.oracle.condemned(shop.name, "last"))
    assert first > removed_at - 1, "named when it had left the slices, not when it began to end"


def test_a_renamed_port_condemns_nothing(removals: Removals) -> None:
    shop = removals.shop
    kept = removals.pair("renamed")
    patch = '[{"op": "replace", "path": "/spec/ports/0/name", "value": "web"}]'
    with lost(shop.cluster, *kept), shop.clients(shop.frontends("renamed")[0]):
        removals.wait_stuck(kept)
        before = {seen.number for seen in stale([shop.cluster.node(1)], kept)["node1"]}
        shop.kubectl("patch", "service", "renamed", "--type=json", "-p", patch)
        eventually(lambda: shop_port_name(shop, "renamed") == "web", 10, "the slice to follow")
        time.sleep(QUIET)
        after = {seen.number for seen in stale([shop.cluster.node(1)], kept)["node1"]}
    assert before <= after
    assert removals.oracle.condemned(shop.name, "renamed") == []


def shop_port_name(shop: Shop, service: str) -> str:
    """Give the name of the port in the Service's slice."""
    (each,) = shop.get("endpointslices", "-l", f"kubernetes.io/service-name={service}")["items"]
    return str(each["ports"][0]["name"])


def test_a_service_deleted_and_created_again_with_the_same_address_keeps_its_backends(
    removals: Removals,
) -> None:
    shop = removals.shop
    kept = removals.pair("again")
    address = shop.frontends("again")[0]
    service = workloads.service("again", shop.name, app="again", cluster_ip=address)
    with lost(shop.cluster, *kept), shop.clients(address):
        removals.wait_stuck(kept)
        shop.kubectl("delete", "service", "again")
        shop.apply(service)
        eventually(lambda: set(kept) <= shop.endpoints("again", ready=True), 20, "its endpoints")
        back_at = time.monotonic()
        removals.wait_stuck(kept)
        time.sleep(QUIET)
        assert stale([shop.cluster.node(1)], kept), "half-open to a backend that serves: kept"
    late = [each for each in removals.oracle.deletions() if each.at > back_at + 1]
    assert not [each for each in late if each.seen.backend[0] in kept]


@pytest.mark.usefixtures("operator_may_restart")
def test_a_node_without_power_is_cleaned_after_ten_seconds_of_being_unready(
    removals: Removals,
) -> None:
    shop, node = removals.shop, removals.shop.cluster.node(VICTIM_NODE)
    installation.move_controller_from(shop.cluster, node.name)  # one replica: not with its node
    gone = removals.pair("dark")
    with lost(shop.cluster, *gone), shop.clients(shop.frontends("dark")[0]) as clients:
        removals.wait_stuck(gone)
        node.power_off()
        try:
            eventually(
                lambda: not shop.endpoints("dark", ready=True) & set(gone),
                60,
                "the control plane to give the node up",
            )
            unready_at = time.monotonic()
            others = [shop.cluster.node(index) for index in CLIENT_NODES]
            eventually(
                lambda: not stale(others, gone),
                UNREADY_AFTER + IN_TIME,
                "no half-open entries to the lost node",
            )
            removals.all_answered(clients, since=unready_at)
        finally:
            node.power_on()
            removals.oracle.watch(node)
            shop.cluster.wait_ready()
    named = removals.oracle.condemned(shop.name, "dark")
    assert {each.backend[0] for each in named} == set(gone)
    assert min(each.named_at for each in named) >= unready_at + UNREADY_AFTER - 1
    assert {each.reason for each in named} >= {"EndpointUnready"}
