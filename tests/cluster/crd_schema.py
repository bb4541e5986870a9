"""What a CRD's schema says: every rule in it, and for every limit an object that breaks just it.

The counter-examples are made from the schema itself, so a limit cannot be added without being tried
against a real API server, and a keyword that nothing here can break is an error.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import yaml

CRDS = Path(__file__).parents[2] / "crds"

Json: TypeAlias = dict[str, Any]
Step: TypeAlias = str | int
Steps: TypeAlias = tuple[Step, ...]

# What a schema says about people, clients and merging; nothing that a value could break.
NOT_LIMITS = frozenset(
    {
        "additionalProperties",  # walked into
        "default",
        "description",
        "items",  # walked into
        "properties",  # walked into
        "x-kubernetes-list-map-keys",  # with x-kubernetes-list-type
        "x-kubernetes-map-type",
        "x-kubernetes-validations",  # rules have hand-written counter-examples
    }
)
NUMBER_FORMATS = frozenset(
    {"int32", "int64"}
)  # documentation: the API server does not look at them


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One node of a schema, and the steps that lead to a value for it in an object."""

    steps: Steps
    schema: Json

    @property
    def field(self) -> str:
        """The path as the API server writes it in its errors."""
        return path_of(self.steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counterexample:
    """An object with one wrong value, and what the API server has to say about it."""

    keyword: str
    field: str
    says: str
    body: Json


def path_of(steps: Steps) -> str:
    """Write steps as the API server does: `spec.targets[0].id`."""
    path = ""
    for step in steps:
        path += f"[{step}]" if isinstance(step, int) else f".{step}" if path else step
    return path


def load_crd(plural: str) -> Json:
    """Read one CRD of crds/."""
    crd: Json = yaml.safe_load((CRDS / f"{plural}.yaml").read_text())
    return crd


def root_schema(crd: Mapping[str, Any]) -> Json:
    """The schema of the CRD's only version."""
    (version,) = crd["spec"]["versions"]
    schema: Json = version["schema"]["openAPIV3Schema"]
    return schema


def walk(schema: Json, example: Any, steps: Steps = ()) -> Iterator[Node]:
    """Every node of the schema for which the example has a value: the first that does.

    Raises:
        AssertionError: the example has no value for a property, so its limits would go untried.
    """
    yield Node(steps=steps, schema=schema)
    for name, child in schema.get("properties", {}).items():
        if steps or name in {"spec", "status"}:
            holder = _holder(example, steps, name)
            yield from walk(child, example, (*holder, name))
    if "items" in schema:
        yield from walk(schema["items"], example, (*steps, 0))
    if "additionalProperties" in schema:
        key = next(iter(get(example, steps)))
        yield from walk(schema["additionalProperties"], example, (*steps, key))


def _holder(example: Any, steps: Steps, name: str) -> Steps:
    """The steps, or those of a later item of the same list, where the example has the property."""
    lists = [at for at, step in enumerate(steps) if isinstance(step, int)]
    if name in get(example, steps):
        return steps
    for at in reversed(lists):
        for index in range(len(get(example, steps[:at]))):
            candidate = (*steps[:at], index, *steps[at + 1 :])
            if name in get(example, candidate):
                return candidate
    raise AssertionError(f"the example has no {path_of((*steps, name))}")


def get(body: Any, steps: Steps) -> Any:
    """The value at these steps."""
    for step in steps:
        body = body[step]
    return body


def put(body: Json, steps: Steps, value: Any) -> Json:
    """A copy of the object with another value there."""
    changed = copy.deepcopy(body)
    get(changed, steps[:-1])[steps[-1]] = value
    return changed


def drop(body: Json, steps: Steps) -> Json:
    """A copy of the object without the value there."""
    changed = copy.deepcopy(body)
    del get(changed, steps[:-1])[steps[-1]]
    return changed


def rules(schema: Json, steps: tuple[str, ...] = ()) -> Iterator[tuple[str, Json]]:
    """Every CEL rule with the path of its schema node, lists written as []."""
    for rule in schema.get("x-kubernetes-validations", ()):
        yield ".".join(steps).replace(".[]", "[]"), rule
    for name, child in schema.get("properties", {}).items():
        yield from rules(child, (*steps, name))
    if "items" in schema:
        yield from rules(schema["items"], (*steps, "[]"))


def counterexamples(schema: Json, example: Json) -> Iterator[Counterexample]:
    """For every limit of the schema the example with one value that breaks it."""
    for node in walk(schema, example):
        if not node.steps:
            continue
        for keyword, limit in node.schema.items():
            if keyword in NOT_LIMITS or (keyword == "format" and limit in NUMBER_FORMATS):
                continue
            for steps, says, body in _BREAKS[keyword](node, example):
                yield Counterexample(keyword=keyword, field=path_of(steps), says=says, body=body)


Broken: TypeAlias = Iterator[tuple[Steps, str, Json]]


def _wrong_type(node: Node, example: Json) -> Broken:
    value: Any = 1 if node.schema["type"] in {"string", "object", "array", "boolean"} else "one"
    yield node.steps, "must be of type", put(example, node.steps, value)


def _wrong_format(node: Node, example: Json) -> Broken:
    yield node.steps, "must be of type date-time", put(example, node.steps, "yesterday")


def _not_in_enum(node: Node, example: Json) -> Broken:
    yield node.steps, "Unsupported value", put(example, node.steps, "Sometimes")


def _too_small(node: Node, example: Json) -> Broken:
    value = node.schema["minimum"] - 1
    yield node.steps, "greater than or equal to", put(example, node.steps, value)


def _too_big(node: Node, example: Json) -> Broken:
    value = node.schema["maximum"] + 1
    yield node.steps, "less than or equal to", put(example, node.steps, value)


def _too_short(node: Node, example: Json) -> Broken:
    assert node.schema["minLength"] == 1
    yield node.steps, "at least 1 chars long", put(example, node.steps, "")


def _too_long(node: Node, example: Json) -> Broken:
    value = "a" * (node.schema["maxLength"] + 1)
    yield node.steps, "Too long", put(example, node.steps, value)


def _no_match(node: Node, example: Json) -> Broken:
    yield node.steps, "should match", put(example, node.steps, "no match!")


def _too_few(node: Node, example: Json) -> Broken:
    assert node.schema["minItems"] == 1
    yield node.steps, "at least 1 items", put(example, node.steps, [])


def _too_many(node: Node, example: Json) -> Broken:
    first = get(example, (*node.steps, 0))
    keys = node.schema.get("x-kubernetes-list-map-keys", [])
    items = [_another(first, keys, number) for number in range(node.schema["maxItems"] + 1)]
    yield node.steps, "Too many", put(example, node.steps, items)


def _another(item: Any, keys: list[str], number: int) -> Any:
    """A list item that differs from the others, where the list wants that."""
    if isinstance(item, str):
        return f"10.0.{number >> 8}.{number & 255}" if item[0].isdigit() else f"n{number}"
    for key in keys:
        item = put(item, (key,), number + 1 if isinstance(item[key], int) else f"n{number}")
    return item


def _too_many_keys(node: Node, example: Json) -> Broken:
    value = {f"key-{number}": "x" for number in range(node.schema["maxProperties"] + 1)}
    yield node.steps, "Too many", put(example, node.steps, value)


def _missing(node: Node, example: Json) -> Broken:
    for name in node.schema["required"]:
        steps = (*node.steps, name)
        yield steps, "Required value", drop(example, steps)


def _twice(node: Node, example: Json) -> Broken:
    if node.schema["x-kubernetes-list-type"] == "atomic":
        return
    items = get(example, node.steps)
    steps = (*node.steps, len(items))
    yield steps, "Duplicate value", put(example, node.steps, [*items, items[0]])


_BREAKS: Mapping[str, Callable[[Node, Json], Broken]] = {
    "enum": _not_in_enum,
    "format": _wrong_format,
    "maxItems": _too_many,
    "maxLength": _too_long,
    "maxProperties": _too_many_keys,
    "maximum": _too_big,
    "minItems": _too_few,
    "minLength": _too_short,
    "minimum": _too_small,
    "pattern": _no_match,
    "required": _missing,
    "type": _wrong_type,
    "x-kubernetes-list-type": _twice,
}
