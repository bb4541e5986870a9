"""The one list-and-watch loop: nothing that happens is missed, whatever the other side does."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

import pytest

from synsweep.cluster.backoff import BackOff
from synsweep.cluster.listwatch import (
    Added,
    Deleted,
    Event,
    Listed,
    ListWatch,
    Modified,
    age,
    created_at,
)
from tests.unit.cluster.scripted_api import (
    SERVER_TIME,
    bookmark,
    event,
    eventually,
    hang,
    listing,
    raw,
    refusal,
    serving,
    thing,
    watch,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from synsweep.cluster.client import Api
    from tests.unit.cluster.scripted_api import Answering, Script

    Follow = Callable[..., tuple["Follower", Script]]

LASTING = 1.1  # seconds: a watch that ends sooner counts as broken


class Follower:
    """Iterates a ListWatch in a thread, as its users do."""

    def __init__(self, api: Api) -> None:
        self.watch = ListWatch(api, "/things", watch_seconds=(1, 1), grace=0.2, longest_pause=0.05)
        self.events: list[Event] = []
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        for happened in self.watch.events():
            self.events.append(happened)

    def said(self) -> list[tuple[str, ...]]:
        """Write down what was told, briefly."""
        return [
            ("listed", *(_name(item) for item in one.items), "-", *map(_name, one.vanished))
            if isinstance(one, Listed)
            else (type(one).__name__.lower(), _name(one.body))
            for one in self.events
        ]


def _name(body: dict[str, dict[str, str]]) -> str:
    return body["metadata"]["name"]


@pytest.fixture
def follow(tmp_path: Path) -> Iterator[Follow]:
    contexts = []
    followers = []

    def start(*answers: Answering) -> tuple[Follower, Script]:
        context = serving(tmp_path, *answers)
        api, script = context.__enter__()
        contexts.append(context)
        followers.append(Follower(api))
        return followers[-1], script

    yield start
    for follower in followers:
        follower.watch.stop()
    for context in contexts:
        context.__exit__(None, None, None)


def test_it_lists_in_pages_and_watches_from_there(follow: Follow) -> None:
    follower, script = follow(
        listing(thing("a", 1), version=7, more="next"),
        listing(thing("b", 2), version=7),
        watch(event("ADDED", thing("c", 8)), event("DELETED", thing("a", 9)), lasts=LASTING),
    )
    eventually(lambda: len(follower.events) == 3)
    assert follower.said() == [("listed", "a", "b", "-"), ("added", "c"), ("deleted", "a")]
    first, second, third, *_ = script.asked
    assert first.query == {"limit": "500"}
    assert second.query == {"limit": "500", "continue": "next"}
    assert third.query["resourceVersion"] == "7"
    assert third.query["allowWatchBookmarks"] == "true"
    assert third.query["timeoutSeconds"] == "1"
    assert follower.watch.synced


def test_a_watch_that_ends_regularly_is_resumed_at_the_last_version(follow: Follow) -> None:
    follower, script = follow(
        listing(version=7),
        watch(event("ADDED", thing("a", 8)), lasts=LASTING),
        watch(bookmark(30), lasts=LASTING),
    )
    eventually(lambda: len(script.asked) == 4)
    assert [asked.query.get("resourceVersion") for asked in script.asked] == [None, "7", "8", "30"]
    assert follower.watch.failures == 0


def test_lines_may_be_cut_anywhere(follow: Follow) -> None:
    lines = event("ADDED", thing("a", 8)) + event("MODIFIED", thing("a", 9))
    pieces = [lines[at : at + 7] for at in range(0, len(lines), 7)]
    follower, _ = follow(listing(version=7), watch(*pieces, lasts=LASTING))
    eventually(lambda: len(follower.events) == 3)
    assert follower.said()[1:] == [("added", "a"), ("modified", "a")]


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(
            watch(event("ERROR", {"code": 410, "message": "too old"})), id="410 in the stream"
        ),
        pytest.param(refusal(410, "Expired"), id="410 instead of a stream"),
        pytest.param(watch(event("ERROR", {"code": 500})), id="another error in the stream"),
        pytest.param(watch(event("ERROR", "what?")), id="an error that is no Status"),
        pytest.param(watch(b"this is no JSON\n"), id="garbage"),
        pytest.param(watch(b"[1, 2]\n"), id="JSON that is no event"),
        pytest.param(watch(b"{}\n"), id="an event without a type"),
        pytest.param(watch(broken=True), id="the connection breaks"),
        pytest.param(watch(), id="the watch ends as soon as it had begun"),
        pytest.param(hang, id="a stalled proxy"),
        pytest.param(raw(503, b"starting"), id="503"),
        pytest.param(refusal(403, "Forbidden"), id="rights are not there yet"),
    ],
)
def test_after_any_failure_it_lists_again_and_compares(follow: Follow, end: Answering) -> None:
    follower, script = follow(
        listing(thing("stays", 1), thing("goes", 2), version=7),
        end,
        listing(thing("stays", 1), thing("comes", 9), version=10),
    )
    eventually(lambda: len(follower.events) == 2)
    assert follower.said()[1] == ("listed", "stays", "comes", "-", "goes")
    again = script.asked[2].query
    assert again["resourceVersion"] == "7"
    assert again["resourceVersionMatch"] == "NotOlderThan"
    assert follower.watch.failures == 1


def test_a_list_that_fails_is_asked_for_again_at_any_version(follow: Follow) -> None:
    """A version of the future (etcd restored) must not be insisted on."""
    follower, script = follow(
        listing(thing("a", 1), version=700),
        watch(broken=True),
        refusal(504, "Timeout", "Too large resource version"),
        listing(thing("a", 1), version=3),
    )
    eventually(lambda: len(follower.events) == 2)
    assert script.asked[2].query["resourceVersion"] == "700"
    assert "resourceVersion" not in script.asked[3].query


def test_repeated_events_are_told_once_and_foreign_ones_ignored(
    follow: Follow, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        follower, _ = follow(
            listing(thing("a", 7), version=7),
            watch(
                event("MODIFIED", thing("a", 7)),
                event("SOMETHING", thing("b", 8)),
                event("ADDED", {"metadata": {}}),
                event("ADDED", None),
                event("ADDED", thing("c", 9)),
                lasts=LASTING,
            ),
        )
        eventually(lambda: len(follower.events) == 2)
    assert follower.said()[1] == ("added", "c")
    assert sum("no object" in record.message for record in caplog.records) == 3


def test_odd_lists_are_failures_and_odd_items_are_left_out(follow: Follow) -> None:
    follower, _ = follow(
        raw(200, b'{"items": 3, "metadata": {}}'),
        raw(200, b'{"items": []}'),
        raw(200, b'{"items": null, "metadata": {"resourceVersion": "1"}}'),
        watch(broken=True),
        listing({"metadata": 3}, thing("a", 1), version=2),
    )
    eventually(lambda: len(follower.events) == 2)
    assert follower.said() == [("listed", "-"), ("listed", "a", "-")]


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param((listing(version=7), hang), id="while it waits for events"),
        pytest.param((), id="while it waits for a list"),
        pytest.param((raw(503, b""),) * 200, id="in the pause after a failure"),
    ],
)
def test_stop_ends_it_at_once(follow: Follow, answers: tuple[Answering, ...]) -> None:
    follower, script = follow(*answers)
    eventually(lambda: script.asked)
    time.sleep(0.1)
    started = time.monotonic()
    follower.watch.stop()
    if answers:
        follower.thread.join(1.0)
        assert not follower.thread.is_alive()
    assert time.monotonic() - started < 1.0


def test_an_event_is_dated_by_the_api_servers_clock(follow: Follow) -> None:
    follower, _ = follow(listing(version=7), watch(event("ADDED", thing("a", 8)), lasts=LASTING))
    eventually(lambda: len(follower.events) == 2)
    listed, added = follower.events
    assert listed.server_time == SERVER_TIME
    assert SERVER_TIME <= added.server_time < SERVER_TIME + 2
    assert follower.watch.silent_for(time.monotonic()) < 2


def test_kinds_of_events_are_told_apart() -> None:
    assert len({Listed, Added, Modified, Deleted}) == 4


def test_age_comes_from_two_moments_of_the_api_server() -> None:
    body = {"metadata": {"creationTimestamp": "2023-11-14T22:13:10Z"}}
    assert created_at(body) == SERVER_TIME - 10
    assert age(body, SERVER_TIME) == 10
    assert age(body, SERVER_TIME - 60) == 0
    with pytest.raises(ValueError, match="creationTimestamp"):
        created_at({"metadata": {}})


def test_pauses_grow_and_are_capped_and_begin_anew() -> None:
    back_off = BackOff(cap=2.0)
    pauses = [max(pause) for pause in zip(*(_pauses() for _ in range(50)), strict=True)]
    assert pauses[0] <= 0.5
    assert 1.0 < pauses[8] <= 2.0
    for _ in range(9):
        back_off.next()
    back_off.reset()
    assert back_off.next() <= 0.5


def _pauses() -> list[float]:
    back_off = BackOff(cap=2.0)
    return [back_off.next() for _ in range(9)]
