"""Where health and metrics are served: `host:port`, `[v6]:port`, or `:port` for every address."""

from __future__ import annotations

from dataclasses import dataclass

MAX_PORT = 65535


@dataclass(frozen=True, slots=True)
class HttpAddress:
    """Where to listen. An empty host means every address of both families; port 0 any free one."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> HttpAddress:
        """Read `127.0.0.1:9469`, `[::1]:9469` or `:9469`.

        Raises:
            ValueError: with what is allowed.
        """
        host, colon, port = text.rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        digits = port.isascii() and port.isdigit()
        if not colon or not digits or int(port) > MAX_PORT or (":" in host and not bracketed):
            raise ValueError(
                f"{text!r} is not host:port, [IPv6]:port or :port with a port of 0 to {MAX_PORT}"
            )
        return cls(host[1:-1] if bracketed else host, int(port))

    def __str__(self) -> str:
        """Write it as it is read."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
