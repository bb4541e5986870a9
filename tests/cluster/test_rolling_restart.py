"""A rolling restart under clients that never stop connecting: nobody is worse off for synsweep.

Two oracles that know nothing of synsweep: the wire at the client (who was reset, which SYN was
answered when) and the kernel's own account of entries that a program has ended. RESTARTS (1): how
many rolling restarts in each run.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster import installation, workloads
from tests.cluster.figures import record, repetitions
from tests.cluster.observers import Lines, eventually, stories
from tests.cluster.shop import connect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.oracle import Deletion, Oracle
    from tests.cluster.shop import Shop

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

SHOP_CLIENTS = (1,)
RESTARTS = repetitions("RESTARTS", 1)
REPLICAS = 3
CLIENTS = ("--flows", "8", "--again", "--requests", "3", "--every", "0.05")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What one run of restarts looked like from outside."""

    connections: int
    errors: list[str]
    resets: int
    deletions: list[Deletion]
    answered_then_deleted: list[Deletion]


def restart(shop: Shop, oracle: Oracle, app: str) -> Seen:
    """Restart the Deployment while clients connect, and say what was seen."""
    began_at = time.monotonic()
    client = shop.client(1)
    with Lines(client, "packets.py") as wire:
        wire.wait_for(lambda line: line.get("event") == "listening", 10)
        with connect(client, shop.frontends(app)[0], options=CLIENTS) as told:
            told.wait_for(lambda line: line["event"] == "response", 20)
            for _ in range(RESTARTS):
                shop.kubectl("rollout", "restart", f"deployment/{app}")
                shop.kubectl("rollout", "status", f"deployment/{app}", "--timeout=120s")
                eventually(lambda: len(shop.endpoints(app)) == REPLICAS, 30, "the old ones to go")
            time.sleep(1.5)  # the last cleanup and its sweeps
        lines = told.lines
        packets = list(wire.lines)
    deletions = [each for each in oracle.deletions() if each.at > began_at]
    return Seen(
        connections=sum(line["event"] == "connected" for line in lines),
        errors=[error for story in stories(lines) for error in story.errors],
        resets=sum("R" in each.get("flags", "") and not each["out"] for each in packets),
        deletions=deletions,
        answered_then_deleted=[each for each in deletions if was_answered(each, packets)],
    )


def was_answered(deletion: Deletion, packets: list[dict[str, Any]]) -> bool:
    """Whether the last SYN of a flow had its answer before the flow's entry was deleted."""
    port = deletion.seen.client[1]
    earlier = [each for each in packets if "flags" in each and each["t"] < deletion.at]
    sent = [each["t"] for each in earlier if each["flags"] == "S" and each["sport"] == port]
    answers = [each["t"] for each in earlier if each["flags"] == "SA" and each["dport"] == port]
    return bool(sent and answers and answers[-1] > sent[-1])


@pytest.fixture
def mode(request: pytest.FixtureRequest, shop: Shop) -> Iterator[str]:
    """Set the policy's mode for one test."""
    if request.param != "Enforce":
        installation.set_mode(shop.cluster, request.param)
    yield request.param
    if request.param != "Enforce":
        installation.set_mode(shop.cluster, "Enforce")


def deploy(shop: Shop, app: str, *, grace: int, stubborn: bool) -> None:
    """Open a Service over a Deployment."""
    pod = workloads.Backend(name=app, app=app, grace=grace, stubborn=stubborn)
    service = workloads.service(app, shop.name, app=app)
    shop.apply(service, pod.deployment(shop.name, replicas=REPLICAS))
    eventually(lambda: len(shop.endpoints(app, ready=True)) == REPLICAS, 60, "all replicas")


@pytest.mark.parametrize("mode", ["Disabled", "Enforce"], indirect=True)
def test_a_graceful_restart_costs_no_client_a_connection(
    shop: Shop, oracle: Oracle, mode: str
) -> None:
    deploy(shop, f"graceful-{mode.lower()}", grace=4, stubborn=True)
    seen = restart(shop, oracle, f"graceful-{mode.lower()}")
    tell("graceful restart", mode, seen)
    assert seen.connections > 100
    assert seen.errors == []
    assert seen.resets == 0
    assert seen.deletions == []


@pytest.mark.parametrize("mode", ["Disabled", "Enforce"], indirect=True)
def test_an_abrupt_restart_loses_no_entry_of_an_answered_flow(
    shop: Shop, oracle: Oracle, mode: str
) -> None:
    deploy(shop, f"abrupt-{mode.lower()}", grace=0, stubborn=False)
    seen = restart(shop, oracle, f"abrupt-{mode.lower()}")
    tell("abrupt restart", mode, seen)
    assert seen.connections > 100
    assert seen.answered_then_deleted == []
    assert [each for each in seen.deletions if not each.seen.half_open] == []
    assert mode == "Enforce" or seen.deletions == []


def tell(what: str, mode: str, seen: Seen) -> None:
    """Record the figures of a run."""
    record(
        what,
        mode=mode,
        connections=seen.connections,
        errors=len(seen.errors),
        resets=seen.resets,
        deletions=len(seen.deletions),
        answered_then_deleted=len(seen.answered_then_deleted),
    )
