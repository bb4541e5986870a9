"""The cleanups that this node knows, and when it has to sweep for each.

The watching thread folds in what the API server tells; the sweeping thread reads, and says what it
has done. A lock keeps them apart. Rules:

1. What the API server no longer has is forgotten at once: nothing is deleted on its account, not
   even by a sweep that is under way (`current`).
2. A cleanup that was edited only ever shrinks here, whatever the edit says, and an edit never
   starts a sweep.
3. What cannot be understood is refused as a whole, with its reason; an edit that cannot be
   understood takes the cleanup that it edits with it.
4. While the API server is away, everything stays as it was.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from synsweep.cluster.listwatch import Deleted, Listed, age
from synsweep.core.cleanup import CleanupRefused
from synsweep.core.cleanup_wire import cleanup_from_wire
from synsweep.core.report import RefusedCleanup
from synsweep.core.schedule import SweepSchedule, first_seen, next_sweep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from synsweep.cluster.client import Body
    from synsweep.cluster.listwatch import Event
    from synsweep.core.cleanup import Cleanup, CleanupTarget
    from synsweep.core.schedule import Pace
    from synsweep.core.staleness import Candidate, CondemnedEntry, LiveCleanup
    from synsweep.core.sweep_plan import SweepPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted:
    """What one event changed here, for logs and metrics."""

    arrived: tuple[LiveCleanup, ...] = ()
    refused: tuple[RefusedCleanup, ...] = ()


@dataclass(slots=True, kw_only=True)
class _Known:
    """One object of the API. Neither scheduled nor refused: over, or for other nodes."""

    uid: str
    schedule: SweepSchedule | None = None
    refused: RefusedCleanup | None = None


class KnownCleanups:
    """All cleanups of the API as this node saw them last.

    Args:
        node_name: of this node; cleanups for others are passed over.
        notified: says whether changes of the node's ruleset are notified (see core/schedule.py).
        jitter: seconds to wait before the first sweep for a cleanup, drawn anew for each.
    """

    def __init__(
        self, node_name: str, *, notified: Callable[[], bool], jitter: Callable[[], float]
    ) -> None:
        self.listed = False  # whether the API server told all there is, at least once
        self._node_name = node_name
        self._notified = notified
        self._jitter = jitter
        self._lock = threading.Lock()
        self._known: dict[str, _Known] = {}

    def apply(self, event: Event, *, now: float) -> Noted:
        """Fold in what the API server told at `now` (seconds, monotonic)."""
        with self._lock:
            if isinstance(event, Listed):
                present = {item["metadata"]["name"] for item in event.items}
                for name in self._known.keys() - present:
                    del self._known[name]
                # What was there before us has waited long enough: no jitter.
                jitter = self._jitter if self.listed else _none
                noted = [self._upsert(item, event.server_time, now, jitter) for item in event.items]
                self.listed = True
                return _together(noted)
            if isinstance(event, Deleted):
                self._known.pop(event.body["metadata"]["name"], None)
                return Noted()
            return self._upsert(event.body, event.server_time, now, self._jitter)

    def live(self) -> tuple[LiveCleanup, ...]:
        """All that is to be swept for."""
        with self._lock:
            return tuple(schedule.live for schedule in self._schedules())

    def waiting(self) -> tuple[int, ...]:
        """Sequences of those that have not been swept for yet."""
        with self._lock:
            return tuple(
                schedule.live.cleanup.sequence
                for schedule in self._schedules()
                if schedule.last_sweep is None
            )

    def refused(self) -> tuple[RefusedCleanup, ...]:
        """All that is in the API and not acted on."""
        with self._lock:
            found = (known.refused for known in self._known.values())
            return tuple(refusal for refusal in found if refusal is not None)

    def next_due(self, pace: Pace, *, now: float) -> float | None:
        """When to sweep next; what is over is forgotten. None: there is nothing to sweep for."""
        with self._lock:
            for known in self._known.values():
                if known.schedule is not None and known.schedule.is_finished(now):
                    known.schedule = None
            return next_sweep(self._schedules(), pace, now=now)

    def ruleset_changed(self, *, now: float) -> None:
        """Note that kube-proxy, or somebody else, changed the node's ruleset."""
        with self._lock:
            for known in self._known.values():
                if known.schedule is not None:
                    known.schedule = known.schedule.changed(now)

    def swept(
        self, lives: Iterable[LiveCleanup], plan: SweepPlan, *, began_at: float, ended_at: float
    ) -> tuple[float, ...]:
        """Note that a whole sweep was made for these, and what its plan left for later.

        Returns:
            For each that had its first one: seconds from the removal to the end of this sweep.
        """
        uids = {live.cleanup.uid for live in lives}
        delays = []
        with self._lock:
            for known in self._known.values():
                schedule = known.schedule
                if schedule is not None and known.uid in uids:
                    if schedule.last_sweep is None:
                        delays.append(ended_at - schedule.live.gone_at)
                    known.schedule = schedule.swept(
                        began_at, held_back=plan.held_back, left_young=plan.left_young
                    )
        return tuple(delays)

    def current(self, condemned: CondemnedEntry) -> CondemnedEntry:
        """Put what is known now in place of what was known when the entry was condemned.

        Its cleanup counts as revoked when it, or this backend of it, is not in the API any more.
        """
        candidate = condemned.candidate
        was = candidate.live
        with self._lock:
            known = self._known.get(was.cleanup.name)
            live = known.schedule.live if known and known.schedule else None
        if live is None or live.cleanup.uid != was.cleanup.uid or not _has(live.cleanup, candidate):
            live = replace(was, revoked=True)
        return replace(condemned, candidate=replace(candidate, live=live))

    def _schedules(self) -> list[SweepSchedule]:
        return [known.schedule for known in self._known.values() if known.schedule is not None]

    def _upsert(
        self, body: Body, server_time: float, now: float, jitter: Callable[[], float]
    ) -> Noted:
        metadata = body["metadata"]
        name, uid = metadata["name"], str(metadata.get("uid", ""))
        known = self._known.get(name)
        if known is not None and known.uid != uid:  # deleted and created again
            known = None
        try:
            cleanup = cleanup_from_wire(body)
            in_api_for = age(body, server_time)
        except CleanupRefused as why:
            return self._refuse(name, uid, why)
        except ValueError as error:
            undated = CleanupRefused(
                reason="MalformedCleanup",
                field="metadata.creationTimestamp",
                value=repr(metadata.get("creationTimestamp")),
                allowed=f"an RFC 3339 moment ({error})",
            )
            return self._refuse(name, uid, undated)
        if known is not None:
            if known.schedule is not None:
                shrunk = _shrunk(known.schedule.live.cleanup, to=cleanup)
                known.schedule = known.schedule.with_cleanup(shrunk) if shrunk.targets else None
            return Noted()
        if not cleanup.is_for(self._node_name):
            self._known[name] = _Known(uid=uid)
            return Noted()
        live = first_seen(cleanup, now=now, in_api_for=in_api_for)
        schedule = SweepSchedule.arrived(live, jitter=jitter(), notified=self._notified())
        self._known[name] = _Known(uid=uid, schedule=schedule)
        return Noted(arrived=(live,))

    def _refuse(self, name: str, uid: str, why: CleanupRefused) -> Noted:
        refusal = RefusedCleanup(name=name, reason=why.reason, message=str(why))
        known = self._known.get(name)
        told = known is not None and known.uid == uid and known.refused == refusal
        self._known[name] = _Known(uid=uid, refused=refusal)
        return Noted() if told else Noted(refused=(refusal,))


def _none() -> float:
    return 0.0


def _has(cleanup: Cleanup, candidate: Candidate) -> bool:
    """Whether the pair that an entry was condemned for is still in the cleanup.

    Asked between the last look at an entry and its delete: a cleanup that nobody edited, which may
    name hundreds of backends, is not searched.
    """
    return cleanup is candidate.live.cleanup or any(
        target.id == candidate.target.id
        and frozenset(candidate.target.frontends) <= frozenset(target.frontends)
        and any(backend.address == candidate.backend.address for backend in target.backends)
        for target in cleanup.targets
    )


def _shrunk(cleanup: Cleanup, *, to: Cleanup) -> Cleanup:
    """Keep what both versions name; only `reused` may be new."""
    edited = {target.id: target for target in to.targets}
    targets = (
        _target_shrunk(target, to=edited[target.id])
        for target in cleanup.targets
        if target.id in edited
    )
    left = tuple(target for target in targets if target.frontends and target.backends)
    return cleanup if left == cleanup.targets else replace(cleanup, targets=left)


def _target_shrunk(target: CleanupTarget, *, to: CleanupTarget) -> CleanupTarget:
    reused = {backend.address: backend.reused for backend in to.backends}
    return replace(
        target,
        frontends=tuple(frontend for frontend in target.frontends if frontend in to.frontends),
        backends=tuple(
            replace(backend, reused=reused[backend.address])
            for backend in target.backends
            if backend.address in reused
        ),
    )


def _together(noted: Iterable[Noted]) -> Noted:
    parts = tuple(noted)
    return Noted(
        arrived=tuple(live for part in parts for live in part.arrived),
        refused=tuple(refusal for part in parts for refusal in part.refused),
    )
