"""The clusters that these tests stand on: started once for a session, taken down at its end."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING

import pytest

from tests.cluster import installation
from tests.cluster.observers import eventually
from tests.cluster.oracle import Oracle, restarts, serving_but_condemned
from tests.cluster.shop import CLIENT_NODES, Shop
from tests.conftest import needs
from tests.rig import binaries, images
from tests.rig import needs as rig_needs
from tests.rig.cluster import Cluster, build
from tests.rig.control_plane import ControlPlane
from tests.rig.errors import NeedsMissing

if TYPE_CHECKING:
    from collections.abc import Iterator

# A node that is lost is noticed after 16 s instead of 50 s.
FLAGS = {"kube-controller-manager": ("--node-monitor-grace-period=16s", "--node-monitor-period=2s")}
POLICY = "cluster-default"

missing: tuple[str, ...] = ()


def proxy_mode() -> str:
    """Give kube-proxy's mode in this run."""
    return os.environ.get("PROXY_MODE") or "iptables"


def wants_rig(item: pytest.Item) -> bool:
    """Say whether a test stands on a cluster or an API server."""
    fixtures = set(getattr(item, "fixturenames", ()))
    return bool(fixtures & {"cluster", "api_server"}) or any(item.iter_markers("cluster"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out, with nftables, what is the same in every mode: it runs with iptables."""
    if proxy_mode() == "iptables":
        return
    same = [
        item
        for item in items
        if any(item.iter_markers("any_proxy")) or "api_server" in getattr(item, "fixturenames", ())
    ]
    config.hook.pytest_deselected(items=same)
    items[:] = [item for item in items if item not in same]


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
    operator = images.operator()
    with Cluster.up(nodes=3, proxy_mode=proxy_mode(), images=[operator], flags=FLAGS) as running:
        yield running


@pytest.fixture(scope="session")
def synsweep(cluster: Cluster) -> Cluster:
    """Give the cluster with the operator installed and policy cluster-default in force."""
    installation.install(cluster)
    installation.apply_policy(cluster, POLICY)
    return cluster


@pytest.fixture(scope="session")
def oracle(synsweep: Cluster) -> Iterator[Oracle]:
    """Watch every deletion and every cleanup."""
    watching = Oracle(synsweep)
    watching.start()
    yield watching
    watching.stop()


@pytest.fixture
def operator_may_restart() -> None:
    """Say that this test ends a pod of the operator, on purpose."""


@pytest.fixture(autouse=True)
def nothing_wrong(request: pytest.FixtureRequest) -> Iterator[None]:
    """Hold every test with the operator to this: nothing deleted wrongly, nothing left behind."""
    if "synsweep" not in request.fixturenames:
        yield
        return
    cluster: Cluster = request.getfixturevalue("synsweep")
    watching: Oracle = request.getfixturevalue("oracle")
    before = restarts(cluster)
    yield
    eventually(lambda: not watching.wrong(), 2, f"no wrong deletion: {watching.wrong()[:5]}")
    left = serving_but_condemned(cluster)
    eventually(
        lambda: not serving_but_condemned(cluster), 5, f"no cleanup names what serves: {left}"
    )
    policies = cluster.get_json("conntrackpolicies")["items"]
    assert [policy["metadata"]["name"] for policy in policies] == [POLICY]
    assert policies[0]["spec"]["mode"] == "Enforce" or "stage" in request.fixturenames
    if "operator_may_restart" not in request.fixturenames:
        assert restarts(cluster) == before


@pytest.fixture(scope="module")
def shop(synsweep: Cluster, request: pytest.FixtureRequest) -> Iterator[Shop]:
    """Give a namespace of this module's own, with client pods on CLIENT_NODES or SHOP_CLIENTS."""
    name = request.module.__name__.rpartition(".")[2].removeprefix("test_").replace("_", "-")
    name = f"{name}-{secrets.token_hex(2)}"  # one that no cleanup knows
    made = Shop(synsweep, name, getattr(request.module, "SHOP_CLIENTS", CLIENT_NODES))
    made.open()
    yield made
    made.close()
