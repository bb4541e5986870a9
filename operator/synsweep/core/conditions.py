"""Conditions as Kubernetes users know them: one per type, with the time of the last change."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from synsweep.core.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

TRUE = "True"
FALSE = "False"
UNKNOWN = "Unknown"

LONGEST_MESSAGE = 1024  # as in the schema
MAX_CONDITIONS = 16
_LONGEST_WORD = 128
_MAX_GENERATION = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """What `kubectl describe` and `kubectl wait --for=condition=` read."""

    type: str  # CamelCase, such as Ready
    status: str  # TRUE, FALSE or UNKNOWN
    reason: str  # one CamelCase word, for programs
    message: str  # a sentence, for people
    last_transition_time: str  # RFC 3339, when the status last changed
    observed_generation: int | None = None


def set_condition(conditions: Iterable[Condition], condition: Condition) -> tuple[Condition, ...]:
    """Put a condition in, in place of the one of its type.

    While the status stays what it was, the time of the last transition stays too; give the time of
    now in `condition`.
    """
    found = tuple(conditions)
    for index, old in enumerate(found):
        if old.type == condition.type:
            if old.status == condition.status:
                condition = replace(condition, last_transition_time=old.last_transition_time)
            return (*found[:index], condition, *found[index + 1 :])
    return (*found, condition)


def find_condition(conditions: Iterable[Condition], type_: str) -> Condition | None:
    """Look up the condition of a type."""
    return next((one for one in conditions if one.type == type_), None)


def condition_to_wire(condition: Condition) -> dict[str, Any]:
    """Write it, with the message cut to what the schema takes."""
    wire: dict[str, Any] = {
        "type": condition.type,
        "status": condition.status,
        "reason": condition.reason,
        "message": condition.message[:LONGEST_MESSAGE],
        "lastTransitionTime": condition.last_transition_time,
    }
    if condition.observed_generation is not None:
        wire["observedGeneration"] = condition.observed_generation
    return wire


def condition_from_wire(body: Mapping[str, Any] | Fields) -> Condition:
    """Read one. Raises BadField, which names the field."""
    fields = body if isinstance(body, Fields) else Fields.of(body)
    generation = (
        fields.integer("observedGeneration", low=0, high=_MAX_GENERATION)
        if fields.has("observedGeneration")
        else None
    )
    return Condition(
        type=fields.text("type", longest=_LONGEST_WORD),
        status=fields.text("status", longest=_LONGEST_WORD),
        reason=fields.text("reason", longest=_LONGEST_WORD, default=""),
        message=fields.text("message", longest=LONGEST_MESSAGE, default=""),
        last_transition_time=fields.text("lastTransitionTime", longest=_LONGEST_WORD, default=""),
        observed_generation=generation,
    )
