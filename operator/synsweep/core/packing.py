"""How removals are packed into cleanups: few objects, none too large, no deadline missed.

Rules:

- A cleanup has one age, that of its oldest removal. Removals share a cleanup if they are at most a
  second apart, or a quarter of the oldest's age: what was held up for long (no API server) goes out
  in a few objects, and the youngest in each is swept for a quarter less than it might be.
- At most 500 backends in one object, at most 64 frontends in one target; more are split.
- The same removals always make the same objects.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from synsweep.core.cleanup import CleanupTarget, NodePort

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from synsweep.core.cleanup import Frontend, TargetBackend
    from synsweep.core.endpoints import ServicePortName

MAX_BACKENDS: Final = 500  # per object, over all its targets
MAX_FRONTENDS: Final = 64  # per target
SPREAD_SECONDS: Final = 1.0
SPREAD_SHARE: Final = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """One backend of one Service port that is to be cleaned, for these frontends (in order)."""

    gone_at: float
    service_port: ServicePortName
    frontends: tuple[Frontend, ...]
    backend: TargetBackend


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Removals that share one age."""

    gone_at: float
    removals: tuple[Removal, ...]

    def objects(self) -> Iterator[tuple[CleanupTarget, ...]]:
        """Make the targets of one object after the other."""
        targets: list[CleanupTarget] = []
        room = MAX_BACKENDS
        for service_port, frontends, backends in self._targets():
            rest = backends
            while rest:
                taken, rest = rest[:room], rest[room:]
                room -= len(taken)
                targets.append(
                    CleanupTarget(
                        id=len(targets),
                        namespace=service_port.namespace,
                        service=service_port.name,
                        port_name=service_port.port_name,
                        frontends=frontends,
                        backends=taken,
                    )
                )
                if not room:
                    yield tuple(targets)
                    targets, room = [], MAX_BACKENDS
        if targets:
            yield tuple(targets)

    def _targets(
        self,
    ) -> Iterator[tuple[ServicePortName, tuple[Frontend, ...], tuple[TargetBackend, ...]]]:
        """Put backends together that are gone for the same frontends of the same Service port."""
        found: dict[tuple[ServicePortName, tuple[Frontend, ...]], list[TargetBackend]]
        found = defaultdict(list)
        for removal in self.removals:
            found[removal.service_port, removal.frontends].append(removal.backend)
        for service_port, frontends in sorted(
            found, key=lambda key: (key[0], [frontend_order(frontend) for frontend in key[1]])
        ):
            backends = found[service_port, frontends]
            backends.sort(key=lambda backend: frontend_order(backend.address))
            for first in range(0, len(frontends), MAX_FRONTENDS):
                yield service_port, frontends[first : first + MAX_FRONTENDS], tuple(backends)


def spread(age: float) -> float:
    """Say by how much the removals of one cleanup may differ, by the age of the oldest."""
    return max(SPREAD_SECONDS, age * SPREAD_SHARE)


def batches_of(removals: Iterable[Removal], now: float) -> Iterator[Batch]:
    """Divide removals so that those of a batch may share the age of the oldest."""
    batch: list[Removal] = []
    for removal in sorted(removals, key=lambda removal: removal.gone_at):
        if batch and removal.gone_at - batch[0].gone_at > spread(now - batch[0].gone_at):
            yield Batch(gone_at=batch[0].gone_at, removals=tuple(batch))
            batch = []
        batch.append(removal)
    if batch:
        yield Batch(gone_at=batch[0].gone_at, removals=tuple(batch))


def frontend_order(frontend: Frontend) -> tuple[int, int, int]:
    """Order frontends (and backends): nodePorts, IPv4, IPv6; addresses of both do not compare."""
    if isinstance(frontend, NodePort):
        return 0, 0, frontend.port
    return frontend.ip.version, int(frontend.ip), frontend.port
