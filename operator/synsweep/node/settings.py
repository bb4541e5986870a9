"""What can be set for `synsweep node`, and its defaults; the command line checks the ranges."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    """One value per flag; durations in seconds."""

    node_name: str  # of the Node that this process runs on; never guessed
    namespace: str = "synsweep-system"  # where the controller writes its cleanups
    http_address: str = "127.0.0.1:9469"  # ports of hostNetwork pods are ports of the node
    allow_reset: bool = False
    max_stall: float = 0.005  # of packet processing on the CPU that dumps the table
    max_deletions_per_second: int = 2000
    log_level: str = "info"
    log_format: str = "json"
