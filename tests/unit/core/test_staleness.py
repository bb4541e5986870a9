"""The delete rule, check by check; that it never deletes too much is test_survivors.py's matter."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from synsweep.core.cleanup import Mode, NodePort
from synsweep.core.flow import IPPROTO_UDP, Address, ConntrackEntry, Status, TcpState
from synsweep.core.staleness import (
    CHECKS,
    Candidate,
    CondemnedEntry,
    Context,
    Deletion,
    KeepReason,
    Outcome,
    is_same_entry,
    judge,
    judge_again,
)
from tests.unit.core.samples import (
    ARRIVED_AT,
    CONTEXT,
    DEAD,
    FRONTEND,
    NODE_IP,
    NODE_PORT,
    UNREPLIED,
    candidate,
    cleanup,
    entry,
    live,
    target,
)

JUST_ARRIVED = replace(CONTEXT, now=ARRIVED_AT + 0.2)
ELSEWHERE = ip_address("172.30.2.10")
TERMINATED = live(cleanup(target(terminated=True)))
V6_FRONTEND = Address(ip_address("fd00:96::10"), 80)
V6_DEAD = Address(ip_address("fd00::10"), 8080)


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        pytest.param(entry(), None, id="a half-open flow to a gone backend is deleted"),
        pytest.param(
            entry(protocol=IPPROTO_UDP, tcp_state=None),
            KeepReason.NOT_TCP,
            id="UDP is kept: kube-proxy cleans it",
        ),
        *(
            pytest.param(
                entry(tcp_state=state),
                KeepReason.NOT_SYN_SENT,
                id=f"a flow in {state.name} is kept",
            )
            for state in TcpState
            if state is not TcpState.SYN_SENT
        ),
        pytest.param(
            entry(tcp_state=TcpState.ESTABLISHED, status=UNREPLIED),
            KeepReason.NOT_SYN_SENT,
            id="ESTABLISHED [UNREPLIED], picked up in mid-stream, is kept",
        ),
        pytest.param(
            entry(status=UNREPLIED | Status.SEEN_REPLY),
            KeepReason.SEEN_REPLY,
            id="a flow that was answered in this very moment is kept",
        ),
        pytest.param(
            entry(status=UNREPLIED & ~Status.DST_NAT),
            KeepReason.NOT_DNATED,
            id="a flow straight to the pod's IP is kept",
        ),
        pytest.param(
            entry(status=UNREPLIED | Status.SRC_NAT), None, id="a masqueraded flow is deleted"
        ),
        pytest.param(entry(zone=3), KeepReason.OTHER_ZONE, id="a flow in another zone is kept"),
        pytest.param(
            entry(frontend=Address(ip_address("10.96.0.99"), 80)),
            KeepReason.NOT_A_FRONTEND,
            id="a flow through the frontend of the IP's next owner is kept",
        ),
        pytest.param(
            entry(frontend=Address(FRONTEND.ip, 81)),
            KeepReason.NOT_A_FRONTEND,
            id="a flow through another port of the same frontend IP is kept",
        ),
        pytest.param(
            entry(backend=Address(DEAD.ip, 9090)),
            KeepReason.NOT_A_GONE_BACKEND,
            id="a flow to another port of the gone backend is kept",
        ),
        pytest.param(
            entry(backend=Address(ip_address("10.0.0.11"), 8080)),
            KeepReason.NOT_A_GONE_BACKEND,
            id="a flow to a live backend of the same Service is kept",
        ),
    ],
)
def test_the_entry(seen: ConntrackEntry, expected: KeepReason | None) -> None:
    assert judge(seen, candidate(), CONTEXT) == expected


@pytest.mark.parametrize(
    ("frontend", "expected"),
    [
        pytest.param(Address(NODE_IP, 30080), None, id="on this node's address"),
        pytest.param(Address(ip_address("127.0.0.1"), 30080), None, id="on 127.0.0.1"),
        pytest.param(Address(ip_address("127.9.9.9"), 30080), None, id="anywhere in 127/8"),
        pytest.param(Address(ip_address("::1"), 30080), None, id="on ::1"),
        pytest.param(
            Address(ELSEWHERE, 30080), KeepReason.NOT_A_FRONTEND, id="not on another node's address"
        ),
        pytest.param(
            Address(NODE_IP, 30081), KeepReason.NOT_A_FRONTEND, id="not another port of this node"
        ),
        pytest.param(
            Address(NODE_IP, 80),
            KeepReason.NOT_A_FRONTEND,
            id="not the Service's own port on this node's address",
        ),
    ],
)
def test_a_node_port_is_matched(frontend: Address, expected: KeepReason | None) -> None:
    backend = V6_DEAD if frontend.ip.version == 6 else DEAD
    cleaned = live(cleanup(target(backend)))
    assert judge(entry(frontend=frontend, backend=backend), candidate(cleaned), CONTEXT) == expected


@pytest.mark.parametrize(
    "frontend",
    [
        pytest.param(Address(NODE_IP, 30080), id="ip and port that happen to be the node's"),
        pytest.param(FRONTEND, id="the cluster IP"),
        pytest.param(V6_FRONTEND, id="an IPv6 cluster IP"),
    ],
)
def test_an_ip_frontend_is_matched_by_ip_and_port(frontend: Address) -> None:
    backend = V6_DEAD if frontend.ip.version == 6 else DEAD
    only_ip = live(cleanup(target(backend, frontends=(frontend,))))
    seen = entry(frontend=frontend, backend=backend)
    assert judge(seen, candidate(only_ip), CONTEXT) is None


def test_a_node_port_that_is_no_target_is_nobodys() -> None:
    without_node_port = live(cleanup(target(frontends=(FRONTEND,))))
    seen = entry(frontend=Address(NODE_IP, NODE_PORT.port))
    assert judge(seen, candidate(without_node_port), CONTEXT) is KeepReason.NOT_A_FRONTEND


@pytest.mark.parametrize(
    ("age", "of", "context", "expected"),
    [
        pytest.param(2, live(), CONTEXT, None, id="a computed age of 2 is more than a second"),
        pytest.param(
            1, live(), CONTEXT, KeepReason.TOO_YOUNG, id="a computed age of 1 may be 5 ms"
        ),
        pytest.param(
            1,
            live(),
            JUST_ARRIVED,
            KeepReason.TOO_YOUNG,
            id="a backend that may live on gets its second even if the entry was there before",
        ),
        pytest.param(
            1, TERMINATED, JUST_ARRIVED, None, id="nobody answers for a pod that is being deleted"
        ),
        pytest.param(
            1,
            TERMINATED,
            CONTEXT,
            KeepReason.TOO_YOUNG,
            id="an entry that came after the cleanup gets its second, terminated or not",
        ),
        pytest.param(
            0,
            TERMINATED,
            replace(CONTEXT, now=ARRIVED_AT),
            KeepReason.TOO_YOUNG,
            id="an entry without any age is not known to have been there",
        ),
        pytest.param(
            -180,
            TERMINATED,
            JUST_ARRIVED,
            KeepReason.TOO_YOUNG,
            id="a remaining time above the node's timeout says nothing",
        ),
    ],
)
def test_the_age(age: int, of: object, context: Context, expected: KeepReason | None) -> None:
    assert judge(entry(age=age), candidate(of), context) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("on_account_of", "expected"),
    [
        pytest.param(
            candidate(live(over_at=CONTEXT.now)), KeepReason.CLEANUP_OVER, id="over: kept"
        ),
        pytest.param(candidate(live(over_at=CONTEXT.now + 0.1)), None, id="not yet over: deleted"),
        pytest.param(candidate(live(revoked=True)), KeepReason.CLEANUP_REVOKED, id="revoked: kept"),
        pytest.param(
            candidate(live(cleanup(nodes=("node2", "node3")))),
            KeepReason.OTHER_NODE,
            id="for other nodes: kept",
        ),
        pytest.param(
            candidate(live(cleanup(nodes=("node2", "node1")))),
            None,
            id="for this node among others: deleted",
        ),
        pytest.param(
            candidate(live(cleanup(mode=Mode.DRY_RUN))), KeepReason.DRY_RUN, id="dry run: kept"
        ),
        pytest.param(
            candidate(live(cleanup(mode=Mode.DISABLED))), KeepReason.DRY_RUN, id="disabled: kept"
        ),
    ],
)
def test_the_cleanup(on_account_of: Candidate, expected: KeepReason | None) -> None:
    assert judge(entry(), on_account_of, CONTEXT) == expected


def test_the_first_reason_in_the_order_of_the_checks_is_told() -> None:
    """Spoil everything, then repair check by check: the next reason appears each time."""
    spoilt = entry(
        frontend=Address(ELSEWHERE, 1),
        backend=Address(ELSEWHERE, 2),
        age=1,
        protocol=IPPROTO_UDP,
        tcp_state=TcpState.ESTABLISHED,
        status=Status.SEEN_REPLY,
        zone=1,
    )
    account = live(cleanup(mode=Mode.DRY_RUN, nodes=("node9",)), over_at=CONTEXT.now, revoked=True)
    repairs: list[tuple[KeepReason | None, dict[str, object], dict[str, object]]] = [
        (KeepReason.NOT_TCP, {}, {}),
        (KeepReason.NOT_SYN_SENT, {"protocol": 6}, {}),
        (KeepReason.SEEN_REPLY, {"tcp_state": TcpState.SYN_SENT}, {}),
        (KeepReason.NOT_DNATED, {"status": Status.CONFIRMED}, {}),
        (KeepReason.OTHER_ZONE, {"status": UNREPLIED}, {}),
        (KeepReason.NOT_A_FRONTEND, {"zone": 0}, {}),
        (KeepReason.NOT_A_GONE_BACKEND, {"original": entry().original}, {}),
        (KeepReason.TOO_YOUNG, {"reply": entry().reply}, {}),
        (KeepReason.CLEANUP_OVER, {"timeout": 1}, {}),
        (KeepReason.CLEANUP_REVOKED, {}, {"over_at": CONTEXT.now + 1}),
        (KeepReason.OTHER_NODE, {}, {"revoked": False}),
        (KeepReason.DRY_RUN, {}, {"cleanup": cleanup(mode=Mode.DRY_RUN)}),
        (None, {}, {"cleanup": cleanup()}),
    ]
    told = []
    for _, entry_change, cleanup_change in repairs:
        spoilt = replace(spoilt, **entry_change)  # type: ignore[arg-type]
        account = replace(account, **cleanup_change)  # type: ignore[arg-type]
        told.append(judge(spoilt, candidate(account), CONTEXT))
    assert told == [reason for reason, _, _ in repairs]
    assert len(CHECKS) == len(repairs) - 1


def test_judging_again_uses_the_same_checks() -> None:
    condemned = CondemnedEntry(entry=entry(), candidate=candidate())
    judged = judge_again(condemned, CONTEXT)
    assert judged(entry()) is None
    answered = entry(status=UNREPLIED | Status.SEEN_REPLY)
    assert judged(answered) is KeepReason.SEEN_REPLY


@pytest.mark.parametrize(
    ("seen", "same"),
    [
        pytest.param(entry(), True, id="nothing changed"),
        pytest.param(
            entry(age=6, status=UNREPLIED | Status.SEEN_REPLY), True, id="age and status may change"
        ),
        pytest.param(entry(id=8), False, id="another id"),
        pytest.param(entry(zone=1), False, id="another zone"),
        pytest.param(entry(frontend=Address(ELSEWHERE, 80)), False, id="another original tuple"),
        pytest.param(entry(backend=Address(ELSEWHERE, 80)), False, id="another reply tuple"),
    ],
)
def test_the_same_entry(seen: ConntrackEntry, *, same: bool) -> None:
    assert is_same_entry(entry(), seen) is same


def test_a_condemned_entry_tells_on_whose_account() -> None:
    condemned = CondemnedEntry(entry=entry(), candidate=candidate())
    assert condemned.cleanup == "endpoint-removed-17"
    assert (condemned.policy, condemned.policy_uid) == ("cluster-default", "policy-1")
    assert condemned.mode is Mode.ENFORCE
    assert (condemned.target.namespace, condemned.target.service) == ("shop", "cart")
    assert condemned.backend == DEAD
    deletion = Deletion(condemned=condemned, outcome=Outcome.DELETED)
    assert (deletion.kept, deletion.error, deletion.entry) == (None, "", None)


def test_words_are_the_same_everywhere() -> None:
    assert str(KeepReason.NOT_A_GONE_BACKEND) == "NotAGoneBackend"
    assert str(Outcome.ALREADY_GONE) == "AlreadyGone"
    assert str(NodePort(30080)) == "nodePort 30080"
