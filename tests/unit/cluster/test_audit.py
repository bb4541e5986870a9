"""Events: what is posted, how repetitions merge, and that nothing of it ever disturbs the work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from synsweep.cluster.audit import Involved, Note, Recorder, SpamFilter
from tests.unit.cluster.scripted_api import eventually, refusal, reply, serving

if TYPE_CHECKING:
    from pathlib import Path

    from synsweep.cluster.client import Api

POLICY = Involved(
    api_version="synsweep.io/v1alpha1",
    kind="ConntrackPolicy",
    namespace="",
    name="all",
    uid="p-1",
)
SERVICE = Involved(api_version="v1", kind="Service", namespace="shop", name="web", uid="s-1")


def a_note(involved: Involved = POLICY, **more: Any) -> Note:
    given: dict[str, Any] = {
        "involved": involved,
        "severity": "Normal",
        "reason": "StaleEntriesDeleted",
        "action": "Delete",
        "message": "Deleted 3",
    }
    return Note(**(given | more))


def recorder(api: Api) -> Recorder:
    made = Recorder(api, component="controller", instance="pod-1")
    made.start()
    return made


def test_an_event_of_a_cluster_scoped_object_is_where_kubectl_looks(tmp_path: Path) -> None:
    with serving(tmp_path, reply(201, {})) as (api, script):
        recorder(api).record(a_note(message="x" * 2000))
        eventually(lambda: script.asked)
        [asked] = script.asked
        assert asked.path == "/api/v1/namespaces/default/events"
        assert asked.body["involvedObject"] == {
            "apiVersion": "synsweep.io/v1alpha1",
            "kind": "ConntrackPolicy",
            "name": "all",
            "uid": "p-1",
        }
        assert asked.body["count"] == 1
        assert asked.body["reportingComponent"] == "synsweep.io/controller"
        assert len(asked.body["message"]) == 1024


def test_an_event_of_a_namespaced_object_is_beside_it(tmp_path: Path) -> None:
    with serving(tmp_path, reply(201, {})) as (api, script):
        recorder(api).record(a_note(SERVICE))
        eventually(lambda: script.asked)
        assert script.asked[0].path == "/api/v1/namespaces/shop/events"
        assert script.asked[0].body["involvedObject"]["namespace"] == "shop"


def test_a_repetition_raises_the_count_with_the_new_words(tmp_path: Path) -> None:
    with serving(tmp_path, reply(201, {}), reply(200, {}), reply(201, {})) as (api, script):
        events = recorder(api)
        events.record(a_note())
        events.record(a_note(message="Deleted 5"))
        events.record(a_note(subject="another port"))
        eventually(lambda: len(script.asked) == 3)
        created, repeated, other = script.asked
        assert repeated.method == "PATCH"
        assert repeated.path == f"{created.path}/{created.body['metadata']['name']}"
        assert repeated.body["count"] == 2
        assert repeated.body["message"] == "Deleted 5"
        assert repeated.body["lastTimestamp"].startswith("2023-11-14T")
        assert other.method == "POST"


def test_an_event_that_expired_is_made_anew(tmp_path: Path) -> None:
    answers = (reply(201, {}), refusal(404, "NotFound"), reply(201, {}))
    with serving(tmp_path, *answers) as (api, script):
        events = recorder(api)
        events.record(a_note())
        events.record(a_note())
        eventually(lambda: len(script.asked) == 3)
        assert script.asked[2].body["count"] == 1


def test_what_the_api_server_refuses_is_lost_and_counted(tmp_path: Path) -> None:
    answers = (
        refusal(403, "Forbidden"),
        reply(201, {}),
        refusal(403, "Forbidden"),
        reply(201, {}),
    )
    with serving(tmp_path, *answers) as (api, script):
        events = recorder(api)
        events.record(a_note())  # refused
        events.record(a_note())
        events.record(a_note())  # refused
        events.record(a_note(subject="x"))
        eventually(lambda: len(script.asked) == 4)
        eventually(lambda: events.dropped == 2)
        events.stop(within=1.0)


def test_an_object_may_cause_25_events_and_then_one_per_5_minutes() -> None:
    spam = SpamFilter()
    assert sum(spam.allows("a", 0.0) for _ in range(40)) == 25
    assert spam.allows("b", 0.0)
    assert not spam.allows("a", 299.0)
    assert spam.allows("a", 301.0)
    assert not spam.allows("a", 302.0)


def test_the_filter_remembers_a_limited_number_of_objects() -> None:
    spam = SpamFilter()
    for number in range(5000):
        assert spam.allows(str(number), 0.0)
    assert sum(spam.allows("0", 0.0) for _ in range(30)) == 25  # forgotten, so it begins anew


def test_too_many_are_held_back_without_blocking(tmp_path: Path) -> None:
    with serving(tmp_path) as (api, _):
        events = Recorder(api, component="controller", instance="pod-1", clock=lambda: 0.0)
        for _ in range(30):
            events.record(a_note())
        assert events.dropped == 5
        for number in range(2000):
            uid = Involved(api_version="v1", kind="X", namespace="", name="x", uid=str(number))
            events.record(a_note(uid))
        assert events.dropped > 1000
        events.stop(within=0.1)  # never started, and full: still no complaint
