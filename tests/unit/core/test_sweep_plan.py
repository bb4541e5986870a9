"""A whole listing: whom to delete, on whose account, and what the brakes leave of it."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synsweep.core.brake import Admission, Brakes, Bucket
from synsweep.core.cleanup import Cleanup, Mode
from synsweep.core.flow import Address, TcpState
from synsweep.core.staleness import CondemnedEntry, KeepReason
from synsweep.core.sweep_plan import apply_brakes, book_of, classify, plan_sweep
from tests.unit.core.samples import CONTEXT, DEAD, FRONTEND, NOW, cleanup, entry, live, target

OTHER_FRONTEND = Address(ip_address("10.96.0.11"), 80)
LIVE_BACKEND = Address(ip_address("10.0.0.11"), 8080)
DRY = cleanup(mode=Mode.DRY_RUN, name="dry", policy_uid="policy-2")
EARNEST = cleanup(name="earnest")
ELSEWHERE = cleanup(target(frontends=(OTHER_FRONTEND,)), name="elsewhere")
CART = ("shop", "cart", "http")
PAY = ("shop", "pay", "http")


def test_the_book_is_keyed_by_backend() -> None:
    book = book_of([live(cleanup(target(DEAD, LIVE_BACKEND))), live(DRY)])
    assert book.backends == {DEAD, LIVE_BACKEND}
    assert [one.live.cleanup.name for one in book.by_backend[DEAD]] == [
        "endpoint-removed-17",
        "dry",
    ]


@pytest.mark.parametrize(
    ("cleanups", "name"),
    [
        pytest.param([EARNEST], "earnest", id="one cleanup"),
        pytest.param([ELSEWHERE, EARNEST], "earnest", id="the one whose frontend it is"),
        pytest.param([DRY, EARNEST], "earnest", id="one in earnest wins over a dry run"),
        pytest.param([ELSEWHERE, DRY, DRY], "dry", id="a dry run, if there is no other"),
    ],
)
def test_an_entry_is_condemned_on_account_of(cleanups: list[Cleanup], name: str) -> None:
    verdict = classify(entry(), book_of(live(of) for of in cleanups), CONTEXT)
    assert isinstance(verdict, CondemnedEntry)
    assert verdict.cleanup == name


@pytest.mark.parametrize(
    ("cleanups", "reason"),
    [
        pytest.param([], KeepReason.NOT_A_GONE_BACKEND, id="no cleanup"),
        pytest.param([ELSEWHERE], KeepReason.NOT_A_FRONTEND, id="one cleanup"),
        pytest.param(
            [ELSEWHERE, cleanup(nodes=("node9",)), ELSEWHERE],
            KeepReason.OTHER_NODE,
            id="of several the one that it came nearest to",
        ),
    ],
)
def test_an_entry_is_kept_because_of(cleanups: list[Cleanup], reason: KeepReason) -> None:
    assert classify(entry(), book_of(live(of) for of in cleanups), CONTEXT) is reason


def test_a_listing_becomes_a_plan() -> None:
    stale = entry(client_port=1)
    entries = [
        stale,
        stale,  # a dump may repeat a bucket
        entry(client_port=2, tcp_state=TcpState.ESTABLISHED),
        entry(client_port=3, backend=LIVE_BACKEND),
        entry(client_port=4, backend=LIVE_BACKEND),
        entry(client_port=5, frontend=OTHER_FRONTEND),
    ]
    dry_elsewhere = cleanup(target(frontends=(OTHER_FRONTEND,)), mode=Mode.DRY_RUN)
    plan = plan_sweep(entries, book_of([live(EARNEST), live(dry_elsewhere)]), CONTEXT)
    assert [one.entry for one in plan.condemned] == [stale]
    assert [one.entry for one in plan.dry_run] == [entries[5]]
    assert plan.kept == {
        KeepReason.NOT_SYN_SENT: 1,
        KeepReason.NOT_A_GONE_BACKEND: 2,
        KeepReason.DRY_RUN: 1,
    }
    assert not plan.held_back


def test_a_plan_knows_that_something_was_too_young_for_it() -> None:
    book = book_of([live(EARNEST)])
    young = plan_sweep([entry(age=1)], book, CONTEXT)
    assert young.condemned == ()
    assert young.left_young
    assert not plan_sweep([entry(age=2)], book, CONTEXT).left_young


def test_a_disabled_policy_condemns_nothing() -> None:
    plan = plan_sweep([entry()], book_of([live(cleanup(mode=Mode.DISABLED))]), CONTEXT)
    assert plan.condemned == ()


def test_the_brakes_hold_back_what_is_too_much_for_a_target_or_the_node() -> None:
    cart = cleanup(target(frontends=(FRONTEND,)), name="cart")
    pay = cleanup(target(frontends=(OTHER_FRONTEND,), service="pay"), name="pay")
    entries = [entry(client_port=port) for port in range(4)]
    entries += [entry(client_port=port, frontend=OTHER_FRONTEND) for port in range(4, 8)]
    book = book_of([live(cart), live(pay)])
    plan = plan_sweep([*entries, entry(backend=LIVE_BACKEND)], book, CONTEXT, others=6)
    held, brakes = apply_brakes(plan, Brakes(node_rate=5, target_rate=3), now=NOW)
    assert [one.cleanup for one in held.condemned] == ["cart"] * 3 + ["pay"] * 2
    assert held.kept == {
        KeepReason.NOT_A_GONE_BACKEND: 1 + 6,
        KeepReason.TARGET_BRAKE: 1,
        KeepReason.NODE_BRAKE: 2,
    }
    assert held.held_back
    later, _ = apply_brakes(plan, brakes, now=NOW + 1)
    assert len(later.condemned) == 5


def test_tokens_are_spent_only_on_what_is_deleted() -> None:
    plan = plan_sweep([entry(tcp_state=TcpState.CLOSE)], book_of([live()]), CONTEXT)
    after, brakes = apply_brakes(plan, Brakes(), now=NOW)
    assert after == plan
    assert brakes.targets == {}
    assert brakes.node == Bucket(rate=2000, tokens=2000, at=NOW)


def test_a_held_back_deletion_costs_no_token() -> None:
    answers, brakes = Brakes(node_rate=1, target_rate=5).admit([CART, CART, PAY], now=0)
    assert answers == (Admission.ADMITTED, Admission.NODE_BRAKE, Admission.NODE_BRAKE)
    assert {target: bucket.tokens for target, bucket in brakes.targets.items()} == {CART: 4}


def test_buckets_fill_up_again_and_are_forgotten() -> None:
    _, brakes = Brakes(node_rate=100, target_rate=10).admit([CART] * 10, now=0)
    answers, brakes = brakes.admit([CART] * 10, now=0.5)
    assert answers.count(Admission.ADMITTED) == 5
    _, brakes = brakes.admit([], now=1.6)
    assert brakes.targets == {}
    assert brakes.node is not None
    assert brakes.node.level(10) == 100


def test_a_clock_that_stands_still_gives_no_token() -> None:
    bucket = Bucket(rate=10, tokens=3, at=5)
    assert bucket.level(4) == 3


@given(
    rounds=st.lists(
        st.tuples(
            st.floats(min_value=0, max_value=3), st.lists(st.sampled_from([CART, PAY]), max_size=40)
        ),
        max_size=10,
    )
)
def test_no_second_ever_sees_more_than_two_buckets_full(
    rounds: list[tuple[float, list[tuple[str, str, str]]]],
) -> None:
    brakes, now = Brakes(node_rate=12, target_rate=5), 0.0
    admitted: list[tuple[float, tuple[str, str, str]]] = []
    for wait, wanted in rounds:
        now += wait
        answers, brakes = brakes.admit(wanted, now=now)
        admitted += [
            (now, one)
            for one, answer in zip(wanted, answers, strict=True)
            if answer is Admission.ADMITTED
        ]
    for start, _ in admitted:
        within = [one for at, one in admitted if start <= at <= start + 1]
        assert len(within) <= 2 * 12
        assert within.count(CART) <= 2 * 5
