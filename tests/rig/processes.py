"""Processes known by pid and start time, so that a re-used pid is never mistaken for ours."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.rig.commands import SYSTEM_PATH
from tests.rig.errors import RigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.rig.journal import Journal

# The shell waits for one line before it turns into the program: by then the journal knows the pid.
# If we die before that, it reads end of file and ends.
GATE = 'read -r _ || exit 1; exec "$@" </dev/null'

_children: dict[int, subprocess.Popen[str]] = {}  # ours to reap when they end


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One process of this boot."""

    pid: int
    started: int  # clock ticks after boot, field 22 of /proc/PID/stat

    def is_alive(self) -> bool:
        """Say whether it runs; a zombie does not."""
        stat = _stat(self.pid)
        return stat is not None and stat[0] not in "ZX" and int(stat[19]) == self.started

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to exactly this process; nothing happens if it has ended."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            if self.is_alive():  # asked after the handle was opened: it cannot be another's now
                signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            pass
        finally:
            os.close(handle)


def _stat(pid: int) -> list[str] | None:
    """Return the fields of /proc/PID/stat after the name: index 0 is the state."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text[text.rindex(")") + 2 :].split()


def identify(pid: int) -> Process | None:
    """Return the process that has this pid now."""
    stat = _stat(pid)
    return None if stat is None else Process(pid=pid, started=int(stat[19]))


def ourselves() -> Process:
    """Return this very process."""
    me = identify(os.getpid())
    assert me is not None
    return me


def children(pid: int) -> tuple[int, ...]:
    """Return the pids of a process' children."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError):
        return ()
    return tuple(int(word) for word in text.split())


def spawn(name: str, argv: Sequence[str], *, log: Path, journal: Journal) -> Process:
    """Start a long-running program in a session of its own, written down before it runs.

    Args:
        name: what the journal calls it.
        argv: the program and its arguments.
        log: where its output is appended.
        journal: where its pid and start time are noted.

    Raises:
        RigError: it was gone before it began.
    """
    with log.open("ab") as output:
        child = subprocess.Popen(
            ["/bin/sh", "-c", GATE, "sh", *argv],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            cwd="/",
            env={"PATH": SYSTEM_PATH, "HOME": "/", "LANG": "C.UTF-8"},
        )
    _children[child.pid] = child
    process = identify(child.pid)
    if process is None or child.stdin is None:
        raise RigError(f"{name} was gone before it began")
    journal.note("process", name=name, pid=process.pid, started=process.started)
    with child.stdin as gate:
        gate.write("go\n")
    return process


def end(processes: Iterable[Process], *, within: float = 10.0) -> None:
    """Kill them and wait until they are gone.

    Raises:
        RigError: one is still there after `within` seconds.
    """
    targets = tuple(processes)
    for process in targets:
        process.signal(signal.SIGKILL)
    deadline = time.monotonic() + within
    for process in targets:
        while process.is_alive():
            if time.monotonic() > deadline:
                raise RigError(f"process {process.pid} does not end")
            time.sleep(0.02)
        if child := _children.pop(process.pid, None):
            child.wait()
