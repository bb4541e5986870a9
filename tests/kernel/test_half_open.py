"""Real SYNs to a backend that is gone: found, judged, deleted; the next SYN reaches a live one."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from synsweep.conntrack.addresses import local_addresses
from synsweep.core.cleanup import NodePort
from synsweep.core.flow import Status, TcpState
from synsweep.core.staleness import KeepReason, Outcome
from tests.kernel import lab as world
from tests.kernel.judging import address, condemn, delete, gone, keep_reason, sweep
from tests.kernel.lab import (
    CLIENT,
    DEAD,
    DEAD6,
    FRONTEND,
    FRONTEND6,
    LIVE,
    LIVE6,
    NODE,
    NODE6,
    NODE_INSIDE,
    OTHER,
    Lab,
    is_connected,
    settled,
)

if TYPE_CHECKING:
    from synsweep.conntrack.netlink import NetlinkTable

pytestmark = pytest.mark.kernel

FAMILIES = pytest.mark.parametrize(
    ("frontend", "dead", "live"),
    [
        pytest.param(FRONTEND, DEAD, LIVE, id="IPv4"),
        pytest.param(FRONTEND6, DEAD6, LIVE6, id="IPv6"),
    ],
)


@FAMILIES
def test_a_half_open_entry_is_listed_as_conntrack_shows_it(
    lab: Lab, table: NetlinkTable, frontend: str, dead: str, live: str
) -> None:
    lab.translate((frontend, dead))
    client = lab.connect(frontend)
    (entry,) = lab.wait_for_entries(table)
    assert str(entry.frontend) == frontend
    assert str(entry.backend) == dead != live
    assert entry.tcp_state is TcpState.SYN_SENT
    assert entry.is_dnat
    assert not entry.seen_reply
    assert entry.original.src_port == entry.reply.dst_port == client.getsockname()[1]
    assert 118 <= entry.timeout <= 120
    family = "ipv4" if entry.frontend.ip.version == 4 else "ipv6"
    shown = lab.node.run("conntrack", "-L", "-f", family, "-p", "tcp", "-o", "id")
    assert f"id={entry.id}" in shown
    assert "SYN_SENT" in shown
    assert "[UNREPLIED]" in shown


@FAMILIES
def test_after_the_delete_the_next_syn_reaches_a_live_backend(
    lab: Lab, table: NetlinkTable, frontend: str, dead: str, live: str
) -> None:
    lab.serve(live)
    lab.translate((frontend, dead))
    client = lab.connect(frontend)
    (entry,) = lab.wait_for_entries(table)
    lab.translate((frontend, live))
    requests = table.requests
    what = gone(frontend, dead)
    deletion = delete(table, condemn(entry, what), what)
    assert deletion.outcome is Outcome.DELETED
    assert table.requests - requests == 2  # one GET, one DELETE
    assert settled(lambda: is_connected(client), within=3)
    assert lab.entry(table, frontend, live, state=TcpState.ESTABLISHED).seen_reply


def test_without_the_delete_the_retransmits_keep_going_to_the_dead_backend(
    lab: Lab, table: NetlinkTable
) -> None:
    lab.serve(LIVE)
    lab.translate((FRONTEND, DEAD))
    client = lab.connect(FRONTEND)
    lab.wait_for_entries(table)
    lab.translate((FRONTEND, LIVE))
    assert not settled(lambda: is_connected(client), within=2.5)
    assert lab.entry(table, FRONTEND, DEAD, state=TcpState.SYN_SENT)


def test_a_reconnect_from_the_same_port_is_caught_by_the_old_entry_until_it_is_deleted(
    lab: Lab, table: NetlinkTable
) -> None:
    lab.serve(LIVE)
    lab.translate((FRONTEND, DEAD))
    world.reset([lab.connect(FRONTEND, source_port=40000)])
    (entry,) = lab.wait_for_entries(table)
    lab.translate((FRONTEND, LIVE))
    again = lab.connect(FRONTEND, source_port=40000)
    assert not settled(lambda: is_connected(again), within=0.5)
    what = gone(FRONTEND, DEAD)
    assert delete(table, condemn(entry, what), what).outcome is Outcome.DELETED
    assert settled(lambda: is_connected(again), within=3)


@FAMILIES
def test_a_client_on_the_host_itself(
    lab: Lab, table: NetlinkTable, frontend: str, dead: str, live: str
) -> None:
    for name in ("net.ipv4.ip_nonlocal_bind", "net.ipv6.ip_nonlocal_bind"):
        lab.node.sysctl(name, 1)
    lab.node.ip("route", "add", "10.96.0.0/16", "via", "10.102.0.2")
    lab.node.ip("-6", "route", "add", "fd00:96::/64", "via", "fd00:102::2")
    lab.translate((frontend, dead))
    lab.connect(frontend, where=lab.node)
    (entry,) = lab.wait_for_entries(table)
    assert entry.reply.src_ip == address(dead).ip != address(live).ip
    assert sweep(table, gone(frontend, dead)).deleted == 1


@pytest.mark.parametrize(
    ("node", "dead", "inside"),
    [
        pytest.param(NODE, DEAD, NODE_INSIDE, id="IPv4"),
        pytest.param(NODE6, DEAD6, "fd00:102::1", id="IPv6"),
    ],
)
def test_a_masqueraded_node_port_from_outside_is_found_by_its_reply_source(
    lab: Lab, table: NetlinkTable, node: str, dead: str, inside: str
) -> None:
    frontend = f"[{node}]:30080" if ":" in node else f"{node}:30080"
    lab.translate((frontend, dead), masquerade=True)
    lab.connect(frontend)
    (entry,) = lab.wait_for_entries(table)
    assert entry.backend == address(dead)
    assert entry.reply.dst_ip == ip_address(inside)  # not the client
    assert Status.SRC_NAT in entry.status
    what = gone(NodePort(30080), dead, node_addresses=local_addresses())
    assert sweep(table, what).deleted == 1
    elsewhere = gone(NodePort(30080), dead, node_addresses=frozenset())
    assert keep_reason(entry, elsewhere) is KeepReason.NOT_A_FRONTEND


def test_a_hairpin_is_found_by_its_reply_source(lab: Lab, table: NetlinkTable) -> None:
    lab.node.sysctl("net.ipv4.conf.all.send_redirects", 0)
    lab.translate((FRONTEND, DEAD), masquerade=True)
    lab.connect(FRONTEND, where=lab.backends)  # a pod that dials its own Service
    (entry,) = lab.wait_for_entries(table)
    assert entry.backend == address(DEAD)
    assert str(entry.reply.dst_ip) == NODE_INSIDE
    assert sweep(table, gone(FRONTEND, DEAD)).deleted == 1


def test_the_other_service_on_the_reused_address_and_direct_flows_are_kept(
    lab: Lab, table: NetlinkTable
) -> None:
    others = "10.96.0.20:80"
    lab.translate((FRONTEND, DEAD), (others, DEAD))
    lab.connect(FRONTEND)
    lab.connect(others)
    lab.connect(DEAD)  # no DNAT
    lab.wait_for_entries(table, 2)
    what = gone(FRONTEND, DEAD)
    swept = sweep(table, what)
    assert [str(one.condemned.entry.frontend) for one in swept.deletions] == [FRONTEND]
    assert swept.kept == {KeepReason.NOT_A_FRONTEND: 1}
    direct = lab.entry(table, DEAD, DEAD)
    assert keep_reason(direct, gone(DEAD, DEAD)) is KeepReason.NOT_DNATED


def test_other_peoples_dnat_to_the_gone_backend_is_kept(lab: Lab, table: NetlinkTable) -> None:
    host_port = f"{NODE}:8443"  # a hostPort, docker, a sidecar's redirect
    lab.translate((host_port, DEAD))
    lab.connect(host_port)
    lab.wait_for_entries(table)
    swept = sweep(table, gone(FRONTEND, DEAD), gone(NodePort(30080), DEAD))
    assert (swept.deleted, swept.kept) == (0, {KeepReason.NOT_A_FRONTEND: 1})
    assert lab.entry(table, host_port, DEAD)


def test_half_open_entries_to_other_backends_are_kept(lab: Lab, table: NetlinkTable) -> None:
    lab.drop(lab.backends, "tcp flags & (syn | ack) == (syn | ack)")
    lab.serve(LIVE)
    lab.translate((FRONTEND, LIVE))
    client = lab.connect(FRONTEND)
    (entry,) = lab.wait_for_entries(table)
    what = gone(FRONTEND, DEAD, OTHER)
    assert keep_reason(entry, what) is KeepReason.NOT_A_GONE_BACKEND
    swept = sweep(table, what)
    assert swept.deleted == 0
    lab.drop(lab.backends, "")
    assert settled(lambda: is_connected(client), within=3)
    assert str(entry.original.src_ip) == CLIENT


def test_entries_of_both_families_are_in_one_listing(lab: Lab, table: NetlinkTable) -> None:
    lab.translate((FRONTEND, DEAD), (FRONTEND6, DEAD6))
    lab.connect(FRONTEND)
    lab.connect(FRONTEND6)
    requests = table.requests
    listing = table.entries()
    assert table.requests - requests == 1
    found = lab.wait_for_entries(table, 2)
    assert {str(one.backend) for one in found} == {DEAD, DEAD6}
    assert listing.skipped == 0


def test_a_family_that_fails_does_not_stop_the_other(lab: Lab, table: NetlinkTable) -> None:
    # IPv6 entries that cannot be addressed: a zone for one direction only.
    lab.translate(
        (FRONTEND, DEAD),
        (FRONTEND6, DEAD6),
        more="""chain zones { type filter hook prerouting priority -300
            meta nfproto ipv6 ct original zone set 7
        }""",
    )
    lab.connect(FRONTEND6)
    assert settled(lambda: table.entries().skipped == 1)
    lab.connect(FRONTEND)
    lab.wait_for_entries(table)
    swept = sweep(table, gone(FRONTEND, DEAD), gone(FRONTEND6, DEAD6))
    assert swept.deleted == 1
    assert swept.listing.skipped_reasons == {"DirectionalZone": 1}
    lab.node.sysctl("net.ipv6.conf.all.disable_ipv6", 1)
    lab.connect(FRONTEND)
    lab.wait_for_entries(table)
    assert sweep(table, gone(FRONTEND, DEAD), gone(FRONTEND6, DEAD6)).deleted == 1
