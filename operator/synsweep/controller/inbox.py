"""What the writer thread is woken for: no instructions, only that something is to be looked at.

Everything is level-triggered: a note says when to look at the index, never what is in it.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Notes:
    """What came since the last look. `gone_since`: monotonic moment of the oldest removal."""

    gone_since: float | None = None
    back: bool = False  # something serves again: live cleanups may have to lose it
    policies: bool = False  # a policy came, changed or went


class Inbox:
    """Notes from kopf's loop and the watching threads to the one writer."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._notes = Notes()
        self._closed = False

    def gone(self, now: float) -> None:
        """Something left; the writer looks after the batch window."""
        with self._condition:
            if self._notes.gone_since is None:
                self._notes = replace(self._notes, gone_since=now)
                self._condition.notify()

    def back(self) -> None:
        """Something serves (again); the writer looks at once."""
        with self._condition:
            self._notes = replace(self._notes, back=True)
            self._condition.notify()

    def policies(self, now: float) -> None:
        """A policy changed: everything that depends on it is looked at again, at once."""
        with self._condition:
            since = now if self._notes.gone_since is None else self._notes.gone_since
            self._notes = Notes(gone_since=since, back=True, policies=True)
            self._condition.notify()

    def close(self) -> None:
        """Wake the writer for good."""
        with self._condition:
            self._closed = True
            self._condition.notify()

    def take(self) -> Notes:
        """Empty it."""
        with self._condition:
            notes, self._notes = self._notes, Notes()
            return notes

    def wait(self, timeout: float) -> bool:
        """Sleep until a note comes, for at most `timeout` seconds; False once it is closed."""
        with self._condition:
            if not self._closed and self._notes == Notes():
                self._condition.wait(timeout)
            return not self._closed
