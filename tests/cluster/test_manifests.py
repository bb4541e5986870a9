"""The manifests on a real API server: what applying them does, and what the roles then allow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
import yaml

import synsweep

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.rig.control_plane import ControlPlane

pytestmark = pytest.mark.cluster

MANIFESTS = Path(__file__).parents[2] / "manifests"
BASE = str(MANIFESTS / "base")
NAMESPACE = "synsweep-system"

Json: TypeAlias = dict[str, Any]


@pytest.fixture(scope="module")
def api(api_server: ControlPlane) -> Iterator[ControlPlane]:
    """An API server with the base applied, and left as it was found but for the CRDs."""
    api_server.kubectl("apply", "-k", BASE)
    api_server.kubectl("wait", "--for=condition=Established", "--timeout=30s", "crd", "--all")
    yield api_server
    api_server.kubectl("delete", "conntrackpolicies", "--all")


def test_applied_twice_it_changes_nothing(api: ControlPlane) -> None:
    said = api.kubectl("apply", "-k", BASE).stdout.splitlines()
    assert said
    assert [line for line in said if not line.endswith(" unchanged")] == []


def test_server_side_apply_takes_it_too(api: ControlPlane) -> None:
    api.kubectl("apply", "--server-side", "--force-conflicts", "--dry-run=server", "-k", BASE)


def test_the_base_leaves_policies_alone(api: ControlPlane) -> None:
    policies = str(MANIFESTS / "policies")
    api.kubectl("apply", "-f", policies)
    api.kubectl("patch", "ctp", "cluster-default", "--type=merge", "-p", '{"spec":{"priority":7}}')
    before = _policies(api)
    assert set(before) == {"cluster-default", "dry-run"}
    api.kubectl("apply", "-k", BASE)
    api.kubectl("apply", "--server-side", "--force-conflicts", "-k", BASE)
    assert _policies(api) == before


def _policies(api: ControlPlane) -> dict[str, str]:
    items = api.get_json("conntrackpolicies")["items"]
    return {item["metadata"]["name"]: item["metadata"]["resourceVersion"] for item in items}


@pytest.mark.parametrize("file", ["cluster-default", "dry-run"])
def test_a_policy_on_offer_is_for_every_service(api: ControlPlane, file: str) -> None:
    path = str(MANIFESTS / "policies" / f"{file}.yaml")
    body = json.loads(api.kubectl("apply", "-o", "json", "-f", path).stdout)
    assert body["spec"]["namespaceSelector"] == {}
    assert body["spec"]["serviceSelector"] == {}


def test_the_image_is_ours_in_both(api: ControlPlane) -> None:
    built = yaml.safe_load_all(api.kubectl("kustomize", BASE).stdout)
    images = [
        container["image"]
        for each in built
        if each["kind"] in {"Deployment", "DaemonSet"}
        for container in each["spec"]["template"]["spec"]["containers"]
    ]
    assert images == [f"synsweep:{synsweep.__version__}"] * 2


# ---- Pod Security


def _as_pod(api: ControlPlane, workload: str, namespace: str) -> str:
    """Ask for a pod like those of the workload, in that namespace; what the API server says."""
    template = api.get_json("-n", NAMESPACE, workload)["spec"]["template"]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "like-it", "namespace": namespace},
        "spec": template["spec"] | {"serviceAccountName": "default", "priorityClassName": ""},
    }
    arguments = ("create", "--dry-run=server", "-f", "-")
    return api.kubectl(*arguments, input=json.dumps(pod), check=False).stderr


@pytest.fixture(scope="module")
def restricted(api: ControlPlane) -> str:
    """A namespace of the restricted level, where a ServiceAccount waits."""
    name = "restricted"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    for body in (
        {"kind": "Namespace", "metadata": {"name": name, "labels": labels}},
        {"kind": "ServiceAccount", "metadata": {"name": "default", "namespace": name}},
    ):
        api.kubectl("apply", "-f", "-", input=json.dumps(body | {"apiVersion": "v1"}))
    return name  # stays: without a controller manager a namespace is never gone again


def test_the_controller_keeps_to_the_restricted_level(api: ControlPlane, restricted: str) -> None:
    assert _as_pod(api, "deployment/synsweep-controller", restricted) == ""


def test_the_helper_needs_the_level_that_its_namespace_has(
    api: ControlPlane, restricted: str
) -> None:
    refusal = _as_pod(api, "daemonset/synsweep-node", restricted)
    assert "host namespaces (hostNetwork=true)" in refusal
    assert "NET_ADMIN" in refusal
    level = api.get_json("namespace", NAMESPACE)["metadata"]["labels"]
    assert level["pod-security.kubernetes.io/enforce"] == "privileged"


# ---- permissions

CONTROLLER = f"system:serviceaccount:{NAMESPACE}:synsweep-controller"
HELPER = f"system:serviceaccount:{NAMESPACE}:synsweep-node"

MAY_EVERYWHERE = {
    CONTROLLER: {
        "endpointslices.discovery.k8s.io": {"list", "watch"},
        "services": {"list", "watch"},
        "namespaces": {"list", "watch"},
        "conntrackpolicies.synsweep.io": {"list", "watch"},
        "conntrackpolicies.synsweep.io/status": {"patch"},
        "conntracknodes.synsweep.io": {"list", "watch"},
        "events": {"create", "patch"},
    },
    HELPER: {
        "conntracknodes.synsweep.io": {"get", "create", "patch"},
        "conntracknodes.synsweep.io/status": {"patch"},
        "nodes": {"get"},
    },
}
MAY_AT_HOME = {
    CONTROLLER: {
        "conntrackcleanups.synsweep.io": {"get", "list", "watch", "create", "patch", "delete"},
        "daemonsets.apps": {"get"},
    },
    HELPER: {"conntrackcleanups.synsweep.io": {"list", "watch"}},
}


@pytest.mark.parametrize("account", [CONTROLLER, HELPER])
@pytest.mark.parametrize("namespace", [NAMESPACE, "default"])
def test_what_an_account_may_do_is_exactly_this(
    api: ControlPlane, account: str, namespace: str
) -> None:
    expected = dict(MAY_EVERYWHERE[account])
    if namespace == NAMESPACE:
        expected |= MAY_AT_HOME[account]
    assert _permissions(api, account, namespace) == expected


def _permissions(api: ControlPlane, account: str, namespace: str) -> dict[str, set[str]]:
    """What the API server itself says, without what every authenticated account may."""
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace},
    }
    arguments = ("create", "--as", account, "--validate=false", "-o", "json")
    done = api.kubectl(*arguments, "-f", "-", input=json.dumps(review))
    permissions: dict[str, set[str]] = {}
    for rule in json.loads(done.stdout)["status"]["resourceRules"]:
        for group in rule["apiGroups"]:
            if group in {"authorization.k8s.io", "authentication.k8s.io"}:
                continue  # everybody may ask what they may do
            for resource in rule["resources"]:
                kind, _, part = resource.partition("/")
                name = f"{kind}.{group}" if group else kind
                permissions.setdefault(f"{name}/{part}" if part else name, set()).update(
                    rule["verbs"]
                )
    return permissions


def test_the_controller_reads_no_daemonset_but_its_own(api: ControlPlane) -> None:
    done = api.kubectl(
        *("auth", "can-i", "get", "daemonsets.apps/other", "-n", NAMESPACE, "--as", CONTROLLER),
        check=False,
    )
    assert done.stdout.strip() == "no"
