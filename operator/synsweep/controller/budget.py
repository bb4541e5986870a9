"""How many creates the API server is asked for: 2 per second, 4 under pressure."""

from __future__ import annotations

CALM = 2.0  # per second
PRESSED = 4.0
_BURST = 2.0


class Budget:
    """A token bucket. Moments are monotonic seconds."""

    def __init__(self, *, now: float) -> None:
        self._tokens = _BURST
        self._since = now

    def wait(self, *, now: float, pressed: bool) -> float:
        """Seconds until the next create may be made; 0 = now."""
        self._refill(now, PRESSED if pressed else CALM)
        missing = 1.0 - self._tokens
        return max(0.0, missing / (PRESSED if pressed else CALM))

    def spend(self) -> None:
        """One create was made."""
        self._tokens -= 1.0

    def _refill(self, now: float, rate: float) -> None:
        self._tokens = min(_BURST, self._tokens + (now - self._since) * rate)
        self._since = now
