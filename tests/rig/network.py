"""The wires: a router namespace with one veth for each node, the control plane and the clients.

Layer 3 only, no bridge: nodes reach each other's pods by routes, as with the AWS VPC CNI.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.rig.addresses import pods
from tests.rig.commands import run, start
from tests.rig.errors import RigError
from tests.rig.teardown import remove_netns

if TYPE_CHECKING:
    import subprocess

    from tests.rig.addresses import Leg
    from tests.rig.claims import Claim

# No duplicate address detection: addresses are ours alone and wanted at once.
FORWARD = (
    "echo 1 >/proc/sys/net/ipv4/ip_forward; "
    "[ -d /proc/sys/net/ipv6 ] || exit 0; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding; "
    "echo 0 >/proc/sys/net/ipv6/conf/default/dad_transmits"
)


class Namespace:
    """A network namespace in which a test can run programs."""

    def __init__(self, name: str, address: str) -> None:
        self.netns = name
        self.ip = address

    def argv(self, *argv: str) -> tuple[str, ...]:
        """Return the command line that runs `argv` in here."""
        return ("nsenter", f"--net=/run/netns/{self.netns}", "--", *argv)

    def run(
        self,
        *argv: str,
        input: str | None = None,  # noqa: A002 -- subprocess.run's own word
        check: bool = True,
        timeout: float = 60.0,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end in here; see tests.rig.commands.run for errors."""
        return run(*self.argv(*argv), input=input, check=check, timeout=timeout)

    def popen(self, *argv: str, **options: object) -> subprocess.Popen[str]:
        """Start a program in here; it ends with the cluster at the latest."""
        return start(*self.argv(*argv), **options)


class Network:
    """All wires of one cluster."""

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.router = claim.netns("rtr")

    def up(self, *, ipv6: bool) -> None:
        """Make the router, the control plane's namespace, and the legs of host and outside."""
        self._namespace(self.router)
        self.add_leg("cp", self.claim.plan.control_plane(), ipv6=ipv6)
        self._host_leg()

    def _namespace(self, name: str) -> None:
        self.claim.journal.note("netns", name=name)
        run("ip", "netns", "add", name)
        run("nsenter", f"--net=/run/netns/{name}", "sh", "-c", FORWARD)
        run("ip", "-n", name, "link", "set", "lo", "up")

    def add_leg(self, place: str, leg: Leg, *, ipv6: bool) -> Namespace:
        """Make a namespace hung off the router by a veth, with a default route to it."""
        name = self.claim.netns(place)
        self._namespace(name)
        # Both ends are made where they belong: no link of the machine's own is in the way.
        run(
            *("ip", "link", "add", place, "netns", self.router, "type", "veth"),
            *("peer", "name", "eth0", "netns", name),
        )
        self._router_end(place, leg, ipv6=ipv6)
        batch(
            name,
            f"addr add {leg.address[0]}/{leg.lengths[0]} dev eth0",
            "link set eth0 up",
            f"route add default via {leg.gateway[0]}",
        )
        if ipv6:
            batch(
                name,
                f"-6 addr add {leg.address[1]}/{leg.lengths[1]} dev eth0 nodad",
                f"-6 route add default via {leg.gateway[1]}",
            )
        return Namespace(name, leg.address[0])

    def _router_end(self, place: str, leg: Leg, *, ipv6: bool) -> None:
        batch(
            self.router,
            f"addr replace {leg.gateway[0]}/{leg.lengths[0]} dev {place}",
            f"link set {place} up",
        )
        if ipv6:
            batch(
                self.router,
                f"-6 addr replace {leg.gateway[1]}/{leg.lengths[1]} dev {place} nodad",
            )

    def _host_leg(self) -> None:
        """Give this machine an address in the nodes' network, so that its shell reaches the API."""
        leg, link = self.claim.plan.host(), f"ss-{self.claim.name}"
        self.claim.journal.note("link", name=link)
        run(
            *("ip", "link", "add", link, "type", "veth"),
            *("peer", "name", "host", "netns", self.router),
        )
        self._router_end("host", leg, ipv6=False)
        batch(
            None,
            f"addr add {leg.address[0]}/{leg.lengths[0]} dev {link}",
            f"link set {link} up",
            f"route add {self.claim.plan.network} via {leg.gateway[0]}",
        )

    def node_link(self, index: int, *, up: bool, ipv6: bool) -> None:
        """Pull or plug a node's cable; its routes go with the link and are added again with it."""
        place = f"n{index}"
        if not up:
            batch(self.router, f"link set {place} down")
            return
        leg = self.claim.plan.node(index)
        self._router_end(place, leg, ipv6=ipv6)
        via_v4, via_v6 = (
            f"route replace {net} via {hop}"
            for net, hop in zip(pods(index), leg.address, strict=True)
        )
        batch(self.router, via_v4, *([f"-6 {via_v6}"] if ipv6 else []))

    def remove_leg(self, place: str) -> None:
        """Remove a leg, the router's end first: a deleted namespace goes only some time later."""
        run("ip", "-n", self.router, "link", "del", place, check=False)
        deadline = time.monotonic() + 5
        while run("ip", "-n", self.router, "link", "show", place, check=False).returncode == 0:
            if time.monotonic() > deadline:
                raise RigError(f"link {place} of the router does not go")
            time.sleep(0.02)
        remove_netns(self.claim.netns(place))


def batch(netns: str | None, *commands: str) -> None:
    """Give ip(8) several commands; those for IPv6 begin with -6."""
    where = ["-n", netns] if netns else []
    for command in commands:
        run("ip", *where, *command.split())
