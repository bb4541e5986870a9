"""The report, played: a backend dies, its IP goes to another Service, old SYNs reach the stranger.

Every step is ordered by what was observed (the slice, the wire, conntrack), and only the cooldown
by the clock. kube-proxy on the client's node is held (SIGSTOP) for a moment around the removal: it
stands for the 0.4 to 1.5 s that a kube-proxy with 2,000 Services needs to follow, and makes the
window certain instead of likely.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from tests.cluster import workloads
from tests.cluster.installation import wait_account
from tests.cluster.observers import (
    FlowStory,
    Lines,
    Place,
    Seen,
    entries,
    eventually,
    half_open,
    pod_network,
    stories,
    syn_sent_to,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.rig.cluster import Cluster

SHOP = "shop"
VICTIM, SURVIVOR, STRANGER = "shop-victim", "shop-survivor", "stranger"
CLIENT_NODE, VICTIM_NODE, SURVIVOR_NODE = 1, 2, 3

Way = Literal["retransmit", "reconnect"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Play:
    """One run: how long the cooldown is and who the clients are."""

    cooldown: float = 3.0
    flows: int = 8
    ways: tuple[Way, ...] = ("retransmit", "reconnect")
    watch: float = 10.0  # seconds that the clients go on after the IP serves again
    first_source_port: int = 41000


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What the clients, the wire and conntrack showed."""

    victim_ip: str
    stuck: dict[Way, set[int]] = field(default_factory=dict)  # flows whose SYN went to the victim
    flows: dict[Way, list[FlowStory]] = field(default_factory=dict)
    reused_after: float = 0.0  # seconds from the removal until the IP served the stranger
    left_before_reuse: list[Seen] = field(default_factory=list)  # half-open, to the victim
    established_wrong: list[Seen] = field(default_factory=list)

    def wrong(self, way: Way) -> list[FlowStory]:
        """Give the stuck flows that the stranger answered."""
        return [f for f in self.of_stuck(way) if STRANGER in f.answers]

    def of_stuck(self, way: Way) -> list[FlowStory]:
        """Give the flows whose SYN had gone to the victim."""
        return [f for f in self.flows[way] if f.number in self.stuck[way]]


@dataclass(slots=True)
class Stage:
    """The Services, the pods and the client of the play; made once for a cluster."""

    cluster: Cluster
    tell: Callable[[str], None] = lambda _text: None

    def build(self) -> None:
        """Make the namespace, both Services, the survivor and the client pod."""
        victim_node = self.cluster.node(VICTIM_NODE)
        prefix = victim_node.pod_cidr.rsplit(".", 1)[0]
        victim_node.limit_pod_ips([f"{prefix}.77"])
        survivor = workloads.Backend(
            name=SURVIVOR, app="shop", node=self.cluster.node(SURVIVOR_NODE).name
        )
        self.cluster.apply(workloads.as_yaml(workloads.namespace(SHOP), workloads.programs(SHOP)))
        wait_account(self.cluster, SHOP)
        self.cluster.apply(
            workloads.as_yaml(
                workloads.service("shop", SHOP, app="shop"),
                workloads.service(STRANGER, SHOP, app=STRANGER),
                survivor.pod(SHOP),
                workloads.idle_pod("client", SHOP, node=self.cluster.node(CLIENT_NODE).name),
            )
        )
        self.wait_ready(SURVIVOR, "client")

    def remove(self) -> None:
        """Take the namespace away again, and let pods have any IP of the node."""
        self.cluster.node(VICTIM_NODE).limit_pod_ips(())
        self.cluster.kubectl("delete", "namespace", SHOP, "--wait=true", "--timeout=60s")

    def wait_ready(self, *pods: str) -> None:
        """Wait until the pods are Ready."""
        names = [f"pod/{pod}" for pod in pods]
        self.cluster.kubectl("-n", SHOP, "wait", "--for=condition=Ready", *names, "--timeout=60s")

    @property
    def frontend(self) -> str:
        """The shop's cluster IP."""
        service = self.cluster.get_json("-n", SHOP, "service", "shop")
        return str(service["spec"]["clusterIP"])

    def pod_ip(self, pod: str) -> str:
        """The pod's IP."""
        return str(self.cluster.get_json("-n", SHOP, "pod", pod)["status"]["podIP"])

    def endpoints(self, service: str) -> set[str]:
        """Every address in the Service's slices."""
        slices = self.cluster.get_json(
            "-n", SHOP, "endpointslices", "-l", f"kubernetes.io/service-name={service}"
        )
        return {
            address
            for each in slices["items"]
            for endpoint in each.get("endpoints") or ()
            for address in endpoint["addresses"]
        }

    def client(self) -> Place:
        """The network of the client pod."""
        return pod_network(self.cluster.node(CLIENT_NODE), "client", SHOP)

    def start_victim(self) -> str:
        """Start the backend that will die; give its IP once kube-proxy chooses it."""
        node = self.cluster.node(VICTIM_NODE)
        victim = workloads.Backend(name=VICTIM, app="shop", node=node.name, grace=0)
        self.cluster.apply(workloads.as_yaml(victim.pod(SHOP)))
        self.wait_ready(VICTIM)
        address = self.pod_ip(VICTIM)
        with Lines(
            self.client(), "client.py", "--to", self.frontend, "--port", "80", "--flows", "2",
            "--again", "--requests", "1", "--every", "0.02", "--seconds", "30",
        ) as probe:  # fmt: skip
            probe.wait_for(lambda line: line.get("who") == VICTIM, 30)
        return address

    def hold_packets_to(self, address: str) -> None:
        """Let packets to a dead pod vanish without an answer, as on a network that lost it."""
        node = self.cluster.node(VICTIM_NODE)
        family = "ip6" if ":" in address else "ip"
        node.run("nft", "add table inet ss_dead")
        node.run("nft", "add chain inet ss_dead f { type filter hook forward priority 0 ; }")
        node.run("nft", f"add rule inet ss_dead f {family} daddr {address} drop")

    def release_packets(self) -> None:
        """Let packets through again."""
        self.cluster.node(VICTIM_NODE).run("nft", "delete table inet ss_dead", check=False)

    def kill_victim(self, address: str) -> float:
        """Force-delete the victim; give the moment (monotonic) its address left the slices."""
        self.hold_packets_to(address)
        self.cluster.kubectl(
            "-n", SHOP, "delete", "pod", VICTIM, "--force", "--grace-period=0", "--wait=false"
        )
        eventually(
            lambda: address not in self.endpoints("shop"), 30, "the slice to lose the victim"
        )
        return time.monotonic()

    def start_stranger(self, address: str) -> None:
        """Give the victim's IP to a pod of the other Service, which answers 404 on that port."""
        stranger = workloads.Backend(
            name=STRANGER, app=STRANGER, node=self.cluster.node(VICTIM_NODE).name, status=404,
            grace=0,
        )  # fmt: skip
        self.cluster.apply(workloads.as_yaml(stranger.pod(SHOP)))
        self.wait_ready(STRANGER)
        given = self.pod_ip(STRANGER)
        if given != address:
            raise RuntimeError(f"the stranger got {given}, not the victim's {address}")

    def end_stranger(self) -> None:
        """Take the stranger away and wait until its IP is free."""
        self.cluster.kubectl(
            "-n", SHOP, "delete", "pod", STRANGER, VICTIM, "--force", "--grace-period=0",
            "--ignore-not-found", "--wait=true",
        )  # fmt: skip

    def start_clients(self, play: Play) -> dict[Way, Lines]:
        """Start the clients of each way into the bug, each with its own source ports."""
        seconds = play.cooldown + play.watch + 60
        return {
            way: Lines(
                self.client(), "client.py", "--to", self.frontend, "--port", "80",
                "--mode", way, "--flows", str(play.flows), "--seconds", str(seconds),
                "--first-source-port", str(play.first_source_port + 1000 * number),
            )
            for number, way in enumerate(play.ways)
        }  # fmt: skip

    def perform(self, play: Play) -> Outcome:
        """Play it once, and clean up after it whatever happened."""
        clients: dict[Way, Lines] = {}
        wire: Lines | None = None
        proxy = self.cluster.node(CLIENT_NODE)
        try:
            outcome = Outcome(victim_ip=self.start_victim())
            self.tell(f"shop-victim serves on {outcome.victim_ip}:{workloads.BACKEND_PORT}")
            wire = Lines(proxy, "packets.py", "--interface", "eth0")
            wire.wait_for(lambda line: line.get("event") == "listening", 10)
            proxy.freeze_service("kube-proxy")
            removed_at = self.kill_victim(outcome.victim_ip)
            self.tell("shop-victim is force-deleted; its IP has left the EndpointSlice")
            clients = self.start_clients(play)
            self.see_stuck(play, outcome, wire)
            proxy.thaw_service("kube-proxy")
            self.tell("kube-proxy on the client's node follows: new connections avoid the victim")
            self.wait_for_cooldown(play, outcome, removed_at)
            self.watch(play, outcome, clients)
        finally:
            proxy.thaw_service("kube-proxy")
            outcome_lines = {way: each.stop() for way, each in clients.items()}
            if wire is not None:
                wire.stop()
            self.release_packets()
            self.end_stranger()
        outcome.flows = {way: stories(lines) for way, lines in outcome_lines.items()}
        return outcome

    def see_stuck(self, play: Play, outcome: Outcome, wire: Lines) -> None:
        """Read off the wire which flows' SYNs went to the dead pod; there must be some each way."""

        def ports_of(way: Way) -> set[int]:
            first = play.first_source_port + 1000 * play.ways.index(way)
            sent = {line["sport"] for line in syn_sent_to(wire.lines, outcome.victim_ip)}
            return {port - first for port in sent if first <= port < first + play.flows}

        eventually(lambda: all(ports_of(way) for way in play.ways), 10, "SYNs to the dead pod")
        time.sleep(0.5)  # all flows have started: each sends its first SYN at once
        outcome.stuck = {way: ports_of(way) for way in play.ways}
        left = half_open(self.cluster.node(CLIENT_NODE), outcome.victim_ip)
        self.tell(f"SYNs of {sum(map(len, outcome.stuck.values()))} clients went to the dead pod")
        if left:
            self.tell(f"conntrack keeps them pointed there: {left[0].line}")
        else:
            self.tell("conntrack has none of these entries any more")

    def wait_for_cooldown(self, play: Play, outcome: Outcome, removed_at: float) -> None:
        """Wait out the CNI's cooldown, then give the IP to the stranger."""
        time.sleep(max(0.0, removed_at + play.cooldown - time.monotonic()))
        outcome.left_before_reuse = half_open(self.cluster.node(CLIENT_NODE), outcome.victim_ip)
        self.tell(
            f"{play.cooldown:.0f} s cooldown over; half-open entries to {outcome.victim_ip}: "
            f"{len(outcome.left_before_reuse)}"
        )
        self.start_stranger(outcome.victim_ip)
        self.release_packets()
        outcome.reused_after = time.monotonic() - removed_at
        self.tell(f"{outcome.victim_ip} now belongs to pod stranger, which answers 404")

    def watch(self, play: Play, outcome: Outcome, clients: dict[Way, Lines]) -> None:
        """Let the clients go on; keep what conntrack shows of flows to the stranger."""
        ends_at = time.monotonic() + play.watch
        while time.monotonic() < ends_at:
            if all(
                outcome.stuck[way]
                <= {f.number for f in stories(lines.lines) if len(f.answers) >= 5}
                for way, lines in clients.items()
            ):
                break
            time.sleep(0.2)
        node = self.cluster.node(CLIENT_NODE)
        outcome.established_wrong = [
            seen
            for seen in entries(node, backend=outcome.victim_ip, frontend=self.frontend)
            if seen.state == "ESTABLISHED"
        ]
