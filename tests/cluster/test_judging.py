"""Backends that seem to go and do not, judged on a real cluster: what is still valid stays.

The backends are addresses in slices without a selector, behind which nobody answers, so that every
flow stays half-open.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.cluster import parts, workloads
from tests.cluster.observers import Seen, eventually, wait_programmed
from tests.cluster.oracle import serving_but_condemned
from tests.cluster.shop import connect, lost
from tests.cluster.sweeping import (
    have_swept,
    numbers,
    wait_condemned,
    wait_numbers,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.oracle import Oracle
    from tests.cluster.shop import Shop

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

SHOP_CLIENTS = (1,)
NOBODY = "198.51.100.20"
ANOTHER = "198.51.100.99"
SHARED = "198.51.100.120"
STUCK = ("--flows", "4")


@pytest.fixture
def stack(shop: Shop) -> Iterator[ExitStack]:
    with ExitStack() as made:
        made.enter_context(lost(shop.cluster, NOBODY))
        yield made


def serve(shop: Shop, *services: str, external: bool = False) -> None:
    """Open Services with NOBODY behind each."""
    for name in services:
        extra = {"externalIPs": [SHARED]} if external else {}
        shop.apply(
            workloads.service(name, shop.name, app="", extra=extra),
            workloads.slice_of(name, shop.name, NOBODY),
        )
        for frontend in (*shop.frontends(name), *extra.get("externalIPs", ())):
            wait_programmed(shop.cluster.node(1), frontend)


def condemn_another(shop: Shop, oracle: Oracle, name: str) -> None:
    """Have a live cleanup of another Service, for which nodes sweep."""
    other = workloads.slice_of(name, shop.name, ANOTHER)
    shop.apply(workloads.service(name, shop.name, app=""), other)
    shop.apply({**other, "endpoints": []})
    wait_condemned(shop, oracle, name, [ANOTHER])


def through(frontend: str, seen: Seen) -> bool:
    """Whether an entry is half-open to NOBODY through a frontend."""
    return seen.half_open and seen.backend[0] == NOBODY and seen.frontend[0] == frontend


def test_a_backend_that_comes_back_is_taken_out_at_once_and_its_entries_stay(
    shop: Shop, oracle: Oracle, stack: ExitStack
) -> None:
    node = shop.cluster.node(1)
    serve(shop, "back")
    shop.apply(workloads.slice_of("back", shop.name))
    wait_condemned(shop, oracle, "back", [NOBODY])
    shop.apply(workloads.slice_of("back", shop.name, NOBODY))
    eventually(lambda: not serving_but_condemned(shop.cluster), 5, "it to be taken out")
    frontend = shop.frontends("back")[0]
    stack.enter_context(connect(shop.client(1), frontend, options=STUCK))
    before = wait_numbers(node, lambda seen: through(frontend, seen), "half-open entries")
    condemn_another(shop, oracle, "other")
    have_swept(node)
    assert before <= numbers(node, lambda seen: through(frontend, seen))


def test_a_backend_that_is_unready_for_a_moment_is_kept(
    shop: Shop, oracle: Oracle, stack: ExitStack
) -> None:
    node = shop.cluster.node(1)
    serve(shop, "moment")
    frontend = shop.frontends("moment")[0]
    stack.enter_context(connect(shop.client(1), frontend, options=STUCK))
    before = wait_numbers(node, lambda seen: through(frontend, seen), "half-open entries")
    shop.apply(workloads.slice_of("moment", shop.name, NOBODY, ready=False))
    time.sleep(5)  # of the 10 s of policy cluster-default
    shop.apply(workloads.slice_of("moment", shop.name, NOBODY))
    time.sleep(6)
    assert oracle.condemned(shop.name, "moment") == []
    assert before <= numbers(node, lambda seen: through(frontend, seen))


def test_of_two_services_with_one_external_ip_the_other_still_leads_there(
    shop: Shop, oracle: Oracle, stack: ExitStack
) -> None:
    node = shop.cluster.node(1)
    serve(shop, "one", "two", external=True)
    own = shop.frontends("one")[0]
    for frontend in (own, SHARED):
        stack.enter_context(connect(shop.client(1), frontend, options=STUCK))
    shared = wait_numbers(node, lambda seen: through(SHARED, seen), "entries, the shared IP")
    wait_numbers(node, lambda seen: through(own, seen), "entries, the cluster IP")
    shop.apply(workloads.slice_of("one", shop.name))
    wait_condemned(shop, oracle, "one", [NOBODY])
    eventually(lambda: not numbers(node, lambda seen: through(own, seen)), 8, "they go")
    have_swept(node)
    assert shared <= numbers(node, lambda seen: through(SHARED, seen))
    assert {each.frontend for each in oracle.condemned(shop.name)} & {(SHARED, 80)} == set()


def test_a_backend_that_moves_to_another_service_is_gone_from_the_first_alone(
    shop: Shop, oracle: Oracle, stack: ExitStack
) -> None:
    node = shop.cluster.node(1)
    serve(shop, "old", "new")
    shop.apply(workloads.slice_of("new", shop.name))
    wait_condemned(shop, oracle, "new", [NOBODY])
    old, new = (shop.frontends(name)[0] for name in ("old", "new"))
    stack.enter_context(connect(shop.client(1), old, options=STUCK))
    wait_numbers(node, lambda seen: through(old, seen), "entries through the old Service")
    shop.apply(workloads.slice_of("new", shop.name, NOBODY), workloads.slice_of("old", shop.name))
    wait_condemned(shop, oracle, "old", [NOBODY])
    eventually(lambda: not numbers(node, lambda seen: through(old, seen)), 8, "they go")
    stack.enter_context(connect(shop.client(1), new, options=STUCK))
    before = wait_numbers(node, lambda seen: through(new, seen), "entries through the new one")
    have_swept(node)
    assert before <= numbers(node, lambda seen: through(new, seen))


def keep(shop: Shop, oracle: Oracle, service: str, before: set[int]) -> None:
    """Sweep for another Service; these entries stay and nothing of their Service is condemned."""
    node = shop.cluster.node(1)
    frontend = shop.frontends(service)[0]
    condemn_another(shop, oracle, f"not-{service}")
    have_swept(node)
    assert oracle.condemned(shop.name, service) == []
    assert before <= numbers(node, lambda seen: through(frontend, seen))


def stick(shop: Shop, service: str, stack: ExitStack) -> set[int]:
    """Have half-open entries to NOBODY through a Service; give their ids."""
    frontend = shop.frontends(service)[0]
    stack.enter_context(connect(shop.client(1), frontend, options=STUCK))
    wanted = f"half-open entries through {service}"
    return wait_numbers(shop.cluster.node(1), lambda seen: through(frontend, seen), wanted)


@pytest.mark.usefixtures("operator_may_restart")
def test_a_backend_that_kube_proxy_knew_before_the_controller_is_kept(
    shop: Shop, oracle: Oracle, stack: ExitStack
) -> None:
    with parts.no_controller(shop.cluster):
        serve(shop, "early")
        before = stick(shop, "early", stack)
    keep(shop, oracle, "early", before)


def test_a_backend_that_a_traffic_policy_filters_out_is_kept(
    shop: Shop, oracle: Oracle, stack: ExitStack
) -> None:
    serve(shop, "filtered")
    elsewhere = workloads.slice_of("filtered", shop.name, NOBODY)
    for endpoint in elsewhere["endpoints"]:
        endpoint["nodeName"] = shop.cluster.node(3).name
    shop.apply(elsewhere)
    before = stick(shop, "filtered", stack)
    shop.kubectl("patch", "service", "filtered", "-p", '{"spec":{"internalTrafficPolicy":"Local"}}')
    keep(shop, oracle, "filtered", before)


def test_a_backend_that_moves_between_slices_is_kept(
    shop: Shop, oracle: Oracle, stack: ExitStack
) -> None:
    serve(shop, "moves")
    before = stick(shop, "moves", stack)
    first = workloads.slice_of("moves", shop.name, NOBODY)
    second = {**first, "metadata": {**first["metadata"], "name": "moves-second"}}
    shop.apply(second, {**first, "endpoints": []})
    shop.kubectl("delete", "endpointslice", "moves-manual")
    shop.apply(first)  # now in both, of which one goes
    shop.kubectl("delete", "endpointslice", "moves-second")
    keep(shop, oracle, "moves", before)


def test_services_without_a_frontend_are_nothing_to_us(shop: Shop, oracle: Oracle) -> None:
    headless = workloads.service("headless", shop.name, app="", cluster_ip="None")
    external = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "external", "namespace": shop.name},
        "spec": {"type": "ExternalName", "externalName": "shop.example"},
    }
    listed = [workloads.slice_of(name, shop.name, NOBODY) for name in ("headless", "external")]
    shop.apply(headless, external, *listed)
    shop.apply(*({**each, "endpoints": []} for each in listed))
    condemn_another(shop, oracle, "with-a-frontend")
    assert oracle.condemned(shop.name, "headless") == []
    assert oracle.condemned(shop.name, "external") == []
