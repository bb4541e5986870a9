"""The filtered dump while its walk is short, the streamed one above: learned on this node."""

from __future__ import annotations

import pytest

from synsweep.conntrack.stall import DumpCost, DumpMode, StallGuard
from synsweep.conntrack.sysctls import TableSize

USUAL = 65_536  # buckets: kube-proxy's default for 8 cores


def size(entries: int, buckets: int = USUAL) -> TableSize:
    return TableSize(entries=entries, buckets=buckets)


def cost(
    mode: DumpMode, entries: int, seconds: float, *, copied: int = 0, buckets: int = USUAL
) -> DumpCost:
    return DumpCost(
        mode=mode,
        size=size(entries, buckets),
        copied=copied,
        seconds=seconds,
        stall=seconds,
        kernel_seconds=seconds,
    )


def largest_filtered(guard: StallGuard) -> int:
    return max(
        entries
        for entries in range(0, 200_000, 100)
        if guard.choose(size(entries)) is DumpMode.FILTERED
    )


@pytest.mark.parametrize(
    ("entries", "mode"),
    [
        pytest.param(0, DumpMode.FILTERED, id="an empty table"),
        pytest.param(1_000, DumpMode.FILTERED, id="a small table"),
        pytest.param(100_000, DumpMode.STREAMED, id="a large table"),
        pytest.param(10_000_000, DumpMode.STREAMED, id="a huge table"),
    ],
)
def test_small_tables_are_filtered_large_ones_streamed(entries: int, mode: DumpMode) -> None:
    assert StallGuard(0.005).choose(size(entries)) is mode


def test_a_longer_stall_that_is_allowed_filters_larger_tables() -> None:
    limits = [largest_filtered(StallGuard(stall)) for stall in (0.003, 0.005, 0.02)]
    assert limits == sorted(limits)
    assert len(set(limits)) == 3


def test_what_is_chosen_is_predicted_to_stay_under_the_limit() -> None:
    guard = StallGuard(0.005)
    for entries in range(18, 200_000, 1000):
        if guard.choose(size(entries)) is DumpMode.FILTERED:
            assert guard.predict(size(entries)) <= 0.005


def test_a_slower_node_changes_over_earlier_at_once() -> None:
    guard = StallGuard(0.005)
    before = largest_filtered(guard)
    guard.learn(cost(DumpMode.FILTERED, 10_000, 0.02))
    assert largest_filtered(guard) < before / 2
    assert guard.predict(size(10_000)) == pytest.approx(0.02)


def test_a_faster_node_changes_over_later_little_by_little() -> None:
    guard = StallGuard(0.005)
    limits = [largest_filtered(guard)]
    for _ in range(5):
        guard.learn(cost(DumpMode.FILTERED, 5_000, 0.001))
        limits.append(largest_filtered(guard))
    assert limits == sorted(set(limits))


def test_streamed_dumps_teach_as_well_so_that_one_slow_moment_does_not_last() -> None:
    guard = StallGuard(0.005)
    guard.learn(cost(DumpMode.FILTERED, 10_000, 0.2))
    assert guard.choose(size(10_000)) is DumpMode.STREAMED
    for _ in range(30):
        usual = USUAL * 13e-9 + 10_000 * 600e-9
        guard.learn(cost(DumpMode.STREAMED, 10_000, usual, copied=10_000))
    assert guard.slowness == pytest.approx(1, abs=0.2)
    assert guard.choose(size(10_000)) is DumpMode.FILTERED


def test_a_table_that_fits_one_datagram_is_one_walk_either_way() -> None:
    guard = StallGuard(0.0001)
    assert guard.choose(size(10)) is DumpMode.FILTERED
    assert guard.choose(size(1_000)) is DumpMode.STREAMED


def test_absurd_measurements_are_bounded_and_no_size_teaches_nothing() -> None:
    guard = StallGuard(0.005)
    guard.learn(cost(DumpMode.FILTERED, 0, 1.0, buckets=0))
    assert guard.slowness == 2
    guard.learn(cost(DumpMode.FILTERED, 1, 100.0, buckets=1))
    assert guard.slowness == 50
