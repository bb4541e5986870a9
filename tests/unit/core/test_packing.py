"""How removals are packed: few objects, none too large, the same every time."""

from __future__ import annotations

from ipaddress import ip_address
from random import Random
from typing import TYPE_CHECKING

import pytest

from synsweep.core.cleanup import CleanupTarget, NodePort, TargetBackend
from synsweep.core.endpoints import ServicePortName
from synsweep.core.flow import Address
from synsweep.core.packing import Batch, Removal, batches_of, frontend_order, spread

if TYPE_CHECKING:
    from collections.abc import Iterable

    from synsweep.core.cleanup import Frontend

ONE: tuple[Frontend, ...] = (Address(ip_address("10.96.0.1"), 80),)


def removal(
    number: int = 0,
    *,
    gone_at: float = 100.0,
    service: str = "a",
    frontends: tuple[Frontend, ...] = ONE,
) -> Removal:
    return Removal(
        gone_at=gone_at,
        service_port=ServicePortName(namespace="shop", name=service, port_name="http"),
        frontends=frontends,
        backend=TargetBackend(
            address=Address(ip_address("10.0.0.0") + number, 8080), terminated=False
        ),
    )


def objects(removals: Iterable[Removal]) -> list[tuple[CleanupTarget, ...]]:
    return list(Batch(gone_at=100.0, removals=tuple(removals)).objects())


def sizes(packed: list[tuple[CleanupTarget, ...]]) -> list[list[int]]:
    return [[len(target.backends) for target in targets] for targets in packed]


def test_backends_that_went_from_the_same_frontends_share_a_target() -> None:
    packed = objects([removal(2), removal(1), removal(3, service="b"), removal(1, service="b")])

    ((first, second),) = packed
    assert (first.id, first.service, second.id, second.service) == (0, "a", 1, "b")
    assert [str(one.address.ip) for one in first.backends] == ["10.0.0.1", "10.0.0.2"]


def test_other_frontends_are_another_target() -> None:
    both = (*ONE, NodePort(30080))

    assert sizes(objects([removal(1), removal(2, frontends=both)])) == [[1, 1]]


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        pytest.param(0, [], id="nothing"),
        pytest.param(500, [[500]], id="as many as fit"),
        pytest.param(501, [[500], [1]], id="one more"),
        pytest.param(1000, [[500], [500]], id="twice"),
    ],
)
def test_an_object_names_at_most_500_backends(count: int, expected: list[list[int]]) -> None:
    assert sizes(objects(removal(number) for number in range(count))) == expected


def test_a_target_may_go_on_in_the_next_object_with_new_numbers() -> None:
    packed = objects(
        removal(number, service=service) for service in ("a", "b") for number in range(300)
    )

    assert sizes(packed) == [[300, 200], [100]]
    assert [[target.id for target in targets] for targets in packed] == [[0, 1], [0]]


def test_a_target_has_at_most_64_frontends_and_each_part_has_all_backends() -> None:
    many = tuple(Address(ip_address("192.0.2.0") + number, 80) for number in range(130))
    packed = objects([removal(1, frontends=many), removal(2, frontends=many)])

    (targets,) = packed
    assert [len(target.frontends) for target in targets] == [64, 64, 2]
    assert sizes(packed) == [[2, 2, 2]]
    assert {frontend for target in targets for frontend in target.frontends} == set(many)


def test_the_same_removals_make_the_same_objects_in_any_order() -> None:
    six = (Address(ip_address("fd00::1"), 80),)
    removals = [
        removal(number, service=service, frontends=frontends)
        for number in range(9)
        for service in ("a", "b")
        for frontends in (ONE, (NodePort(30080),), six)
    ]
    shuffled = list(removals)
    Random(7).shuffle(shuffled)

    assert objects(shuffled) == objects(removals)


def test_node_ports_come_first_then_ipv4_then_ipv6() -> None:
    ordered: list[Frontend] = [
        NodePort(30080),
        Address(ip_address("10.0.0.9"), 80),
        Address(ip_address("10.0.0.10"), 80),
        Address(ip_address("10.0.0.10"), 81),
        Address(ip_address("fd00::1"), 80),
    ]

    shuffled = Random(7).sample(ordered, k=len(ordered))

    assert sorted(shuffled, key=frontend_order) == ordered


@pytest.mark.parametrize(
    ("ages", "expected"),
    [
        pytest.param([], [], id="nothing"),
        pytest.param([0.0, 0.6, 1.0], [1.0], id="within a second: one, as old as the oldest"),
        pytest.param([0.0, 1.1], [1.1, 0.0], id="more than a second apart: two"),
        pytest.param([30.0, 40.0], [40.0], id="within a quarter of the oldest's age: one"),
        pytest.param([29.0, 40.0], [40.0, 29.0], id="more than that: two"),
        pytest.param([0.5, 1.0, 1.5, 2.0], [2.0, 0.5], id="counted from the oldest, not in a row"),
    ],
)
def test_removals_of_about_one_age_share_it(ages: list[float], expected: list[float]) -> None:
    batches = list(batches_of([removal(gone_at=100.0 - age) for age in ages], 100.0))

    assert [round(100.0 - batch.gone_at, 3) for batch in batches] == expected
    assert sum(len(batch.removals) for batch in batches) == len(ages)


def test_a_minute_of_removals_goes_out_in_a_few_batches() -> None:
    removals = [removal(number, gone_at=100.0 - number / 10) for number in range(600)]

    assert len(list(batches_of(removals, 100.0))) <= 15
    assert (spread(0), spread(4), spread(60)) == (1, 1, 15)
