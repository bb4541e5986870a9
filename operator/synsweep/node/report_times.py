"""When this node writes its ConntrackNode: rarely, never all nodes at once, and never nothing lost.

- at start;
- after deletions, at a random moment within the time that the cleanup gives, which the controller
  chose so that the whole cluster stays under 50 writes per second;
- after failures and refusals, at most every 10 s;
- else every 5 minutes, a little less, differently on each node;
- after a write that failed, again after a random pause that grows to 30 s.

Times are seconds of the monotonic clock.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

HEARTBEAT = 300.0
TROUBLE_APART = 10.0
RETRY_FROM, RETRY_TO = 1.0, 30.0


class ReportTimes:
    """The next moment to write; `draw` gives random numbers in [0, 1)."""

    def __init__(self, *, now: float, draw: Callable[[], float]) -> None:
        self._draw = draw
        self._due = now
        self._not_before = now
        self._began_at = -math.inf
        self._failures = 0

    def next_due(self) -> float:
        """When to write next."""
        return max(self._due, self._not_before)

    def news(self, *, now: float, within: float) -> None:
        """Something was deleted: others wait to hear of it."""
        self._due = min(self._due, now + self._draw() * within)

    def trouble(self, *, now: float) -> None:
        """Something failed, was refused or changed."""
        self._due = min(self._due, max(now, self._began_at + TROUBLE_APART))

    def began(self, *, now: float) -> None:
        """A report is put together: what happens from now on belongs into the next one."""
        self._began_at = now
        self._due = now + HEARTBEAT * (1 - self._draw() / 10)

    def written(self) -> None:
        """It is in the API."""
        self._failures = 0
        self._not_before = -math.inf

    def failed(self, *, now: float) -> None:
        """It is not: write again, later each time."""
        pause = min(RETRY_TO, RETRY_FROM * 2**self._failures)
        self._failures = min(self._failures + 1, 10)
        self._due = now
        self._not_before = now + pause * (1 + self._draw()) / 2
