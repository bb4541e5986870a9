"""What the API server tells of cleanups goes into memory, and wakes the sweeping thread."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from synsweep.cluster.listwatch import Event
    from synsweep.node.cleanups import KnownCleanups
    from synsweep.node.loop import SweepLoop
    from synsweep.node.record import Record
    from synsweep.observe.metrics import NodeMetrics

logger = logging.getLogger(__name__)


class Source(Protocol):
    """`cluster.listwatch.ListWatch`."""

    def events(self) -> Iterable[Event]:
        """All that happens, until it is stopped."""
        ...


def follow(
    source: Source,
    *,
    cleanups: KnownCleanups,
    loop: SweepLoop,
    record: Record,
    metrics: NodeMetrics,
    clock: Callable[[], float],
) -> None:
    """Fold in every event until `source` ends; `clock` is monotonic, in seconds."""
    refused = cleanups.refused()
    for event in source.events():
        noted = cleanups.apply(event, now=clock())
        for live in noted.arrived:
            logger.info(
                "a cleanup arrived",
                extra={
                    "cleanup": live.cleanup.name,
                    "policy": live.cleanup.policy,
                    "backends": live.cleanup.backends_total,
                    "gone_for": round(live.arrived_at - live.gone_at, 3),
                },
            )
        for refusal in noted.refused:
            logger.warning(
                "refused ConntrackCleanup %s: %s",
                refusal.name,
                refusal.message,
                extra={"cleanup": refusal.name, "reason": refusal.reason},
            )
            metrics.refused.labels(refusal.reason).inc()
        before, refused = refused, cleanups.refused()
        if refused != before:
            record.trouble()
        loop.wake()
