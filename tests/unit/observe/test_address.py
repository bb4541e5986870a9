"""Listening addresses are read as people write them, and refused with what is allowed."""

from __future__ import annotations

import pytest

from synsweep.observe.address import HttpAddress


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        pytest.param("127.0.0.1:9469", "127.0.0.1", 9469, id="IPv4"),
        pytest.param("[::1]:9469", "::1", 9469, id="IPv6 in brackets"),
        pytest.param(":9469", "", 9469, id="every address"),
        pytest.param("localhost:0", "localhost", 0, id="a name, and any free port"),
    ],
)
def test_what_is_read_is_written_the_same(text: str, host: str, port: int) -> None:
    address = HttpAddress.parse(text)
    assert (address.host, address.port, str(address)) == (host, port, text)


@pytest.mark.parametrize(
    "text", ["", "9469", "127.0.0.1", "::1:9469", "a:65536", "a:-1", "a:x", "a:", "a:٣"]
)
def test_anything_else_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(ValueError, match=r"host:port, \[IPv6\]:port or :port"):
        HttpAddress.parse(text)
