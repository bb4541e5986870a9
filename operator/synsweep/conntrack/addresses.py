"""The addresses of this network namespace: a node port is dialled on one of them."""

from __future__ import annotations

import os
import socket
import struct
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Final

from synsweep.conntrack import framing, wire
from synsweep.conntrack.table import ConntrackError

if TYPE_CHECKING:
    from synsweep.core.flow import IPAddress

RTM_NEWADDR: Final = 20
RTM_GETADDR: Final = 22
IFADDRMSG: Final = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
IFA_ADDRESS: Final = 1  # the peer's on a point-to-point link
IFA_LOCAL: Final = 2  # ours; IPv6 has it only there
RECEIVE_BYTES: Final = 1 << 16
ANSWER_WITHIN: Final = 5.0  # seconds


def local_addresses() -> frozenset[IPAddress]:
    """Read all addresses of all interfaces, both families.

    Asked anew for each sweep, so it reads rtnetlink itself: a decoder that builds an object for
    every attribute would cost more than the sweep on a node with hundreds of interfaces.

    Raises:
        ConntrackError: rtnetlink did not answer.
    """
    request = wire.NLMSGHDR.pack(
        wire.NLMSGHDR.size + IFADDRMSG.size, RTM_GETADDR, wire.FLAGS_DUMP, 1, 0
    ) + IFADDRMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
    found: set[IPAddress] = set()
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as route:
            route.settimeout(ANSWER_WITHIN)
            route.send(request)
            while _take(route.recv(RECEIVE_BYTES), found):
                pass
    except OSError as error:
        raise ConntrackError(f"list the node's addresses: {error}") from error
    return frozenset(found)


def _take(datagram: bytes, found: set[IPAddress]) -> bool:
    """Add the addresses of one datagram; False when it ended the dump."""
    for offset, length, kind, _, _ in framing.messages(datagram):
        if kind in (wire.NLMSG_DONE, wire.NLMSG_ERROR):
            number = framing.error_number(datagram, offset, length)
            if number > 0:
                raise OSError(number, os.strerror(number))
            return False
        if kind == RTM_NEWADDR:
            attributes = datagram[offset + wire.NLMSGHDR.size + IFADDRMSG.size : offset + length]
            address = framing.find_attribute(attributes, IFA_LOCAL) or framing.find_attribute(
                attributes, IFA_ADDRESS
            )
            if address is not None and len(address) in (4, 16):
                found.add(IPv4Address(address) if len(address) == 4 else IPv6Address(address))  # noqa: PLR2004
    return True
