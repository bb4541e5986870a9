"""What the index remembers of one Service: its frontends and backends, present and vanished.

Rules of this file:

- A backend belongs to a port of the Service while any slice lists it there, since endpoints move
  between slices; only the union over the slices says that it is gone.
- Whether a backend is chosen is kube-proxy's rule (CategorizeEndpoints in pkg/proxy/topology.go of
  Kubernetes 1.33): ready ones; where there is none, those that serve while terminating, judged for
  the whole cluster and, if a traffic policy is Local, on each node as well. Each IP family is a
  Service of its own. Traffic policy, hints and affinity otherwise only filter: they remove nothing.
- A backend that was never chosen, such as a pod that is slow to start, has no flows to clean. One
  that was ready, is terminating, or was listed before we came may have been chosen.
- Nothing here depends on the order in which slices and the Service were told, but for the moments.

These are the working parts of BackendIndex, changed in place; nobody else holds them.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, NamedTuple

from synsweep.core.flow import Address
from synsweep.core.removals import NO_CHANGE, Change

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from synsweep.core.bodies import Labels
    from synsweep.core.cleanup import Frontend
    from synsweep.core.endpoints import Endpoint, Slice
    from synsweep.core.services import Service

NEVER = -inf  # the moment of what was never there
PRESENT = inf  # the moment at which what is there now will have ended


class Vanished(NamedTuple):
    """A backend that no slice lists any more."""

    at: float
    terminated: bool
    was_chosen: bool


@dataclass(slots=True)
class Listing:
    """A backend that is listed: by which slices, and since when no kube-proxy would choose it."""

    sources: tuple[tuple[str, Endpoint], ...] = ()  # (slice name, what it says)
    unchosen_since: float | None = None
    was_chosen: bool = False  # or may have been, before we came

    @property
    def ready(self) -> bool:
        """Ready in any slice: in doubt it serves."""
        return any(endpoint.ready for _, endpoint in self.sources)

    @property
    def terminated(self) -> bool:
        """Terminating in every slice: in doubt it may still answer."""
        return all(endpoint.terminating for _, endpoint in self.sources)


@dataclass(slots=True)
class PortMemory:
    """One Service port."""

    frontends: frozenset[Frontend] = frozenset()
    gone_frontends: dict[Frontend, float] = field(default_factory=dict)
    listed: dict[Address, Listing] = field(default_factory=dict)
    unready: set[Address] = field(default_factory=set)  # those listed that are not ready
    gone: dict[Address, Vanished] = field(default_factory=dict)

    def replace_frontends(self, frontends: frozenset[Frontend], *, now: float) -> Change:
        """Take the frontends that the Service has now; remember those that it had."""
        vanished = self.frontends - frontends
        appeared = frontends - self.frontends
        for frontend in vanished:
            self.gone_frontends[frontend] = now
        for frontend in appeared:
            self.gone_frontends.pop(frontend, None)
        self.frontends = frontends
        return Change(gone=bool(vanished), back=bool(appeared))

    def relist(
        self,
        backend: Address,
        source: str,
        endpoints: tuple[Endpoint, ...],
        *,
        now: float,
        new: bool,
    ) -> Change:
        """Take what one slice, `source`, says of a backend now; nothing: it leaves that slice.

        `new`: what appears here was not there before we came.
        """
        listing = self.listed.get(backend) or Listing()
        sources = tuple(one for one in listing.sources if one[0] != source)
        sources += tuple((source, endpoint) for endpoint in endpoints)
        if not sources:
            del self.listed[backend]
            self.unready.discard(backend)
            self.gone[backend] = Vanished(now, listing.terminated, listing.was_chosen)
            return Change(gone=True)
        appeared = not listing.sources
        listing.sources = sources
        if appeared:
            self.listed[backend] = listing
            former = self.gone.pop(backend, None)
            listing.was_chosen = not new or (former is not None and former.was_chosen)
        listing.was_chosen |= any(one.ready or one.terminating for one in endpoints)
        if not listing.ready:
            self.unready.add(backend)
            return Change(back=appeared)
        self.unready.discard(backend)
        chosen_again = listing.unchosen_since is not None
        listing.unchosen_since = None
        return Change(back=appeared or chosen_again)

    def choose(self, *, local: bool, now: float) -> Change:
        """Judge the backends that are not ready as kube-proxy would, and note since when."""
        if not self.unready:
            return NO_CHANGE
        families, nodes = self._ready_places(local=local)
        change = NO_CHANGE
        for backend in self.unready:
            listing = self.listed[backend]
            family = backend.ip.version
            chosen = any(
                endpoint.serving
                and endpoint.terminating
                and (
                    family not in families or (local and (family, endpoint.node_name) not in nodes)
                )
                for _, endpoint in listing.sources
            )
            if chosen:
                change |= Change(back=listing.unchosen_since is not None)
                listing.unchosen_since = None
            elif listing.was_chosen and listing.unchosen_since is None:
                listing.unchosen_since = now
        return change

    def _ready_places(self, *, local: bool) -> tuple[set[int], set[tuple[int, str]]]:
        """Which IP families have a ready backend anywhere; if it matters, also on which nodes."""
        ready = [backend for backend in self.listed if backend not in self.unready]
        nodes: set[tuple[int, str]] = {
            (backend.ip.version, endpoint.node_name)
            for backend in (ready if local else ())
            for _, endpoint in self.listed[backend].sources
        }
        return {backend.ip.version for backend in ready}, nodes

    def expire(self, before: float) -> None:
        """Forget what vanished before that moment."""
        self.gone = {backend: one for backend, one in self.gone.items() if one.at > before}
        self.gone_frontends = {
            frontend: at for frontend, at in self.gone_frontends.items() if at > before
        }

    @property
    def is_restless(self) -> bool:
        """Whether anything of it is gone or may be."""
        return bool(self.gone or self.gone_frontends or self.unready)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing left to remember."""
        return not (self.frontends or self.listed or self.gone or self.gone_frontends)


@dataclass(slots=True)
class ServiceMemory:
    """One Service; it may be unknown yet (its slices came first) or deleted already."""

    service: Service | None = None
    labels: Labels | None = None  # outlives the Service
    deleted_at: float | None = None
    ports: defaultdict[str, PortMemory] = field(default_factory=lambda: defaultdict(PortMemory))

    def replace_service(self, service: Service | None, *, now: float) -> Change:
        """Take the Service as it is now; None: deleted."""
        self.service = service
        self.deleted_at = now if service is None else None
        frontends: Mapping[str, frozenset[Frontend]] = {}
        if service is not None:
            self.labels = service.labels
            frontends = service.frontends
            if service.foreign:
                self._forget_frontends()
        change = NO_CHANGE
        for name in sorted(self.ports.keys() | frontends.keys()):
            port = self.ports[name]
            change |= port.replace_frontends(frontends.get(name, frozenset()), now=now)
            change |= port.choose(local=self._local, now=now)
        self._drop_empty_ports()
        return change

    def replace_slice(
        self, name: str, previous: Slice | None, current: Slice | None, *, now: float, new: bool
    ) -> Change:
        """Take one slice as it is now, in the place of what it was; `new` as in `relist`."""
        before, after = _by_port(previous), _by_port(current)
        change = NO_CHANGE
        for port_name in sorted(before.keys() | after.keys()):
            port = self.ports[port_name]
            said = after.get(port_name, {})
            for backend in before.get(port_name, {}).keys() | said.keys():
                change |= port.relist(backend, name, said.get(backend, ()), now=now, new=new)
            change |= port.choose(local=self._local, now=now)
        self._drop_empty_ports()
        return change

    def frontend_until(self, frontend: Frontend) -> float:
        """When the frontend ended to be the Service's; PRESENT, or NEVER if it never was."""
        return max((_frontend_until(port, frontend) for port in self.ports.values()), default=NEVER)

    def backend_until(self, backend: Address) -> float:
        """When the last slice, of any port, lost the backend; PRESENT, or NEVER."""
        return max((_backend_until(port, backend) for port in self.ports.values()), default=NEVER)

    def unchosen_since(self, backend: Address) -> float | None:
        """Since when no port would choose that listed backend; None: one would."""
        since = [port.listed[backend].unchosen_since for port in self._listing(backend)]
        moments = [moment for moment in since if moment is not None]
        return max(moments) if len(moments) == len(since) else None

    def expire(self, before: float) -> None:
        """Forget what vanished before that moment, and the labels if the Service itself did."""
        if self.deleted_at is not None and self.deleted_at <= before:
            self.deleted_at = None
            self.labels = None
        for port in self.ports.values():
            port.expire(before)
        self._drop_empty_ports()

    def known_frontends(self) -> set[Frontend]:
        """All frontends that it has or had."""
        return {
            frontend
            for port in self.ports.values()
            for frontend in (*port.frontends, *port.gone_frontends)
        }

    @property
    def is_restless(self) -> bool:
        """Whether anything of it is gone or may be."""
        return self.deleted_at is not None or any(port.is_restless for port in self.ports.values())

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing left to remember."""
        return self.service is None and self.labels is None and not self.ports

    @property
    def _local(self) -> bool:
        return self.service is not None and self.service.local

    def _listing(self, backend: Address) -> Iterable[PortMemory]:
        return (port for port in self.ports.values() if backend in port.listed)

    def _drop_empty_ports(self) -> None:
        for name in [name for name, port in self.ports.items() if port.is_empty]:
            del self.ports[name]

    def _forget_frontends(self) -> None:
        """Another proxy serves them now: what we saw before must not count as vanished."""
        for port in self.ports.values():
            port.frontends = frozenset()
            port.gone_frontends.clear()


def _frontend_until(port: PortMemory, frontend: Frontend) -> float:
    return PRESENT if frontend in port.frontends else port.gone_frontends.get(frontend, NEVER)


def _backend_until(port: PortMemory, backend: Address) -> float:
    if backend in port.listed:
        return PRESENT
    vanished = port.gone.get(backend)
    return NEVER if vanished is None else vanished.at


def _by_port(slice_: Slice | None) -> dict[str, dict[Address, tuple[Endpoint, ...]]]:
    """Say for each port of a slice which backends it lists, and what it says of each."""
    found: dict[str, dict[Address, tuple[Endpoint, ...]]] = {}
    for port in slice_.ports if slice_ else ():
        backends = found.setdefault(port.name, {})
        for endpoint in slice_.endpoints if slice_ else ():
            backend = Address(endpoint.ip, port.port)
            backends[backend] = (*backends.get(backend, ()), endpoint)
    return found
