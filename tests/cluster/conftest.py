"""The clusters that these tests stand on: started once for a session, taken down at its end."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.conftest import needs
from tests.rig import images
from tests.rig import needs as rig_needs
from tests.rig.cluster import Cluster, build
from tests.rig.control_plane import ControlPlane
from tests.rig.errors import NeedsMissing

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def api_server() -> Iterator[ControlPlane]:
    """Give a real API server without nodes: schemas, admission rules, permissions."""
    try:
        rig_needs.check_control_plane()
    except NeedsMissing as error:
        needs(available=False, what="; ".join(error.missing))
    with ControlPlane.up() as api:
        yield api


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Give a three-node cluster with the operator's image; PROXY_MODE is kube-proxy's mode."""
    try:
        build()
    except NeedsMissing as error:
        needs(available=False, what="; ".join(error.missing))
    mode = os.environ.get("PROXY_MODE") or "iptables"
    with Cluster.up(nodes=3, proxy_mode=mode, images=[images.operator()]) as running:
        yield running
