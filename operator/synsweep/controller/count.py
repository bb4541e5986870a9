"""How many nodes there should be: what the DaemonSet desires, asked now and then."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

from synsweep.cluster.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Callable

    from synsweep.cluster.nodes import DaemonSets
    from synsweep.controller.fleet import Fleet

log = logging.getLogger(__name__)

ASK_EVERY = 30.0  # seconds
DAEMONSET = "synsweep-node"


class Count:
    """The last answer stays while the API server is away."""

    def __init__(
        self,
        daemonsets: DaemonSets,
        *,
        namespace: str,
        fleet: Fleet,
        clock: Callable[[], float],
    ) -> None:
        self._daemonsets = daemonsets
        self._namespace = namespace
        self._fleet = fleet
        self._clock = clock
        self._desired: int | None = None
        self._asked_at = -math.inf

    def nodes_total(self) -> int:
        """What the DaemonSet desires; without one (or its name) the nodes that report."""
        now = self._clock()
        if now - self._asked_at >= ASK_EVERY:
            self._asked_at = now
            try:
                self._desired = self._daemonsets.desired(self._namespace, DAEMONSET)
            except ApiError as error:
                log.warning("cannot read DaemonSet %s/%s: %s", self._namespace, DAEMONSET, error)
        return self.last_known()

    def last_known(self) -> int:
        """The same without asking: what is urgent must not wait for an answer, nor go stale."""
        return len(self._fleet.nodes()) if self._desired is None else self._desired
