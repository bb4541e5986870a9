"""Publishing removals: gathered for the batch window, judged anew, written within the budget.

A plan is made from the index after the batch window of the first removal, and each second (nothing
but time makes an unready backend a removal); it replaces the plan before, whose unwritten rest is
thereby judged again.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from synsweep.cluster.errors import ApiRefused
from synsweep.controller.budget import Budget
from synsweep.controller.revoking import revocations_of
from synsweep.core.cleanup import CleanupReason
from synsweep.core.planning import PlanSettings, covered_pairs, plan_cleanups

if TYPE_CHECKING:
    from collections.abc import Callable

    from synsweep.controller.inbox import Notes
    from synsweep.controller.settings import ControllerSettings
    from synsweep.controller.writing import Instructions, Sight
    from synsweep.core.cleanup import Cleanup
    from synsweep.observe.metrics_controller import ControllerMetrics

log = logging.getLogger(__name__)

PLAN_EVERY = 1.0  # seconds
LOADED = 0.5  # seconds between two plans while cleanups wait to be written
STALE_PLAN = 5.0
PRESSURE = 4  # cleanups that wait


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """Our monotonic clock, and the API server's clock as RFC 3339 for what people read."""

    now: Callable[[], float]
    wall_now: Callable[[], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    cleanups: tuple[Cleanup, ...] = ()
    made_at: float = -math.inf


class Publishing:
    """The job that the program is for."""

    name = "publishing cleanups"

    def __init__(
        self,
        *,
        sight: Sight,
        instructions: Instructions,
        settings: ControllerSettings,
        metrics: ControllerMetrics,
        nodes_total: Callable[[], int],
        clocks: Clocks,
    ) -> None:
        self.last_cleanup: dict[str, str] = {}  # policy uid → when, RFC 3339
        self._sight = sight
        self._instructions = instructions
        self._settings = settings
        self._metrics = metrics
        self._nodes_total = nodes_total
        self._clocks = clocks
        self._budget = Budget(now=clocks.now())
        self._plan = _Plan()
        self._gone_since: float | None = None
        self._refusal: ApiRefused | None = None  # one refused cleanup must not hold up the others

    def notice(self, notes: Notes) -> None:
        """Start the batch window with the first removal."""
        if self._gone_since is None:
            self._gone_since = notes.gone_since

    def due_in(self, now: float) -> float:
        """When the next plan, or the next write, is due."""
        if not self._plan.cleanups:
            return self._plan_due_at() - now
        write = self._create_wait(now)
        return write if self._refusal else min(write, self._plan_due_at() - now)

    def work(self, now: float) -> None:
        """Plan if it is time, then write one cleanup if the budget allows it.

        Raises:
            ApiRefused: one was refused, and the others of its plan have had their turn.
        """
        if self._refusal is not None and not self._plan.cleanups:
            refusal, self._refusal = self._refusal, None
            raise refusal
        if now >= self._plan_due_at() and self._refusal is None:
            self._gone_since = None
            self._plan = _Plan(cleanups=self._plan_from_index(now), made_at=now)
        if now - self._plan.made_at > STALE_PLAN and self._plan.cleanups:
            self._metrics.batches_dropped.inc()
            self._plan = _Plan()
        if self._plan.cleanups and self._create_wait(now) <= 0:
            planned, *rest = self._plan.cleanups
            self._plan = replace(self._plan, cleanups=tuple(rest))
            self._publish_what_is_still_gone(planned, now)

    def _plan_due_at(self) -> float:
        if self._gone_since is None:
            return self._plan.made_at + PLAN_EVERY
        gathered = self._gone_since + self._settings.batch_window
        return max(gathered, self._plan.made_at + LOADED) if self._plan.cleanups else gathered

    def _plan_from_index(self, now: float) -> tuple[Cleanup, ...]:
        view, ledger = self._sight.view, self._sight.ledger
        live = ledger.readable().values()
        covered = covered_pairs((cleanup, one.gone_at) for one, cleanup in live)
        policies = view.policies()
        settings = PlanSettings(
            reuse_after=round(self._settings.reuse_after),
            sweep_for=round(self._settings.sweep_for),
        )
        with view.lock:  # not for the planning itself: kopf's loop waits for this lock
            removed = view.index.gone(now=now, within=self._settings.sweep_for)
            services = {one.service_port.service for one in removed}
            labels = {service: view.index.labels(service) for service in services}
        return plan_cleanups(
            removed,
            policies=policies,
            labels=labels.get,
            covered=covered,
            settings=settings,
            first_sequence=self._next_sequence(),
            now=now,
            wall_now=self._clocks.wall_now(),
            nodes_total=self._nodes_total(),
        )

    def _next_sequence(self) -> int:
        """Increasing over restarts: all that is in the API, or was swept for, is behind it."""
        return max(self._sight.ledger.highest_sequence, self._sight.fleet.swept_through) + 1

    def _publish_what_is_still_gone(self, planned: Cleanup, now: float) -> None:
        back = revocations_of(self._sight, (planned,))
        cleanup = back[0].remaining if back else planned
        if cleanup is not None:
            gone_for = round(cleanup.gone_for_seconds + now - self._plan.made_at, 3)
            self._publish(replace(cleanup, gone_for_seconds=gone_for), now)

    def _publish(self, cleanup: Cleanup, now: float) -> None:
        self._budget.spend()
        try:
            self._sight.ledger.created(self._instructions.create(cleanup))
        except ApiRefused as refused:
            self._refusal = refused
            return
        self.last_cleanup[cleanup.policy_uid] = self._clocks.wall_now()
        self._metrics.published.labels(reason=cleanup.reason.value).inc()
        if cleanup.reason is CleanupReason.ENDPOINT_REMOVED:
            taken = self._clocks.now() - now
            self._metrics.publish_delay.observe(cleanup.gone_for_seconds + taken)
        log.info(
            "published %s: %d backends of %d targets, gone for %.2f s",
            cleanup.name,
            cleanup.backends_total,
            len(cleanup.targets),
            cleanup.gone_for_seconds,
            extra={"cleanup": cleanup.name, "policy": cleanup.policy, "mode": cleanup.mode.value},
        )

    def _create_wait(self, now: float) -> float:
        return self._budget.wait(now=now, pressed=len(self._plan.cleanups) > PRESSURE)
