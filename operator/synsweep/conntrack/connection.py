"""One netlink socket of one thread: requests out, datagrams in, errors told apart.

pyroute2 opens the socket; its decoder is not used (it takes 0.6 ms for an entry).
"""

from __future__ import annotations

import errno
import socket
import struct
import time
from typing import TYPE_CHECKING, Final, Protocol

from pyroute2.netlink.nfnetlink.nfctsocket import NFCTSocket

from synsweep.conntrack import decode, framing, wire
from synsweep.conntrack.table import ConntrackError, ConntrackUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from synsweep.core.flow import ConntrackEntry

WIDE: Final = 1 << 16  # the kernel fills at most 32 KiB of it, some 140 entries
NARROW: Final = 1 << 12  # some 17 entries: the walk over a sparse table is interrupted oftener
ANSWER_WITHIN: Final = 10  # seconds for one datagram; the kernel needs milliseconds
MISSING: Final = {
    errno.EPERM: "CAP_NET_ADMIN is not effective in the user namespace that owns this network "
    "namespace (run as uid 0 with that capability; other uids lose it)",
    errno.EINVAL: "the kernel module nf_conntrack_netlink is missing",
    errno.EPROTONOSUPPORT: "the kernel has no nfnetlink (module nfnetlink)",
    errno.EAFNOSUPPORT: "the kernel has no netlink sockets, or a seccomp profile forbids them",
}


def error_name(number: int) -> str:
    """Name an errno the way people search for it."""
    return errno.errorcode.get(number, f"errno {number}")


def refusal(verb: str, number: int) -> ConntrackError:
    """Tell what is missing here, or else what the kernel said."""
    if number in MISSING:
        return ConntrackUnavailable(f"{verb}: {error_name(number)}: {MISSING[number]}")
    return ConntrackError(f"{verb}: {error_name(number)}")


class NetlinkSocket(Protocol):
    """What is needed of a socket; pyroute2's has it."""

    def send(self, data: bytes, /) -> int:
        """Send one datagram."""
        ...

    def recv(self, size: int, /) -> bytes:
        """Wait for one datagram."""
        ...

    def setsockopt(self, level: int, option: int, value: bytes, /) -> None:
        """Set an option."""
        ...

    def close(self) -> None:
        """Close it."""
        ...


class Connection:
    """A ctnetlink socket. Not for two threads; close it after use.

    `requests` counts what was sent; `longest_call` and `kernel_seconds` are the CPU time of the
    longest and of all calls that a dump made since `reset_clock`: the kernel walks its table inside
    those calls, with packet processing off on that CPU. Every method raises OSError as the socket
    does; EAGAIN means that no answer came for ANSWER_WITHIN seconds.
    """

    def __init__(self, open_socket: Callable[[], NetlinkSocket] = NFCTSocket) -> None:
        self.requests = 0
        self.longest_call = 0.0
        self.kernel_seconds = 0.0
        self._sequence = 0
        self._socket = open_socket()
        self._send, self._receive = self._socket.send, self._socket.recv  # looked up once
        seconds = struct.pack("@ll", ANSWER_WITHIN, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, seconds)

    def close(self) -> None:
        """Close the socket. Harmless when it is closed already."""
        self._socket.close()

    def next_sequence(self) -> int:
        """Number the next request."""
        self._sequence = self._sequence % 0xFFFF_FFFF + 1
        return self._sequence

    def reset_clock(self) -> None:
        """Start `longest_call` and `kernel_seconds` anew."""
        self.longest_call = self.kernel_seconds = 0.0

    def dump(self, *, half_open_only: bool, receive_bytes: int = WIDE) -> Iterator[bytes]:
        """Yield the datagrams of a whole dump, the one with NLMSG_DONE last.

        The kernel makes datagrams as large as the largest `receive_bytes` this socket ever gave.
        The caller finds the end in what it reads, and stops iterating there.
        """
        request = wire.dump_request(self.next_sequence(), half_open_only=half_open_only)
        self.requests += 1
        clock, started = time.thread_time, time.thread_time()
        self._send(request)  # makes the first datagram
        self._count_call(clock() - started)
        while True:
            started = clock()
            datagram = self._receive(receive_bytes)
            self._count_call(clock() - started)
            yield datagram

    def stats(self) -> int:
        """Ask for the statistics and return the errno (0: conntrack answers over netlink)."""
        number, _ = self._answer(wire.stats_request(self.next_sequence()))
        return number

    def get(self, entry: ConntrackEntry) -> tuple[int, ConntrackEntry | decode.Skip | None]:
        """Read the entry that has this reply tuple and zone now: (errno, what is there)."""
        return self._answer(wire.get_request(self.next_sequence(), entry))

    def delete(self, entry: ConntrackEntry) -> int:
        """Delete the entry with this reply tuple, zone and id; return the errno.

        The only function of the program that sends a delete. A delete without a complete tuple
        would flush the node's whole table: hence the guard, on the very bytes, right here.
        """
        message = wire.delete_request(self.next_sequence(), entry)
        wire.guard_delete(message)
        number, _ = self._answer(message)
        return number

    def _answer(self, request: bytes) -> tuple[int, ConntrackEntry | decode.Skip | None]:
        """Send one request and read its answer: an entry, or an errno (0: acknowledged)."""
        self.requests += 1
        self._send(request)
        unpack, ours = wire.NLMSGHDR.unpack_from, self._sequence
        while True:
            datagram = self._receive(NARROW)
            offset = 0
            while len(datagram) - offset >= wire.NLMSGHDR.size:
                length, kind, _, sequence, _ = unpack(datagram, offset)
                if sequence == ours:  # else an answer to something that was given up earlier
                    if kind == wire.NLMSG_ERROR:
                        return framing.error_number(datagram, offset, length), None
                    if kind == wire.CT_NEW:
                        return 0, decode.decode(datagram, offset, length)
                offset += max(wire.NLMSGHDR.size, (length + 3) & ~3)

    def _count_call(self, seconds: float) -> None:
        self.kernel_seconds += seconds
        self.longest_call = max(self.longest_call, seconds)
