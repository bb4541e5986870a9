"""This node's ConntrackNode: written rarely, by a thread of its own, never a reason to stop.

- When to write is decided in `core/report.py`; here are only the pauses after failures.
- A merge patch of the own status meets no conflict. An object that somebody deleted is made again.
- The object carries the mark of the helper that wrote it last. Another mark than ours means that a
  second helper runs as this node: both find out, and say so.
- What goes wrong here is logged and tried again; sweeping knows nothing of it. Only a name that is
  no Node, or another machine's, ends the program, and only before the first report.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Protocol

from synsweep.cluster.errors import ApiError, ApiRefused, ApiUnavailable
from synsweep.cluster.nodes import Owner
from synsweep.core.fields import BadField
from synsweep.core.report_wire import report_from_wire, report_to_wire
from synsweep.node.discovery import WrongNode, check_identity

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from synsweep.cluster.client import Body
    from synsweep.core.report import RefusedCleanup
    from synsweep.node.discovery import Datapath
    from synsweep.node.record import Record
    from synsweep.observe.metrics import NodeMetrics

logger = logging.getLogger(__name__)

MARK = "synsweep.io/helper"  # annotation: which helper process wrote last
STARTING = 10.0  # seconds that the first report waits for the first sweep
RETRY_FROM, RETRY_TO = 1.0, 30.0  # seconds after a write that failed
LONGEST_WAIT = 5.0  # seconds between two looks at readiness and datapath
SETTLING = 0.2  # seconds between two looks while the helper starts


class Objects(Protocol):
    """The part of `cluster.nodes.ConntrackNodes` that is needed here."""

    def node(self, name: str) -> Body | None:
        """Read the Node."""
        ...

    def get(self, name: str) -> Body | None:
        """Read the ConntrackNode."""
        ...

    def create(self, name: str, *, owner: Owner | None) -> Body:
        """Create the ConntrackNode."""
        ...

    def annotate(self, name: str, annotations: Mapping[str, str]) -> Body:
        """Set annotations of the ConntrackNode."""
        ...

    def patch_status(self, name: str, status: Mapping[str, object]) -> Body:
        """Set the status of the ConntrackNode."""
        ...


class Reporter:
    """The reporting thread.

    Args:
        node_name: of the Node, and so of the ConntrackNode.
        objects: the API server.
        record: what was done.
        datapath: what this node is.
        refused: cleanups that are not acted on.
        not_ready: says what is missing, or None.
        server_now: the API server's clock, seconds since the epoch; None before its first answer.
        clock: monotonic, seconds.
        draw: random numbers from [0, 1).
        mark: of this process, random.
    """

    def __init__(
        self,
        node_name: str,
        *,
        objects: Objects,
        record: Record,
        datapath: Datapath,
        refused: Callable[[], tuple[RefusedCleanup, ...]],
        not_ready: Callable[[], str | None],
        server_now: Callable[[], float | None],
        metrics: NodeMetrics,
        clock: Callable[[], float],
        draw: Callable[[], float],
        mark: str,
    ) -> None:
        self._name = node_name
        self._objects = objects
        self._record = record
        self._datapath = datapath
        self._refused = refused
        self._not_ready = not_ready
        self._server_now = server_now
        self._metrics = metrics
        self._clock = clock
        self._draw = draw
        self._mark = mark
        self._started_at = clock()
        self._adopted = False
        self._begun = False
        self._written = False
        self._failures = 0
        self._retry_at = self._started_at
        self._wakeup = threading.Event()
        self._stopping = False
        record.heard = self.wake

    def run(self) -> None:
        """Write when it is due, until `stop`; then once more what still waits.

        Raises:
            WrongNode: before the first report.
        """
        while not self._stopping:
            self._wakeup.wait(self.step())
            self._wakeup.clear()
        if self._adopted and self._record.has_news():
            self._write()

    def wake(self) -> None:
        """Look at once what is due; from any thread."""
        self._wakeup.set()

    def stop(self) -> None:
        """End `run` after a last report; from any thread."""
        self._stopping = True
        self.wake()

    def step(self) -> float:
        """Write if it is due; returns for how many seconds there is nothing to do.

        Raises:
            WrongNode: before the first report.
        """
        now = self._clock()
        not_ready = self._not_ready()
        if self._datapath.refresh(now=now):
            self._record.trouble()
        if self._written:
            self._record.readiness(not_ready)
        elif self._adopted and not_ready and now < self._started_at + STARTING:
            return SETTLING
        due = max(self._record.due(), self._retry_at)
        if due > now:
            return min(due - now, LONGEST_WAIT)
        self._write()
        return 0.0

    def _write(self) -> None:
        told = self._record.begin()
        try:
            if not self._adopted:
                self._adopt()
                self._record.take_back(told)
                return
            self._patch()
        except ApiError as error:
            self._record.take_back(told)
            self._failed(error)
            return
        self._failures = 0
        self._written = True
        self._metrics.report_writes.labels("written").inc()

    def _adopt(self) -> None:
        """Find the own Node and the own object, or make it; begin where its counters end."""
        node = self._objects.node(self._name)
        if node is None and self._written:
            raise ApiUnavailable(f"there is no Node {self._name} any more")
        if node is None:
            raise WrongNode(f"there is no Node {self._name} in this cluster: --node-name is wrong")
        warning = check_identity(
            node, local_addresses=self._datapath.local_addresses(), boot_id=self._datapath.boot_id
        )
        if warning:
            logger.warning(warning)
        own = self._objects.get(self._name)
        if own is None:
            owner = Owner(name=self._name, uid=node["metadata"]["uid"])
            own = self._objects.create(self._name, owner=owner)
        self._objects.annotate(self._name, {MARK: self._mark})
        self._adopted = True
        if not self._begun:
            self._begin_from(own)

    def _begin_from(self, own: Body) -> None:
        """Go on with the counters of the last helper, once: a second time would double them."""
        self._begun = True
        try:
            self._record.begin_from(report_from_wire(own))
        except BadField as error:
            logger.warning("counters begin at 0: ConntrackNode %s: %s", self._name, error)

    def _patch(self) -> None:
        report = self._record.report(
            self._datapath.facts,
            node_name=self._name,
            not_ready=self._not_ready(),
            refused=self._refused(),
            server_now=self._server_now() or 0.0,
        )
        own = self._objects.patch_status(self._name, report_to_wire(report))
        mark = (own["metadata"].get("annotations") or {}).get(MARK)
        if mark != self._mark:
            self._metrics.second_helper.inc()
            if self._record.found_second_helper():
                logger.error(
                    "another helper writes ConntrackNode %s: two of them run as this node",
                    self._name,
                )
            self._objects.annotate(self._name, {MARK: self._mark})

    def _failed(self, error: ApiError) -> None:
        self._metrics.report_writes.labels("failed").inc()
        if isinstance(error, ApiRefused) and error.not_found and self._adopted:
            logger.info("ConntrackNode %s was deleted, making it again", self._name)
            self._adopted = False
            self._retry_at = self._clock() + SETTLING
            return
        pause = min(RETRY_TO, RETRY_FROM * 2**self._failures)
        self._failures = min(self._failures + 1, 10)
        self._retry_at = self._clock() + pause * (1 + self._draw()) / 2
        logger.warning("cannot report to ConntrackNode %s yet: %s", self._name, error)
