"""Policies as users meet them: what each field does, what status and Events say, bad input."""

from __future__ import annotations

import copy
import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster import installation, workloads
from tests.cluster.crd_objects import minimal_cleanup
from tests.cluster.crd_schema import load_crd
from tests.cluster.installation import NAMESPACE, cleanups, wait_policy
from tests.cluster.observers import eventually
from tests.cluster.paper import Paper, terminating, unready
from tests.cluster.parts import (
    CONTROLLER,
    HELPER,
    counted,
    frozen,
    helper_pod,
    log_of,
    no_controller,
    pods,
    report,
)
from tests.cluster.shop import IN_TIME

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.rig.cluster import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

DEFAULT = "cluster-default"
TEAM = {"team": "policies"}
# The schema limits a label key as a whole, not the prefix in it; no object can have such a label.
IMPOSSIBLE_KEY = "a" * 254 + "/x"


@pytest.fixture(scope="module")
def paper(synsweep: Cluster) -> Iterator[Paper]:
    """Give a namespace for Services without pods, with a label."""
    made = Paper(synsweep, "policies", network="198.18.2.0/24")
    made.open(TEAM)
    yield made
    made.close()


@pytest.fixture(scope="module")
def elsewhere(synsweep: Cluster) -> Iterator[Paper]:
    """Give one without the label."""
    made = Paper(synsweep, "policies-elsewhere", network="198.18.3.0/24")
    made.open()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def default_again(synsweep: Cluster) -> Iterator[None]:
    """Let cluster-default be the only policy again, as manifests/policies has it."""
    yield
    others = [
        policy["metadata"]["name"]
        for policy in synsweep.get_json("conntrackpolicies")["items"]
        if policy["metadata"]["name"] != DEFAULT
    ]
    if others:
        synsweep.kubectl("delete", "conntrackpolicy", *others)
    installation.apply_policy(synsweep)


@pytest.fixture
def alone(synsweep: Cluster) -> None:
    """Begin without any policy."""
    installation.delete_policies(synsweep)


def apply(cluster: Cluster, name: str, **spec: Any) -> None:
    """Apply a policy, and wait until the controller speaks of it."""
    cluster.apply(workloads.as_yaml(policy(name, **spec)))
    wait_policy(cluster, name)


def policy(name: str, **spec: Any) -> dict[str, Any]:
    """Make a policy."""
    return {
        "apiVersion": "synsweep.io/v1alpha1",
        "kind": "ConntrackPolicy",
        "metadata": {"name": name},
        "spec": spec,
    }


def by_service(cluster: Cluster) -> dict[str, str]:
    """Say for each Service that live cleanups name which policy decided."""
    return {
        target["service"]: cleanup["metadata"]["ownerReferences"][0]["name"]
        for cleanup in cleanups(cluster)
        for target in cleanup["spec"]["targets"]
    }


def condition(cluster: Cluster, name: str, kind: str) -> dict[str, Any]:
    """Give one condition of a policy; empty if it has none of that type."""
    status = cluster.get_json("conntrackpolicy", name).get("status", {})
    found = [each for each in status.get("conditions", ()) if each["type"] == kind]
    return found[0] if found else {}


def wait_described(cluster: Cluster, name: str, *words: str) -> str:
    """Wait until `kubectl describe` of a policy shows all these words."""

    def shown() -> str:
        text = cluster.kubectl("describe", "conntrackpolicy", name).stdout
        return text if all(word in text for word in words) else ""

    return eventually(shown, 60, f"{words} in what describes {name}", every=0.5)


@pytest.mark.any_proxy
@pytest.mark.usefixtures("alone")
def test_dry_run_reports_each_entry_once_and_deletes_none(synsweep: Cluster, paper: Paper) -> None:
    gone, nodes = paper.address(), (synsweep.node(1), synsweep.node(2))
    service = paper.service("rehearsed", gone)
    installation.apply_policy(synsweep, "dry-run")
    found = sum(len(service.fill(node, gone)) for node in nodes)
    service.set(terminating(gone))
    service.set()
    eventually(
        lambda: counted(synsweep, "dry-run", "dryRun") == found, 60, f"{found} found", every=0.5
    )
    time.sleep(3)  # the next sweep finds them again, and does not count them again
    assert counted(synsweep, "dry-run", "dryRun") == found
    assert sum(len(service.half_open(node, gone)) for node in nodes) == found
    assert counted(synsweep, "dry-run") == 0
    (mode,) = {cleanup["spec"]["mode"] for cleanup in cleanups(synsweep)}
    assert mode == "DryRun"
    wait_described(synsweep, "dry-run", "StaleEntriesFound", "Would have deleted")
    assert synsweep.get_json("conntrackpolicy", "dry-run")["status"]["deletedEntries"] == 0
    assert condition(synsweep, "dry-run", "Ready")["reason"] == "DryRun"


@pytest.mark.usefixtures("alone")
def test_a_disabled_or_deleted_policy_stops_what_was_under_way(
    synsweep: Cluster, paper: Paper
) -> None:
    node, gone = synsweep.node(1), paper.address()
    service = paper.service("stopped", gone)
    installation.apply_policy(synsweep)
    service.fill(node, gone)
    with frozen(node, "kube-proxy"):
        service.set()
        service.wait_clean(node, gone, IN_TIME)
        installation.set_mode(synsweep, "Disabled")
        eventually(lambda: not cleanups(synsweep), IN_TIME, "the cleanups to be withdrawn")
        service.fill(node, gone)
    time.sleep(4)  # kube-proxy's sync, after which a live cleanup would have been swept for
    assert service.half_open(node, gone), "nothing is deleted for a policy that is Disabled"
    assert not cleanups(synsweep)
    assert condition(synsweep, DEFAULT, "Ready")["reason"] == "Disabled"
    installation.set_mode(synsweep, "Enforce")
    service.wait_clean(node, gone, IN_TIME)  # what went a moment ago is not forgotten
    synsweep.kubectl("delete", "conntrackpolicy", DEFAULT)
    eventually(lambda: not cleanups(synsweep), IN_TIME, "the cleanups to go with their policy")


@pytest.mark.any_proxy
@pytest.mark.usefixtures("alone", "operator_may_restart")
def test_deleting_a_policy_stops_everything_even_without_a_controller(
    synsweep: Cluster, paper: Paper
) -> None:
    gone = paper.address()
    service = paper.service("orphaned", gone)
    installation.apply_policy(synsweep)
    service.set()
    eventually(lambda: cleanups(synsweep), IN_TIME, "a cleanup")
    with no_controller(synsweep):
        synsweep.kubectl("delete", "conntrackpolicy", DEFAULT)
        eventually(lambda: not cleanups(synsweep), 60, "the garbage collector", every=0.5)


@pytest.mark.any_proxy
def test_priority_decides_then_the_more_cautious_mode(
    synsweep: Cluster, paper: Paper, elsewhere: Paper
) -> None:
    services = [
        (each, each.service(name, address := each.address(), labels=labels), address)
        for each, name, labels in (
            (paper, "of-the-team", {}),
            (paper, "of-a-tier", {"tier": "gold"}),
            (elsewhere, "of-nobody", {"tier": "gold"}),
        )
    ]
    team = {"namespaceSelector": {"matchLabels": TEAM}}
    tier = {"serviceSelector": {"matchExpressions": [
        {"key": "tier", "operator": "In", "values": ["gold", "silver"]}
    ]}}  # fmt: skip
    apply(synsweep, "team", mode="DryRun", priority=10, **team)
    apply(synsweep, "team-loses-the-tie", mode="Enforce", priority=10, **team)
    apply(synsweep, "tier", mode="Enforce", priority=20, **team, **tier)
    for _, service, _ in services:
        service.set()
    expected = {"of-the-team": "team", "of-a-tier": "tier", "of-nobody": DEFAULT}

    def decided() -> bool:
        found = by_service(synsweep)
        return {name: found.get(name) for name in expected} == expected

    eventually(decided, IN_TIME, f"{expected}", every=0.2)
    eventually(
        lambda: synsweep.get_json("conntrackpolicy", "tier")["status"]["matchedServices"] == 1,
        30,
        "the only Service of its tier",
        every=0.5,
    )
    assert synsweep.get_json("conntrackpolicy", "team-loses-the-tie")["status"][
        "matchedServices"
    ] == 0  # fmt: skip


@pytest.mark.any_proxy
def test_unready_after_zero_seconds_means_never(synsweep: Cluster, paper: Paper) -> None:
    never, soon = paper.address(), paper.address()
    patient = paper.service("patient", never, labels={"patience": "endless"})
    hasty = paper.service("hasty", soon, labels={"patience": "none"})
    for name, seconds, label in (("never", 0, "endless"), ("soon", 2, "none")):
        selector = {"matchLabels": {"patience": label}}
        apply(synsweep, name, priority=5, unreadyAfterSeconds=seconds, serviceSelector=selector)
    patient.set(unready(never))
    hasty.set(unready(soon))
    hasty.wait_condemned(soon, 2 + IN_TIME)
    time.sleep(3)
    assert not patient.condemned(never)


@pytest.mark.any_proxy
def test_status_says_what_is_and_what_was_done(synsweep: Cluster, paper: Paper) -> None:
    node, gone = synsweep.node(3), paper.address()
    service = paper.service("counted", gone)
    service.fill(node, gone)
    service.set()
    service.wait_clean(node, gone, IN_TIME)
    proxied = [
        each
        for each in synsweep.get_json("services", "-A")["items"]
        if each["spec"].get("clusterIP", "None") != "None"
    ]

    def told() -> bool:
        status = synsweep.get_json("conntrackpolicy", DEFAULT)["status"]
        return bool(
            status["matchedServices"] == len(proxied)
            and status["nodesReady"] == status["nodesTotal"] == len(synsweep.nodes)
            and status["deletedEntries"] == counted(synsweep, DEFAULT) > 0
            and status["lastCleanupTime"]
        )

    eventually(told, 60, "the status to say so", every=0.5)
    assert condition(synsweep, DEFAULT, "Ready")["reason"] == "Enforcing"
    eventually(
        lambda: condition(synsweep, DEFAULT, "Degraded")["status"] == "False", 60, "all to be well"
    )
    misrouted = condition(synsweep, DEFAULT, "MisroutedHandled")
    assert misrouted["status"] == "False"
    assert "does not act on" in misrouted["message"]
    text = wait_described(synsweep, DEFAULT, "StaleEntriesDeleted", "half-open connection")
    assert "Events:" in text


@pytest.mark.any_proxy
@pytest.mark.parametrize(
    ("field", "spec"),
    [
        ("spec.mode", {"mode": "Sometimes"}),
        ("spec.priority", {"priority": 1001}),
        ("spec.unreadyAfterSeconds", {"unreadyAfterSeconds": -1}),
        (
            "spec.serviceSelector.matchExpressions[0].values",
            {"serviceSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}},
        ),
    ],
)
def test_the_api_server_rejects_an_invalid_policy_and_names_the_field(
    synsweep: Cluster, field: str, spec: dict[str, Any]
) -> None:
    text = workloads.as_yaml(policy("invalid", **spec))
    refused = synsweep.kubectl("apply", "-f", "-", input=text, check=False)
    assert refused.returncode
    assert field in refused.stderr


@pytest.mark.any_proxy
def test_an_invalid_policy_that_got_through_is_set_aside_by_name(
    synsweep: Cluster, paper: Paper
) -> None:
    gone = paper.address()
    service = paper.service("kept", gone, labels={"app": "kept"})
    good = {"matchLabels": {"app": "kept"}}
    bad = {"matchLabels": {IMPOSSIBLE_KEY: "kept"}}
    apply(synsweep, "mistyped", mode="DryRun", priority=7, serviceSelector=good)
    apply(synsweep, "mistyped", mode="DryRun", priority=7, serviceSelector=bad)
    eventually(
        lambda: condition(synsweep, "mistyped", "Ready").get("reason") == "PolicyInvalid",
        30,
        "the condition",
        every=0.3,
    )
    message = condition(synsweep, "mistyped", "Ready")["message"]
    assert "spec.serviceSelector.matchLabels" in message
    assert "the last valid version stays in force" in message
    wait_described(synsweep, "mistyped", "Warning", "PolicyInvalid", "serviceSelector.matchLabels")
    service.set()
    eventually(lambda: by_service(synsweep).get("kept") == "mistyped", IN_TIME, "its cleanup")
    apply(synsweep, "mistyped", mode="DryRun", priority=7, serviceSelector=good)
    eventually(
        lambda: condition(synsweep, "mistyped", "Ready").get("reason") == "DryRun",
        30,
        "the condition to go with the mistake",
        every=0.3,
    )


@pytest.mark.any_proxy
def test_odd_slices_are_passed_over_and_the_rest_goes_on(synsweep: Cluster, paper: Paper) -> None:
    node, gone = synsweep.node(2), paper.address()
    service = paper.service("sound", gone)
    label = {"kubernetes.io/service-name": "sound"}
    odd: list[dict[str, Any]] = [
        {"addressType": "FQDN", "endpoints": [{"addresses": ["shop.example"]}]},
        {"addressType": "IPv4", "ports": [{"name": "http", "protocol": "TCP"}]},
        {"addressType": "IPv4", "endpoints": [{"addresses": [paper.address()], "conditions": {}}]},
        {"addressType": "IPv4", "ports": [{"port": 53, "protocol": "UDP"}]},
        {"addressType": "IPv6", "endpoints": []},
    ]
    synsweep.apply(
        workloads.as_yaml(
            *(
                {
                    "apiVersion": "discovery.k8s.io/v1",
                    "kind": "EndpointSlice",
                    "metadata": {"name": f"odd-{number}", "namespace": paper.name, "labels": label},
                    "ports": [],
                    "endpoints": [],
                    **each,
                }
                for number, each in enumerate(odd)
            )
        )
    )
    service.fill(node, gone)
    service.set()
    service.wait_clean(node, gone, IN_TIME)
    synsweep.kubectl("-n", paper.name, "delete", "endpointslices", "-l", label_text(label))


def label_text(labels: dict[str, str]) -> str:
    """Write labels as a selector for kubectl."""
    return ",".join(f"{key}={value}" for key, value in labels.items())


@pytest.mark.any_proxy
def test_malformed_cleanups_are_refused_by_name_and_the_rest_goes_on(
    synsweep: Cluster, paper: Paper
) -> None:
    """The API server refuses them too: only a CRD without its limits lets them through."""
    node, gone = synsweep.node(1), paper.address()
    service, pod = paper.service("unhurt", gone), helper_pod(synsweep, node)
    uid = synsweep.get_json("conntrackpolicy", DEFAULT)["metadata"]["uid"]
    odd = {
        "UnknownFormatVersion": made_by_hand(999_001, uid, formatVersion=2),
        "FieldOutOfLimits": made_by_hand(999_002, uid, reuseAfterSeconds=999_999),
        "MalformedCleanup": made_by_hand(999_003, uid, goneForSeconds="long"),
    }
    strict = load_crd("conntrackcleanups")
    synsweep.apply(json.dumps(without_limits(strict)))
    try:
        for body in odd.values():
            text = json.dumps(body)
            eventually(
                lambda text=text: (
                    not synsweep.kubectl(  # type: ignore[misc]
                        "create", "-f", "-", input=text, check=False
                    ).returncode
                ),
                30,
                "the CRD to let it through",
                every=0.5,
            )

        def refused() -> bool:
            found = {
                (each["name"], each["reason"])
                for each in report(synsweep, node).get("refusedCleanups", ())
            }
            return {(body["metadata"]["name"], why) for why, body in odd.items()} <= found

        eventually(refused, 60, "the node's report to name them", every=0.5)
        messages = [each["message"] for each in report(synsweep, node)["refusedCleanups"]]
        for field in ("formatVersion", "reuseAfterSeconds", "goneForSeconds"):
            assert any(f"spec.{field}" in message for message in messages)
        log = log_of(synsweep, pod)
        for body in odd.values():
            assert log.count(f"refused ConntrackCleanup {body['metadata']['name']}") == 1
        service.fill(node, gone)
        service.set()
        service.wait_clean(node, gone, IN_TIME)
    finally:
        names = [body["metadata"]["name"] for body in odd.values()]
        synsweep.kubectl(
            "-n", NAMESPACE, "delete", "conntrackcleanups", *names, "--ignore-not-found"
        )
        synsweep.apply(json.dumps(strict))
    eventually(
        lambda: not report(synsweep, node).get("refusedCleanups"), 60, "the report to forget them"
    )
    assert len(pods(synsweep, HELPER)) == len(synsweep.nodes)
    assert len(pods(synsweep, CONTROLLER)) == 1


def made_by_hand(sequence: int, policy_uid: str, **spec: Any) -> dict[str, Any]:
    """Make a cleanup that belongs to a policy, with one thing wrong in it."""
    body = copy.deepcopy(minimal_cleanup())
    body["metadata"]["name"] = f"endpoint-unready-{sequence}"
    body["metadata"]["ownerReferences"] = [
        {
            "apiVersion": "synsweep.io/v1alpha1",
            "kind": "ConntrackPolicy",
            "name": DEFAULT,
            "uid": policy_uid,
        }
    ]
    body["metadata"]["labels"] = {"synsweep.io/policy": DEFAULT}
    body["spec"] |= {"sequence": sequence} | spec
    return body


def without_limits(crd: dict[str, Any]) -> dict[str, Any]:
    """Give the CRD with a schema that takes anything."""
    loose = copy.deepcopy(crd)
    loose["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = {
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": True,
    }
    return loose
