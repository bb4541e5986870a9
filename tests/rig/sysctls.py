"""The machine-wide sysctls that every kubelet sets, and how they were before.

They are not per namespace. The former values are kept in one file for all clusters: the first
cluster with nodes writes it, the last one to go puts them back.
"""

from __future__ import annotations

import json
from pathlib import Path

from tests.rig import places
from tests.rig.journal import boot_id

SET_BY_KUBELET = ("vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops")
PROC = Path("/proc/sys")


def _file() -> Path:
    return places.state() / "sysctls.json"


def remember(proc: Path = PROC) -> None:
    """Write down the values of now, unless an earlier cluster has; under the lock `state`."""
    if _former() is None:
        values = {
            name: (proc / name).read_text(encoding="ascii").strip() for name in SET_BY_KUBELET
        }
        fresh = _file().with_suffix(".new")
        fresh.write_text(json.dumps({"boot": boot_id(), "values": values}), encoding="utf-8")
        fresh.rename(_file())


def restore(proc: Path = PROC) -> None:
    """Put them back and forget them; under the lock `state`, when no cluster is left."""
    for name, value in (_former() or {}).items():
        if (proc / name).read_text(encoding="ascii").strip() != value:
            (proc / name).write_text(value, encoding="ascii")
    _file().unlink(missing_ok=True)


def _former() -> dict[str, str] | None:
    try:
        kept = json.loads(_file().read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    if kept["boot"] != boot_id():
        return None  # the machine was booted since: its values are its own again
    values: dict[str, str] = kept["values"]
    return values
