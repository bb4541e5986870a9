"""A node's ConntrackNode: rarely written, cumulative, never lost, and marked."""

from __future__ import annotations

from typing import Any

import pytest

from synsweep.core.cleanup import Mode
from synsweep.node.discovery import KubeProxyMode, WrongNode
from synsweep.node.reporting import MARK
from tests.unit.core.samples import NODE, cleanup, entry
from tests.unit.node.world import NODE_PATH, OWN_PATH, World, body


def started(**how: Any) -> World:
    """A helper that has listed, swept and reported."""
    world = World(**how)
    world.list()
    world.loop.step()
    world.report(1.0)
    return world


def condition(world: World, kind: str) -> tuple[str, str]:
    (found,) = [one for one in world.own["status"]["conditions"] if one["type"] == kind]
    return found["status"], found["reason"]


def counters(world: World) -> dict[str, int]:
    (found,) = world.own["status"]["counters"]
    return {name: count for name, count in found.items() if count and name != "policyUID"}


def find_one(world: World, **changed: Any) -> None:
    """One entry is found by a sweep."""
    world.table.put(entry(id=0))
    world.list(body(cleanup(**changed)))
    world.run(0.3)


def test_the_first_report_makes_the_object_with_its_node_as_owner() -> None:
    world = started()
    metadata, status = world.own["metadata"], world.own["status"]
    assert metadata["name"] == NODE
    assert metadata["ownerReferences"] == [
        {"apiVersion": "v1", "kind": "Node", "name": NODE, "uid": "node-uid"}
    ]
    assert status["formatVersion"] == 1
    assert status["kubeProxyMode"] == "IPTables"
    assert status["addresses"] == ["172.30.1.10"]
    assert status["kernelVersion"][0].isdigit()
    assert status["sysctls"] == {"nfConntrackTcpTimeoutSynSent": 120}
    assert condition(world, "Ready") == ("True", "Working")
    assert condition(world, "DatapathSupported") == ("True", "IPTables")


def test_the_first_report_waits_for_the_first_sweep_but_not_for_long() -> None:
    world = World()
    world.report(5.0)
    assert world.api.writes() == 0
    world.report(10.0)
    assert condition(world, "Ready") == ("False", "NotReady")
    world.list()
    world.loop.step()
    world.report(30.0)
    assert condition(world, "Ready") == ("True", "Working")


def test_without_news_it_is_written_every_five_minutes() -> None:
    world = started()
    world.report(3600.0)
    assert world.api.writes() == 1 + 12


def test_a_cleanup_that_found_nothing_causes_no_write() -> None:
    world = started()
    world.list(body())
    world.run(61.0)
    world.report(60.0)
    assert world.api.writes() == 1


def test_deletions_are_written_within_the_time_that_the_cleanup_gives() -> None:
    world = started(draw=0.9)
    find_one(world, report_within_seconds=100)
    world.report(80.0)
    assert world.api.writes() == 1
    world.report(20.0)
    assert counters(world) == {"deleted": 1}
    assert world.own["status"]["sweptThrough"] == 17
    assert world.api.writes() == 2


def test_what_a_dry_run_found_is_written_too() -> None:
    world = started()
    find_one(world, mode=Mode.DRY_RUN)
    world.report(1.0)
    assert counters(world) == {"dryRun": 1}


def test_counters_go_on_where_the_last_helper_on_this_node_ended() -> None:
    first = started()
    find_one(first)
    first.report(2.0)
    second = World(api=first.api, mark="the next process", now=5.0)  # another boot's clock
    find_one(second)
    second.report(2.0)
    assert counters(second) == {"deleted": 2}


def test_a_start_that_breaks_off_adds_the_counters_of_the_last_helper_only_once() -> None:
    first = started()
    find_one(first)
    first.report(2.0)
    second = World(api=first.api, mark="the next process")
    second.api.forbidden = "patch"
    second.list()
    second.loop.step()
    second.report(60.0)
    second.api.forbidden = ""
    second.report(31.0)
    assert counters(second) == {"deleted": 1}


def test_what_is_found_while_a_heartbeat_fails_is_told_at_the_end() -> None:
    world = started()
    world.api.down = True
    world.api.asked = lambda: find_one(world, report_within_seconds=100)
    world.report(300.0)
    world.api.down, world.api.asked = False, lambda: None
    world.reporter.stop()
    world.reporter.run()
    assert counters(world) == {"deleted": 1}


def test_nothing_is_lost_while_the_api_server_is_away() -> None:
    world = started()
    world.api.down = True
    for number in range(5):
        find_one(world, name=f"endpoint-removed-{number + 1}", uid=str(number), sequence=number + 1)
        world.report(10.0)
    world.api.down = False
    world.report(31.0)
    assert counters(world) == {"deleted": 5}
    assert world.own["status"]["sweptThrough"] == 5


def test_an_api_server_that_is_away_is_asked_seldom() -> None:
    world = started()
    find_one(world)
    world.api.down = True
    before = len(world.api.requests)
    world.report(300.0)
    assert len(world.api.requests) - before < 20
    assert (world.sample("synsweep_report_writes_total", {"result": "failed"}) or 0) > 5


def test_a_helper_that_starts_without_api_server_reports_when_it_comes() -> None:
    world = World()
    world.api.down = True
    world.report(60.0)
    world.api.down = False
    world.report(31.0)
    assert world.api.writes() == 1


@pytest.mark.parametrize("verb", ["get", "post", "patch"])
def test_a_verb_that_is_forbidden_is_said_and_ends_nothing(
    verb: str, caplog: pytest.LogCaptureFixture
) -> None:
    world = World()
    world.api.forbidden = verb
    world.report(60.0)
    assert f"cannot report to ConntrackNode {NODE} yet: Forbidden (403): no" in caplog.text
    world.api.forbidden = ""
    world.report(31.0)
    assert OWN_PATH in world.api.objects


def test_an_object_that_somebody_deleted_is_made_again_with_all_counters() -> None:
    world = started()
    find_one(world)
    world.report(2.0)
    del world.api.objects[OWN_PATH]
    find_one(world, name="endpoint-removed-18", uid="b", sequence=18)
    world.report(5.0)
    assert counters(world) == {"deleted": 2}
    assert MARK in world.own["metadata"]["annotations"]


def test_an_object_of_another_format_is_not_half_understood(
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = started()
    first.own["status"]["formatVersion"] = 2
    second = World(api=first.api)
    find_one(second)
    second.report(2.0)
    assert counters(second) == {"deleted": 1}
    assert "counters begin at 0" in caplog.text


def test_a_name_that_is_no_node_ends_the_start() -> None:
    world = World()
    del world.api.objects[NODE_PATH]
    with pytest.raises(WrongNode, match=f"there is no Node {NODE} in this cluster"):
        world.report()


def test_a_node_on_another_machine_ends_the_start() -> None:
    world = World()
    addresses = [{"type": "InternalIP", "address": "172.30.2.10"}]
    world.api.objects[NODE_PATH]["status"]["addresses"] = addresses
    with pytest.raises(WrongNode, match="names another node"):
        world.report()


def test_a_node_that_vanishes_later_ends_nothing() -> None:
    world = started()
    del world.api.objects[NODE_PATH], world.api.objects[OWN_PATH]
    find_one(world)
    world.report(60.0)
    assert OWN_PATH not in world.api.objects


def test_a_refused_cleanup_is_reported_with_its_reason() -> None:
    world = started()
    refused = body()
    refused["spec"]["formatVersion"] = 2
    world.list(refused)
    world.record.trouble()  # as watching does
    world.report(20.0)
    (told,) = world.own["status"]["refusedCleanups"]
    assert told["name"] == "endpoint-removed-17"
    assert told["reason"] == "UnknownFormatVersion"


def test_failures_are_written_at_most_every_ten_seconds() -> None:
    world = started()
    world.table.refuse(deletes="EPERM")
    for second in range(60):
        find_one(world, name=f"endpoint-removed-{second + 1}", uid=str(second), sequence=second + 1)
        world.report(1.0)
    assert counters(world)["failed"] >= 50
    assert 5 <= world.api.writes() <= 9  # in 78 s


def test_sweeps_that_fail_make_the_node_not_ready_until_one_does_not() -> None:
    world = started()
    world.list(body())
    world.table.refuse(lists="EPERM")
    world.run(1.0)
    world.report(15.0)
    assert condition(world, "Ready") == ("False", "SweepFailed")
    world.table.refuse()
    world.run(20.0)
    world.report(300.0)
    assert condition(world, "Ready") == ("True", "Working")


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (KubeProxyMode.IPVS, ("False", "IPVS")),
        (KubeProxyMode.UNKNOWN, ("Unknown", "KubeProxySilent")),
        (KubeProxyMode.NFTABLES, ("True", "NFTables")),
    ],
)
def test_a_change_of_kube_proxys_mode_is_noticed_and_reported(
    mode: KubeProxyMode, expected: tuple[str, str]
) -> None:
    world = started()
    world.mode = mode
    world.report(45.0)
    assert condition(world, "DatapathSupported") == expected
    assert world.own["status"]["kubeProxyMode"] == mode.value


def test_a_second_helper_on_the_node_is_noticed_and_said_by_both_until_it_is_gone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = started(mark="first")
    second = World(api=first.api, mark="second")
    second.list()
    second.loop.step()
    second.report(1.0)
    assert condition(second, "Ready") == ("True", "Working")

    first.record.trouble()
    first.report(30.0)
    assert condition(first, "Ready") == ("False", "SecondHelper")
    assert "two of them run as this node" in caplog.text
    assert first.sample("synsweep_second_helper_total") == 1
    second.record.trouble()
    second.report(30.0)
    assert condition(second, "Ready") == ("False", "SecondHelper")

    first.report(2000.0)  # the second one is gone
    assert condition(first, "Ready") == ("True", "Working")


def test_the_end_tells_what_still_waits() -> None:
    world = started()
    find_one(world, report_within_seconds=100)
    world.reporter.stop()
    world.reporter.run()
    assert counters(world) == {"deleted": 1}


def test_the_end_writes_nothing_that_is_no_news() -> None:
    world = started()
    world.reporter.stop()
    world.reporter.run()
    assert world.api.writes() == 1
