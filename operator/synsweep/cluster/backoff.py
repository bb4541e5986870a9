"""How long to wait after a failure: random, so that thousands do not come back as one."""

from __future__ import annotations

from tenacity import RetryCallState, Retrying, wait_random_exponential


class BackOff:
    """Random, exponential, capped pauses between failures."""

    def __init__(self, *, cap: float) -> None:
        self._wait = wait_random_exponential(multiplier=0.25, max=cap)
        self._state = RetryCallState(Retrying(), None, (), {})

    def next(self) -> float:
        """How many seconds to wait after one more failure."""
        pause = self._wait(self._state)
        self._state.attempt_number += 1
        return pause

    def reset(self) -> None:
        """Say that it works."""
        self._state.attempt_number = 1
