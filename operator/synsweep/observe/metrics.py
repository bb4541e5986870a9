"""What the node helper counts. docs/metrics.md has a row for each; a test compares the two.

Prefix `synsweep_`, base units, no IP, pod or node label: the node comes from the scrape. Reasons
are the words of core/ (`KeepReason`, `Outcome`), the same as in logs, status and Events.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge, Histogram

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

# A sweep takes from a millisecond to seconds (a table of a million entries).
SWEEP_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
# The goal is 5 ms.
STALL_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5)
# From a backend's removal to the end of the sweep that served it: the goal is 0.5 s, the limit the
# CNI's cooldown.
DELAY_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 25, 30, 60, 120, 300)


class NodeMetrics:
    """The metrics of `synsweep node`, registered once in `registry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._sweeping(registry)
        self._dumping(registry)
        self._cleanups(registry)
        self._surroundings(registry)

    def _sweeping(self, registry: CollectorRegistry) -> None:
        self.sweeps = Counter("synsweep_sweeps", "Passes over the table.", registry=registry)
        self.sweep_failures = Counter(
            "synsweep_sweep_failures", "Passes that the kernel cut short.", registry=registry
        )
        self.sweep_duration = Histogram(
            "synsweep_sweep_duration_seconds",
            "Wall time of a pass: list, judge, delete.",
            buckets=SWEEP_BUCKETS,
            registry=registry,
        )
        self.sweep_cpu = Counter(
            "synsweep_sweep_cpu_seconds", "CPU time spent on passes.", registry=registry
        )
        self.listed = Counter(
            "synsweep_entries_listed", "Entries that the kernel sent.", registry=registry
        )
        self.skipped = Counter(
            "synsweep_entries_skipped",
            "Entries that could not be decoded and so were never judged.",
            registry=registry,
        )
        self.kept = Counter(
            "synsweep_entries_kept",
            "Entries that were looked at and kept, by the check that kept them.",
            ["reason"],
            registry=registry,
        )
        self.deletions = Counter(
            "synsweep_deletions",
            "Condemned entries, by what became of them.",
            ["outcome"],
            registry=registry,
        )

    def _dumping(self, registry: CollectorRegistry) -> None:
        self.dumps = Counter(
            "synsweep_dumps",
            "Reads of the table: filtered by the kernel, or streamed because it is too large.",
            ["mode"],
            registry=registry,
        )
        self.dump_stall = Histogram(
            "synsweep_dump_stall_seconds",
            "Longest that one read may have held up packets on its CPU.",
            buckets=STALL_BUCKETS,
            registry=registry,
        )
        self.table_entries = Gauge(
            "synsweep_table_entries", "Entries in the table at the last read.", registry=registry
        )

    def _cleanups(self, registry: CollectorRegistry) -> None:
        self.live_cleanups = Gauge(
            "synsweep_live_cleanups", "Cleanups that this node still serves.", registry=registry
        )
        self.refused = Counter(
            "synsweep_cleanups_refused",
            "Cleanups that this node does not understand, by reason.",
            ["reason"],
            registry=registry,
        )
        self.delay = Histogram(
            "synsweep_cleanup_delay_seconds",
            "From a backend's removal to the end of the first sweep that served its cleanup.",
            buckets=DELAY_BUCKETS,
            registry=registry,
        )

    def _surroundings(self, registry: CollectorRegistry) -> None:
        self.ruleset_changes = Counter(
            "synsweep_ruleset_changes",
            "Changes of the node's nf_tables ruleset that were noticed.",
            registry=registry,
        )
        self.ruleset_watched = Gauge(
            "synsweep_ruleset_watched",
            "1 if changes of the ruleset are notified, 0 if sweeps go by the clock alone.",
            registry=registry,
        )
        self.api_reachable = Gauge(
            "synsweep_api_reachable",
            "1 if the last request for cleanups was answered, 0 if this node works from memory.",
            registry=registry,
        )
        self.report_writes = Counter(
            "synsweep_report_writes",
            "Writes of this node's ConntrackNode, by result.",
            ["result"],
            registry=registry,
        )
        self.datapath_supported = Gauge(
            "synsweep_datapath_supported",
            "0 if kube-proxy's mode leaves nothing to delete here (IPVS), else 1.",
            registry=registry,
        )
        self.second_helper = Counter(
            "synsweep_second_helper",
            "Times that another helper was found writing this node's ConntrackNode.",
            registry=registry,
        )
        self.build = Gauge(
            "synsweep_build_info",
            "Always 1; the version is the label.",
            ["version"],
            registry=registry,
        )
