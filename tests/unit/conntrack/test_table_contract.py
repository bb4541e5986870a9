"""One contract, two tables: the kernel's, and the one in memory that unit tests stand on."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, Protocol

import pytest

from synsweep.conntrack.memory import MemoryTable
from synsweep.conntrack.netlink import NetlinkTable
from synsweep.conntrack.stall import DumpMode
from synsweep.conntrack.table import ConntrackUnavailable
from synsweep.core.flow import IPPROTO_UDP, ConntrackEntry, FlowTuple, Status, TcpState
from synsweep.core.staleness import CondemnedEntry, KeepReason, Outcome
from tests.kernel.inject import Flow, flow, inject
from tests.kernel.judging import address, condemn, delete, gone, sweep
from tests.kernel.namespaces import Namespace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from synsweep.conntrack.table import ConntrackTable

STALE = gone("10.96.0.10:80", "10.2.0.9:8080")
STALE6 = gone("[fd00:96::10]:80", "[fd00:2::9]:8080")
HALF_OPEN = flow("10.1.0.1", 1000, "10.96.0.10", "10.2.0.9")
HALF_OPEN6 = flow("fd00:1::1", 1000, "fd00:96::10", "fd00:2::9")
ESTABLISHED = flow(
    "10.1.0.1", 1001, "10.96.0.10", "10.2.0.2", state=TcpState.ESTABLISHED, answered=True
)


class World(Protocol):
    """A table and the means to fill it from behind."""

    @property
    def table(self) -> ConntrackTable: ...
    @property
    def requests(self) -> int: ...
    def put(self, *flows: Flow) -> None: ...
    def drop(self, entry: ConntrackEntry) -> None: ...


class InMemory:
    """The memory table, filled with what the kernel would make of a flow."""

    def __init__(self) -> None:
        self.table = MemoryTable()

    @property
    def requests(self) -> int:
        return self.table.requests

    def put(self, *flows: Flow) -> None:
        for one in flows:
            self.table.put(as_entry(one))

    def drop(self, entry: ConntrackEntry) -> None:
        self.table.drop(entry)


class InKernel:
    """The kernel's table of a private namespace."""

    def __init__(self, mode: DumpMode | None) -> None:
        self.table = NetlinkTable(mode=mode)

    @property
    def requests(self) -> int:
        return self.table.requests

    def put(self, *flows: Flow) -> None:
        inject(flows)

    def drop(self, entry: ConntrackEntry) -> None:
        judged = condemn(entry, gone(str(entry.frontend), str(entry.backend)))
        with NetlinkTable() as another:
            assert another.delete(judged, lambda _: None).outcome is Outcome.DELETED


def as_entry(one: Flow) -> ConntrackEntry:
    """What ctnetlink shows of a flow that it was given."""
    there = FlowTuple(
        src_ip=one.client,
        src_port=one.client_port,
        dst_ip=one.frontend,
        dst_port=one.frontend_port,
    )
    back = FlowTuple(
        src_ip=one.backend or one.frontend,
        src_port=one.backend_port if one.backend else one.frontend_port,
        dst_ip=one.client,
        dst_port=one.client_port,
    )
    status = Status.CONFIRMED | Status.DST_NAT_DONE
    status |= Status.DST_NAT if one.backend else Status(0)
    status |= Status.SEEN_REPLY | Status.ASSURED if one.answered else Status(0)
    return ConntrackEntry(
        id=0,
        zone=one.zone,
        protocol=one.protocol,
        original=there,
        reply=back,
        tcp_state=None if one.protocol == IPPROTO_UDP else one.state,
        status=status,
        timeout=one.timeout,
    )


@pytest.fixture(
    params=[
        "memory",
        pytest.param("netlink", marks=pytest.mark.kernel),
        pytest.param("netlink-filtered", marks=pytest.mark.kernel),
        pytest.param("netlink-streamed", marks=pytest.mark.kernel),
    ]
)
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    name, _, mode = request.param.partition("-")
    if name == "memory":
        yield InMemory()
        return
    with contextlib.ExitStack() as stack:
        namespace = stack.enter_context(Namespace("contract"))
        stack.enter_context(namespace.entered())
        kernel = InKernel(DumpMode(mode) if mode else None)
        stack.enter_context(kernel.table)
        yield kernel


def test_an_empty_table_lists_nothing(world: World) -> None:
    listing = world.table.entries()
    assert (listing.entries, listing.listed, listing.skipped) == ((), 0, 0)
    assert world.requests == 1


def test_a_half_open_dnated_entry_of_each_family_is_listed_as_it_is(world: World) -> None:
    world.put(HALF_OPEN, HALF_OPEN6, ESTABLISHED)
    found = {int(one.original.src_ip.version): one for one in world.table.entries().entries}
    assert set(found) == {4, 6}
    for version, one in ((4, HALF_OPEN), (6, HALF_OPEN6)):
        listed, expected = found[version], as_entry(one)
        assert (listed.original, listed.reply) == (expected.original, expected.reply)
        assert (listed.tcp_state, listed.zone, listed.protocol) == (TcpState.SYN_SENT, 0, 6)
        assert listed.is_dnat
        assert not listed.seen_reply
        assert listed.timeout in (99, 100)
        assert listed.id


def test_other_zones_are_listed_and_unanswered_ones_of_any_tcp_state(world: World) -> None:
    world.put(
        replace(HALF_OPEN, zone=7),
        replace(HALF_OPEN, client_port=5, state=TcpState.ESTABLISHED),
    )
    found = world.table.entries().entries
    assert {(one.zone, one.tcp_state) for one in found} == {
        (7, TcpState.SYN_SENT),
        (0, TcpState.ESTABLISHED),
    }


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(ESTABLISHED, id="an established one"),
        pytest.param(replace(HALF_OPEN, answered=True), id="an answered one"),
        pytest.param(replace(HALF_OPEN, backend=None), id="one without DNAT"),
        pytest.param(replace(HALF_OPEN, protocol=IPPROTO_UDP), id="UDP"),
    ],
)
def test_what_is_not_half_open_and_dnated_is_not_listed(world: World, other: Flow) -> None:
    world.put(other)
    assert world.table.entries().entries == ()
    assert world.table.entries(frozenset({address("10.9.9.9:1")})).entries == ()


def test_half_open_entries_to_other_backends_are_only_counted_where_some_are_named(
    world: World,
) -> None:
    world.put(
        HALF_OPEN,
        HALF_OPEN6,
        ESTABLISHED,
        replace(HALF_OPEN, client_port=2, backend_port=9),
        replace(HALF_OPEN, client_port=3, backend=ip_address("10.2.0.8")),
        replace(HALF_OPEN, client_port=4, backend=ip_address("10.2.0.8"), zone=7),
        replace(HALF_OPEN, client_port=5, backend=ip_address("10.2.0.8"), protocol=IPPROTO_UDP),
        replace(HALF_OPEN6, client_port=6, backend=ip_address("fd00:2::8")),
    )
    listing = world.table.entries(among=frozenset({address("10.2.0.9:8080")}))
    assert [str(one.backend) for one in listing.entries] == ["10.2.0.9:8080"]
    assert listing.others == 5
    both = frozenset({address("10.2.0.9:8080"), address("[fd00:2::9]:8080")})
    assert len(world.table.entries(among=both).entries) == 2
    assert world.table.entries(among=frozenset()).others == 6
    asked = world.table.entries(frozenset({address("10.2.0.2:8080")}), among=frozenset())
    assert (len(asked.entries), asked.others) == (1, 6)
    assert world.table.entries().others == 0


def test_asked_for_backends_are_listed_in_any_state_but_only_tcp(world: World) -> None:
    world.put(
        HALF_OPEN,
        ESTABLISHED,
        replace(ESTABLISHED, client_port=6, state=TcpState.TIME_WAIT),
        replace(ESTABLISHED, client_port=7, backend_port=9),
        replace(ESTABLISHED, client_port=8, protocol=IPPROTO_UDP),
    )
    found = world.table.entries(frozenset({address("10.2.0.2:8080")})).entries
    assert {one.tcp_state for one in found} == {
        TcpState.SYN_SENT,
        TcpState.ESTABLISHED,
        TcpState.TIME_WAIT,
    }
    assert len(found) == 3


def listed(world: World, one: Flow = HALF_OPEN) -> ConntrackEntry:
    world.put(one)
    (entry,) = world.table.entries().entries
    return entry


def test_a_judged_entry_is_deleted_with_two_requests(world: World) -> None:
    for one, what in ((HALF_OPEN, STALE), (HALF_OPEN6, STALE6)):
        entry = listed(world, one)
        world.put(replace(ESTABLISHED, client_port=one.client.version))
        before = world.requests
        deletion = delete(world.table, condemn(entry, what), what)
        assert (deletion.outcome, deletion.kept, deletion.error) == (Outcome.DELETED, None, "")
        assert deletion.entry is not None
        assert deletion.entry.id == entry.id
        assert world.requests - before == 2
        assert world.table.entries().entries == ()


def test_an_entry_that_is_gone_is_already_gone_with_one_request(world: World) -> None:
    entry = listed(world)
    world.drop(entry)
    before = world.requests
    deletion = delete(world.table, condemn(entry, STALE), STALE)
    assert (deletion.outcome, deletion.entry) == (Outcome.ALREADY_GONE, None)
    assert world.requests - before == 1


def test_an_entry_with_another_id_in_its_place_is_kept_as_replaced(world: World) -> None:
    entry = listed(world)
    successor = replace(entry, id=entry.id ^ 1)
    deletion = delete(world.table, condemn(successor, STALE), STALE)
    assert (deletion.outcome, deletion.kept) == (Outcome.KEPT, KeepReason.REPLACED)
    assert deletion.entry is not None
    assert deletion.entry.id == entry.id
    assert len(world.table.entries().entries) == 1


def test_another_frontends_flow_in_its_place_is_kept_as_replaced(world: World) -> None:
    entry = listed(world)
    world.drop(entry)
    world.put(replace(HALF_OPEN, frontend=ip_address("10.96.0.20")))
    deletion = delete(world.table, condemn(entry, STALE), STALE)
    assert (deletion.outcome, deletion.kept) == (Outcome.KEPT, KeepReason.REPLACED)
    assert len(world.table.entries().entries) == 1


def test_what_the_judge_keeps_now_is_kept_under_its_reason(world: World) -> None:
    entry = listed(world)
    seen = []

    def judge(now: ConntrackEntry) -> KeepReason | None:
        seen.append(now)
        return KeepReason.CLEANUP_REVOKED

    before = world.requests
    deletion = world.table.delete(condemn(entry, STALE), judge)
    assert (deletion.outcome, deletion.kept) == (Outcome.KEPT, KeepReason.CLEANUP_REVOKED)
    assert seen == [deletion.entry]
    assert world.requests - before == 1
    assert len(world.table.entries().entries) == 1


def test_an_entry_that_vanishes_under_the_judge_is_already_gone(world: World) -> None:
    entry = listed(world)

    def judge(now: ConntrackEntry) -> KeepReason | None:
        world.drop(now)
        return None

    assert world.table.delete(condemn(entry, STALE), judge).outcome is Outcome.ALREADY_GONE


def test_a_delete_reaches_only_its_own_zone(world: World) -> None:
    world.put(HALF_OPEN, replace(HALF_OPEN, zone=7))
    by_zone = {one.zone: one for one in world.table.entries().entries}
    candidate = condemn(by_zone[0], STALE).candidate
    in_zone = CondemnedEntry(entry=by_zone[7], candidate=candidate)
    assert world.table.delete(in_zone, lambda _: None).outcome is Outcome.DELETED
    assert [one.zone for one in world.table.entries().entries] == [0]
    assert world.table.delete(in_zone, lambda _: None).outcome is Outcome.ALREADY_GONE
    assert [one.zone for one in world.table.entries().entries] == [0]


def test_a_sweep_costs_one_dump_and_two_requests_for_each_stale_entry(world: World) -> None:
    world.put(*(replace(HALF_OPEN, client_port=2000 + number) for number in range(20)))
    world.put(*(replace(ESTABLISHED, client_port=2000 + number) for number in range(20, 30)))
    before = world.requests
    assert sweep(world.table, STALE).outcomes == {Outcome.DELETED: 20}
    assert world.requests - before == 1 + 2 * 20
    assert sweep(world.table, STALE).outcomes == {}


def test_the_memory_table_can_refuse_as_a_kernel_does() -> None:
    table = MemoryTable([as_entry(HALF_OPEN)])
    (entry,) = table.entries().entries
    table.refuse(deletes="EPERM")
    deletion = delete(table, condemn(entry, STALE), STALE)
    assert (deletion.outcome, deletion.error) == (Outcome.FAILED, "EPERM")
    assert table.everything() == (entry,)
    table.refuse(lists="EPERM")
    with pytest.raises(ConntrackUnavailable, match="EPERM"):
        table.entries()
    table.refuse()
    assert table.entries().entries == (entry,)
    table.close()
