"""One SYN for each source port, and nothing after it: `syns.py --to IP --port 80 --count 20`.

A socket that is closed before it was answered sends no second SYN, so the half-open entry that it
leaves behind is made once, and never again by a retransmit. Ends when all SYNs are sent.
"""

from __future__ import annotations

import argparse
import contextlib
import socket


def main() -> None:
    """Send them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--first-source-port", type=int, required=True)
    options = parser.parse_args()
    for number in range(options.count):
        with socket.socket() as sock:
            sock.setblocking(False)  # noqa: FBT003
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("", options.first_source_port + number))
            with contextlib.suppress(OSError):  # in progress, or refused: the SYN was sent
                sock.connect((options.to, options.port))


if __name__ == "__main__":
    main()
