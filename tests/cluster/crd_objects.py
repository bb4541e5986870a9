"""Valid objects of the three kinds: the examples of crds/, and the biggest that are allowed."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any

import yaml

from tests.cluster.crd_schema import CRDS, Json, put

NAMESPACE = "synsweep-system"
NOON = "2026-11-22T12:00:00Z"


def example(kind: str) -> Json:
    """Read the example object of one kind."""
    body: Json = yaml.safe_load((CRDS / "examples" / f"{kind.lower()}.yaml").read_text())
    return body


def policy() -> Json:
    """A policy that uses every field, status included."""
    body = put(example("ConntrackPolicy"), ("spec", "serviceSelector", "matchLabels"), {"a": "b"})
    body["spec"]["namespaceSelector"]["matchExpressions"] = [
        {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system"]}
    ]
    body["status"] = {
        "observedGeneration": 1,
        "conditions": [condition("Ready"), condition("Degraded", "False")],
        "matchedServices": 4,
        "nodesReady": 3,
        "nodesTotal": 5,
        "deletedEntries": 12,
        "lastCleanupTime": NOON,
    }
    return body


def cleanup() -> Json:
    """A cleanup that uses every field and has something to take out."""
    body = example("ConntrackCleanup")
    body["spec"]["nodes"] = ["node1", "node2"]
    first = body["spec"]["targets"][0]
    body["spec"]["targets"].append(first | {"id": 7, "portName": ""})
    return body


def node() -> Json:
    """A node's report that uses every field."""
    body = example("ConntrackNode")
    body["status"]["conditions"][0]["observedGeneration"] = 1
    return body


def condition(name: str, status: str = "True") -> Json:
    """One condition."""
    return {
        "type": name,
        "status": status,
        "observedGeneration": 1,
        "lastTransitionTime": NOON,
        "reason": "AsExpected",
        "message": "All is well.",
    }


def minimal_policy() -> Json:
    """A policy that leaves everything to the defaults."""
    return {
        "apiVersion": "synsweep.io/v1alpha1",
        "kind": "ConntrackPolicy",
        "metadata": {"name": "minimal"},
        "spec": {},
    }


def _selector() -> Json:
    """A label selector with as many and as long parts as allowed."""
    prefix = ".".join(["d" * 61] * 4)
    keys = [f"{prefix}/{number:02}{'k' * 61}" for number in range(32)]
    values = [f"{number:02}{'v' * 61}" for number in range(64)]
    return {
        "matchLabels": dict.fromkeys(keys, "v" * 63),
        "matchExpressions": [{"key": key, "operator": "In", "values": values} for key in keys],
    }


def biggest_policy() -> Json:
    """A policy at every upper limit."""
    body = minimal_policy()
    body["metadata"]["name"] = "p" * 63
    body["spec"] = {
        "mode": "Disabled",
        "priority": 1000,
        "namespaceSelector": _selector(),
        "serviceSelector": _selector(),
        "unreadyAfterSeconds": 300,
        "misrouted": "Ignore",
    }
    return body


def minimal_cleanup() -> Json:
    """A cleanup at every lower limit."""
    return {
        "apiVersion": "synsweep.io/v1alpha1",
        "kind": "ConntrackCleanup",
        "metadata": {"name": "endpoint-unready-1", "namespace": NAMESPACE},
        "spec": {
            "formatVersion": 1,
            "sequence": 1,
            "mode": "Enforce",
            "misrouted": "Ignore",
            "reason": "EndpointUnready",
            "goneForSeconds": 0,
            "removedAt": NOON,
            "reuseAfterSeconds": 5,
            "sweepForSeconds": 5,
            "reportWithinSeconds": 1,
            "targets": [target(0, backends=1)],
        },
    }


def target(number: int, *, backends: int, frontends: int = 1) -> Json:
    """A target with that many of each."""
    first = IPv4Address("10.0.0.1") + number * 512
    return {
        "id": number,
        "namespace": "shop",
        "service": f"service-{number}",
        "portName": "",
        "frontends": [{"ip": "10.96.0.1", "port": port + 1} for port in range(frontends)],
        "backends": [
            {"ip": str(first + at), "port": 65535, "terminated": False} for at in range(backends)
        ],
    }


def biggest_cleanup(targets: list[Json], **spec: Any) -> Json:
    """A cleanup at every upper limit, with these targets."""
    body = minimal_cleanup()
    body["metadata"]["name"] = f"node-suspect-{2**63 - 1}"
    body["spec"] |= {
        "sequence": 2**63 - 1,
        "mode": "DryRun",
        "misrouted": "Reset",
        "reason": "NodeSuspect",
        "goneForSeconds": 31536000.0,
        "reuseAfterSeconds": 3600,
        "sweepForSeconds": 3600,
        "reportWithinSeconds": 3600,
        "nodes": [f"ip-10-0-{at >> 8}-{at & 255}.eu-west-1.compute.internal" for at in range(5000)],
        "targets": targets,
    }
    body["spec"] |= spec
    return body


def minimal_node() -> Json:
    """A report that says nothing yet."""
    return {
        "apiVersion": "synsweep.io/v1alpha1",
        "kind": "ConntrackNode",
        "metadata": {"name": "node1"},
        "status": {"formatVersion": 1, "sweptThrough": 0, "kubeProxyMode": "Unknown"},
    }


def biggest_node() -> Json:
    """A report with as many of everything as allowed."""
    body = node()
    status = body["status"]
    status["addresses"] = [f"2001:db8::{at + 1:x}" for at in range(64)]
    status["conditions"] = [condition(f"Type{at}") for at in range(16)]
    status["counters"] = [{"policyUID": f"uid-{at}", "deleted": 2**62} for at in range(64)]
    refused = status["refusedCleanups"][0]
    status["refusedCleanups"] = [
        refused | {"name": f"c-{at}", "message": "m" * 1024} for at in range(10)
    ]
    status["suspects"] = status["suspects"] * 50
    return body
