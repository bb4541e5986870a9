"""Whose is a cluster's name: claimed before anything is made, given back when all is gone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.rig import places, sysctls
from tests.rig.addresses import Plan, free_plan
from tests.rig.errors import RigError
from tests.rig.journal import Journal, boot_id, read
from tests.rig.places import say
from tests.rig.processes import Process, ourselves
from tests.rig.teardown import take_down

if TYPE_CHECKING:
    from pathlib import Path

NAME = re.compile(r"[a-z][a-z0-9-]{0,9}")  # ss-NAME is an interface name: at most 15 characters


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A cluster's name, folder, journal and addresses."""

    name: str
    folder: Path
    journal: Journal
    plan: Plan

    def netns(self, place: str) -> str:
        """Return the name of one of its network namespaces."""
        return f"ss-{self.name}-{place}"

    def log(self, program: str) -> Path:
        """Return the log file of one of its programs."""
        return self.folder / "log" / f"{program}.log"


def claim(name: str, *, with_nodes: bool) -> Claim:
    """Take a name for a new cluster; what a crash left under it is taken down first.

    Raises:
        RigError: a cluster of that name is up.
    """
    folder = places.state() / name
    places.state().mkdir(parents=True, exist_ok=True, mode=0o700)
    with places.locked("state"):
        refuse_if_used(name)
        if folder.exists():
            say(f"cluster {name} was left by a crash: taking it down first")
            take_down(name)
        me = ourselves()
        plan = free_plan(_octets_in_use())
        if with_nodes:
            sysctls.remember()
        (folder / "log").mkdir(parents=True)
        journal = Journal(folder)
        journal.note("boot", id=boot_id())
        journal.note("owner", pid=me.pid, started=me.started)
        journal.note("plan", octet=plan.octet)
    return Claim(name=name, folder=folder, journal=journal, plan=plan)


def release(name: str) -> None:
    """Take a cluster down, whoever made it, and give its name back.

    Raises:
        RigError: something could not be removed; its journal stays for another try.
    """
    with places.locked("state"):
        take_down(name)


def names() -> tuple[str, ...]:
    """Return the names of all clusters that are up or were left by a crash."""
    folders = places.state().glob("*/")
    return tuple(sorted(folder.name for folder in folders))


def owner_of(name: str) -> Process | None:
    """Return the live process that a cluster belongs to; None if it is detached or left behind."""
    for entry in reversed(read(places.state() / name)):
        if entry["kind"] == "owner":
            owner = Process(pid=entry["pid"], started=entry["started"])
            return owner if owner.is_alive() else None
    return None


def is_detached(name: str) -> bool:
    """Say whether a cluster was brought up to stay after its maker's end."""
    entries = read(places.state() / name)
    booted = {entry["id"] for entry in entries if entry["kind"] == "boot"}
    return boot_id() in booted and any(entry["kind"] == "detached" for entry in entries)


def refuse_if_used(name: str) -> None:
    """Raise RigError if a cluster of that name is up, or the name cannot be one."""
    if not NAME.fullmatch(name):
        raise RigError(f"cluster name {name!r}: 1 to 10 of a-z, 0-9 and -, a letter first")
    if is_detached(name):
        raise RigError(
            f"cluster {name} is up already; `python -m tests.rig down --name {name}` takes it down"
        )
    if owner := owner_of(name):
        raise RigError(
            f"cluster {name} is in use by process {owner.pid}; "
            "set RIG_NAME to another name for a second one"
        )


def _octets_in_use() -> frozenset[int]:
    return frozenset(
        entry["octet"]
        for name in names()
        for entry in read(places.state() / name)
        if entry["kind"] == "plan"
    )
