"""Everything that an entry can be, multiplied out, against a rule written a second time.

`goes` below is the rule in plain words, computed beside the input from how the entry was made, not
from what it became; the program must delete exactly what it names.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from ipaddress import ip_address
from itertools import product

import pytest

from synsweep.core.cleanup import Frontend, Mode, NodePort
from synsweep.core.flow import (
    IPPROTO_TCP,
    IPPROTO_UDP,
    Address,
    ConntrackEntry,
    FlowTuple,
    Status,
    TcpState,
)
from synsweep.core.staleness import CondemnedEntry, Context, KeepReason, LiveCleanup
from synsweep.core.sweep_plan import CleanupBook, book_of, classify
from tests.unit.core.samples import cleanup, target

NOW = 5000.0
ADDRESSES = {
    # family: client, cluster IP, other Service's IP, gone pod, live pod, this node, another node
    4: (
        "10.0.1.7",
        "10.96.0.10",
        "10.96.0.99",
        "10.0.0.10",
        "10.0.0.11",
        "172.30.1.10",
        "172.30.2.10",
    ),
    6: ("fd00:1::7", "fd96::10", "fd96::99", "fd00::10", "fd00::11", "fd30:1::10", "fd30:2::10"),
}
FRONTENDS = (
    "cluster IP",
    "cluster IP, other port",
    "other Service",
    "node port here",
    "node port elsewhere",
    "cluster IP's port on this node",
    "none: direct to the pod",
)
BACKENDS = ("gone", "gone, other port", "live")
DIRECTIONS = ("unreplied", "replied", "reversed")
ARRIVALS = (0.2, 10.0)  # seconds since the cleanup's arrival
ZONES = (0, 7)
AGES = (0, 1, 2, 60)


@dataclass(frozen=True, kw_only=True)
class Made:
    """How an entry was made."""

    family: int
    protocol: int
    state: TcpState
    direction: str
    dnat: bool
    zone: int
    frontend: str
    backend: str
    age: int

    def entry(self) -> ConntrackEntry:
        """Make it."""
        client, vip, other, gone, alive, here, there = map(ip_address, ADDRESSES[self.family])
        pod = {
            "gone": Address(gone, 8080),
            "gone, other port": Address(gone, 9090),
            "live": Address(alive, 8080),
        }[self.backend]
        dialled = {
            "cluster IP": Address(vip, 80),
            "cluster IP, other port": Address(vip, 81),
            "other Service": Address(other, 80),
            "node port here": Address(here, 30080),
            "node port elsewhere": Address(there, 30080),
            "cluster IP's port on this node": Address(here, 80),
            "none: direct to the pod": pod,
        }[self.frontend]
        original = FlowTuple(
            src_ip=client, src_port=40000, dst_ip=dialled.ip, dst_port=dialled.port
        )
        reply = FlowTuple(src_ip=pod.ip, src_port=pod.port, dst_ip=client, dst_port=40000)
        if self.direction == "reversed":  # a flow that the backend itself opened
            original, reply = reply, original
        status = Status.CONFIRMED | Status.DST_NAT_DONE
        status |= Status.DST_NAT if self.dnat else Status(0)
        status |= Status.SEEN_REPLY if self.direction == "replied" else Status(0)
        return ConntrackEntry(
            id=1,
            zone=self.zone,
            protocol=self.protocol,
            original=original,
            reply=reply,
            tcp_state=self.state if self.protocol == IPPROTO_TCP else None,
            status=status,
            timeout=120 - self.age,
        )


def goes(
    made: Made, *, terminated: bool, arrived_ago: float, earnest: bool, addressed: bool
) -> bool:
    """Whether it is a stale half-open Service connection, for which a deletion was asked."""
    half_open = (
        made.protocol == IPPROTO_TCP
        and made.state == TcpState.SYN_SENT
        and made.direction == "unreplied"
    )
    through_the_service = made.dnat and made.frontend in ("cluster IP", "node port here")
    waited_long_enough = made.age in (2, 60) or (terminated and (made.age, arrived_ago) == (1, 0.2))
    return (
        half_open
        and through_the_service
        and made.backend == "gone"
        and made.zone == 0
        and waited_long_enough
        and earnest
        and addressed
    )


@cache
def everything() -> tuple[tuple[Made, ConntrackEntry], ...]:
    all_made = (
        Made(
            family=family,
            protocol=protocol,
            state=state,
            direction=direction,
            dnat=dnat,
            zone=zone,
            frontend=frontend,
            backend=backend,
            age=age,
        )
        for family, protocol, state, direction, dnat, zone, frontend, backend, age in product(
            ADDRESSES,
            (IPPROTO_TCP, IPPROTO_UDP),
            (
                TcpState.SYN_SENT,
                TcpState.SYN_RECV,
                TcpState.ESTABLISHED,
                TcpState.TIME_WAIT,
                TcpState.CLOSE,
            ),
            DIRECTIONS,
            (True, False),
            ZONES,
            FRONTENDS,
            BACKENDS,
            AGES,
        )
    )
    return tuple((made, made.entry()) for made in all_made)


def book(
    *, terminated: bool, arrived_ago: float, mode: Mode, nodes: tuple[str, ...]
) -> CleanupBook:
    gone = [Address(ip_address(ADDRESSES[family][3]), 8080) for family in ADDRESSES]
    frontends: list[Frontend] = [
        *(Address(ip_address(ADDRESSES[family][1]), 80) for family in ADDRESSES),
        NodePort(30080),
    ]
    of = cleanup(target(*gone, frontends=frontends, terminated=terminated), mode=mode, nodes=nodes)
    arrived_at = NOW - arrived_ago
    return book_of([LiveCleanup(cleanup=of, arrived_at=arrived_at, gone_at=arrived_at)])


@pytest.mark.parametrize("terminated", [True, False])
@pytest.mark.parametrize("arrived_ago", ARRIVALS)
@pytest.mark.parametrize("mode", [Mode.ENFORCE, Mode.DRY_RUN])
@pytest.mark.parametrize("nodes", [(), ("node1",), ("node2",)])
def test_exactly_the_stale_entries_go(
    terminated: bool,  # noqa: FBT001
    arrived_ago: float,
    mode: Mode,
    nodes: tuple[str, ...],
) -> None:
    context = Context(
        now=NOW,
        node_name="node1",
        node_addresses=frozenset(ip_address(ADDRESSES[family][5]) for family in ADDRESSES),
        syn_sent_timeout=120,
    )
    looked_up = book(terminated=terminated, arrived_ago=arrived_ago, mode=mode, nodes=nodes)
    addressed = nodes != ("node2",)
    gone = 0
    for made, entry in everything():
        verdict = classify(entry, looked_up, context)
        condemned = isinstance(verdict, CondemnedEntry) and verdict.mode is Mode.ENFORCE
        expected = goes(
            made,
            terminated=terminated,
            arrived_ago=arrived_ago,
            earnest=mode is Mode.ENFORCE,
            addressed=addressed,
        )
        assert condemned is expected, (made, verdict)
        assert condemned or isinstance(verdict, CondemnedEntry | KeepReason)
        gone += condemned
    assert (gone > 0) is (mode is Mode.ENFORCE and addressed)
