"""What must stay, while a cleanup is live and the helpers sweep for it.

Each test makes entries that look as much as can be like those that a cleanup is about, has the
node swept with the cleanup live, and finds them as they were: the same conntrack ids.
"""

from __future__ import annotations

import re
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.cluster import workloads
from tests.cluster.observers import Lines, Seen, eventually
from tests.cluster.shop import (
    SURVIVOR_NODE,
    VICTIM_NODE,
    Shop,
    connect,
    deafen,
    lost,
    stale,
    wait_stuck,
)
from tests.cluster.sweeping import have_swept, numbers, wait_condemned, wait_numbers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.oracle import Oracle

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

STEADY = ("--flows", "4", "--every", "0.2")  # a connection each, kept for good


def backend(shop: Shop, name: str, app: str, node: int = VICTIM_NODE) -> workloads.Backend:
    """Make a backend that stays ready whatever happens to its network."""
    return workloads.Backend(
        name=name, app=app, node=shop.cluster.node(node).name, grace=0, probe="none"
    )


def condemn(shop: Shop, oracle: Oracle, service: str, *victims: str) -> tuple[str, ...]:
    """Force-delete backends of a Service and wait for their cleanup; gives their IPs."""
    gone = tuple(shop.ips_of(victim)[0] for victim in victims)
    shop.force_delete(*victims)
    shop.wait_left(service, gone)
    wait_condemned(shop, oracle, service, gone)
    return gone


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


def test_flows_of_the_same_service_to_backends_that_live(
    shop: Shop, oracle: Oracle, stack: ExitStack
) -> None:
    node = shop.cluster.node(1)
    shop.open_service(
        workloads.service("mixed", shop.name, app="mixed"),
        backend(shop, "mixed-victim", "mixed"),
        backend(shop, "mixed-deaf", "mixed"),
        backend(shop, "mixed-survivor", "mixed", SURVIVOR_NODE),
    )
    deaf, fine = shop.ips_of("mixed-deaf")[0], shop.ips_of("mixed-survivor")[0]
    deafen(shop.network("mixed-deaf", VICTIM_NODE))
    frontend = shop.frontends("mixed")[0]
    stack.enter_context(connect(shop.client(1), frontend, options=("--flows", "30")))

    def half_open(seen: Seen) -> bool:
        return seen.half_open and seen.backend[0] == deaf

    def established(seen: Seen) -> bool:
        return seen.state == "ESTABLISHED" and seen.backend[0] == fine

    before = wait_numbers(node, half_open, "half-open entries to the deaf one")
    before |= wait_numbers(node, established, "established flows to the survivor")
    condemn(shop, oracle, "mixed", "mixed-victim")
    have_swept(node)
    assert before <= numbers(node, half_open) | numbers(node, established)
    assert numbers(node, half_open)


def test_flows_of_another_service_to_the_ip_that_was_used_again(
    shop: Shop, oracle: Oracle, stack: ExitStack
) -> None:
    near, far, home = (shop.cluster.node(index) for index in (1, 3, VICTIM_NODE))
    home.limit_pod_ips([f"{home.pod_cidr.rsplit('.', 1)[0]}.99"])
    stack.callback(home.limit_pod_ips, ())
    shop.open_service(
        workloads.service("first", shop.name, app="first"), backend(shop, "first", "first")
    )
    shop.apply(workloads.service("next", shop.name, app="next"))
    address = shop.ips_of("first")[0]
    with lost(shop.cluster, address), connect(shop.client(1), shop.frontends("first")[0]):
        wait_stuck([near], [address])
        condemn(shop, oracle, "first", "first")
        eventually(lambda: not stale([near], [address]), 10, "the old entries to go")
    shop.kubectl("wait", "--for=delete", "pod/first", "--timeout=30s")
    shop.open_service(
        workloads.service("next", shop.name, app="next"), backend(shop, "next", "next")
    )
    assert shop.ips_of("next")[0] == address
    deafen(shop.network("next", VICTIM_NODE), source=shop.ips_of("client3")[0])
    frontend = shop.frontends("next")[0]
    for index in (1, 3):
        stack.enter_context(connect(shop.client(index), frontend, options=STEADY))

    def through_next(seen: Seen) -> bool:
        return seen.backend[0] == address and seen.frontend[0] == frontend

    answered = wait_numbers(
        near, lambda seen: through_next(seen) and seen.state == "ESTABLISHED", "established flows"
    )
    waiting = wait_numbers(
        far, lambda seen: through_next(seen) and seen.half_open, "half-open entries"
    )
    have_swept(near, far)
    assert answered <= numbers(near, through_next)
    assert waiting <= numbers(far, through_next)


def test_flows_straight_to_a_pod_that_left_its_service(
    shop: Shop, oracle: Oracle, stack: ExitStack
) -> None:
    near, far = shop.cluster.node(1), shop.cluster.node(3)
    shop.open_service(
        workloads.service("left", shop.name, app="left"), backend(shop, "left", "left")
    )
    address = shop.ips_of("left")[0]
    deafen(shop.network("left", VICTIM_NODE), source=shop.ips_of("client3")[0])
    for index in (1, 3):
        direct = connect(shop.client(index), address, port=8080, options=STEADY)
        stack.enter_context(direct)

    def straight(seen: Seen) -> bool:
        return seen.frontend == seen.backend == (address, 8080)

    answered = wait_numbers(near, lambda s: straight(s) and s.state == "ESTABLISHED", "flows")
    waiting = wait_numbers(far, lambda s: straight(s) and s.half_open, "half-open entries")
    shop.kubectl("label", "pod", "left", "app=gone", "--overwrite")
    wait_condemned(shop, oracle, "left", [address])
    have_swept(near, far)
    assert answered <= numbers(near, straight)
    assert waiting <= numbers(far, straight)


def test_a_backend_that_serves_while_it_terminates_in_a_service_without_ready_ones(
    shop: Shop, oracle: Oracle, stack: ExitStack
) -> None:
    node, grace = shop.cluster.node(1), 8
    last = workloads.Backend(
        name="polite", app="polite", node=shop.cluster.node(VICTIM_NODE).name, grace=grace,
        stubborn=True,
    )  # fmt: skip
    shop.open_service(
        workloads.service("polite", shop.name, app="polite"),
        last,
        backend(shop, "polite-other", "polite"),
    )
    address, frontend = shop.ips_of("polite")[0], shop.frontends("polite")[0]
    condemn(shop, oracle, "polite", "polite-other")  # so that a cleanup of this Service is live
    told = stack.enter_context(connect(shop.client(1), frontend, options=STEADY))
    eventually(lambda: [each for each in told.lines if each.get("who")], 20, "answers")

    def established(seen: Seen) -> bool:
        return seen.state == "ESTABLISHED" and seen.backend[0] == address

    before = wait_numbers(node, established, "established flows")
    shop.kubectl("delete", "pod", "polite", "--wait=false")
    eventually(lambda: not shop.endpoints("polite", ready=True), 5, "it is not ready any more")
    late = stack.enter_context(connect(shop.client(1), frontend, options=STEADY))
    late.wait_for(lambda line: line.get("who") == "polite", 5)
    have_swept(node)
    assert shop.endpoints("polite") == {address}, "all this while it was terminating"
    assert before <= numbers(node, established)
    assert address not in {each.backend[0] for each in oracle.condemned(shop.name, "polite")}


def test_a_backend_in_the_hosts_network_is_never_condemned(
    shop: Shop, oracle: Oracle, stack: ExitStack
) -> None:
    node, home = shop.cluster.node(1), shop.cluster.node(VICTIM_NODE)
    host = workloads.Backend(
        name="host", app="host", node=home.name, grace=0, ports=(18080,), host_network=True
    )
    ports = {"http": (80, 18080)}
    shop.open_service(
        workloads.service("host", shop.name, app="host", ports=ports),
        host,
        workloads.Backend(
            name="guest", app="host", node=home.name, grace=0, ports=(18080,), probe="none"
        ),
    )
    stack.enter_context(lost(shop.cluster, home.ip, port=18080))
    stack.enter_context(connect(shop.client(1), shop.frontends("host")[0]))
    wait_stuck([node], [home.ip])
    shop.force_delete("host")
    shop.wait_left("host", [home.ip])
    before = numbers(node, lambda seen: seen.half_open and seen.backend[0] == home.ip)
    condemn(shop, oracle, "host", "guest")
    have_swept(node)
    assert before
    assert before <= numbers(node, lambda seen: seen.backend[0] == home.ip)
    assert home.ip not in {each.backend[0] for each in oracle.condemned(shop.name, "host")}


def test_udp_to_the_same_ip_and_port_through_the_same_address(
    shop: Shop, oracle: Oracle, stack: ExitStack
) -> None:
    node, shared = shop.cluster.node(1), {"externalIPs": ["198.51.100.80"]}
    udp = [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "UDP"}]
    shop.apply(
        workloads.service("udp", shop.name, app="udp", extra={**shared, "ports": udp}),
    )
    shop.open_service(
        workloads.service(
            "tcp", shop.name, app="", selector={"app": "udp", "tcp": "yes"}, extra=shared
        ),
        workloads.Backend(
            name="both", app="udp", node=shop.cluster.node(VICTIM_NODE).name, grace=0,
            labels=(("tcp", "yes"),),
        ),
    )  # fmt: skip
    address = shop.ips_of("both")[0]
    target = ("--to", "198.51.100.80", "--port", "80")
    stack.enter_context(Lines(shop.client(1), "datagrams.py", *target))

    def of_udp() -> set[str]:
        listing = node.run("conntrack", "-L", "-p", "udp", "-o", "id").stdout
        return {
            found[1]
            for line in listing.splitlines()
            if f"src={address} " in line and (found := re.search(r"\bid=(\d+)", line))
        }

    before = eventually(of_udp, 20, "an UDP entry")
    shop.kubectl("label", "pod", "both", "tcp=no", "--overwrite")
    wait_condemned(shop, oracle, "tcp", [address])
    have_swept(node)
    assert before == of_udp()
    named = {each.frontend for each in oracle.condemned(shop.name, "tcp")}
    assert ("198.51.100.80", 80) in named, "the very address that the UDP entry goes through"
