"""The manifests as they are written: what may run, as whom, with which permissions, from where."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import pytest
import yaml

import synsweep

MANIFESTS = Path(__file__).parents[2] / "manifests"
BASE = MANIFESTS / "base"

Json: TypeAlias = dict[str, Any]


def documents(folder: Path) -> list[Json]:
    return [
        document
        for path in sorted(folder.glob("*.yaml"))
        for document in yaml.safe_load_all(path.read_text())
    ]


KUSTOMIZATION: Json = yaml.safe_load((BASE / "kustomization.yaml").read_text())
OBJECTS = [document for document in documents(BASE) if document["kind"] != "Kustomization"]


def named(kind: str, name: str) -> Json:
    (found,) = [
        each for each in OBJECTS if (each["kind"], each["metadata"]["name"]) == (kind, name)
    ]
    return found


CONTROLLER = named("Deployment", "synsweep-controller")["spec"]["template"]["spec"]
NODE = named("DaemonSet", "synsweep-node")["spec"]["template"]["spec"]
PODS = [pytest.param(CONTROLLER, id="controller"), pytest.param(NODE, id="node helper")]


def container(pod: Json) -> Json:
    (only,) = pod["containers"]
    loaded: Json = only
    return loaded


# ---- what is installed


def test_the_base_is_every_file_of_its_folder_and_the_crds() -> None:
    files = {path.name for path in BASE.glob("*.yaml")} - {"kustomization.yaml"}
    assert set(KUSTOMIZATION["resources"]) == files | {"../../crds"}


def test_no_policy_is_part_of_the_base() -> None:
    assert not [each for each in OBJECTS if each["kind"] == "ConntrackPolicy"]
    assert not any("polic" in resource for resource in KUSTOMIZATION["resources"])


@pytest.mark.parametrize(
    ("file", "spec"),
    [("cluster-default", {"mode": "Enforce"}), ("dry-run", {"mode": "DryRun"})],
)
def test_the_policies_on_offer_are_for_every_service(file: str, spec: Json) -> None:
    policy = yaml.safe_load((MANIFESTS / "policies" / f"{file}.yaml").read_text())
    assert (policy["kind"], policy["metadata"]["name"]) == ("ConntrackPolicy", file)
    assert policy["spec"] == spec


def test_the_image_is_named_in_one_place_with_the_version_of_the_package() -> None:
    assert KUSTOMIZATION["images"] == [
        {"name": "synsweep", "newName": "synsweep", "newTag": synsweep.__version__}
    ]
    assert {container(pod)["image"] for pod in (CONTROLLER, NODE)} == {"synsweep"}
    mentions = [
        path.name for path in BASE.glob("*.yaml") if synsweep.__version__ in path.read_text()
    ]
    assert mentions == ["kustomization.yaml"]


@pytest.mark.parametrize("pod", PODS)
def test_the_image_is_never_fetched_again_under_the_same_tag(pod: Json) -> None:
    assert container(pod)["imagePullPolicy"] == "IfNotPresent"


def test_nothing_is_in_another_namespace() -> None:
    assert KUSTOMIZATION["namespace"] == named("Namespace", "synsweep-system")["metadata"]["name"]
    for each in OBJECTS:
        assert each["metadata"].get("namespace", "synsweep-system") == "synsweep-system"
        for subject in each.get("subjects", ()):
            assert subject["namespace"] == "synsweep-system"


def test_no_finalizer_anywhere() -> None:
    assert not [each for each in OBJECTS if "finalizers" in each["metadata"]]


# ---- what the pods may do


@pytest.mark.parametrize("pod", PODS)
def test_both_pods_are_closed(pod: Json) -> None:
    context = container(pod)["securityContext"]
    assert context["readOnlyRootFilesystem"] is True
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"]["drop"] == ["ALL"]
    assert not context.get("privileged", False)
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert "volumes" not in pod
    assert not {"hostPID", "hostIPC", "shareProcessNamespace", "initContainers"} & set(pod)


def test_the_controller_is_nobody() -> None:
    assert CONTROLLER["securityContext"]["runAsNonRoot"] is True
    assert CONTROLLER["securityContext"]["runAsUser"] == 65532
    assert "add" not in container(CONTROLLER)["securityContext"]["capabilities"]
    assert "hostNetwork" not in CONTROLLER


def test_the_helper_is_root_with_one_capability_in_the_hosts_network() -> None:
    context = container(NODE)["securityContext"]
    assert context["runAsUser"] == 0
    assert context["capabilities"]["add"] == ["NET_ADMIN"]
    assert NODE["hostNetwork"] is True
    assert NODE["dnsPolicy"] == "ClusterFirstWithHostNet"


def test_the_namespace_lets_the_helper_in() -> None:
    labels = named("Namespace", "synsweep-system")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "privileged"


# ---- where and how they run


def test_the_controller_leaves_a_lost_node_soon() -> None:
    patience = {each["key"]: each["tolerationSeconds"] for each in CONTROLLER["tolerations"]}
    assert patience == {"node.kubernetes.io/not-ready": 10, "node.kubernetes.io/unreachable": 10}


def test_the_helper_runs_on_every_linux_node_but_fargate() -> None:
    assert NODE["tolerations"] == [{"operator": "Exists"}]
    assert NODE["nodeSelector"] == {"kubernetes.io/os": "linux"}
    required = NODE["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert required["nodeSelectorTerms"] == [
        {
            "matchExpressions": [
                {
                    "key": "eks.amazonaws.com/compute-type",
                    "operator": "NotIn",
                    "values": ["fargate"],
                }
            ]
        }
    ]


def test_a_rollout_leaves_nine_nodes_of_ten_alone() -> None:
    strategy = named("DaemonSet", "synsweep-node")["spec"]["updateStrategy"]
    assert strategy == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "10%"}}


def test_never_two_controllers_at_once() -> None:
    deployment = named("Deployment", "synsweep-controller")["spec"]
    assert (deployment["replicas"], deployment["strategy"]) == (1, {"type": "Recreate"})


@pytest.mark.parametrize(
    ("pod", "priority", "resources"),
    [
        (
            CONTROLLER,
            "system-cluster-critical",
            {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
        ),
        (
            NODE,
            "system-node-critical",
            {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
        ),
    ],
)
def test_priority_and_resources(pod: Json, priority: str, resources: Json) -> None:
    assert pod["priorityClassName"] == priority
    assert container(pod)["resources"] == resources


def environment(pod: Json) -> dict[str, Any]:
    return {
        each["name"]: each.get("value") or each["valueFrom"]["fieldRef"]["fieldPath"]
        for each in container(pod)["env"]
    }


def test_settings_are_variables_and_the_command_is_one_word() -> None:
    assert container(CONTROLLER)["args"] == ["controller"]
    assert container(NODE)["args"] == ["node"]
    assert environment(CONTROLLER) == {"SYNSWEEP_NAMESPACE": "metadata.namespace"}
    assert environment(NODE) == {
        "SYNSWEEP_NODE_NAME": "spec.nodeName",
        "SYNSWEEP_NAMESPACE": "metadata.namespace",
        "SYNSWEEP_HTTP_ADDRESS": "127.0.0.1:9469",
    }


@pytest.mark.parametrize(
    ("pod", "where"),
    [(CONTROLLER, {"port": "http"}), (NODE, {"host": "127.0.0.1", "port": 9469})],
)
def test_probes_ask_where_the_program_listens(pod: Json, where: Json) -> None:
    asked = container(pod)
    assert asked["startupProbe"]["httpGet"] == where | {"path": "/healthz"}
    assert asked["livenessProbe"]["httpGet"] == where | {"path": "/healthz"}
    assert asked["readinessProbe"]["httpGet"] == where | {"path": "/readyz"}
    assert asked.get("ports", []) == (
        [] if "host" in where else [{"name": "http", "containerPort": 9469}]
    )


@pytest.mark.parametrize(
    ("kind", "name"), [("Deployment", "synsweep-controller"), ("DaemonSet", "synsweep-node")]
)
def test_a_workload_finds_its_own_pods(kind: str, name: str) -> None:
    spec = named(kind, name)["spec"]
    assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"]
    assert spec["template"]["spec"]["serviceAccountName"] == name


# ---- RBAC


ROLES = [each for each in OBJECTS if each["kind"] in {"Role", "ClusterRole"}]


@pytest.mark.parametrize(
    "role", [pytest.param(role, id=f"{role['kind']} {role['metadata']['name']}") for role in ROLES]
)
def test_no_role_says_everything_or_reaches_for_what_is_not_ours(role: Json) -> None:
    for rule in role["rules"]:
        for words in rule.values():
            assert "*" not in words
        assert not {"secrets", "pods", "configmaps"} & set(rule["resources"])
        foreign = not {"synsweep.io"} >= set(rule["apiGroups"])
        if foreign and rule["resources"] != ["events"]:
            assert set(rule["verbs"]) <= {"get", "list", "watch"}


def test_only_the_controller_writes_cleanups() -> None:
    writers = [
        role["metadata"]["name"]
        for role in ROLES
        for rule in role["rules"]
        if "conntrackcleanups" in rule["resources"]
        and not set(rule["verbs"]) <= {"get", "list", "watch"}
    ]
    assert writers == ["synsweep-controller"]


def test_people_see_all_kinds_and_edit_policies_only() -> None:
    view, edit = named("ClusterRole", "synsweep-view"), named("ClusterRole", "synsweep-edit")
    prefix = "rbac.authorization.k8s.io/aggregate-to-"
    assert {key for key in view["metadata"]["labels"] if key.startswith(prefix)} == {
        f"{prefix}view",
        f"{prefix}edit",
        f"{prefix}admin",
    }
    assert {key for key in edit["metadata"]["labels"] if key.startswith(prefix)} == {
        f"{prefix}edit",
        f"{prefix}admin",
    }
    assert [rule["resources"] for rule in edit["rules"]] == [["conntrackpolicies"]]


# ---- against schemas


@pytest.mark.parametrize("path", sorted(MANIFESTS.rglob("*.yaml")), ids=lambda path: path.name)
def test_every_document_is_an_object(path: Path) -> None:
    for document in yaml.safe_load_all(path.read_text()):
        assert {"apiVersion", "kind"} <= set(document)
