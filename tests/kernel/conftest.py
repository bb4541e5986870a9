"""Namespaces and tables for the kernel tests; everything is put back at the end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from synsweep.conntrack.netlink import NetlinkTable
from tests.kernel.lab import Lab
from tests.kernel.namespaces import Namespace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NETFILTER = Path("/proc/sys/net/netfilter")


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
def global_setting() -> Iterator[Callable[[str, int], None]]:
    """Set a conntrack setting that is global over namespaces; put back afterwards.

    It can be set in the first namespace only: before the test steps into its own.
    """
    before: dict[str, str] = {}

    def change(name: str, value: int) -> None:
        path = NETFILTER / name
        before.setdefault(name, path.read_text(encoding="ascii"))
        path.write_text(str(value), encoding="ascii")

    yield change
    for name, value in before.items():
        (NETFILTER / name).write_text(value, encoding="ascii")
