"""Kubernetes objects for the cluster tests and the demo: backends, Services, clients.

Pods run `localhost/rig-python:1` with the programs of tests/cluster/programs mounted from a
ConfigMap; clients are run by the tests in the network namespace of an idle pod, so that a test can
start one without waiting for a container, and goes on while the API server is away.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

PROGRAMS = Path(__file__).parent / "programs"
IMAGE = "localhost/rig-python:1"
BACKEND_PORT = 8080


def as_yaml(*objects: Mapping[str, Any]) -> str:
    """Write objects as one stream; JSON documents are YAML documents."""
    return "\n---\n".join(json.dumps(each) for each in objects)


def namespace(name: str, labels: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Make a Namespace."""
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": dict(labels or {})},
    }


def programs(in_namespace: str) -> dict[str, Any]:
    """Make the ConfigMap that carries backend.py into the pods."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "programs", "namespace": in_namespace},
        "data": {"backend.py": (PROGRAMS / "backend.py").read_text()},
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """A pod that answers with its own name and `status`; ready as soon as it listens."""

    name: str
    app: str
    node: str = ""
    status: int = 200
    ports: tuple[int, ...] = (BACKEND_PORT,)
    grace: int = 1
    stubborn: bool = False
    host_network: bool = False
    probe: str = "tcp"  # "tcp", or "none" for a pod that stays ready when its network dies
    labels: tuple[tuple[str, str], ...] = ()

    def container(self) -> dict[str, Any]:
        """Make the container that runs backend.py."""
        command = ["python3", "-u", "/programs/backend.py", "--name", self.name]
        command += ["--status", str(self.status)]
        for port in self.ports:
            command += ["--port", str(port)]
        if self.stubborn:
            command.append("--stubborn")
        probe = {"tcpSocket": {"port": self.ports[0]}, "periodSeconds": 1}
        return {
            "name": "backend",
            "image": IMAGE,
            "imagePullPolicy": "IfNotPresent",
            "command": command,
            "volumeMounts": [{"name": "programs", "mountPath": "/programs"}],
            **({"readinessProbe": probe} if self.probe == "tcp" else {}),
        }

    def pod_spec(self) -> dict[str, Any]:
        """Make the pod's spec, for a pod of its own or a Deployment's template."""
        return {
            "terminationGracePeriodSeconds": self.grace,
            "hostNetwork": self.host_network,
            "enableServiceLinks": False,
            "automountServiceAccountToken": False,
            "containers": [self.container()],
            "volumes": [{"name": "programs", "configMap": {"name": "programs"}}],
            **({"nodeName": self.node} if self.node else {}),
        }

    def pod(self, in_namespace: str) -> dict[str, Any]:
        """Make the pod."""
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": self.name,
                "namespace": in_namespace,
                "labels": {"app": self.app, **dict(self.labels)},
            },
            "spec": self.pod_spec(),
        }

    def deployment(self, in_namespace: str, *, replicas: int) -> dict[str, Any]:
        """Make a Deployment of such pods; each answers with the Deployment's name."""
        labels = {"app": self.app, **dict(self.labels)}
        return {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": self.name, "namespace": in_namespace},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": self.pod_spec()},
            },
        }


def service(
    name: str,
    in_namespace: str,
    *,
    app: str,
    ports: Mapping[str, tuple[int, int]] | None = None,
    kind: str = "ClusterIP",
    cluster_ip: str = "",
    dual_stack: bool = False,
    selector: Mapping[str, str] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Make a Service over `app`, none with app ""; `ports` is name -> (port, target port)."""
    wanted = ports or {"http": (80, BACKEND_PORT)}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": in_namespace},
        "spec": {
            "type": kind,
            **({"selector": dict(selector or {"app": app})} if selector or app else {}),
            "ipFamilyPolicy": "PreferDualStack" if dual_stack else "SingleStack",
            "ports": [
                {"name": each, "port": port, "targetPort": target, "protocol": "TCP"}
                for each, (port, target) in wanted.items()
            ],
            **({"clusterIP": cluster_ip} if cluster_ip else {}),
            **(extra or {}),
        },
    }


def idle_pod(name: str, in_namespace: str, *, node: str) -> dict[str, Any]:
    """Make a pod that does nothing: clients run in its network namespace."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": in_namespace, "labels": {"app": name}},
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "containers": [
                {
                    "name": "idle",
                    "image": IMAGE,
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["sleep", "infinity"],
                }
            ],
        },
    }


def slice_of(
    service: str, in_namespace: str, *addresses: str, port: int = BACKEND_PORT, ready: bool = True
) -> dict[str, Any]:
    """Make the EndpointSlice of a Service without a selector, of addresses that are no pods."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{service}-manual",
            "namespace": in_namespace,
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
        "endpoints": [{"addresses": [each], "conditions": {"ready": ready}} for each in addresses],
    }
