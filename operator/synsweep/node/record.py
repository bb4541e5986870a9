"""What this helper has done, how it is, and when others want to hear of it.

The sweeping thread writes here, the reporting thread makes reports of it; a lock keeps them apart.
Counters are cumulative over restarts: what this node's own object says at the first contact is
added once. So a report that is lost costs nothing, the next one tells it all.
"""

from __future__ import annotations

import math
import threading
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from synsweep import __version__
from synsweep.core.conditions import FALSE, TRUE, UNKNOWN, Condition, set_condition
from synsweep.core.report import (
    HEARTBEAT,
    News,
    NodeReport,
    PolicyCounters,
    fold_deletions,
    report_due,
)
from synsweep.node.discovery import KubeProxyMode

if TYPE_CHECKING:
    from collections.abc import Callable

    from synsweep.core.report import RefusedCleanup, SweepReport
    from synsweep.node.discovery import NodeFacts

SECOND_HELPER_FOR = 2.2 * HEARTBEAT  # seconds
TROUBLE_WITHIN = 10.0  # seconds in which all nodes tell of something that they all met


class Record:
    """One node's work.

    Args:
        clock: monotonic, seconds.
        draw: random numbers from [0, 1).
    """

    def __init__(self, *, clock: Callable[[], float], draw: Callable[[], float]) -> None:
        self.heard: Callable[[], None] = lambda: None  # called when something waits to be told
        self._clock = clock
        self._draw = draw
        self._lock = threading.Lock()
        self._news = News()
        self._counters: tuple[PolicyCounters, ...] = ()
        self._conditions: tuple[Condition, ...] = ()
        self._swept_through = 0
        self._last_sweep: float | None = None
        self._failure = ""
        self._told_not_ready: str | None = None
        self._second_helper_until = -math.inf

    def swept(self, report: SweepReport) -> None:
        """Note a whole sweep."""
        now = self._clock()
        within = min(
            (
                one.condemned.candidate.live.cleanup.report_within_seconds
                for one in report.deletions
            ),
            default=0,
        )
        with self._lock:
            self._counters = fold_deletions(self._counters, report.deletions)
            self._swept_through = max(self._swept_through, report.swept_through)
            self._last_sweep = now
            self._failure = ""
            self._news = self._news.found(
                report.deletions, now=now, random=self._draw(), within=within
            )
        if report.deletions:
            self.heard()

    def failed(self, why: str) -> None:
        """Note a sweep that the kernel cut short."""
        with self._lock:
            self._failure = why
        self.trouble()

    def trouble(self) -> None:
        """Note that something happened that people must know."""
        now = self._clock()
        with self._lock:
            self._news = self._news.trouble(now=now, random=self._draw(), within=TROUBLE_WITHIN)
        self.heard()

    def found_second_helper(self) -> bool:
        """Note that another helper writes this node's object; returns whether that is new.

        It writes seldom, so it counts as there until nothing was seen of it for a good while.
        """
        now = self._clock()
        with self._lock:
            new = now >= self._second_helper_until
            self._second_helper_until = now + SECOND_HELPER_FOR
        if new:
            self.trouble()
        return new

    def readiness(self, not_ready: str | None) -> None:
        """Note whether the helper is ready: what others were told of it may be wrong by now."""
        with self._lock:
            changed = (self._told_not_ready is None) != (not_ready is None)
        if changed:
            self.trouble()

    def begin_from(self, before: NodeReport) -> None:
        """Add what this node's own object said when this helper started."""
        with self._lock:
            self._counters = _sum(self._counters, before.counters)
            self._swept_through = max(self._swept_through, before.swept_through)
            self._conditions = before.conditions

    def due(self) -> float:
        """When the next report is to be written."""
        with self._lock:
            return report_due(self._news)

    def has_news(self) -> bool:
        """Whether something waits that is no mere heartbeat."""
        with self._lock:
            return self._news.findings_at is not None or self._news.trouble_at is not None

    def begin(self) -> News:
        """Begin a report: what happens from now on belongs into the next. For `take_back`."""
        now = self._clock()
        with self._lock:
            told, self._news = self._news, self._news.written(now)
        return told

    def take_back(self, told: News) -> None:
        """The report was not written: what it told still waits, with what happened meanwhile."""
        with self._lock:
            self._news = self._news.not_written(told)

    def report(
        self,
        facts: NodeFacts,
        *,
        node_name: str,
        not_ready: str | None,
        refused: tuple[RefusedCleanup, ...],
        server_now: float,
    ) -> NodeReport:
        """Put the report together; `server_now` is the API server's clock, for people's times."""
        now = self._clock()
        moment = _rfc3339(server_now)
        with self._lock:
            self._told_not_ready = not_ready
            for condition in (
                self._ready(not_ready, moment, now=now),
                _datapath(facts.kube_proxy_mode, moment),
            ):
                self._conditions = set_condition(self._conditions, condition)
            ago = None if self._last_sweep is None else now - self._last_sweep
            return NodeReport(
                node_name=node_name,
                helper_version=__version__,
                swept_through=self._swept_through,
                last_sweep_time="" if ago is None else _rfc3339(server_now - ago),
                addresses=facts.addresses,
                kernel=facts.kernel,
                kube_proxy_mode=facts.kube_proxy_mode.value,
                sysctls=facts.sysctls,
                conditions=self._conditions,
                counters=self._counters,
                refused=refused,
            )

    def _ready(self, not_ready: str | None, moment: str, *, now: float) -> Condition:
        status, reason, message = TRUE, "Working", "the helper sweeps for every cleanup"
        if now < self._second_helper_until:
            status, reason = FALSE, "SecondHelper"
            message = "another helper writes this object: two of them run as this node"
        elif self._failure:
            status, reason, message = FALSE, "SweepFailed", self._failure
        elif not_ready is not None:
            status, reason, message = FALSE, "NotReady", not_ready
        return Condition(
            type="Ready",
            status=status,
            reason=reason,
            message=message,
            last_transition_time=moment,
        )


def _datapath(mode: KubeProxyMode, moment: str) -> Condition:
    if not mode.supported:
        status, reason = FALSE, mode.value
        message = (
            f"kube-proxy's mode is {mode.value}: Services are no DNAT here, nothing is deleted"
        )
    elif mode is KubeProxyMode.UNKNOWN:
        status, reason = UNKNOWN, "KubeProxySilent"
        message = "kube-proxy does not tell its mode; sweeping goes on"
    else:
        status, reason = TRUE, mode.value
        message = f"kube-proxy's mode is {mode.value}"
    return Condition(
        type="DatapathSupported",
        status=status,
        reason=reason,
        message=message,
        last_transition_time=moment,
    )


def _sum(
    counters: tuple[PolicyCounters, ...], before: tuple[PolicyCounters, ...]
) -> tuple[PolicyCounters, ...]:
    by_uid = {one.policy_uid: one for one in before}
    added = tuple(
        _added(one, by_uid.pop(one.policy_uid, PolicyCounters(policy_uid=one.policy_uid)))
        for one in counters
    )
    return (*added, *by_uid.values())


def _added(one: PolicyCounters, other: PolicyCounters) -> PolicyCounters:
    return replace(
        one,
        deleted=one.deleted + other.deleted,
        already_gone=one.already_gone + other.already_gone,
        failed=one.failed + other.failed,
        dry_run=one.dry_run + other.dry_run,
        kept=one.kept + other.kept,
    )


def _rfc3339(moment: float) -> str:
    return datetime.fromtimestamp(moment, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
