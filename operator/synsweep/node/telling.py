"""Who hears of the sweeps: the log, the metrics and the record that reports are made of."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from synsweep.core.staleness import Outcome
from synsweep.observe.logs import entry_fields

if TYPE_CHECKING:
    from collections.abc import Callable

    from synsweep.conntrack.stall import DumpCost
    from synsweep.conntrack.table import ConntrackError
    from synsweep.core.report import SweepReport
    from synsweep.core.staleness import Deletion
    from synsweep.node.record import Record
    from synsweep.observe.metrics import NodeMetrics

logger = logging.getLogger(__name__)

_LEVELS = {Outcome.FAILED: logging.WARNING}
_WORDS = {
    Outcome.DELETED: "deleted a stale entry",
    Outcome.ALREADY_GONE: "a stale entry had gone by itself",
    Outcome.FAILED: "could not delete a stale entry",
    Outcome.DRY_RUN: "would have deleted a stale entry",
    Outcome.KEPT: "kept an entry that is not stale any more",
}


class Teller:
    """The loop's listener.

    Args:
        metrics: count everything.
        record: what reports are made of.
        syn_sent_timeout: reads the kernel's setting, in seconds, for the ages in the log.
        last_dump: tells what the last read of the table cost, where that is known.
    """

    def __init__(
        self,
        *,
        metrics: NodeMetrics,
        record: Record,
        syn_sent_timeout: Callable[[], int],
        last_dump: Callable[[], DumpCost | None],
    ) -> None:
        self._last_dump = last_dump
        self._metrics = metrics
        self._record = record
        self._syn_sent_timeout = syn_sent_timeout

    def swept(self, report: SweepReport) -> None:
        """Log every deletion, count everything, note it for the report."""
        timeout = self._syn_sent_timeout() if report.deletions else 0  # read once for thousands
        for deletion in report.deletions:
            self._log(deletion, timeout)
            self._metrics.deletions.labels(deletion.outcome.value).inc()
        for reason, count in report.kept.items():
            self._metrics.kept.labels(reason.value).inc(count)
        self._metrics.sweeps.inc()
        self._metrics.sweep_duration.observe(report.seconds)
        self._metrics.sweep_cpu.inc(report.cpu_seconds)
        self._metrics.listed.inc(report.listed)
        self._metrics.skipped.inc(report.skipped)
        cost = self._last_dump()
        if cost is not None:
            self._metrics.dumps.labels(cost.mode.value).inc()
            self._metrics.dump_stall.observe(cost.stall)
            self._metrics.table_entries.set(cost.size.entries)
        self._record.swept(report)
        logger.debug("swept", extra={"listed": report.listed, "seconds": round(report.seconds, 4)})

    def failed(self, why: ConntrackError) -> None:
        """Log, count and note a sweep that the kernel cut short."""
        self._metrics.sweep_failures.inc()
        self._record.failed(str(why))
        logger.error("a sweep failed: %s", why)

    def ruleset_changed(self) -> None:
        """Count a change of the node's ruleset."""
        self._metrics.ruleset_changes.inc()

    def _log(self, deletion: Deletion, syn_sent_timeout: int) -> None:
        condemned = deletion.condemned
        target = condemned.target
        fields = {
            "outcome": deletion.outcome.value,
            "cleanup": condemned.cleanup,
            "policy": condemned.policy,
            "service": f"{target.namespace}/{target.service}",
            "port_name": target.port_name,
            **entry_fields(deletion.entry or condemned.entry, syn_sent_timeout=syn_sent_timeout),
        }
        if deletion.kept is not None:
            fields["kept"] = deletion.kept.value
        if deletion.error:
            fields["error"] = deletion.error
        level = _LEVELS.get(deletion.outcome, logging.INFO)
        logger.log(level, _WORDS[deletion.outcome], extra=fields)
