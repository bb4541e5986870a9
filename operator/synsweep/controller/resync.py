"""Comparing what we know with a list: kopf never tells of what vanished while its watch was down.

A list of metadata, not older than the newest version that was seen, is compared with what is
folded: what is missing was removed; what kopf has not told by now, although the list before showed
it, was never told. The same comparison, at the start, tells when everything that exists has been
folded.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

from synsweep.cluster.errors import ApiError
from synsweep.cluster.metadata import take_inventory
from synsweep.controller.view import Kind, as_number

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from synsweep.cluster.client import Api
    from synsweep.cluster.metadata import Inventory, Key, Version
    from synsweep.controller.view import View
    from synsweep.observe.metrics_controller import ControllerMetrics

log = logging.getLogger(__name__)

GROUPS = {
    Kind.SLICE: ("/apis/discovery.k8s.io/v1", "endpointslices"),
    Kind.SERVICE: ("/api/v1", "services"),
    Kind.NAMESPACE: ("/api/v1", "namespaces"),
    Kind.POLICY: ("/apis/synsweep.io/v1alpha1", "conntrackpolicies"),
}
FILL_LOOK = 0.1  # seconds between two looks at whether kopf has told everything
FILL_LIST = 5.0  # seconds after which the first list is made again: objects go meanwhile
RETRY = 2.0
COMPLAIN_EVERY = 30.0


class Resync:
    """Runs in a thread of its own, from the start of kopf to the end."""

    def __init__(
        self,
        *,
        view: View,
        api: Api,
        every: float,
        metrics: ControllerMetrics,
        stopping: threading.Event,
        clock: Callable[[], float],
    ) -> None:
        self._view = view
        self._api = api
        self._every = every
        self._metrics = metrics
        self._stopping = stopping
        self._clock = clock
        self._late: dict[Kind, dict[Key, Version]] = {kind: {} for kind in Kind}
        self._complained_at = -math.inf

    def run(self) -> None:
        """Fill, then compare when kopf has listed again and every so often."""
        while not self._stopping.is_set() and not self._view.filled:
            self._attempt(self._fill)
        while not self._stopping.is_set():
            self._view.listed_again.wait(self._every)
            self._view.listed_again.clear()
            if not self._stopping.is_set() and not self._attempt(self.compare):
                self._view.listed_again.set()  # the gap is still to be closed

    def stop(self) -> None:
        """Wake it; `stopping` is set."""
        self._view.listed_again.set()

    def compare(self) -> None:
        """Repair what no event told.

        Raises:
            ApiUnavailable, ApiRefused: some kind could not be listed.
        """
        for kind in Kind:
            newest = self._view.newest(kind)
            inventory = self._inventory(kind, not_older_than=str(newest) if newest else "")
            known = self._view.known(kind)
            self._drop_missing(kind, known, inventory)
            self._fetch_untold(kind, known, inventory)

    def _attempt(self, what: Callable[[], None]) -> bool:
        """Do it; a failure is said once per half minute and waited after."""
        try:
            what()
        except ApiError as error:
            now = self._clock()
            if now - self._complained_at >= COMPLAIN_EVERY:
                self._complained_at = now
                log.warning("cannot compare with the API server: %s; trying again", error)
            self._stopping.wait(RETRY)
            return False
        return True

    def _inventory(self, kind: Kind, *, not_older_than: str = "") -> Inventory:
        group, plural = GROUPS[kind]
        return take_inventory(self._api, f"{group}/{plural}", not_older_than=not_older_than)

    def _fill(self) -> None:
        """Wait until kopf has told all that one list shows."""
        inventories = {kind: self._inventory(kind) for kind in Kind}
        listed_at = self._clock()
        while not self._stopping.is_set() and self._clock() - listed_at < FILL_LIST:
            for kind in tuple(inventories):
                if not self._untold(self._view.known(kind), inventories[kind]):
                    del inventories[kind]
            if not inventories:
                log.info("everything is listed: removals are acted on from now on")
                self._view.fill()
                return
            self._stopping.wait(FILL_LOOK)

    def _drop_missing(self, kind: Kind, known: dict[Key, Version], inventory: Inventory) -> None:
        """Fold the removal of what is not in the list, unless it is newer than the list."""
        listed_at = int(inventory.resource_version)
        for key, version in known.items():
            if key in inventory.objects or as_number(version) > listed_at:
                continue
            if self._view.forget(kind, key, version):
                self._repaired(kind, key, "it is gone")

    def _fetch_untold(self, kind: Kind, known: dict[Key, Version], inventory: Inventory) -> None:
        """Read what the list before showed in a version that kopf has not told even now."""
        untold = self._untold(known, inventory)
        for key in untold:
            late = self._late[kind].get(key)
            if late and (key not in known or as_number(known[key]) < as_number(late)):
                self._fetch(kind, key)
        self._late[kind] = untold

    def _fetch(self, kind: Kind, key: Key) -> None:
        """Read one object by the right to list, so that no other is needed."""
        group, plural = GROUPS[kind]
        namespace, name = key
        within = f"/namespaces/{namespace}" if namespace else ""
        query = {"fieldSelector": f"metadata.name={name}"}
        for body in self._api.get(f"{group}{within}/{plural}", query=query).body["items"]:
            self._view.take(kind, "MODIFIED", body)
            self._repaired(kind, key, "it changed")

    def _untold(self, known: dict[Key, Version], inventory: Inventory) -> dict[Key, Version]:
        return {
            key: version
            for key, version in inventory.objects.items()
            if key not in known or as_number(known[key]) < as_number(version)
        }

    def _repaired(self, kind: Kind, key: Key, what: str) -> None:
        self._metrics.resync_repairs.labels(kind=kind.value).inc()
        log.warning("no event told that of %s %s: %s", kind, "/".join(filter(None, key)), what)
