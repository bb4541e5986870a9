"""Both ways to read the table say the same; what is asked for is found in any state; zones."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from synsweep.conntrack.netlink import NetlinkTable
from synsweep.conntrack.stall import SPARSE, DumpMode
from synsweep.core.flow import IPPROTO_UDP, TcpState
from synsweep.core.staleness import KeepReason, Outcome
from tests.kernel.inject import established, flow, half_open, inject
from tests.kernel.judging import address, condemn, delete, gone, keep_reason
from tests.kernel.lab import DEAD, FRONTEND, FRONTEND6, Lab, settled

if TYPE_CHECKING:
    from synsweep.conntrack.table import Listing
    from synsweep.core.flow import ConntrackEntry
    from tests.kernel.namespaces import Namespace

pytestmark = pytest.mark.kernel

ZONES = """chain zones {{ type filter hook prerouting priority -300
    ct {direction} zone set 7
}}"""


def mixture() -> None:
    """Everything that a node's table may hold."""
    inject(half_open(50))
    inject(established(500))
    inject(
        [
            flow("fd00:1::1", 1000, "fd00:96::10", "fd00:2::9"),
            flow("fd00:1::1", 1001, "fd00:96::10", "fd00:2::2", state=TcpState.ESTABLISHED,
                 answered=True),
            flow("10.1.0.1", 1000, "10.2.0.9", None),
            flow("10.1.0.1", 1001, "10.96.0.10", "10.2.0.9", zone=7),
            flow("10.1.0.1", 53, "10.96.0.10", "10.2.0.9", protocol=IPPROTO_UDP),
            flow("10.1.0.1", 1002, "10.96.0.10", "10.2.0.9", state=TcpState.ESTABLISHED),
        ]
    )  # fmt: skip


def at_no_time(listing: Listing) -> set[ConntrackEntry]:
    """Its entries but for the seconds that remain to each."""
    return {replace(entry, timeout=0) for entry in listing.entries}


def test_filtered_and_streamed_dumps_find_the_same_entries(namespace: Namespace) -> None:
    assert namespace
    mixture()
    with NetlinkTable(mode=DumpMode.FILTERED) as one, NetlinkTable(mode=DumpMode.STREAMED) as two:
        filtered, streamed = one.entries(), two.entries()
    assert at_no_time(filtered) == at_no_time(streamed)  # a second may begin between the two
    assert len(filtered.entries) == 50 + 3  # half-open, IPv6, in a zone, mid-stream
    assert filtered.filtered
    assert filtered.listed == 54  # and UDP
    assert not streamed.filtered
    assert streamed.listed == 556
    assert filtered.skipped == streamed.skipped == 0


def test_what_is_asked_for_is_found_in_any_state(namespace: Namespace) -> None:
    assert namespace
    mixture()
    asked = frozenset({address("10.2.0.2:8080"), address("[fd00:2::2]:8080")})
    with NetlinkTable(mode=DumpMode.FILTERED) as table:
        listing = table.entries(asked)
        assert table.requests == 1
    found = [one for one in listing.entries if one.backend in asked]
    assert len(found) == 501
    assert {one.tcp_state for one in found} == {TcpState.ESTABLISHED}
    assert len(listing.entries) == 501 + 53
    assert not listing.filtered


@pytest.mark.parametrize("entries", [0, 10, 5_000, 40_000])
def test_the_default_reads_completely_at_every_size(namespace: Namespace, entries: int) -> None:
    assert namespace
    inject(established(entries))
    inject(half_open(7))
    with NetlinkTable() as table:
        for _ in range(3):
            assert len(table.entries().entries) == 7
        assert table.last_dump is not None
        assert table.last_dump.size.entries == entries + 7
        assert table.last_dump.stall > 0


def test_an_entry_in_a_zone_is_addressed_with_its_zone_and_kept_by_the_rule(
    lab: Lab, table: NetlinkTable
) -> None:
    lab.translate((FRONTEND, DEAD), more=ZONES.format(direction=""))
    lab.connect(FRONTEND)
    (entry,) = lab.wait_for_entries(table)
    assert entry.zone == 7
    what = gone(FRONTEND, DEAD)
    assert keep_reason(entry, what) is KeepReason.OTHER_ZONE


def test_a_delete_in_a_zone_leaves_the_same_tuples_in_the_default_zone(
    namespace: Namespace, table: NetlinkTable
) -> None:
    assert namespace
    for zone in (0, 7):
        inject([flow("10.1.0.1", 1000, "10.96.0.10", "10.2.0.9", zone=zone)])
    by_zone = {one.zone: one for one in table.entries().entries}
    assert set(by_zone) == {0, 7}
    what = gone("10.96.0.10:80", "10.2.0.9:8080")
    assert delete(table, condemn(by_zone[0], what), what).outcome is Outcome.DELETED
    assert at_no_time(table.entries()) == {replace(by_zone[7], timeout=0)}
    assert delete(table, condemn(by_zone[0], what), what).outcome is Outcome.ALREADY_GONE
    assert at_no_time(table.entries()) == {replace(by_zone[7], timeout=0)}


@pytest.mark.parametrize("frontend", [FRONTEND, FRONTEND6])
def test_an_entry_with_a_zone_for_one_direction_is_skipped_and_counted(
    lab: Lab, table: NetlinkTable, frontend: str
) -> None:
    backend = DEAD if frontend == FRONTEND else "[fd00:102::9]:8080"
    lab.translate((frontend, backend), more=ZONES.format(direction="original"))
    lab.connect(frontend)
    assert settled(lambda: table.entries().skipped_reasons == {"DirectionalZone": 1})
    assert table.entries().entries == ()


def test_a_table_that_shrank_is_read_whole_at_once(namespace: Namespace) -> None:
    with NetlinkTable() as table:
        inject(half_open(SPARSE + 500))
        assert len(table.entries().entries) == SPARSE + 500
        namespace.run("conntrack", "-F")
        inject(half_open(500))
        for _ in range(2):
            assert len(table.entries().entries) == 500
