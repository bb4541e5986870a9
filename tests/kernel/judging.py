"""Core's real delete rule, for tests of the table: which backends are gone, and one sweep."""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING

from synsweep.core.cleanup import (
    Cleanup,
    CleanupReason,
    CleanupTarget,
    Misrouted,
    Mode,
    TargetBackend,
)
from synsweep.core.flow import Address
from synsweep.core.staleness import (
    CondemnedEntry,
    Context,
    Deletion,
    KeepReason,
    LiveCleanup,
    Outcome,
    judge_again,
)
from synsweep.core.sweep_plan import book_of, classify, plan_sweep

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synsweep.conntrack.table import ConntrackTable, Listing
    from synsweep.core.cleanup import Frontend
    from synsweep.core.flow import ConntrackEntry, IPAddress

SYN_SENT_TIMEOUT = 120  # seconds, the kernel's default; of every private namespace


def address(text: str) -> Address:
    """Read `ip:port` or `[ip]:port`."""
    ip, port = text.rsplit(":", 1)
    return Address(ip_address(ip.strip("[]")), int(port))


@dataclass(frozen=True, slots=True, kw_only=True)
class Gone:
    """One target: these backends are gone for these frontends; the pods are being deleted."""

    frontends: tuple[Frontend, ...]
    backends: tuple[Address, ...]
    terminated: bool = True
    mode: Mode = Mode.ENFORCE
    node_addresses: frozenset[IPAddress] = field(default_factory=frozenset)

    def live(self) -> LiveCleanup:
        """Make the cleanup that says so, arrived this very moment."""
        target = CleanupTarget(
            id=0,
            namespace="shop",
            service="cart",
            port_name="http",
            frontends=self.frontends,
            backends=tuple(
                TargetBackend(address=one, terminated=self.terminated) for one in self.backends
            ),
        )
        cleanup = Cleanup(
            name="endpoint-removed-1",
            uid="c",
            policy="cluster-default",
            policy_uid="p",
            sequence=1,
            mode=self.mode,
            misrouted=Misrouted.REPORT,
            reason=CleanupReason.ENDPOINT_REMOVED,
            gone_for_seconds=0.0,
            removed_at="",
            reuse_after_seconds=30,
            sweep_for_seconds=60,
            report_within_seconds=1,
            nodes=(),
            targets=(target,),
        )
        now = time.monotonic()
        return LiveCleanup(cleanup=cleanup, arrived_at=now, gone_at=now, over_at=math.inf)

    def context(self) -> Context:
        """Describe the node now."""
        return Context(
            now=time.monotonic(),
            node_name="node1",
            node_addresses=self.node_addresses,
            syn_sent_timeout=SYN_SENT_TIMEOUT,
        )


def gone(frontend: str | Frontend, *backends: str, **more: object) -> Gone:
    """Shorthand: one frontend, some backends."""
    return Gone(
        frontends=(address(frontend) if isinstance(frontend, str) else frontend,),
        backends=tuple(address(backend) for backend in backends),
        **more,  # type: ignore[arg-type]
    )


def condemn(entry: ConntrackEntry, what: Gone) -> CondemnedEntry:
    """Judge one entry, which must be condemned."""
    verdict = classify(entry, book_of([what.live()]), what.context())
    assert isinstance(verdict, CondemnedEntry), verdict
    return verdict


def keep_reason(entry: ConntrackEntry, what: Gone) -> KeepReason:
    """Judge one entry, which must be kept."""
    verdict = classify(entry, book_of([what.live()]), what.context())
    assert isinstance(verdict, KeepReason), "condemned"
    return verdict


def delete(table: ConntrackTable, condemned: CondemnedEntry, what: Gone) -> Deletion:
    """Delete one condemned entry, judged again by the same rule."""
    return table.delete(condemned, judge_again(condemned, what.context()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """What one sweep did."""

    listing: Listing
    kept: Mapping[KeepReason, int]
    outcomes: Mapping[Outcome, int]
    deletions: tuple[Deletion, ...]

    @property
    def deleted(self) -> int:
        """How many entries the kernel deleted on our word."""
        return self.outcomes.get(Outcome.DELETED, 0)


def sweep(table: ConntrackTable, *what: Gone) -> Swept:
    """List, judge, delete: one pass without brakes."""
    context = what[0].context()
    book = book_of([one.live() for one in what])
    listing = table.entries(among=book.backends)
    plan = plan_sweep(listing.entries, book, context, others=listing.others)
    deletions = tuple(
        table.delete(one, judge_again(one, what[0].context())) for one in plan.condemned
    )
    return Swept(
        listing=listing,
        kept=plan.kept,
        outcomes=Counter(one.outcome for one in deletions),
        deletions=deletions,
    )
