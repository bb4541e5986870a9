"""A small real HTTP server that plays an API server, answer by answer, as a test scripts it."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import yaml

from synsweep.cluster.client import Api

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Answering = Callable[["Exchange"], None]

SERVER_TIME = 1_700_000_000  # the epoch seconds that each answer's Date says


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One request that came."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass
class Script:
    """What is answered, in order; when it is used up, requests hang until the server stops."""

    answers: list[Answering] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def next(self, asked: Asked) -> Answering:
        """Take the next answer."""
        with self.lock:
            self.asked.append(asked)
            return self.answers.pop(0) if self.answers else hang


class Exchange(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    script: Script

    def date_time_string(self, timestamp: float | None = None) -> str:
        """Say the API server's time, which is not ours."""
        del timestamp
        return formatdate(SERVER_TIME, usegmt=True)

    def answer(self) -> None:
        """Play the next answer of the script."""
        url = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        asked = Asked(
            method=self.command,
            path=url.path,
            query=dict(parse_qsl(url.query)),
            headers=dict(self.headers),
            body=json.loads(self.rfile.read(length)) if length else None,
        )
        self.script.next(asked)(self)

    do_GET = do_POST = do_PATCH = do_DELETE = answer  # noqa: N815  # its names there

    def send(self, code: int, body: bytes, content_type: str = "application/json") -> None:
        """Send a whole answer."""
        self.send_response(code)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def chunk(self, data: bytes) -> None:
        """Send a piece of a stream."""
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


@contextmanager
def serving(tmp_path: Path, *answers: Answering) -> Iterator[tuple[Api, Script]]:
    """Serve the script, and give a client of it that was configured by a kubeconfig."""
    script = Script(answers=list(answers))
    handler = type("Handler", (Exchange,), {"script": script})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    api = Api.load(
        user_agent="test", environ={"KUBECONFIG": kubeconfig(tmp_path, server.server_port)}
    )
    try:
        yield api, script
    finally:
        script.over.set()
        server.shutdown()
        server.server_close()
        api.close()


def kubeconfig(folder: Path, port: int, **user: str) -> str:
    """Write a kubeconfig for a server on loopback."""
    path = folder / "kubeconfig"
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "test",
                "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
                "clusters": [{"name": "test", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
                "users": [{"name": "test", "user": user}],
            }
        )
    )
    return str(path)


def thing(name: str, version: int, **more: Any) -> dict[str, Any]:
    """Make an object."""
    metadata = {
        "name": name,
        "namespace": "ns",
        "uid": f"uid-{name}",
        "resourceVersion": str(version),
    }
    return {"metadata": metadata, **more}


def listing(*items: dict[str, Any], version: int, more: str = "") -> Answering:
    """Answer one page of a list."""
    metadata = {"resourceVersion": str(version), "continue": more}
    return reply(200, {"kind": "List", "metadata": metadata, "items": list(items)})


def reply(code: int, body: Any) -> Answering:
    """Answer with JSON."""
    return lambda exchange: exchange.send(code, json.dumps(body).encode())


def raw(code: int, body: bytes) -> Answering:
    """Answer with anything."""
    return lambda exchange: exchange.send(code, body, "text/plain")


def refusal(code: int, reason: str, message: str = "no", *fields: str) -> Answering:
    """Answer with a Status."""
    causes = [{"field": each} for each in fields]
    status = {"kind": "Status", "code": code, "reason": reason, "message": message}
    return reply(code, status | {"details": {"causes": causes}})


def event(kind: str, body: Any) -> bytes:
    """Write one line of a watch."""
    return json.dumps({"type": kind, "object": body}).encode() + b"\n"


def bookmark(version: int) -> bytes:
    """Write a bookmark."""
    return event("BOOKMARK", {"metadata": {"resourceVersion": str(version)}})


def watch(*pieces: bytes, lasts: float = 0.0, broken: bool = False) -> Answering:
    """Stream these pieces, each as one chunk; end regularly after `lasts` seconds, or break off."""

    def answer(exchange: Exchange) -> None:
        exchange.send_response(200)
        exchange.send_header("Transfer-Encoding", "chunked")
        exchange.end_headers()
        for piece in pieces:
            exchange.chunk(piece)
        exchange.script.over.wait(lasts)
        if broken:
            exchange.close_connection = True
        else:
            exchange.chunk(b"")

    return answer


def hang(exchange: Exchange) -> None:
    """Stream nothing, and never end: a stalled proxy."""
    exchange.send_response(200)
    exchange.send_header("Transfer-Encoding", "chunked")
    exchange.end_headers()
    exchange.wfile.flush()
    exchange.script.over.wait(60)
    exchange.close_connection = True


def eventually(what: Callable[[], object], *, within: float = 5.0) -> None:
    """Wait until it is so."""
    deadline = time.monotonic() + within
    while not what():
        assert time.monotonic() < deadline, "it did not become so"
        time.sleep(0.01)
