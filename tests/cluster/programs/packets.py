"""The packet-level oracle: every TCP SYN, SYN-ACK, FIN and RST that crosses one interface.

`packets.py --interface eth0`. It ends with its standard input. It reads the wire (AF_PACKET) and
nothing of conntrack, Kubernetes or synsweep. Lines: {"t": monotonic seconds, "flags": "S" | "SA" |
"R" | "F" | ..., "src": ip, "sport": n, "dst": ip, "dport": n, "out": true for packets this host
sent}.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import os
import select
import socket
import struct
import sys
import time

ETH_P_ALL = 0x0003
ETH_P_IP, ETH_P_IPV6 = 0x0800, 0x86DD
FLAGS = ((0x02, "S"), (0x10, "A"), (0x01, "F"), (0x04, "R"))
LOUD = 0x02 | 0x01 | 0x04  # SYN, FIN, RST


def read(protocol: int, packet: bytes) -> tuple[str, str, bytes] | None:
    """Take source, destination and TCP segment out of an IP packet; None for all else."""
    if protocol == ETH_P_IP and packet[9] == socket.IPPROTO_TCP:
        header = (packet[0] & 0x0F) * 4
        source, destination = packet[12:16], packet[16:20]
        segment = packet[header:]
    elif protocol == ETH_P_IPV6 and packet[6] == socket.IPPROTO_TCP:
        source, destination, segment = packet[8:24], packet[24:40], packet[40:]
    else:
        return None
    return str(ipaddress.ip_address(source)), str(ipaddress.ip_address(destination)), segment


def main() -> None:
    """Print until standard input is closed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--interface", default="eth0")
    options = parser.parse_args()
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    sock.bind((options.interface, ETH_P_ALL))
    sys.stdout.write('{"event": "listening"}\n')
    sys.stdout.flush()
    while True:
        readable, _, _ = select.select([sock, sys.stdin], [], [])
        if sys.stdin in readable and not os.read(0, 4096):
            return
        if sock not in readable:
            continue
        packet, address = sock.recvfrom(256)
        seen = read(address[1], packet)
        if seen is None or not seen[2][13] & LOUD:
            continue
        source, destination, segment = seen
        sport, dport = struct.unpack_from("!HH", segment)
        line = {
            "t": time.monotonic(),
            "flags": "".join(letter for bit, letter in FLAGS if segment[13] & bit),
            "src": source,
            "sport": sport,
            "dst": destination,
            "dport": dport,
            "out": address[2] == socket.PACKET_OUTGOING,
        }
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
