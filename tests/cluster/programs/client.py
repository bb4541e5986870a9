"""Clients of a Service, one flow a thread, and what each of them saw, as JSON lines.

`client.py --to IP --port 80 --flows 12 --mode retransmit|reconnect --first-source-port 40000 ...`

* retransmit: one connect() that the kernel retries with its own SYN schedule.
* reconnect: connect() with a short timeout, closed and tried again from the same source port.

Once connected, a flow sends a GET each `--every` seconds over the same connection, like a
keep-alive pool. Lines: {"t": monotonic seconds, "flow": n, "event": "connecting" | "connected" |
"response" | "error" | "closed", "source_port": n, "status": n, "who": "...", "error": "..."}. The
program ends after `--seconds`, or when standard input is closed.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import select
import socket
import sys
import threading
import time

LOCK = threading.Lock()


def say(**fields: object) -> None:
    """Print one line; whole lines only, whichever thread speaks."""
    with LOCK, contextlib.suppress(BrokenPipeError):
        sys.stdout.write(json.dumps({"t": time.monotonic(), **fields}) + "\n")
        sys.stdout.flush()


class Flow(threading.Thread):
    """One client connection and the requests over it."""

    def __init__(self, number: int, options: argparse.Namespace, ends_at: float) -> None:
        super().__init__(daemon=True)
        self.number = number
        self.options = options
        self.ends_at = ends_at
        base = options.first_source_port
        self.source_port = base + number if base else 0

    def say(self, event: str, **fields: object) -> None:
        say(flow=self.number, event=event, source_port=self.source_port, **fields)

    def connect(self, timeout: float) -> socket.socket | None:
        """Try once, from this flow's source port; None when it did not come to a connection."""
        family = socket.AF_INET6 if ":" in self.options.to else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            if self.options.first_source_port:  # else one that no former connection occupies
                sock.bind(("", self.source_port))
            sock.settimeout(timeout)
            self.say("connecting")
            sock.connect((self.options.to, self.options.port))
        except OSError as error:
            if not isinstance(error, TimeoutError):
                self.say("error", error=f"connect: {error.strerror or error}")
            sock.close()
            return None
        self.source_port = sock.getsockname()[1]
        self.say("connected")
        return sock

    def run(self) -> None:
        """Connect (again and again in mode reconnect), then ask until the time is over."""
        while (left := self.ends_at - time.monotonic()) > 0:
            patience = min(left, self.options.connect_timeout)
            if self.options.mode == "retransmit":
                patience = left
            sock = self.connect(patience)
            if sock is None:
                time.sleep(0.02)
                continue
            self.ask(sock)
            if not self.options.again:
                return

    def ask(self, sock: socket.socket) -> None:
        """Send a GET each `every` seconds over the one connection, and say who answered."""
        connection = http.client.HTTPConnection(self.options.to, self.options.port)
        connection.sock = sock
        sock.settimeout(5)
        requests = 0
        while time.monotonic() < self.ends_at:
            try:
                connection.request("GET", "/", headers={"Host": "service"})
                response = connection.getresponse()
                who = response.read().decode()
            except (OSError, http.client.HTTPException) as error:
                self.say("error", error=f"request: {error!r}")
                break
            self.say("response", status=response.status, who=who)
            requests += 1
            if self.options.requests and requests >= self.options.requests:
                break
            time.sleep(self.options.every)
        sock.close()
        self.say("closed")


def main() -> None:
    """Start the flows, wait for the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--flows", type=int, default=12)
    parser.add_argument("--mode", choices=("retransmit", "reconnect"), default="retransmit")
    parser.add_argument("--first-source-port", type=int, default=0)
    parser.add_argument("--connect-timeout", type=float, default=1.0)
    parser.add_argument("--every", type=float, default=0.5)
    parser.add_argument("--requests", type=int, default=0, help="per connection; 0: no end")
    parser.add_argument("--again", action="store_true", help="a new connection after the last one")
    parser.add_argument("--spread", type=float, default=0.0, help="seconds over which flows start")
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    ends_at = time.monotonic() + options.seconds
    say(event="started", pid=os.getpid())
    for number in range(options.flows):
        Flow(number, options, ends_at).start()
        time.sleep(options.spread / options.flows)
    while (left := ends_at - time.monotonic()) > 0:
        readable, _, _ = select.select([sys.stdin], [], [], min(left, 1.0))
        if readable and not os.read(0, 4096):
            break
    say(event="ended")


if __name__ == "__main__":
    main()
