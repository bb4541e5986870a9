"""Making the node helpers sweep, so that what is left after it was left on purpose."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.cluster.observers import Seen, all_entries, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.cluster.oracle import Oracle
    from tests.cluster.shop import Shop
    from tests.rig.node import Node

METRICS = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:9469/metrics').read())"
SWEEPS = re.compile(r"synsweep_sweeps_total (\d+)")
WITHIN = 40.0  # seconds: 30 s pass at most between two sweeps for a live cleanup


def sweeps(node: Node) -> int:
    """Ask the helper of a node how often it has swept."""
    found = SWEEPS.search(node.run("python3", "-c", METRICS).stdout)
    assert found
    return int(found[1])


def have_swept(*nodes: Node, times: int = 2) -> None:
    """Change the nodes' rulesets, and wait until they have swept for it; a cleanup must be live."""
    for node in nodes:
        wanted = sweeps(node) + times
        node.run("nft", "add", "table", "ip", "touched")
        try:
            _wait_sweeps(node, wanted)
        finally:
            node.run("nft", "delete", "table", "ip", "touched")


def _wait_sweeps(node: Node, wanted: int) -> None:
    eventually(lambda: sweeps(node) >= wanted, WITHIN, f"{node.name} to sweep")


def wait_condemned(shop: Shop, oracle: Oracle, service: str, gone: Sequence[str]) -> None:
    """Wait until a cleanup names the backends of a Service."""

    def named() -> bool:
        return set(gone) <= {each.backend[0] for each in oracle.condemned(shop.name, service)}

    eventually(named, 10, f"a cleanup of {', '.join(gone)}")


def numbers(node: Node, wanted: Callable[[Seen], bool]) -> set[int]:
    """Give the conntrack ids of a node's entries of some kind."""
    return {seen.number for seen in all_entries(node) if wanted(seen)}


def wait_numbers(node: Node, wanted: Callable[[Seen], bool], what: str) -> set[int]:
    """Wait for entries of some kind, and give their ids."""
    return eventually(lambda: numbers(node, wanted), 20, what)
