"""Installing and removing synsweep on the rig as a user would: from this repo's manifests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.cluster.observers import eventually

if TYPE_CHECKING:
    from tests.rig.cluster import Cluster

ROOT = Path(__file__).parents[2]
NAMESPACE = "synsweep-system"
POLICIES = ROOT / "manifests" / "policies"


def wait_account(cluster: Cluster, namespace: str) -> None:
    """Wait for a new namespace's default ServiceAccount, without which no pod is let in."""
    account = ("-n", namespace, "get", "serviceaccount", "default")
    eventually(
        lambda: cluster.kubectl(*account, check=False).returncode == 0,
        60,
        f"the default ServiceAccount of {namespace}",
    )


def install(cluster: Cluster) -> None:
    """Apply manifests/base and wait until controller and helpers are ready."""
    cluster.kubectl("apply", "-k", str(ROOT / "manifests" / "base"))
    wait_ready(cluster)


def wait_ready(cluster: Cluster) -> None:
    """Wait until the Deployment and the DaemonSet are rolled out."""
    for workload in ("deployment/synsweep-controller", "daemonset/synsweep-node"):
        cluster.kubectl("-n", NAMESPACE, "rollout", "status", workload, "--timeout=120s")


def apply_policy(cluster: Cluster, name: str = "cluster-default") -> None:
    """Apply one of manifests/policies and wait until the controller says that it acts on it."""
    cluster.kubectl("apply", "-f", str(POLICIES / f"{name}.yaml"))
    wait_policy(cluster, name)


def set_mode(cluster: Cluster, mode: str, policy: str = "cluster-default") -> None:
    """Change a policy's mode and wait until the controller has seen it."""
    patch = json.dumps({"spec": {"mode": mode}})
    cluster.kubectl("patch", "conntrackpolicy", policy, "--type=merge", "-p", patch)
    wait_policy(cluster, policy)


def wait_policy(cluster: Cluster, name: str = "cluster-default") -> None:
    """Wait until a policy's status speaks of its newest generation."""

    def observed() -> bool:
        policy = cluster.get_json("conntrackpolicy", name)
        seen = policy.get("status", {}).get("observedGeneration")
        return bool(seen == policy["metadata"]["generation"])

    eventually(observed, 30, f"the status of policy {name}", every=0.2)


def delete_policies(cluster: Cluster) -> None:
    """Delete all policies and wait until their cleanups are gone with them."""
    cluster.kubectl("delete", "conntrackpolicies", "--all")
    eventually(lambda: not cleanups(cluster), 30, "the cleanups to go with their policy", every=0.2)


def cleanups(cluster: Cluster) -> list[dict[str, Any]]:
    """List the live ConntrackCleanups."""
    items: list[dict[str, Any]] = cluster.get_json("-n", NAMESPACE, "conntrackcleanups")["items"]
    return items


def condemned(cluster: Cluster) -> set[tuple[str, int]]:
    """List every backend ip:port that a live cleanup names."""
    return {
        (backend["ip"], backend["port"])
        for cleanup in cleanups(cluster)
        for target in cleanup["spec"]["targets"]
        for backend in target["backends"]
    }


def uninstall(cluster: Cluster) -> None:
    """Delete everything that install() made, CRDs and namespace with it."""
    base = str(ROOT / "manifests" / "base")
    cluster.kubectl("delete", "-k", base, "--ignore-not-found", "--timeout=120s")


def move_controller_from(cluster: Cluster, node: str) -> None:
    """See to it that the controller runs on another node, so that this one may be lost."""
    selector = ("-l", "app.kubernetes.io/component=controller")
    pods = cluster.get_json("-n", NAMESPACE, "pods", *selector)["items"]
    if all(pod["spec"]["nodeName"] != node for pod in pods):
        return
    cluster.kubectl("cordon", node)
    try:
        cluster.kubectl("-n", NAMESPACE, "delete", "pod", *selector, "--wait=true")
        wait_ready(cluster)
    finally:
        cluster.kubectl("uncordon", node)
