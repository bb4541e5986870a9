"""Forgetting: cleanups whose time is over, and what the index remembers of removals."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from synsweep.controller.inbox import Notes
    from synsweep.controller.writing import Instructions, Sight
    from synsweep.observe.metrics_controller import ControllerMetrics

log = logging.getLogger(__name__)

BETWEEN_DELETES = 0.5  # seconds: lazily, nobody waits for it
EXPIRE_EVERY = 10.0


class Tidying:
    """The last job of a step."""

    name = "deleting cleanups that are over"

    def __init__(
        self,
        *,
        sight: Sight,
        instructions: Instructions,
        keep_for: float,
        metrics: ControllerMetrics,
    ) -> None:
        self._sight = sight
        self._instructions = instructions
        self._keep_for = keep_for
        self._metrics = metrics
        self._deleted_at = self._expired_at = -math.inf

    @property
    def keep_for(self) -> float:
        """How long a cleanup stays: at least twice as long as any half-open entry can live."""
        return max(self._keep_for, 2.0 * self._sight.fleet.longest_syn_sent)

    def notice(self, notes: Notes) -> None:
        """Nothing hurries this job."""

    def due_in(self, now: float) -> float:
        """When the next cleanup may be deleted."""
        return max(BETWEEN_DELETES, self._deleted_at + BETWEEN_DELETES - now)

    def work(self, now: float) -> None:
        """Delete one cleanup that is over; expire the index now and then."""
        if now - self._expired_at >= EXPIRE_EVERY:
            self._expired_at = now
            view = self._sight.view
            with view.lock:
                view.index.expire(now=now, keep_for=self.keep_for)
                self._metrics.backends.set(view.index.backends_total())
        live = self._sight.ledger.live()
        self._metrics.cleanups_in_api.set(len(live))
        if now - self._deleted_at < BETWEEN_DELETES:
            return
        over = next((one for one in live if now - one.born_at > self.keep_for), None)
        if over is not None:
            self._deleted_at = now
            self._instructions.delete(over.name)
            self._sight.ledger.deleted(over.name)
            log.debug("tidied up %s", over.name)
