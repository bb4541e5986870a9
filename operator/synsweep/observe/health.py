"""`/healthz`, `/readyz` and `/metrics` over HTTP, on a daemon thread of their own.

A probe answers None when all is well, otherwise one line that says why not: that line is the body
of the 503, so that `kubectl describe pod` shows the reason. A probe that raises is a 500: the
program is broken, and the kubelet may restart it.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import TYPE_CHECKING, TypeAlias

from prometheus_client import disable_created_metrics
from prometheus_client.exposition import choose_encoder

from synsweep.observe.address import HttpAddress

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

logger = logging.getLogger(__name__)

Probe: TypeAlias = Callable[[], str | None]

CLIENT_TIMEOUT = 5.0  # seconds a client may take to send its request
PLAIN = "text/plain; charset=utf-8"


class AddressInUse(Exception):
    """The address cannot be listened on; the message names it and says why."""


class HealthServer:
    """Serves the three paths from `start()` to `stop()`.

    Args:
        address: `host:port`, `[v6]:port` or `:port` (see `HttpAddress`).
        live: says why the process should be restarted, or None.
        ready: says why the process is not ready, or None.
        registry: what `/metrics` shows.
    """

    def __init__(
        self, address: str, *, live: Probe, ready: Probe, registry: CollectorRegistry
    ) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second sample for each, which nobody reads
        self._address = HttpAddress.parse(address)
        self._paths: dict[str, Callable[[_Handler], None]] = {
            "/healthz": lambda handler: handler.answer_probe(live),
            "/readyz": lambda handler: handler.answer_probe(ready),
            "/metrics": lambda handler: handler.answer_metrics(registry),
        }
        self._server: _Server | None = None

    @property
    def port(self) -> int:
        """The port that is listened on (of interest when port 0 was asked for); 0 when stopped."""
        return 0 if self._server is None else int(self._server.socket.getsockname()[1])

    def start(self) -> None:
        """Listen and serve.

        Raises:
            AddressInUse: the address is taken, or is none of this machine.
        """
        try:
            listening = _listen(self._address)
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else str(error)
            if isinstance(error, socket.gaierror):  # its numbers are no errnos
                why = error.strerror or str(error)
            raise AddressInUse(
                f"cannot serve health and metrics on {self._address}: {why}"
            ) from error
        self._server = _Server(listening, self._paths)
        thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True
        )
        thread.name = "health"
        thread.start()

    def stop(self) -> None:
        """Stop serving and give the port back."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


def _listen(address: HttpAddress) -> socket.socket:
    if not address.host:
        dual_stack = socket.has_dualstack_ipv6()
        return socket.create_server(
            ("", address.port),
            family=socket.AF_INET6 if dual_stack else socket.AF_INET,
            dualstack_ipv6=dual_stack,
        )
    family, _, _, _, where = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    return socket.create_server((where[0], address.port), family=family)


class _Server(ThreadingTCPServer):
    # Not http.server.HTTPServer: its bind() looks up the host's name, which hangs without DNS.
    daemon_threads = True
    block_on_close = False

    def __init__(
        self, listening: socket.socket, paths: dict[str, Callable[[_Handler], None]]
    ) -> None:
        super().__init__(listening.getsockname()[:2], _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listening
        self.paths = paths

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away in the middle is no news."""
        logger.debug("health request %s from %s failed", request, client_address)


class _Handler(BaseHTTPRequestHandler):
    timeout = CLIENT_TIMEOUT
    server: _Server

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        answer = self.server.paths.get(path)
        if answer is None:
            self._send(HTTPStatus.NOT_FOUND, f"one of {', '.join(self.server.paths)}\n".encode())
            return
        try:
            answer(self)
        except ConnectionError:
            raise
        except Exception:
            logger.exception("%s could not be answered", path)
            self._send(HTTPStatus.INTERNAL_SERVER_ERROR, b"see the log\n")

    def answer_probe(self, probe: Probe) -> None:
        """200 and `ok`, or 503 and the reason."""
        why_not = probe()
        if why_not is None:
            self._send(HTTPStatus.OK, b"ok\n")
        else:
            self._send(HTTPStatus.SERVICE_UNAVAILABLE, f"{why_not}\n".encode())

    def answer_metrics(self, registry: CollectorRegistry) -> None:
        """All samples, in the format that the client asked for."""
        encode, content_type = choose_encoder(self.headers.get("Accept", ""))
        self._send(HTTPStatus.OK, encode(registry), content_type)

    def _send(self, status: HTTPStatus, body: bytes, content_type: str = PLAIN) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        """Probes come every few seconds: at debug level only."""
        logger.debug(format, *args)
