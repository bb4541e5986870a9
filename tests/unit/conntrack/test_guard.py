"""No byte sequence that is not exactly one complete REPLY tuple passes the guard."""

from __future__ import annotations

import ast
import itertools
import struct
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import synsweep.conntrack
from synsweep.conntrack import wire
from synsweep.core.flow import ConntrackEntry, FlowTuple, Status, TcpState
from tests.unit.conntrack import as_kernel


def entry(client: str, frontend: str, backend: str, *, zone: int) -> ConntrackEntry:
    return ConntrackEntry(
        id=0xDEADBEEF,
        zone=zone,
        protocol=6,
        original=FlowTuple(
            src_ip=ip_address(client), src_port=51292, dst_ip=ip_address(frontend), dst_port=80
        ),
        reply=FlowTuple(
            src_ip=ip_address(backend), src_port=8080, dst_ip=ip_address(client), dst_port=51292
        ),
        tcp_state=TcpState.SYN_SENT,
        status=Status(0x1A8),
        timeout=100,
    )


V4 = ("10.1.0.2", "10.96.0.10", "10.2.0.9")
V6 = ("fd00:1::2", "fd00:96::10", "fd00:2::9")
ENTRIES = [
    pytest.param(entry(*V4, zone=0), id="IPv4"),
    pytest.param(entry(*V4, zone=7), id="IPv4 in a zone"),
    pytest.param(entry(*V6, zone=0), id="IPv6"),
    pytest.param(entry(*V6, zone=0xFFFF), id="IPv6 in a zone"),
]
VALID = tuple(
    wire.delete_request(77, entry(*addresses, zone=zone))
    for addresses in (V4, V6)
    for zone in (0, 7)
)
SHAPES = ("IPv4", "IPv4 in a zone", "IPv6", "IPv6 in a zone")


def passes(message: bytes) -> bool:
    try:
        wire.guard_delete(message)
    except wire.NotOneCompleteReplyTuple:
        return False
    return True


def names_exactly_one_flow(message: bytes) -> bool:
    """The independent judgement, and that nothing but tuple, id and zone was in it."""
    return (
        as_kernel.verdict(message) == [as_kernel.DELETE_BY_REPLY]
        and message[16] in (2, 10)
        and message[17] == 1
        and set(as_kernel.attributes(message[20:])) <= {2, 12, 18}
    )


@pytest.mark.parametrize("judged", ENTRIES)
def test_what_we_encode_passes_and_names_one_flow(judged: ConntrackEntry) -> None:
    message = wire.delete_request(77, judged)
    wire.guard_delete(message)
    assert names_exactly_one_flow(message)
    assert as_kernel.attributes(message[20:])[12] == struct.pack("!I", judged.id)


@pytest.mark.parametrize("message", VALID, ids=SHAPES)
def test_every_change_of_one_byte_still_names_one_flow_or_is_refused(message: bytes) -> None:
    passed = 0
    for position, value in itertools.product(range(len(message)), range(256)):
        changed = message[:position] + bytes([value]) + message[position + 1 :]
        if passes(changed):
            passed += 1
            assert names_exactly_one_flow(changed), changed.hex()
    # sequence, addresses, ports, id, zone are free; everything else is fixed
    free = 4 + 2 * (4 if message[16] == 2 else 16) + 2 * 2 + 4
    free += 2 if 18 in as_kernel.attributes(message[20:]) else 0
    assert passed == free * 255 + len(message)


@pytest.mark.parametrize("message", VALID, ids=SHAPES)
def test_every_piece_of_a_message_is_refused(message: bytes) -> None:
    pieces = itertools.combinations(range(len(message) + 1), 2)
    assert [message[a:b] for a, b in pieces if passes(message[a:b])] == [message]


@pytest.mark.parametrize("message", VALID, ids=SHAPES)
def test_a_message_with_bytes_cut_out_and_its_length_corrected_is_refused_or_names_one_flow(
    message: bytes,
) -> None:
    for start, end in itertools.combinations(range(20, len(message) + 1), 2):
        cut = message[:start] + message[end:]
        corrected = struct.pack("=I", len(cut)) + cut[4:]
        if passes(corrected):  # the header of the zone cut out: what is left is a shape, too
            assert names_exactly_one_flow(corrected)
        assert not passes(cut) or cut == message


@pytest.mark.parametrize("message", VALID, ids=SHAPES)
def test_anything_added_is_refused_also_with_the_length_corrected(message: bytes) -> None:
    additions = [
        b"\0",
        bytes(4),
        as_kernel.attribute(1, bytes(52)),
        as_kernel.flow(1, "10.1.0.2", 1, "10.96.0.10", 80),  # ORIG would win over REPLY
        as_kernel.flow(2, "10.2.0.9", 8080, "10.1.0.2", 1),  # a second REPLY
        as_kernel.attribute(3, struct.pack("!I", 0x20)),  # CTA_STATUS
        as_kernel.attribute(25, b""),  # CTA_FILTER: a flush on kernels >= 6.12
        as_kernel.attribute(12, bytes(4)),
        as_kernel.attribute(18, b"\0\7"),
        message,  # a second message
        struct.pack("=IHHII", 20, 0x102, 5, 0, 0) + b"\0\0\0\0",  # a flush behind it
    ]
    for addition, position in itertools.product(additions, range(0, len(message) + 1, 4)):
        added = message[:position] + addition + message[position:]
        for candidate in (added, struct.pack("=I", len(added)) + added[4:]):
            if passes(candidate):  # a zone put where a zone belongs
                assert names_exactly_one_flow(candidate), candidate.hex()


ATTRIBUTES = st.one_of(
    st.binary(max_size=24),
    st.builds(as_kernel.attribute, st.integers(0, 30), st.binary(max_size=80)),
    st.builds(
        as_kernel.flow,
        st.integers(0, 3),
        st.sampled_from(("10.2.0.9", "0.0.0.0")),
        st.integers(0, 65535),
        st.sampled_from(("10.1.0.2", "255.255.255.255")),
        st.integers(0, 65535),
        protocol=st.sampled_from((0, 6, 17)),
        zone=st.sampled_from((0, 7)),
    ),
    st.builds(
        as_kernel.flow, st.integers(0, 3), st.just("fd00::1"), st.just(1), st.just("::"), st.just(2)
    ),
)


@st.composite
def deletes(draw: st.DrawFn) -> bytes:
    """Messages that look like deletes, with any attributes in any order."""
    payload = b"".join(draw(st.lists(ATTRIBUTES, max_size=5)))
    length = 20 + len(payload) + draw(st.sampled_from((0, 0, 0, 0, -4, 4)))
    header = struct.pack(
        "=IHHII", length, draw(st.sampled_from((0x102, 0x102, 0x100, 0x101))), 5, 1, 0
    )
    family = draw(st.sampled_from((2, 10, 0, 7)))
    return header + bytes([family, draw(st.sampled_from((0, 1))), 0, 0]) + payload


@settings(max_examples=2000, deadline=None)
@given(deletes())
@example(struct.pack("=IHHII", 20, 0x102, 5, 1, 0) + bytes([2, 1, 0, 0]))  # the flush
def test_no_made_up_delete_passes_unless_it_names_one_flow(message: bytes) -> None:
    if passes(message):
        assert names_exactly_one_flow(message)


@settings(max_examples=2000, deadline=None)
@given(st.binary(max_size=200))
def test_no_random_bytes_pass(message: bytes) -> None:
    assert not passes(message)


@settings(max_examples=1000, deadline=None)
@given(
    st.sampled_from(VALID),
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=6),
    st.integers(-8, 8),
)
def test_no_mutation_passes_unless_it_names_one_flow(
    message: bytes, changes: list[tuple[int, int]], resize: int
) -> None:
    changed = bytearray(message)
    for position, value in changes:
        changed[position % len(changed)] = value
    resized = bytes(changed[:resize]) if resize < 0 else bytes(changed) + bytes(resize)
    if passes(resized):
        assert names_exactly_one_flow(resized)


def test_one_function_encodes_a_delete_and_the_guard_stands_right_before_the_socket() -> None:
    folder = Path(synsweep.conntrack.__file__).parent.parent
    callers = {}
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                calls = [
                    call.func.attr if isinstance(call.func, ast.Attribute) else call.func.id
                    for call in ast.walk(node)
                    if isinstance(call, ast.Call)
                    and isinstance(call.func, ast.Attribute | ast.Name)
                ]
                if "delete_request" in calls:
                    callers[f"{path.stem}.{node.name}"] = calls
    assert list(callers) == ["connection.delete"]
    assert set(callers["connection.delete"]) == {
        "next_sequence",
        "delete_request",
        "guard_delete",
        "_answer",
    }
