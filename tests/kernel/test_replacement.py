"""The client's next flow takes the old one's place: it must live.

E1, half-open to a dead backend, goes away (its timer, somebody else, our first delete); the client
dials again from the same port and E2, to a live backend, has the same original tuple and, as ids
are made from the object's address and that tuple, mostly the same id.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import TYPE_CHECKING

import pytest

from synsweep.conntrack import framing, wire
from synsweep.core.flow import TcpState
from synsweep.core.staleness import KeepReason, Outcome
from tests.kernel import sizes
from tests.kernel.inject import attribute
from tests.kernel.judging import condemn, delete, gone
from tests.kernel.lab import (
    DEAD,
    DEAD6,
    FRONTEND,
    FRONTEND6,
    LIVE,
    LIVE6,
    OTHER,
    Lab,
    is_connected,
    reset,
    settled,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from synsweep.conntrack.netlink import NetlinkTable
    from synsweep.core.flow import ConntrackEntry

pytestmark = pytest.mark.kernel


@pytest.fixture(autouse=True)
def one_cpu() -> Iterator[None]:
    """Stay on one CPU: its free list gives E2 the very object that E1 had."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


def delete_by_orig_and_id(entry: ConntrackEntry) -> int:
    """What must never be done, done here by hand to show what it does; returns the errno."""
    source = 1 if entry.original.src_ip.version == 4 else 3
    flow = entry.original
    nest = attribute(
        0x8001,
        attribute(source, flow.src_ip.packed) + attribute(source + 1, flow.dst_ip.packed),
    ) + attribute(
        0x8002,
        attribute(1, b"\6")
        + attribute(2, struct.pack("!H", flow.src_port))
        + attribute(3, struct.pack("!H", flow.dst_port)),
    )
    body = attribute(0x8001, nest) + attribute(12, struct.pack("!I", entry.id))
    family = wire.AF_INET if source == 1 else wire.AF_INET6
    message = struct.pack("=IHHII", 20 + len(body), 0x102, 5, 1, 0) + bytes([family, 1, 0, 0])
    with pytest.raises(wire.NotOneCompleteReplyTuple):
        wire.guard_delete(message + body)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as netlink:
        netlink.send(message + body)
        answer = netlink.recv(4096)
        return framing.error_number(answer, 0, len(answer))


def replace_e1_by_e2(
    lab: Lab, table: NetlinkTable, frontend: str, dead: str, live: str
) -> tuple[ConntrackEntry, ConntrackEntry, socket.socket]:
    """E1 half-open to the dead backend, listed; then gone; then E2, answered, in its place."""
    lab.translate((frontend, dead))
    first = lab.connect(frontend, source_port=41000)
    (e1,) = lab.wait_for_entries(table)
    lab.translate((frontend, live))
    reset([first])
    what = gone(frontend, dead)
    assert delete(table, condemn(e1, what), what).outcome is Outcome.DELETED
    second = lab.connect(frontend, source_port=41000)
    assert settled(lambda: is_connected(second))
    e2 = lab.entry(table, frontend, live, state=TcpState.ESTABLISHED)
    assert e2.original == e1.original
    return e1, e2, second


@pytest.mark.parametrize(
    ("frontend", "dead", "live"),
    [
        pytest.param(FRONTEND, DEAD, LIVE, id="IPv4"),
        pytest.param(FRONTEND6, DEAD6, LIVE6, id="IPv6"),
    ],
)
def test_the_original_tuple_would_kill_the_successor_the_reply_tuple_never_does(
    lab: Lab, table: NetlinkTable, frontend: str, dead: str, live: str
) -> None:
    (server,) = lab.serve(live)
    same_id = killed = 0
    for _ in range(sizes.E2_ROUNDS):
        e1, e2, client = replace_e1_by_e2(lab, table, frontend, dead, live)
        same_id += e1.id == e2.id
        what = gone(frontend, dead)
        deletion = delete(table, condemn(e1, what), what)
        assert deletion.outcome is Outcome.ALREADY_GONE
        still = lab.entry(table, frontend, live, state=TcpState.ESTABLISHED)
        assert still.id == e2.id
        killed += delete_by_orig_and_id(e1) == 0
        reset([client])
        lab.accept(server).close()
        lab.node.run("conntrack", "-F")
    assert killed == same_id
    assert killed > 0, "the trap did not show: is this test still worth anything?"


def test_a_successor_to_the_same_backend_is_kept_as_replaced_or_judged_anew(
    lab: Lab, table: NetlinkTable
) -> None:
    lab.serve(LIVE)
    lab.drop(lab.backends, "tcp flags & (syn | ack) == (syn | ack)")
    lab.translate((FRONTEND, LIVE))
    first = lab.connect(FRONTEND, source_port=41001)
    (e1,) = lab.wait_for_entries(table)
    reset([first])
    lab.node.run("conntrack", "-F")
    lab.drop(lab.backends, "")
    second = lab.connect(FRONTEND, source_port=41001)  # both tuples are those of E1
    assert settled(lambda: is_connected(second))
    what = gone(FRONTEND, LIVE)
    deletion = delete(table, condemn(e1, what), what)
    assert deletion.outcome is Outcome.KEPT
    assert deletion.kept in (KeepReason.REPLACED, KeepReason.NOT_SYN_SENT)
    assert lab.entry(table, FRONTEND, LIVE, state=TcpState.ESTABLISHED).seen_reply


def test_another_frontends_flow_on_the_same_reply_tuple_is_kept_as_replaced(
    lab: Lab, table: NetlinkTable
) -> None:
    others = "10.96.0.20:80"
    lab.translate((FRONTEND, DEAD), (others, DEAD))
    first = lab.connect(FRONTEND, source_port=41002)
    (e1,) = lab.wait_for_entries(table)
    reset([first])
    lab.node.run("conntrack", "-F")
    lab.connect(others, source_port=41002)
    (other,) = lab.wait_for_entries(table)
    assert other.reply == e1.reply
    what = gone(FRONTEND, DEAD, OTHER)
    deletion = delete(table, condemn(e1, what), what)
    assert (deletion.outcome, deletion.kept) == (Outcome.KEPT, KeepReason.REPLACED)
    assert deletion.entry is not None
    assert deletion.entry.original == other.original
    assert lab.entry(table, others, DEAD)


def test_an_entry_that_is_gone_is_already_gone(lab: Lab, table: NetlinkTable) -> None:
    lab.translate((FRONTEND, DEAD))
    reset([lab.connect(FRONTEND)])
    (entry,) = lab.wait_for_entries(table)
    lab.node.run("conntrack", "-D", "-p", "tcp")
    what = gone(FRONTEND, DEAD)
    requests = table.requests
    assert delete(table, condemn(entry, what), what).outcome is Outcome.ALREADY_GONE
    assert table.requests - requests == 1
