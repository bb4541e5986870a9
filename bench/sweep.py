"""One sweep against conntrack(8): same table, same filter, same run.

    python -m bench.sweep --entries 10000,100000,1000000 --stale 10,1000,10000

Needs root. Makes one private network namespace, fills its table with answered flows and with
half-open ones to a backend that is gone, and prints a table in Markdown:

- **list**: CPU time to find the stale entries: our dump, decoding and judging, against
  `conntrack -L -p tcp --state SYN_SENT -r <backend>` (one family only; ours reads both).
- **sweep**: the same and the deletes, against `conntrack -D` with the same filter. Ours asks for
  each entry again and judges it again before it deletes it.
- **stall**: the longest time that a datagram waited for the sweeping CPU during one listing
  (bench/stall_probe.py), beside the same in as much time without one; and the CPU time of the
  longest call into the kernel, which is what the helper itself goes by.
- **RSS**: peak of a process that has imported the whole node helper and then swept this table.

Ours is measured inside a running process, conntrack(8) from its start: 1 to 2 ms of its CPU time
are that. All figures are medians of `--repeat` runs.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.stall_probe import StallProbe, longest, steer_loopback
from synsweep.conntrack.netlink import NetlinkTable
from synsweep.conntrack.stall import DumpMode
from synsweep.conntrack.sysctls import table_size
from tests.kernel.inject import established, half_open, inject
from tests.kernel.judging import gone, sweep
from tests.kernel.namespaces import GlobalSettings, Namespace

if TYPE_CHECKING:
    from collections.abc import Callable

STALE = gone("10.96.0.10:80", "10.2.0.9:8080")
FILTER = ["-p", "tcp", "--state", "SYN_SENT", "-r", "10.2.0.9"]
RSS_OF_A_HELPER = """
import json, resource, sys
import synsweep.node.run
from synsweep.conntrack.netlink import NetlinkTable
from synsweep.conntrack.stall import DumpMode
from tests.kernel.judging import gone, sweep
what = gone("10.96.0.10:80", "10.2.0.9:8080")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with NetlinkTable(mode=DumpMode(sys.argv[1])) as table:
    deleted = sweep(table, what).deleted
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"deleted": deleted, "imports": before, "peak": after}))
"""


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds."""

    cpu: float
    wall: float

    @staticmethod
    def of(costs: list[Cost]) -> Cost:
        """Medians."""
        return Cost(
            cpu=statistics.median(one.cpu for one in costs),
            wall=statistics.median(one.wall for one in costs),
        )


def measured(work: Callable[[], object], *, children: bool) -> Cost:
    """CPU and wall time of one piece of work, in this process or in its children."""
    who = resource.RUSAGE_CHILDREN if children else resource.RUSAGE_SELF
    before, started = resource.getrusage(who), time.monotonic()
    work()
    wall, after = time.monotonic() - started, resource.getrusage(who)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return Cost(cpu=cpu, wall=wall)


def conntrack(verb: str) -> None:
    """List or delete with the same filter by the other tool."""
    subprocess.run(["conntrack", verb, *FILTER], capture_output=True, check=False)


class Bench:
    """One namespace, filled as asked."""

    def __init__(self, *, entries: int, stale: int, repeat: int, cpus: tuple[int, int]) -> None:
        self.entries, self.stale, self.repeat = entries, stale, repeat
        self.sweeping, self.probing = cpus

    def compare(self) -> list[str]:
        """Measure both ways and conntrack(8); return rows of the result."""
        inject(half_open(self.stale))
        theirs_list = self._cost(lambda: conntrack("-L"), children=True)
        theirs_sweep = self._swept(lambda: conntrack("-D"), children=True)
        default = self._default()
        rows = []
        for mode in DumpMode:
            with NetlinkTable(mode=mode) as table:
                ours_list = self._cost(table.entries, children=False)
                ours_sweep = self._swept(functools.partial(sweep, table, STALE), children=False)
                stall = self._stall(table.entries)
                quiet = self._stall(functools.partial(time.sleep, ours_list.wall))
                assert table.last_dump is not None
                predicted = table.last_dump.stall
            rows.append(
                "| "
                + " | ".join(
                    (
                        f"{self.entries:,}",
                        f"{self.stale:,}",
                        f"**{mode}** (default)" if mode is default else mode,
                        f"{ours_list.cpu * 1e3:.1f} / {theirs_list.cpu * 1e3:.1f}",
                        f"{theirs_list.cpu / ours_list.cpu:.1f}x",
                        f"{theirs_list.wall / ours_list.wall:.1f}x",
                        f"{ours_sweep.cpu * 1e3:.1f} / {theirs_sweep.cpu * 1e3:.1f}",
                        f"{theirs_sweep.cpu / ours_sweep.cpu:.1f}x",
                        f"{theirs_sweep.wall / ours_sweep.wall:.1f}x",
                        f"{stall * 1e3:.1f} ({quiet * 1e3:.1f})",
                        f"{predicted * 1e3:.1f}",
                        f"{self._rss(mode):.0f}",
                    )
                )
                + " |"
            )
        subprocess.run(["conntrack", "-D", *FILTER], capture_output=True, check=False)
        return rows

    def _cost(self, work: Callable[[], object], *, children: bool) -> Cost:
        return Cost.of([measured(work, children=children) for _ in range(self.repeat)])

    def _swept(self, work: Callable[[], object], *, children: bool) -> Cost:
        """Sweep, refill, again."""
        costs = []
        for _ in range(self.repeat):
            costs.append(measured(work, children=children))
            inject(half_open(self.stale))
        return Cost.of(costs)

    def _stall(self, work: Callable[[], object]) -> float:
        """Longest wait for the sweeping CPU in one piece of work, in seconds: median of runs."""
        waits = []
        for _ in range(self.repeat):
            with StallProbe(watched=self.sweeping, from_cpu=self.probing) as probe:
                time.sleep(0.05)
                begin = time.monotonic()
                work()
                end = time.monotonic()
                time.sleep(0.02)
                waits.append(longest(probe.stop(), begin, end))
        return statistics.median(waits)

    def _default(self) -> DumpMode:
        """What the helper would choose here, after it has learned how fast this machine is."""
        with NetlinkTable() as table:
            for _ in range(5):
                table.entries()
            assert table.last_dump is not None
            return table.last_dump.mode

    def _rss(self, mode: DumpMode) -> float:
        """MiB of a helper that swept this table; refills it."""
        done = subprocess.run(
            [sys.executable, "-c", RSS_OF_A_HELPER, mode],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            cwd=os.curdir,
            capture_output=True,
            text=True,
            check=True,
        )
        said = json.loads(done.stdout)
        assert said["deleted"] == self.stale, said
        inject(half_open(self.stale))
        return float(said["peak"]) / 1024


HEADER = """\
| entries | stale | dump | list CPU ms, ours / conntrack -L | CPU ratio | wall ratio \
| sweep CPU ms, ours / conntrack -D | CPU ratio | wall ratio | stall ms (without) \
| longest call ms | RSS MiB |
|---|---|---|---|---|---|---|---|---|---|---|---|"""


def numbers(text: str) -> list[int]:
    """Read `1,2,3`."""
    return [int(one) for one in text.split(",")]


def main() -> None:
    """Measure all sizes."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.sweep",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--entries", type=numbers, default="10000,100000,1000000",
                        help="sizes of the table, by commas")  # fmt: skip
    parser.add_argument("--stale", type=numbers, default="10,1000,10000",
                        help="how many of them are stale, by commas")  # fmt: skip
    parser.add_argument("--repeat", type=int, default=5, help="runs of each measurement")
    options = parser.parse_args()
    cpus = sorted(os.sched_getaffinity(0))
    sweeping, probing = cpus[0], cpus[-1]
    print(
        f"Linux {platform.release()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, "
        f"{table_size().buckets:,} buckets, medians of {options.repeat}\n\n{HEADER}",
        flush=True,
    )
    os.sched_setaffinity(0, {sweeping})
    for entries in options.entries:
        with contextlib.ExitStack() as stack:
            stack.enter_context(GlobalSettings()).make_room(entries + max(options.stale))
            namespace = stack.enter_context(Namespace("bench"))
            stack.enter_context(namespace.entered())
            steer_loopback(sweeping)
            inject(established(entries))
            for stale in options.stale:
                bench = Bench(
                    entries=entries, stale=stale, repeat=options.repeat, cpus=(sweeping, probing)
                )
                print(*bench.compare(), sep="\n", flush=True)


if __name__ == "__main__":
    main()
