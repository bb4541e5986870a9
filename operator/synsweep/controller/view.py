"""What the controller knows of the cluster: the index and the policies, under one lock.

Events come from kopf's loop, and from the comparison with a list (`resync`) for what kopf never
told. kopf keeps the order of the events of one uid, not of one name, and a broken watch may repeat
old ones: the last version seen of each name decides what is news.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from synsweep.cluster.metadata import Version
from synsweep.core.bodies import BodyReader, MalformedObject
from synsweep.core.endpoints import ServiceKey, SliceKey, read_slice
from synsweep.core.index import BackendIndex
from synsweep.core.policy import Policy, PolicyInvalid, read_policy
from synsweep.core.removals import NO_CHANGE, Change
from synsweep.core.services import read_service

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from synsweep.cluster.metadata import Key
    from synsweep.controller.inbox import Inbox
    from synsweep.core.flow import IPAddress
    from synsweep.observe.metrics_controller import ControllerMetrics

log = logging.getLogger(__name__)

DELETED = "DELETED"  # the type of a kopf event; None is one from a list


class Kind(StrEnum):
    """What kopf watches for us."""

    SLICE = "EndpointSlice"
    SERVICE = "Service"
    NAMESPACE = "Namespace"
    POLICY = "ConntrackPolicy"


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenPolicy:
    """A policy object as it is now. `invalid` names the field that makes it unusable."""

    name: str
    uid: str
    generation: int
    status: Mapping[str, Any]
    good: Policy | None  # the last good behaviour, None if there never was one here
    invalid: PolicyInvalid | None


class View:
    """Fold of all events. Take `lock` around every use of `index`; it is held for moments only."""

    def __init__(
        self, *, inbox: Inbox, metrics: ControllerMetrics, clock: Callable[[], float]
    ) -> None:
        self.lock = threading.Lock()
        self.index = BackendIndex()
        self.listed_again = threading.Event()  # kopf listed after the start: compare at once
        self._filled = False
        self._inbox = inbox
        self._metrics = metrics
        self._clock = clock
        self._known: dict[Kind, dict[Key, Version]] = {kind: {} for kind in Kind}
        self._newest: dict[Kind, int] = dict.fromkeys(Kind, 0)
        self._policies: dict[str, SeenPolicy] = {}
        self._folds: dict[Kind, Callable[[Key, Any, float], Change]] = {
            Kind.SLICE: self._fold_slice,
            Kind.SERVICE: self._fold_service,
            Kind.NAMESPACE: self._fold_namespace,
            Kind.POLICY: self._fold_policy,
        }

    @property
    def filled(self) -> bool:
        """Whether everything that a list showed has been folded: from then on we may judge."""
        return self._filled

    def fill(self) -> None:
        """Say that the first comparison with a list found nothing missing."""
        with self.lock:
            self.index.fill_is_complete()
        self._filled = True
        self._inbox.policies(self._clock())

    def take(self, kind: Kind, type_: str | None, body: Mapping[str, Any]) -> None:
        """Fold one event of kopf; what is malformed is said, counted and leaves the rest as it was.

        Never awaits and never raises for what a body holds.
        """
        try:
            reader = BodyReader.of(body, kind=kind)
        except MalformedObject as error:
            self._refuse(kind, error)
            return
        key = (reader.namespace, reader.name)
        version = Version(uid=reader.uid, resource_version=reader.resource_version)
        if type_ is None and self._filled:
            self.listed_again.set()
        self._apply(kind, key, version, None if type_ == DELETED else body)

    def forget(self, kind: Kind, key: Key, version: Version) -> bool:
        """Fold a deletion that no event told, of exactly that version; False if it is old news."""
        with self.lock:
            if self._known[kind].get(key) != version:
                return False
        self._apply(kind, key, version, None)
        return True

    def known(self, kind: Kind) -> dict[Key, Version]:
        """Which objects of that kind are folded, by name."""
        with self.lock:
            return dict(self._known[kind])

    def newest(self, kind: Kind) -> int:
        """The highest version seen of that kind."""
        return self._newest[kind]

    def policies(self) -> tuple[Policy, ...]:
        """The behaviour of each policy: of an invalid one, the last good."""
        return tuple(seen.good for seen in self.seen_policies() if seen.good is not None)

    def seen_policies(self) -> tuple[SeenPolicy, ...]:
        """All policy objects."""
        with self.lock:
            return tuple(self._policies.values())

    def set_node_addresses(self, addresses: frozenset[IPAddress]) -> None:
        """Tell the index which addresses are the nodes' own."""
        with self.lock:
            self.index.set_node_addresses(addresses)

    def _apply(self, kind: Kind, key: Key, version: Version, body: Any) -> None:
        now = self._clock()
        with self.lock:
            if not self._is_news(self._known[kind].get(key), version, deleted=body is None):
                return
            self._remember(kind, key, version, deleted=body is None)
            try:
                change = self._folds[kind](key, body, now)
            except MalformedObject as error:
                self._refuse(kind, error)
                return
        if kind is Kind.POLICY:
            self._inbox.policies(now)
        if change.back:
            self._inbox.back()
        if change.gone:
            self._inbox.gone(now)

    def _is_news(self, known: Version | None, version: Version, *, deleted: bool) -> bool:
        if known is None:
            return not deleted
        if known.uid != version.uid:  # deleted and created again under that name
            return not deleted and as_number(version) > as_number(known)
        return (
            as_number(version) >= as_number(known)
            if deleted
            else version != known and (as_number(version) >= as_number(known))
        )

    def _remember(self, kind: Kind, key: Key, version: Version, *, deleted: bool) -> None:
        self._newest[kind] = max(self._newest[kind], as_number(version))
        if deleted:
            del self._known[kind][key]
        else:
            self._known[kind][key] = version

    def _refuse(self, kind: Kind, error: MalformedObject) -> None:
        self._metrics.malformed.labels(kind=kind.value).inc()
        log.warning("%s; it is left as it was", error, extra={"kind": kind.value})

    def _fold_slice(self, key: Key, body: Any, now: float) -> Change:
        slice_ = None if body is None else read_slice(body)
        return self.index.apply_slice(SliceKey(namespace=key[0], name=key[1]), slice_, now=now)

    def _fold_service(self, key: Key, body: Any, now: float) -> Change:
        service = None if body is None else read_service(body)
        return self.index.apply_service(ServiceKey(namespace=key[0], name=key[1]), service, now=now)

    def _fold_namespace(self, key: Key, body: Any, now: float) -> Change:
        labels = None if body is None else BodyReader.of(body, kind=Kind.NAMESPACE).labels()
        self.index.apply_namespace(key[1], labels, now=now)
        return NO_CHANGE

    def _fold_policy(self, key: Key, body: Any, now: float) -> Change:
        del now
        before = self._policies.pop(key[1], None)
        if body is None:
            return NO_CHANGE
        uid = str(body["metadata"].get("uid", ""))
        good = before.good if before is not None and before.uid == uid else None
        invalid = None
        try:
            good = read_policy(body)
        except PolicyInvalid as error:
            invalid = error
            log.warning("ConntrackPolicy %s: %s; its last good behaviour stays", key[1], error)
        self._policies[key[1]] = SeenPolicy(
            name=key[1],
            uid=uid,
            generation=int(body["metadata"].get("generation") or 0),
            status=body.get("status") or {},
            good=good,
            invalid=invalid,
        )
        return NO_CHANGE


def as_number(version: Version) -> int:
    """Order versions: they are etcd revisions, and 1.35 made comparing them part of the API."""
    return int(version.resource_version) if version.resource_version.isdecimal() else 0
