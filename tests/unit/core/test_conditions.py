"""Conditions keep the time of their last transition, and their place."""

from __future__ import annotations

from typing import Any

import pytest

from synsweep.core.conditions import (
    FALSE,
    TRUE,
    UNKNOWN,
    Condition,
    condition_from_wire,
    condition_to_wire,
    find_condition,
    set_condition,
)
from synsweep.core.fields import BadField


def condition(
    type_: str = "Ready", status: str = TRUE, at: str = "12:00", **more: Any
) -> Condition:
    return Condition(
        type=type_, status=status, reason="R", message="M", last_transition_time=at, **more
    )


def test_a_new_condition_is_added_at_the_end() -> None:
    ready, stale = condition(), condition("KubeProxyStale", FALSE)
    assert set_condition(set_condition((), ready), stale) == (ready, stale)


def test_the_time_stays_while_the_status_does() -> None:
    before = (condition(at="12:00"), condition("Other"))
    after = set_condition(before, condition(at="13:00", observed_generation=2))
    assert after == (condition(at="12:00", observed_generation=2), condition("Other"))


@pytest.mark.parametrize("status", [FALSE, UNKNOWN])
def test_the_time_changes_with_the_status(status: str) -> None:
    before = (condition("Other"), condition(at="12:00"))
    after = set_condition(before, condition(status=status, at="13:00"))
    assert after == (condition("Other"), condition(status=status, at="13:00"))


def test_find() -> None:
    stale = condition("KubeProxyStale")
    assert find_condition((condition(), stale), "KubeProxyStale") is stale
    assert find_condition((condition(),), "KubeProxyStale") is None


@pytest.mark.parametrize("generation", [None, 0, 7])
def test_what_is_written_is_read_again(generation: int | None) -> None:
    of = condition(observed_generation=generation)
    assert condition_from_wire(condition_to_wire(of)) == of


def test_a_long_message_is_cut_to_what_the_schema_takes() -> None:
    of = Condition(type="T", status=TRUE, reason="R", message="m" * 2000, last_transition_time="")
    assert len(condition_to_wire(of)["message"]) == 1024


def test_a_malformed_condition_is_refused_by_field() -> None:
    with pytest.raises(BadField, match="status is missing; allowed: a string"):
        condition_from_wire({"type": "Ready"})
