"""What one listing of the table comes to, before anything is done: whom to delete, whom to keep.

The whole listing is judged into a value, the rate brakes then filter that value, and only what is
left of it is ever given to the table.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from synsweep.core.brake import Admission
from synsweep.core.cleanup import Mode
from synsweep.core.staleness import Candidate, CondemnedEntry, KeepReason, judge

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from synsweep.core.brake import Brakes, Target
    from synsweep.core.flow import Address, ConntrackEntry, FlowTuple
    from synsweep.core.staleness import Context, LiveCleanup

# The later a check comes in the rule, the nearer the entry came to being deleted.
_NEARNESS = {reason: rank for rank, reason in enumerate(KeepReason)}
_BRAKE_REASON = {
    Admission.TARGET_BRAKE: KeepReason.TARGET_BRAKE,
    Admission.NODE_BRAKE: KeepReason.NODE_BRAKE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanupBook:
    """All live cleanups, looked up by the ip:port that an entry's answer would come from."""

    by_backend: Mapping[Address, tuple[Candidate, ...]] = field(default_factory=dict)

    @property
    def backends(self) -> frozenset[Address]:
        """Every backend that is gone."""
        return frozenset(self.by_backend)


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepPlan:
    """Decided, nothing done yet. No entry is in it twice, though a dump may repeat some."""

    condemned: tuple[CondemnedEntry, ...]  # to be deleted
    dry_run: tuple[CondemnedEntry, ...]  # would be, were their policy in earnest
    kept: Mapping[KeepReason, int]  # how many entries for each reason; dry_run counts here too

    @property
    def left_young(self) -> bool:
        """Whether an entry was kept only since it may yet be answered."""
        return KeepReason.TOO_YOUNG in self.kept

    @property
    def held_back(self) -> bool:
        """Whether a brake left something for the next sweep."""
        return KeepReason.TARGET_BRAKE in self.kept or KeepReason.NODE_BRAKE in self.kept


def book_of(lives: Iterable[LiveCleanup]) -> CleanupBook:
    """Make the look-up for one sweep."""
    by_backend: dict[Address, list[Candidate]] = {}
    for live in lives:
        for target in live.cleanup.targets:
            for backend in target.backends:
                candidate = Candidate(live=live, target=target, backend=backend)
                by_backend.setdefault(backend.address, []).append(candidate)
    return CleanupBook(by_backend={address: tuple(found) for address, found in by_backend.items()})


def classify(
    entry: ConntrackEntry, book: CleanupBook, context: Context
) -> CondemnedEntry | KeepReason:
    """Judge one entry against all live cleanups.

    Returns:
        The entry on the account of the first candidate that condemns it; else on that of the first
        dry-run candidate (its mode says so); else the reason of the candidate that it came nearest.
    """
    would_be: CondemnedEntry | None = None
    nearest: KeepReason | None = None
    for candidate in book.by_backend.get(entry.backend, ()):
        reason = judge(entry, candidate, context)
        if reason is None:
            return CondemnedEntry(entry=entry, candidate=candidate)
        if reason is KeepReason.DRY_RUN and would_be is None:
            would_be = CondemnedEntry(entry=entry, candidate=candidate)
        if nearest is None or _NEARNESS[reason] > _NEARNESS[nearest]:
            nearest = reason
    return would_be or nearest or KeepReason.NOT_A_GONE_BACKEND


def plan_sweep(
    entries: Iterable[ConntrackEntry], book: CleanupBook, context: Context, *, others: int = 0
) -> SweepPlan:
    """Judge a whole listing; `others`: half-open entries to backends that are not in the book."""
    condemned: dict[tuple[int, int, FlowTuple], CondemnedEntry] = {}
    dry_run: dict[tuple[int, int, FlowTuple], CondemnedEntry] = {}
    kept: Counter[KeepReason] = Counter()
    for entry in entries:
        verdict = classify(entry, book, context)
        if isinstance(verdict, KeepReason):
            kept[verdict] += 1
        elif verdict.mode is Mode.ENFORCE:
            condemned[flow_key(entry)] = verdict
        else:
            dry_run[flow_key(entry)] = verdict
    if others:
        kept[KeepReason.NOT_A_GONE_BACKEND] += others
    if dry_run:
        kept[KeepReason.DRY_RUN] = len(dry_run)
    return SweepPlan(
        condemned=tuple(condemned.values()), dry_run=tuple(dry_run.values()), kept=dict(kept)
    )


def apply_brakes(plan: SweepPlan, brakes: Brakes, *, now: float) -> tuple[SweepPlan, Brakes]:
    """Let through what the brakes admit; the rest is kept, for the next sweep to delete."""
    answers, after = brakes.admit((_target(one) for one in plan.condemned), now=now)
    kept = Counter(plan.kept)
    kept.update(_BRAKE_REASON[answer] for answer in answers if answer in _BRAKE_REASON)
    condemned = tuple(
        one
        for one, answer in zip(plan.condemned, answers, strict=True)
        if answer is Admission.ADMITTED
    )
    return replace(plan, condemned=condemned, kept=dict(kept)), after


def flow_key(entry: ConntrackEntry) -> tuple[int, int, FlowTuple]:
    """What tells one entry from another: id, zone and reply tuple."""
    return entry.id, entry.zone, entry.reply


def _target(condemned: CondemnedEntry) -> Target:
    target = condemned.target
    return target.namespace, target.service, target.port_name
