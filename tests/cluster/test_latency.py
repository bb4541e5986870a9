"""Few removals, to see that they are quick enough to be safe; bench/latency.py measures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bench import latency
from tests.cluster.figures import record, repetitions
from tests.cluster.shop import IN_TIME

if TYPE_CHECKING:
    from tests.rig.cluster import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

REMOVALS = repetitions("REMOVALS", 10)
CLEANUP_WITHIN = 1.5  # seconds: three times the goal


def test_entries_are_gone_long_before_the_address_may_be_used_again(synsweep: Cluster) -> None:
    done = latency.measure(synsweep, REMOVALS, spacing=1.0, entries=5)
    record(
        "latency",
        removals=len(done),
        cleanup=[round(each.cleanup_at - each.removed_at, 3) for each in done],
        gone=[round(each.gone_at - each.removed_at, 3) for each in done],
    )
    for each in done:
        assert set(each.ended) == {node.name for node in synsweep.nodes}
        assert each.removed_at < each.cleanup_at < each.gone_at
        assert each.cleanup_at - each.removed_at < CLEANUP_WITHIN
        assert each.gone_at - each.removed_at < IN_TIME
