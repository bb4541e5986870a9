"""The kinds of values that flags take: each refuses what is not allowed and says what is."""

from __future__ import annotations

import re

import click

from synsweep.observe.address import HttpAddress

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|)", re.ASCII)


class Duration(click.ParamType[float]):
    """A duration in seconds: `30`, `30s`, `250ms`, `5m`, `1h`; bounds included."""

    name = "duration"

    def __init__(self, *, least: float, most: float) -> None:
        self._least = least
        self._most = most

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Read it as seconds."""
        match = _DURATION.fullmatch(value.strip())
        allowed = f"{show_duration(self._least)} to {show_duration(self._most)}"
        if match is None:
            self.fail(f"{value!r} is not a duration like 30s or 250ms, {allowed}.", param, ctx)
        seconds = float(match[1]) * _UNITS[match[2]]
        if not self._least <= seconds <= self._most:
            self.fail(f"{value!r} is not within {allowed}.", param, ctx)
        return seconds


def show_duration(seconds: float) -> str:
    """Write seconds as people do: `5ms`, `30s`, `1h`."""
    if 0 < seconds < 1:
        return f"{seconds * 1000:g}ms"
    if seconds and seconds % 3600 == 0:
        return f"{seconds / 3600:g}h"
    return f"{seconds:g}s"


class _HttpAddress(click.ParamType[str]):
    name = "host:port"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return str(HttpAddress.parse(value))
        except ValueError as error:
            self.fail(f"{error}.", param, ctx)


class _DnsName(click.ParamType[str]):
    """A name as Kubernetes checks it: RFC 1123."""

    def __init__(self, *, name: str, longest: int, pattern: str, allowed: str) -> None:
        self.name = name
        self._longest = longest
        self._pattern = re.compile(pattern, re.ASCII)
        self._allowed = allowed

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if len(value) > self._longest or not self._pattern.fullmatch(value):
            self.fail(
                f"{value!r} is not a name of at most {self._longest} {self._allowed}.", param, ctx
            )
        return value


_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"

HTTP_ADDRESS = _HttpAddress()
DNS_LABEL = _DnsName(
    name="name", longest=63, pattern=_LABEL, allowed="lower-case letters, digits and inner '-'"
)
DNS_SUBDOMAIN = _DnsName(
    name="name",
    longest=253,
    pattern=rf"{_LABEL}(\.{_LABEL})*",
    allowed="lower-case letters, digits and inner '-' or '.'",
)
