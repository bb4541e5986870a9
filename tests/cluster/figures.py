"""Figures of long runs: printed for the one who watches, and kept where FIGURES names a file."""

from __future__ import annotations

import json
import os
from pathlib import Path


def repetitions(name: str, default: int) -> int:
    """Read a number of repetitions from the environment, e.g. RUNS=20."""
    return int(os.environ.get(name) or default)


def record(what: str, **figures: object) -> None:
    """Print one line of figures, and append it as JSON to the file that FIGURES names."""
    line = json.dumps({"what": what, "proxy": os.environ.get("PROXY_MODE", "iptables"), **figures})
    print(line)  # noqa: T201
    if path := os.environ.get("FIGURES"):
        with Path(path).open("a") as file:
            file.write(line + "\n")
