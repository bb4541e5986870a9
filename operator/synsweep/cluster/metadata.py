"""Names, uids and versions of all objects of one kind: what a comparison needs, and no more.

A `PartialObjectMetadataList` is an order of magnitude smaller than the list. Asked for as "not
older than", a list that lags behind the newest version seen is refused by the API server itself, so
that it cannot invent removals.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from synsweep.cluster.errors import ApiRefused, ApiUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from synsweep.cluster.client import Api

_ACCEPT = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_GROUP = "/apis/synsweep.io/v1alpha1"
_PAGE = "500"

Key = tuple[str, str]  # namespace ("" where there is none), name


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """Which object, and which state of it."""

    uid: str
    resource_version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """All objects of one kind at one version of the cluster."""

    objects: Mapping[Key, Version]
    resource_version: str


def take_inventory(api: Api, path: str, *, not_older_than: str = "") -> Inventory:
    """List all objects at `path`, metadata only, in pages, not older than that version.

    Raises:
        ApiUnavailable: no answer, or none that is new enough (yet).
        ApiRefused: forbidden, or no such kind.
    """
    query = {"limit": _PAGE}
    if not_older_than:
        query |= {"resourceVersion": not_older_than, "resourceVersionMatch": "NotOlderThan"}
    objects: dict[Key, Version] = {}
    while True:
        body = api.get(path, query=query, accept=_ACCEPT).body
        try:
            for item in body.get("items") or ():
                metadata = item["metadata"]
                objects[metadata.get("namespace", ""), metadata["name"]] = Version(
                    uid=metadata["uid"], resource_version=metadata["resourceVersion"]
                )
            version, token = body["metadata"]["resourceVersion"], body["metadata"].get("continue")
        except (KeyError, TypeError, AttributeError) as error:
            raise ApiUnavailable(f"GET {path}: the answer is no list of metadata") from error
        if not token:
            return Inventory(objects=objects, resource_version=version)
        query = {"limit": _PAGE, "continue": token}


def missing_kinds(api: Api, plurals: Iterable[str]) -> tuple[str, ...]:
    """Which of our kinds the API server does not serve (yet), by their plural names.

    Raises:
        ApiUnavailable, ApiRefused: discovery failed or is forbidden.
    """
    try:
        resources = api.get(_GROUP).body.get("resources") or ()
    except ApiRefused as refused:
        if not refused.not_found:
            raise
        resources = ()
    served = {resource.get("name") for resource in resources}
    return tuple(plural for plural in plurals if plural not in served)
