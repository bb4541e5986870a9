"""Real kopf against a scripted cluster: it ends for what a watch says, and is started again."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry

from synsweep.controller.following import follow, quieten_kopf
from synsweep.controller.handlers import register
from synsweep.observe.metrics_controller import ControllerMetrics
from tests.unit.cluster.scripted_api import event, hang, listing, refusal, reply, serving, watch
from tests.unit.controller.test_view import serves, versioned
from tests.unit.controller.world import World

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.cluster.scripted_api import Answering, Asked

RESOURCES = {
    "/api/v1": ("v1", {"services": "Service", "namespaces": "Namespace"}),
    "/apis/discovery.k8s.io/v1": ("discovery.k8s.io/v1", {"endpointslices": "EndpointSlice"}),
    "/apis/synsweep.io/v1alpha1": (
        "synsweep.io/v1alpha1",
        {"conntrackpolicies": "ConntrackPolicy"},
    ),
    "/apis/apiextensions.k8s.io/v1": (
        "apiextensions.k8s.io/v1",
        {"customresourcedefinitions": "CustomResourceDefinition"},
    ),
}


class Cluster:
    """Answers by path: discovery, one slice, and watches that begin badly."""

    def __init__(self, *watches: Answering) -> None:
        self.watches = list(watches)
        self.ips = ["10.0.0.1"]

    def next(self, asked: Asked) -> Answering:
        """Answer what kopf asks."""
        if asked.path in RESOURCES:
            return reply(200, _resources(asked.path))
        if asked.path == "/api":
            return reply(200, {"versions": ["v1"]})
        if asked.path == "/apis":
            return reply(200, _groups())
        if "watch" in asked.query:
            slices = asked.path.endswith("/endpointslices")
            return self.watches.pop(0) if slices and self.watches else hang
        if asked.path.endswith("/endpointslices"):
            return listing(versioned(10 + len(self.ips), *self.ips), version=20)
        return listing(version=20)


def _groups() -> dict[str, Any]:
    groups = []
    for path in RESOURCES:
        if path != "/api/v1":
            _, _, group, version = path.split("/")
            known = {"groupVersion": f"{group}/{version}", "version": version}
            groups.append({"name": group, "versions": [known], "preferredVersion": known})
    return {"kind": "APIGroupList", "groups": groups}


def _resources(path: str) -> dict[str, Any]:
    version, kinds = RESOURCES[path]
    return {
        "kind": "APIResourceList",
        "groupVersion": version,
        "resources": [
            {
                "name": plural,
                "singularName": "",
                "kind": kind,
                "namespaced": kind in {"Service", "EndpointSlice"},
                "verbs": ["list", "watch", "patch"],
            }
            for plural, kind in kinds.items()
        ],
    }


@pytest.mark.parametrize(
    ("first", "restarts"),
    [
        pytest.param(watch(event("ERROR", {"code": 500, "message": "odd"})), 1, id="an ERROR"),
        pytest.param(watch(b"this is no JSON\n"), 1, id="garbage"),
        pytest.param(watch(event("ERROR", {"code": 410, "message": "old"})), 0, id="410"),
        pytest.param(watch(broken=True), 0, id="a broken connection"),
        pytest.param(refusal(403, "Forbidden"), 0, id="a right that is missing for a while"),
    ],
)
def test_whatever_a_watch_says_kopf_goes_on_and_the_view_is_kept(
    tmp_path: Path, first: Answering, restarts: int, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = Cluster(first, watch(event("MODIFIED", versioned(15, "10.0.0.2")), lasts=60))
    world = World()
    world.service("web", "10.96.0.10")
    registry = CollectorRegistry()

    async def run() -> None:
        stopping = asyncio.Event()
        following = asyncio.create_task(
            follow(
                registry=lambda: register(world.view, api),
                stopping=stopping,
                take_signals=lambda: None,
                metrics=ControllerMetrics(registry),
            )
        )
        for _ in range(500):
            if serves(world, "10.0.0.2"):
                break
            await asyncio.sleep(0.02)
        stopping.set()
        await asyncio.wait_for(following, 5)

    with caplog.at_level(logging.ERROR), serving(tmp_path) as (api, script):
        script.next = cluster.next  # type: ignore[method-assign]
        asyncio.run(run())
    assert serves(world, "10.0.0.2")
    assert not serves(world, "10.0.0.1")
    assert registry.get_sample_value("synsweep_watch_restarts_total") == restarts


def test_kopf_is_kept_to_what_a_person_needs() -> None:
    quieten_kopf()
    assert not logging.getLogger("kopf.objects").isEnabledFor(logging.INFO)
