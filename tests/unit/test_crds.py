"""What the schemas promise, pinned: the limits by number, the words by the code's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
import yaml

from synsweep.core import cleanup_wire
from synsweep.core.cleanup import CleanupReason, Misrouted, Mode
from synsweep.node.discovery import KubeProxyMode

if TYPE_CHECKING:
    from collections.abc import Iterator

CRDS = Path(__file__).parents[2] / "crds"
PLURALS = ("conntrackpolicies", "conntrackcleanups", "conntracknodes")

Json: TypeAlias = dict[str, Any]


def crd(plural: str) -> Json:
    loaded: Json = yaml.safe_load((CRDS / f"{plural}.yaml").read_text())
    return loaded


def schema(plural: str) -> Json:
    (version,) = crd(plural)["spec"]["versions"]
    root: Json = version["schema"]["openAPIV3Schema"]
    return root


def walk(node: Json, path: str = "") -> Iterator[tuple[str, Json]]:
    """Every node below spec and status with its path, lists written as []."""
    if path:
        yield path, node
    for name, child in node.get("properties", {}).items():
        if path or name in {"spec", "status"}:
            yield from walk(child, f"{path}.{name}" if path else name)
    if "items" in node:
        yield from walk(node["items"], f"{path}[]")
    if "additionalProperties" in node:
        yield from walk(node["additionalProperties"], f"{path}{{}}")


NODES = {plural: dict(walk(schema(plural))) for plural in PLURALS}
EVERY = [
    pytest.param(path, node, id=f"{plural} {path}")
    for plural, nodes in NODES.items()
    for path, node in nodes.items()
]


@pytest.mark.parametrize(("path", "node"), EVERY)
def test_nothing_is_without_a_limit(path: str, node: Json) -> None:
    match node["type"]:
        case "array":
            assert "maxItems" in node
            assert "x-kubernetes-list-type" in node
        case "string":
            assert "enum" in node or "maxLength" in node
        case "integer" | "number":
            assert "minimum" in node, "nothing here is ever negative by accident"
        case "object":
            assert "properties" in node or "maxProperties" in node
    assert "x-kubernetes-preserve-unknown-fields" not in node, path


@pytest.mark.parametrize(("path", "node"), EVERY)
def test_every_field_is_described(path: str, node: Json) -> None:
    if path.endswith(("[]", "{}")) and "properties" not in node:
        return  # items of a described list
    if path.endswith("[]"):
        node = {"description": node.get("description", "Described by its list.")}
    assert node["description"].endswith(".")
    assert node["description"][0].isupper() or node["description"].startswith(("net.", "`"))


@pytest.mark.parametrize("plural", PLURALS)
def test_a_rule_names_its_field_and_has_no_period(plural: str) -> None:
    for path, node in [("", schema(plural)), *NODES[plural].items()]:
        for rule in node.get("x-kubernetes-validations", ()):
            message = rule["message"]
            named = path.rpartition(".")[2].removesuffix("[]") if path else "metadata.name"
            if path == "spec":
                named = rule["fieldPath"].removeprefix(".")
            assert named in message.replace("[]", ""), f"{path}: {message}"
            assert not message.endswith(".")


POLICY, CLEANUP, NODE = "conntrackpolicies", "conntrackcleanups", "conntracknodes"


@pytest.mark.parametrize(
    ("plural", "path", "expected"),
    [
        (POLICY, "spec.mode", {"enum": list(Mode), "default": "Enforce"}),
        (POLICY, "spec.misrouted", {"enum": list(Misrouted), "default": "Report"}),
        (POLICY, "spec.priority", {"minimum": -1000, "maximum": 1000, "default": 0}),
        (POLICY, "spec.unreadyAfterSeconds", {"minimum": 0, "maximum": 300, "default": 10}),
        (POLICY, "spec.namespaceSelector", {"default": {}}),
        (POLICY, "spec.serviceSelector", {"default": {}}),
        (CLEANUP, "spec.mode", {"enum": [Mode.ENFORCE, Mode.DRY_RUN]}),
        (CLEANUP, "spec.misrouted", {"enum": list(Misrouted)}),
        (CLEANUP, "spec.reason", {"enum": list(CleanupReason)}),
        (CLEANUP, "spec.formatVersion", {"minimum": 1}),
        (CLEANUP, "spec.sequence", {"minimum": 1, "format": "int64"}),
        (CLEANUP, "spec.goneForSeconds", {"minimum": 0}),
        (CLEANUP, "spec.reuseAfterSeconds", {"minimum": 5, "maximum": 3600}),
        (CLEANUP, "spec.sweepForSeconds", {"minimum": 5, "maximum": 3600}),
        (CLEANUP, "spec.reportWithinSeconds", {"minimum": 1, "maximum": 3600}),
        (CLEANUP, "spec.nodes", {"maxItems": cleanup_wire.MAX_NODES, "default": []}),
        (CLEANUP, "spec.targets", {"maxItems": cleanup_wire.MAX_TARGETS, "minItems": 1}),
        (CLEANUP, "spec.targets[].id", {"minimum": 0, "maximum": cleanup_wire.MAX_TARGETS - 1}),
        (CLEANUP, "spec.targets[].frontends", {"maxItems": cleanup_wire.MAX_FRONTENDS}),
        (CLEANUP, "spec.targets[].backends", {"maxItems": cleanup_wire.MAX_BACKENDS}),
        (CLEANUP, "spec.targets[].frontends[].port", {"minimum": 1, "maximum": 65535}),
        (CLEANUP, "spec.targets[].frontends[].nodePort", {"minimum": 1, "maximum": 65535}),
        (CLEANUP, "spec.targets[].backends[].port", {"minimum": 1, "maximum": 65535}),
        (CLEANUP, "spec.targets[].namespace", {"maxLength": 63, "minLength": 1}),
        (CLEANUP, "spec.targets[].service", {"maxLength": 63, "minLength": 1}),
        (CLEANUP, "spec.targets[].portName", {"maxLength": 63}),
        (NODE, "status.kubeProxyMode", {"enum": list(KubeProxyMode)}),
        (NODE, "status.addresses", {"maxItems": 64}),
        (NODE, "status.counters", {"maxItems": 64}),
        (NODE, "status.refusedCleanups", {"maxItems": 10}),
        (NODE, "status.suspects", {"maxItems": 50}),
    ],
)
def test_the_schema_says_what_the_code_means(plural: str, path: str, expected: Json) -> None:
    node = NODES[plural][path]
    assert {name: node.get(name) for name in expected} == expected


@pytest.mark.parametrize(
    ("plural", "short_name", "scope", "has_status"),
    [
        (POLICY, "ctp", "Cluster", True),
        (CLEANUP, "ctc", "Namespaced", False),
        (NODE, "ctn", "Cluster", True),
    ],
)
def test_names(plural: str, short_name: str, scope: str, has_status: bool) -> None:  # noqa: FBT001
    spec = crd(plural)["spec"]
    (version,) = spec["versions"]
    assert (spec["group"], version["name"], spec["scope"]) == ("synsweep.io", "v1alpha1", scope)
    assert spec["names"]["shortNames"] == [short_name]
    assert spec["names"]["categories"] == ["synsweep"]
    assert ("status" in version.get("subresources", {})) == has_status


def test_there_is_an_example_of_each_kind() -> None:
    examples = {
        yaml.safe_load(path.read_text())["kind"] for path in (CRDS / "examples").glob("*.yaml")
    }
    assert examples == {crd(plural)["spec"]["names"]["kind"] for plural in PLURALS}


def test_both_selectors_are_the_same_but_for_their_name() -> None:
    spec = schema(POLICY)["properties"]["spec"]["properties"]
    namespaces, services = spec["namespaceSelector"], spec["serviceSelector"]
    assert namespaces["properties"] == yaml.safe_load(
        yaml.safe_dump(services["properties"]).replace("serviceSelector", "namespaceSelector")
    )
