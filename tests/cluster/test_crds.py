"""The three CRDs on a real API server: what it accepts, fills in, refuses, and lets be changed."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

from tests.cluster import crd_objects as objects
from tests.cluster.crd_schema import (
    CRDS,
    Counterexample,
    Json,
    Steps,
    counterexamples,
    drop,
    get,
    load_crd,
    put,
    root_schema,
    rules,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.rig.control_plane import ControlPlane

pytestmark = pytest.mark.cluster

PLURALS = ("conntrackpolicies", "conntrackcleanups", "conntracknodes")
FULL = {
    "conntrackpolicies": objects.policy(),
    "conntrackcleanups": objects.cleanup(),
    "conntracknodes": objects.node(),
}

Change: TypeAlias = Callable[[Json], Json]


@pytest.fixture(scope="module")
def api(api_server: ControlPlane) -> Iterator[ControlPlane]:
    """An API server that knows the three kinds and holds one full object of each."""
    api_server.kubectl("apply", "-k", str(CRDS))
    api_server.kubectl("wait", "--for=condition=Established", "--timeout=30s", "crd", "--all")
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": objects.NAMESPACE}}
    api_server.kubectl("apply", "-f", "-", input=json.dumps(namespace))
    for body in FULL.values():
        api_server.kubectl("apply", "--server-side", "-f", "-", input=json.dumps(body))
    for plural in ("conntrackpolicies", "conntracknodes"):
        _replace_status(api_server, FULL[plural])
    yield api_server
    for body in FULL.values():
        api_server.kubectl("delete", "-f", "-", input=json.dumps(body))


def _create(api: ControlPlane, body: Json) -> Json:
    """Let the API server check and default a new object, without keeping it."""
    created = api.kubectl(
        "create", "--dry-run=server", "-o", "json", "-f", "-", input=json.dumps(body)
    )
    result: Json = json.loads(created.stdout)
    return result


def _replace_status(api: ControlPlane, body: Json, *options: str) -> Json:
    """Write the status as its owner does."""
    arguments = ("replace", "--subresource=status", *options, "-o", "json", "-f", "-")
    result: Json = json.loads(api.kubectl(*arguments, input=json.dumps(body)).stdout)
    return result


def _update(api: ControlPlane, body: Json) -> Json:
    """Replace an object that exists, without keeping the change."""
    arguments = ("replace", "--dry-run=server", "-o", "json", "-f", "-")
    result: Json = json.loads(api.kubectl(*arguments, input=json.dumps(body)).stdout)
    return result


def _refusal(api: ControlPlane, *arguments: str, body: Json) -> str:
    done = api.kubectl(
        *arguments, "--dry-run=server", "-f", "-", input=json.dumps(body), check=False
    )
    assert done.returncode != 0, f"accepted: {done.stdout}"
    return done.stderr


def _names(refusal: str, field: str, says: str) -> bool:
    """Whether one line of the refusal names the field and says what is wrong with it."""
    return any(f" {field}: " in line and says in line for line in refusal.splitlines())


# ---- what is valid


VALID = (
    pytest.param(objects.example("ConntrackPolicy"), id="example policy"),
    pytest.param(objects.policy(), id="policy with every field"),
    pytest.param(objects.minimal_policy(), id="smallest policy"),
    pytest.param(objects.biggest_policy(), id="biggest policy"),
    pytest.param(
        put(objects.minimal_policy(), ("spec",), {"priority": -1000, "unreadyAfterSeconds": 0}),
        id="policy at its lower limits",
    ),
    pytest.param(
        put(
            objects.minimal_policy(),
            ("spec", "serviceSelector"),
            {
                "matchLabels": {"empty.is/allowed": ""},
                "matchExpressions": [
                    {"key": "a", "operator": "Exists"},
                    {"key": "b", "operator": "DoesNotExist", "values": []},
                    {"key": "c", "operator": "NotIn", "values": [""]},
                ],
            },
        ),
        id="policy with every operator",
    ),
    pytest.param(objects.example("ConntrackCleanup"), id="example cleanup"),
    pytest.param(objects.cleanup(), id="cleanup with every field"),
    pytest.param(objects.minimal_cleanup(), id="smallest cleanup"),
    pytest.param(
        objects.biggest_cleanup([objects.target(499, backends=500, frontends=64)]),
        id="cleanup with 500 backends and 64 frontends in one target, for 5,000 nodes",
    ),
    pytest.param(
        objects.biggest_cleanup([objects.target(at, backends=1) for at in range(500)]),
        id="cleanup with 500 targets",
    ),
    pytest.param(
        objects.biggest_cleanup(
            [objects.target(at, backends=1, frontends=64) for at in range(500)], nodes=["node1"]
        ),
        id="cleanup with 32,000 frontends",
    ),
    pytest.param(
        put(objects.minimal_cleanup(), ("spec", "formatVersion"), 2),
        id="cleanup of a later format, which is for the helper to refuse",
    ),
    pytest.param(objects.minimal_node(), id="smallest report"),
)


@pytest.mark.parametrize("body", VALID)
def test_valid_objects_are_accepted_and_nothing_of_them_is_lost(
    api: ControlPlane, body: Json
) -> None:
    fresh = put(body, ("metadata", "name"), body["metadata"]["name"])
    if body["metadata"]["name"] == FULL["conntrackcleanups"]["metadata"]["name"]:
        fresh = _renumber(fresh, 18)  # that one is there already
    elif body["metadata"]["name"] in {full["metadata"]["name"] for full in FULL.values()}:
        fresh["metadata"]["name"] = "another"
    created = _create(api, fresh)
    assert _contains(created.get("spec"), fresh.get("spec"))


def _renumber(body: Json, sequence: int) -> Json:
    changed = put(body, ("spec", "sequence"), sequence)
    return put(changed, ("metadata", "name"), f"endpoint-removed-{sequence}")


def _contains(whole: Any, part: Any) -> bool:
    """Whether everything in part is in whole, lists item by item."""
    if isinstance(part, dict):
        return all(name in whole and _contains(whole[name], part[name]) for name in part)
    if isinstance(part, list):
        return len(whole) == len(part) and all(map(_contains, whole, part))
    return bool(whole == part)


@pytest.mark.parametrize(
    "status",
    [
        pytest.param(objects.node()["status"], id="every field"),
        pytest.param(objects.minimal_node()["status"], id="smallest"),
        pytest.param(objects.biggest_node()["status"], id="biggest"),
    ],
)
def test_valid_reports_are_accepted_and_nothing_of_them_is_lost(
    api: ControlPlane, status: Json
) -> None:
    body = put(objects.node(), ("status",), status)
    assert _replace_status(api, body, "--dry-run=server")["status"] == status


def test_a_policy_that_says_nothing_enforces_for_every_service(api: ControlPlane) -> None:
    assert _create(api, objects.minimal_policy())["spec"] == {
        "mode": "Enforce",
        "priority": 0,
        "namespaceSelector": {},
        "serviceSelector": {},
        "unreadyAfterSeconds": 10,
        "misrouted": "Report",
    }


def test_a_cleanup_without_nodes_is_for_all(api: ControlPlane) -> None:
    assert _create(api, objects.minimal_cleanup())["spec"]["nodes"] == []


# ---- what is refused


LIMITS = tuple(
    pytest.param(broken, id=f"{plural}: {broken.field} breaks {broken.keyword}")
    for plural in PLURALS
    for broken in counterexamples(root_schema(load_crd(plural)), FULL[plural])
)


@pytest.mark.parametrize("broken", LIMITS)
def test_every_limit_of_the_schema_is_enforced(api: ControlPlane, broken: Counterexample) -> None:
    in_status = broken.field.startswith("status")
    verb = ("replace", "--subresource=status") if in_status else ("create",)
    refusal = _refusal(api, *verb, body=broken.body)
    assert _names(refusal, broken.field, broken.says), refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """How to break one CEL rule, and the field that the refusal has to name."""

    kind: str  # plural
    rule: str  # how the rule's message begins
    change: Change
    field: str


def _set(*steps: str | int, to: Any) -> Change:
    return lambda body: put(body, steps, to)


def _unset(*steps: str | int) -> Change:
    return lambda body: drop(body, steps)


def _all(*changes: Change) -> Change:
    def change(body: Json) -> Json:
        for each in changes:
            body = each(body)
        return body

    return change


TARGET: Steps = ("spec", "targets", 0)
FRONTEND: Steps = (*TARGET, "frontends", 0)
BACKEND: Steps = (*TARGET, "backends", 0)


def _selector_rules(selector: str) -> Iterator[Any]:
    """The rules that both selectors have."""
    labels = f"spec.{selector}.matchLabels"
    for sentence, key in {
        "two prefixes": "a/b/c",
        "a prefix with capitals": "Example.com/a",
        "an empty name": "example.com/",
        "a name of 64 characters": "k" * 64,
        "a key of 318 characters": f"{'d' * 254}/{'k' * 63}",
        "a blank": "a b",
    }.items():
        change = _set("spec", selector, "matchLabels", to={key: "v"})
        yield pytest.param(
            Broken(
                kind="conntrackpolicies",
                rule=f"{selector}.matchLabels has a key",
                change=change,
                field=labels,
            ),
            id=f"{selector}: label key with {sentence}",
        )
    for operator, values, rule in (
        ("In", [], "not be empty"),
        ("NotIn", None, "not be empty"),
        ("Exists", ["v"], "be absent"),
        ("DoesNotExist", ["v"], "be absent"),
    ):
        expression = {"key": "k", "operator": operator} | (
            {} if values is None else {"values": values}
        )
        yield pytest.param(
            Broken(
                kind="conntrackpolicies",
                rule=f"{selector}.matchExpressions[].values must {rule}",
                change=_set("spec", selector, "matchExpressions", to=[expression]),
                field=f"spec.{selector}.matchExpressions[0].values",
            ),
            id=f"{selector}: {operator} with values {values}",
        )


def _address_rules(kind: str, rule: str, *steps: str | int, field: str) -> Iterator[Any]:
    """What is no address, or not written as the kernel's and the index' words are compared."""
    for address in (
        "",
        "10.0.0.256",
        "10.0.0.010",
        "10.0.0.0/24",
        "localhost",
        "2001:DB8::1",
        "2001:db8:0::1",
        "::ffff:10.0.0.1",
        "fe80::1%eth0",
    ):
        yield pytest.param(
            Broken(kind=kind, rule=rule, change=_set(*steps, to=address), field=field),
            id=f"{field} is {address!r}",
        )


RULES = (
    pytest.param(
        Broken(
            kind="conntrackpolicies",
            rule="metadata.name must be at most 63",
            change=_set("metadata", "name", to="p" * 64),
            field="metadata",
        ),
        id="policy with a name of 64 characters",
    ),
    *_selector_rules("namespaceSelector"),
    *_selector_rules("serviceSelector"),
    *(
        pytest.param(
            Broken(
                kind="conntrackcleanups",
                rule="metadata.name must be the reason",
                change=_set("metadata", "name", to=name),
                field="metadata",
            ),
            id=f"cleanup endpoint-removed-17 is called {name}",
        )
        for name in (
            "endpoint-removed-18",
            "endpoint-unready-17",
            "endpoint-removed-017",
            "endpoint-removed-17-a",
            "a-17",
        )
    ),
    pytest.param(
        Broken(
            kind="conntrackcleanups",
            rule="nodes must name the nodes",
            change=_all(
                _set("metadata", "name", to="node-suspect-17"),
                _set("spec", "reason", to="NodeSuspect"),
                _set("spec", "nodes", to=[]),
            ),
            field="spec.nodes",
        ),
        id="suspects of no node",
    ),
    pytest.param(
        Broken(
            kind="conntrackcleanups",
            rule="targets may have at most 500 backends",
            change=_set(
                "spec",
                "targets",
                to=[objects.target(0, backends=250), objects.target(1, backends=251)],
            ),
            field="spec.targets",
        ),
        id="501 backends in two targets",
    ),
    pytest.param(
        Broken(
            kind="conntrackcleanups",
            rule="targets[].frontends[] needs either",
            change=_set(*FRONTEND, to={"ip": "10.96.0.1", "port": 80, "nodePort": 30080}),
            field="spec.targets[0].frontends[0]",
        ),
        id="frontend with address and node port",
    ),
    pytest.param(
        Broken(
            kind="conntrackcleanups",
            rule="targets[].frontends[] needs either",
            change=_set(*FRONTEND, to={}),
            field="spec.targets[0].frontends[0]",
        ),
        id="frontend with nothing",
    ),
    *(
        pytest.param(
            Broken(
                kind="conntrackcleanups",
                rule="targets[].frontends[].port is needed",
                change=_set(*FRONTEND, to=frontend),
                field="spec.targets[0].frontends[0].port",
            ),
            id=f"frontend {frontend}",
        )
        for frontend in ({"ip": "10.96.0.1"}, {"nodePort": 30080, "port": 80})
    ),
    *_address_rules(
        "conntrackcleanups",
        "targets[].frontends[].ip must be",
        *FRONTEND,
        "ip",
        field="spec.targets[0].frontends[0].ip",
    ),
    *_address_rules(
        "conntrackcleanups",
        "targets[].backends[].ip must be",
        *BACKEND,
        "ip",
        field="spec.targets[0].backends[0].ip",
    ),
    *_address_rules(
        "conntracknodes",
        "addresses[] must be",
        "status",
        "addresses",
        0,
        field="status.addresses[0]",
    ),
    *(
        case
        for side in ("frontend", "backend")
        for case in _address_rules(
            "conntracknodes",
            f"suspects[].{side}.ip must be",
            *("status", "suspects", 0, side, "ip"),
            field=f"status.suspects[0].{side}.ip",
        )
    ),
)


@pytest.mark.parametrize("broken", RULES)
def test_every_rule_is_enforced(api: ControlPlane, broken: Broken) -> None:
    verb = ("replace", "--subresource=status") if broken.kind == "conntracknodes" else ("create",)
    refusal = _refusal(api, *verb, body=broken.change(FULL[broken.kind]))
    assert _names(refusal, broken.field, broken.rule), refusal


# ---- what an update may not do


def _more_backends(body: Json) -> Json:
    changed = copy.deepcopy(body)
    more = {"ip": "10.0.0.99", "port": 8080, "terminated": True}
    get(changed, (*TARGET, "backends")).append(more)
    return changed


def _more_targets(body: Json) -> Json:
    changed = copy.deepcopy(body)
    changed["spec"]["targets"].append(objects.target(8, backends=1))
    return changed


def _other_backend(body: Json) -> Json:
    """As many as before, but another one."""
    return put(body, (*BACKEND, "port"), 8081)


REUSED: Steps = (*TARGET, "backends", 1, "reused")

TRANSITIONS = (
    *(
        pytest.param(
            Broken(
                kind="conntrackcleanups",
                rule=f"{name} is immutable",
                change=_set("spec", name, to=value),
                field=f"spec.{name}",
            ),
            id=f"change {name}",
        )
        for name, value in {
            "formatVersion": 2,
            "sequence": 18,
            "mode": "Enforce",
            "misrouted": "Ignore",
            "reason": "EndpointUnready",
            "goneForSeconds": 0.32,
            "removedAt": "2026-11-22T18:00:01Z",
            "reuseAfterSeconds": 31,
            "sweepForSeconds": 61,
            "reportWithinSeconds": 2,
            "nodes": ["node1"],
        }.items()
    ),
    *(
        pytest.param(
            Broken(
                kind="conntrackcleanups",
                rule=f"targets[].{name} is immutable",
                change=_set(*TARGET, name, to=value),
                field=f"spec.targets[0].{name}",
            ),
            id=f"change a target's {name}",
        )
        for name, value in {
            "namespace": "other",
            "service": "other",
            "portName": "",
            "frontends": [{"ip": "10.96.0.10", "port": 80}],
        }.items()
    ),
    pytest.param(
        Broken(
            kind="conntrackcleanups",
            rule="nodes is immutable",
            change=_unset("spec", "nodes"),
            field="spec.nodes",
        ),
        id="take the nodes away, so that it is for all",
    ),
    pytest.param(
        Broken(
            kind="conntrackcleanups",
            rule="targets may be taken out",
            change=_more_targets,
            field="spec.targets",
        ),
        id="add a target",
    ),
    pytest.param(
        Broken(
            kind="conntrackcleanups",
            rule="targets may be taken out",
            change=_set("spec", "targets", to=[objects.target(9, backends=1)]),
            field="spec.targets",
        ),
        id="exchange all targets for one other",
    ),
    *(
        pytest.param(
            Broken(
                kind="conntrackcleanups",
                rule="targets[].backends may be taken out",
                change=change,
                field="spec.targets[0].backends",
            ),
            id=sentence,
        )
        for sentence, change in {
            "add a backend": _more_backends,
            "exchange a backend for another": _other_backend,
        }.items()
    ),
    pytest.param(
        Broken(
            kind="conntrackcleanups",
            rule="targets[].backends[].terminated is immutable",
            change=_set(*BACKEND, "terminated", to=False),
            field="spec.targets[0].backends[0].terminated",
        ),
        id="change a backend's terminated",
    ),
    pytest.param(
        Broken(
            kind="conntrackcleanups",
            rule="targets[].backends[].reused may be set, but not taken back",
            change=_unset(*REUSED),
            field="spec.targets[0].backends[1].reused",
        ),
        id="take reused back",
    ),
    pytest.param(
        Broken(
            kind="conntrackcleanups",
            rule="targets[].backends[].reused may be set, but not changed",
            change=_set(*REUSED, "service", to="other"),
            field="spec.targets[0].backends[1].reused",
        ),
        id="change reused",
    ),
)


@pytest.mark.parametrize("broken", TRANSITIONS)
def test_a_cleanup_cannot_be_changed(api: ControlPlane, broken: Broken) -> None:
    refusal = _refusal(api, "replace", body=broken.change(FULL[broken.kind]))
    assert _names(refusal, broken.field, broken.rule), refusal


REUSE = {"namespace": "shop", "service": "search", "podUID": "c0ffee"}
TARGETS = FULL["conntrackcleanups"]["spec"]["targets"]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda body: body, id="nothing"),
        pytest.param(_set("spec", "targets", to=TARGETS[1:]), id="the first target taken out"),
        pytest.param(_set("spec", "targets", to=TARGETS[:1]), id="the last target taken out"),
        pytest.param(_set("spec", "targets", to=TARGETS[::-1]), id="targets in another order"),
        pytest.param(_unset(*BACKEND), id="a backend taken out"),
        pytest.param(_set(*BACKEND, "reused", to=REUSE), id="reused set"),
        pytest.param(
            _all(_set(*TARGET, "backends", 0, "reused", to=REUSE), _unset("spec", "targets", 1)),
            id="reused set and a target taken out",
        ),
        pytest.param(_set("metadata", "labels", to={}), id="labels"),
    ],
)
def test_a_cleanup_may_lose_what_serves_again_and_learn_of_a_reuse(
    api: ControlPlane, change: Change
) -> None:
    changed = change(FULL["conntrackcleanups"])
    assert _update(api, changed)["spec"] == changed["spec"]


def test_the_biggest_cleanup_can_still_be_revoked_backend_by_backend(api: ControlPlane) -> None:
    """The rules' cost at run time has a limit of its own."""
    body = objects.biggest_cleanup([objects.target(at, backends=1) for at in range(500)])
    created = json.loads(
        api.kubectl("create", "-o", "json", "-f", "-", input=json.dumps(body)).stdout
    )
    try:
        smaller = put(created, ("spec", "targets"), created["spec"]["targets"][::2])
        assert len(_update(api, smaller)["spec"]["targets"]) == 250
    finally:
        api.kubectl("-n", objects.NAMESPACE, "delete", "conntrackcleanup", body["metadata"]["name"])


def test_every_rule_has_a_counterexample() -> None:
    """A rule that is added to a CRD and to no table above fails here."""
    tried = {(case.values[0].kind, case.values[0].rule) for case in (*RULES, *TRANSITIONS)}
    for plural in PLURALS:
        for path, rule in rules(root_schema(load_crd(plural))):
            hits = {prefix for kind, prefix in tried if kind == plural}
            message = rule["message"]
            assert any(message.startswith(hit) for hit in hits), f"{plural} {path}: {message}"


# ---- what people see


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("ctp", "Without a policy nothing is done"),
        ("ctp.spec.mode", "DryRun does everything but the delete"),
        ("ctp.spec.unreadyAfterSeconds", "0 means never"),
        ("ctc", "It carries addresses only"),
        ("ctc.spec.targets.backends.terminated", "older than a second"),
        ("ctn", "goes with the node"),
        ("ctn.status.sysctls.nfConntrackTcpLoose", "mid-stream"),
    ],
)
def test_explain_reads_as_documentation(api: ControlPlane, path: str, says: str) -> None:
    explained = " ".join(api.kubectl("explain", path).stdout.split())
    assert says in explained


@pytest.mark.parametrize(
    ("short_name", "columns"),
    [
        (
            "ctp",
            "NAME MODE PRIORITY READY SERVICES NODES-READY NODES DELETED LAST-CLEANUP AGE",
        ),
        ("ctc", "NAME REASON MODE POLICY SEQUENCE AGE"),
        ("ctn", "NAME READY KERNEL PROXY SYN-SENT SWEPT-THROUGH LAST-SWEEP AGE"),
    ],
)
def test_get_shows_at_a_glance(api: ControlPlane, short_name: str, columns: str) -> None:
    printed = api.kubectl("-n", objects.NAMESPACE, "get", short_name).stdout.splitlines()
    assert printed[0].split() == columns.split()
    row = printed[1].split()
    assert len(row) == len(columns.split()), f"a column is empty: {printed}"


def test_get_shows_the_values_and_not_only_the_headers(api: ControlPlane) -> None:
    policy = api.kubectl("get", "ctp", "--no-headers").stdout.split()
    assert policy[:8] == ["shop-dry-run", "DryRun", "100", "True", "4", "3", "5", "12"]
    cleanup = api.kubectl("-n", objects.NAMESPACE, "get", "ctc", "--no-headers").stdout.split()
    assert cleanup[:5] == ["endpoint-removed-17", "EndpointRemoved", "DryRun", "shop-dry-run", "17"]
    report = api.kubectl("get", "ctn", "--no-headers").stdout.split()
    assert report[1:6] == ["True", "6.12.37-61.105.amzn2023.x86_64", "IPTables", "120", "17"]


def test_all_three_are_in_the_category(api: ControlPlane) -> None:
    printed = api.kubectl("-n", objects.NAMESPACE, "get", "synsweep", "-o", "name").stdout
    assert {line.split(".")[0] for line in printed.splitlines()} == {
        "conntrackpolicy",
        "conntrackcleanup",
        "conntracknode",
    }


@pytest.mark.parametrize("kind", ["ConntrackPolicy", "ConntrackCleanup"])
def test_server_side_apply_twice_changes_nothing(api: ControlPlane, kind: str) -> None:
    text = json.dumps(_renumbered_example(kind))
    arguments = ("apply", "--server-side", "--field-manager=test", "-o", "json", "-f", "-")
    try:
        first, second = (json.loads(api.kubectl(*arguments, input=text).stdout) for _ in range(2))
        assert first["metadata"]["resourceVersion"] == second["metadata"]["resourceVersion"]
    finally:
        api.kubectl("delete", "-f", "-", input=text)


def test_server_side_apply_by_two_managers_may_only_agree(api: ControlPlane) -> None:
    body = _renumbered_example("ConntrackPolicy")
    apply = ("apply", "--server-side", "-f", "-")
    try:
        api.kubectl(*apply, "--field-manager=first", input=json.dumps(body))
        body["spec"]["mode"] = "Enforce"
        done = api.kubectl(*apply, "--field-manager=second", input=json.dumps(body), check=False)
        assert ".spec.mode" in done.stderr
    finally:
        api.kubectl("delete", "-f", "-", input=json.dumps(body))


def _renumbered_example(kind: str) -> Json:
    body = objects.example(kind)
    if kind == "ConntrackCleanup":
        return _renumber(body, 19)
    return put(body, ("metadata", "name"), "applied")


def test_an_unknown_field_is_named(api: ControlPlane) -> None:
    refusal = _refusal(api, "create", body=put(objects.minimal_policy(), ("spec", "mood"), "good"))
    assert 'unknown field "spec.mood"' in refusal


def test_a_status_cannot_be_written_with_the_spec(api: ControlPlane) -> None:
    fresh = put(objects.policy(), ("metadata", "name"), "another")
    assert "status" not in _create(api, fresh)
