"""How many deletions a second: token buckets for each target and for the node.

The last line of defence. A mistaken or forged instruction, or a fault of our own, can only delete
slowly, and a big clean-up is spread over several sweeps instead of one burst. Values: `admit`
returns the brakes as they are afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

NODE_RATE = 2000.0  # deletions per second
TARGET_RATE = 500.0

Target: TypeAlias = tuple[str, str, str]  # namespace, Service, port name: over all cleanups


class Admission(Enum):
    """What the brakes say to one deletion."""

    ADMITTED = auto()
    TARGET_BRAKE = auto()
    NODE_BRAKE = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """Tokens at a moment (seconds, monotonic); one second's worth fills it."""

    rate: float
    tokens: float
    at: float

    def level(self, now: float) -> float:
        """How many tokens there are now."""
        return min(self.rate, self.tokens + max(0.0, now - self.at) * self.rate)


@dataclass(frozen=True, slots=True, kw_only=True)
class Brakes:
    """The node's bucket and one for each target that has deleted something lately."""

    node_rate: float = NODE_RATE
    target_rate: float = TARGET_RATE
    node: Bucket | None = None  # None: full, as is every target that is not in `targets`
    targets: Mapping[Target, Bucket] = field(default_factory=dict)

    def admit(
        self, wanted: Iterable[Target], *, now: float
    ) -> tuple[tuple[Admission, ...], Brakes]:
        """Spend one token of its target and one of the node for each deletion that has both.

        Args:
            wanted: the target of each deletion, in order.
            now: seconds, monotonic.

        Returns:
            What is said to each deletion, in order, and the brakes afterwards (full buckets are
            forgotten, so that they do not pile up).
        """
        node = self.node_rate if self.node is None else self.node.level(now)
        targets = {target: bucket.level(now) for target, bucket in self.targets.items()}
        answers = []
        for target in wanted:
            tokens = targets.get(target, self.target_rate)
            if tokens < 1:
                answers.append(Admission.TARGET_BRAKE)
            elif node < 1:
                answers.append(Admission.NODE_BRAKE)
            else:
                answers.append(Admission.ADMITTED)
                targets[target] = tokens - 1
                node -= 1
        return tuple(answers), Brakes(
            node_rate=self.node_rate,
            target_rate=self.target_rate,
            node=Bucket(rate=self.node_rate, tokens=node, at=now),
            targets={
                target: Bucket(rate=self.target_rate, tokens=tokens, at=now)
                for target, tokens in targets.items()
                if tokens < self.target_rate
            },
        )
