"""Cleanups, ConntrackNodes, policies, DaemonSets, inventories: which requests, which answers."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest

from synsweep.cluster.cleanups import Cleanups
from synsweep.cluster.errors import ApiRefused, ApiUnavailable
from synsweep.cluster.metadata import Version, missing_kinds, take_inventory
from synsweep.cluster.nodes import ConntrackNodes, DaemonSets, Owner
from synsweep.cluster.policies import Policies
from synsweep.core.cleanup import (
    Cleanup,
    CleanupReason,
    CleanupTarget,
    Misrouted,
    Mode,
    TargetBackend,
)
from synsweep.core.cleanup_wire import cleanup_to_wire
from synsweep.core.flow import Address
from tests.unit.cluster.scripted_api import listing, refusal, reply, serving, thing

if TYPE_CHECKING:
    from pathlib import Path

CLEANUPS = "/apis/synsweep.io/v1alpha1/namespaces/ns/conntrackcleanups"
NODES = "/apis/synsweep.io/v1alpha1/conntracknodes"


def a_cleanup(*backends: str) -> Cleanup:
    target = CleanupTarget(
        id=0,
        namespace="default",
        service="web",
        port_name="http",
        frontends=(Address(ip_address("10.96.0.10"), 80),),
        backends=tuple(
            TargetBackend(address=Address(ip_address(ip), 8080), terminated=True)
            for ip in backends or ("10.0.0.1",)
        ),
    )
    return Cleanup(
        name="endpoint-removed-7",
        uid="",
        policy="all",
        policy_uid="p-1",
        sequence=7,
        mode=Mode.ENFORCE,
        misrouted=Misrouted.REPORT,
        reason=CleanupReason.ENDPOINT_REMOVED,
        gone_for_seconds=0.25,
        removed_at="2026-01-01T00:00:00Z",
        reuse_after_seconds=30,
        sweep_for_seconds=60,
        report_within_seconds=1,
        nodes=(),
        targets=(target,),
    )


def in_the_api(cleanup: Cleanup) -> dict[str, Any]:
    body = cleanup_to_wire(cleanup, namespace="ns")
    body["metadata"] |= {"uid": "c-1", "creationTimestamp": "2026-01-01T00:00:01Z"}
    return body


def test_a_created_cleanup_comes_back_with_uid_and_time(tmp_path: Path) -> None:
    with serving(tmp_path, reply(201, in_the_api(a_cleanup()))) as (api, script):
        created = Cleanups(api, "ns").create(a_cleanup())
        assert (created.uid, created.created_at) == ("c-1", "2026-01-01T00:00:01Z")
        assert script.asked[0].path == CLEANUPS
        assert script.asked[0].body["metadata"]["name"] == "endpoint-removed-7"


def test_a_cleanup_whose_answer_was_lost_is_found_again(tmp_path: Path) -> None:
    there = reply(200, in_the_api(a_cleanup()))
    with serving(tmp_path, refusal(409, "AlreadyExists"), there) as (api, _):
        assert Cleanups(api, "ns").create(a_cleanup()).uid == "c-1"


@pytest.mark.parametrize(
    "change",
    [
        {"targets": a_cleanup("10.0.0.9").targets},
        {"mode": Mode.DRY_RUN},
        {"policy_uid": "p-2"},
        {"sequence": 0},  # which nobody may write: a newer version's may look as strange
    ],
)
def test_another_cleanup_of_that_name_is_not_taken_for_ours(
    change: dict[str, Any], tmp_path: Path
) -> None:
    there = reply(200, in_the_api(replace(a_cleanup(), **change)))
    with serving(tmp_path, refusal(409, "AlreadyExists"), there) as (api, _):
        with pytest.raises(ApiRefused) as refused:
            Cleanups(api, "ns").create(a_cleanup())
        assert refused.value.reason == "AlreadyExists"


def test_any_other_refusal_is_the_callers(tmp_path: Path) -> None:
    with (
        serving(tmp_path, refusal(403, "Forbidden")) as (api, _),
        pytest.raises(ApiRefused, match="Forbidden"),
    ):
        Cleanups(api, "ns").create(a_cleanup())


def test_revoking_sends_the_targets_that_are_left(tmp_path: Path) -> None:
    with serving(tmp_path, reply(200, {})) as (api, script):
        cleanup = a_cleanup("10.0.0.1", "10.0.0.2")
        [target] = cleanup.targets
        left = replace(cleanup, targets=(replace(target, backends=target.backends[1:]),))
        Cleanups(api, "ns").replace_targets(left)
        [asked] = script.asked
        assert (asked.method, asked.path) == ("PATCH", f"{CLEANUPS}/endpoint-removed-7")
        [sent] = asked.body["spec"]["targets"]
        assert [backend["ip"] for backend in sent["backends"]] == ["10.0.0.2"]


def test_deleting_what_is_gone_is_fine_and_what_is_forbidden_is_not(tmp_path: Path) -> None:
    answers = (reply(200, {}), refusal(404, "NotFound"), refusal(403, "Forbidden"))
    with serving(tmp_path, *answers) as (api, _):
        cleanups = Cleanups(api, "ns")
        cleanups.delete("a")
        cleanups.delete("a")
        with pytest.raises(ApiRefused):
            cleanups.delete("a")


def test_cleanups_and_nodes_are_followed_where_they_are(tmp_path: Path) -> None:
    with serving(tmp_path, listing(version=1), listing(version=1)) as (api, script):
        for followed in (Cleanups(api, "ns").watch(), ConntrackNodes(api).watch()):
            next(followed.events())
        assert [asked.path for asked in script.asked] == [CLEANUPS, NODES]


def test_a_conntracknode_is_created_for_its_node(tmp_path: Path) -> None:
    answers = (
        reply(200, {"metadata": {"uid": "n-1"}}),
        reply(201, thing("node1", 1)),
        refusal(404, "NotFound"),
    )
    with serving(tmp_path, *answers) as (api, script):
        nodes = ConntrackNodes(api)
        owner = nodes.node_owner("node1")
        assert owner == Owner(name="node1", uid="n-1")
        assert nodes.create("node1", owner=owner)["metadata"]["name"] == "node1"
        [reference] = script.asked[1].body["metadata"]["ownerReferences"]
        assert reference["uid"] == "n-1"
        assert nodes.node_owner("wrong-name") is None


def test_a_conntracknode_that_is_there_is_taken_as_it_is(tmp_path: Path) -> None:
    answers = (
        refusal(409, "AlreadyExists"),
        reply(200, thing("node1", 5)),
        refusal(403, "Forbidden"),
        refusal(403, "Forbidden"),
        refusal(404, "NotFound"),
    )
    with serving(tmp_path, *answers) as (api, script):
        nodes = ConntrackNodes(api)
        assert nodes.create("node1", owner=None)["metadata"]["resourceVersion"] == "5"
        assert "ownerReferences" not in script.asked[0].body["metadata"]
        with pytest.raises(ApiRefused):
            nodes.create("node1", owner=None)
        with pytest.raises(ApiRefused):
            nodes.get("node1")
        assert nodes.get("node1") is None


def test_status_goes_to_the_status_subresource(tmp_path: Path) -> None:
    with serving(tmp_path, reply(200, {}), reply(200, {})) as (api, script):
        ConntrackNodes(api).patch_status("node1", {"sweptThrough": 3})
        Policies(api).patch_status("all", {"matchedServices": 3})
        assert script.asked[0].path == f"{NODES}/node1/status"
        assert script.asked[0].body == {"status": {"sweptThrough": 3}}
        assert script.asked[1].path == "/apis/synsweep.io/v1alpha1/conntrackpolicies/all/status"


@pytest.mark.parametrize(
    ("answer", "desired"),
    [
        pytest.param(reply(200, {"status": {"desiredNumberScheduled": 3}}), 3, id="known"),
        pytest.param(reply(200, {"metadata": {}}), None, id="not counted yet"),
        pytest.param(refusal(404, "NotFound"), None, id="no such DaemonSet"),
    ],
)
def test_the_daemonset_says_how_many(tmp_path: Path, answer: Any, desired: int | None) -> None:
    with serving(tmp_path, answer) as (api, _):
        assert DaemonSets(api).desired("ns", "synsweep-node") == desired


def test_an_inventory_asks_for_metadata_only_and_not_older_than(tmp_path: Path) -> None:
    pages = (
        listing(thing("a", 1), version=9, more="next"),
        listing(thing("b", 2), version=9),
    )
    with serving(tmp_path, *pages) as (api, script):
        inventory = take_inventory(api, "/things", not_older_than="8")
        assert inventory.objects == {
            ("ns", "a"): Version(uid="uid-a", resource_version="1"),
            ("ns", "b"): Version(uid="uid-b", resource_version="2"),
        }
        assert inventory.resource_version == "9"
        first, second = script.asked
        assert "as=PartialObjectMetadataList" in first.headers["Accept"]
        assert first.query["resourceVersionMatch"] == "NotOlderThan"
        assert second.query == {"limit": "500", "continue": "next"}


def test_an_inventory_that_is_none_is_a_failure(tmp_path: Path) -> None:
    answers = (reply(200, {"items": [{}]}), reply(200, {"metadata": {}}))
    with serving(tmp_path, *answers) as (api, _):
        for _ in answers:
            with pytest.raises(ApiUnavailable, match="no list of metadata"):
                take_inventory(api, "/things")


@pytest.mark.parametrize(
    ("answer", "missing"),
    [
        pytest.param(reply(200, {"resources": [{"name": "a"}, {"name": "b"}]}), (), id="all there"),
        pytest.param(reply(200, {"resources": [{"name": "b"}]}), ("a",), id="one is missing"),
        pytest.param(refusal(404, "NotFound"), ("a", "b"), id="the group is not served"),
    ],
)
def test_which_kinds_are_missing(tmp_path: Path, answer: Any, missing: tuple[str, ...]) -> None:
    with serving(tmp_path, answer) as (api, _):
        assert missing_kinds(api, ("a", "b")) == missing


def test_a_forbidden_discovery_is_said(tmp_path: Path) -> None:
    with serving(tmp_path, refusal(403, "Forbidden")) as (api, _), pytest.raises(ApiRefused):
        missing_kinds(api, ("a",))
