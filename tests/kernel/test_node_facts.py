"""The ruleset's changes, the node's addresses and settings, read from a real namespace."""

from __future__ import annotations

import select
import shutil
import socket
import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path

import pytest

import synsweep
from synsweep.conntrack.addresses import local_addresses
from synsweep.conntrack.ruleset import RulesetWatch
from synsweep.conntrack.sysctls import read_sysctls, table_size
from tests.conftest import needs
from tests.kernel.inject import established, inject
from tests.kernel.namespaces import Namespace

pytestmark = pytest.mark.kernel

RULE = ["-t", "nat", "-A", "PREROUTING", "-p", "tcp", "-j", "RETURN"]


def test_a_change_of_the_ruleset_is_told_once_with_who_made_it(namespace: Namespace) -> None:
    with RulesetWatch() as watch:
        assert watch.available
        assert (watch.changed(), watch.seen) == (False, False)
        namespace.run("nft", "add", "table", "ip", "ours")
        assert select.select([watch], [], [], 5)[0] == [watch]
        assert watch.changed()
        assert watch.programs == {"nft"}
        assert not watch.changed()
        assert watch.seen
        namespace.run("nft", "list", "ruleset")
        assert not watch.changed()


def test_iptables_nft_tells_and_iptables_legacy_does_not(namespace: Namespace) -> None:
    needs(shutil.which("iptables-nft") is not None, "iptables-nft")
    with RulesetWatch() as watch:
        namespace.run("iptables-nft", *RULE)
        assert watch.changed()
        assert watch.programs == {"iptables-nft"}
        namespace.run("iptables-nft-restore", "--noflush", given="*nat\n:KUBE-X - [0:0]\nCOMMIT\n")
        assert watch.changed()
        assert watch.programs == {"iptables-nft-re"}  # what fits into 15 characters
        needs(shutil.which("iptables-legacy") is not None, "iptables-legacy")
        namespace.run("iptables-legacy", *RULE)
        assert not watch.changed()


def test_another_namespaces_changes_are_none_of_ours(namespace: Namespace) -> None:
    assert namespace
    with RulesetWatch() as watch, Namespace("other") as other:
        other.run("nft", "add", "table", "ip", "theirs")
        assert not watch.changed()


def test_lost_notifications_count_as_a_change(namespace: Namespace) -> None:
    with RulesetWatch() as watch:
        with socket.socket(fileno=socket.dup(watch.fileno())) as same:
            same.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        commands = "\n".join(f"add table ip t{number}" for number in range(200))
        namespace.run("nft", "-f", "-", given=commands)
        assert watch.changed()
        assert watch.available
        namespace.run("nft", "add", "table", "ip", "later")
        assert watch.changed()


def test_a_watch_that_is_refused_says_so(namespace: Namespace) -> None:
    assert namespace
    script = (
        f"import sys; sys.path.insert(0, {str(Path(synsweep.__file__).parent.parent)!r})\n"
        "from synsweep.conntrack.ruleset import RulesetWatch\n"
        "watch = RulesetWatch()\n"
        "print(watch.available, watch.missing, watch.fileno(), watch.changed(), watch.seen)\n"
    )
    done = subprocess.run(
        ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-all", sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["False", "EPERM", "-1", "False", "False"]


def test_all_addresses_of_both_families_are_read_anew(namespace: Namespace) -> None:
    namespace.sysctl("net.ipv6.conf.default.dad_transmits", 0)
    assert local_addresses() == {ip_address("127.0.0.1"), ip_address("::1")}
    namespace.ip("link", "add", "one", "type", "veth", "peer", "name", "two")
    namespace.ip("link", "set", "one", "up")
    namespace.ip("addr", "add", "10.9.0.1/24", "dev", "one")
    namespace.ip("addr", "add", "10.9.1.1", "peer", "10.9.1.2/32", "dev", "two")
    namespace.ip("addr", "add", "fd00:9::1/64", "dev", "one", "nodad")
    found = local_addresses()
    for ours in ("10.9.0.1", "10.9.1.1", "fd00:9::1", "127.0.0.1", "::1"):
        assert ip_address(ours) in found
    assert ip_address("10.9.1.2") not in found  # the peer's
    namespace.ip("addr", "del", "10.9.0.1/24", "dev", "one")
    assert ip_address("10.9.0.1") not in local_addresses()


def test_hundreds_of_addresses_are_all_read(namespace: Namespace) -> None:
    namespace.run(
        "ip", "-batch", "-",
        given="\n".join(f"addr add 10.8.{n // 250}.{n % 250 + 1}/32 dev lo" for n in range(700)),
    )  # fmt: skip
    assert len([one for one in local_addresses() if str(one).startswith("10.8.")]) == 700


def test_settings_and_size_are_those_of_this_namespace(namespace: Namespace) -> None:
    namespace.sysctl("net.netfilter.nf_conntrack_tcp_timeout_syn_sent", 77)
    namespace.sysctl("net.ipv4.tcp_syn_retries", 3)
    settings = read_sysctls()
    assert settings["nf_conntrack_tcp_timeout_syn_sent"] == 77
    assert settings["tcp_syn_retries"] == 3
    assert set(settings) == {
        "nf_conntrack_tcp_timeout_syn_sent",
        "nf_conntrack_tcp_timeout_established",
        "nf_conntrack_tcp_timeout_close_wait",
        "nf_conntrack_tcp_loose",
        "tcp_syn_retries",
        "tcp_tw_reuse",
    }
    assert table_size().entries == 0
    inject(established(123))
    assert table_size().entries == 123
    assert table_size().buckets > 1000
