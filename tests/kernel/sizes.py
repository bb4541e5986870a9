"""How often and how large: see the package's docstring for the variables."""

from __future__ import annotations

import os

LONG = os.environ.get("SYNSWEEP_LONG", "") not in {"", "0"}


def size(variable: str, *, short: int, long: int) -> int:
    """One number."""
    return int(os.environ.get(variable) or (long if LONG else short))


def table_sizes() -> list[int]:
    """The sizes of big tables, in entries."""
    default = "100000,500000,1000000" if LONG else "100000"
    return [int(one) for one in (os.environ.get("SYNSWEEP_TABLE_SIZES") or default).split(",")]


E2_ROUNDS = size("SYNSWEEP_E2_ROUNDS", short=12, long=60)
LIVE_ENTRIES = size("SYNSWEEP_LIVE_ENTRIES", short=20_000, long=1_000_000)
CHURN_SECONDS = size("SYNSWEEP_CHURN_SECONDS", short=2, long=20)
RIVAL_ROUNDS = size("SYNSWEEP_RIVAL_ROUNDS", short=40, long=1_000)
ANSWERED_ROUNDS = size("SYNSWEEP_ANSWERED_ROUNDS", short=20, long=300)
