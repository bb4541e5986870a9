"""What really happened, seen without synsweep: conntrack(8), the wire, the clients themselves."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

from tests.cluster.workloads import PROGRAMS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.rig.node import Node

T = TypeVar("T")

ENTRY = re.compile(
    r"\btcp\s+6\s+(?P<timeout>\d+)\s+(?P<state>[A-Z_0-9]+)\s+"
    r"src=(?P<src>\S+) dst=(?P<dst>\S+) sport=(?P<sport>\d+) dport=(?P<dport>\d+)\s+"
    r"(?P<unreplied>\[UNREPLIED\]\s+)?"
    r"src=(?P<reply_src>\S+) dst=(?P<reply_dst>\S+) "
    r"sport=(?P<reply_sport>\d+) dport=(?P<reply_dport>\d+)"
    r"(?:.*\bid=(?P<id>\d+))?"
)
BY_A_PROGRAM = "[USERSPACE]"  # conntrack(8) on an entry that a netlink message has ended


class Place(Protocol):
    """Somewhere a command can be run: a node, a pod's network, the world outside."""

    def popen(self, *argv: str, **options: Any) -> subprocess.Popen[str]:
        """Start a command there."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One TCP line of `conntrack -L` or `conntrack -E`."""

    state: str
    unreplied: bool
    timeout: int  # seconds it has left
    number: int  # the entry's id; 0 where conntrack was not asked for it
    client: tuple[str, int]
    frontend: tuple[str, int]
    backend: tuple[str, int]
    line: str

    @property
    def half_open(self) -> bool:
        """SYN_SENT [UNREPLIED]: nobody has answered the client yet."""
        return self.state == "SYN_SENT" and self.unreplied

    @property
    def deleted(self) -> bool:
        """Whether this is the end of an entry, and a program's doing."""
        return BY_A_PROGRAM in self.line


def parse_entry(line: str) -> Seen | None:
    """Read one line of conntrack(8); None where it is not a TCP entry."""
    match = ENTRY.search(line)
    if match is None:
        return None
    part = match.groupdict()
    return Seen(
        state=part["state"],
        unreplied=bool(part["unreplied"]),
        timeout=int(part["timeout"]),
        number=int(part["id"] or 0),
        client=(part["src"], int(part["sport"])),
        frontend=(part["dst"], int(part["dport"])),
        backend=(part["reply_src"], int(part["reply_sport"])),
        line=line.strip(),
    )


def all_entries(node: Node) -> list[Seen]:
    """List the node's TCP entries, translated or not."""
    found: list[Seen] = []
    for family in ("ipv4", "ipv6"):
        listing = node.run("conntrack", "-L", "-f", family, "-p", "tcp", "-o", "id").stdout
        found += [seen for seen in map(parse_entry, listing.splitlines()) if seen]
    return found


def entries(node: Node, *, backend: str = "", frontend: str = "") -> list[Seen]:
    """List the node's DNATed TCP entries, optionally of one backend or frontend address only."""
    return [
        seen
        for seen in all_entries(node)
        if seen.frontend != seen.backend
        and (not backend or seen.backend[0] == backend)
        and (not frontend or seen.frontend[0] == frontend)
    ]


def half_open(node: Node, backend: str) -> list[Seen]:
    """List the node's half-open DNATed entries to one backend address."""
    return [seen for seen in entries(node, backend=backend) if seen.half_open]


@dataclass(frozen=True, slots=True)
class PodNetwork:
    """The network namespace of a pod, entered from its node."""

    node: Node
    pid: int

    def popen(self, *argv: str, **options: Any) -> subprocess.Popen[str]:
        """Start a command with the pod's network and the node's files."""
        return self.node.popen("nsenter", "-t", str(self.pid), "-n", "--", *argv, **options)

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a command with the pod's network."""
        return self.node.run("nsenter", "-t", str(self.pid), "-n", "--", *argv)


def pod_network(node: Node, pod: str, namespace: str) -> PodNetwork:
    """Find the running container of a pod on `node` by containerd's own labels."""
    labels = {
        "io.kubernetes.pod.name": pod,
        "io.kubernetes.pod.namespace": namespace,
        "io.cri-containerd.kind": "container",
    }
    query = ",".join(f'labels."{name}"=={value}' for name, value in labels.items())
    ids = node.run("ctr", "-n", "k8s.io", "containers", "ls", "-q", query).stdout.split()
    for line in node.run("ctr", "-n", "k8s.io", "tasks", "ls").stdout.splitlines():
        task, pid, status = [*line.split(), "", "", ""][:3]
        if task in ids and status == "RUNNING":
            return PodNetwork(node, int(pid))
    message = f"no running container of pod {namespace}/{pod} on {node.name}"
    raise LookupError(message)


class Told:
    """A process that tells what it sees in JSON lines; those so far, each with its time `t`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.lines: list[dict[str, Any]] = []
        self.process = process
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            text = line if isinstance(line, str) else line.decode()
            try:
                self.lines.append({"t": time.monotonic(), **json.loads(text)})
            except json.JSONDecodeError:
                self.lines.append({"event": "garbage", "text": text, "t": time.monotonic()})

    def wait_for(self, wanted: Callable[[dict[str, Any]], bool], timeout: float) -> dict[str, Any]:
        """Wait until a line is as wanted; raises TimeoutError with the last lines."""
        ends_at = time.monotonic() + timeout
        while time.monotonic() < ends_at:
            for line in list(self.lines):
                if wanted(line):
                    return line
            time.sleep(0.02)
        raise TimeoutError(f"nothing as wanted in {timeout} s; last: {self.lines[-3:]}")

    def stop(self) -> list[dict[str, Any]]:
        """End the program by closing its input: it may run behind an nsenter that forked."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(10)
        finally:
            self.process.kill()
        self._reader.join(10)
        if not self._reader.is_alive():
            self.process.stdout.close()
        return self.lines

    def __enter__(self) -> Self:
        """Be stopped at the end of a `with`."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.stop()


class Lines(Told):
    """A program of tests/cluster/programs, running somewhere."""

    def __init__(self, place: Place, program: str, *arguments: str) -> None:
        super().__init__(
            place.popen(
                sys.executable,
                "-u",
                str(PROGRAMS / program),
                *arguments,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        )


@dataclass(frozen=True, slots=True)
class FlowStory:
    """What one client flow of client.py saw, in order."""

    number: int
    lines: tuple[dict[str, Any], ...]

    @property
    def answers(self) -> tuple[str, ...]:
        """Who answered each request."""
        return tuple(line["who"] for line in self.lines if line["event"] == "response")

    @property
    def errors(self) -> tuple[str, ...]:
        """What went wrong, in the client's words."""
        return tuple(line["error"] for line in self.lines if line["event"] == "error")

    @property
    def connected_after(self) -> float | None:
        """Seconds from the first SYN until somebody answered."""
        started = next((line["t"] for line in self.lines if line["event"] == "connecting"), None)
        answered = next((line["t"] for line in self.lines if line["event"] == "connected"), None)
        return None if started is None or answered is None else answered - started


def stories(lines: list[dict[str, Any]]) -> list[FlowStory]:
    """Sort client.py's lines by flow."""
    by_flow: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for line in list(lines):
        if "flow" in line:
            by_flow[line["flow"]].append(line)
    return [FlowStory(number, tuple(each)) for number, each in sorted(by_flow.items())]


def eventually(check: Callable[[], T], timeout: float, what: str, every: float = 0.05) -> T:
    """Call `check` until it gives something true; raises TimeoutError naming `what`."""
    ends_at = time.monotonic() + timeout
    while True:
        found = check()
        if found:
            return found
        if time.monotonic() > ends_at:
            raise TimeoutError(f"waited {timeout} s in vain for {what}")
        time.sleep(every)


def syn_sent_to(packets: list[dict[str, Any]], address: str) -> Iterator[dict[str, Any]]:
    """Give the SYNs (no ACK) on the wire to one address."""
    return (line for line in list(packets) if line.get("flags") == "S" and line["dst"] == address)


def wait_programmed(node: Node, *addresses: str) -> None:
    """Wait until a node's kube-proxy knows new frontends and backends, of either family.

    A SYN that comes earlier is refused, or makes an entry without DNAT that keeps all its
    retransmits.
    """
    rules = ("sh", "-c", "iptables-save; ip6tables-save; nft list ruleset")

    def known() -> bool:
        said = node.run(*rules, check=False).stdout
        return all(address in said for address in addresses)

    eventually(known, 60, f"{', '.join(addresses)} in the rules of {node.name}", every=0.2)
