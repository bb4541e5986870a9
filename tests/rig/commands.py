"""Run a program, and turn its failure into one readable error."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from tests.rig.errors import RigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

TIMEOUT = 120.0  # seconds; no single command here takes longer but a build, which says so itself
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def run(
    *argv: str,
    input: str | None = None,  # noqa: A002 -- subprocess.run's own word
    check: bool = True,
    timeout: float = TIMEOUT,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run to the end and return what it wrote, as text.

    Args:
        argv: the program and its arguments.
        input: its standard input; nothing if None.
        check: raise if it fails; else the caller reads `returncode`.
        timeout: seconds until it is killed.
        cwd: its working folder.
        env: variables on top of ours.

    Raises:
        RigError: it could not be run, took too long, or failed; with the end of its stderr.
    """
    try:
        done = subprocess.run(
            argv,
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
            cwd=cwd,
            env={**os.environ, **(env or {})},
        )
    except FileNotFoundError as error:
        raise RigError(f"{argv[0]}: not found") from error
    except subprocess.TimeoutExpired as error:
        raise RigError(f"`{' '.join(argv)[:300]}` took longer than {timeout:.0f} s") from error
    if check and done.returncode:
        said = (done.stderr.strip() or done.stdout.strip())[-2000:]
        raise RigError(f"`{' '.join(argv)[:300]}` failed ({done.returncode}): {said}")
    return done


def start(*argv: str, **options: object) -> subprocess.Popen[str]:
    """Start without waiting, with text pipes; `options` are those of subprocess.Popen."""
    settings: dict[str, object] = {"text": True, **options}
    return subprocess.Popen(argv, **settings)  # type: ignore[call-overload,no-any-return]
