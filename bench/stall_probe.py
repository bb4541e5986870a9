"""How long did packet processing on one CPU stand still?

Runs as a process of its own, pinned to another CPU: sends a datagram over loopback, whose receive
side is steered to the watched CPU (RPS), and waits for it. While that CPU walks the conntrack table
with softirqs off, the datagram waits, too. Prints `moment latency` in seconds of the monotonic
clock, for each that took longer than a tenth of a millisecond, until its standard input closes.
"""

from __future__ import annotations

import os
import selectors
import socket
import subprocess
import sys
import time
from typing import Self

REPORT_FROM = 0.0001


class StallProbe:
    """The probe, run in the current network namespace by another process."""

    def __init__(self, *, watched: int, from_cpu: int) -> None:
        self._watched, self._from_cpu = watched, from_cpu

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.stall_probe", str(self._from_cpu)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()  # it runs
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self.stop()

    def stop(self) -> list[tuple[float, float]]:
        """End it and return (moment of the answer, latency) of what was slow."""
        said, _ = self._process.communicate()
        lines = [line.split() for line in said.splitlines()]
        return [(float(moment), float(latency)) for moment, latency in lines]


def longest(answers: list[tuple[float, float]], begin: float, end: float) -> float:
    """Return the longest latency of a datagram that was under way between two moments."""
    return max(
        (latency for moment, latency in answers if moment >= begin and moment - latency <= end),
        default=0.0,
    )


def steer_loopback(cpu: int) -> None:
    """Let that CPU process what arrives on this namespace's loopback."""
    steer = f"echo {1 << cpu:x} > /sys/class/net/lo/queues/rx-0/rps_cpus"
    mounted = f"mount -t sysfs sysfs /sys && {steer}"  # the one of this namespace
    subprocess.run(["unshare", "--mount", "sh", "-c", mounted], check=True)


def main() -> None:
    """Probe until standard input closes."""
    os.sched_setaffinity(0, {int(sys.argv[1])})
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))  # waits for no other task
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
        selectors.DefaultSelector() as ending,
    ):
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(5)
        sender.connect(receiver.getsockname())
        ending.register(sys.stdin, selectors.EVENT_READ)
        slow = []
        print("running", flush=True)
        while not ending.select(timeout=0.0001):
            sent = time.monotonic()
            sender.send(b"probe")
            receiver.recv(64)
            answered = time.monotonic()
            if answered - sent >= REPORT_FROM:
                slow.append((answered, answered - sent))
    for moment, latency in slow:
        print(f"{moment:.6f} {latency:.6f}")


if __name__ == "__main__":
    main()
