"""ConntrackNodes, what they belong to (Nodes), and how many there should be (the DaemonSet)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from synsweep.cluster.errors import ApiRefused
from synsweep.cluster.listwatch import ListWatch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synsweep.cluster.client import Api, Body

_PATH = "/apis/synsweep.io/v1alpha1/conntracknodes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """The Node that a ConntrackNode goes with when it is deleted."""

    name: str
    uid: str


class ConntrackNodes:
    """All reports. A helper writes the one of its own node only."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def watch(self) -> ListWatch:
        """Follow all of them."""
        return ListWatch(self._api, _PATH)

    def get(self, name: str) -> Body | None:
        """Read one; None when there is none."""
        return _or_none(self._api, f"{_PATH}/{name}")

    def create(self, name: str, *, owner: Owner | None) -> Body:
        """Create it without a status; one that is there already is returned as it is."""
        metadata: Body = {"name": name}
        if owner is not None:
            metadata["ownerReferences"] = [
                {"apiVersion": "v1", "kind": "Node", "name": owner.name, "uid": owner.uid}
            ]
        body = {
            "apiVersion": "synsweep.io/v1alpha1",
            "kind": "ConntrackNode",
            "metadata": metadata,
        }
        try:
            return self._api.post(_PATH, body).body
        except ApiRefused as refused:
            if refused.reason != "AlreadyExists":
                raise
            return self._api.get(f"{_PATH}/{name}").body

    def patch_status(self, name: str, status: Mapping[str, Any]) -> Body:
        """Merge into the status: lists are replaced whole, an absent field is kept.

        Raises:
            ApiRefused: NotFound when somebody deleted the object.
        """
        return self._api.patch(f"{_PATH}/{name}/status", {"status": dict(status)}).body

    def annotate(self, name: str, annotations: Mapping[str, str]) -> Body:
        """Set these annotations, next to what else is there (a status patch cannot).

        Raises:
            ApiRefused: NotFound when somebody deleted the object.
        """
        body = {"metadata": {"annotations": dict(annotations)}}
        return self._api.patch(f"{_PATH}/{name}", body).body

    def node(self, name: str) -> Body | None:
        """Read the Node of that name; None when there is no such Node."""
        return _or_none(self._api, f"/api/v1/nodes/{name}")

    def node_owner(self, name: str) -> Owner | None:
        """Find the Node of that name; None when there is no such Node."""
        node = self.node(name)
        return Owner(name=name, uid=node["metadata"]["uid"]) if node else None


class DaemonSets:
    """How many helpers there should be."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def desired(self, namespace: str, name: str) -> int | None:
        """`status.desiredNumberScheduled`; None when there is no such DaemonSet, or no status."""
        body = _or_none(self._api, f"/apis/apps/v1/namespaces/{namespace}/daemonsets/{name}")
        desired = ((body or {}).get("status") or {}).get("desiredNumberScheduled")
        return desired if isinstance(desired, int) else None


def _or_none(api: Api, path: str) -> Body | None:
    try:
        return api.get(path).body
    except ApiRefused as refused:
        if refused.not_found:
            return None
        raise
