"""Telling people: policies' status and Events, on change only, at most every 10 s per policy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from synsweep.cluster.errors import ApiRefused
from synsweep.controller.announcing import note_of_invalid, notes_about
from synsweep.controller.status import Surroundings, policy_status
from synsweep.core.policy import matched_services

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synsweep.cluster.audit import Recorder
    from synsweep.cluster.policies import Policies
    from synsweep.controller.count import Count
    from synsweep.controller.inbox import Notes
    from synsweep.controller.publishing import Clocks
    from synsweep.controller.view import SeenPolicy
    from synsweep.controller.writing import Sight
    from synsweep.observe.metrics_controller import ControllerMetrics

BETWEEN_WRITES = 10.0  # seconds, per policy
BETWEEN_LOOKS = 5.0  # a new or changed policy is looked at at once
BETWEEN_GLANCES = 1.0


@dataclass(slots=True)
class _Told:
    """What was last said about one policy."""

    status: Mapping[str, Any]
    written_at: float = -math.inf
    looked_at: float = -math.inf
    generation: int = -1  # that was last looked at


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlets:
    """Where it is told."""

    policies: Policies
    recorder: Recorder
    count: Count
    metrics: ControllerMetrics


class Reporting:
    """The job without hurry."""

    name = "writing the status of policies"

    def __init__(
        self,
        *,
        sight: Sight,
        outlets: Outlets,
        last_cleanup: Mapping[str, str],
        clocks: Clocks,
    ) -> None:
        self._view = sight.view
        self._fleet = sight.fleet
        self._outlets = outlets
        self._last_cleanup = last_cleanup
        self._clocks = clocks
        self._told: dict[str, _Told] = {}

    def notice(self, notes: Notes) -> None:
        """Policies are looked at in every step anyway."""

    def due_in(self, now: float) -> float:
        """Each second, to see new generations."""
        del now
        return BETWEEN_GLANCES

    def work(self, now: float) -> None:
        """Write what changed and may be written again."""
        seen = {policy.uid: policy for policy in self._view.seen_policies()}
        metrics = self._outlets.metrics
        metrics.policies_invalid.set(sum(1 for one in seen.values() if one.invalid))
        metrics.events_dropped.set(self._outlets.recorder.dropped)
        self._told = {
            uid: self._told.get(uid) or _Told(status=policy.status) for uid, policy in seen.items()
        }
        due = [policy for policy in seen.values() if self._is_due(policy, now)]
        if due:
            self._look(due, now)

    def _is_due(self, policy: SeenPolicy, now: float) -> bool:
        told = self._told[policy.uid]
        changed = told.generation != policy.generation
        if changed and policy.invalid is not None:
            self._outlets.recorder.record(note_of_invalid(policy))
        told.generation = policy.generation
        if changed:
            told.looked_at = -math.inf
        if now - told.written_at < BETWEEN_WRITES or now - told.looked_at < BETWEEN_LOOKS:
            return False
        told.looked_at = now
        return True

    def _look(self, due: list[SeenPolicy], now: float) -> None:
        nodes = self._fleet.nodes()
        ready = sum(1 for one in nodes if one.is_ready(now))
        self._outlets.metrics.nodes.labels(ready="true").set(ready)
        self._outlets.metrics.nodes.labels(ready="false").set(len(nodes) - ready)
        unsupported = sum(1 for one in nodes if not one.supported)
        total = self._outlets.count.nodes_total()
        matched = self._matched()
        for policy in due:
            for note in notes_about(policy, self._fleet.take_tally(policy.uid)):
                self._outlets.recorder.record(note)
            around = Surroundings(
                matched_services=matched.get(policy.uid, 0),
                nodes_ready=ready,
                nodes_total=total,
                nodes_unsupported=unsupported,
                deleted_entries=self._fleet.deleted_entries(policy.uid),
                last_cleanup=self._last_cleanup.get(policy.uid, ""),
            )
            self._write(policy, around, now)

    def _matched(self) -> Mapping[str, int]:
        policies = self._view.policies()
        with self._view.lock:
            services = self._view.index.proxied_services()
        return matched_services(policies, services)

    def _write(self, policy: SeenPolicy, around: Surroundings, now: float) -> None:
        told = self._told[policy.uid]
        status = policy_status(
            policy, around, previous=told.status, wall_now=self._clocks.wall_now()
        )
        if status == told.status:
            return
        told.written_at = now
        try:
            self._outlets.policies.patch_status(policy.name, status)
        except ApiRefused as refused:
            if not refused.not_found:
                raise
        else:
            told.status = status
