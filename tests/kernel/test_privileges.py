"""What is missing is named in one line, at once; and what we send never flushes."""

from __future__ import annotations

import errno
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pyroute2.netlink.nfnetlink.nfctsocket import NFCTSocket

import synsweep
from synsweep.conntrack import capability, connection
from synsweep.conntrack.connection import Connection
from synsweep.conntrack.netlink import NetlinkTable
from synsweep.conntrack.table import ConntrackUnavailable
from synsweep.core.staleness import Outcome
from tests.kernel.inject import established, flow, half_open, inject
from tests.kernel.judging import address, condemn, gone, sweep
from tests.unit.conntrack import as_kernel

if TYPE_CHECKING:
    from tests.kernel.namespaces import Namespace

pytestmark = pytest.mark.kernel

SOURCE = Path(synsweep.__file__).parent.parent
CHECK = """
import sys
sys.path.insert(0, {source!r})
from synsweep.conntrack import capability, netlink, table
missing = capability.check()
try:
    netlink.NetlinkTable().entries()
except table.ConntrackUnavailable as error:
    print(error, file=sys.stderr)
sys.exit(missing)
"""


def check_as(*setpriv: str) -> subprocess.CompletedProcess[str]:
    """Run the check in a process with other privileges."""
    return subprocess.run(
        ["setpriv", *setpriv, sys.executable, "-c", CHECK.format(source=str(SOURCE))],
        capture_output=True,
        text=True,
        check=False,
    )


def test_here_nothing_is_missing(namespace: Namespace) -> None:
    assert namespace
    assert capability.check() is None


def test_root_with_net_admin_alone_is_enough(namespace: Namespace) -> None:
    assert namespace
    done = check_as("--bounding-set=-all,+net_admin", "--inh-caps=-all")
    assert (done.returncode, done.stderr) == (0, "")


def test_root_without_net_admin_is_told_so_in_one_line_each_time(namespace: Namespace) -> None:
    assert namespace
    done = check_as("--bounding-set=-net_admin", "--inh-caps=-all")
    listing, check = done.stderr.splitlines()
    assert done.returncode == 1
    for line in (listing, check):
        assert "EPERM" in line
        assert "CAP_NET_ADMIN" in line


def test_a_user_namespace_does_not_help_and_is_named(namespace: Namespace) -> None:
    assert namespace
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", sys.executable, "-c",
         CHECK.format(source=str(SOURCE))],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "user namespace" in done.stderr


def test_a_missing_module_answers_einval_and_is_named(namespace: Namespace) -> None:
    assert namespace
    # A subsystem of nfnetlink that no module has registered answers as ctnetlink would.
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as netlink:
        netlink.send(as_kernel.answer([], kind=0x0F01, flags=5))
        answer = netlink.recv(4096)
    assert int.from_bytes(answer[16:20], sys.byteorder, signed=True) == -errno.EINVAL
    said = connection.refusal(capability.VERB, errno.EINVAL)
    assert isinstance(said, ConntrackUnavailable)
    assert "nf_conntrack_netlink" in str(said)


class RecordingSocket:
    """The real socket, and a note of all that went out."""

    sent: list[bytes]

    def __init__(self) -> None:
        self.real = NFCTSocket()

    def send(self, data: bytes, /) -> int:
        self.sent.append(data)
        return int(self.real.send(data))

    def recv(self, size: int, /) -> bytes:
        return bytes(self.real.recv(size))

    def setsockopt(self, level: int, option: int, value: bytes, /) -> None:
        self.real.setsockopt(level, option, value)

    def close(self) -> None:
        self.real.close()


def test_every_message_that_is_sent_is_harmless_or_names_one_flow(namespace: Namespace) -> None:
    assert namespace
    sent: list[bytes] = []
    RecordingSocket.sent = sent
    inject(half_open(100))
    inject(established(50))
    inject(
        flow(f"fd00:1::{number + 1:x}", 1000, "fd00:96::10", "fd00:2::9", zone=number % 2 * 9)
        for number in range(20)
    )
    inject([flow("10.1.0.1", 7, "10.96.0.10", "10.2.0.9", zone=3)])
    stale = (gone("10.96.0.10:80", "10.2.0.9:8080"), gone("[fd00:96::10]:80", "[fd00:2::9]:8080"))
    with NetlinkTable(open_socket=RecordingSocket) as table:
        listed = table.entries().entries
        swept = sweep(table, *stale)
        for deletion in swept.deletions[:10]:  # again: they are gone
            assert table.delete(deletion.condemned, lambda _: None).outcome is Outcome.ALREADY_GONE
        zoned = [one for one in listed if one.zone]
        judged = condemn(next(one for one in listed if not one.zone), stale[0])
        for one in zoned:  # as if the rule allowed it
            replaced = type(judged)(entry=one, candidate=judged.candidate)
            assert table.delete(replaced, lambda _: None).outcome is Outcome.DELETED
    connected = Connection(RecordingSocket)
    assert connected.stats() == 0
    connected.close()
    deletes = [message for message in sent if as_kernel.verdict(message) != [as_kernel.OTHER]]
    assert len(deletes) == swept.deleted + len(zoned) == 110 + 11
    assert {verdict for one in deletes for verdict in as_kernel.verdict(one)} == {
        as_kernel.DELETE_BY_REPLY
    }
    with NetlinkTable() as table:
        assert len(table.entries(frozenset({address("10.2.0.2:8080")})).entries) == 50
