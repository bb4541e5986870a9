"""Comparing with a list: what was never told is found, and a lagging list invents nothing."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from synsweep.controller.resync import Resync
from synsweep.controller.view import Kind
from tests.unit.cluster.scripted_api import eventually, listing, refusal, serving
from tests.unit.controller.test_view import a_world, serves, versioned

if TYPE_CHECKING:
    from pathlib import Path

    from synsweep.cluster.client import Api
    from tests.unit.cluster.scripted_api import Answering
    from tests.unit.controller.world import World


def metadata(name: str, version: int, *, namespace: str = "shop") -> dict[str, Any]:
    given = {"name": name, "namespace": namespace, "uid": f"uid-{name}"}
    return {"metadata": given | {"resourceVersion": str(version)}}


def lists(
    world: World, *slices: dict[str, Any], version: int = 1000
) -> tuple[Answering, Answering, Answering, Answering]:
    """Answer for slices as given, and for the other kinds as the world knows them."""
    service_version = world.view.known(Kind.SERVICE)["shop", "web"].resource_version
    return (
        listing(*slices, version=version),
        listing(metadata("web", int(service_version)), version=version),
        listing(version=version),
        listing(version=version),
    )


def made(world: World, api: Api, *, every: float = 1000.0) -> tuple[Resync, threading.Event]:
    stopping = threading.Event()
    resync = Resync(
        view=world.view,
        api=api,
        every=every,
        metrics=world.metrics,
        stopping=stopping,
        clock=time.monotonic,
    )
    return resync, stopping


def test_what_is_missing_in_a_newer_list_was_removed(tmp_path: Path) -> None:
    world = a_world()
    with serving(tmp_path, *lists(world)) as (api, script):
        made(world, api)[0].compare()
        assert script.asked[0].query["resourceVersion"] == "10"
        assert script.asked[0].query["resourceVersionMatch"] == "NotOlderThan"
    assert not serves(world, "10.0.0.1")
    assert world.counted("resync_repairs_total", kind="EndpointSlice") == 1


def test_a_list_that_lags_behind_invents_no_removal(tmp_path: Path) -> None:
    world = a_world()
    with serving(tmp_path, *lists(world, version=9)) as (api, _):
        made(world, api)[0].compare()
    assert serves(world, "10.0.0.1")


def test_what_two_lists_show_and_nobody_told_is_read(tmp_path: Path) -> None:
    world = a_world()
    there = metadata("web-1", 12)
    answers = (*lists(world, there), *lists(world, there)[:1])
    found = listing(versioned(12, "10.0.0.7"), version=1000)
    with serving(tmp_path, *answers, found, *lists(world)[1:]) as (api, script):
        resync, _ = made(world, api)
        resync.compare()
        assert serves(world, "10.0.0.1")  # kopf may be about to tell
        resync.compare()
        assert script.asked[5].query == {"fieldSelector": "metadata.name=web-1"}
        assert script.asked[5].path == "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices"
    assert serves(world, "10.0.0.7")


def test_what_changes_all_the_time_is_read_if_nobody_tells(tmp_path: Path) -> None:
    world = a_world()
    first, second = metadata("web-1", 12), metadata("web-1", 13)
    answers = (*lists(world, first), *lists(world, second)[:1])
    found = listing(versioned(13, "10.0.0.7"), version=1000)
    with serving(tmp_path, *answers, found, *lists(world)[1:]) as (api, _):
        resync, _ = made(world, api)
        resync.compare()
        resync.compare()
    assert serves(world, "10.0.0.7")


def test_what_is_told_late_but_told_is_not_read(tmp_path: Path) -> None:
    world = a_world()
    first, second = metadata("web-1", 12), metadata("web-1", 13)
    with serving(tmp_path, *lists(world, first), *lists(world, second)) as (api, script):
        resync, _ = made(world, api)
        resync.compare()
        world.view.take(Kind.SLICE, "MODIFIED", versioned(12, "10.0.0.1"))
        resync.compare()
        assert len(script.asked) == 8
    assert world.counted("resync_repairs_total", kind="EndpointSlice") == 0


def test_a_comparison_that_failed_is_made_again_soon(tmp_path: Path) -> None:
    world = a_world()
    world.view.fill()
    with serving(tmp_path, refusal(504, "Timeout"), *lists(world)) as (api, _):
        resync, stopping = made(world, api)
        threading.Thread(target=resync.run, daemon=True).start()
        world.view.listed_again.set()
        eventually(lambda: not serves(world, "10.0.0.1"))
        stopping.set()
        resync.stop()


def test_the_view_is_whole_when_all_that_a_list_shows_was_told(tmp_path: Path) -> None:
    world = a_world()
    later = metadata("web-2", 20)
    with serving(tmp_path, *lists(world, metadata("web-1", 10), later)) as (api, _):
        resync, stopping = made(world, api)
        thread = threading.Thread(target=resync.run, daemon=True)
        thread.start()
        time.sleep(0.3)
        assert not world.view.filled
        body = versioned(20, "10.0.0.2", uid="uid-web-2")
        body["metadata"]["name"] = "web-2"
        world.view.take(Kind.SLICE, None, body)
        eventually(lambda: world.view.filled)
        stopping.set()
        resync.stop()
        thread.join(1.0)
        assert not thread.is_alive()


def test_it_compares_as_soon_as_kopf_lists_again_and_survives_failures(tmp_path: Path) -> None:
    world = a_world()
    world.view.fill()
    answers = (refusal(403, "Forbidden"), *lists(world))
    with serving(tmp_path, *answers) as (api, script):
        resync, stopping = made(world, api)
        threading.Thread(target=resync.run, daemon=True).start()
        time.sleep(0.1)
        assert script.asked == []
        world.view.listed_again.set()
        eventually(lambda: len(script.asked) == 1)
        world.view.listed_again.set()
        eventually(lambda: not serves(world, "10.0.0.1"))
        stopping.set()
        resync.stop()
