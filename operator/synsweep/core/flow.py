"""What one conntrack entry says, in the words of conntrack(8).

"Original" is the direction of the packet that made the entry (the client's SYN to the Service's
frontend), "reply" the direction of the expected answer (from the backend, after DNAT).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag
from ipaddress import IPv4Address, IPv6Address
from typing import TypeAlias

IPAddress: TypeAlias = IPv4Address | IPv6Address

IPPROTO_TCP = 6
IPPROTO_UDP = 17


class TcpState(IntEnum):
    """`enum tcp_conntrack` of include/uapi/linux/netfilter/nf_conntrack_tcp.h."""

    NONE = 0
    SYN_SENT = 1
    SYN_RECV = 2
    ESTABLISHED = 3
    FIN_WAIT = 4
    CLOSE_WAIT = 5
    LAST_ACK = 6
    TIME_WAIT = 7
    CLOSE = 8
    SYN_SENT2 = 9


class Status(IntFlag):
    """`enum ip_conntrack_status` of include/uapi/linux/netfilter/nf_conntrack_common.h.

    DST_NAT is set exactly on DNATed flows; DST_NAT_DONE on every flow that passed the hook, so it
    tells nothing and must never be tested.
    """

    EXPECTED = 0x1
    SEEN_REPLY = 0x2  # absent: conntrack(8) prints [UNREPLIED]
    ASSURED = 0x4
    CONFIRMED = 0x8
    SRC_NAT = 0x10
    DST_NAT = 0x20
    SRC_NAT_DONE = 0x80
    DST_NAT_DONE = 0x100
    DYING = 0x200


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowTuple:
    """One direction of a flow."""

    src_ip: IPAddress  # --orig-src on .original, --reply-src on .reply
    src_port: int
    dst_ip: IPAddress  # --orig-dst on .original, --reply-dst on .reply
    dst_port: int


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """An ip:port as the kernel sees it: a frontend or a backend. TCP, like all that we act on."""

    ip: IPAddress
    port: int

    def __str__(self) -> str:
        """Write `ip:port`, with brackets for IPv6 as conntrack(8) and kubectl users expect."""
        return f"[{self.ip}]:{self.port}" if self.ip.version == 6 else f"{self.ip}:{self.port}"  # noqa: PLR2004


@dataclass(frozen=True, slots=True, kw_only=True)
class ConntrackEntry:
    """One entry of the kernel's table.

    `id` is CTA_ID as an unsigned 32-bit number in host order; `zone` is CTA_ZONE (0 = default);
    `tcp_state` is None for other protocols; `timeout` is what remains, in whole seconds.
    """

    id: int
    zone: int
    protocol: int
    original: FlowTuple
    reply: FlowTuple
    tcp_state: TcpState | None
    status: Status
    timeout: int

    @property
    def frontend(self) -> Address:
        """Original destination: what the client dialled (`--orig-dst`, `--orig-port-dst`)."""
        return Address(self.original.dst_ip, self.original.dst_port)

    @property
    def backend(self) -> Address:
        """Reply source: who is to answer (`--reply-src`, `--reply-port-src`)."""
        return Address(self.reply.src_ip, self.reply.src_port)

    @property
    def is_dnat(self) -> bool:
        """Whether the destination was translated (DST_NAT, not DST_NAT_DONE)."""
        return Status.DST_NAT in self.status

    @property
    def seen_reply(self) -> bool:
        """Whether anything came back; False is conntrack(8)'s [UNREPLIED]."""
        return Status.SEEN_REPLY in self.status
