"""What `kubectl describe conntrackpolicy` says: status, conditions, Events."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from synsweep.controller.announcing import note_of_invalid, notes_about
from synsweep.controller.fleet import Tally
from synsweep.controller.status import Surroundings, policy_status
from synsweep.controller.view import SeenPolicy
from synsweep.core.policy import PolicyInvalid, read_policy

if TYPE_CHECKING:
    from collections.abc import Mapping

NOW = "2026-01-02T00:00:00Z"
AROUND = Surroundings(
    matched_services=12,
    nodes_ready=3,
    nodes_total=3,
    nodes_unsupported=0,
    deleted_entries=40,
    last_cleanup="",
)
INVALID = PolicyInvalid(name="all", field="spec.mode", value="Odd", allowed="Enforce")


def a_policy(*, invalid: PolicyInvalid | None = None, **spec: Any) -> SeenPolicy:
    metadata = {"name": "all", "uid": "p-1", "generation": 4}
    return SeenPolicy(
        name="all",
        uid="p-1",
        generation=4,
        status={},
        good=read_policy({"metadata": metadata, "spec": spec}),
        invalid=invalid,
    )


def conditions(
    policy: SeenPolicy,
    around: Surroundings = AROUND,
    previous: Mapping[str, Any] | None = None,
) -> dict[str, dict[str, Any]]:
    status = policy_status(policy, around, previous=previous or {}, wall_now=NOW)
    return {one["type"]: one for one in status["conditions"]}


def test_the_status_says_what_the_policy_does_and_where() -> None:
    around = replace(AROUND, last_cleanup="2026-01-01T10:00:00Z")
    status = policy_status(a_policy(), around, previous={}, wall_now=NOW)
    assert {name: value for name, value in status.items() if name != "conditions"} == {
        "observedGeneration": 4,
        "matchedServices": 12,
        "nodesReady": 3,
        "nodesTotal": 3,
        "deletedEntries": 40,
        "lastCleanupTime": "2026-01-01T10:00:00Z",
    }
    assert {one["observedGeneration"] for one in status["conditions"]} == {4}


@pytest.mark.parametrize(
    ("policy", "around", "ready", "degraded"),
    [
        pytest.param(
            a_policy(), AROUND, ("True", "Enforcing"), ("False", "AsExpected"), id="all is well"
        ),
        pytest.param(
            a_policy(mode="DryRun"),
            AROUND,
            ("True", "DryRun"),
            ("False", "AsExpected"),
            id="a dry run",
        ),
        pytest.param(
            a_policy(mode="Disabled"),
            replace(AROUND, nodes_ready=0),
            ("True", "Disabled"),
            ("True", "NodesNotReady"),
            id="disabled needs no node",
        ),
        pytest.param(
            a_policy(),
            replace(AROUND, nodes_ready=2),
            ("True", "Enforcing"),
            ("True", "NodesNotReady"),
            id="one node is missing",
        ),
        pytest.param(
            a_policy(),
            replace(AROUND, nodes_ready=0, nodes_total=0),
            ("False", "NoNodeReady"),
            ("True", "NodesNotReady"),
            id="no helper anywhere",
        ),
        pytest.param(
            a_policy(),
            replace(AROUND, nodes_unsupported=1),
            ("True", "Enforcing"),
            ("True", "NodesUnsupported"),
            id="a node with IPVS",
        ),
        pytest.param(
            a_policy(invalid=INVALID),
            AROUND,
            ("False", "PolicyInvalid"),
            ("True", "PolicyInvalid"),
            id="invalid",
        ),
    ],
)
def test_conditions(
    policy: SeenPolicy, around: Surroundings, ready: object, degraded: object
) -> None:
    found = conditions(policy, around)
    assert (found["Ready"]["status"], found["Ready"]["reason"]) == ready
    assert (found["Degraded"]["status"], found["Degraded"]["reason"]) == degraded


def test_an_invalid_policy_names_the_field_and_says_what_stays() -> None:
    message = conditions(a_policy(invalid=INVALID))["Ready"]["message"]
    assert "spec.mode" in message
    assert "last valid version stays" in message
    never_good = replace(a_policy(invalid=INVALID), good=None)
    assert "nothing is done" in conditions(never_good)["Ready"]["message"]
    assert conditions(never_good)["MisroutedHandled"]["status"] == "False"


@pytest.mark.parametrize(
    ("misrouted", "status", "reason"),
    [
        ("Report", "False", "NotSupported"),
        ("Reset", "False", "NotSupported"),
        ("Ignore", "True", "Ignored"),
    ],
)
def test_misrouted_is_never_silently_ignored(misrouted: str, status: str, reason: str) -> None:
    found = conditions(a_policy(misrouted=misrouted))["MisroutedHandled"]
    assert (found["status"], found["reason"]) == (status, reason)
    assert misrouted in found["message"]


def test_the_time_of_a_transition_stays_while_the_status_does() -> None:
    first = policy_status(a_policy(), AROUND, previous={}, wall_now="2026-01-01T00:00:00Z")
    same = policy_status(a_policy(), AROUND, previous=first, wall_now=NOW)
    assert same == first
    worse = conditions(a_policy(), replace(AROUND, nodes_ready=0), previous=first)
    assert worse["Ready"]["lastTransitionTime"] == NOW
    assert worse["MisroutedHandled"]["lastTransitionTime"] == "2026-01-01T00:00:00Z"


def test_what_an_older_version_wrote_is_kept_or_made_anew() -> None:
    previous = {"lastCleanupTime": "2026-01-01T00:00:00Z", "conditions": [{"type": 3}]}
    status = policy_status(a_policy(), AROUND, previous=previous, wall_now=NOW)
    assert status["lastCleanupTime"] == "2026-01-01T00:00:00Z"
    assert len(status["conditions"]) == 3


def test_events_say_how_many_and_where() -> None:
    tally = Tally(deleted={"node1": 3, "node2": 20}, found={"node1": 1})
    deleted, found = notes_about(a_policy(), tally)
    assert deleted.reason == "StaleEntriesDeleted"
    assert deleted.message == (
        "Deleted 23 half-open connections to backends that are gone, on 2 nodes, most on node2 (20)"
    )
    assert found.reason == "StaleEntriesFound"
    assert found.message.endswith("1 half-open connection to backends that are gone, on node node1")
    assert found.involved.namespace == ""


def test_nothing_done_makes_no_event() -> None:
    assert list(notes_about(a_policy(), Tally())) == []


def test_an_invalid_policy_is_an_event_that_names_the_field() -> None:
    note = note_of_invalid(a_policy(invalid=INVALID))
    assert (note.reason, note.severity) == ("PolicyInvalid", "Warning")
    assert "spec.mode" in note.message
    assert "last valid version stays" in note.message
    assert (
        "nothing is done" in note_of_invalid(replace(a_policy(invalid=INVALID), good=None)).message
    )
