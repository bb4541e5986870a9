"""What the nodes report: the fold of all ConntrackNodes, read by a list-and-watch of its own."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from synsweep.cluster.listwatch import Deleted, Event, Listed, ListWatch
from synsweep.core.conditions import TRUE, find_condition
from synsweep.core.report_wire import report_from_wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from synsweep.core.flow import IPAddress
    from synsweep.core.report import NodeReport, PolicyCounters

log = logging.getLogger(__name__)

HEARTBEAT = 300.0  # seconds between two writes of a helper without news
SILENT_AFTER = 2 * HEARTBEAT + 60.0
HIGHEST_SEQUENCE = 2**53  # that can be true: no controller ever counts so far
SYN_SENT_SYSCTL = "nf_conntrack_tcp_timeout_syn_sent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reporting:
    """One node's last report and when it came (monotonic seconds)."""

    report: NodeReport
    addresses: frozenset[IPAddress]
    seen_at: float

    def is_ready(self, now: float) -> bool:
        """Whether its helper works, and has said so lately."""
        ready = find_condition(self.report.conditions, "Ready")
        return ready is not None and ready.status == TRUE and now - self.seen_at < SILENT_AFTER

    @property
    def supported(self) -> bool:
        """Whether anything can be done on that node."""
        condition = find_condition(self.report.conditions, "DatapathSupported")
        return condition is None or condition.status != "False"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What happened for one policy since somebody last asked."""

    deleted: Mapping[str, int] = field(default_factory=dict)  # by node, > 0
    found: Mapping[str, int] = field(default_factory=dict)  # by node, dry-run, > 0


class Fleet:
    """All nodes, by name. Thread-safe."""

    def __init__(
        self,
        *,
        on_addresses: Callable[[frozenset[IPAddress]], None],
        clock: Callable[[], float],
    ) -> None:
        self.synced = False
        self._on_addresses = on_addresses
        self._clock = clock
        self._lock = threading.Lock()
        self._nodes: dict[str, Reporting] = {}
        self._former: dict[IPAddress, float] = {}  # addresses of nodes that left, and until when
        self._addresses: frozenset[IPAddress] = frozenset()
        self._tallies: dict[str, Tally] = {}

    def follow(self, watch: ListWatch) -> None:
        """Fold what the API says until the watch is stopped. Runs in a thread of its own."""
        for event in watch.events():
            self.fold(event)

    def fold(self, event: Event) -> None:
        """Take one event."""
        if isinstance(event, Listed):
            for body in event.vanished:
                self._drop(body["metadata"]["name"])
            for body in event.items:
                self._take(body)
            self._tell_addresses()
            self.synced = True
        elif isinstance(event, Deleted):
            self._drop(event.body["metadata"]["name"])
            self._tell_addresses()
        else:
            self._take(event.body)
            self._tell_addresses()

    def nodes(self) -> tuple[Reporting, ...]:
        """All nodes that ever reported and still are in the cluster."""
        with self._lock:
            return tuple(self._nodes.values())

    @property
    def swept_through(self) -> int:
        """The highest sequence that any node has swept for.

        Beyond what can be true a report is not believed: one node could use up all numbers.
        """
        told = (one.report.swept_through for one in self.nodes())
        return max((sequence for sequence in told if sequence <= HIGHEST_SEQUENCE), default=0)

    @property
    def longest_syn_sent(self) -> int:
        """The largest timeout of a half-open entry on any node, in seconds; 0 if none is known."""
        return max((one.report.sysctls.get(SYN_SENT_SYSCTL, 0) for one in self.nodes()), default=0)

    def deleted_entries(self, policy_uid: str) -> int:
        """Entries deleted for that policy, over the nodes present."""
        return sum(
            counters.deleted
            for one in self.nodes()
            for counters in one.report.counters
            if counters.policy_uid == policy_uid
        )

    def take_tally(self, policy_uid: str) -> Tally:
        """What was done for that policy since this was last asked, but nothing before the start."""
        with self._lock:
            return self._tallies.pop(policy_uid, Tally())

    def _take(self, body: Mapping[str, Any]) -> None:
        name = body["metadata"]["name"]
        if not body.get("status"):
            return  # created, not reported yet
        try:
            report = report_from_wire(body)
            addresses = frozenset(ip_address(one) for one in report.addresses)
        except ValueError as error:
            log.warning("ConntrackNode %s: %s; its last report stays", name, error)
            return
        with self._lock:
            before = self._nodes.get(name)
            self._nodes[name] = Reporting(report=report, addresses=addresses, seen_at=self._clock())
            if before is not None or self.synced:
                self._count(name, before.report.counters if before else (), report.counters)

    def _count(
        self, name: str, before: Iterable[PolicyCounters], after: Iterable[PolicyCounters]
    ) -> None:
        """Add what a node did since its last report; a counter that fell began again at 0."""
        known = {counters.policy_uid: counters for counters in before}
        for now in after:
            was = known.get(now.policy_uid)
            deleted = _grown(was.deleted if was else 0, now.deleted)
            found = _grown(was.dry_run if was else 0, now.dry_run)
            tally = self._tallies.get(now.policy_uid, Tally())
            self._tallies[now.policy_uid] = replace(
                tally,
                deleted=_added(tally.deleted, name, deleted),
                found=_added(tally.found, name, found),
            )

    def _drop(self, name: str) -> None:
        with self._lock:
            left = self._nodes.pop(name, None)
            if left is not None:
                until = self._clock() + SILENT_AFTER
                self._former |= dict.fromkeys(left.addresses, until)

    def _tell_addresses(self) -> None:
        """Pass on all addresses, also of nodes that just left: their pods go a little later."""
        now = self._clock()
        with self._lock:
            self._former = {ip: until for ip, until in self._former.items() if until > now}
            addresses = frozenset(self._former).union(
                *(one.addresses for one in self._nodes.values())
            )
            changed = addresses != self._addresses or not self.synced
            self._addresses = addresses
        if changed:
            self._on_addresses(addresses)


def _grown(before: int, after: int) -> int:
    return after - before if after >= before else after


def _added(tally: Mapping[str, int], name: str, number: int) -> Mapping[str, int]:
    return {**tally, name: tally.get(name, 0) + number} if number else tally
