"""Fill a table fast: entries made over ctnetlink, with DNAT done by the kernel itself.

Real packets prove the behaviour; these fill tables to 1,000,000 for what depends on size. The
kernel sets DST_NAT itself (CTA_NAT_DST), so an injected entry is what a DNATed flow leaves, minus
the peer.
"""

from __future__ import annotations

import itertools
import os
import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING

from synsweep.core.flow import IPPROTO_TCP, IPPROTO_UDP, TcpState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from synsweep.core.flow import IPAddress

NETLINK_NETFILTER = 12
IPS_SEEN_REPLY, IPS_ASSURED, IPS_CONFIRMED = 0x2, 0x4, 0x8
BATCH = 100
OTHERS, LAST = 1, 2  # sequence numbers: the last of a batch asks for an answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """One flow to inject. `backend` None: no DNAT, the client talks to the frontend's address."""

    client: IPAddress
    client_port: int
    frontend: IPAddress
    frontend_port: int = 80
    backend: IPAddress | None = None
    backend_port: int = 8080
    state: TcpState = TcpState.SYN_SENT
    answered: bool = False
    protocol: int = IPPROTO_TCP
    zone: int = 0
    timeout: int = 100


def flow(client: str, port: int, frontend: str, backend: str | None, **more: object) -> Flow:
    """Build a Flow from strings."""
    return Flow(
        client=ip_address(client),
        client_port=port,
        frontend=ip_address(frontend),
        backend=None if backend is None else ip_address(backend),
        **more,  # type: ignore[arg-type]
    )


def half_open(count: int, *, backend: str = "10.2.0.9", first: int = 0) -> Iterable[Flow]:
    """Many half-open flows from different clients through 10.96.0.10:80."""
    return _many("10.192.0.0", range(first, first + count), backend, TcpState.SYN_SENT)


def established(count: int, *, backend: str = "10.2.0.2", first: int = 0) -> Iterable[Flow]:
    """Many answered flows from different clients through 10.96.0.10:80."""
    return _many("10.128.0.0", range(first, first + count), backend, TcpState.ESTABLISHED)


def _many(clients: str, numbers: range, backend: str, state: TcpState) -> Iterable[Flow]:
    base, frontend, to = int(ip_address(clients)), ip_address("10.96.0.10"), ip_address(backend)
    for number in numbers:
        yield Flow(
            client=IPv4Address(base + number // 50_000),
            client_port=1024 + number % 50_000,
            frontend=frontend,
            backend=to,
            state=state,
            answered=state is not TcpState.SYN_SENT,
            timeout=100 if state is TcpState.SYN_SENT else 100_000,
        )


def inject(flows: Iterable[Flow]) -> int:
    """Put flows into the table of the namespace that the calling thread is in; return how many.

    Raises:
        OSError: the kernel refused one (ENOMEM: the table is full; EEXIST: it is there already).
    """
    total = 0
    waiting = iter(flows)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as netlink:
        netlink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        netlink.settimeout(10)
        while batch := list(itertools.islice(waiting, BATCH)):
            *first, last = batch
            messages = [_message(one, sequence=OTHERS) for one in first]
            netlink.send(b"".join([*messages, _message(last, sequence=LAST)]))
            _wait(netlink)
            total += len(batch)
    return total


def _wait(netlink: socket.socket) -> None:
    """Read until the last message of a batch is acknowledged; refusals come before."""
    while True:
        answer = netlink.recv(1 << 16)
        sequence, _, error = struct.unpack_from("=IIi", answer, 8)
        if error:
            raise OSError(-error, f"injected entry refused: {os.strerror(-error)}")
        if sequence == LAST:
            return


def attribute(kind: int, payload: bytes) -> bytes:
    """One netlink attribute, padded."""
    return struct.pack("=HH", 4 + len(payload), kind) + payload + bytes(-len(payload) % 4)


def _tuple(
    kind: int, src: tuple[IPAddress, int], dst: tuple[IPAddress, int], protocol: int
) -> bytes:
    source = 1 if isinstance(src[0], IPv4Address) else 3
    addresses = attribute(source, src[0].packed) + attribute(source + 1, dst[0].packed)
    ports = attribute(2, struct.pack("!H", src[1])) + attribute(3, struct.pack("!H", dst[1]))
    return attribute(
        kind | 0x8000,
        attribute(0x8001, addresses) + attribute(0x8002, attribute(1, bytes([protocol])) + ports),
    )


def _message(one: Flow, *, sequence: int) -> bytes:
    """IPCTNL_MSG_CT_NEW: the plain reply tuple, and the DNAT for the kernel to do."""
    there, back = (one.client, one.client_port), (one.frontend, one.frontend_port)
    body = _tuple(1, there, back, one.protocol) + _tuple(2, back, there, one.protocol)
    status = IPS_CONFIRMED | ((IPS_SEEN_REPLY | IPS_ASSURED) if one.answered else 0)
    body += attribute(3, struct.pack("!I", status))
    body += attribute(7, struct.pack("!I", one.timeout))
    if one.protocol != IPPROTO_UDP:
        body += attribute(0x8004, attribute(0x8001, attribute(1, bytes([one.state]))))
    if one.backend is not None:
        lowest = 4 if isinstance(one.backend, IPv6Address) else 1
        port = struct.pack("!H", one.backend_port)
        body += attribute(
            0x800D,  # CTA_NAT_DST: lowest and highest address and port
            attribute(lowest, one.backend.packed)
            + attribute(lowest + 1, one.backend.packed)
            + attribute(0x8003, attribute(1, port) + attribute(2, port)),
        )
    if one.zone:
        body += attribute(18, struct.pack("!H", one.zone))
    family = socket.AF_INET if isinstance(one.client, IPv4Address) else socket.AF_INET6
    flags = 0x401 | (0x4 if sequence == LAST else 0)  # REQUEST | CREATE, ACK
    header = struct.pack("=IHHII", 20 + len(body), 0x100, flags, sequence, 0)
    return header + bytes([family, 0, 0, 0]) + body
