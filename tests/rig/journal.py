"""What a cluster has made, written down before it is made: enough to remove it all without us.

One JSON object a line, appended by a single write(2), so that a crash leaves at most one torn line
at the end, of something that was not made yet. Kinds: `boot`, `owner`, `detached`, `plan`,
`process`, `netns`, `link`, `cgroup`. Folders and mounts need no line: they are under the state
folder, or inside the nodes' mount namespaces and go with them.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

NAME = "journal.jsonl"


def boot_id() -> str:
    """Return what tells this boot of the machine from the one before."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


class Journal:
    """The journal of one cluster, open for writing."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME

    def note(self, kind: str, **facts: Any) -> None:
        """Append one line; it is in the kernel's hands when this returns."""
        line = json.dumps({"kind": kind, **facts}) + "\n"
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(handle, line.encode())
        finally:
            os.close(handle)

    def read(self, kind: str) -> list[dict[str, Any]]:
        """Return the lines of one kind, oldest first; none if there is no journal."""
        return [entry for entry in read(self.path.parent) if entry["kind"] == kind]


def read(folder: Path) -> list[dict[str, Any]]:
    """Return all lines of the journal in that folder, without a torn last one."""
    try:
        lines = (folder / NAME).read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        return []
    entries = []
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and "kind" in entry:
            entries.append(entry)
    return entries
