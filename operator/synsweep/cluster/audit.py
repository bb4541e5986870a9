"""Events that `kubectl describe` shows: auxiliary, so nothing here ever raises or blocks a caller.

core/v1 Events in the involved object's namespace, for a cluster-scoped one in `default` and without
a namespace in `involvedObject`, since that is where kubectl looks. A repetition (same object,
reason and subject) raises `count` and `lastTimestamp` of the same Event. Each object may cause 25
Events at once and then one per 5 minutes, client-go's spam rule.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
import uuid
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from synsweep.cluster.errors import ApiError, ApiRefused

if TYPE_CHECKING:
    from collections.abc import Callable

    from synsweep.cluster.client import Api, Body

log = logging.getLogger(__name__)

_BURST = 25  # Events per object (client-go: defaultSpamBurst)
_REFILL = 300.0  # seconds for one more (client-go: defaultSpamQPS)
_REMEMBERED = 4096  # objects and Events (client-go: maxLruCacheEntries)
_WAITING = 1000
_LONGEST_MESSAGE = 1024
_LONGEST_REASON = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Involved:
    """The object that an Event is about. `namespace` is empty for a cluster-scoped one."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str

    def to_wire(self) -> Body:
        """Write it as `involvedObject`."""
        reference = {
            "apiVersion": self.api_version,
            "kind": self.kind,
            "name": self.name,
            "uid": self.uid,
        }
        return reference | ({"namespace": self.namespace} if self.namespace else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What to say. `subject` tells apart Events of one object and reason that must not merge."""

    involved: Involved
    severity: Literal["Normal", "Warning"]
    reason: str  # CamelCase
    action: str  # CamelCase, what was done: never empty
    message: str
    subject: str = ""


@dataclass(slots=True)
class _Posted:
    path: str
    count: int


class SpamFilter:
    """client-go's token bucket per object."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def allows(self, uid: str, now: float) -> bool:
        """Take one token of that object, if it has one. `now`: monotonic seconds."""
        tokens, since = self._buckets.pop(uid, (float(_BURST), now))
        tokens = min(float(_BURST), tokens + (now - since) / _REFILL)
        allowed = tokens >= 1
        self._buckets[uid] = (tokens - 1 if allowed else tokens, now)
        if len(self._buckets) > _REMEMBERED:
            self._buckets.popitem(last=False)
        return allowed


class Recorder:
    """Posts Events from a thread of its own."""

    def __init__(
        self,
        api: Api,
        *,
        component: str,
        instance: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.dropped = 0
        self._api = api
        self._component = component
        self._instance = instance
        self._clock = clock
        self._spam = SpamFilter()
        self._posted: OrderedDict[tuple[str, str, str, str], _Posted] = OrderedDict()
        self._queue: queue.Queue[Note | None] = queue.Queue(maxsize=_WAITING)
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)

    def start(self) -> None:
        """Begin to post."""
        self._thread.start()

    def stop(self, *, within: float) -> None:
        """Post what waits, for at most `within` seconds."""
        try:
            self._queue.put_nowait(None)
        except queue.Full:
            return
        if self._thread.is_alive():
            self._thread.join(within)

    def record(self, note: Note) -> None:
        """Say it, unless the object has said too much lately; returns at once."""
        if not self._spam.allows(note.involved.uid, self._clock()):
            self._drop(note, "its object causes too many")
            return
        try:
            self._queue.put_nowait(note)
        except queue.Full:
            self._drop(note, "too many are waiting")

    def _drop(self, note: Note, why: str) -> None:
        self.dropped += 1
        log.debug("Event %s of %s is not posted: %s", note.reason, note.involved.name, why)

    def _run(self) -> None:
        while (note := self._queue.get()) is not None:
            try:
                self._post(note)
            except ApiError as error:
                self.dropped += 1
                log.warning("Event %s of %s is lost: %s", note.reason, note.involved.name, error)

    def _post(self, note: Note) -> None:
        key = (note.involved.uid, note.severity, note.reason, note.subject)
        moment = _stamp(self._api.server_now())
        posted = self._posted.pop(key, None)
        if posted is None or not self._repeat(posted, note, moment):
            posted = self._create(note, moment)
        self._posted[key] = posted
        if len(self._posted) > _REMEMBERED:
            self._posted.popitem(last=False)

    def _repeat(self, posted: _Posted, note: Note, moment: str) -> bool:
        """Raise the count of an Event that was posted; False when it has expired (after 1 h)."""
        patch = {
            "count": posted.count + 1,
            "lastTimestamp": moment,
            "message": note.message[:_LONGEST_MESSAGE],
        }
        try:
            self._api.patch(posted.path, patch)
        except ApiRefused as refused:
            if refused.not_found:
                return False
            raise
        posted.count += 1
        return True

    def _create(self, note: Note, moment: str) -> _Posted:
        namespace = note.involved.namespace or "default"
        name = f"{note.involved.name[:200]}.{uuid.uuid4().hex[:16]}"
        path = f"/api/v1/namespaces/{namespace}/events"
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": note.involved.to_wire(),
            "type": note.severity,
            "reason": note.reason[:_LONGEST_REASON],
            "action": note.action,
            "message": note.message[:_LONGEST_MESSAGE],
            "count": 1,
            "firstTimestamp": moment,
            "lastTimestamp": moment,
            "source": {"component": self._component},
            "reportingComponent": f"synsweep.io/{self._component}",
            "reportingInstance": self._instance,
        }
        self._api.post(path, body)
        return _Posted(path=f"{path}/{name}", count=1)


def _stamp(server_now: float | None) -> str:
    """RFC 3339, whole seconds, by the API server's clock (the epoch before its first answer)."""
    return datetime.fromtimestamp(server_now or 0.0, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
