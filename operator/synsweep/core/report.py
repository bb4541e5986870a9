"""What a node tells of its work, and when it tells it.

Rules of this file:

1. Every deletion is counted once: a sweep's report is folded into the counters once, and an entry
   that a dry run finds again in the next sweep is not found anew.
2. A cleanup that found nothing causes no write. What was deleted is told within the cleanup's
   `reportWithinSeconds`, at a random moment, so that a cluster does not write all at once; failures
   at most every 10 s; and a heartbeat after 5 minutes of silence.

Reading and writing the ConntrackNode is in `report_wire`.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from synsweep.core.staleness import Outcome
from synsweep.core.sweep_plan import flow_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from synsweep.core.conditions import Condition
    from synsweep.core.flow import Address, FlowTuple
    from synsweep.core.staleness import CondemnedEntry, Deletion, KeepReason
    from synsweep.core.sweep_plan import SweepPlan

REPORT_FORMAT_VERSION = 1
TROUBLE_APART = 10.0  # seconds
HEARTBEAT = 300.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepReport:
    """One sweep: what was seen, kept and deleted."""

    listed: int  # entries that the kernel sent
    skipped: int  # of them, not understood: never judged, only counted
    kept: Mapping[KeepReason, int]  # in the listing, and when an entry was read again
    deletions: tuple[Deletion, ...]  # of entries that were condemned; dry-run ones the first time
    seconds: float  # from the start of the dump to the last delete
    cpu_seconds: float  # of the sweeping thread
    swept_through: int  # see swept_through()

    def count(self, outcome: Outcome) -> int:
        """How many deletions ended so."""
        return sum(1 for deletion in self.deletions if deletion.outcome is outcome)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyCounters:
    """What this node has done for one policy, over all restarts of the helper."""

    policy_uid: str
    deleted: int = 0
    already_gone: int = 0
    failed: int = 0  # attempts that the kernel refused
    dry_run: int = 0
    kept: int = 0  # condemned, and kept when read again; the reasons are in the metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedCleanup:
    """A cleanup that this node does not act on."""

    name: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """Half-open flows from one frontend to one backend that no live cleanup covers."""

    frontend: Address
    backend: Address
    count: int
    oldest_seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeReport:
    """A ConntrackNode: what this node is and what it did."""

    node_name: str
    node_uid: str = ""  # of the Node, which the object goes with
    format_version: int = REPORT_FORMAT_VERSION
    helper_version: str = ""
    swept_through: int = 0
    last_sweep_time: str = ""  # RFC 3339, for people; "" before the first
    addresses: tuple[str, ...] = ()
    kernel: str = ""
    kube_proxy_mode: str = "Unknown"
    sysctls: Mapping[str, int] = field(default_factory=dict)  # by the kernel's names
    conditions: tuple[Condition, ...] = ()
    counters: tuple[PolicyCounters, ...] = ()  # the policy that was busy last comes first
    refused: tuple[RefusedCleanup, ...] = ()
    suspects: tuple[Suspect, ...] = ()


def report_sweep(
    plan: SweepPlan,
    deletions: Iterable[Deletion],
    *,
    listed: int,
    skipped: int,
    seconds: float,
    cpu_seconds: float,
    swept_through: int,
) -> SweepReport:
    """Put together what the plan kept and what became of what it condemned."""
    done = tuple(deletions)
    kept = Counter(plan.kept)
    kept.update(deletion.kept for deletion in done if deletion.kept is not None)
    return SweepReport(
        listed=listed,
        skipped=skipped,
        kept=dict(kept),
        deletions=done,
        seconds=seconds,
        cpu_seconds=cpu_seconds,
        swept_through=swept_through,
    )


def first_found(
    dry_run: Iterable[CondemnedEntry], before: frozenset[tuple[int, int, FlowTuple]]
) -> tuple[tuple[CondemnedEntry, ...], frozenset[tuple[int, int, FlowTuple]]]:
    """Pick what a dry run has not found in the sweep before.

    Returns:
        The new ones, and the keys of all of this sweep, to be given as `before` to the next.
    """
    found = {flow_key(condemned.entry): condemned for condemned in dry_run}
    new = tuple(condemned for key, condemned in found.items() if key not in before)
    return new, frozenset(found)


def fold_deletions(
    counters: tuple[PolicyCounters, ...], deletions: Iterable[Deletion]
) -> tuple[PolicyCounters, ...]:
    """Add one sweep's deletions; a policy that had some moves to the front."""
    by_uid = {one.policy_uid: one for one in counters}
    news: dict[str, Counter[Outcome]] = {}
    for deletion in deletions:
        news.setdefault(deletion.condemned.policy_uid, Counter())[deletion.outcome] += 1
    busy = tuple(
        _added(by_uid.pop(uid, PolicyCounters(policy_uid=uid)), outcomes)
        for uid, outcomes in news.items()
    )
    return (*busy, *by_uid.values())


def _added(counters: PolicyCounters, outcomes: Mapping[Outcome, int]) -> PolicyCounters:
    return replace(
        counters,
        deleted=counters.deleted + outcomes[Outcome.DELETED],
        already_gone=counters.already_gone + outcomes[Outcome.ALREADY_GONE],
        failed=counters.failed + outcomes[Outcome.FAILED],
        dry_run=counters.dry_run + outcomes[Outcome.DRY_RUN],
        kept=counters.kept + outcomes[Outcome.KEPT],
    )


def swept_through(previous: int, *, swept: Iterable[int], waiting: Iterable[int]) -> int:
    """Say up to which sequence this node has swept for every cleanup that it has seen.

    Args:
        previous: the last answer; it never goes back.
        swept: sequences of the cleanups that have had a sweep.
        waiting: sequences of those that have not.
    """
    reached = max(swept, default=previous)
    first_waiting = min(waiting, default=reached + 1)
    return max(previous, min(reached, first_waiting - 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """What waits to be told. Times are seconds of the node's own monotonic clock."""

    written_at: float | None = None  # the last write of any kind
    findings_at: float | None = None  # when the deletions that wait are to be told
    trouble_at: float | None = None  # when the failures that wait are
    trouble_told_at: float = -math.inf

    def found(
        self, deletions: Iterable[Deletion], *, now: float, random: float, within: float
    ) -> News:
        """Note one sweep's deletions.

        Args:
            deletions: what became of the condemned; that nothing was there any more is no news.
            now: seconds, monotonic.
            random: from [0, 1), drawn anew for each call.
            within: the shortest `reportWithinSeconds` of the cleanups concerned.
        """
        outcomes = {deletion.outcome for deletion in deletions}
        news = self
        if outcomes & {Outcome.DELETED, Outcome.DRY_RUN}:
            waiting = self.findings_at
            at = now + random * within if waiting is None else min(waiting, now + within)
            news = replace(news, findings_at=at)
        if Outcome.FAILED in outcomes:
            news = news.trouble(now=now, random=random, within=within)
        return news

    def trouble(self, *, now: float, random: float, within: float) -> News:
        """Note something that people must know: a failure, a refused cleanup, a condition."""
        if self.trouble_at is not None:
            return self
        at = max(now + random * within, self.trouble_told_at + TROUBLE_APART)
        return replace(self, trouble_at=at)

    def written(self, now: float) -> News:
        """Note that a report with all of it was written."""
        told_at = self.trouble_told_at if self.trouble_at is None else now
        return News(written_at=now, trouble_told_at=told_at)

    def not_written(self, told: News) -> News:
        """Undo `written`: what was `told` waits again, together with what came since."""
        return replace(
            told,
            findings_at=_earlier(told.findings_at, self.findings_at),
            trouble_at=_earlier(told.trouble_at, self.trouble_at),
        )


def _earlier(one: float | None, other: float | None) -> float | None:
    return min((at for at in (one, other) if at is not None), default=None)


def report_due(news: News) -> float:
    """Say when the next report is to be written: at once (-inf) if there was none yet."""
    if news.written_at is None:
        return -math.inf
    moments = (news.findings_at, news.trouble_at, news.written_at + HEARTBEAT)
    return min(at for at in moments if at is not None)
