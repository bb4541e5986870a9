"""A half-open entry to a dead backend and the cleanup that condemns it, to vary them."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from synsweep.core.cleanup import (
    Cleanup,
    CleanupReason,
    CleanupTarget,
    Misrouted,
    Mode,
    NodePort,
    TargetBackend,
)
from synsweep.core.flow import IPPROTO_TCP, Address, ConntrackEntry, FlowTuple, Status, TcpState
from synsweep.core.staleness import Candidate, Context, LiveCleanup

if TYPE_CHECKING:
    from collections.abc import Iterable

    from synsweep.core.cleanup import Frontend

NODE = "node1"
NODE_IP = ip_address("172.30.1.10")
SYN_SENT_TIMEOUT = 120
NOW = 1000.0  # ten seconds after the cleanup's arrival
ARRIVED_AT = 990.0

FRONTEND = Address(ip_address("10.96.0.10"), 80)
NODE_PORT = NodePort(30080)
DEAD = Address(ip_address("10.0.0.10"), 8080)
UNREPLIED = Status.CONFIRMED | Status.DST_NAT | Status.SRC_NAT_DONE | Status.DST_NAT_DONE

CONTEXT = Context(
    now=NOW,
    node_name=NODE,
    node_addresses=frozenset({NODE_IP}),
    syn_sent_timeout=SYN_SENT_TIMEOUT,
)


def entry(
    *,
    frontend: Address = FRONTEND,
    backend: Address = DEAD,
    age: int = 5,
    client_port: int = 40000,
    **changed: Any,
) -> ConntrackEntry:
    """A client's half-open flow through a frontend to a backend."""
    client = ip_address("10.0.1.7" if frontend.ip.version == 4 else "fd00:1::7")
    made = ConntrackEntry(
        id=7,
        zone=0,
        protocol=IPPROTO_TCP,
        original=FlowTuple(
            src_ip=client, src_port=client_port, dst_ip=frontend.ip, dst_port=frontend.port
        ),
        reply=FlowTuple(
            src_ip=backend.ip, src_port=backend.port, dst_ip=client, dst_port=client_port
        ),
        tcp_state=TcpState.SYN_SENT,
        status=UNREPLIED,
        timeout=SYN_SENT_TIMEOUT - age,
    )
    return replace(made, **changed)


def target(
    *backends: Address,
    frontends: Iterable[Frontend] = (FRONTEND, NODE_PORT),
    terminated: bool = False,
    service: str = "cart",
    id: int = 0,  # noqa: A002 - the field's name
) -> CleanupTarget:
    """The Service port that the backends left."""
    return CleanupTarget(
        id=id,
        namespace="shop",
        service=service,
        port_name="http",
        frontends=tuple(frontends),
        backends=tuple(
            TargetBackend(address=address, terminated=terminated) for address in backends or (DEAD,)
        ),
    )


def cleanup(*targets: CleanupTarget, **changed: Any) -> Cleanup:
    """A cleanup as the controller writes it."""
    made = Cleanup(
        name="endpoint-removed-17",
        uid="c0ffee",
        policy="cluster-default",
        policy_uid="policy-1",
        sequence=17,
        mode=Mode.ENFORCE,
        misrouted=Misrouted.REPORT,
        reason=CleanupReason.ENDPOINT_REMOVED,
        gone_for_seconds=0.3,
        removed_at="2026-01-01T00:00:00Z",
        reuse_after_seconds=30,
        sweep_for_seconds=60,
        report_within_seconds=1,
        nodes=(),
        targets=targets or (target(),),
    )
    return replace(made, **changed)


def live(of: Cleanup | None = None, **changed: Any) -> LiveCleanup:
    """A cleanup that arrived on this node ten seconds ago."""
    made = LiveCleanup(cleanup=of or cleanup(), arrived_at=ARRIVED_AT, gone_at=ARRIVED_AT - 0.3)
    return replace(made, **changed)


def candidate(of: LiveCleanup | None = None) -> Candidate:
    """The first backend of a cleanup's first target."""
    chosen = of or live()
    first = chosen.cleanup.targets[0]
    return Candidate(live=chosen, target=first, backend=first.backends[0])
