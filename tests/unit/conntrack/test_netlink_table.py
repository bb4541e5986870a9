"""What the netlink table makes of a kernel that refuses, breaks off, or is old."""

from __future__ import annotations

import errno
import struct
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest

from synsweep.conntrack import connection, framing, wire
from synsweep.conntrack.connection import Connection
from synsweep.conntrack.netlink import NetlinkTable, narrow
from synsweep.conntrack.stall import DumpMode
from synsweep.conntrack.table import ConntrackError, ConntrackUnavailable
from synsweep.core.staleness import KeepReason, Outcome
from tests.kernel.judging import address, condemn, gone
from tests.unit.conntrack import as_kernel

if TYPE_CHECKING:
    from synsweep.core.flow import ConntrackEntry

Reply = Sequence[bytes | OSError]


class ScriptedKernel:
    """A kernel that gives these answers, one list for each request; notes what it is asked."""

    def __init__(self, *replies: Reply) -> None:
        self.replies = list(replies)
        self.asked: list[bytes] = []
        self.opened = self.closed = 0
        self.waiting: list[bytes | OSError] = []

    def __call__(self) -> ScriptedKernel:
        self.opened += 1
        return self

    def send(self, data: bytes, /) -> int:
        self.asked.append(data)
        self.waiting = list(self.replies.pop(0))
        return len(data)

    def recv(self, size: int, /) -> bytes:
        assert size >= 4096
        answer = self.waiting.pop(0)
        if isinstance(answer, OSError):
            raise answer
        sequence = self.asked[-1][8:12]
        return b"".join(
            answer[offset : offset + 8] + sequence + answer[offset + 12 : offset + length]
            for offset, length, _, _, _ in framing.messages(answer)
        )

    def setsockopt(self, level: int, option: int, value: bytes, /) -> None:
        assert level
        assert option
        assert value

    def close(self) -> None:
        self.closed += 1


def table_over(*replies: Reply, mode: DumpMode = DumpMode.FILTERED) -> tuple[
    NetlinkTable, ScriptedKernel
]:  # fmt: skip
    kernel = ScriptedKernel(*replies)
    return NetlinkTable(mode=mode, open_socket=kernel), kernel


FILTERED = as_kernel.answer(flags=0x22)
UNFILTERED = as_kernel.answer()
ANSWERED = as_kernel.answer(as_kernel.body(status=as_kernel.ANSWERED, state=3))
OLDER = as_kernel.answer(as_kernel.body(entry_id=1), flags=0x22)
WHAT = gone("10.96.0.10:80", "10.2.0.9:8080")
DUMP: Reply = [FILTERED, as_kernel.done()]
GOT: Reply = [as_kernel.answer(flags=0), as_kernel.error(0)]


def no_reason(_: ConntrackEntry) -> KeepReason | None:
    return None


def test_a_dump_ends_with_done_also_in_the_same_datagram() -> None:
    for reply in ([FILTERED, as_kernel.done()], [FILTERED + as_kernel.done()]):
        table, kernel = table_over(reply)
        listing = table.entries()
        assert (len(listing.entries), listing.listed, listing.filtered) == (1, 1, True)
        assert (table.requests, len(kernel.asked)) == (1, 1)
        table.close()
        assert kernel.closed == 1


def test_a_kernel_that_ignores_the_filter_is_noticed_and_its_answer_filtered_here() -> None:
    table, _ = table_over([ANSWERED * 3 + UNFILTERED, ANSWERED, as_kernel.done()])
    listing = table.entries()
    assert (len(listing.entries), listing.listed, listing.filtered) == (1, 5, False)
    assert table.last_dump is not None
    assert table.last_dump.mode is DumpMode.STREAMED


def test_an_entry_that_the_dump_repeats_is_listed_once() -> None:
    table, _ = table_over([FILTERED * 2, FILTERED, as_kernel.done()])
    assert len(table.entries().entries) == 1


def test_entries_that_cannot_be_read_are_counted_by_reason_and_udp_is_not() -> None:
    body = as_kernel.body()
    udp = as_kernel.flow(1, "10.1.0.2", 5, "10.96.0.10", 53, protocol=17)
    offloaded, other = as_kernel.answer(body[:-1]), as_kernel.answer([udp, *body[1:]])
    table, _ = table_over([offloaded + other + offloaded, FILTERED, as_kernel.done()])
    listing = table.entries()
    assert listing.skipped_reasons == {"NoProtoinfo": 2}
    assert (listing.skipped, len(listing.entries)) == (2, 1)


def test_asking_for_backends_reads_unfiltered_and_finds_any_state() -> None:
    table, kernel = table_over([ANSWERED + UNFILTERED, as_kernel.done()])
    listing = table.entries(frozenset({address("10.2.0.9:8080"), address("10.2.0.8:8080")}))
    assert len(kernel.asked[0]) == wire.HEADER_LENGTH
    assert len(listing.entries) == 1  # the same id: one entry
    table, _ = table_over([ANSWERED, as_kernel.done()])
    assert len(table.entries(frozenset({address("10.2.0.9:8080")})).entries) == 1
    table, _ = table_over([ANSWERED, as_kernel.done()])
    assert table.entries(frozenset({address("10.2.0.9:80")})).entries == ()


@pytest.mark.parametrize(
    ("number", "kind", "word"),
    [
        pytest.param(errno.EPERM, ConntrackUnavailable, "CAP_NET_ADMIN", id="no capability"),
        pytest.param(errno.EINVAL, ConntrackUnavailable, "nf_conntrack_netlink", id="no module"),
        pytest.param(errno.EPROTONOSUPPORT, ConntrackUnavailable, "nfnetlink", id="no nfnetlink"),
        pytest.param(errno.ENOMEM, ConntrackError, "ENOMEM", id="anything else"),
    ],
)
def test_a_refused_dump_raises_what_is_missing(
    number: int, kind: type[ConntrackError], word: str
) -> None:
    def refuse() -> ScriptedKernel:
        raise OSError(number, "no")

    table = NetlinkTable(open_socket=refuse)
    with pytest.raises(kind, match=word):
        table.entries()
    for reply in ([as_kernel.error(number)], [as_kernel.done(number)], [OSError(number, "no")]):
        table, kernel = table_over(reply, DUMP)
        with pytest.raises(kind, match=word) as raised:
            table.entries()
        assert type(raised.value) is kind
        assert kernel.closed == 1
        assert len(table.entries().entries) == 1  # the next one starts afresh
        assert kernel.opened == 2


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(FILTERED[:-4], id="a message that is longer than its datagram"),
        pytest.param(FILTERED + b"\1\0\0\0", id="half a header"),
        pytest.param(struct.pack("=IHHII", 3, 0x100, 2, 1, 0), id="a length of 3"),
    ],
)
def test_a_broken_datagram_is_an_error_and_closes_the_socket(broken: bytes) -> None:
    table, kernel = table_over([broken])
    kernel.recv = lambda _size: broken  # type: ignore[method-assign]
    with pytest.raises(ConntrackError, match="broken"):
        table.entries()
    assert kernel.closed == 1


@pytest.mark.parametrize(
    ("replies", "outcome", "kept", "error", "requests"),
    [
        pytest.param([GOT, [as_kernel.error(0)]], Outcome.DELETED, None, "", 2, id="deleted"),
        pytest.param(
            [[as_kernel.error(errno.ENOENT)]], Outcome.ALREADY_GONE, None, "", 1, id="gone at GET"
        ),
        pytest.param(
            [GOT, [as_kernel.error(errno.ENOENT)]], Outcome.ALREADY_GONE, None, "", 2,
            id="gone at DELETE",
        ),
        pytest.param(
            [GOT, [as_kernel.error(errno.EPERM)]], Outcome.FAILED, None, "EPERM", 2,
            id="no capability any more",
        ),
        pytest.param(
            [[as_kernel.error(errno.EINVAL)]], Outcome.FAILED, None, "EINVAL", 1,
            id="GET not understood",
        ),
        pytest.param(
            [[OSError(errno.EAGAIN, "late")]], Outcome.FAILED, None, "EAGAIN", 1, id="no answer"
        ),
        pytest.param(
            [[OLDER, as_kernel.error(0)]], Outcome.KEPT, KeepReason.REPLACED, "", 1,
            id="another id",
        ),
        pytest.param(
            [[as_kernel.answer(as_kernel.body()[:-1]), as_kernel.error(0)]],
            Outcome.KEPT, KeepReason.REPLACED, "", 1, id="unreadable now",
        ),
        pytest.param(
            [[as_kernel.error(0)]], Outcome.KEPT, KeepReason.REPLACED, "", 1, id="nothing read"
        ),
    ],
)  # fmt: skip
def test_what_becomes_of_a_delete(
    replies: list[Reply], outcome: Outcome, kept: KeepReason | None, error: str, requests: int
) -> None:
    table, kernel = table_over(DUMP, *replies)
    (entry,) = table.entries().entries
    deletion = table.delete(condemn(entry, WHAT), no_reason)
    assert (deletion.outcome, deletion.kept, deletion.error) == (outcome, kept, error)
    assert table.requests == 1 + requests == len(kernel.asked)
    sent = [one for message in kernel.asked for one in as_kernel.verdict(message)]
    assert sent.count(as_kernel.DELETE_BY_REPLY) == max(0, requests - 1)


def test_the_judge_has_the_last_word_and_sees_what_is_there_now() -> None:
    table, kernel = table_over(DUMP, [ANSWERED, as_kernel.error(0)])
    (entry,) = table.entries().entries
    seen = []

    def judge(now: ConntrackEntry) -> KeepReason | None:
        seen.append(now)
        return KeepReason.SEEN_REPLY

    deletion = table.delete(condemn(entry, WHAT), judge)
    assert (deletion.outcome, deletion.kept) == (Outcome.KEPT, KeepReason.SEEN_REPLY)
    assert [one.seen_reply for one in seen] == [True]
    assert deletion.entry == seen[0]
    assert len(kernel.asked) == 2


def test_a_judge_that_raises_deletes_nothing_and_leaves_the_table_usable() -> None:
    table, kernel = table_over(DUMP, GOT, DUMP)
    (entry,) = table.entries().entries

    def judge(_: ConntrackEntry) -> KeepReason | None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        table.delete(condemn(entry, WHAT), judge)
    assert len(table.entries().entries) == 1
    assert as_kernel.DELETE_BY_REPLY not in [as_kernel.one(message) for message in kernel.asked]


def test_no_socket_for_a_delete_is_a_failed_one() -> None:
    table, _ = table_over(DUMP)
    (entry,) = table.entries().entries

    def refuse() -> ScriptedKernel:
        raise OSError(errno.EMFILE, "no")

    deletion = NetlinkTable(open_socket=refuse).delete(condemn(entry, WHAT), no_reason)
    assert (deletion.outcome, deletion.error) == (Outcome.FAILED, "EMFILE")


def test_each_thread_has_its_own_socket() -> None:
    table, kernel = table_over(DUMP, DUMP, DUMP)
    table.entries()
    table.entries()
    assert kernel.opened == 1
    thread = threading.Thread(target=table.entries)
    thread.start()
    thread.join()
    assert kernel.opened == 2


def test_answers_to_something_given_up_earlier_are_passed_over() -> None:
    kernel = ScriptedKernel()
    late = as_kernel.error(errno.ENOENT, sequence=99)
    kernel.replies = [[as_kernel.error(0)]]
    ours = Connection(kernel)
    kernel.recv = lambda _size: late + as_kernel.error(0, sequence=1)  # type: ignore[method-assign]
    assert ours.stats() == 0


def test_an_error_without_a_name_is_still_told() -> None:
    assert connection.error_name(524) == "errno 524"
    assert str(connection.refusal("list entries", 524)) == "list entries: errno 524"


@pytest.mark.parametrize(
    ("page", "bytes_"), [(4096, 4096), (16_384, 8192), (65_536, 8192)], ids=["4k", "16k", "64k"]
)
def test_no_datagram_is_cut_off_whatever_the_pages_of_the_machine(page: int, bytes_: int) -> None:
    assert narrow(page) == bytes_
