"""Reading the fields of our own API objects, with the path of what is wrong.

The schema in `crds/` says the same, but the reader may be older than the schema, or the object may
come from one that was: nothing is taken on trust. Unknown fields are ignored. null means absent, as
everywhere in the Kubernetes API.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from synsweep.core.flow import IPAddress

MAX_PORT = 65535
_SHOWN_CHARACTERS = 80

Word = TypeVar("Word", bound=StrEnum)


class BadField(ValueError):
    """One field is not as it must be.

    `malformed`: of the wrong type, or missing; otherwise well-formed, but out of its limits.
    """

    def __init__(self, *, field: str, value: object, allowed: str, malformed: bool) -> None:
        shown = "missing" if value is None else repr(value)
        self.field = field
        self.value = shown[:_SHOWN_CHARACTERS]
        self.allowed = allowed
        self.malformed = malformed
        super().__init__(f"{field} is {self.value}; allowed: {allowed}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fields:
    """The fields of one JSON object, and where in the body that object is."""

    body: Mapping[str, Any]
    path: str = ""

    @classmethod
    def of(cls, value: object, path: str = "") -> Fields:
        """Raises BadField unless `value` is a JSON object."""
        if not isinstance(value, Mapping):
            raise BadField(field=path or ".", value=value, allowed="an object", malformed=True)
        return cls(body=value, path=path)

    def has(self, name: str) -> bool:
        """Whether the field is there and not null."""
        return self.body.get(name) is not None

    def child(self, name: str) -> Fields:
        """Open the object in a field; it must be there."""
        return Fields.of(self.body.get(name), self._path(name))

    def children(self, name: str, *, at_most: int) -> Iterator[Fields]:
        """Open a list of objects; an absent list is empty."""
        for value, path in self._items(name, at_most):
            yield Fields.of(value, path)

    def texts(self, name: str, *, at_most: int, longest: int) -> tuple[str, ...]:
        """Read a list of strings; an absent list is empty."""
        return tuple(_text(value, path, longest) for value, path in self._items(name, at_most))

    def text(self, name: str, *, longest: int, default: str | None = None) -> str:
        """Read a string; without a default it must be there and not be empty."""
        value = self.body.get(name)
        if value is None and default is not None:
            return default
        found = _text(value, self._path(name), longest)
        if not found and default is None:
            raise self._bad(name, found, f"1 to {longest} characters", malformed=False)
        return found

    def integer(self, name: str, *, low: int, high: int, default: int | None = None) -> int:
        """Read a whole number from low to high; without a default it must be there."""
        value = self.body.get(name)
        if value is None and default is not None:
            return default
        allowed = f"{low} to {high}"
        if not isinstance(value, int) or isinstance(value, bool):
            raise self._bad(name, value, f"a whole number, {allowed}", malformed=True)
        if not low <= value <= high:
            raise self._bad(name, value, allowed, malformed=False)
        return value

    def number(self, name: str, *, low: float, high: float) -> float:
        """Read a number from low to high; it must be there."""
        value = self.body.get(name)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise self._bad(name, value, f"a number, {low:g} to {high:g}", malformed=True)
        if not math.isfinite(value) or not low <= value <= high:
            raise self._bad(name, value, f"{low:g} to {high:g}", malformed=False)
        return float(value)

    def truth(self, name: str) -> bool:
        """Read true or false; it must be there."""
        value = self.body.get(name)
        if not isinstance(value, bool):
            raise self._bad(name, value, "true or false", malformed=True)
        return value

    def word(self, name: str, allowed: Iterable[Word]) -> Word:
        """Read one of some words; it must be there."""
        value = self.body.get(name)
        words = {word.value: word for word in allowed}
        if not isinstance(value, str):
            raise self._bad(name, value, ", ".join(words), malformed=True)
        if value not in words:
            raise self._bad(name, value, ", ".join(words), malformed=False)
        return words[value]

    def ip(self, name: str) -> IPAddress:
        """Read an IPv4 or IPv6 address without a zone (`%eth0`); it must be there."""
        value = self.body.get(name)
        allowed = "an IPv4 or IPv6 address"
        if not isinstance(value, str) or "%" in value:
            raise self._bad(name, value, allowed, malformed=True)
        try:
            return ip_address(value)
        except ValueError as error:
            raise self._bad(name, value, allowed, malformed=True) from error

    def port(self, name: str) -> int:
        """Read a port number; it must be there."""
        return self.integer(name, low=1, high=MAX_PORT)

    def _items(self, name: str, at_most: int) -> Iterator[tuple[object, str]]:
        value = self.body.get(name)
        path = self._path(name)
        if value is None:
            return
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise BadField(field=path, value=value, allowed="a list", malformed=True)
        if len(value) > at_most:
            raise BadField(
                field=path,
                value=f"{len(value)} items",
                allowed=f"at most {at_most} items",
                malformed=False,
            )
        for index, item in enumerate(value):
            yield item, f"{path}[{index}]"

    def _path(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    def _bad(self, name: str, value: object, allowed: str, *, malformed: bool) -> BadField:
        return BadField(field=self._path(name), value=value, allowed=allowed, malformed=malformed)


def _text(value: object, path: str, longest: int) -> str:
    if not isinstance(value, str):
        raise BadField(field=path, value=value, allowed="a string", malformed=True)
    if len(value) > longest:
        raise BadField(
            field=path, value=value, allowed=f"at most {longest} characters", malformed=False
        )
    return value
