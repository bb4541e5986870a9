"""Large tables: nothing live is touched, nothing stale is missed, and the helper does not grow."""

from __future__ import annotations

import resource
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from synsweep.conntrack.netlink import NetlinkTable
from synsweep.conntrack.stall import DumpMode
from synsweep.core.flow import IPPROTO_UDP, TcpState
from synsweep.core.staleness import KeepReason
from tests.kernel import sizes
from tests.kernel.inject import Flow, established, flow, half_open, inject
from tests.kernel.judging import gone, sweep
from tests.kernel.namespaces import Namespace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kernel.namespaces import GlobalSettings

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(600)]

COUNT = Path("/proc/sys/net/netfilter/nf_conntrack_count")
STALE = gone("10.96.0.10:80", "10.2.0.9:8080")
STALE_ENTRIES = 200


def live_flows(count: int) -> Iterator[Flow]:
    """Every kind of flow that may look like a stale one, but for one thing.

    In turn: half-open to a live backend, half-open from another Service's frontend to the gone
    backend, half-open to the gone backend's ip but another port, established to the gone backend,
    picked up mid-stream, in TIME_WAIT, direct to the gone backend's address, UDP, and IPv6.
    """
    kinds: tuple[tuple[str, str | None, dict[str, object]], ...] = (
        ("10.96.0.10", "10.2.0.2", {}),
        ("10.96.0.20", "10.2.0.9", {}),
        ("10.96.0.10", "10.2.0.9", {"backend_port": 8081}),
        ("10.96.0.10", "10.2.0.9", {"state": TcpState.ESTABLISHED, "answered": True}),
        ("10.96.0.10", "10.2.0.9", {"state": TcpState.ESTABLISHED}),
        ("10.96.0.10", "10.2.0.9", {"state": TcpState.TIME_WAIT, "answered": True}),
        ("10.2.0.9", None, {"frontend_port": 8080}),
        ("10.96.0.10", "10.2.0.9", {"protocol": IPPROTO_UDP}),
        ("fd00:96::10", "fd00:2::2", {}),
    )
    for number in range(count):
        frontend, backend, more = kinds[number % len(kinds)]
        high, port = divmod(number, 50_000)
        client = f"fd00:1::{high + 1:x}" if ":" in frontend else f"10.1.{high // 250}.{high % 250}"
        yield flow(client, 1024 + port, frontend, backend, timeout=3_000, **more)


def test_of_many_live_entries_none_is_deleted(shared: GlobalSettings) -> None:
    shared.make_room(sizes.LIVE_ENTRIES)
    with Namespace("live") as namespace, namespace.entered(), NetlinkTable() as table:
        inject(live_flows(sizes.LIVE_ENTRIES))
        inject(half_open(STALE_ENTRIES))
        v6 = gone("[fd00:96::10]:80", "[fd00:2::9]:8080")
        before = int(COUNT.read_text(encoding="ascii"))
        swept = sweep(table, STALE, v6)
        after = int(COUNT.read_text(encoding="ascii"))
        assert swept.deleted == STALE_ENTRIES
        assert {str(one.condemned.entry.backend) for one in swept.deletions} == {"10.2.0.9:8080"}
        assert before - after == STALE_ENTRIES
        assert sweep(table, STALE, v6).deleted == 0
        requests = table.requests
        sweep(table, STALE, v6)
        assert table.requests - requests == 1  # one dump, and not one request more


def test_a_flood_of_half_open_flows_to_other_backends_takes_no_memory(
    shared: GlobalSettings,
) -> None:
    shared.make_room(sizes.LIVE_ENTRIES)
    with Namespace("flood") as namespace, namespace.entered():
        inject(half_open(sizes.LIVE_ENTRIES, backend="10.2.0.2"))
        inject(half_open(100, first=sizes.LIVE_ENTRIES))
        with NetlinkTable() as table:
            tracemalloc.start()
            swept = sweep(table, STALE)
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        assert swept.deleted == 100
        assert swept.kept == {KeepReason.NOT_A_GONE_BACKEND: sizes.LIVE_ENTRIES}
        assert peak < 1_000_000, f"{peak} bytes"


@pytest.mark.parametrize("entries", sizes.table_sizes())
def test_every_sweep_of_a_big_table_is_complete_and_memory_stays_flat(
    entries: int, shared: GlobalSettings
) -> None:
    shared.make_room(entries)
    with Namespace("big") as namespace, namespace.entered():
        inject(established(entries))
        inject(half_open(100, first=entries))
        with NetlinkTable() as warm_up:
            sweep(warm_up, STALE)
        settled = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        first = entries
        for mode in (None, DumpMode.FILTERED, DumpMode.STREAMED):
            with NetlinkTable(mode=mode) as table:
                for _ in range(3):
                    inject(half_open(STALE_ENTRIES, first=first))
                    first += STALE_ENTRIES
                    requests = table.requests
                    swept = sweep(table, STALE)
                    assert swept.deleted == STALE_ENTRIES
                    assert table.requests - requests == 1 + 2 * STALE_ENTRIES
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - settled
        assert grown < 10_000, f"{grown} KiB for {entries} entries"
