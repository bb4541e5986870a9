"""What the kernel sends is read exactly, or skipped under a reason; never guessed at."""

from __future__ import annotations

import struct
from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synsweep.conntrack import decode
from synsweep.conntrack.decode import Skip
from synsweep.core.flow import ConntrackEntry, Status, TcpState
from tests.unit.conntrack import as_kernel

# Linux 6.18, a SYN through DNAT to a backend that drops it.
CAPTURED = bytes.fromhex(
    "d4000000 00010200 07000000 c6640000 02000000 34000180 14000180 08000100 0a010002"
    "08000200 0a60000a 1c000280 05000100 06000000 06000200 c85c0000 06000300 00500000"
    "34000280 14000180 08000100 0a020009 08000200 0a010002 1c000280 05000100 06000000"
    "06000200 1f900000 06000300 c85c0000 08000300 000001a8 08000800 00000000 08000c00"
    "86c5bbe3 08000b00 00000001 08000700 00000076 30000480 2c000180 05000100 01000000"
    "05000200 0a000000 05000300 00000000 06000400 03000000 06000500 00000000"
)


def read(message: bytes) -> ConntrackEntry | Skip:
    return decode.decode(message, 0, len(message))


def assert_is_the_usual_entry(entry: ConntrackEntry | Skip, *, zone: int = 0) -> None:
    assert isinstance(entry, ConntrackEntry)
    assert entry.id == as_kernel.ID
    assert entry.zone == zone
    assert entry.protocol == 6
    assert entry.tcp_state is TcpState.SYN_SENT
    assert entry.status == Status(0x1A8)
    assert entry.timeout == 118
    assert entry.original.src_port == entry.reply.dst_port == 51292
    assert (entry.original.dst_port, entry.reply.src_port) == (80, 8080)


def test_an_entry_captured_from_a_kernel_is_read() -> None:
    entry = read(CAPTURED)
    assert_is_the_usual_entry(entry)
    assert isinstance(entry, ConntrackEntry)
    assert str(entry.frontend) == "10.96.0.10:80"
    assert str(entry.backend) == "10.2.0.9:8080"
    assert entry.original.src_ip == entry.reply.dst_ip == ip_address("10.1.0.2")


def test_the_layout_that_we_build_here_is_the_captured_one() -> None:
    ours = as_kernel.answer()
    assert ours[16:164] == CAPTURED[16:164]
    assert_is_the_usual_entry(read(ours))


@pytest.mark.parametrize(
    ("tuples", "family"),
    [pytest.param(as_kernel.V4, 2, id="IPv4"), pytest.param(as_kernel.V6, 10, id="IPv6")],
)
@pytest.mark.parametrize(
    ("position", "more", "zone"),
    [
        pytest.param(2, b"", 0, id="plain"),
        pytest.param(2, as_kernel.attribute(18, b"\0\7"), 7, id="in a zone"),
        pytest.param(9, as_kernel.attribute(18, b"\0\7"), 7, id="zone behind everything"),
        pytest.param(5, as_kernel.attribute(0x8013, bytes(12)), 0, id="security context"),
        pytest.param(2, as_kernel.flow(14, "10.9.0.1", 1, "10.9.0.2", 2), 0, id="master"),
        pytest.param(9, as_kernel.attribute(0x8014, bytes(12)), 0, id="timestamp"),
        pytest.param(9, as_kernel.attribute(0x8005, bytes(8)), 0, id="helper"),
        pytest.param(9, as_kernel.attribute(99, bytes(8)), 0, id="unknown attribute"),
    ],
)
def test_other_layouts_are_walked(
    tuples: tuple[bytes, bytes], family: int, position: int, more: bytes, zone: int
) -> None:
    parts = as_kernel.body(tuples)
    parts.insert(position, more)
    assert_is_the_usual_entry(read(as_kernel.answer(parts, family=family)), zone=zone)


def test_any_order_of_attributes_is_the_same_entry() -> None:
    parts = as_kernel.body()
    for turn in range(len(parts)):
        assert_is_the_usual_entry(read(as_kernel.answer(parts[turn:] + parts[:turn])))


def test_a_kernel_without_marks_is_read() -> None:
    parts = as_kernel.body()
    del parts[4]
    assert_is_the_usual_entry(read(as_kernel.answer(parts)))


def without(kind: int) -> list[bytes]:
    return [p for p in as_kernel.body() if not p or struct.unpack_from("=HH", p)[1] & 0xFFF != kind]


UDP = (
    as_kernel.flow(1, "10.1.0.2", 5, "10.96.0.10", 53, protocol=17),
    as_kernel.flow(2, "10.2.0.9", 53, "10.1.0.2", 5, protocol=17),
)
ZONED = (as_kernel.flow(1, "10.1.0.2", 51292, "10.96.0.10", 80, zone=7), as_kernel.V4[1])
MIXED = (as_kernel.V4[0], as_kernel.V6[1])


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        pytest.param(as_kernel.answer(without(1)), Skip.NO_TUPLE, id="no original tuple"),
        pytest.param(as_kernel.answer(without(2)), Skip.NO_TUPLE, id="no reply tuple"),
        pytest.param(as_kernel.answer(without(3)), Skip.NO_STATUS, id="no status"),
        pytest.param(as_kernel.answer(without(12)), Skip.NO_ID, id="no id"),
        pytest.param(as_kernel.answer(without(7)), Skip.NO_TIMEOUT, id="no timeout"),
        pytest.param(as_kernel.answer(without(4)), Skip.NO_PROTOINFO, id="offloaded"),
        pytest.param(
            as_kernel.answer([*without(4), as_kernel.attribute(0x8004, b"")]),
            Skip.NO_PROTOINFO,
            id="protoinfo of nothing",
        ),
        pytest.param(as_kernel.answer(as_kernel.body(UDP)), Skip.NOT_TCP, id="UDP"),
        pytest.param(
            as_kernel.answer(as_kernel.body(ZONED)), Skip.DIRECTIONAL_ZONE, id="zone in a tuple"
        ),
        pytest.param(as_kernel.answer(as_kernel.body(MIXED)), Skip.NO_TUPLE, id="mixed families"),
        pytest.param(as_kernel.answer(family=7), Skip.UNKNOWN_FAMILY, id="bridge family"),
        pytest.param(as_kernel.answer(family=10), Skip.NO_TUPLE, id="v4 tuples in a v6 entry"),
        pytest.param(
            as_kernel.answer(as_kernel.body(state=200)), Skip.UNKNOWN_STATE, id="unknown TCP state"
        ),
        pytest.param(as_kernel.answer()[:18], Skip.MALFORMED, id="cut in the header"),
        pytest.param(as_kernel.answer()[:-10], Skip.MALFORMED, id="cut in protoinfo"),
        pytest.param(
            as_kernel.answer([*without(12), as_kernel.attribute(12, b"\1\2")]),
            Skip.MALFORMED,
            id="short id",
        ),
    ],
)
def test_what_cannot_be_judged_is_skipped_by_name(message: bytes, reason: Skip) -> None:
    assert read(message) is reason


@pytest.mark.parametrize("family", [2, 10])
def test_every_cut_is_skipped_or_has_lost_nothing_that_counts(family: int) -> None:
    tuples = as_kernel.V4 if family == 2 else as_kernel.V6
    message = as_kernel.answer(as_kernel.body(tuples), family=family)
    for end in range(len(message)):
        assert isinstance(decode.decode(message, 0, end), Skip), end


@settings(max_examples=1500, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 240), st.integers(0, 255)), min_size=1, max_size=5),
    st.sampled_from(
        [as_kernel.answer(), as_kernel.answer(as_kernel.body(as_kernel.V6), family=10)]
    ),
)
def test_no_bytes_raise_and_pattern_and_walk_agree(
    changes: list[tuple[int, int]], message: bytes
) -> None:
    changed = bytearray(message)
    for position, value in changes:
        changed[position % len(changed)] = value
    fast = decode.decode(bytes(changed), 0, len(changed))
    marked = bytes(changed) + as_kernel.attribute(99, b"")  # no pattern for a longer message
    walked = decode.decode(marked, 0, len(marked))
    if isinstance(fast, ConntrackEntry):
        assert walked in (fast, Skip.MALFORMED)


@settings(max_examples=1500, deadline=None)
@given(st.binary(max_size=300))
def test_random_bytes_never_raise(data: bytes) -> None:
    decode.decode(data, 0, len(data))
    decode.reply_source(data, 0, len(data))


def test_the_search_misses_no_half_open_status_and_finds_no_other() -> None:
    for status in range(0x1000):
        message = as_kernel.answer(as_kernel.body(status=status))
        half_open = bool(status & 0x20) and not status & 0x2
        assert (decode.HALF_OPEN.search(message) is not None) is half_open, hex(status)


@pytest.mark.parametrize(
    ("tuples", "family", "source"),
    [
        pytest.param(as_kernel.V4, 2, "10.2.0.9", id="IPv4"),
        pytest.param(as_kernel.V6, 10, "fd00:2::9", id="IPv6"),
    ],
)
def test_the_reply_source_is_found_without_decoding(
    tuples: tuple[bytes, bytes], family: int, source: str
) -> None:
    message = as_kernel.answer(as_kernel.body(tuples), family=family)
    assert decode.reply_source(b"\0" * 8 + message, 8, len(message)) == ip_address(source).packed
    assert decode.reply_source(message, 0, 80) is None
