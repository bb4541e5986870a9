"""The kernel's table: list by dump, delete one entry by GET, judge, DELETE."""

from __future__ import annotations

import errno
import mmap
import threading
import time
from typing import TYPE_CHECKING, Final, Self

from pyroute2.netlink.nfnetlink.nfctsocket import NFCTSocket

from synsweep.conntrack.connection import NARROW, WIDE, Connection, error_name, refusal
from synsweep.conntrack.dump import DumpReader
from synsweep.conntrack.stall import SPARSE, DumpCost, DumpMode, StallGuard
from synsweep.conntrack.sysctls import table_size
from synsweep.conntrack.table import Listing
from synsweep.core.flow import ConntrackEntry
from synsweep.core.staleness import Deletion, KeepReason, Outcome, is_same_entry

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Set as AbstractSet
    from types import TracebackType

    from synsweep.conntrack.connection import NetlinkSocket
    from synsweep.conntrack.table import Judge
    from synsweep.core.flow import Address
    from synsweep.core.staleness import CondemnedEntry

DEFAULT_MAX_STALL: Final = 0.005
LARGEST_GOODSIZE: Final = 1 << 13  # bytes


class NetlinkTable:
    """The conntrack table of the network namespace that the calling thread is in.

    Each thread gets its own socket on first use; `close` closes the calling thread's, as leaving a
    `with` block does. An error closes it too, so that the next call starts afresh. `max_stall` is
    in seconds (see stall.py); `mode` overrides the choice, for benches. `requests` counts netlink
    requests, `last_dump` describes the newest dump.
    """

    def __init__(
        self,
        *,
        max_stall: float = DEFAULT_MAX_STALL,
        mode: DumpMode | None = None,
        open_socket: Callable[[], NetlinkSocket] = NFCTSocket,
    ) -> None:
        self.requests = 0
        self.last_dump: DumpCost | None = None
        self.stall_guard = StallGuard(max_stall)
        self._mode = mode
        self._open_socket = open_socket
        self._local = threading.local()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the calling thread's socket."""
        connection: Connection | None = getattr(self._local, "connection", None)
        if connection is not None:
            self._local.connection = None
            connection.close()

    def entries(
        self,
        asked_for: AbstractSet[Address] = frozenset(),
        *,
        among: AbstractSet[Address] | None = None,
    ) -> Listing:
        """List the unanswered DNATed TCP entries, and all TCP entries whose backend is asked for.

        With `among` only the unanswered ones to these backends; the others are counted.

        Asked-for entries may be in any state, so asking for some reads the whole table unfiltered.

        Raises:
            ConntrackUnavailable: no capability, no module.
            ConntrackError: the dump failed.
        """
        started = time.monotonic()
        size = table_size()
        mode = self._mode or self.stall_guard.choose(size)
        if asked_for:
            mode = DumpMode.STREAMED
        reader = DumpReader(asked_for, among=among)
        connection = self._dump(reader, mode, narrow() if size.entries <= SPARSE else WIDE)
        if not reader.filtered:
            mode = DumpMode.STREAMED  # also where the kernel ignored the filter
        seconds = time.monotonic() - started
        cost = DumpCost(
            mode=mode,
            size=size,
            copied=reader.listed,
            seconds=seconds,
            stall=connection.longest_call,
            kernel_seconds=connection.kernel_seconds,
        )
        self.last_dump = cost
        self.stall_guard.learn(cost)
        return Listing(
            entries=reader.entries,
            listed=reader.listed,
            others=reader.others,
            skipped=reader.skipped.total(),
            filtered=mode is DumpMode.FILTERED,
            seconds=seconds,
            skipped_reasons={reason.value: count for reason, count in reader.skipped.items()},
        )

    def _dump(self, reader: DumpReader, mode: DumpMode, receive_bytes: int) -> Connection:
        """Let the reader read one whole dump; return the connection, whose clock has its cost."""
        half_open_only = mode is DumpMode.FILTERED
        try:
            connection = self._connection_for(receive_bytes)
            connection.reset_clock()
            self.requests += 1
            for datagram in connection.dump(
                half_open_only=half_open_only, receive_bytes=receive_bytes
            ):
                if reader.read(datagram):
                    break
        except OSError as error:
            self.close()
            raise refusal("list entries", error.errno or 0) from error
        except BaseException:
            self.close()  # the rest of the dump is still to come on this socket
            raise
        return connection

    def delete(self, condemned: CondemnedEntry, judge: Judge) -> Deletion:
        """Delete exactly the judged entry: get it again, judge it again, delete it at once."""
        try:
            return self._delete(condemned, judge)
        except OSError as error:
            self.close()
            name = error_name(error.errno or 0)
            return Deletion(condemned=condemned, outcome=Outcome.FAILED, error=name)

    def _delete(self, condemned: CondemnedEntry, judge: Judge) -> Deletion:
        connection = self._connection()
        self.requests += 1
        number, now = connection.get(condemned.entry)
        if number:
            return _refused(condemned, number, None)
        if not isinstance(now, ConntrackEntry):  # unreadable now: so not what was judged
            return _kept(condemned, KeepReason.REPLACED, None)
        reason = judge(now) if is_same_entry(condemned.entry, now) else KeepReason.REPLACED
        if reason is not None:
            return _kept(condemned, reason, now)
        self.requests += 1
        number = connection.delete(now)
        if number:
            return _refused(condemned, number, now)
        return Deletion(condemned=condemned, outcome=Outcome.DELETED, entry=now)

    def _connection_for(self, receive_bytes: int) -> Connection:
        """Return a socket that never gave the kernel a larger buffer than this.

        The kernel remembers the largest (`netlink_recvmsg`, net/netlink/af_netlink.c) and makes the
        datagrams of later dumps as large, so a smaller buffer would cut them off.
        """
        if getattr(self._local, "widest", 0) > receive_bytes:
            self.close()
        connection = self._connection()
        self._local.widest = receive_bytes
        return connection

    def _connection(self) -> Connection:
        connection: Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = Connection(self._open_socket)
        return connection


def narrow(page_bytes: int = mmap.PAGESIZE) -> int:
    """Say how small a buffer may be: the kernel fills up to 8 KiB of it where pages are larger.

    See NLMSG_GOODSIZE in include/linux/netlink.h; pages of 16 and 64 KiB are common on arm64.
    """
    return max(NARROW, min(page_bytes, LARGEST_GOODSIZE))


def _refused(condemned: CondemnedEntry, number: int, now: ConntrackEntry | None) -> Deletion:
    if number == errno.ENOENT:  # gone, or (from the delete) replaced by one with another id
        return Deletion(condemned=condemned, outcome=Outcome.ALREADY_GONE, entry=now)
    return Deletion(
        condemned=condemned, outcome=Outcome.FAILED, error=error_name(number), entry=now
    )


def _kept(condemned: CondemnedEntry, reason: KeepReason, now: ConntrackEntry | None) -> Deletion:
    return Deletion(condemned=condemned, outcome=Outcome.KEPT, kept=reason, entry=now)
