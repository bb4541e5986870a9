"""ConntrackCleanups in the operator's namespace: written by the controller, followed by all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synsweep.cluster.errors import ApiRefused
from synsweep.cluster.listwatch import ListWatch
from synsweep.core.cleanup import CleanupRefused
from synsweep.core.cleanup_wire import cleanup_from_wire, cleanup_to_wire, targets_to_wire

if TYPE_CHECKING:
    from synsweep.cluster.client import Api
    from synsweep.core.cleanup import Cleanup, CleanupTarget, Mode


class Cleanups:
    """The collection of one namespace."""

    def __init__(self, api: Api, namespace: str) -> None:
        self._api = api
        self._namespace = namespace
        self._path = f"/apis/synsweep.io/v1alpha1/namespaces/{namespace}/conntrackcleanups"

    def watch(self) -> ListWatch:
        """Follow all of them."""
        return ListWatch(self._api, self._path)

    def create(self, cleanup: Cleanup) -> Cleanup:
        """Publish an instruction; returns it with its uid and creation time.

        One that is there already and says the same is our own, whose answer was lost.

        Raises:
            ApiUnavailable, ApiRefused: it is not, or not known to be, in the API.
        """
        body = cleanup_to_wire(cleanup, namespace=self._namespace)
        try:
            return cleanup_from_wire(self._api.post(self._path, body).body)
        except ApiRefused as refused:
            if refused.reason != "AlreadyExists":
                raise
            there = self._there(cleanup.name)
            if there is None or _order(there) != _order(cleanup):
                raise
            return there

    def replace_targets(self, cleanup: Cleanup) -> None:
        """Take out of the live object what is not in this value any more (the revocation).

        Raises:
            ApiRefused: NotFound when somebody deleted it, which revokes even more.
        """
        targets = targets_to_wire(cleanup.targets)
        self._api.patch(f"{self._path}/{cleanup.name}", {"spec": {"targets": targets}})

    def delete(self, name: str) -> None:
        """Withdraw an instruction, or tidy up one whose time is over; absent is fine."""
        try:
            self._api.delete(f"{self._path}/{name}")
        except ApiRefused as refused:
            if not refused.not_found:
                raise

    def _there(self, name: str) -> Cleanup | None:
        """Read the one of that name; None if we cannot understand it (a newer controller's)."""
        try:
            return cleanup_from_wire(self._api.get(f"{self._path}/{name}").body)
        except CleanupRefused:
            return None


def _order(cleanup: Cleanup) -> tuple[str, Mode, tuple[CleanupTarget, ...]]:
    """What it tells the nodes to do, and for whom."""
    return cleanup.policy_uid, cleanup.mode, cleanup.targets
