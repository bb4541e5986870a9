"""Private network namespaces that this process can step into."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Self, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterator

CLONE_NEWNET = 0x4000_0000
NETFILTER = Path("/proc/sys/net/netfilter")
LOCK = Path(tempfile.gettempdir(), "synsweep-kernel-settings.lock")
LIBC = ctypes.CDLL(None, use_errno=True)


def run(*argv: str, given: str | None = None) -> str:
    """Run a command and return what it printed; a failure shows what it said."""
    done = subprocess.run(argv, input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def set_namespace(descriptor: int) -> None:
    """Move the calling thread into a network namespace."""
    if LIBC.setns(descriptor, CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class Namespace:
    """One network namespace, with loopback up. A context manager: leaving it removes it."""

    def __init__(self, name: str) -> None:
        self.name = f"ssk-{os.getpid()}-{name}"
        run("ip", "netns", "add", self.name)
        self.ip("link", "set", "lo", "up")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def remove(self) -> None:
        """Remove it; what runs in it keeps it alive until it ends."""
        subprocess.run(["ip", "netns", "del", self.name], capture_output=True, check=False)

    def ip(self, *argv: str) -> str:
        """Call the ip command for it."""
        return run("ip", "-n", self.name, *argv)

    def run(self, *argv: str, given: str | None = None) -> str:
        """Run a command in it."""
        return run("ip", "netns", "exec", self.name, *argv, given=given)

    def sysctl(self, name: str, value: int | str) -> None:
        """Set one of its sysctls, in dots."""
        with self.entered():
            Path("/proc/sys", *name.split(".")).write_text(str(value), encoding="ascii")

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Be in it: sockets that are opened here stay here."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        there = os.open(f"/run/netns/{self.name}", os.O_RDONLY)
        try:
            set_namespace(there)
            try:
                yield
            finally:
                set_namespace(home)
        finally:
            os.close(there)
            os.close(home)


def remove_leftovers() -> None:
    """Remove the namespaces of runs that were killed."""
    for name in Path("/run/netns").glob("ssk-*-*"):
        if not Path("/proc", name.name.split("-")[1]).exists():
            subprocess.run(["ip", "netns", "del", name.name], capture_output=True, check=False)


class GlobalSettings:
    """Conntrack settings that all namespaces share; leaving it puts back what it changed.

    The kernel lets them be set from the first namespace only: so before stepping into another. Two
    processes that set them wait for each other; what one that was killed left behind is put back by
    the next.
    """

    def __init__(self) -> None:
        self._before: dict[str, int] = {}
        self._journal: TextIO | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._journal is not None:
            self._put_back(self._journal)
            self._journal.close()

    def set(self, name: str, value: int) -> None:
        """Set one, such as nf_conntrack_max; the first one waits for its turn."""
        if self._journal is None:
            self._journal = LOCK.open("a+", encoding="ascii")
            fcntl.flock(self._journal, fcntl.LOCK_EX)
            self._journal.seek(0)
            self._before = json.loads(self._journal.read() or "{}")
            self._put_back(self._journal)
        if name not in self._before:
            self._before[name] = int((NETFILTER / name).read_text(encoding="ascii"))
            self._note(self._journal)
        (NETFILTER / name).write_text(str(value), encoding="ascii")

    def _put_back(self, journal: TextIO) -> None:
        for name, value in self._before.items():
            (NETFILTER / name).write_text(str(value), encoding="ascii")
        self._before = {}
        self._note(journal)

    def _note(self, journal: TextIO) -> None:
        journal.truncate(0)
        journal.write(json.dumps(self._before) if self._before else "")
        journal.flush()

    def make_room(self, entries: int) -> None:
        """Raise the table's limit, if it is too low for so many."""
        needed = entries + 100_000
        if int((NETFILTER / "nf_conntrack_max").read_text(encoding="ascii")) < needed:
            self.set("nf_conntrack_max", needed)
