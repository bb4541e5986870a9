"""A client, a node and its backends: real packets through real DNAT.

    client ── 10.101.0.0/24, fd00:101::/64 ── node ── 10.102.0.0/24, fd00:102::/64 ── backends

The node translates frontends to backends with nftables, as kube-proxy does. `.2` and `.3` are live
backends; `.9` is the dead one: the node has a neighbour entry for it, and nobody at the other end
takes its frames, so a SYN to it vanishes without an error.
"""

from __future__ import annotations

import contextlib
import socket
import time
from typing import TYPE_CHECKING, Self

from synsweep.core.flow import TcpState
from tests.kernel.judging import SYN_SENT_TIMEOUT, address
from tests.kernel.namespaces import Namespace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from synsweep.conntrack.table import ConntrackTable
    from synsweep.core.flow import Address, ConntrackEntry

CLIENT, NODE, NODE_INSIDE = "10.101.0.2", "10.101.0.1", "10.102.0.1"
CLIENT6, NODE6 = "fd00:101::2", "fd00:101::1"
LIVE, OTHER, DEAD = "10.102.0.2:8080", "10.102.0.3:8080", "10.102.0.9:8080"
LIVE6, DEAD6 = "[fd00:102::2]:8080", "[fd00:102::9]:8080"
FRONTEND, FRONTEND6 = "10.96.0.10:80", "[fd00:96::10]:80"
NOBODY = "02:00:00:00:00:99"


def settled(met: Callable[[], object], *, within: float = 5.0) -> bool:
    """Wait for something that the kernel does in a moment."""
    deadline = time.monotonic() + within
    while not met():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


class Lab:
    """The three namespaces. Leaving it closes all sockets and removes them."""

    def __init__(self) -> None:
        self._exit = contextlib.ExitStack()
        try:
            self.client = self._exit.enter_context(Namespace("client"))
            self.node = self._exit.enter_context(Namespace("node"))
            self.backends = self._exit.enter_context(Namespace("backends"))
            self._wire()
        except BaseException:
            self._exit.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    def _wire(self) -> None:
        for namespace in (self.client, self.node, self.backends):
            namespace.sysctl("net.ipv6.conf.default.dad_transmits", 0)
        for side, link, four, six in (
            (self.client, "toclient", "10.101.0", "fd00:101:"),
            (self.backends, "toback", "10.102.0", "fd00:102:"),
        ):
            self.node.ip("link", "add", link, "type", "veth", "peer", "name", "eth0",
                         "netns", side.name)  # fmt: skip
            self.node.ip("addr", "add", f"{four}.1/24", "dev", link)
            self.node.ip("addr", "add", f"{six}:1/64", "dev", link, "nodad")
            self.node.ip("link", "set", link, "up")
            for host in ("2",) if side is self.client else ("2", "3"):
                side.ip("addr", "add", f"{four}.{host}/24", "dev", "eth0")
                side.ip("addr", "add", f"{six}:{host}/64", "dev", "eth0", "nodad")
            side.ip("link", "set", "eth0", "up")
            side.ip("route", "add", "default", "via", f"{four}.1")
            side.ip("-6", "route", "add", "default", "via", f"{six}:1")
        for dead in ("10.102.0.9", "fd00:102::9"):
            self.node.ip("neigh", "add", dead, "dev", "toback", "lladdr", NOBODY)
        self.node.sysctl("net.ipv4.ip_forward", 1)
        self.node.sysctl("net.ipv6.conf.all.forwarding", 1)
        self.client.sysctl("net.ipv4.tcp_syn_linear_timeouts", 100)  # a SYN each second

    def translate(self, *pairs: tuple[str, str], masquerade: bool = False, more: str = "") -> None:
        """Replace the node's ruleset: send each frontend to its backend, as kube-proxy would."""
        rules = []
        for front, back in pairs:
            frontend, backend = address(front), address(back)
            family = "ip" if frontend.ip.version == 4 else "ip6"
            rules.append(
                f"{family} daddr {frontend.ip} tcp dport {frontend.port} dnat {family} to {backend}"
            )
        body = "\n".join(rules)
        masq = "ct status dnat masquerade" if masquerade else ""
        self.node.run(
            "nft", "-f", "-",
            given=f"""
            table inet ssk
            delete table inet ssk
            table inet ssk {{
              chain pre {{ type nat hook prerouting priority -100
                {body}
              }}
              chain out {{ type nat hook output priority -100
                {body}
              }}
              chain post {{ type nat hook postrouting priority 100
                {masq}
              }}
              {more}
            }}
            """,
        )  # fmt: skip

    def drop(self, namespace: Namespace, rule: str) -> None:
        """Drop what a rule matches on its way out of a namespace; an empty rule drops nothing."""
        namespace.run(
            "nft", "-f", "-",
            given=f"""
            table inet drops
            delete table inet drops
            table inet drops {{
              chain out {{ type filter hook output priority 0
                {rule and rule + " drop"}
              }}
            }}
            """,
        )  # fmt: skip

    def serve(self, *backends: str) -> list[socket.socket]:
        """Listen at backends."""
        return [self._listen(address(backend)) for backend in backends]

    def _listen(self, backend: Address) -> socket.socket:
        family = socket.AF_INET if backend.ip.version == 4 else socket.AF_INET6
        with self.backends.entered():
            server = self._exit.enter_context(socket.socket(family, socket.SOCK_STREAM))
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((str(backend.ip), backend.port))
        server.listen(1024)
        server.settimeout(5)
        return server

    def accept(self, server: socket.socket) -> socket.socket:
        """Take the next connection that arrived."""
        accepted, _ = server.accept()
        return self._exit.enter_context(accepted)

    def connect(
        self, to: str, *, source_port: int = 0, where: Namespace | None = None
    ) -> socket.socket:
        """Send a SYN from the client (or from elsewhere) without waiting for the answer."""
        frontend = address(to)
        family = socket.AF_INET if frontend.ip.version == 4 else socket.AF_INET6
        with (where or self.client).entered():
            client = self._exit.enter_context(socket.socket(family, socket.SOCK_STREAM))
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if source_port:
            client.bind(("", source_port))
        client.setblocking(False)  # noqa: FBT003
        with contextlib.suppress(BlockingIOError):
            client.connect((str(frontend.ip), frontend.port))
        return client

    def wait_for_entries(
        self, table: ConntrackTable, count: int = 1, *, within: float = 5.0
    ) -> tuple[ConntrackEntry, ...]:
        """List until there are that many unanswered DNATed entries, a jiffy old or more."""
        found: list[tuple[ConntrackEntry, ...]] = []

        def met() -> bool:
            found.append(table.entries().entries)
            settled_in = [
                one
                for one in found[-1]
                if one.tcp_state is not TcpState.SYN_SENT or one.timeout < SYN_SENT_TIMEOUT
            ]
            return len(settled_in) >= count

        assert settled(met, within=within), f"{len(found[-1])} entries instead of {count}"
        return found[-1]

    def entry(
        self, table: ConntrackTable, frontend: str, backend: str, *, state: object = None
    ) -> ConntrackEntry:
        """Wait for one entry in any state, found by its frontend and backend."""
        front, back = address(frontend), address(backend)
        found: list[ConntrackEntry] = []

        def met() -> bool:
            found[:] = [
                one
                for one in table.entries(frozenset({back})).entries
                if one.frontend == front
                and one.backend == back
                and (state is None or one.tcp_state == state)
            ]
            return bool(found)

        assert settled(met), f"no entry {frontend} -> {backend} {state or ''}"
        return found[0]


def is_connected(client: socket.socket) -> bool:
    """Whether the handshake is over and went well."""
    try:
        client.getpeername()
    except OSError:
        return False
    return True


def reset(clients: Iterable[socket.socket]) -> None:
    """Close at once, without the FIN."""
    for client in clients:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
