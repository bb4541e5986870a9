"""ctnetlink's answers, read without a library: a whole-table dump must not cost a core.

Three stages, each for those that the one before let through:

1. `HALF_OPEN` searches a whole datagram for the eight bytes of a CTA_STATUS attribute with DST_NAT
   set and SEEN_REPLY clear. They stand in every half-open DNATed entry whatever its layout, so no
   match means none in this datagram; a match in other bytes costs time, never an entry.
2. `_V4` / `_V6` are the layout of a TCP entry without zone, security context or master, header by
   header, with the values as groups. What matches needs no walk.
3. `_walk` reads attribute by attribute whatever is laid out otherwise.

An entry of unexpected shape is never guessed at: it is skipped under a reason, and counted.
"""

from __future__ import annotations

import re
import struct
import sys
from enum import StrEnum
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Final

from synsweep.conntrack import wire
from synsweep.conntrack.framing import BrokenAttributes, attributes
from synsweep.core.flow import IPPROTO_TCP, ConntrackEntry, FlowTuple, Status, TcpState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synsweep.core.flow import IPAddress


class Skip(StrEnum):
    """Why an entry of a dump was not read. NOT_TCP is no defect and not counted as skipped."""

    NOT_TCP = "NotTcp"
    MALFORMED = "Malformed"  # attributes that do not fit into the message or into each other
    UNKNOWN_FAMILY = "UnknownFamily"
    NO_TUPLE = "NoTuple"  # original or reply direction missing or incomplete
    DIRECTIONAL_ZONE = "DirectionalZone"  # a zone inside a tuple: not addressable by CTA_ZONE
    NO_STATUS = "NoStatus"
    NO_ID = "NoId"
    NO_TIMEOUT = "NoTimeout"
    NO_PROTOINFO = "NoProtoinfo"  # offloaded, or going away
    UNKNOWN_STATE = "UnknownState"


class _SkipEntry(Exception):
    def __init__(self, reason: Skip) -> None:
        self.reason = reason


_BE16: Final = struct.Struct("!H")
_BE32: Final = struct.Struct("!I")
_STATES: Final = {state.value: state for state in TcpState}


def _literal(layout: str, *values: int) -> bytes:
    return re.escape(struct.pack("=" + layout, *values))


def _half_open_pattern() -> re.Pattern[bytes]:
    """Match a CTA_STATUS attribute with DST_NAT set and SEEN_REPLY clear (be32: low byte last)."""
    low = bytes(b for b in range(256) if b & wire.HALF_OPEN_MASK == wire.HALF_OPEN_STATUS)
    return re.compile(
        _literal("HH", 8, wire.CTA_STATUS) + rb"...[" + re.escape(low) + b"]", re.DOTALL
    )


def _layout(size: int, source: int) -> re.Pattern[bytes]:
    """Match the attributes of a plain TCP entry from offset 20 on (Linux 5.10 to 6.18)."""
    nest, whole = 12 + 2 * size, 44 + 2 * size  # 20 and 52 for v4, 44 and 76 for v6
    one_way = (
        _literal("HH", nest, 0x8001)
        + _literal("HH", 4 + size, source) + b"(.{%d})" % size
        + _literal("HH", 4 + size, source + 1) + b"(.{%d})" % size
        + _literal("HH", 28, 0x8002)
        + _literal("HHBBBB", 5, 1, IPPROTO_TCP, 0, 0, 0)
        + _literal("HH", 6, 2) + rb"(..).."
        + _literal("HH", 6, 3) + rb"(..).."
    )  # fmt: skip
    return re.compile(
        _literal("HH", whole, 0x8001) + one_way
        + _literal("HH", whole, 0x8002) + one_way
        + _literal("HH", 8, wire.CTA_STATUS) + b"(.{4})"
        + b"(?:" + _literal("HH", 8, 8) + b".{4})?"  # CTA_MARK, where the kernel has marks
        + _literal("HH", 8, wire.CTA_ID) + b"(.{4})"
        + _literal("HH", 8, 11) + b".{4}"  # CTA_USE
        + _literal("HH", 8, wire.CTA_TIMEOUT) + b"(.{4})"
        + b"(..)" + _literal("H", 0x8000 | wire.CTA_PROTOINFO)
        + b".." + _literal("H", 0x8000 | wire.CTA_PROTOINFO_TCP)
        + _literal("HH", 5, wire.CTA_PROTOINFO_TCP_STATE) + b"(.)",
        re.DOTALL,
    )  # fmt: skip


HALF_OPEN: Final = _half_open_pattern()
_V4: Final = _layout(4, 1)
_V6: Final = _layout(16, 3)


def reply_source(datagram: bytes, offset: int, length: int) -> bytes | None:
    """Cut out the packed address that the answer would come from, where the layout is plain.

    None where it is not: then nothing but `decode` can tell (a directional zone, which is not
    addressable anyway, or a broken message).
    """
    for header, at, size in _REPLY_SOURCES:
        start = at + len(header)
        if start + size <= length and datagram.startswith(header, offset + at):
            return datagram[offset + start : offset + start + size]
    return None


def is_plain_tcp(datagram: bytes, offset: int, source: bytes) -> bool:
    """Whether an entry is TCP, where `reply_source` found `source` in it: its layout is plain."""
    return datagram[offset + _PROTOCOL_AT[len(source)]] == IPPROTO_TCP


# Of the original tuple: behind the message's headers, those of the tuple, the addresses in their
# nest, and two headers more.
_PROTOCOL_AT: Final = {4: 52, 16: 76}

# CTA_IP_V4_SRC and CTA_IP_V6_SRC of the reply tuple: behind the headers, the original tuple and
# the headers of two nests.
_REPLY_SOURCES: Final = (
    (struct.pack("=HHHH", 20, 0x8001, 8, 1), 76, 4),
    (struct.pack("=HHHH", 44, 0x8001, 20, 3), 100, 16),
)


def decode(datagram: bytes, offset: int, length: int) -> ConntrackEntry | Skip:
    """Read one CT_NEW message: a TCP entry, or why it is none that can be judged."""
    end = offset + length
    if length < wire.HEADER_LENGTH:
        return Skip.MALFORMED
    family = datagram[offset + wire.NLMSGHDR.size]
    if family == wire.AF_INET:
        match = _V4.match(datagram, offset + wire.HEADER_LENGTH, end)
    elif family == wire.AF_INET6:
        match = _V6.match(datagram, offset + wire.HEADER_LENGTH, end)
    else:
        return Skip.UNKNOWN_FAMILY
    try:
        if match is None or not _is_all(match, datagram, end):
            return _walk(datagram, offset + wire.HEADER_LENGTH, end, family)
        return _from_match(match)
    except _SkipEntry as skipped:
        return skipped.reason
    except BrokenAttributes:
        return Skip.MALFORMED


def _is_all(match: re.Match[bytes], datagram: bytes, end: int) -> bool:
    """Whether the last attribute fits and no zone follows; else the walk decides."""
    protoinfo = match.start(_PROTOINFO_LENGTH)
    length = int.from_bytes(match[_PROTOINFO_LENGTH], sys.byteorder)
    return protoinfo + length <= end and _ZONE_HEADER not in datagram[protoinfo:end]


_PROTOINFO_LENGTH: Final = 12  # group
_ZONE_HEADER: Final = struct.pack("=HH", 6, wire.CTA_ZONE)


def _from_match(match: re.Match[bytes]) -> ConntrackEntry:
    (src, dst, sport, dport, reply_src, reply_dst, reply_sport, reply_dport,
     status, ident, timeout, _, state) = match.groups()  # fmt: skip
    return ConntrackEntry(
        id=_BE32.unpack(ident)[0],
        zone=0,
        protocol=IPPROTO_TCP,
        original=_flow(src, sport, dst, dport),
        reply=_flow(reply_src, reply_sport, reply_dst, reply_dport),
        tcp_state=_state(state),
        status=_status(status),
        timeout=_BE32.unpack(timeout)[0],
    )


def _flow(src: bytes, sport: bytes, dst: bytes, dport: bytes) -> FlowTuple:
    return FlowTuple(
        src_ip=_ip(src),
        src_port=_BE16.unpack(sport)[0],
        dst_ip=_ip(dst),
        dst_port=_BE16.unpack(dport)[0],
    )


@lru_cache(maxsize=16_384)
def _ip(packed: bytes) -> IPAddress:
    return IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed)  # noqa: PLR2004


@lru_cache(maxsize=1024)
def _status(packed: bytes) -> Status:
    return Status(_BE32.unpack(packed)[0])


def _state(packed: bytes) -> TcpState:
    state = _STATES.get(packed[0])
    if state is None:
        raise _SkipEntry(Skip.UNKNOWN_STATE)
    return state


def _payload(
    data: bytes, found: Mapping[int, tuple[int, int]], kind: int, size: int, missing: Skip
) -> bytes:
    """Cut out one attribute's value of exactly `size` bytes."""
    if kind not in found:
        raise _SkipEntry(missing)
    start, end = found[kind]
    if end - start != size:
        raise _SkipEntry(Skip.MALFORMED)
    return data[start:end]


def _walk(data: bytes, offset: int, end: int, family: int) -> ConntrackEntry:
    found = attributes(data, offset, end)
    original = _walk_tuple(data, found, wire.CTA_TUPLE_ORIG, family)
    reply = _walk_tuple(data, found, wire.CTA_TUPLE_REPLY, family)
    zone = 0
    if wire.CTA_ZONE in found:
        zone = _BE16.unpack(_payload(data, found, wire.CTA_ZONE, 2, Skip.MALFORMED))[0]
    status = _payload(data, found, wire.CTA_STATUS, 4, Skip.NO_STATUS)
    ident = _payload(data, found, wire.CTA_ID, 4, Skip.NO_ID)
    timeout = _payload(data, found, wire.CTA_TIMEOUT, 4, Skip.NO_TIMEOUT)
    if wire.CTA_PROTOINFO not in found:
        raise _SkipEntry(Skip.NO_PROTOINFO)
    protoinfo = attributes(data, *found[wire.CTA_PROTOINFO])
    if wire.CTA_PROTOINFO_TCP not in protoinfo:
        raise _SkipEntry(Skip.NO_PROTOINFO)
    tcp = attributes(data, *protoinfo[wire.CTA_PROTOINFO_TCP])
    return ConntrackEntry(
        id=_BE32.unpack(ident)[0],
        zone=zone,
        protocol=IPPROTO_TCP,
        original=original,
        reply=reply,
        tcp_state=_state(_payload(data, tcp, wire.CTA_PROTOINFO_TCP_STATE, 1, Skip.NO_PROTOINFO)),
        status=_status(status),
        timeout=_BE32.unpack(timeout)[0],
    )


def _walk_tuple(
    data: bytes, found: Mapping[int, tuple[int, int]], kind: int, family: int
) -> FlowTuple:
    if kind not in found:
        raise _SkipEntry(Skip.NO_TUPLE)
    parts = attributes(data, *found[kind])
    if wire.CTA_TUPLE_IP not in parts or wire.CTA_TUPLE_PROTO not in parts:
        raise _SkipEntry(Skip.NO_TUPLE)
    protocol = attributes(data, *parts[wire.CTA_TUPLE_PROTO])
    if _payload(data, protocol, wire.CTA_PROTO_NUM, 1, Skip.NO_TUPLE)[0] != IPPROTO_TCP:
        raise _SkipEntry(Skip.NOT_TCP)
    if parts.keys() - {wire.CTA_TUPLE_IP, wire.CTA_TUPLE_PROTO}:
        raise _SkipEntry(Skip.DIRECTIONAL_ZONE)
    addresses = attributes(data, *parts[wire.CTA_TUPLE_IP])
    version, size = (4, 4) if family == wire.AF_INET else (6, 16)
    source = wire.CTA_IP_SRC[version]
    return _flow(
        _payload(data, addresses, source, size, Skip.NO_TUPLE),
        _payload(data, protocol, wire.CTA_PROTO_SRC_PORT, 2, Skip.NO_TUPLE),
        _payload(data, addresses, source + 1, size, Skip.NO_TUPLE),
        _payload(data, protocol, wire.CTA_PROTO_DST_PORT, 2, Skip.NO_TUPLE),
    )
