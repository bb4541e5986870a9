"""Where things are kept, and how progress is told."""

from __future__ import annotations

import fcntl
import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]  # the repository
NETNS = Path("/run/netns")  # where ip(8) keeps named network namespaces


def cache() -> Path:
    """Return the folder for what is built once: binaries and images, and the running clusters."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "synsweep" / "rig"


def state() -> Path:
    """Return the folder with one folder for each cluster that is up, or was left by a crash."""
    return cache() / "state"


def last_logs(name: str) -> Path:
    """Return where the logs of a cluster go when it is taken down."""
    return cache() / "logs" / name


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the lock of that name against other processes; it is let go by the kernel on a crash."""
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def say(line: str) -> None:
    """Tell the person at the terminal, on stderr: stdout is for results."""
    sys.stderr.write(f"rig: {line}\n")
    sys.stderr.flush()
