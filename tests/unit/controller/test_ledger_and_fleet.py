"""What is in the API: cleanups adopted from others, and what the nodes report."""

from __future__ import annotations

import logging
from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING

from synsweep.cluster.listwatch import Added, Deleted, Listed, Modified
from synsweep.controller.fleet import SILENT_AFTER, Fleet
from synsweep.controller.ledger import Ledger
from synsweep.core.cleanup_wire import cleanup_to_wire
from tests.unit.cluster.test_collections import a_cleanup
from tests.unit.controller.world import EPOCH, START, World, a_report

if TYPE_CHECKING:
    from typing import Any

    import pytest

    from synsweep.core.cleanup import Cleanup
    from synsweep.core.flow import IPAddress

STAMP = "2025-10-09T08:53:10Z"  # ten seconds before EPOCH


def in_the_api(cleanup: Cleanup, created: str = STAMP) -> dict[str, Any]:
    body = cleanup_to_wire(cleanup, namespace="ns")
    body["metadata"] |= {"uid": "c", "creationTimestamp": created}
    return body


def test_a_cleanup_of_a_former_controller_is_adopted_with_its_age() -> None:
    ledger = Ledger(clock=lambda: START)
    assert not ledger.synced
    ledger.fold(Listed(items=(in_the_api(a_cleanup()),), vanished=(), server_time=EPOCH))
    [live] = ledger.live()
    assert ledger.synced
    assert ledger.highest_sequence == 7
    assert live.born_at == START - 10
    assert live.gone_at == START - 10.25


def test_of_two_accounts_the_smaller_is_the_newer() -> None:
    ledger = Ledger(clock=lambda: START)
    whole, part = a_cleanup("10.0.0.1", "10.0.0.2"), a_cleanup("10.0.0.2")
    ledger.fold(Added(body=in_the_api(whole), server_time=EPOCH))
    ledger.fold(Modified(body=in_the_api(part), server_time=EPOCH))
    ledger.fold(Modified(body=in_the_api(whole), server_time=EPOCH))
    assert [cleanup.backends_total for _, cleanup in ledger.readable().values()] == [1]


def test_what_is_deleted_or_vanished_is_live_no_more() -> None:
    ledger = Ledger(clock=lambda: START)
    body = in_the_api(a_cleanup())
    for gone in (
        Deleted(body=body, server_time=EPOCH),
        Listed(items=(), vanished=({"metadata": {"name": "endpoint-removed-7"}},), server_time=0),
    ):
        ledger.fold(Added(body=body, server_time=EPOCH))
        assert ledger.live()
        ledger.fold(gone)
        assert ledger.live() == ()
    ledger.shrunk(a_cleanup())
    assert ledger.live() == ()


def test_a_cleanup_that_we_do_not_understand_is_only_tidied_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World().ready()
    newer = in_the_api(a_cleanup())
    newer["spec"]["formatVersion"] = 2
    dateless = in_the_api(replace(a_cleanup(), name="endpoint-removed-8", sequence=8))
    del dateless["metadata"]["creationTimestamp"]
    with caplog.at_level(logging.WARNING):
        for body in (newer, dateless):
            world.ledger.fold(Added(body=body, server_time=EPOCH))
    assert "formatVersion" in caplog.text
    assert len(world.ledger.live()) == 2
    world.run(299.0)
    assert len(world.written.times("delete")) <= 1  # the dateless one names a foreign policy
    world.run(3.0)
    assert world.ledger.live() == ()


def test_the_number_of_a_cleanup_that_we_do_not_understand_is_taken() -> None:
    ledger = Ledger(clock=lambda: START)
    newer = in_the_api(replace(a_cleanup(), name="endpoint-removed-41", sequence=41))
    newer["spec"]["formatVersion"] = 2
    nameless = in_the_api(replace(a_cleanup(), name="by-hand"))
    nameless["spec"]["formatVersion"] = 2
    for body in (newer, nameless):
        ledger.fold(Added(body=body, server_time=EPOCH))
    assert ledger.highest_sequence == 41


class Nodes:
    """A fleet, and the addresses that it told."""

    def __init__(self) -> None:
        self.time = START
        self.told: list[frozenset[IPAddress]] = []
        self.fleet = Fleet(on_addresses=self.told.append, clock=lambda: self.time)

    def listed(self, *bodies: dict[str, Any]) -> None:
        self.fleet.fold(Listed(items=bodies, vanished=(), server_time=EPOCH))

    def reports(self, body: dict[str, Any]) -> None:
        self.fleet.fold(Modified(body=body, server_time=EPOCH))


def counters(**numbers: int) -> dict[str, Any]:
    return {"counters": [{"policyUID": "p-1", **numbers}]}


def test_addresses_of_nodes_are_told_and_stay_a_while_after_a_node_left() -> None:
    nodes = Nodes()
    nodes.listed(
        a_report("node1", addresses=["10.1.0.1"]), a_report("node2", addresses=["fd00::2"])
    )
    both = frozenset({ip_address("10.1.0.1"), ip_address("fd00::2")})
    assert nodes.told == [both]
    nodes.reports(a_report("node1", addresses=["10.1.0.1"]))
    nodes.fleet.fold(Deleted(body=a_report("node2"), server_time=EPOCH))
    assert nodes.told == [both]
    nodes.time += SILENT_AFTER + 1
    nodes.reports(a_report("node1", addresses=["10.1.0.1"]))
    assert nodes.told[-1] == {ip_address("10.1.0.1")}


def test_no_node_can_use_up_all_sequences() -> None:
    nodes = Nodes()
    nodes.listed(
        a_report("node1", sweptThrough=2**63 - 1),
        a_report("node2", sweptThrough=77),
    )
    assert nodes.fleet.swept_through == 77


def test_a_silent_helper_is_not_ready() -> None:
    nodes = Nodes()
    nodes.listed(a_report("node1"), a_report("node2", ready=False), {"metadata": {"name": "node3"}})
    assert [one.is_ready(START) for one in nodes.fleet.nodes()] == [True, False]
    assert not any(one.is_ready(START + SILENT_AFTER) for one in nodes.fleet.nodes())
    gone = ({"metadata": {"name": "node1"}}, {"metadata": {"name": "node9"}})
    nodes.fleet.fold(Listed(items=(), vanished=gone, server_time=EPOCH))
    assert len(nodes.fleet.nodes()) == 1


def test_what_happened_before_the_start_is_in_the_sum_but_no_news() -> None:
    nodes = Nodes()
    nodes.listed(a_report("node1", **counters(deleted=40)))
    assert nodes.fleet.deleted_entries("p-1") == 40
    assert nodes.fleet.take_tally("p-1").deleted == {}
    nodes.reports(a_report("node1", **counters(deleted=43, dryRun=2)))
    nodes.reports(a_report("node2", **counters(deleted=5)))
    tally = nodes.fleet.take_tally("p-1")
    assert tally.deleted == {"node1": 3, "node2": 5}
    assert tally.found == {"node1": 2}
    assert nodes.fleet.take_tally("p-1").deleted == {}
    assert nodes.fleet.deleted_entries("p-1") == 48


def test_a_counter_that_fell_began_again() -> None:
    nodes = Nodes()
    nodes.listed(a_report("node1", **counters(deleted=40)))
    nodes.reports(a_report("node1", **counters(deleted=2)))
    assert nodes.fleet.take_tally("p-1").deleted == {"node1": 2}


def test_a_report_that_cannot_be_read_leaves_the_last_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    nodes = Nodes()
    nodes.listed(a_report("node1", sweptThrough=3))
    with caplog.at_level(logging.WARNING):
        nodes.reports(a_report("node1") | {"status": {"formatVersion": 9}})
        nodes.reports(a_report("node1", addresses=["nonsense"]))
    assert caplog.text.count("ConntrackNode node1") == 2
    assert nodes.fleet.swept_through == 3


def test_cleanups_are_kept_twice_as_long_as_any_half_open_entry_lives() -> None:
    world = World().ready()
    assert world.tidying.keep_for == 300
    report = a_report("node1", sysctls={"nfConntrackTcpTimeoutSynSent": 200})
    world.fleet.fold(Added(body=report, server_time=EPOCH))
    assert world.tidying.keep_for == 400


def test_a_node_without_kube_proxy_is_unsupported() -> None:
    nodes = Nodes()
    body = a_report("node1")
    [ready] = body["status"]["conditions"]
    body["status"]["conditions"].append(ready | {"type": "DatapathSupported", "status": "False"})
    nodes.listed(body, a_report("node2"))
    assert [one.supported for one in nodes.fleet.nodes()] == [False, True]
