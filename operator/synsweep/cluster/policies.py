"""ConntrackPolicies: the user's; we write their status only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synsweep.cluster.client import Api

_PATH = "/apis/synsweep.io/v1alpha1/conntrackpolicies"


class Policies:
    """All policies of the cluster."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def patch_status(self, name: str, status: Mapping[str, Any]) -> None:
        """Merge into the status: lists are replaced whole, an absent field is kept.

        Raises:
            ApiRefused: NotFound when the policy is gone.
        """
        self._api.patch(f"{_PATH}/{name}/status", {"status": dict(status)})
