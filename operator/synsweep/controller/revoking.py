"""Taking out of live cleanups what serves again, and withdrawing what no policy wants any more."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

from synsweep.cluster.errors import ApiRefused
from synsweep.core.planning import plan_revocations, plan_withdrawals

if TYPE_CHECKING:
    from synsweep.controller.inbox import Notes
    from synsweep.controller.writing import Instructions, Sight
    from synsweep.core.cleanup import Cleanup
    from synsweep.core.planning import Revocation
    from synsweep.observe.metrics_controller import ControllerMetrics

log = logging.getLogger(__name__)

BETWEEN_PATCHES = 0.5  # seconds, per object
LOOK_EVERY = 2.0  # seconds: a changed label moves a Service to another policy


def revocations_of(sight: Sight, cleanups: tuple[Cleanup, ...]) -> tuple[Revocation, ...]:
    """Ask the index which of these must shrink."""
    policies = sight.view.policies()
    with sight.view.lock:
        index = sight.view.index
        return plan_revocations(cleanups, pairs=index, policies=policies, labels=index.labels)


class Revoking:
    """The most urgent job."""

    name = "taking out of cleanups what serves again"

    def __init__(
        self, *, sight: Sight, instructions: Instructions, metrics: ControllerMetrics
    ) -> None:
        self._sight = sight
        self._instructions = instructions
        self._metrics = metrics
        self._due = self._policies_changed = True  # what a former controller left is looked at
        self._looked_at = -math.inf

    def notice(self, notes: Notes) -> None:
        """Something serves again, or a policy changed: look at once."""
        self._due |= notes.back
        self._policies_changed |= notes.policies

    def due_in(self, now: float) -> float:
        """At once, or when labels may have changed."""
        return BETWEEN_PATCHES / 2 if self._due else self._looked_at + LOOK_EVERY - now

    def work(self, now: float) -> None:
        """Withdraw, then revoke."""
        if self._policies_changed:
            self._withdraw()
            self._policies_changed = False
        if self._due or now - self._looked_at >= LOOK_EVERY:
            self._due = True  # stays so if a write fails
            self._due = self._revoke(now)
            self._looked_at = now

    def _withdraw(self) -> None:
        live = tuple(cleanup for _, cleanup in self._sight.ledger.readable().values())
        for cleanup in plan_withdrawals(live, self._sight.view.policies()):
            self._instructions.delete(cleanup.name)
            self._sight.ledger.deleted(cleanup.name)
            self._metrics.withdrawn.inc()
            log.info(
                "withdrew %s: its policy changed",
                cleanup.name,
                extra={"cleanup": cleanup.name, "policy": cleanup.policy},
            )

    def _revoke(self, now: float) -> bool:
        """Patch each object at most twice a second; True if one of them has to wait for that."""
        live = self._sight.ledger.readable()
        waiting = False
        for one in revocations_of(self._sight, tuple(cleanup for _, cleanup in live.values())):
            known, _ = live[one.cleanup.name]
            if one.remaining is not None and now - known.changed_at < BETWEEN_PATCHES:
                waiting = True
                continue
            self._revoke_one(one.cleanup.name, one.remaining)
        return waiting

    def _revoke_one(self, name: str, remaining: Cleanup | None) -> None:
        if remaining is None:
            self._instructions.delete(name)
            self._sight.ledger.deleted(name)
        else:
            try:
                self._instructions.replace_targets(remaining)
                self._sight.ledger.shrunk(remaining)
            except ApiRefused as refused:
                if not refused.not_found:
                    raise
                self._sight.ledger.deleted(name)  # somebody deleted it, which revokes even more
        self._metrics.revoked.inc()
        log.info("took out of %s what serves again", name, extra={"cleanup": name})
