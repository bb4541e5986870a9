"""When did the node's ruleset change? nf_tables tells, for nftables and for iptables-nft.

A stale SYN can slip through until kube-proxy's next write; a sweep right after that write catches
the last one. The kernel notifies of each committed transaction (NFT_MSG_NEWGEN, nfnetlink multicast
group NFNLGRP_NFTABLES) with the program that wrote it. iptables-legacy does not notify: there the
watch stays silent for ever, so `seen` tells whether it ever spoke.
"""

from __future__ import annotations

import errno
import socket
from typing import Final, Self

from synsweep.conntrack import framing, wire

NETLINK_NETFILTER: Final = 12
SOL_NETLINK: Final = 270
NETLINK_ADD_MEMBERSHIP: Final = 1
NFNLGRP_NFTABLES: Final = 7
NFT_MSG_NEWGEN: Final = 0x0A0F  # subsystem 10 << 8 | 15
NFTA_GEN_PROC_NAME: Final = 3
RECEIVE_BYTES: Final = 1 << 16


class RulesetWatch:
    """A subscription to the changes of this network namespace's nf_tables.

    A plain socket of the standard library: pyroute2's synchronous multicast receive raises
    BlockingIOError for this group. `available` is False where the subscription was refused (then
    `missing` says why); `seen` turns True with the first change; `programs` are the names of those
    that wrote since the last `changed()`, such as `iptables-restor` (15 characters) or `nft`.
    """

    def __init__(self) -> None:
        self.seen = False
        self.programs: frozenset[str] = frozenset()
        self.missing = ""
        self._socket: socket.socket | None = None
        try:
            self._socket = _subscribe()
        except OSError as error:
            self.missing = errno.errorcode.get(error.errno or 0, str(error))

    @property
    def available(self) -> bool:
        """Whether the kernel would tell of a change."""
        return self._socket is not None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Unsubscribe."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def fileno(self) -> int:
        """Return the descriptor to select on; -1 when not available."""
        return self._socket.fileno() if self._socket is not None else -1

    def changed(self) -> bool:
        """Read what has arrived, without waiting: did the ruleset change since the last call?

        Notifications that were lost (ENOBUFS) are a change, too.
        """
        programs: set[str] = set()
        change = False
        while self._socket is not None:
            try:
                datagram = self._socket.recv(RECEIVE_BYTES)
            except BlockingIOError:
                break
            except OSError as error:
                change = True
                if error.errno != errno.ENOBUFS:
                    self.missing = errno.errorcode.get(error.errno or 0, str(error))
                    self.close()
                continue
            for offset, length, kind, _, _ in framing.messages(datagram):
                if kind == NFT_MSG_NEWGEN:
                    change = True
                    programs.add(_program(datagram, offset, length))
        self.programs = frozenset(programs - {""})
        self.seen = self.seen or change
        return change


def _subscribe() -> socket.socket:
    watch = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
    try:
        watch.settimeout(0)
        watch.bind((0, 0))
        watch.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, NFNLGRP_NFTABLES)
    except OSError:
        watch.close()
        raise
    return watch


def _program(datagram: bytes, offset: int, length: int) -> str:
    """Read the name of the program that committed; empty where the kernel does not say."""
    attributes = datagram[offset + wire.HEADER_LENGTH : offset + length]
    found = framing.find_attribute(attributes, NFTA_GEN_PROC_NAME)
    return found.rstrip(b"\0").decode("utf-8", "replace") if found is not None else ""
