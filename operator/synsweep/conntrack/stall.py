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

from enum import StrEnum
from typing import Final

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


class StallGuard:
    """Keeps the predicted walk under `max_stall` seconds.

    `slowness` is this node's speed against the bench's, learned from the CPU time of its dumps: a
    slower dump counts at once, faster ones little by little.
    """

    def __init__(self, max_stall: float) -> None:
        self.max_stall = max_stall
        self.slowness = CAUTIOUS

    def choose(self, *, entries: int, buckets: int) -> DumpMode:
        """Pick the cheaper way whose walk stays under `max_stall`."""
        if entries <= ONE_DATAGRAM:
            return DumpMode.FILTERED
        fits = self.predict(entries=entries, buckets=buckets) <= self.max_stall
        return DumpMode.FILTERED if fits else DumpMode.STREAMED

    def predict(self, *, entries: int, buckets: int) -> float:
        """Seconds that a filtered dump stalls its CPU when nothing matches."""
        return self.slowness * (buckets * PER_BUCKET + entries * PER_ENTRY)

    def learn(
        self, mode: DumpMode, *, entries: int, copied: int, buckets: int, kernel_seconds: float
    ) -> None:
        """Compare what a dump cost in the kernel with what it costs on the bench.

        `entries` is the size of the table, `copied` how many of them the kernel sent.
        """
        looked_at = entries if mode is DumpMode.FILTERED else 0
        expected = buckets * PER_BUCKET + looked_at * PER_ENTRY + copied * PER_COPY
        if expected <= 0:
            return
        seen = min(kernel_seconds / expected, SLOWEST)
        if seen >= self.slowness:
            self.slowness = seen
        else:
            self.slowness += FORGET * (seen - self.slowness)
