"""`synsweep node` as a process of its own: what it needs, what it says, and how it ends."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.kernel.namespaces import Namespace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.kernel

NODE = ("node", "--node-name", "node1", "--http-address", "127.0.0.1:0")
WITHOUT_CAPABILITY = ("setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin")


@pytest.fixture
def space() -> Iterator[Namespace]:
    with Namespace("helper") as space:
        yield space


def kubeconfig(folder: Path, server: str) -> Path:
    written = folder / "kubeconfig"
    context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [context],
        "current-context": "c",
    }
    written.write_text(json.dumps(content))
    return written


def start(
    space: Namespace, config: Path, *args: str, through: tuple[str, ...] = ()
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["ip", "netns", "exec", space.name, *through, sys.executable, "-m", "synsweep", *args],
        env={
            **os.environ,
            "KUBECONFIG": str(config),
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
        stderr=subprocess.PIPE,
        text=True,
    )


def test_without_the_capability_it_says_so_in_one_line_and_ends(
    space: Namespace, tmp_path: Path
) -> None:
    config = kubeconfig(tmp_path, "http://127.0.0.1:1")
    helper = start(space, config, *NODE, through=WITHOUT_CAPABILITY)
    _, said = helper.communicate(timeout=20)
    assert helper.returncode == 3
    (line,) = said.splitlines()
    assert "CAP_NET_ADMIN" in json.loads(line)["message"]


def test_without_a_way_to_an_api_server_it_says_so_in_one_line_and_ends(
    space: Namespace, tmp_path: Path
) -> None:
    helper = start(space, tmp_path / "none", *NODE)
    _, said = helper.communicate(timeout=20)
    assert helper.returncode == 4
    (line,) = said.splitlines()
    assert "no usable access to an API server" in json.loads(line)["message"]


def test_an_address_that_is_taken_is_said_in_one_line(space: Namespace, tmp_path: Path) -> None:
    config = kubeconfig(tmp_path, "http://127.0.0.1:1")
    taken = ("node", "--node-name", "node1", "--http-address", "192.0.2.1:9469")
    helper = start(space, config, *taken)
    _, said = helper.communicate(timeout=20)
    assert helper.returncode == 1
    (line,) = said.splitlines()
    assert "cannot serve health and metrics on 192.0.2.1:9469" in json.loads(line)["message"]


@contextlib.contextmanager
def hanging_api(space: Namespace) -> Iterator[str]:
    """An API server that takes connections and requests, and never answers."""
    with space.entered():
        server = socket.create_server(("127.0.0.1", 0))
    held: list[socket.socket] = []
    ended = threading.Event()
    server.settimeout(0.1)

    def take() -> None:
        while not ended.is_set():
            with contextlib.suppress(TimeoutError):
                held.append(server.accept()[0])

    thread = threading.Thread(target=take)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
    finally:
        ended.set()
        thread.join()
        for one in (server, *held):
            one.close()


def readiness(space: Namespace, port: int) -> tuple[int, str]:
    with space.entered():
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/readyz")
            answer = connection.getresponse()
            return answer.status, answer.read().decode().strip()
        finally:
            connection.close()


def wait_ready_port(space: Namespace, port: int, helper: subprocess.Popen[str]) -> tuple[int, str]:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and helper.poll() is None:
        try:
            return readiness(space, port)
        except OSError:
            time.sleep(0.05)
    raise AssertionError(helper.communicate()[1])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_within_two_seconds_while_the_api_server_hangs(
    space: Namespace, tmp_path: Path, number: signal.Signals
) -> None:
    with hanging_api(space) as server:
        config = kubeconfig(tmp_path, server)
        address = ("node", "--node-name", "node1", "--http-address", "127.0.0.1:9469")
        helper = start(space, config, *address)
        status, why = wait_ready_port(space, 9469, helper)
        assert (status, why) == (503, "no list of cleanups from the API server yet")
        began = time.monotonic()
        helper.send_signal(number)
        _, said = helper.communicate(timeout=20)
        assert time.monotonic() - began < 2
        assert helper.returncode == 0, said


def test_a_signal_that_comes_while_it_starts_is_not_lost(space: Namespace, tmp_path: Path) -> None:
    with space.entered(), socket.create_server(("127.0.0.1", 10249)) as silent_kube_proxy:
        helper = start(space, kubeconfig(tmp_path, "http://127.0.0.1:1"), *NODE)
        silent_kube_proxy.settimeout(20)
        with silent_kube_proxy.accept()[0]:
            helper.send_signal(signal.SIGTERM)
            _, said = helper.communicate(timeout=20)
    assert helper.returncode == 0, said
