"""What can go wrong here, in one sentence for the person at the terminal."""

from __future__ import annotations


class RigError(Exception):
    """The rig cannot go on; the message says why and what to do."""


class NeedsMissing(RigError):
    """This machine lacks something; `.missing` has one line for each thing."""

    def __init__(self, missing: tuple[str, ...]) -> None:
        self.missing = missing
        super().__init__("this machine lacks what the rig needs:\n  " + "\n  ".join(missing))
