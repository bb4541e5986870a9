"""What one can set on the controller. Durations are seconds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerSettings:
    """One field per flag of `synsweep controller`."""

    namespace: str = "synsweep-system"
    http_address: str = ":9469"
    log_level: str = "info"
    log_format: str = "json"
    reuse_after: float = 30.0  # the CNI's cooldown before an IP is given away again
    sweep_for: float = 60.0  # how long nodes sweep again and again for one removal
    keep_for: float = 300.0  # how long a cleanup stays in the API for late nodes
    batch_window: float = 0.25  # removals are gathered, and checked again, for so long
    resync_every: float = 30.0  # how often the index is compared with a list
    lease_name: str = "synsweep-controller"
