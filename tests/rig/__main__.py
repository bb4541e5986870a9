"""`python -m tests.rig up | down | status | build`: a cluster to work with by hand."""

from __future__ import annotations

import argparse
import os
import sys

from tests.rig import binaries, claims, cluster, images
from tests.rig.errors import RigError
from tests.rig.places import say

UNUSABLE = 1
USAGE = 2


def main() -> int:
    """Do what the command line says, and return the exit code."""
    arguments = _parser().parse_args()
    try:
        if arguments.command == "up":
            up(arguments.name, arguments.nodes, arguments.proxy_mode)
        elif arguments.command == "down":
            down(claims.names() if arguments.all else (arguments.name,))
        elif arguments.command == "status":
            status()
        else:
            cluster.build()
            say("all that a cluster needs is in the cache")
    except RigError as error:
        say(str(error))
        return UNUSABLE
    except KeyboardInterrupt:
        say("interrupted")
        return UNUSABLE
    return 0


def up(name: str, nodes: int, proxy_mode: str) -> None:
    """Bring up a cluster that stays, with the operator's image, and say how to use it."""
    claims.refuse_if_used(name)
    cluster.refuse_bad(nodes, proxy_mode)
    cluster.build(operator=False)
    archive = images.operator()
    made = cluster.Cluster.start(nodes=nodes, proxy_mode=proxy_mode, archives=[archive], name=name)
    made.control_plane.claim.journal.note("detached")
    sys.stdout.write(
        f"Ready: {nodes} node(s), kube-proxy in {proxy_mode} mode. To use the cluster:\n"
        f"  export KUBECONFIG={made.kubeconfig}\n"
        f"  {binaries.path('kubectl')} get nodes\n"
        f"The operator's image is on all nodes: kubectl apply -k manifests/base\n"
        f"A shell in a node:  nsenter -t {made.node(1).pid} -m -u -n -i -p  (node1)\n"
        f"To take it down:    make cluster-down\n"
    )


def down(names: tuple[str, ...]) -> None:
    """Take clusters down, and with them whatever a crash has left."""
    for name in names:
        if name not in claims.names():
            say(f"cluster {name} is not up")
            continue
        if owner := None if claims.is_detached(name) else claims.owner_of(name):
            raise RigError(f"cluster {name} is in use by process {owner.pid}: end that first")
        claims.release(name)
        say(f"cluster {name} is down")


def status() -> None:
    """List the clusters that are up or were left by a crash."""
    for name in claims.names():
        if claims.is_detached(name):
            said = "up"
        elif owner := claims.owner_of(name):
            said = f"in use by process {owner.pid}"
        else:
            said = f"left by a crash: python -m tests.rig down --name {name}"
        sys.stdout.write(f"{name}: {said}\n")
    if not claims.names():
        sys.stdout.write("no cluster is up\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.rig", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    name = cluster.default_name("main")
    for command, what in (
        ("up", "bring a cluster up and leave it up"),
        ("down", "take it down, and whatever a crash has left of it"),
        ("status", "list clusters"),
        ("build", "install and build all that a cluster needs, into the cache"),
    ):
        sub = commands.add_parser(command, help=what, description=what)
        if command in {"up", "down"}:
            sub.add_argument("--name", default=name, help=f"its name (RIG_NAME; {name})")
        if command == "down":
            sub.add_argument("--all", action="store_true", help="all clusters of this machine")
        if command == "up":
            count = os.environ.get("NODES") or "3"
            mode = os.environ.get("PROXY_MODE") or "iptables"
            sub.add_argument("--nodes", type=int, default=count, help=f"how many ({count})")
            sub.add_argument(
                "--proxy-mode",
                choices=cluster.PROXY_MODES,
                default=mode,
                help=f"kube-proxy's mode ({mode})",
            )
    return parser


if __name__ == "__main__":
    sys.exit(main())
