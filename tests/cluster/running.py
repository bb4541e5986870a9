"""`synsweep controller` as a process on this machine, with the rights of its ServiceAccount."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.rig.control_plane import ControlPlane

ROOT = Path(__file__).parents[2]
NAMESPACE = "synsweep-system"


def eventually(what: Callable[[], object], *, within: float, describe: str) -> float:
    """Wait until it is so; returns after how many seconds it was."""
    started = time.monotonic()
    while not what():
        waited = time.monotonic() - started
        assert waited < within, f"not within {within} s: {describe}"
        time.sleep(0.005)
    return time.monotonic() - started


class RunningController:
    """One process. `kubeconfig` is what it logs in with."""

    def __init__(self, kubeconfig: Path, folder: Path, *flags: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        self._log = folder / f"controller-{self.port}.log"
        command = [sys.executable, "-m", "synsweep", "controller"]
        command += ["--http-address", f"127.0.0.1:{self.port}", "--log-format", "text", *flags]
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=os.environ
                | {"KUBECONFIG": str(kubeconfig), "PYTHONPATH": str(ROOT / "operator")},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def ask(self, path: str) -> tuple[int, str]:
        """Ask its health server; 0 while nothing listens."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def wait_ready(self, within: float = 20.0) -> float:
        """Wait until it says that it is ready."""
        return eventually(
            lambda: self.ask("/readyz")[0] == 200, within=within, describe=f"ready\n{self.log}"
        )

    @property
    def log(self) -> str:
        """What it has logged."""
        return self._log.read_text()

    def stop(self, within: float = 5.0) -> int:
        """SIGTERM, and its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(within)

    def kill(self) -> None:
        """SIGKILL, also if it is stopped or gone."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(5)


@contextmanager
def controller(
    kubeconfig: Path, folder: Path, *flags: str, ready: bool = True
) -> Iterator[RunningController]:
    """Run one, and end it whatever happens."""
    running = RunningController(kubeconfig, folder, *flags)
    try:
        if ready:
            running.wait_ready()
        yield running
    finally:
        running.kill()


def service_account(plane: ControlPlane, name: str, folder: Path) -> Path:
    """Make a kubeconfig with the token of one of our ServiceAccounts."""
    token = plane.kubectl("create", "token", name, "-n", NAMESPACE).stdout.strip()
    config = yaml.safe_load(plane.kubeconfig.read_text())
    for user in config["users"]:
        user["user"] = {"token": token}
    path = folder / f"{name}.kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return path
