"""kopf inside our own event loop: its settings, and what to do when it ends.

Why each setting: a dead watch must be noticed well within the CNI's cooldown (kopf's defaults are
70 s of silence and pauses of 21 s); a finite back-off ends kopf when it is used up; peering would
pause us as soon as somebody's ClusterKopfPeering exists; a scan for new CRDs needs rights that we
do not want, so the CRDs must be there before kopf starts.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import kopf

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from synsweep.observe.metrics_controller import ControllerMetrics

log = logging.getLogger(__name__)

# Left to itself kopf asks for the user's name, and a container's uid has none.
IDENTITY: Any = "synsweep-controller"
RETRY = 0.5  # seconds between two tries of kopf, and before it is started again
SILENCE = 18.0  # a watch is renewed every 15 s
_SAME_LINE_EVERY = 30.0
_NOISY = ("kopf._cogs.clients.watching", "kopf._core.reactor.observation")


class EndlessBackOff:
    """An iterable that can be iterated again and never ends: kopf ends after the last of others."""

    def __iter__(self) -> Iterator[float]:
        """Start anew for each request."""
        return itertools.repeat(RETRY)


class Seldom(logging.Filter):
    """Lets a line pass once per half minute: kopf says each failed attempt of each watch."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._said: dict[str, float] = {}  # in the order of the moments

    def filter(self, record: logging.LogRecord) -> bool:
        """Take lines that differ in numbers only for the same one."""
        line = re.sub(r"\d+", "#", record.getMessage())
        now = self._clock()
        for said, at in tuple(self._said.items()):
            if now - at < _SAME_LINE_EVERY:
                break
            del self._said[said]  # lines that never come again must not pile up
        if line in self._said:
            return False
        self._said[line] = now
        return True


def kopf_settings() -> kopf.OperatorSettings:
    """Settings for a program whose input is removals, and that writes to no object through kopf."""
    settings = kopf.OperatorSettings()
    settings.peering.standalone = True
    settings.scanning.disabled = True
    settings.posting.enabled = False
    settings.watching.server_timeout = 15  # an int: the API server refuses a fraction with 400
    settings.watching.inactivity_timeout = SILENCE
    settings.watching.connect_timeout = 3.0
    settings.watching.chunk_size = 500
    settings.networking.request_timeout = 30.0
    settings.networking.error_backoffs = EndlessBackOff()
    settings.queueing.exit_timeout = 0.5
    settings.process.ultimate_exiting_timeout = None  # else 10 min after a restart: SIGKILL
    return settings


def quieten_kopf() -> None:
    """Keep kopf's log to what a person needs: no line per handled event, few per failing watch."""
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)
    for name in _NOISY:
        logging.getLogger(name).addFilter(Seldom())


async def follow(
    *,
    registry: Callable[[], kopf.OperatorRegistry],
    stopping: asyncio.Event,
    take_signals: Callable[[], None],
    metrics: ControllerMetrics,
) -> None:
    """Run kopf until `stopping`; if it ends by itself it is started again, the index kept.

    Args:
        registry: makes the handlers of one run.
        stopping: ends it.
        take_signals: called after kopf has put its own signal handlers in place of ours.
        metrics: counts restarts.
    """
    while not stopping.is_set():
        others = asyncio.all_tasks()
        try:
            tasks = await kopf.spawn_tasks(
                registry=registry(),
                settings=kopf_settings(),
                identity=IDENTITY,
                clusterwide=True,
                stop_flag=stopping,
            )
            for task in tasks:
                task.add_done_callback(_Clearing(stopping, others | set(tasks)))
            take_signals()
            await kopf.run_tasks(tasks, ignored=others)
        except Exception:  # kopf gives up on what a watch says; a new one may do better
            log.exception("kopf ended")
        if not stopping.is_set():
            metrics.watch_restarts.inc()
            log.warning("kopf ended by itself; starting it again")
            await asyncio.sleep(RETRY)


@dataclass(frozen=True, slots=True)
class _Clearing:
    """When a task of kopf's ends by itself: end its other watches, which it would wait 5 s for."""

    stopping: asyncio.Event
    spared: set[asyncio.Task[Any]]

    def __call__(self, _: asyncio.Task[Any]) -> None:
        if not self.stopping.is_set():
            for task in asyncio.all_tasks() - self.spared:
                task.cancel()
