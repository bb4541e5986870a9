"""Netlink's framing: messages in a datagram, attributes in a message. Nothing of conntrack."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from synsweep.conntrack import wire

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class BrokenAttributes(ValueError):
    """Attributes that do not fit into what holds them."""


def messages(datagram: bytes) -> Iterator[tuple[int, int, int, int, int]]:
    """Yield (offset, length, type, flags, sequence) of each netlink message; stop at a broken one.

    The last thing yielded for a broken tail is (offset, rest, -1, 0, 0).
    """
    unpack, offset, end = wire.NLMSGHDR.unpack_from, 0, len(datagram)
    while offset < end:
        if end - offset < wire.NLMSGHDR.size:
            yield offset, end - offset, -1, 0, 0
            return
        length, kind, flags, sequence, _ = unpack(datagram, offset)
        if length < wire.NLMSGHDR.size or length > end - offset:
            yield offset, end - offset, -1, 0, 0
            return
        yield offset, length, kind, flags, sequence
        offset += (length + 3) & ~3


def error_number(datagram: bytes, offset: int, length: int) -> int:
    """Read errno (positive; 0 is an acknowledgement) of NLMSG_ERROR, or of NLMSG_DONE."""
    if length < wire.NLMSGHDR.size + 4:
        return 0  # a bare NLMSG_DONE says nothing
    return -int(struct.unpack_from("=i", datagram, offset + wire.NLMSGHDR.size)[0])


def attributes(data: bytes, offset: int, end: int) -> Mapping[int, tuple[int, int]]:
    """Read type → (start, end) of the payloads; a repeated type counts once, the last one.

    Raises:
        BrokenAttributes: one that does not fit.
    """
    found: dict[int, tuple[int, int]] = {}
    while end - offset >= wire.NLAHDR.size:
        length, kind = wire.NLAHDR.unpack_from(data, offset)
        if length < wire.NLAHDR.size or length > end - offset:
            raise BrokenAttributes
        found[kind & wire.NLA_TYPE_MASK] = (offset + wire.NLAHDR.size, offset + length)
        offset += (length + 3) & ~3
    return found


def find_attribute(data: bytes, kind: int) -> bytes | None:
    """Cut out one attribute's value; None where it is missing or the rest is broken."""
    try:
        start, end = attributes(data, 0, len(data)).get(kind, (0, 0))
    except BrokenAttributes:
        return None
    return data[start:end] if start else None
