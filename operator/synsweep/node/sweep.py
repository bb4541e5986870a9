"""One pass over the table: list the entries, judge them, delete what is condemned, report.

Everything that may be deleted is decided in `core/staleness.py`; everything that touches the kernel
is behind `conntrack.table.ConntrackTable`. This file only puts the steps in their order:

1. the live cleanups are taken before the listing: a cleanup that comes later gets its own sweep;
2. the listing is judged by the clock from before it, so that a slow dump of a large table passes
   over nothing; what this condemns too early is kept by the second judgement, whose clock is exact;
3. the rate brakes let through what they may; what they hold back is for the next sweep;
4. right before each delete the entry is judged again, against what is known of its cleanup by then;
5. what a dry-run cleanup would delete is reported once per entry, and left alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from synsweep.conntrack.table import ConntrackError
from synsweep.core.report import first_found, report_sweep, swept_through
from synsweep.core.staleness import Context, Deletion, Outcome, judge_again
from synsweep.core.sweep_plan import apply_brakes, book_of, plan_sweep

if TYPE_CHECKING:
    from collections.abc import Callable

    from synsweep.conntrack.table import ConntrackTable
    from synsweep.core.brake import Brakes
    from synsweep.core.flow import ConntrackEntry, FlowTuple, IPAddress
    from synsweep.core.report import SweepReport
    from synsweep.core.staleness import CondemnedEntry, KeepReason, LiveCleanup
    from synsweep.core.sweep_plan import SweepPlan
    from synsweep.node.cleanups import KnownCleanups


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the rule must know of this node; read anew for each sweep."""

    addresses: frozenset[IPAddress]
    syn_sent_timeout: int  # seconds; 0 where the kernel does not tell: then every age is too young


@dataclass(kw_only=True)
class Sweeper:
    """Makes one pass after another; remembers brakes and what was rehearsed, nothing else."""

    table: ConntrackTable
    cleanups: KnownCleanups
    node_name: str
    surroundings: Callable[[], Surroundings]
    brakes: Brakes
    clock: Callable[[], float]  # monotonic, seconds
    cpu_clock: Callable[[], float]  # CPU of the calling thread, seconds
    served: Callable[[float], object]  # hears of each removal: seconds to its first whole sweep
    swept_through: int = 0  # sequence up to which this node has swept
    _rehearsed: frozenset[tuple[int, int, FlowTuple]] = frozenset()

    def sweep(self) -> SweepReport:
        """List, judge, delete, report.

        Raises:
            ConntrackError: the table could not be listed; nothing was deleted.
        """
        began_at, cpu = self.clock(), self.cpu_clock()
        lives = self.cleanups.live()
        book = book_of(lives)
        listing = self.table.entries(among=book.backends)
        context = self._context(began_at)
        plan = plan_sweep(listing.entries, book, context, others=listing.others)
        plan, self.brakes = apply_brakes(plan, self.brakes, now=self.clock())
        deletions = [self._delete(condemned, context) for condemned in plan.condemned]
        deletions += self._rehearse(plan.dry_run)
        self._swept(lives, plan, began_at=began_at)
        return report_sweep(
            plan,
            deletions,
            listed=listing.listed,
            skipped=listing.skipped,
            seconds=self.clock() - began_at,
            cpu_seconds=self.cpu_clock() - cpu,
            swept_through=self.swept_through,
        )

    def _context(self, now: float) -> Context:
        surroundings = self.surroundings()
        return Context(
            now=now,
            node_name=self.node_name,
            node_addresses=surroundings.addresses,
            syn_sent_timeout=surroundings.syn_sent_timeout,
        )

    def _delete(self, condemned: CondemnedEntry, context: Context) -> Deletion:
        def judge(entry: ConntrackEntry) -> KeepReason | None:
            current = self.cleanups.current(condemned)
            return judge_again(current, replace(context, now=self.clock()))(entry)

        try:
            return self.table.delete(condemned, judge)
        except ConntrackError as error:
            return Deletion(condemned=condemned, outcome=Outcome.FAILED, error=str(error))

    def _rehearse(self, dry_run: tuple[CondemnedEntry, ...]) -> list[Deletion]:
        new, self._rehearsed = first_found(dry_run, self._rehearsed)
        return [
            Deletion(condemned=condemned, outcome=Outcome.DRY_RUN, entry=condemned.entry)
            for condemned in new
        ]

    def _swept(self, lives: tuple[LiveCleanup, ...], plan: SweepPlan, *, began_at: float) -> None:
        for delay in self.cleanups.swept(lives, plan, began_at=began_at, ended_at=self.clock()):
            self.served(delay)
        self.swept_through = swept_through(
            self.swept_through,
            swept=(live.cleanup.sequence for live in lives),
            waiting=self.cleanups.waiting(),
        )
