"""Wherever a client is: its half-open entries to a backend that is gone are on its node, and go.

One removal, with clients of every kind at once; each test looks at what one of them had before it
and what it has after it.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.cluster import workloads
from tests.cluster.observers import entries, eventually
from tests.cluster.shop import IN_TIME, SURVIVOR_NODE, VICTIM_NODE, connect, deafen, stale

if TYPE_CHECKING:
    from tests.cluster.observers import Lines, Place
    from tests.cluster.shop import Shop
    from tests.rig.node import Node

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

SHOP_CLIENTS = (1, VICTIM_NODE)
FAMILIES = ("IPv4", "IPv6")
PORTS = {"http": (80, 8080), "alt": (81, 8081)}  # the Service's and the backend's
NODE_PORTS = {"http": 30180, "alt": 30181}
KINDS = ("a pod on another node", "a pod on the same node", "a node", "a client outside")
FEW = ("--flows", "8", "--again", "--requests", "1", "--every", "0.05")

Client = tuple[str, str, str]  # kind, family, name of the port


@dataclass(frozen=True, slots=True, kw_only=True)
class Spot:
    """Where a client runs, on which node its entries are, and what it connects to."""

    place: Place
    node: Node
    source: str
    frontend: tuple[str, int]

    def stuck(self, gone: tuple[str, ...]) -> int:
        """Count its half-open entries to backends."""
        return sum(
            seen.half_open and seen.client[0] == self.source and seen.backend[0] in gone
            for seen in entries(self.node, frontend=self.frontend[0])
            if seen.frontend == self.frontend
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """What each client had on its node before the removal and after it, and who answered then."""

    before: dict[Client, int]
    after: dict[Client, int]
    answered: dict[Client, set[str]]


def spots_of(shop: Shop) -> dict[Client, Spot]:
    """Place a client of every kind for each family and port."""
    cluster = shop.cluster
    node, beside = cluster.node(1), cluster.node(VICTIM_NODE)
    listing = cluster.outside.run("ip", "-6", "-br", "addr", "show", "eth0", "scope", "global")
    outside = (cluster.outside.ip, listing.stdout.split()[2].partition("/")[0])
    inside = shop.frontends("web")
    rows: tuple[tuple[Place, Node, tuple[str, ...], tuple[str, ...]], ...] = (
        (shop.client(1), node, shop.ips_of("client1"), inside),
        (shop.client(VICTIM_NODE), beside, shop.ips_of(f"client{VICTIM_NODE}"), inside),
        (node, node, node.addresses, inside),
        (cluster.outside, node, outside, node.addresses),
    )
    return {
        (kind, family, name): Spot(
            place=place,
            node=where,
            source=sources[index],
            frontend=(to[index], NODE_PORTS[name] if to is node.addresses else PORTS[name][0]),
        )
        for kind, (place, where, sources, to) in zip(KINDS, rows, strict=True)
        for index, family in enumerate(FAMILIES)
        for name in PORTS
    }


def open_web(shop: Shop) -> tuple[str, ...]:
    """Open a Service of two ports and two families; its victim hears no SYN. Give its IPs."""
    service = workloads.service(
        "web", shop.name, app="web", ports=PORTS, kind="NodePort", dual_stack=True
    )
    for port in service["spec"]["ports"]:
        port["nodePort"] = NODE_PORTS[port["name"]]
    targets = tuple(target for _, target in PORTS.values())
    victim, survivor = (
        workloads.Backend(
            name=name,
            app="web",
            node=shop.cluster.node(node).name,
            grace=0,
            ports=targets,
            probe="none",
        )
        for name, node in (("victim", VICTIM_NODE), ("survivor", SURVIVOR_NODE))
    )
    shop.open_service(service, victim, survivor)
    for target in targets:
        deafen(shop.network("victim", VICTIM_NODE), port=target)
    return shop.ips_of("victim")


@pytest.fixture(scope="module")
def played(shop: Shop) -> Played:
    """Play the removal."""
    gone = open_web(shop)
    spots = spots_of(shop)
    with ExitStack() as stack:
        lines: dict[Client, Lines] = {}
        for client, spot in spots.items():
            address, port = spot.frontend
            told = connect(spot.place, address, port=port, options=FEW)
            lines[client] = stack.enter_context(told)
        eventually(
            lambda: all(spot.stuck(gone) for spot in spots.values()), 30, "every client to be stuck"
        )
        before = {client: spot.stuck(gone) for client, spot in spots.items()}
        shop.force_delete("victim")
        shop.wait_left("web", gone)
        removed_at = time.monotonic()
        eventually(lambda: not stale(shop.cluster.nodes, gone), IN_TIME, "no half-open entries")
        answered: dict[Client, set[str]] = {}

        def all_answered() -> bool:
            for client, told in lines.items():
                late = [line for line in list(told.lines) if line["t"] > removed_at]
                answered[client] = {line["who"] for line in late if line["event"] == "response"}
            return all(answered.values())

        eventually(all_answered, IN_TIME, "an answer for every client")
        after = {client: spot.stuck(gone) for client, spot in spots.items()}
    return Played(before=before, after=after, answered=answered)


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
def test_half_open_entries_of_a_client_are_on_its_node_and_go(
    played: Played, kind: str, family: str, port: str
) -> None:
    client = (kind, family, port)
    assert played.before[client] > 0
    assert played.after[client] == 0
    assert played.answered[client] == {"survivor"}
