"""Taking out of live cleanups what serves again, and withdrawing what no policy wants any more."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

from synsweep.cluster.errors import ApiRefused
from synsweep.core.planning import plan_revocations, plan_withdrawals

if TYPE_CHECKING:
    from synsweep.controller.inbox import Notes
    from synsweep.controller.ledger import Live
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
        self._due = True  # what a former controller left is looked at
        self._looked_at = -math.inf

    def notice(self, notes: Notes) -> None:
        """Something serves again, or a policy changed: look at once."""
        self._due |= notes.back or notes.policies

    def due_in(self, now: float) -> float:
        """At once, or when labels may have changed."""
        return BETWEEN_PATCHES / 2 if self._due else self._looked_at + LOOK_EVERY - now

    def work(self, now: float) -> None:
        """Withdraw, then revoke; a write that is refused does not hold up the others.

        Raises:
            ApiRefused: the first refusal, after all others have had their turn.
        """
        if not self._due and now - self._looked_at < LOOK_EVERY:
            return
        self._due = True  # stays so if a write fails
        live = self._sight.ledger.readable()
        refused = self._withdraw(live)
        waiting, more_refused = self._revoke(live, now)
        self._looked_at = now
        for refusal in refused + more_refused:
            raise refusal
        self._due = waiting

    def _withdraw(self, live: dict[str, tuple[Live, Cleanup]]) -> list[ApiRefused]:
        """Delete what no policy wants; takes it out of `live`, deleted or not."""
        refused = []
        cleanups = tuple(cleanup for _, cleanup in live.values())
        for cleanup in plan_withdrawals(cleanups, self._sight.view.policies()):
            del live[cleanup.name]
            try:
                self._instructions.delete(cleanup.name)
            except ApiRefused as refusal:
                refused.append(refusal)
                continue
            self._sight.ledger.deleted(cleanup.name)
            self._metrics.withdrawn.inc()
            log.info(
                "withdrew %s: its policy changed",
                cleanup.name,
                extra={"cleanup": cleanup.name, "policy": cleanup.policy},
            )
        return refused

    def _revoke(
        self, live: dict[str, tuple[Live, Cleanup]], now: float
    ) -> tuple[bool, list[ApiRefused]]:
        """Patch each object at most twice a second; True if one of them has to wait for that."""
        waiting = False
        refused = []
        for one in revocations_of(self._sight, tuple(cleanup for _, cleanup in live.values())):
            known, _ = live[one.cleanup.name]
            if one.remaining is not None and now - known.changed_at < BETWEEN_PATCHES:
                waiting = True
                continue
            try:
                self._revoke_one(one.cleanup.name, one.remaining)
            except ApiRefused as refusal:
                refused.append(refusal)
        return waiting, refused

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
