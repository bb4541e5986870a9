"""`make demo`: the report played twice on a real three-node cluster, without and with synsweep.

Settings by environment: COOLDOWN (seconds between a backend's end and its IP's next owner; default
3, the AWS VPC CNI's is 30), PROXY_MODE (iptables or nftables). Exit code 0: without synsweep
clients reached the wrong pod and with it none did; 1: anything else; 2: a setting is wrong;
4: this machine lacks something the cluster needs.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass

from tests.cluster import installation
from tests.cluster.reuse import CLIENT_NODE, STRANGER, Outcome, Play, Stage, Way
from tests.rig import images
from tests.rig.cluster import Cluster, build
from tests.rig.errors import NeedsMissing, RigError

WHAT = {
    "retransmit": "one connect(), the kernel repeats the SYN",
    "reconnect": "connect() again and again from the same source port",
}


def say(text: str = "") -> None:
    """Print one line at once: the demo is watched while it runs."""
    print(text, flush=True)  # noqa: T201


@dataclass(slots=True)
class Timeline:
    """Prints what happens, with the seconds since the act began."""

    began_at: float = 0.0

    def start(self, title: str) -> None:
        """Begin an act."""
        self.began_at = time.monotonic()
        say(f"\n=== {title}")

    def tell(self, text: str) -> None:
        """Print one line of the act."""
        say(f"  {time.monotonic() - self.began_at:6.1f} s  {text}")


def read_settings() -> tuple[float, str]:
    """Read COOLDOWN and PROXY_MODE; ValueError names the setting, its value, what is allowed."""
    raw = os.environ.get("COOLDOWN") or "3"
    try:
        cooldown = float(raw)
    except ValueError:
        cooldown = -1.0
    if not 1 <= cooldown <= 60:
        raise ValueError(f"COOLDOWN={raw}: allowed are 1 to 60 seconds")
    mode = os.environ.get("PROXY_MODE") or "iptables"
    if mode not in ("iptables", "nftables"):
        raise ValueError(f"PROXY_MODE={mode}: allowed are iptables and nftables")
    return cooldown, mode


def tell_clients(outcome: Outcome) -> None:
    """Print what the clients saw whose SYN had gone to the dead pod."""
    for way in outcome.flows:
        stuck = outcome.of_stuck(way)
        say(f"\n  clients of the way '{way}' ({WHAT[way]}): {len(stuck)} SYNs met the dead pod")
        for flow in stuck[:4]:
            tell_flow(flow.number, flow.connected_after, flow.answers)
        if len(stuck) > 4:
            say(f"    ... and {len(stuck) - 4} more")


def tell_flow(number: int, after: float | None, answers: tuple[str, ...]) -> None:
    """Print one client in one line."""
    if after is None:
        say(f"    client {number}: never connected")
        return
    shown = " ".join("404" if who == STRANGER else "200" for who in answers[:10])
    whom = "THE WRONG POD" if STRANGER in answers else "a live backend"
    say(f"    client {number}: connected after {after:4.1f} s to {whom}; keep-alive: {shown}")


def act(stage: Stage, line: Timeline, title: str, play: Play) -> Outcome:
    """Play once and print it."""
    line.start(title)
    stage.tell = line.tell
    outcome = stage.perform(play)
    tell_clients(outcome)
    for seen in outcome.established_wrong[:1]:
        say(f"\n  conntrack on the clients' node: {seen.line}")
    return outcome


def show_operator(cluster: Cluster) -> None:
    """Print what the operator did, as its user sees it."""
    node = cluster.node(CLIENT_NODE).name
    logs = cluster.kubectl(
        "-n", installation.NAMESPACE, "logs", "daemonset/synsweep-node", "--all-pods",
        "--since=120s", "--prefix=false", check=False,
    ).stdout  # fmt: skip
    deletions = [each for each in logs.splitlines() if '"outcome": "Deleted"' in each]
    say(f"\n  synsweep deleted {len(deletions)} entries, a JSON log line each; the first:")
    for each in deletions[:1]:
        say(f"    {each}")
    say(f"\n  $ kubectl get ctp,ctc,ctn -A   (the clients run on {node})")
    for each in cluster.kubectl("get", "ctp,ctc,ctn", "-A").stdout.splitlines():
        say(f"    {each}")


def verdict(without: Outcome, with_us: Outcome, ways: tuple[Way, ...]) -> int:
    """Print the comparison; 0 where the bug was shown and then prevented."""
    say("\n=== Verdict")
    good = True
    for way in ways:
        was, stuck_was = len(without.wrong(way)), len(without.of_stuck(way))
        now, stuck_now = len(with_us.wrong(way)), len(with_us.of_stuck(way))
        served = sum(1 for flow in with_us.of_stuck(way) if flow.answers)
        say(
            f"  {way:10}: clients that ended at the wrong pod: "
            f"without synsweep {was} of {stuck_was}, with synsweep {now} of {stuck_now} "
            f"({served} of them served by a live backend)"
        )
        good = good and was > 0 and now == 0 and served == stuck_now
    say("  " + ("PASS: no client reached the IP's next owner." if good else "FAIL"))
    return 0 if good else 1


def main() -> int:
    """Run the demo; returns the exit code."""
    try:
        cooldown, mode = read_settings()
    except ValueError as error:
        say(f"demo: {error}")
        return 2
    play = Play(cooldown=cooldown, watch=max(12.0, cooldown))
    say(f"A real Kubernetes of three nodes on this machine; kube-proxy mode {mode}.")
    try:
        build()
        operator = images.operator()
        with Cluster.up(nodes=3, proxy_mode=mode, images=[operator], name="demo") as cluster:
            stage = Stage(cluster)
            say("Installing synsweep: kubectl apply -k manifests/base")
            installation.install(cluster)
            stage.build()
            installation.apply_policy(cluster)
            installation.set_mode(cluster, "Disabled")
            line = Timeline()
            without = act(stage, line, "Act 1: policy Disabled, nothing is cleaned", play)
            installation.set_mode(cluster, "Enforce")
            with_us = act(stage, line, "Act 2: policy cluster-default (Enforce)", play)
            show_operator(cluster)
            code = verdict(without, with_us, play.ways)
            say("\nTaking the cluster down; nothing is left behind.")
    except NeedsMissing as error:
        say(f"demo: {error}")
        return 4
    except (RigError, TimeoutError, LookupError, RuntimeError) as error:
        say(f"demo: {error}")
        return 1
    return code


if __name__ == "__main__":
    sys.exit(main())
