"""Filtered dump or streamed dump: which one keeps packet processing going?

A dump walks the table with softirqs off on its CPU until a datagram is full
(`ctnetlink_dump_table`, net/netfilter/nf_conntrack_netlink.c). Filtered, little fits the filter, so
one walk goes over the whole table: cheap, but the CPU forwards no packet meanwhile. Unfiltered
("streamed"), a datagram is full after some 140 entries, so each walk is short, but every entry is
copied: four to five times the CPU. So: filtered while the walk is short enough, streamed above.

The walk costs per bucket (also empty ones, and the hash is shared by all network namespaces) and
per entry. The constants are from bench/sweep.py on a quiet machine; each dump tells how much slower
this node is, and the choice follows.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from synsweep.conntrack.sysctls import TableSize

PER_BUCKET: Final = 13e-9  # seconds to pass one bucket of the hash
PER_ENTRY: Final = 120e-9  # seconds to look at one entry and not to send it
PER_COPY: Final = 600e-9  # seconds to put one entry into a datagram
ONE_DATAGRAM: Final = 17  # entries in a narrow one; a smaller table is one walk in either way
SPARSE: Final = 10_000  # entries; up to here narrow datagrams keep the streamed walk short
CAUTIOUS: Final = 2.0  # how slow a node is taken to be before its first dump
SLOWEST: Final = 50.0
FORGET: Final = 0.2  # share of a faster dump in the new estimate; a slower one counts in full


class DumpMode(StrEnum):
    """How the table is read; a label of metrics."""

    FILTERED = "filtered"
    STREAMED = "streamed"


@dataclass(frozen=True, slots=True, kw_only=True)
class DumpCost:
    """What one dump was like: for the metrics, and to learn from.

    `stall` is the CPU time of the longest single call into the kernel, in seconds: an upper bound
    of how long packet processing on that CPU waited for the walk. `seconds` is wall time.
    """

    mode: DumpMode
    size: TableSize
    copied: int  # entries that the kernel sent
    seconds: float
    stall: float
    kernel_seconds: float  # CPU time of all calls


class StallGuard:
    """Keeps the predicted walk under `max_stall` seconds.

    `slowness` is this node's speed against the bench's, learned from the CPU time of its dumps: a
    slower dump counts at once, faster ones little by little.
    """

    def __init__(self, max_stall: float) -> None:
        self.max_stall = max_stall
        self.slowness = CAUTIOUS

    def choose(self, size: TableSize) -> DumpMode:
        """Pick the cheaper way whose walk stays under `max_stall`."""
        if size.entries <= ONE_DATAGRAM or self.predict(size) <= self.max_stall:
            return DumpMode.FILTERED
        return DumpMode.STREAMED

    def predict(self, size: TableSize) -> float:
        """Seconds that a filtered dump stalls its CPU when nothing matches."""
        return self.slowness * (size.buckets * PER_BUCKET + size.entries * PER_ENTRY)

    def learn(self, cost: DumpCost) -> None:
        """Compare what a dump cost in the kernel with what it would have cost on the bench."""
        looked_at = cost.size.entries if cost.mode is DumpMode.FILTERED else 0
        expected = cost.size.buckets * PER_BUCKET + looked_at * PER_ENTRY + cost.copied * PER_COPY
        if expected <= 0:
            return
        seen = min(cost.kernel_seconds / expected, SLOWEST)
        if seen >= self.slowness:
            self.slowness = seen
        else:
            self.slowness += FORGET * (seen - self.slowness)
