"""`synsweep controller`: which parts there are, which thread runs each, and how it all ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from synsweep import __version__
from synsweep.cluster.audit import Recorder
from synsweep.cluster.cleanups import Cleanups
from synsweep.cluster.client import Api
from synsweep.cluster.errors import ApiError, ApiNotConfigured
from synsweep.cluster.metadata import missing_kinds
from synsweep.cluster.nodes import ConntrackNodes, DaemonSets
from synsweep.cluster.policies import Policies
from synsweep.controller.count import Count
from synsweep.controller.fleet import Fleet
from synsweep.controller.following import follow, quieten_kopf
from synsweep.controller.handlers import register
from synsweep.controller.inbox import Inbox
from synsweep.controller.ledger import Ledger
from synsweep.controller.publishing import Clocks, Publishing
from synsweep.controller.reporting import Outlets, Reporting
from synsweep.controller.resync import Resync
from synsweep.controller.revoking import Revoking
from synsweep.controller.tidying import Tidying
from synsweep.controller.view import View
from synsweep.controller.writing import Guarded, Sight, Writer
from synsweep.observe.health import AddressInUse, HealthServer
from synsweep.observe.metrics_controller import ControllerMetrics

if TYPE_CHECKING:
    from collections.abc import Callable

    from synsweep.controller.settings import ControllerSettings

log = logging.getLogger(__name__)

EXIT_OK = 0
EXIT_UNEXPECTED = 1
EXIT_NO_API = 4

KINDS = ("conntrackpolicies", "conntrackcleanups", "conntracknodes")
CRD_LOOK = 1.0  # seconds
CRD_SAY = 30.0
SILENT = 20.0  # seconds: watches are renewed every 17 s at the latest
STUCK = 30.0  # seconds without a turn of the event loop
LAST_WORDS = 1.0  # seconds for Events that wait


def run_controller(settings: ControllerSettings) -> int:
    """Run until SIGTERM or SIGINT; returns the exit code."""
    try:
        api = Api.load(user_agent=f"synsweep-controller/{__version__}")
    except ApiNotConfigured as error:
        log.error("%s", error)  # noqa: TRY400  # the message says it all
        return EXIT_NO_API
    quieten_kopf()
    try:
        return asyncio.run(Controller(settings, api).main())
    except AddressInUse as error:
        log.error("%s", error)  # noqa: TRY400
        return EXIT_UNEXPECTED


class Controller:
    """All parts of one process, wired."""

    def __init__(self, settings: ControllerSettings, api: Api) -> None:
        registry = CollectorRegistry()
        self._api = api
        self._clock = time.monotonic
        self._stopping = threading.Event()
        self._beat = self._clock()
        self._phase = "waiting for the CustomResourceDefinitions"
        self._exit_code = EXIT_OK
        self.metrics = ControllerMetrics(registry)
        self.metrics.build.labels(version=__version__).set(1)
        self.inbox = Inbox()
        self.view = View(inbox=self.inbox, metrics=self.metrics, clock=self._clock)
        self.ledger = Ledger(clock=self._clock)
        self.fleet = Fleet(on_addresses=self.view.set_node_addresses, clock=self._clock)
        cleanups = Cleanups(api, settings.namespace)
        self._watches = cleanups.watch(), ConntrackNodes(api).watch()
        self._recorder = Recorder(api, component="controller", instance=socket.gethostname())
        self._resync = Resync(
            view=self.view,
            api=api,
            every=settings.resync_every,
            metrics=self.metrics,
            stopping=self._stopping,
            clock=self._clock,
        )
        self._writer = self._make_writer(settings, cleanups)
        self.health = HealthServer(
            settings.http_address, live=self.live, ready=self.ready, registry=registry
        )

    def live(self) -> str | None:
        """Only a stuck event loop is a reason to be restarted: the index would be lost."""
        silent = self._clock() - self._beat
        return f"the event loop is stuck for {silent:.0f} s" if silent > STUCK else None

    def ready(self) -> str | None:
        """Whether everything is listed and the API server answers."""
        if self._phase:
            return self._phase
        if not self.view.filled:
            return "listing Services and EndpointSlices"
        silent = max(watch.silent_for(self._clock()) for watch in self._watches)
        if silent > SILENT:
            return f"no word from the API server for {silent:.0f} s"
        return None

    async def main(self) -> int:
        """Wait for the CRDs, follow the cluster, end in good order."""
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()

        def take_signals() -> None:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, stopping.set)

        def fail() -> None:
            self._exit_code = EXIT_UNEXPECTED
            loop.call_soon_threadsafe(stopping.set)

        take_signals()
        self.health.start()
        beating = asyncio.create_task(self._keep_beating())
        crds_there = asyncio.Event()
        self._start(
            lambda: self._wait_for_crds(lambda: loop.call_soon_threadsafe(crds_there.set)),
            name="crds",
            fail=fail,
        )
        try:
            if await _first(crds_there, stopping) is crds_there:
                self._phase = ""
                self._start_threads(fail)
                await follow(
                    registry=lambda: register(self.view, self._api),
                    stopping=stopping,
                    take_signals=take_signals,
                    metrics=self.metrics,
                )
        finally:
            beating.cancel()
            self._stop()
        log.info("stopped")
        return self._exit_code

    def _make_writer(self, settings: ControllerSettings, cleanups: Cleanups) -> Writer:
        sight = Sight(view=self.view, ledger=self.ledger, fleet=self.fleet)
        clocks = Clocks(now=self._clock, wall_now=self._wall_now)
        instructions = Guarded(instructions=cleanups, holds=_always, clock=self._clock)
        count = Count(
            DaemonSets(self._api),
            namespace=settings.namespace,
            fleet=self.fleet,
            clock=self._clock,
        )
        publishing = Publishing(
            sight=sight,
            instructions=instructions,
            settings=settings,
            metrics=self.metrics,
            nodes_total=count.last_known,
            clocks=clocks,
        )
        outlets = Outlets(
            policies=Policies(self._api),
            recorder=self._recorder,
            count=count,
            metrics=self.metrics,
        )
        return Writer(
            inbox=self.inbox,
            sight=sight,
            jobs=(
                Revoking(sight=sight, instructions=instructions, metrics=self.metrics),
                publishing,
                Tidying(
                    sight=sight,
                    instructions=instructions,
                    keep_for=settings.keep_for,
                    metrics=self.metrics,
                ),
                Reporting(
                    sight=sight,
                    outlets=outlets,
                    last_cleanup=publishing.last_cleanup,
                    clocks=clocks,
                ),
            ),
            metrics=self.metrics,
            holds=_always,
            clock=self._clock,
        )

    def _wall_now(self) -> str:
        """RFC 3339, by the API server's clock."""
        moment = datetime.fromtimestamp(self._api.server_now() or 0.0, tz=UTC)
        return moment.strftime("%Y-%m-%dT%H:%M:%SZ")

    def _wait_for_crds(self, there: Callable[[], object]) -> None:
        """Wait without end: whoever installs us may apply the CRDs a little later."""
        said_at = self._clock() - CRD_SAY
        while not self._stopping.wait(0.0):
            try:
                missing = missing_kinds(self._api, KINDS)
                trouble = f"the API server does not serve {', '.join(missing)} of synsweep.io yet"
                if not missing:
                    there()
                    return
            except ApiError as error:
                trouble = f"cannot ask for the kinds of synsweep.io: {error}"
            self._phase = trouble
            if self._clock() - said_at >= CRD_SAY:
                said_at = self._clock()
                log.warning("%s; waiting (kubectl apply -k crds)", trouble)
            self._stopping.wait(CRD_LOOK)

    def _start_threads(self, fail: Callable[[], None]) -> None:
        cleanups, nodes = self._watches
        self._recorder.start()
        self._start(lambda: self.ledger.follow(cleanups), name="cleanups", fail=fail)
        self._start(lambda: self.fleet.follow(nodes), name="nodes", fail=fail)
        self._start(self._resync.run, name="resync", fail=fail)
        self._start(self._writer.run, name="writer", fail=fail)

    def _start(self, what: Callable[[], None], *, name: str, fail: Callable[[], None]) -> None:
        """Run it in a daemon thread; a bug that ends it ends the process, for a fresh start."""

        def run() -> None:
            try:
                what()
            except Exception:
                log.exception("thread %s ended", name)
                fail()

        threading.Thread(target=run, name=name, daemon=True).start()

    def _stop(self) -> None:
        self._stopping.set()
        for watch in self._watches:
            watch.stop()
        self.inbox.close()
        self._resync.stop()
        self._recorder.stop(within=LAST_WORDS)
        self.health.stop()

    async def _keep_beating(self) -> None:
        while True:
            self._beat = self._clock()
            await asyncio.sleep(1.0)


def _always(now: float) -> bool:
    """One replica: it may always write."""
    del now
    return True


async def _first(*events: asyncio.Event) -> asyncio.Event:
    """Wait for any of the events."""
    waiting = {asyncio.create_task(event.wait()): event for event in events}
    done, pending = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    return waiting[done.pop()]
