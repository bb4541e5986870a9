"""The backend index: for every frontend of the cluster, which backends it may lead to, and led to.

Rules:

- **What the kernel sees decides.** A pair (frontend, backend) is valid if any Service that has the
  frontend now has the backend in any of its slices now, whatever the ports are called: kube-proxy
  learns of a renamed port in two steps, and neither may condemn anything.
- **Level, not edge.** `gone()` is computed from what is there and what is remembered: for every
  Service port the frontends times the backends that it has or had, without the valid pairs. So the
  order in which slices and Services were told does not matter, and asking again is free. It takes
  more pairs than were ever valid together (a frontend that came after the backend had gone); no
  flow can exist for those.
- **Compact.** No pair is stored: owners by frontend, backends by Service port, and the set of
  Services that have anything gone or not ready, the only ones that `gone()` looks at.
- **Never condemned**: addresses of nodes (pods on the host's network; no IPAM gives them away).

This is the one thing in core that changes. It has no clock and never waits; one thread uses it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from synsweep.core.cleanup import CleanupReason, NodePort
from synsweep.core.endpoints import ServicePortName
from synsweep.core.policy import ServiceLabels
from synsweep.core.remembered import NEVER, PRESENT, PortMemory, ServiceMemory
from synsweep.core.removals import NO_CHANGE, Change, RemovedBackend

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from synsweep.core.bodies import Labels
    from synsweep.core.cleanup import Frontend
    from synsweep.core.endpoints import ServiceKey, Slice, SliceKey
    from synsweep.core.flow import Address, IPAddress
    from synsweep.core.services import Service


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectVersion:
    """What a list of metadata shows of an object, to compare the index with."""

    uid: str
    resource_version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _NamespaceMemory:
    labels: Labels
    deleted_at: float | None


class BackendIndex:
    """A fold over slices, Services and Namespaces; see the top of the file.

    `now` is always the caller's monotonic clock, in seconds. An apply costs what the one Service
    costs, never what the cluster does.
    """

    def __init__(self) -> None:
        self._slices: dict[SliceKey, Slice] = {}
        self._services: dict[ServiceKey, ServiceMemory] = {}
        self._owners: dict[Frontend, tuple[ServiceKey, ...]] = {}  # who has or had it
        self._restless: set[ServiceKey] = set()
        self._namespaces: dict[str, _NamespaceMemory] = {}
        self._node_addresses: frozenset[IPAddress] = frozenset()
        self._is_filled = False

    # ---------------------------------------------------------------- what the API server says

    def apply_slice(self, key: SliceKey, slice_: Slice | None, *, now: float) -> Change:
        """Take a slice as it is now; None: deleted, or nothing for kube-proxy any more."""
        previous = self._slices.pop(key, None)
        if slice_ is not None:
            self._slices[key] = slice_
        services = {one.service_key for one in (previous, slice_) if one is not None}
        change = NO_CHANGE
        for service_key in sorted(services):
            was = previous if previous and previous.service_key == service_key else None
            becomes = slice_ if slice_ and slice_.service_key == service_key else None
            memory = self._services.setdefault(service_key, ServiceMemory())
            change |= memory.replace_slice(key.name, was, becomes, now=now, new=self._is_filled)
            self._settle(service_key)
        return change

    def apply_service(self, key: ServiceKey, service: Service | None, *, now: float) -> Change:
        """Take a Service as it is now; None: deleted."""
        memory = self._services.get(key)
        if memory is None:
            if service is None:
                return NO_CHANGE
            memory = self._services[key] = ServiceMemory()
        elif service is None and memory.service is None:  # told twice
            return NO_CHANGE
        before = memory.known_frontends()
        change = memory.replace_service(service, now=now)
        self._own(key, before, memory.known_frontends())
        self._settle(key)
        return change

    def apply_namespace(self, name: str, labels: Labels | None, *, now: float) -> None:
        """Take a Namespace's labels as they are now; None: deleted."""
        if labels is not None:
            self._namespaces[name] = _NamespaceMemory(labels=labels, deleted_at=None)
        elif (known := self._namespaces.get(name)) and known.deleted_at is None:
            self._namespaces[name] = _NamespaceMemory(labels=known.labels, deleted_at=now)

    def fill_is_complete(self) -> None:
        """Note that all there was when we came is known: what appears from now on is new."""
        self._is_filled = True

    def set_node_addresses(self, addresses: frozenset[IPAddress]) -> None:
        """Take the addresses of all nodes."""
        self._node_addresses = addresses

    def expire(self, *, now: float, keep_for: float) -> None:
        """Forget what vanished `keep_for` seconds ago or earlier."""
        before = now - keep_for
        for key in list(self._restless):
            memory = self._services[key]
            known = memory.known_frontends()
            memory.expire(before)
            self._own(key, known, memory.known_frontends())
            self._settle(key)
        self._namespaces = {
            name: one
            for name, one in self._namespaces.items()
            if one.deleted_at is None or one.deleted_at > before
        }

    # ---------------------------------------------------------------- what is known

    def is_valid(self, frontend: Frontend, backend: Address) -> bool:
        """Whether some Service leads from that frontend to that backend now.

        Also if the backend is an address of a node, which is never condemned.
        """
        return backend.ip in self._node_addresses or any(
            _until(memory, frontend, backend) == PRESENT for memory in self._owning(frontend)
        )

    def is_chosen(self, frontend: Frontend, backend: Address) -> bool:
        """Whether some kube-proxy would choose that backend for a new flow to that frontend."""
        return backend.ip in self._node_addresses or self._judge(frontend, backend)[0] is None

    def gone(self, *, now: float, within: float | None = None) -> tuple[RemovedBackend, ...]:
        """All pairs that are gone, by Service port and backend; unchosen ones at any age.

        With `within`, removals that are older than so many seconds may be left out. To be asked
        after the batch window, since an endpoint may only have moved between slices, and each
        second, since nothing but time makes an unready backend a removal.
        """
        oldest = NEVER if within is None else now - within
        return tuple(
            removed
            for key in self._restless
            for name, port in self._services[key].ports.items()
            for removed in self._gone_of_port(key, name, port, oldest)
        )

    def labels(self, key: ServiceKey) -> ServiceLabels | None:
        """Find what policies select by, also for a while after the Service or Namespace is gone."""
        memory = self._services.get(key)
        if memory is None or memory.labels is None:
            return None
        namespace = self._namespaces.get(key.namespace)
        return ServiceLabels(
            namespace=None if namespace is None else namespace.labels, service=memory.labels
        )

    def proxied_services(self) -> tuple[ServiceLabels, ...]:
        """All Services that have frontends now, for the policies' count of matched Services."""
        return tuple(
            labels
            for key, memory in self._services.items()
            if any(port.frontends for port in memory.ports.values())
            and (labels := self.labels(key)) is not None
        )

    def backends_total(self) -> int:
        """Count the backends that are listed now, each once per Service port."""
        return sum(
            len(port.listed) for memory in self._services.values() for port in memory.ports.values()
        )

    def slice_versions(self) -> dict[SliceKey, ObjectVersion]:
        """Say which slices are known, in which version."""
        return {key: _version(slice_) for key, slice_ in self._slices.items()}

    def service_versions(self) -> dict[ServiceKey, ObjectVersion]:
        """Say which Services are known, in which version."""
        return {
            key: _version(memory.service)
            for key, memory in self._services.items()
            if memory.service is not None
        }

    def namespaces(self) -> frozenset[str]:
        """Say which Namespaces are known to exist."""
        return frozenset(name for name, one in self._namespaces.items() if one.deleted_at is None)

    # ---------------------------------------------------------------- how

    def _owning(self, frontend: Frontend) -> Iterator[ServiceMemory]:
        return (self._services[key] for key in self._owners.get(frontend, ()))

    def _own(self, key: ServiceKey, before: set[Frontend], after: set[Frontend]) -> None:
        """Note whose the frontends are, from the difference."""
        for frontend in after - before:
            self._owners[frontend] = (*self._owners.get(frontend, ()), key)
        for frontend in before - after:
            others = tuple(owner for owner in self._owners[frontend] if owner != key)
            if others:
                self._owners[frontend] = others
            else:
                del self._owners[frontend]

    def _settle(self, key: ServiceKey) -> None:
        """Note whether a Service needs to be looked at, or is to be forgotten."""
        memory = self._services[key]
        self._restless.discard(key)
        if memory.is_empty:
            del self._services[key]
        elif memory.is_restless:
            self._restless.add(key)

    def _gone_of_port(
        self, key: ServiceKey, name: str, port: PortMemory, oldest: float
    ) -> Iterator[RemovedBackend]:
        """Judge every pair of one Service port that may be gone."""
        service_port = ServicePortName(namespace=key.namespace, name=key.name, port_name=name)
        frontends = (*port.frontends, *port.gone_frontends)
        memory = self._services[key]
        for backend, terminated in _suspects(port):
            # Left out here, a younger removal through another Service is reported by that one.
            if backend.ip in self._node_addresses or memory.backend_until(backend) < oldest:
                continue
            found: dict[tuple[CleanupReason, float], set[Frontend]] = {}
            for frontend in frontends:
                reason, gone_at = self._judge(frontend, backend)
                if reason is not None and _same_family(frontend, backend):
                    found.setdefault((reason, gone_at), set()).add(frontend)
            for (reason, gone_at), of_frontends in found.items():
                if reason is CleanupReason.ENDPOINT_UNREADY or gone_at >= oldest:
                    yield RemovedBackend(
                        service_port=service_port,
                        backend=backend,
                        frontends=frozenset(of_frontends),
                        reason=reason,
                        gone_at=gone_at,
                        # A listed one may drain for minutes, and answer: it is given its second.
                        terminated=terminated and reason is CleanupReason.ENDPOINT_REMOVED,
                    )

    def _judge(self, frontend: Frontend, backend: Address) -> tuple[CleanupReason | None, float]:
        """Say why a pair is gone, if it is, and since when."""
        since = NEVER
        listed = False
        for memory in self._owning(frontend):
            until = _until(memory, frontend, backend)
            if until == PRESENT:
                unchosen_since = memory.unchosen_since(backend)
                if unchosen_since is None:
                    return None, PRESENT
                listed = True
                until = unchosen_since
            since = max(since, until)
        reason = CleanupReason.ENDPOINT_UNREADY if listed else CleanupReason.ENDPOINT_REMOVED
        return reason, since


def _until(memory: ServiceMemory, frontend: Frontend, backend: Address) -> float:
    """When that Service ended to lead from the frontend to the backend; PRESENT, or NEVER."""
    return min(memory.frontend_until(frontend), memory.backend_until(backend))


def _suspects(port: PortMemory) -> Iterable[tuple[Address, bool]]:
    """All backends of a port that may be gone for a frontend, and whether each was terminating."""
    listed = port.listed if port.gone_frontends else port.unready
    yield from ((backend, port.listed[backend].terminated) for backend in listed)
    yield from ((backend, one.terminated) for backend, one in port.gone.items())


def _same_family(frontend: Frontend, backend: Address) -> bool:
    """Whether the kernel could translate one into the other; a nodePort has both families."""
    return isinstance(frontend, NodePort) or frontend.ip.version == backend.ip.version


def _version(known: Slice | Service) -> ObjectVersion:
    return ObjectVersion(uid=known.uid, resource_version=known.resource_version)
