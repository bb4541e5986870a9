"""The kernel settings that matter, of this thread's network namespace."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

NETFILTER: Final = Path("/proc/sys/net/netfilter")
IPV4: Final = Path("/proc/sys/net/ipv4")

REPORTED: Final = {
    "nf_conntrack_tcp_timeout_syn_sent": NETFILTER,  # seconds that a stale entry lives
    "nf_conntrack_tcp_timeout_established": NETFILTER,  # seconds
    "nf_conntrack_tcp_timeout_close_wait": NETFILTER,  # seconds
    "nf_conntrack_tcp_loose": NETFILTER,  # 1: a mid-stream packet makes an ESTABLISHED entry
    "tcp_syn_retries": IPV4,
    "tcp_tw_reuse": IPV4,
}
DEFAULT_BUCKETS: Final = 262_144  # nf_conntrack_init_start on machines with more than 4 GB


def read_sysctls() -> Mapping[str, int]:
    """Read the reported settings by their kernel names; one that does not exist is left out."""
    values = {name: _read(folder / name) for name, folder in REPORTED.items()}
    return {name: value for name, value in values.items() if value is not None}


class TableSize(NamedTuple):
    """How large the table is."""

    entries: int  # of this network namespace
    buckets: int  # of the hash that all network namespaces share


def table_size() -> TableSize:
    """Read the table's size; what cannot be read is 0 entries, and the default of buckets."""
    entries = _read(NETFILTER / "nf_conntrack_count")
    buckets = _read(NETFILTER / "nf_conntrack_buckets")
    return TableSize(entries=entries or 0, buckets=buckets or DEFAULT_BUCKETS)


def _read(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return None
