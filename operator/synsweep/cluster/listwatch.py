"""List and watch one kind: the loop for every kind that is read outside kopf.

- a list in pages, then a watch with bookmarks from the list's version;
- each watch asks the server to end it after 15 s ± 2 s and is resumed at its last version. A
  stalled proxy keeps TCP alive, so only this tells a dead watch from a quiet one: silence for 3 s
  more than was asked for is an error, so a dead watch is noticed within 20 s;
- on 410 and on any error: list again **and compare** with what was known, since a watch never tells
  of objects that vanished while it was down;
- random exponential pauses of at most 2 s, so that thousands of helpers do not come back as one.
"""

from __future__ import annotations

import json
import logging
import math
import random
import threading
import time
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from synsweep.cluster.backoff import BackOff
from synsweep.cluster.errors import ApiError, ApiRefused, ApiUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from synsweep.cluster.client import Answer, Body, Stream

log = logging.getLogger(__name__)

PAGE = 500  # objects
WATCH_SECONDS = (13, 17)  # whole numbers: a fraction is refused with 400
GRACE = 3.0  # seconds that the end of a watch may be late
LONGEST_PAUSE = 2.0
SAY_EVERY = 30.0  # seconds between two log lines about the same collection
_AT_ONCE = 1.0  # a watch that ends within this is no regular end


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """All there is, after every list: apply each item (again), drop what vanished.

    `vanished` are bodies with metadata only, of objects that were known and are absent now.
    """

    items: tuple[Body, ...]
    vanished: tuple[Body, ...]
    server_time: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Event:
    """One event of a watch. `server_time` is the API server's clock when it came."""

    body: Body
    server_time: float


class Added(_Event):
    """A new object."""


class Modified(_Event):
    """A changed object."""


class Deleted(_Event):
    """An object that is gone; its last body."""


Event: TypeAlias = Listed | Added | Modified | Deleted
_KINDS: dict[str, type[Added | Modified | Deleted]] = {
    "ADDED": Added,
    "MODIFIED": Modified,
    "DELETED": Deleted,
}


class Source(Protocol):
    """The part of `client.Api` that this loop needs."""

    def get(
        self, path: str, *, query: Mapping[str, str] | None = None, read_timeout: float = ...
    ) -> Answer:
        """Read one page of the list."""
        ...

    def stream(self, path: str, *, query: Mapping[str, str], read_timeout: float) -> Stream:
        """Open a watch."""
        ...


class ListWatch:
    """Follow all objects of one collection. Iterate `events` in one thread, `stop` from any."""

    def __init__(
        self,
        api: Source,
        path: str,
        *,
        label_selector: str = "",
        watch_seconds: tuple[int, int] = WATCH_SECONDS,
        grace: float = GRACE,
        longest_pause: float = LONGEST_PAUSE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.synced = False
        self.failures = 0
        self.trouble: ApiError | None = None  # what went wrong last, until a list is answered
        self._api = api
        self._path = path
        self._selector = {"labelSelector": label_selector} if label_selector else {}
        self._watch_seconds = watch_seconds
        self._grace = grace
        self._clock = clock
        self._back_off = BackOff(cap=longest_pause)
        self._known: dict[tuple[str, str], Body] = {}
        self._version = ""
        self._contact = -math.inf
        self._said_at = -math.inf
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._stream: Stream | None = None

    def events(self) -> Iterator[Event]:
        """Yield what happens until `stop`; failures are logged, paused after and listed again."""
        while not self._stopping.is_set():
            try:
                yield self._list()
                self.synced = True
                yield from self._watch()
            except ApiError as error:
                self._failed(error)

    def stop(self) -> None:
        """End `events` at once, also one that waits for an event or in a pause.

        A list that is just being read ends with its read timeout: iterate in a daemon thread.
        """
        with self._lock:
            self._stopping.set()
            if self._stream is not None:
                self._stream.interrupt()

    def silent_for(self, now: float) -> float:
        """Seconds since the API server last said anything here; infinite before its first word."""
        return now - self._contact

    def _failed(self, error: ApiError) -> None:
        if self._stopping.is_set():
            return
        self.failures += 1
        self.trouble = error
        now = self._clock()
        if isinstance(error, ApiRefused) and error.reason == "Expired":
            log.info("the watch of %s expired, listing again", self._path)
        elif now - self._said_at >= SAY_EVERY:
            self._said_at = now
            log.warning("cannot follow %s, trying on: %s", self._path, error)
        self._stopping.wait(self._back_off.next())

    def _list(self) -> Listed:
        """Read all pages, not older than what was seen, and compare with what was known."""
        query = {"limit": str(PAGE), **self._selector}
        if self._version:
            query |= {"resourceVersion": self._version, "resourceVersionMatch": "NotOlderThan"}
        self._version = ""  # if this fails (etcd restored: a version of the future), ask for any
        items: list[Body] = []
        while True:
            answer = self._api.get(self._path, query=query)
            items += [item for item in _items(answer.body) if _is_object(item)]
            token = answer.body["metadata"].get("continue")
            if not token:
                break
            query = {"limit": str(PAGE), "continue": token, **self._selector}
        self._contact = self._clock()
        self.trouble = None
        self._version = answer.body["metadata"].get("resourceVersion", "")
        known = {_key(item): _metadata_only(item) for item in items}
        vanished = tuple(body for key, body in self._known.items() if key not in known)
        self._known = known
        return Listed(items=tuple(items), vanished=vanished, server_time=answer.server_time)

    def _watch(self) -> Iterator[Event]:
        """Watch from the last version on, again and again, until something is wrong."""
        while not self._stopping.is_set():
            seconds = random.randint(*self._watch_seconds)  # noqa: S311  # spreads the load
            query = {
                "watch": "true",
                "allowWatchBookmarks": "true",
                "resourceVersion": self._version,
                "timeoutSeconds": str(seconds),
                **self._selector,
            }
            started = self._clock()
            with self._open(query, read_timeout=seconds + self._grace) as stream:
                self._contact = opened = self._clock()
                for line in stream.lines():
                    self._contact = self._clock()
                    event = self._read(line, stream.server_time + self._contact - opened)
                    self._back_off.reset()
                    if event is not None:
                        yield event
            self._contact = self._clock()
            if self._contact - started < _AT_ONCE:
                raise ApiUnavailable("the watch ended as soon as it had begun")
            self._back_off.reset()

    def _open(self, query: Mapping[str, str], *, read_timeout: float) -> Stream:
        stream = self._api.stream(self._path, query=query, read_timeout=read_timeout)
        with self._lock:
            self._stream = stream
            if self._stopping.is_set():
                stream.interrupt()
        return stream

    def _read(self, line: bytes, server_time: float) -> Event | None:
        """Decode one line; None for a bookmark, a repetition, and what is no object (said)."""
        try:
            raw = json.loads(line)
            kind, body = raw["type"], raw["object"]
        except (ValueError, KeyError, TypeError) as error:
            raise ApiUnavailable(f"no watch event: {line[:80]!r}") from error
        if kind == "ERROR":
            raise _watch_error(body)
        if kind == "BOOKMARK" and isinstance(body, dict):
            self._version = (body.get("metadata") or {}).get("resourceVersion", self._version)
            return None
        if kind not in _KINDS or not _is_object(body):
            log.warning("ignored a watch event of %s that is no object: %r", self._path, line[:200])
            return None
        return self._fold(kind, body, server_time)

    def _fold(self, kind: str, body: Body, server_time: float) -> Event | None:
        key, metadata = _key(body), _metadata_only(body)
        self._version = metadata["metadata"]["resourceVersion"] or self._version
        if kind == "DELETED":
            self._known.pop(key, None)
        elif self._known.get(key) == metadata:
            return None
        else:
            self._known[key] = metadata
        return _KINDS[kind](body=body, server_time=server_time)


def created_at(body: Mapping[str, Any]) -> float:
    """`metadata.creationTimestamp`, in seconds since the epoch by the API server's clock.

    Raises:
        ValueError: it is missing or no RFC 3339 moment.
    """
    stamp = (body.get("metadata") or {}).get("creationTimestamp")
    if not isinstance(stamp, str):
        raise ValueError(f"metadata.creationTimestamp is {stamp!r}")  # noqa: TRY004  # no bug of ours
    return datetime.fromisoformat(stamp).timestamp()


def age(body: Mapping[str, Any], server_time: float) -> float:
    """Seconds since the object was created: both moments are the API server's (± 1 s)."""
    return max(0.0, server_time - created_at(body))


def _items(body: Body) -> list[Body]:
    items = body.get("items")
    if not isinstance(items, list | None) or not isinstance(body.get("metadata"), dict):
        raise ApiUnavailable("the answer is no list")
    return items or []


def _is_object(body: Any) -> bool:
    metadata = body.get("metadata") if isinstance(body, dict) else None
    return isinstance(metadata, dict) and isinstance(metadata.get("name"), str)


def _key(body: Body) -> tuple[str, str]:
    return body["metadata"].get("namespace", ""), body["metadata"]["name"]


def _metadata_only(body: Body) -> Body:
    metadata = body["metadata"]
    fields = ("name", "namespace", "uid", "resourceVersion")
    return {"metadata": {field: metadata.get(field, "") for field in fields}}


def _watch_error(status: Any) -> ApiError:
    code = status.get("code") if isinstance(status, dict) else None
    if code == 410:  # noqa: PLR2004  # Gone: the version is older than what the server remembers
        message = status.get("message", "")
        return ApiRefused(status=410, reason="Expired", message=message, fields=())
    return ApiUnavailable(f"the watch says: {status!r:.200}")
