"""We are not alone at the table: others delete, refill, resize and fill it up meanwhile."""

from __future__ import annotations

import contextlib
import random
import subprocess
import threading
import time
from typing import TYPE_CHECKING

import pytest

from synsweep.conntrack.netlink import NetlinkTable
from synsweep.conntrack.stall import DumpMode
from synsweep.conntrack.sysctls import table_size
from synsweep.core.staleness import Outcome
from tests.kernel import sizes
from tests.kernel.inject import established, half_open, inject
from tests.kernel.judging import address, gone, sweep
from tests.kernel.lab import FRONTEND, LIVE, Lab, is_connected, reset, settled
from tests.kernel.namespaces import GlobalSettings, Namespace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.kernel

STALE = gone("10.96.0.10:80", "10.2.0.9:8080")
LIVE_BACKEND = address("10.2.0.2:8080")


@contextlib.contextmanager
def meanwhile(namespace: Namespace, work: Callable[[], None]) -> Iterator[None]:
    """Repeat something in a thread of that namespace until the block ends."""
    stop = threading.Event()
    failures: list[BaseException] = []

    def repeat() -> None:
        try:
            with namespace.entered():
                while not stop.is_set():
                    work()
        except BaseException as error:  # noqa: BLE001 - shown below
            failures.append(error)

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    assert not failures, failures


def test_conntrack_deletes_beside_us_and_every_entry_is_counted_once(
    namespace: Namespace, table: NetlinkTable
) -> None:
    count = sizes.RIVAL_ROUNDS
    inject(half_open(count))
    theirs: list[str] = []

    def rival() -> None:  # gives up at the first entry that we took from under its hands
        done = subprocess.run(
            ["conntrack", "-D", "-p", "tcp", "--state", "SYN_SENT", "-r", "10.2.0.9"],
            capture_output=True,
            text=True,
            check=False,
        )
        theirs.extend(done.stdout.splitlines())

    with meanwhile(namespace, rival):
        swept = sweep(table, STALE)
        assert settled(lambda: table.entries().entries == ())
    assert set(swept.outcomes) <= {Outcome.DELETED, Outcome.ALREADY_GONE}
    assert swept.deleted + len(theirs) == count


def test_a_flow_that_is_deleted_and_created_again_beside_us_lives(
    lab: Lab, table: NetlinkTable
) -> None:
    (server,) = lab.serve(LIVE)
    lab.translate((FRONTEND, LIVE))
    what = gone(FRONTEND, LIVE)
    lab.drop(lab.backends, "tcp flags & (syn | ack) == (syn | ack)")
    first = lab.connect(FRONTEND, source_port=42000)
    lab.wait_for_entries(table)
    listing = table.entries()
    reset([first])
    lab.node.run("conntrack", "-D", "-p", "tcp")
    lab.drop(lab.backends, "")
    second = lab.connect(FRONTEND, source_port=42000)
    assert settled(lambda: is_connected(second))

    class Listed:
        """The table, with the listing of a moment ago."""

        delete = table.delete

        @staticmethod
        def entries(*, among: object) -> object:
            assert among
            return listing

    swept = sweep(Listed(), what)  # type: ignore[arg-type]
    assert swept.outcomes == {Outcome.KEPT: 1}
    second.settimeout(5)
    lab.accept(server).send(b"alive")
    assert second.recv(64) == b"alive"


def test_flows_answered_between_list_and_delete_live(lab: Lab, table: NetlinkTable) -> None:
    lab.serve(LIVE)
    lab.translate((FRONTEND, LIVE))
    what = gone(FRONTEND, LIVE, terminated=False)  # its pod lives on: older than 1 s only
    random.seed(1)
    clients, deleted = [], 0
    for _ in range(sizes.ANSWERED_ROUNDS):
        clients.append(lab.connect(FRONTEND))
        time.sleep(random.random() / 500)
        deleted += sweep(table, what).deleted
    assert deleted == 0
    assert settled(lambda: all(is_connected(client) for client in clients))


def test_a_churning_table_is_clean_after_the_next_sweep(namespace: Namespace) -> None:
    rounds = iter(range(1_000_000))

    def churn() -> None:
        first = 100_000 + next(rounds) % 50 * 2_000
        with contextlib.suppress(OSError):
            inject(established(2_000, first=first))
        subprocess.run(
            ["conntrack", "-D", "-p", "tcp", "-s", f"10.128.0.{first // 50_000}"],
            capture_output=True,
            check=False,
        )

    inject(established(5_000))
    deadline = time.monotonic() + sizes.CHURN_SECONDS
    stale = 0
    with meanwhile(namespace, churn), NetlinkTable() as table:
        while time.monotonic() < deadline:
            inject(half_open(50, first=stale))
            stale += 50
            time.sleep(0.03)
            sweep(table, STALE)
            sweep(table, STALE)
            assert table.entries().entries == ()
    assert stale > 0


@pytest.mark.parametrize("mode", list(DumpMode))
def test_a_resize_in_mid_dump_loses_nothing_for_good(
    shared: GlobalSettings, mode: DumpMode
) -> None:
    buckets = table_size().buckets
    go, stop = threading.Event(), threading.Event()
    resizes = 0

    def resize() -> None:
        nonlocal resizes
        go.wait()
        while not stop.is_set():
            for size in (buckets // 2, buckets):
                shared.set("nf_conntrack_buckets", size)
                resizes += 1

    resizer = threading.Thread(target=resize)
    resizer.start()  # here, for only the first namespace may
    with contextlib.ExitStack() as stack:
        namespace = stack.enter_context(Namespace("resize"))
        stack.callback(resizer.join)
        stack.callback(stop.set)
        stack.callback(go.set)
        stack.enter_context(namespace.entered())
        table = stack.enter_context(NetlinkTable(mode=mode))
        inject(established(5_000))
        stale = 0
        go.set()
        while resizes < 6:
            inject(half_open(100, first=stale))
            stale += 100
            assert sum(sweep(table, STALE).deleted for _ in range(5)) == 100
        stop.set()
        resizer.join()
        found = table.entries(frozenset({LIVE_BACKEND})).entries
        assert len(found) == 5_000
        assert all(one.seen_reply for one in found)


@pytest.mark.timeout(300)
def test_a_full_table_is_listed_and_cleaned(shared: GlobalSettings) -> None:
    # Filled up to the usual limit: all namespaces share it, so a low one would hit others, too.
    maximum = 262_144
    shared.set("nf_conntrack_max", maximum)
    with Namespace("full") as namespace, namespace.entered(), NetlinkTable() as table:
        inject(half_open(1_000))
        with pytest.raises(OSError, match="refused"):
            inject(established(maximum))
        found = table.entries()
        full = len(found.entries)
        assert 0 < full <= 1_000
        swept = sweep(table, STALE)
        # A full table evicts unanswered entries by itself, too.
        assert set(swept.outcomes) <= {Outcome.DELETED, Outcome.ALREADY_GONE}
        assert swept.deleted > 0
        assert table.entries().entries == ()
