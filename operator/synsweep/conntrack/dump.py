"""Reads the datagrams of one dump: keeps what is half-open or asked for, counts the rest.

This is the hot path: a streamed dump of 1,000,000 entries passes through `DumpReader.read`, so a
message costs one header, and no object is made for what nobody wants.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from synsweep.conntrack import decode, framing, wire
from synsweep.conntrack.connection import refusal
from synsweep.conntrack.table import ConntrackError

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from synsweep.core.flow import Address, ConntrackEntry

NOWHERE = 1 << 62


class DumpReader:
    """Collects one dump.

    `filtered` stays True while every entry carried NLM_F_DUMP_FILTERED; `listed` counts the entries
    sent, `skipped` those that might have been wanted but could not be read, `others` the half-open
    ones to backends that are not `among` those given. An entry that is sent twice (a bucket may
    repeat) is kept once.
    """

    def __init__(
        self, asked_for: AbstractSet[Address], *, among: AbstractSet[Address] | None = None
    ) -> None:
        self.listed = 0
        self.others = 0
        self.filtered = True
        self.skipped: Counter[decode.Skip] = Counter()
        self._entries: dict[tuple[int, int, int, int], ConntrackEntry] = {}
        self._asked_for = asked_for
        self._asked_ips = frozenset(address.ip.packed for address in asked_for)
        self._among = among
        self._among_ips = (
            None if among is None else frozenset(address.ip.packed for address in among | asked_for)
        )

    @property
    def entries(self) -> tuple[ConntrackEntry, ...]:
        """What was kept."""
        return tuple(self._entries.values())

    def read(self, datagram: bytes) -> bool:
        """Take one datagram; True when it ended the dump.

        Raises:
            ConntrackError: the kernel answered with an error, or with something unreadable.
        """
        search, unpack = decode.HALF_OPEN.search, wire.NLMSGHDR.unpack_from
        asked_ips, new = self._asked_ips, wire.CT_NEW
        offset, last = 0, len(datagram) - wire.NLMSGHDR.size
        listed, flags, done = 0, wire.NLM_F_DUMP_FILTERED, False
        hit = search(datagram)
        hit_at = hit.start() if hit else NOWHERE
        while offset <= last:
            length, kind, flags_now, _, _ = unpack(datagram, offset)
            after = offset + length
            if kind != new or length < wire.HEADER_LENGTH:
                done = self._is_end(datagram, offset, length, kind)
                if done or length < wire.NLMSGHDR.size:
                    break
                offset += (length + 3) & ~3
                continue
            listed += 1
            flags &= flags_now
            if hit_at < after:
                if not self._is_other(datagram, offset, length):
                    self._take(datagram, offset, length)
                hit = search(datagram, after)
                hit_at = hit.start() if hit else NOWHERE
            elif asked_ips and decode.reply_source(datagram, offset, length) in asked_ips:
                self._take(datagram, offset, length)
            offset = after  # attributes are padded, so is the message
        self.listed += listed
        if not flags:
            self.filtered = False
        if not done and offset != len(datagram):
            raise ConntrackError("list entries: the kernel sent a broken datagram")
        return done

    def _is_end(self, datagram: bytes, offset: int, length: int, kind: int) -> bool:
        """Whether NLMSG_DONE ended the dump; other messages than entries are passed over."""
        if kind not in (wire.NLMSG_DONE, wire.NLMSG_ERROR):
            return False
        number = framing.error_number(datagram, offset, length)
        if number > 0:
            raise refusal("list entries", number)
        return kind == wire.NLMSG_DONE

    def _is_other(self, datagram: bytes, offset: int, length: int) -> bool:
        """Pass over a half-open entry to another backend, where its bytes show that at a glance."""
        if self._among_ips is None:
            return False
        source = decode.reply_source(datagram, offset, length)
        if source is None or source in self._among_ips:
            return False
        self.others += decode.is_plain_tcp(datagram, offset, source)
        return True

    def _take(self, datagram: bytes, offset: int, length: int) -> None:
        entry = decode.decode(datagram, offset, length)
        if isinstance(entry, decode.Skip):
            if entry is not decode.Skip.NOT_TCP:
                self.skipped[entry] += 1
            return
        if self._asked_for and entry.backend in self._asked_for:
            wanted = True
        else:
            wanted = entry.is_dnat and not entry.seen_reply
            if wanted and self._among is not None and entry.backend not in self._among:
                self.others += 1
                wanted = False
        if wanted:
            key = (entry.id, entry.zone, entry.reply.src_port, entry.reply.dst_port)
            self._entries[key] = entry
