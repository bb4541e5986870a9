"""What the design stands on and a kernel might change: here it would be noticed."""

from __future__ import annotations

import socket
import struct
import time
from typing import TYPE_CHECKING

import pytest

from synsweep.conntrack import framing, wire
from synsweep.conntrack.netlink import NetlinkTable
from synsweep.conntrack.stall import DumpMode
from synsweep.core.flow import Status, TcpState
from tests.kernel.inject import attribute, established, flow, half_open, inject
from tests.kernel.lab import DEAD, FRONTEND, LIVE, Lab, is_connected, reset, settled

if TYPE_CHECKING:
    from tests.kernel.namespaces import Namespace

pytestmark = pytest.mark.kernel


def send_by_hand(body: bytes, *, version: int = 1) -> int:
    """Send a delete that the guard would refuse, in a namespace of its own; return the errno."""
    message = struct.pack("=IHHII", 20 + len(body), 0x102, 5, 1, 0) + bytes([2, version, 0, 0])
    with pytest.raises(wire.NotOneCompleteReplyTuple):
        wire.guard_delete(message + body)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as netlink:
        netlink.send(message + body)
        answer = netlink.recv(4096)
        return framing.error_number(answer, 0, len(answer))


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="no attribute"),
        pytest.param(attribute(12, bytes(4)), id="an id alone"),
        pytest.param(attribute(18, bytes(2)), id="a zone alone"),
        pytest.param(attribute(99, bytes(4)), id="an unknown attribute"),
    ],
)
def test_a_delete_without_a_tuple_flushes_the_table(namespace: Namespace, body: bytes) -> None:
    assert namespace
    inject(established(300))
    assert send_by_hand(body) == 0
    with NetlinkTable(mode=DumpMode.STREAMED) as table:
        assert table.entries().listed == 0


def test_version_1_limits_a_flush_to_one_family(namespace: Namespace) -> None:
    assert namespace
    inject(established(300))
    inject([flow("fd00:1::1", 1, "fd00:96::10", "fd00:2::2")])
    assert send_by_hand(b"", version=wire.NFNETLINK_V1) == 0
    with NetlinkTable(mode=DumpMode.STREAMED) as table:
        assert table.entries().listed == 1
        assert send_by_hand(b"", version=0) == 0
        assert table.entries().listed == 0


def test_the_status_filter_is_honoured_and_said_so(namespace: Namespace) -> None:
    assert namespace
    inject(established(300))
    inject(half_open(3))
    inject([flow("fd00:1::1", 1, "fd00:96::10", "fd00:2::9")])
    with NetlinkTable(mode=DumpMode.FILTERED) as table:
        listing = table.entries()
    assert (listing.listed, len(listing.entries), listing.filtered) == (4, 4, True)


def test_retransmits_and_reconnects_do_not_renew_the_timer(lab: Lab, table: NetlinkTable) -> None:
    lab.translate((FRONTEND, DEAD))
    client = lab.connect(FRONTEND, source_port=43000)
    (entry,) = lab.wait_for_entries(table)
    time.sleep(1.3)  # a retransmit at 1 s
    reset([client])
    lab.connect(FRONTEND, source_port=43000)
    (later,) = lab.wait_for_entries(table)
    assert later.id == entry.id
    assert later.timeout <= entry.timeout - 1


def test_an_entry_of_some_milliseconds_already_shows_an_age_of_1(
    lab: Lab, table: NetlinkTable
) -> None:
    lab.translate((FRONTEND, DEAD))
    started = time.monotonic()
    lab.connect(FRONTEND)
    time.sleep(0.01)
    (entry,) = table.entries().entries
    assert time.monotonic() - started < 0.9
    assert 120 - entry.timeout == 1


def test_dst_nat_marks_translated_flows_only_dst_nat_done_marks_all(
    lab: Lab, table: NetlinkTable
) -> None:
    lab.serve(LIVE)
    lab.translate((FRONTEND, LIVE))
    translated, direct = lab.connect(FRONTEND), lab.connect(LIVE)
    assert settled(lambda: is_connected(translated) and is_connected(direct))
    by_service = lab.entry(table, FRONTEND, LIVE, state=TcpState.ESTABLISHED)
    straight = lab.entry(table, LIVE, LIVE, state=TcpState.ESTABLISHED)
    assert Status.DST_NAT in by_service.status
    assert Status.DST_NAT not in straight.status
    assert Status.DST_NAT_DONE in by_service.status & straight.status


def test_an_rst_removes_an_unreplied_entry_at_once(lab: Lab, table: NetlinkTable) -> None:
    lab.translate((FRONTEND, LIVE))
    lab.connect(FRONTEND)
    assert settled(lambda: table.entries().listed == 0, within=1)
