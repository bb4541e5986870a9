"""What the kernel does with a message, and what it answers: written apart from the code under test.

`verdict` reads a message as nfnetlink and `ctnetlink_del_conntrack` do (net/netfilter/nfnetlink.c,
nf_conntrack_netlink.c): headers, then attributes of which the last of a type wins, unknown types
ignored, ORIG before REPLY, and a flush where no tuple is left. `answer` builds CT_NEW messages.
"""

from __future__ import annotations

import struct
from ipaddress import ip_address

FLUSH = "flush"
DELETE_BY_ORIG = "delete by original tuple"
DELETE_BY_REPLY = "delete by reply tuple"
REFUSED = "refused"
OTHER = "not a delete"


def attributes(data: bytes) -> dict[int, bytes]:
    """nla_parse: last of a type wins; what does not fit ends the parsing."""
    found: dict[int, bytes] = {}
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        if length < 4 or length > len(data):
            break
        found[kind & 0x3FFF] = data[4:length]
        data = data[(length + 3) & ~3 :]
    return found


def is_complete_tuple(nest: bytes, family: int) -> bool:
    """ctnetlink_parse_tuple: both addresses of the family, a protocol, both ports."""
    parts = attributes(nest)
    addresses, protocol = attributes(parts.get(1, b"")), attributes(parts.get(2, b""))
    size, source = {2: (4, 1), 10: (16, 3)}.get(family, (0, 0))
    return (
        size > 0
        and len(addresses.get(source, b"")) == size
        and len(addresses.get(source + 1, b"")) == size
        and protocol.get(1) == bytes([6])
        and len(protocol.get(2, b"")) == 2
        and len(protocol.get(3, b"")) == 2
    )


def one(message: bytes) -> str:
    """Judge one netlink message with its header."""
    if len(message) < 20:
        return OTHER
    kind = struct.unpack_from("=H", message, 4)[0]
    if kind != 0x102:
        return OTHER
    family = message[16]
    found = attributes(message[20:])
    has_filter = 25 in found  # CTA_FILTER: kernels >= 6.12 then flush by filter
    if 1 in found and not has_filter:
        return DELETE_BY_ORIG
    if 2 in found and not has_filter:
        return DELETE_BY_REPLY if is_complete_tuple(found[2], family) else REFUSED
    return FLUSH


def verdict(data: bytes) -> list[str]:
    """Judge what one send() would do: netlink_rcv_skb goes through all messages in it."""
    verdicts = []
    while len(data) >= 16:
        length = struct.unpack_from("=I", data)[0]
        if length < 16 or length > len(data):
            break
        verdicts.append(one(data[:length]))
        data = data[(length + 3) & ~3 :]
    if data:
        verdicts.append("trailing bytes")
    return verdicts


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute, padded."""
    return struct.pack("=HH", 4 + len(payload), kind) + payload + bytes(-len(payload) % 4)


def flow(
    kind: int, src: str, sport: int, dst: str, dport: int, *, protocol: int = 6, zone: int = 0
) -> bytes:
    """One CTA_TUPLE_*."""
    source = 1 if ip_address(src).version == 4 else 3
    parts = attribute(
        0x8001,
        attribute(source, ip_address(src).packed) + attribute(source + 1, ip_address(dst).packed),
    ) + attribute(
        0x8002,
        attribute(1, bytes([protocol]))
        + attribute(2, struct.pack("!H", sport))
        + attribute(3, struct.pack("!H", dport)),
    )
    if zone:
        parts += attribute(3, struct.pack("!H", zone))
    return attribute(kind | 0x8000, parts)


def protoinfo(state: int) -> bytes:
    """CTA_PROTOINFO of a TCP entry."""
    tcp = attribute(1, bytes([state])) + attribute(2, b"\n") + attribute(3, b"\0")
    return attribute(0x8004, attribute(0x8001, tcp))


V4 = (
    flow(1, "10.1.0.2", 51292, "10.96.0.10", 80),
    flow(2, "10.2.0.9", 8080, "10.1.0.2", 51292),
)
V6 = (
    flow(1, "fd00:1::2", 51292, "fd00:96::10", 80),
    flow(2, "fd00:2::9", 8080, "fd00:1::2", 51292),
)
ID = 0x86C5BBE3
HALF_OPEN = 0x1A8
ANSWERED = 0x1AE


def body(
    tuples: tuple[bytes, bytes] = V4,
    *,
    status: int = HALF_OPEN,
    state: int = 1,
    timeout: int = 118,
    zone: bytes = b"",
    entry_id: int = ID,
) -> list[bytes]:
    """All attributes of an entry in the order in which Linux 6.18 dumps them."""
    return [
        *tuples,
        zone,
        attribute(3, struct.pack("!I", status)),
        attribute(8, bytes(4)),
        attribute(12, struct.pack("!I", entry_id)),
        attribute(11, struct.pack("!I", 1)),
        attribute(7, struct.pack("!I", timeout)),
        protoinfo(state),
    ]


def answer(
    parts: list[bytes] | None = None,
    *,
    family: int = 2,
    flags: int = 2,
    sequence: int = 1,
    kind: int = 0x100,
) -> bytes:
    """One message of a dump, or the answer to a GET."""
    payload = b"".join(body() if parts is None else parts)
    header = struct.pack("=IHHII", 20 + len(payload), kind, flags, sequence, 4711)
    return header + bytes([family, 0, 0, 0]) + payload


def done(number: int = 0, *, sequence: int = 1) -> bytes:
    """NLMSG_DONE."""
    return struct.pack("=IHHIIi", 20, 3, 2, sequence, 4711, -number)


def error(number: int, *, sequence: int = 1) -> bytes:
    """NLMSG_ERROR; 0 is the acknowledgement."""
    return struct.pack("=IHHIIi", 36, 2, 0, sequence, 4711, -number) + bytes(16)
