"""Label selectors, exactly as the API means them (apimachinery: labels, util/validation).

The API server's schema lets through what can never be meant: In without values, Exists with some, a
key that no object can have. Those are refused by field, since NotIn on a mistyped key selects all.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from synsweep.core.bodies import BodyReader, Labels

_NAME: Final = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_PREFIX: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_MAX_PREFIX: Final = 253


class Operator(StrEnum):
    """Operators of a label selector."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


_WITH_VALUES: Final = frozenset({Operator.IN, Operator.NOT_IN})


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """One condition of a selector."""

    key: str
    operator: Operator
    values: frozenset[str] = frozenset()

    def matches(self, labels: Labels) -> bool:
        """Judge one object's labels; NotIn also matches where the key is absent."""
        if self.operator is Operator.IN:
            return labels.get(self.key) in self.values
        if self.operator is Operator.NOT_IN:
            return labels.get(self.key) not in self.values
        return (self.key in labels) == (self.operator is Operator.EXISTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSelector:
    """All requirements must hold; none = everything is selected."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Labels) -> bool:
        """Judge one object's labels."""
        return all(requirement.matches(labels) for requirement in self.requirements)


def read_selector(reader: BodyReader, raw: object, field: str) -> LabelSelector:
    """Read a LabelSelector; matchLabels are requirements of one value each.

    Raises MalformedObject.
    """
    selector = reader.mapping(raw, field)
    labels = reader.mapping(selector.get("matchLabels"), f"{field}.matchLabels")
    equal = (
        Requirement(
            key=_label_key(reader, key, f"{field}.matchLabels"),
            operator=Operator.IN,
            values=frozenset({_label_value(reader, value, f"{field}.matchLabels[{key}]")}),
        )
        for key, value in labels.items()
    )
    more = reader.sequence(selector.get("matchExpressions"), f"{field}.matchExpressions")
    expressions = (
        _requirement(reader, expression, f"{field}.matchExpressions[{position}]")
        for position, expression in enumerate(more)
    )
    return LabelSelector(requirements=(*equal, *expressions))


def _requirement(reader: BodyReader, raw: object, field: str) -> Requirement:
    expression = reader.mapping(raw, field)
    key = _label_key(reader, expression.get("key"), f"{field}.key")
    operator = reader.word(expression.get("operator"), f"{field}.operator", Operator)
    raw_values = reader.sequence(expression.get("values"), f"{field}.values")
    if bool(raw_values) != (operator in _WITH_VALUES):
        allowed = "at least one value" if operator in _WITH_VALUES else "no values"
        raise reader.refusal(f"{field}.values", list(raw_values), f"{allowed} with {operator}")
    values = frozenset(
        _label_value(reader, value, f"{field}.values[{position}]")
        for position, value in enumerate(raw_values)
    )
    return Requirement(key=key, operator=operator, values=values)


def _label_key(reader: BodyReader, value: object, field: str) -> str:
    key = reader.text(value, field)
    prefix, slash, name = key.rpartition("/")
    valid = _NAME.fullmatch(name) and (
        not slash or (len(prefix) <= _MAX_PREFIX and _PREFIX.fullmatch(prefix))
    )
    if not valid:
        raise reader.refusal(field, value, "a label key such as app or example.com/team")
    return key


def _label_value(reader: BodyReader, value: object, field: str) -> str:
    text = reader.text(value, field)
    if text and not _NAME.fullmatch(text):
        raise reader.refusal(field, value, "a label value: at most 63 of A-Z a-z 0-9 - _ .")
    return text
