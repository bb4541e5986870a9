"""Whatever is not half-open is kept: real flows in every TCP state, and other protocols."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from synsweep.core.flow import TcpState
from synsweep.core.staleness import KeepReason, Outcome
from tests.kernel.judging import address, condemn, delete, gone, keep_reason, sweep
from tests.kernel.lab import DEAD, FRONTEND, FRONTEND6, LIVE, LIVE6, Lab, is_connected, settled

if TYPE_CHECKING:
    from synsweep.conntrack.netlink import NetlinkTable
    from synsweep.core.flow import ConntrackEntry

pytestmark = pytest.mark.kernel

SYN_ACK = "tcp flags & (syn | ack) == (syn | ack)"
PURE_ACK = "tcp flags & (syn | ack) == ack"


def open_flow(lab: Lab, frontend: str = FRONTEND, live: str = LIVE) -> tuple[socket.socket, ...]:
    """Make one answered connection: (client's end, server's end)."""
    (server,) = lab.serve(live)
    lab.translate((frontend, live))
    client = lab.connect(frontend)
    assert settled(lambda: is_connected(client))
    accepted = lab.accept(server)
    client.settimeout(5)
    return client, accepted


def assert_kept(table: NetlinkTable, entry: ConntrackEntry, *reasons: KeepReason) -> None:
    """The very backend of this flow is gone, and still the flow is left alone."""
    what = gone(str(entry.frontend), str(entry.backend))
    assert keep_reason(entry, what) in reasons
    assert sweep(table, what).deleted == 0
    (still,) = [
        one for one in table.entries(frozenset({entry.backend})).entries if one.id == entry.id
    ]
    assert still.tcp_state is entry.tcp_state


@pytest.mark.parametrize(
    ("frontend", "live"),
    [pytest.param(FRONTEND, LIVE, id="IPv4"), pytest.param(FRONTEND6, LIVE6, id="IPv6")],
)
def test_an_established_connection_is_kept(
    lab: Lab, table: NetlinkTable, frontend: str, live: str
) -> None:
    client, server = open_flow(lab, frontend, live)
    entry = lab.entry(table, frontend, live, state=TcpState.ESTABLISHED)
    assert_kept(table, entry, KeepReason.NOT_SYN_SENT)
    client.send(b"still here")
    assert server.recv(64) == b"still here"
    server.close()


def test_a_connection_whose_handshake_is_under_way_is_kept(lab: Lab, table: NetlinkTable) -> None:
    lab.drop(lab.client, PURE_ACK)  # the third packet never arrives
    lab.serve(LIVE)
    lab.translate((FRONTEND, LIVE))
    lab.connect(FRONTEND)
    entry = lab.entry(table, FRONTEND, LIVE, state=TcpState.SYN_RECV)
    assert_kept(table, entry, KeepReason.NOT_SYN_SENT)


def test_a_connection_whose_end_is_not_acknowledged_is_kept(lab: Lab, table: NetlinkTable) -> None:
    client, _ = open_flow(lab)
    lab.drop(lab.backends, PURE_ACK)
    client.shutdown(socket.SHUT_WR)
    entry = lab.entry(table, FRONTEND, LIVE, state=TcpState.FIN_WAIT)
    assert_kept(table, entry, KeepReason.NOT_SYN_SENT)


def test_connections_that_end_are_kept_in_every_state(lab: Lab, table: NetlinkTable) -> None:
    client, server = open_flow(lab)
    client.shutdown(socket.SHUT_WR)
    entry = lab.entry(table, FRONTEND, LIVE, state=TcpState.CLOSE_WAIT)
    assert_kept(table, entry, KeepReason.NOT_SYN_SENT)
    lab.drop(lab.client, PURE_ACK)
    server.close()
    entry = lab.entry(table, FRONTEND, LIVE, state=TcpState.LAST_ACK)
    assert_kept(table, entry, KeepReason.NOT_SYN_SENT)
    lab.drop(lab.client, "")
    entry = lab.entry(table, FRONTEND, LIVE, state=TcpState.TIME_WAIT)
    assert_kept(table, entry, KeepReason.NOT_SYN_SENT)


def test_a_connection_that_was_reset_is_kept(lab: Lab, table: NetlinkTable) -> None:
    client, server = open_flow(lab)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()
    entry = lab.entry(table, FRONTEND, LIVE, state=TcpState.CLOSE)
    assert_kept(table, entry, KeepReason.NOT_SYN_SENT)
    server.close()


def test_a_connection_picked_up_mid_stream_is_unreplied_and_kept(
    lab: Lab, table: NetlinkTable
) -> None:
    client, server = open_flow(lab)
    lab.drop(lab.backends, "meta l4proto tcp")
    lab.node.run("conntrack", "-D", "-p", "tcp")
    client.send(b"mid-stream")  # with tcp_loose this makes a new entry
    (entry,) = lab.wait_for_entries(table)
    assert entry.tcp_state is TcpState.ESTABLISHED
    assert not entry.seen_reply  # conntrack(8): ESTABLISHED ... [UNREPLIED]
    assert entry.is_dnat
    assert "[UNREPLIED]" in lab.node.run("conntrack", "-L", "-p", "tcp", "--state", "ESTABLISHED")
    assert_kept(table, entry, KeepReason.NOT_SYN_SENT)
    lab.drop(lab.backends, "")
    assert settled(lambda: server.recv(64) == b"mid-stream")
    server.close()


def test_udp_is_never_even_listed(lab: Lab, table: NetlinkTable) -> None:
    lab.node.run(
        "nft", "-f", "-",
        given="""table ip dns { chain pre { type nat hook prerouting priority -100
            ip daddr 10.96.0.10 udp dport 53 dnat to 10.102.0.9:53
        }
        }""",
    )  # fmt: skip
    with lab.client.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"?", ("10.96.0.10", 53))
    assert settled(lambda: "udp" in lab.node.run("conntrack", "-L", "-p", "udp"))
    listing = table.entries()
    assert listing.entries == ()
    assert listing.skipped == 0
    asked = table.entries(frozenset({address("10.102.0.9:53")}))
    assert (asked.entries, asked.skipped) == ((), 0)


def test_an_entry_answered_between_list_and_delete_is_kept(lab: Lab, table: NetlinkTable) -> None:
    lab.drop(lab.backends, SYN_ACK)
    lab.serve(LIVE)
    lab.translate((FRONTEND, LIVE))
    client = lab.connect(FRONTEND)
    (entry,) = lab.wait_for_entries(table)
    what = gone(FRONTEND, LIVE)
    condemned = condemn(entry, what)
    lab.drop(lab.backends, "")
    assert settled(lambda: is_connected(client))
    requests = table.requests
    deletion = delete(table, condemned, what)
    assert deletion.outcome is Outcome.KEPT
    assert deletion.kept is KeepReason.NOT_SYN_SENT
    assert deletion.entry is not None
    assert deletion.entry.id == entry.id
    assert table.requests - requests == 1  # looked, and asked for nothing more
    assert is_connected(client)


def test_a_syn_sent_entry_to_a_closed_port_removes_itself(lab: Lab, table: NetlinkTable) -> None:
    lab.translate((FRONTEND, LIVE))  # nobody listens: RST
    lab.connect(FRONTEND)
    what = gone(FRONTEND, LIVE, DEAD)
    assert settled(lambda: sweep(table, what).listing.entries == ())
