"""Namespaces and tables for the kernel tests; everything is put back at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from synsweep.conntrack.netlink import NetlinkTable
from tests.kernel.lab import Lab
from tests.kernel.namespaces import GlobalSettings, Namespace, remove_leftovers

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session", autouse=True)
def tidy() -> None:
    """Begin without what a killed run left behind."""
    remove_leftovers()


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A client, a node that does DNAT, and its backends; the test stands on the node."""
    with Lab() as lab, lab.node.entered():
        yield lab


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    """An empty namespace; the test stands in it."""
    with Namespace("table") as namespace, namespace.entered():
        yield namespace


@pytest.fixture
def table() -> Iterator[NetlinkTable]:
    """The real table of wherever the test stands."""
    with NetlinkTable() as table:
        yield table


@pytest.fixture
def shared() -> Iterator[GlobalSettings]:
    """Conntrack settings that all namespaces share; put back afterwards."""
    with GlobalSettings() as settings:
        yield settings
