"""Log lines: one JSON object each, or one readable line."""

from __future__ import annotations

import json
import logging
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from synsweep.core.flow import ConntrackEntry, FlowTuple, Status, TcpState
from synsweep.observe import logs

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger("synsweep.test")


@pytest.fixture(autouse=True)
def _root_as_before() -> Iterator[None]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], level = before
    root.setLevel(level)


def test_json_lines_carry_fields_time_and_level(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(level="info", format="json")
    logger.debug("not seen")
    logger.info("%d entries deleted", 2, extra={"cleanup": "endpoint-removed-7", "zone": 0})
    line = json.loads(capsys.readouterr().err)
    assert line.pop("timestamp").endswith("+00:00")
    assert line == {
        "level": "INFO",
        "logger": "synsweep.test",
        "message": "2 entries deleted",
        "cleanup": "endpoint-removed-7",
        "zone": 0,
    }


def test_a_traceback_stays_inside_its_json_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(level="info", format="json")
    try:
        int("why")
    except ValueError:
        logger.exception("failed")
    (line,) = capsys.readouterr().err.splitlines()
    assert "ValueError: invalid literal" in json.loads(line)["exc_info"]


def test_text_lines_end_with_the_fields(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(level="debug", format="text")
    fields = {"cleanup": "endpoint-removed-7", "reply": "src=10.0.0.10 sport=8080", "port_name": ""}
    logger.debug("deleted", extra=fields)
    line = capsys.readouterr().err
    assert line.endswith(
        "DEBUG synsweep.test: deleted cleanup=endpoint-removed-7"
        ' reply="src=10.0.0.10 sport=8080" port_name=""\n'
    )
    assert line[:2] == "20"


def test_an_entry_is_described_in_the_words_of_conntrack() -> None:
    entry = ConntrackEntry(
        id=42,
        zone=0,
        protocol=6,
        original=FlowTuple(
            src_ip=ip_address("10.0.1.5"),
            src_port=40000,
            dst_ip=ip_address("10.96.0.10"),
            dst_port=80,
        ),
        reply=FlowTuple(
            src_ip=ip_address("10.0.0.10"),
            src_port=8080,
            dst_ip=ip_address("10.0.1.5"),
            dst_port=40000,
        ),
        tcp_state=TcpState.SYN_SENT,
        status=Status(0x1A8),
        timeout=117,
    )
    assert logs.entry_fields(entry, syn_sent_timeout=120) == {
        "original": "src=10.0.1.5 dst=10.96.0.10 sport=40000 dport=80",
        "reply": "src=10.0.0.10 dst=10.0.1.5 sport=8080 dport=40000",
        "zone": 0,
        "id": 42,
        "age": 3,
    }
