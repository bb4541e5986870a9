"""An HTTP backend that says who it is: `backend.py --name a-1 --status 200 --port 8080`.

Every answer carries the name and keeps the connection alive, so a client knows which pod it really
reached. SIGTERM is ignored with --stubborn: a pod that serves on while it terminates.
"""

from __future__ import annotations

import argparse
import signal
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class DualStackServer(ThreadingHTTPServer):
    """Listens on IPv6 and, through it, on IPv4."""

    address_family = socket.AF_INET6
    daemon_threads = True
    request_queue_size = 1024

    def server_bind(self) -> None:
        """Take IPv4 clients as well."""
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


def handler(name: str, status: int) -> type[BaseHTTPRequestHandler]:
    """Make a handler that answers every GET with `status` and `name`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 600

        def do_GET(self) -> None:
            body = name.encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing: the clients tell."""

    return Handler


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True)
    parser.add_argument("--status", type=int, default=200)
    parser.add_argument("--port", type=int, action="append", required=True)
    parser.add_argument("--stubborn", action="store_true")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.SIG_IGN if options.stubborn else lambda *_: sys.exit(0))
    for port in options.port:
        server = DualStackServer(("::", port), handler(options.name, options.status))
        threading.Thread(target=server.serve_forever, daemon=True).start()
    print("listening", flush=True)  # noqa: T201
    threading.Event().wait()


if __name__ == "__main__":
    main()
