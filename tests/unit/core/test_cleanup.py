"""A cleanup's life outside the node: its name, and what revocation takes out of it."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synsweep.core.cleanup import CleanupReason, Frontend, NodePort, cleanup_name, without
from synsweep.core.flow import Address
from tests.unit.core.samples import DEAD, FRONTEND, NODE_PORT, cleanup, target

OTHER = Address(ip_address("10.0.0.11"), 8080)
OTHER_FRONTEND = Address(ip_address("10.96.0.11"), 80)


@pytest.mark.parametrize(
    ("reason", "name"),
    [
        (CleanupReason.ENDPOINT_REMOVED, "endpoint-removed-17"),
        (CleanupReason.ENDPOINT_UNREADY, "endpoint-unready-17"),
        (CleanupReason.NODE_SUSPECT, "node-suspect-17"),
    ],
)
def test_the_name_is_reason_and_sequence(reason: CleanupReason, name: str) -> None:
    assert cleanup_name(reason, 17) == name


def test_nothing_to_take_out_leaves_the_same_object() -> None:
    of = cleanup(target(DEAD, OTHER))
    assert without(of, frozenset()) is of
    assert without(of, {(OTHER_FRONTEND, DEAD)}) is of


def test_a_backend_that_serves_again_goes_from_its_target_alone() -> None:
    of = cleanup(
        target(DEAD, OTHER, id=0), target(DEAD, frontends=(OTHER_FRONTEND,), service="pay", id=1)
    )
    rest = without(of, {(FRONTEND, DEAD)})
    assert rest is not None
    assert [t.id for t in rest.targets] == [0, 1]
    assert [[b.address for b in t.backends] for t in rest.targets] == [[OTHER], [DEAD]]


def test_one_valid_frontend_is_enough_to_let_a_backend_go() -> None:
    of = cleanup(target(DEAD, OTHER))
    rest = without(of, {(NODE_PORT, OTHER)})
    assert rest is not None
    assert [b.address for b in rest.targets[0].backends] == [DEAD]


def test_an_empty_target_goes_and_the_others_keep_their_ids() -> None:
    of = cleanup(target(DEAD, id=0), target(OTHER, id=1))
    rest = without(of, {(FRONTEND, DEAD)})
    assert rest is not None
    assert [t.id for t in rest.targets] == [1]


def test_nothing_left_is_none() -> None:
    assert without(cleanup(), {(FRONTEND, DEAD)}) is None


FRONTENDS: st.SearchStrategy[Frontend] = st.sampled_from(
    [FRONTEND, OTHER_FRONTEND, NODE_PORT, NodePort(30081)]
)
BACKENDS = st.builds(
    Address, st.ip_addresses(v=4, network="10.0.0.0/30"), st.integers(min_value=1, max_value=3)
)


@st.composite
def cleanups(draw: st.DrawFn) -> object:
    count = draw(st.integers(min_value=1, max_value=4))
    return cleanup(
        *(
            target(
                *draw(st.lists(BACKENDS, min_size=1, max_size=5, unique=True)),
                frontends=draw(st.lists(FRONTENDS, min_size=1, max_size=3, unique=True)),
                id=number,
            )
            for number in range(count)
        )
    )


def pairs_of(of: object) -> set[tuple[object, object, object]]:
    return {
        (t.id, frontend, backend)
        for t in of.targets  # type: ignore[attr-defined]
        for frontend in t.frontends
        for backend in t.backends
    }


@given(of=cleanups(), pairs=st.sets(st.tuples(FRONTENDS, BACKENDS)))
def test_revocation_never_adds_and_leaves_no_valid_pair(
    of: object, pairs: set[tuple[object, object]]
) -> None:
    rest = without(of, pairs)  # type: ignore[arg-type]
    left = pairs_of(rest) if rest is not None else set()
    assert left <= pairs_of(of)
    assert not {(frontend, backend.address) for _, frontend, backend in left} & pairs  # type: ignore[attr-defined]
    if rest is not None:
        assert all(t.backends for t in rest.targets)
        assert without(rest, pairs) is rest  # type: ignore[arg-type]


def test_for_whom_and_how_many() -> None:
    assert cleanup().is_for("anyone")
    assert cleanup(nodes=("node2",)).is_for("node2")
    assert not cleanup(nodes=("node2",)).is_for("node1")
    assert cleanup(target(DEAD, OTHER), target(DEAD, id=1)).backends_total == 3
