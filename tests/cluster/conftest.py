"""The clusters that these tests stand on: started once for a session, taken down at its end."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.conftest import needs
from tests.rig import binaries, images
from tests.rig import needs as rig_needs
from tests.rig.cluster import Cluster, build
from tests.rig.control_plane import ControlPlane
from tests.rig.errors import NeedsMissing

if TYPE_CHECKING:
    from collections.abc import Iterator

missing: tuple[str, ...] = ()


def wants_rig(item: pytest.Item) -> bool:
    """Say whether a test stands on a cluster or an API server."""
    fixtures = set(getattr(item, "fixturenames", ()))
    return bool(fixtures & {"cluster", "api_server"}) or any(item.iter_markers("cluster"))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Install and build what the chosen tests need, before the time limit of any of them runs."""
    global missing  # noqa: PLW0603 -- pytest calls two hooks and passes nothing between them
    items = [item for item in session.items if wants_rig(item)]
    if not items or session.config.option.collectonly or os.geteuid() != 0:
        return
    capture = session.config.pluginmanager.getplugin("capturemanager")
    try:
        with capture.global_and_fixture_disabled():
            if all("api_server" in getattr(item, "fixturenames", ()) for item in items):
                rig_needs.check_control_plane()
                binaries.ensure(binaries.API_SERVER)
            else:
                build()
    except NeedsMissing as error:
        missing = error.missing


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip by name what this machine cannot run; CI fails instead."""
    if wants_rig(item):
        needs(not missing, "; ".join(missing))


@pytest.fixture(scope="session")
def api_server() -> Iterator[ControlPlane]:
    """Give a real API server without nodes: schemas, admission rules, permissions."""
    with ControlPlane.up() as api:
        yield api


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Give a three-node cluster with the operator's image; PROXY_MODE is kube-proxy's mode."""
    mode = os.environ.get("PROXY_MODE") or "iptables"
    with Cluster.up(nodes=3, proxy_mode=mode, images=[images.operator()]) as running:
        yield running
