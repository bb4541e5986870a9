"""Log lines: JSON for machines, text for people; one line for every deleted entry.

Everybody logs through `logging.getLogger(__name__)` and passes fields by `extra=`: they become keys
in JSON and `key=value` at the end of a text line. Entries are written in the words of conntrack(8),
so that a line can be searched for in the output of `conntrack -L`.
"""

from __future__ import annotations

import logging
import sys
import time
from typing import TYPE_CHECKING, Any

from pythonjsonlogger.json import JsonFormatter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synsweep.core.flow import ConntrackEntry, FlowTuple

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("json", "text")

# Attributes that every record has; whatever else is there came through `extra=`.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
# What they log below warning is theirs to debug, not ours.
_CHATTY = ("urllib3", "kubernetes", "asyncio", "pyroute2")


def configure(*, level: str, format: str) -> None:  # noqa: A002 - the flag's name
    """Send the root logger's lines to standard error, from `level` up, in `format`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_json() if format == "json" else _Text())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(root.level, logging.WARNING))


def entry_fields(entry: ConntrackEntry, *, syn_sent_timeout: int) -> Mapping[str, Any]:
    """Describe an entry in the words of conntrack(8).

    Args:
        entry: as it was last seen.
        syn_sent_timeout: nf_conntrack_tcp_timeout_syn_sent, in seconds: the age is this less what
            remains of the entry.
    """
    return {
        "original": _words(entry.original),
        "reply": _words(entry.reply),
        "zone": entry.zone,
        "id": entry.id,
        "age": syn_sent_timeout - entry.timeout,
    }


def _words(flow: FlowTuple) -> str:
    return f"src={flow.src_ip} dst={flow.dst_ip} sport={flow.src_port} dport={flow.dst_port}"


def _json() -> logging.Formatter:
    return JsonFormatter(
        "%(levelname)s %(name)s %(message)s",
        rename_fields={"levelname": "level", "name": "logger"},
        timestamp=True,
        json_default=str,
    )


class _Text(logging.Formatter):
    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - its name there
        """Put the fields behind the message, so that a traceback still comes last."""
        fields = (
            f"{key}={_quoted(str(value))}"
            for key, value in vars(record).items()
            if key not in _STANDARD
        )
        return " ".join((super().formatMessage(record), *fields))


def _quoted(text: str) -> str:
    return f'"{text}"' if " " in text or not text else text
