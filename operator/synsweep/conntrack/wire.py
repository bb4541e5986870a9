"""Every byte that goes to ctnetlink, and the guard that stands before each delete. No socket.

Rules of this file:

1. A delete names exactly one flow by its complete REPLY tuple, its zone and its id. Never by ORIG:
   the client's next flow takes the same original tuple and, as ids are made from the object's
   address and the original tuple, mostly the same id; the kernel then deletes the live successor.
   (`ctnetlink_del_conntrack`, net/netfilter/nf_conntrack_netlink.c: ORIG wins when both are given.)
2. A delete without a complete tuple flushes the table. So `guard_delete` knows the four shapes that
   may pass (two families, with and without a zone) byte by byte, and refuses everything else. It
   shares nothing with the encoder but the numbers, so that a mistake in one does not excuse the
   other.
3. Nothing is filtered by address in the kernel (IPv6 address filters of CTA_FILTER are inverted in
   several releases), only by status, and the answer is judged again in user space.
"""

from __future__ import annotations

import re
import struct
from socket import htons
from typing import TYPE_CHECKING, Final

from synsweep.core.flow import IPPROTO_TCP

if TYPE_CHECKING:
    from synsweep.core.flow import ConntrackEntry, FlowTuple, IPAddress

# include/uapi/linux/netlink.h
NLMSG_ERROR: Final = 2
NLMSG_DONE: Final = 3
NLM_F_DUMP_FILTERED: Final = 0x20
FLAGS_GET: Final = 0x1  # REQUEST: the entry or an error is the answer, it needs no other
FLAGS_ACK: Final = 0x5  # REQUEST | ACK
FLAGS_DUMP: Final = 0x301  # REQUEST | ROOT | MATCH
NLA_F_NESTED: Final = 0x8000
NLA_TYPE_MASK: Final = 0x3FFF

# include/uapi/linux/netfilter/nfnetlink.h and nfnetlink_conntrack.h
CT_NEW: Final = 0x100  # subsystem 1 << 8 | message: what an answer is
CT_GET: Final = 0x101
CT_DELETE: Final = 0x102
CT_GET_STATS: Final = 0x105
NFNETLINK_V1: Final = 1  # with version 0 a delete that lost its tuple would flush both families
AF_UNSPEC: Final = 0
AF_INET: Final = 2
AF_INET6: Final = 10

CTA_TUPLE_ORIG: Final = 1
CTA_TUPLE_REPLY: Final = 2
CTA_STATUS: Final = 3
CTA_PROTOINFO: Final = 4
CTA_TIMEOUT: Final = 7
CTA_ID: Final = 12
CTA_ZONE: Final = 18
CTA_STATUS_MASK: Final = 26

CTA_TUPLE_IP: Final = 1
CTA_TUPLE_PROTO: Final = 2
CTA_PROTO_NUM: Final = 1
CTA_PROTO_SRC_PORT: Final = 2
CTA_PROTO_DST_PORT: Final = 3
CTA_PROTOINFO_TCP: Final = 1
CTA_PROTOINFO_TCP_STATE: Final = 1
CTA_IP_SRC: Final = {4: 1, 6: 3}  # CTA_IP_V4_SRC, CTA_IP_V6_SRC by version; _DST is one more

HALF_OPEN_STATUS: Final = 0x20  # DST_NAT set ...
HALF_OPEN_MASK: Final = 0x22  # ... and SEEN_REPLY clear

NLMSGHDR: Final = struct.Struct("=IHHII")  # length, type, flags, sequence, port id
NLAHDR: Final = struct.Struct("=HH")  # length, type
NFGENMSG: Final = struct.Struct(
    "=BBH"
)  # family, version, resource id (0, so order does not matter)
HEADER_LENGTH: Final = NLMSGHDR.size + NFGENMSG.size


class NotOneCompleteReplyTuple(ValueError):
    """A delete that does not name exactly one flow: it must never reach the kernel."""


def dump_request(sequence: int, *, half_open_only: bool) -> bytes:
    """Ask for the whole table of both families; with `half_open_only` filtered in the kernel.

    Kernels before 5.15 ignore the filter (no NLM_F_DUMP_FILTERED in the answer).
    """
    attributes = b""
    if half_open_only:
        attributes = _attribute(CTA_STATUS, struct.pack("!I", HALF_OPEN_STATUS)) + _attribute(
            CTA_STATUS_MASK, struct.pack("!I", HALF_OPEN_MASK)
        )
    return _message(CT_GET, FLAGS_DUMP, sequence, AF_UNSPEC, attributes)


def stats_request(sequence: int) -> bytes:
    """Ask for the number of entries: one small answer, no walk, the same permission as a dump."""
    return _message(CT_GET_STATS, FLAGS_ACK, sequence, AF_UNSPEC, b"")


def get_request(sequence: int, entry: ConntrackEntry) -> bytes:
    """Ask for one entry by its reply tuple and, if it has one, its zone."""
    attributes = _reply_tuple(entry.reply) + _zone(entry.zone)
    return _message(CT_GET, FLAGS_GET, sequence, _family(entry.reply.src_ip), attributes)


def delete_request(sequence: int, entry: ConntrackEntry) -> bytes:
    """Ask to delete one entry: reply tuple, id and, if it has one, its zone."""
    attributes = (
        _reply_tuple(entry.reply)
        + _ID.pack(8, CTA_ID, entry.id.to_bytes(4, "big"))
        + _zone(entry.zone)
    )
    return _message(CT_DELETE, FLAGS_ACK, sequence, _family(entry.reply.src_ip), attributes)


def guard_delete(message: bytes) -> None:
    """Let a delete pass only if it is, byte for byte, one of the shapes that name one flow.

    That is: one netlink message whose length is the number of bytes; type DELETE, flags
    REQUEST|ACK; nfgenmsg version 1 with family 2 or 10; one REPLY tuple with both addresses of that
    family, protocol TCP and both ports; one id; at most one zone; nothing else and nothing after.

    Raises:
        NotOneCompleteReplyTuple: anything else.
    """
    if DELETE_SHAPE.fullmatch(message) is None:
        raise NotOneCompleteReplyTuple(f"refused to send {message.hex()}")


def _message(kind: int, flags: int, sequence: int, family: int, attributes: bytes) -> bytes:
    header = NLMSGHDR.pack(HEADER_LENGTH + len(attributes), kind, flags, sequence, 0)
    return header + NFGENMSG.pack(family, NFNETLINK_V1, 0) + attributes


def _attribute(kind: int, payload: bytes) -> bytes:
    length = NLAHDR.size + len(payload)
    return NLAHDR.pack(length, kind) + payload + bytes(-length % 4)


def _family(ip: IPAddress) -> int:
    return AF_INET if ip.version == 4 else AF_INET6  # noqa: PLR2004


def _reply_tuple(flow: FlowTuple) -> bytes:
    """Nest by nest, in one go: a sweep may encode thousands."""
    source, destination = flow.src_ip.packed, flow.dst_ip.packed
    size = len(source)
    first = CTA_IP_SRC[flow.src_ip.version]
    return _REPLY_TUPLE[size].pack(
        44 + 2 * size, CTA_TUPLE_REPLY | NLA_F_NESTED,
        12 + 2 * size, CTA_TUPLE_IP | NLA_F_NESTED,
        4 + size, first, source,
        4 + size, first + 1, destination,
        28, CTA_TUPLE_PROTO | NLA_F_NESTED,
        5, CTA_PROTO_NUM, IPPROTO_TCP,
        6, CTA_PROTO_SRC_PORT, htons(flow.src_port),
        6, CTA_PROTO_DST_PORT, htons(flow.dst_port),
    )  # fmt: skip


_ID: Final = struct.Struct("=HH4s")
_REPLY_TUPLE: Final = {
    size: struct.Struct(f"=HH HH HH{size}s HH{size}s HH HHB3x HHH2x HHH2x") for size in (4, 16)
}


def _zone(zone: int) -> bytes:
    return _attribute(CTA_ZONE, struct.pack("!H", zone)) if zone else b""


def _delete_shape() -> re.Pattern[bytes]:
    """Write down the four shapes: literal bytes, and dots only where a value of ours stands."""

    def literal(layout: str, *values: int) -> bytes:
        return re.escape(struct.pack("=" + layout, *values))

    ports = (
        literal("HHBBBB", 5, 1, 6, 0, 0, 0)  # CTA_PROTO_NUM: TCP, padded
        + literal("HH", 6, 2) + rb"..\0\0"  # CTA_PROTO_SRC_PORT
        + literal("HH", 6, 3) + rb"..\0\0"  # CTA_PROTO_DST_PORT
    )  # fmt: skip
    shapes = []
    # family, length of an address, its two attribute types, length of the IP nest, of the tuple
    for family, size, source, nest, whole in ((2, 4, 1, 20, 52), (10, 16, 3, 44, 76)):
        address = b".{%d}" % size
        body = (
            literal("BBH", family, 1, 0)
            + literal("HH", whole, 0x8002)  # CTA_TUPLE_REPLY
            + literal("HH", nest, 0x8001)  # CTA_TUPLE_IP
            + literal("HH", 4 + size, source) + address
            + literal("HH", 4 + size, source + 1) + address
            + literal("HH", 28, 0x8002)  # CTA_TUPLE_PROTO
            + ports
            + literal("HH", 8, 12) + b".{4}"  # CTA_ID
        )  # fmt: skip
        for zone in (b"", literal("HH", 6, 18) + rb"..\0\0"):
            length = 20 + whole + 8 + (8 if zone else 0)
            header = literal("IHH", length, 0x102, 0x5) + b".{4}" + literal("I", 0)
            shapes.append(header + body + zone)
    return re.compile(b"|".join(shapes), re.DOTALL)


DELETE_SHAPE: Final = _delete_shape()
