"""`synsweep node`: the parts are picked and put together here, and ended together.

Four threads: the sweeping one needs nobody; the watching and the reporting one wait for the API
server; the health one answers. A thread that ends by a fault of ours ends the program: better
started again than half alive. All are daemons: nothing that hangs keeps SIGTERM waiting.
"""

from __future__ import annotations

import logging
import os
import random
import select
import signal
import sys
import threading
import time
import uuid
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, ProcessCollector

from synsweep import __version__
from synsweep.cluster.cleanups import Cleanups
from synsweep.cluster.client import Api
from synsweep.cluster.errors import ApiNotConfigured, ApiRefused
from synsweep.cluster.nodes import ConntrackNodes
from synsweep.conntrack import capability
from synsweep.conntrack.addresses import local_addresses
from synsweep.conntrack.netlink import NetlinkTable
from synsweep.conntrack.ruleset import RulesetWatch
from synsweep.conntrack.sysctls import read_sysctls
from synsweep.conntrack.table import ConntrackError
from synsweep.core.brake import Brakes
from synsweep.node.cleanups import KnownCleanups
from synsweep.node.discovery import Datapath, WrongNode, kube_proxy_mode
from synsweep.node.loop import SweepLoop
from synsweep.node.record import Record
from synsweep.node.reporting import Reporter
from synsweep.node.sweep import Surroundings, Sweeper
from synsweep.node.telling import Teller
from synsweep.node.watching import follow
from synsweep.observe.health import AddressInUse, HealthServer
from synsweep.observe.metrics import NodeMetrics

if TYPE_CHECKING:
    from collections.abc import Callable

    from synsweep.node.settings import NodeSettings

logger = logging.getLogger(__name__)

ENDED, UNEXPECTED, USAGE, NO_CONNTRACK, NO_API = 0, 1, 2, 3, 4

# Seconds until a busy thread (a scrape, a long list) lets the sweeping one on: between the last
# look at an entry and its delete that widens the window for an answer. Python's default: 5 ms.
SWITCH_INTERVAL = 0.0005
JITTER = 0.2  # seconds in which the nodes begin their first sweep for a cleanup
LAST_SWEEP_WITHIN = 0.4  # seconds that the end waits for a sweep that is under way,
LAST_REPORT_WITHIN = 0.8  # and then for the last report
SILENT_AFTER = 22.0  # seconds without a word from the API server: longer than a watch takes
SYN_SENT_TIMEOUT = "nf_conntrack_tcp_timeout_syn_sent"


class Ending:
    """The first reason to end, from any thread or signal handler."""

    def __init__(self) -> None:
        self.code: int | None = None
        self._event = os.eventfd(0, os.EFD_CLOEXEC)

    def end(self, code: int) -> None:
        """End the program with this exit code, unless it is ending already."""
        if self.code is None:
            self.code = code
        os.eventfd_write(self._event, 1)

    def wait(self) -> int:
        """Wait for it in the main thread; returns the exit code."""
        select.select((self._event,), (), ())
        return UNEXPECTED if self.code is None else self.code


def run_node(settings: NodeSettings) -> int:
    """Run until SIGTERM or SIGINT; returns the exit code (see cli.py)."""
    ending = Ending()
    # Before all else: to a container's first process a signal that it does not handle never comes.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.end(ENDED))
    sys.setswitchinterval(SWITCH_INTERVAL)
    missing = capability.check()
    if missing is not None:
        logger.error(missing)
        return NO_CONNTRACK
    try:
        helper = _Helper(settings, Api.load(user_agent=f"synsweep-node/{__version__}"))
        helper.health.start()
    except ApiNotConfigured as error:
        logger.error("%s", error)  # noqa: TRY400 - what the user can mend needs no traceback
        return NO_API
    except AddressInUse as error:
        logger.error("%s", error)  # noqa: TRY400
        return UNEXPECTED
    except ConntrackError as error:
        logger.error("%s", error)  # noqa: TRY400
        return NO_CONNTRACK
    return helper.run(ending)


class _Helper:
    """All parts of one helper."""

    def __init__(self, settings: NodeSettings, api: Api) -> None:
        self.settings = settings
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.metrics = NodeMetrics(registry)
        self.record = Record(clock=time.monotonic, draw=random.random)
        self.ruleset = RulesetWatch()
        self.cleanups = KnownCleanups(
            settings.node_name,
            notified=lambda: self.ruleset.seen and self.ruleset.available,
            jitter=lambda: random.random() * JITTER,  # noqa: S311 - spreads the load
        )
        self.datapath = Datapath(
            mode=kube_proxy_mode, sysctls=read_sysctls, addresses=local_addresses
        )
        self.loop = self._make_loop(NetlinkTable(max_stall=settings.max_stall))
        self.watch = Cleanups(api, settings.namespace).watch()
        self.reporter = Reporter(
            settings.node_name,
            objects=ConntrackNodes(api),
            record=self.record,
            datapath=self.datapath,
            refused=self.cleanups.refused,
            not_ready=self._not_ready,
            server_now=api.server_now,
            metrics=self.metrics,
            clock=time.monotonic,
            draw=random.random,
            mark=str(uuid.uuid4()),
        )
        self.health = HealthServer(
            settings.http_address,
            live=self.loop.not_live,
            ready=self._not_ready,
            registry=registry,
        )
        self._gauges()

    def _make_loop(self, table: NetlinkTable) -> SweepLoop:
        sweeper = Sweeper(
            table=table,
            cleanups=self.cleanups,
            node_name=self.settings.node_name,
            surroundings=_surroundings,
            brakes=Brakes(node_rate=float(self.settings.max_deletions_per_second)),
            clock=time.monotonic,
            cpu_clock=time.thread_time,
            served=self.metrics.delay.observe,
        )
        teller = Teller(
            metrics=self.metrics,
            record=self.record,
            syn_sent_timeout=_syn_sent_timeout,
            last_dump=lambda: table.last_dump,
        )
        return SweepLoop(
            sweeper,
            cleanups=self.cleanups,
            ruleset=self.ruleset,
            supported=lambda: self.datapath.supported,
            listener=teller,
            clock=time.monotonic,
        )

    def run(self, ending: Ending) -> int:
        """Start the threads, wait for the end, end them."""
        settings = self.settings
        logger.info(
            "helper %s starts on node %s",
            __version__,
            settings.node_name,
            extra={
                "namespace": settings.namespace,
                "http_address": settings.http_address,
                "kernel": self.datapath.facts.kernel,
                "kube_proxy_mode": self.datapath.facts.kube_proxy_mode.value,
            },
        )
        if settings.allow_reset:
            logger.warning("--allow-reset: this version resets no connection yet")
        sweeping = _start("sweeping", self.loop.run, ending)
        _start("watching", self._follow, ending)
        reporting = _start("reporting", self.reporter.run, ending)
        code = ending.wait()
        self.loop.stop()
        self.watch.stop()
        sweeping.join(LAST_SWEEP_WITHIN)
        self.reporter.stop()  # after the sweep, whose deletions the last report is to tell
        reporting.join(LAST_REPORT_WITHIN)
        self.health.stop()
        logger.info("helper ends")
        return code

    def _follow(self) -> None:
        follow(
            self.watch,
            cleanups=self.cleanups,
            loop=self.loop,
            record=self.record,
            metrics=self.metrics,
            clock=time.monotonic,
        )

    def _not_ready(self) -> str | None:
        not_ready, trouble = self.loop.not_ready(), self.watch.trouble
        if not_ready and trouble:
            return f"{not_ready}: {trouble}"
        # An API server that is away comes back, and meanwhile memory serves; one that refuses may
        # refuse for ever.
        if isinstance(trouble, ApiRefused) and trouble.reason != "Expired":
            return f"the API server refuses to tell of cleanups: {trouble}"
        return not_ready

    def _gauges(self) -> None:
        metrics, watch = self.metrics, self.watch
        metrics.build.labels(__version__).set(1)
        metrics.live_cleanups.set_function(lambda: len(self.cleanups.live()))
        metrics.ruleset_watched.set_function(
            lambda: float(self.ruleset.seen and self.ruleset.available)
        )
        metrics.datapath_supported.set_function(lambda: float(self.datapath.supported))
        metrics.api_reachable.set_function(
            lambda: float(watch.silent_for(time.monotonic()) < SILENT_AFTER)
        )


def _start(name: str, work: Callable[[], None], ending: Ending) -> threading.Thread:
    def guarded() -> None:
        try:
            work()
        except WrongNode as error:
            logger.error("%s", error)  # noqa: TRY400 - what the user can mend needs no traceback
            ending.end(USAGE)
        except Exception:
            logger.exception("the %s thread failed", name)
            ending.end(UNEXPECTED)

    thread = threading.Thread(target=guarded, name=name, daemon=True)
    thread.start()
    return thread


def _surroundings() -> Surroundings:
    return Surroundings(addresses=local_addresses(), syn_sent_timeout=_syn_sent_timeout())


def _syn_sent_timeout() -> int:
    return read_sysctls().get(SYN_SENT_TIMEOUT, 0)
