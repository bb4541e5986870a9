"""Sends a UDP datagram each second from one source port: `datagrams.py --to IP --port 80`.

Nobody need answer. Ends with its standard input.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import socket
import sys


def main() -> None:
    """Send until standard input is closed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", required=True)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        while True:
            with contextlib.suppress(OSError):  # an ICMP error of the datagram before
                sock.sendto(b"?", (options.to, options.port))
            readable, _, _ = select.select([sys.stdin], [], [], 1.0)
            if readable and not os.read(0, 4096):
                return


if __name__ == "__main__":
    main()
