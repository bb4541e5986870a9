"""Policies: read by field, and the one that decides for a Service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from synsweep.core.cleanup import Misrouted, Mode
from synsweep.core.policy import (
    Policy,
    PolicyInvalid,
    ServiceLabels,
    effective_policy,
    matched_services,
    read_policy,
)

if TYPE_CHECKING:
    from tests.unit.core.world import Raw


def policy_body(name: str = "p", **spec: Any) -> Raw:
    return {"metadata": {"name": name, "uid": f"uid-{name}", "generation": 3}, "spec": spec}


def policy(name: str = "p", **spec: Any) -> Policy:
    return read_policy(policy_body(name, **spec))


def labels(service: dict[str, str] | None = None, **namespace: str) -> ServiceLabels:
    return ServiceLabels(namespace=namespace, service=service or {})


def expression(key: str, operator: str, *values: str) -> Raw:
    return {"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}


def test_an_empty_policy_has_the_defaults_of_the_schema() -> None:
    read = read_policy(policy_body())

    assert (read.name, read.uid, read.generation) == ("p", "uid-p", 3)
    assert (read.mode, read.misrouted) == (Mode.ENFORCE, Misrouted.REPORT)
    assert (read.priority, read.unready_after_seconds) == (0, 10)
    assert effective_policy([read], labels()) == read


def test_every_field_is_read() -> None:
    read = policy(
        mode="DryRun",
        priority=-5,
        unreadyAfterSeconds=0,
        misrouted="Ignore",
        serviceSelector={"matchLabels": {"app": "x"}},
    )

    assert (read.mode, read.misrouted) == (Mode.DRY_RUN, Misrouted.IGNORE)
    assert (read.priority, read.unready_after_seconds) == (-5, 0)
    assert effective_policy([read], labels({"app": "x"})) == read
    assert effective_policy([read], labels({"app": "y"})) is None


@pytest.mark.parametrize(
    ("selector", "matching", "others"),
    [
        pytest.param({}, [{}, {"app": "x"}], [], id="an empty selector selects everything"),
        pytest.param(None, [{}, {"app": "x"}], [], id="so does an absent one"),
        pytest.param(
            {"matchLabels": {"app": "x", "tier": ""}},
            [{"app": "x", "tier": ""}],
            [{"app": "x"}, {"app": "y", "tier": ""}, {}],
            id="all of matchLabels must hold, and an empty value is a value",
        ),
        pytest.param(
            expression("app", "In", "x", "y"),
            [{"app": "x"}, {"app": "y"}],
            [{}, {"app": "z"}],
            id="In needs the key",
        ),
        pytest.param(
            expression("app", "NotIn", "x", "y"),
            [{}, {"app": "z"}],
            [{"app": "x"}],
            id="NotIn matches where the key is absent",
        ),
        pytest.param(expression("app", "Exists"), [{"app": ""}], [{}], id="Exists"),
        pytest.param(expression("app", "DoesNotExist"), [{}], [{"app": ""}], id="DoesNotExist"),
        pytest.param(
            {"matchLabels": {"a": "1"}} | expression("example.com/team", "Exists"),
            [{"a": "1", "example.com/team": "x"}],
            [{"a": "1"}, {"example.com/team": "x"}],
            id="labels and expressions must all hold",
        ),
    ],
)
def test_selectors_mean_what_the_api_means(
    selector: Raw | None, matching: list[dict[str, str]], others: list[dict[str, str]]
) -> None:
    read = policy(serviceSelector=selector)

    assert all(read.service_selector.matches(one) for one in matching)
    assert not any(read.service_selector.matches(one) for one in others)


@pytest.mark.parametrize(
    ("spec", "field", "allowed"),
    [
        pytest.param({"mode": "Off"}, "spec.mode", "Enforce, DryRun, Disabled", id="mode"),
        pytest.param({"mode": 1}, "spec.mode", "Enforce, DryRun, Disabled", id="a number as mode"),
        pytest.param({"misrouted": "x"}, "spec.misrouted", "Report, Reset, Ignore", id="misrouted"),
        pytest.param({"priority": 1001}, "spec.priority", "-1000 to 1000", id="priority"),
        pytest.param({"priority": 0.5}, "spec.priority", "-1000 to 1000", id="half a priority"),
        pytest.param(
            {"unreadyAfterSeconds": -1}, "spec.unreadyAfterSeconds", "0 to 300", id="negative"
        ),
        pytest.param(
            {"serviceSelector": []}, "spec.serviceSelector", "an object", id="a list as selector"
        ),
        pytest.param(
            {"serviceSelector": expression("app", "Matches", "x")},
            "spec.serviceSelector.matchExpressions[0].operator",
            "In, NotIn, Exists, DoesNotExist",
            id="unknown operator",
        ),
        pytest.param(
            {"serviceSelector": {"matchExpressions": [{"key": "app"}]}},
            "spec.serviceSelector.matchExpressions[0].operator",
            "In, NotIn, Exists, DoesNotExist",
            id="no operator",
        ),
        pytest.param(
            {"serviceSelector": expression("app", "NotIn")},
            "spec.serviceSelector.matchExpressions[0].values",
            "at least one value with NotIn",
            id="NotIn without values",
        ),
        pytest.param(
            {"namespaceSelector": expression("app", "Exists", "x")},
            "spec.namespaceSelector.matchExpressions[0].values",
            "no values with Exists",
            id="Exists with values",
        ),
        pytest.param(
            {"namespaceSelector": expression("a b", "DoesNotExist")},
            "spec.namespaceSelector.matchExpressions[0].key",
            "a label key",
            id="a key that no object can have",
        ),
        pytest.param(
            {"namespaceSelector": expression("Team.Example/x", "Exists")},
            "spec.namespaceSelector.matchExpressions[0].key",
            "a label key",
            id="a prefix that is no domain",
        ),
        pytest.param(
            {"namespaceSelector": expression("a." * 127 + "com/x", "Exists")},
            "spec.namespaceSelector.matchExpressions[0].key",
            "a label key",
            id="a prefix that is too long",
        ),
        pytest.param(
            {"serviceSelector": {"matchLabels": {"app": "a b"}}},
            "spec.serviceSelector.matchLabels[app]",
            "a label value",
            id="a value that no object can have",
        ),
        pytest.param(
            {"serviceSelector": {"matchLabels": {"app": "x" * 64}}},
            "spec.serviceSelector.matchLabels[app]",
            "at most 63",
            id="a value that is too long",
        ),
    ],
)
def test_an_invalid_policy_is_refused_by_field(spec: Raw, field: str, allowed: str) -> None:
    with pytest.raises(PolicyInvalid) as refused:
        policy(**spec)

    assert refused.value.field == field
    assert allowed in refused.value.allowed
    assert str(refused.value).startswith(f"ConntrackPolicy p: {field} is ")


@pytest.mark.parametrize(
    ("policies", "winner"),
    [
        pytest.param([policy("a"), policy("b", priority=1)], "b", id="the highest priority"),
        pytest.param(
            [policy("a"), policy("b", mode="DryRun")], "b", id="on a tie DryRun before Enforce"
        ),
        pytest.param(
            [policy("a", mode="DryRun"), policy("b", mode="Disabled")],
            "b",
            id="on a tie Disabled before DryRun",
        ),
        pytest.param([policy("b"), policy("a")], "a", id="at last the name"),
        pytest.param(
            [policy("a", serviceSelector={"matchLabels": {"no": "t"}}), policy("b", priority=-9)],
            "b",
            id="only what selects the Service",
        ),
        pytest.param(
            [policy("a", namespaceSelector={"matchLabels": {"env": "prod"}}), policy("b")],
            "a",
            id="by the Namespace's labels",
        ),
        pytest.param(
            [policy("a", namespaceSelector={"matchLabels": {"env": "test"}})],
            None,
            id="nobody decides",
        ),
    ],
)
def test_of_several_policies_one_decides(policies: list[Policy], winner: str | None) -> None:
    found = effective_policy(policies, labels({"app": "x"}, env="prod"))

    assert (found.name if found else None) == winner


@pytest.mark.parametrize(
    ("policies", "winner"),
    [
        pytest.param([policy("a")], "a", id="no policy asks for the Namespace's labels"),
        pytest.param(
            [policy("a"), policy("b", namespaceSelector=expression("x", "DoesNotExist"))],
            None,
            id="one does, so nobody decides yet",
        ),
        pytest.param(
            [
                policy("a"),
                policy(
                    "b",
                    serviceSelector={"matchLabels": {"no": "t"}},
                    namespaceSelector=expression("x", "Exists"),
                ),
            ],
            "a",
            id="one does that does not select the Service",
        ),
    ],
)
def test_while_the_namespace_is_unknown_nothing_is_guessed(
    policies: list[Policy], winner: str | None
) -> None:
    found = effective_policy(policies, ServiceLabels(namespace=None, service={}))

    assert (found.name if found else None) == winner


def test_each_service_is_counted_for_the_policy_that_decides() -> None:
    policies = [
        policy("all"),
        policy("some", priority=1, serviceSelector=expression("app", "Exists")),
        policy("none", priority=2, serviceSelector=expression("gone", "Exists")),
    ]

    counts = matched_services(policies, [labels(), labels({"app": "x"}), labels({"app": "y"})])

    assert counts == {"uid-all": 1, "uid-some": 2, "uid-none": 0}
    assert matched_services([], [labels()]) == {}
