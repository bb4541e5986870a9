"""What the controller counts. docs/metrics.md has a row for each; a test compares the two."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge, Histogram

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

# From the event that removed a backend to its cleanup in the API: the goal is half a second.
PUBLISH_BUCKETS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2, 5, 10, 30, 60)


class ControllerMetrics:
    """The metrics of `synsweep controller`, registered once in `registry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._seeing(registry)
        self._writing(registry)

    def _seeing(self, registry: CollectorRegistry) -> None:
        self.backends = Gauge(
            "synsweep_backends", "Backends of all Services in the index.", registry=registry
        )
        self.malformed = Counter(
            "synsweep_objects_malformed",
            "Objects that could not be read and were left as they were, by kind.",
            ["kind"],
            registry=registry,
        )
        self.policies_invalid = Gauge(
            "synsweep_policies_invalid",
            "Policies that are set aside; their last good behaviour stays.",
            registry=registry,
        )
        self.resync_repairs = Counter(
            "synsweep_resync_repairs",
            "Removals and changes that no event told and a list showed, by kind.",
            ["kind"],
            registry=registry,
        )
        self.watch_restarts = Counter(
            "synsweep_watch_restarts",
            "Times that kopf ended and was started again, the index kept.",
            registry=registry,
        )
        self.nodes = Gauge(
            "synsweep_nodes",
            "Node helpers that report, by readiness.",
            ["ready"],
            registry=registry,
        )
        self.build = Gauge(
            "synsweep_build_info",
            "Always 1; the version is the label.",
            ["version"],
            registry=registry,
        )

    def _writing(self, registry: CollectorRegistry) -> None:
        self.published = Counter(
            "synsweep_cleanups_published",
            "Cleanups written to the API, by reason.",
            ["reason"],
            registry=registry,
        )
        self.publish_delay = Histogram(
            "synsweep_cleanup_publish_delay_seconds",
            "From the event that removed a backend to its cleanup in the API.",
            buckets=PUBLISH_BUCKETS,
            registry=registry,
        )
        self.revoked = Counter(
            "synsweep_cleanups_revoked",
            "Times that a cleanup lost targets, because they serve again.",
            registry=registry,
        )
        self.withdrawn = Counter(
            "synsweep_cleanups_withdrawn",
            "Cleanups deleted before their time, because their policy changed or went.",
            registry=registry,
        )
        self.cleanups_in_api = Gauge(
            "synsweep_cleanups_in_api", "Cleanups that are in the API now.", registry=registry
        )
        self.write_failures = Counter(
            "synsweep_api_write_failures",
            "Writes that failed and are tried again, by what the API server did.",
            ["result"],
            registry=registry,
        )
        self.batches_dropped = Counter(
            "synsweep_batches_dropped",
            "Batches that were too old to write and were planned again.",
            registry=registry,
        )
        self.events_dropped = Gauge(
            "synsweep_events_dropped",
            "Events for kubectl describe that were held back or lost since the start.",
            registry=registry,
        )
