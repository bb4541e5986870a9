"""From what is gone to cleanups, and from what serves again to their revocation.

Rules of `plan_cleanups`:

- One cleanup is of one policy and one reason; `packing` says what else goes into one object.
- An unready backend counts as gone from the end of its policy's `unreadyAfterSeconds` on.
- What is older than `sweep_for` is left to the nodes' suspects.
- What a live cleanup covers is left out, unless it went again later than that one can know.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from math import ceil, inf
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from synsweep.core.cleanup import (
    Cleanup,
    CleanupReason,
    Frontend,
    Mode,
    TargetBackend,
    cleanup_name,
    without,
)
from synsweep.core.endpoints import ServiceKey
from synsweep.core.flow import Address
from synsweep.core.packing import Removal, batches_of, frontend_order, spread
from synsweep.core.policy import effective_policy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from synsweep.core.cleanup import CleanupTarget
    from synsweep.core.policy import Policy, ServiceLabels
    from synsweep.core.removals import RemovedBackend

NODE_WRITES_PER_SECOND: Final = 50  # of all nodes together
MAX_REPORT_WITHIN: Final = 3600
COVER_SLACK: Final = 1.0  # seconds: the Date header that dates an adopted cleanup has whole ones

# (policy uid, mode, reason, frontend, backend): what a live cleanup is about
PairKey: TypeAlias = tuple[str, Mode, CleanupReason, Frontend, Address]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSettings:
    """The settings of the cluster that go into every cleanup, in seconds."""

    reuse_after: int
    sweep_for: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """A live cleanup that must shrink to `remaining`; None: to nothing, so delete it."""

    cleanup: Cleanup
    remaining: Cleanup | None


class Pairs(Protocol):
    """What the index says of a pair now."""

    def is_valid(self, frontend: Frontend, backend: Address) -> bool:
        """Whether some Service leads from the frontend to the backend."""
        ...

    def is_chosen(self, frontend: Frontend, backend: Address) -> bool:
        """Whether some kube-proxy would choose it for a new flow."""
        ...


def report_within_seconds(nodes_total: int) -> int:
    """Say over how long the nodes spread their reports: 3 nodes 1 s, 5,000 nodes 100 s."""
    return min(MAX_REPORT_WITHIN, max(1, ceil(nodes_total / NODE_WRITES_PER_SECOND)))


def covered_pairs(live: Iterable[tuple[Cleanup, float]]) -> dict[PairKey, float]:
    """Say what live cleanups are about: removals up to which moment each of them covers.

    With each cleanup comes the monotonic moment that its age is counted from, which is `now` at its
    writing less `gone_for_seconds`.
    """
    covered: dict[PairKey, float] = {}
    for cleanup, gone_at in live:
        about = (cleanup.policy_uid, cleanup.mode, cleanup.reason)
        until = gone_at + spread(cleanup.gone_for_seconds) + COVER_SLACK
        for target in cleanup.targets:
            for frontend in target.frontends:
                for backend in target.backends:
                    key = (*about, frontend, backend.address)
                    covered[key] = max(until, covered.get(key, until))
    return covered


def plan_cleanups(
    removed: Iterable[RemovedBackend],
    *,
    policies: Iterable[Policy],
    labels: Callable[[ServiceKey], ServiceLabels | None],
    covered: Mapping[PairKey, float],
    settings: PlanSettings,
    first_sequence: int,
    now: float,
    wall_now: str,
    nodes_total: int,
) -> tuple[Cleanup, ...]:
    """Plan the cleanups for what is gone and not covered, the oldest removals first.

    Args:
        removed: all that the index says is gone, younger than `sweep_for` at least.
        policies: the last good version of each.
        labels: BackendIndex.labels.
        covered: covered_pairs() of the live cleanups.
        settings: durations of the cluster.
        first_sequence: of the first cleanup; each further one has the next.
        now: monotonic seconds, of the clock that the index was told.
        wall_now: RFC 3339; it is shown to people only.
        nodes_total: how many nodes will act.
    """
    groups = _due(removed, _decider(policies, labels), covered, settings, now)
    batches = sorted(
        (
            (batch, policy, reason)
            for policy, reason, removals in groups
            for batch in batches_of(removals, now)
        ),
        key=lambda one: (one[0].gone_at, one[1].name, one[2]),
    )
    cleanups: list[Cleanup] = []
    for batch, policy, reason in batches:
        template = _template(
            policy,
            reason,
            age=now - batch.gone_at,
            wall_now=wall_now,
            settings=settings,
            nodes_total=nodes_total,
        )
        for targets in batch.objects():
            sequence = first_sequence + len(cleanups)
            name = cleanup_name(reason, sequence)
            cleanups.append(replace(template, name=name, sequence=sequence, targets=targets))
    return tuple(cleanups)


def plan_revocations(
    live: Iterable[Cleanup],
    *,
    pairs: Pairs,
    policies: Iterable[Policy],
    labels: Callable[[ServiceKey], ServiceLabels | None],
) -> tuple[Revocation, ...]:
    """Find what must be taken out of live cleanups at once; those that stay whole are left out.

    A backend goes if it serves again through any of its target's frontends: for ENDPOINT_UNREADY,
    if it is chosen again; else, if the pair is valid. What is then still gone is planned anew. A
    target goes if another policy, or none, decides for its Service now, or in another mode: also
    one that was planned before its policy changed and has waited for its turn.
    """
    known = tuple(policies)
    revocations = []
    for cleanup in live:
        unready = cleanup.reason is CleanupReason.ENDPOINT_UNREADY
        serves = pairs.is_chosen if unready else pairs.is_valid
        wanted = _wanted(cleanup, known, labels)
        again = {
            (frontend, backend.address)
            for target in wanted.targets
            for frontend in target.frontends
            for backend in target.backends
            if serves(frontend, backend.address)
        }
        remaining = without(wanted, again) if wanted.targets else None
        if remaining is not cleanup:
            revocations.append(Revocation(cleanup=cleanup, remaining=remaining))
    return tuple(revocations)


def plan_withdrawals(live: Iterable[Cleanup], policies: Iterable[Policy]) -> tuple[Cleanup, ...]:
    """Find the live cleanups to delete at once: their policy is gone, or has another mode now.

    Only once the policies have been listed: before, all of them would seem gone.
    """
    modes = {policy.uid: policy.mode for policy in policies}
    return tuple(cleanup for cleanup in live if modes.get(cleanup.policy_uid) != cleanup.mode)


def _template(
    policy: Policy,
    reason: CleanupReason,
    *,
    age: float,
    wall_now: str,
    settings: PlanSettings,
    nodes_total: int,
) -> Cleanup:
    """Make all of a cleanup but its number and its targets; `age` is its oldest removal's."""
    removed_at = datetime.fromisoformat(wall_now) - timedelta(seconds=age)
    return Cleanup(
        name="",
        uid="",
        policy=policy.name,
        policy_uid=policy.uid,
        sequence=0,
        mode=policy.mode,
        misrouted=policy.misrouted,
        reason=reason,
        gone_for_seconds=round(age, 3),
        removed_at=removed_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        reuse_after_seconds=settings.reuse_after,
        sweep_for_seconds=settings.sweep_for,
        report_within_seconds=report_within_seconds(nodes_total),
        nodes=(),
        targets=(),
    )


def _wanted(
    cleanup: Cleanup,
    policies: Sequence[Policy],
    labels: Callable[[ServiceKey], ServiceLabels | None],
) -> Cleanup:
    """Keep the targets for whose Service the cleanup's policy still decides, as far as is known."""

    def is_wanted(target: CleanupTarget) -> bool:
        known = labels(ServiceKey(namespace=target.namespace, name=target.service))
        if known is None or known.namespace is None:
            return True
        policy = effective_policy(policies, known)
        if policy is None or (policy.uid, policy.mode) != (cleanup.policy_uid, cleanup.mode):
            return False
        return cleanup.reason is not CleanupReason.ENDPOINT_UNREADY or bool(
            policy.unready_after_seconds
        )

    targets = tuple(target for target in cleanup.targets if is_wanted(target))
    return cleanup if targets == cleanup.targets else replace(cleanup, targets=targets)


def _due(
    removed: Iterable[RemovedBackend],
    policy_of: Callable[[ServiceKey], Policy | None],
    covered: Mapping[PairKey, float],
    settings: PlanSettings,
    now: float,
) -> Iterator[tuple[Policy, CleanupReason, list[Removal]]]:
    """Find what is to be cleaned now, each pair once, by policy and reason."""
    found: dict[tuple[str, CleanupReason], tuple[Policy, list[Removal]]] = {}
    known = dict(covered)
    for one in sorted(removed, key=lambda one: (one.gone_at, one.service_port)):
        policy = policy_of(one.service_port.service)
        if policy is None or policy.mode is Mode.DISABLED:
            continue
        gone_at = _gone_at(one, policy)
        if not 0 <= now - gone_at <= settings.sweep_for:
            continue
        keys = {
            frontend: (policy.uid, policy.mode, one.reason, frontend, one.backend)
            for frontend in one.frontends
        }
        frontends = {frontend for frontend, key in keys.items() if known.get(key, -inf) < gone_at}
        if frontends:
            known.update((keys[frontend], gone_at) for frontend in frontends)
            _, removals = found.setdefault((policy.uid, one.reason), (policy, []))
            removals.append(
                Removal(
                    gone_at=gone_at,
                    service_port=one.service_port,
                    frontends=tuple(sorted(frontends, key=frontend_order)),
                    backend=TargetBackend(address=one.backend, terminated=one.terminated),
                )
            )
    for (_, reason), (policy, removals) in found.items():
        yield policy, reason, removals


def _decider(
    policies: Iterable[Policy], labels: Callable[[ServiceKey], ServiceLabels | None]
) -> Callable[[ServiceKey], Policy | None]:
    """Make the look-up of the policy that decides for a Service; it judges each Service once."""
    known = tuple(policies)
    decided: dict[ServiceKey, Policy | None] = {}

    def policy_of(service: ServiceKey) -> Policy | None:
        if service not in decided:
            of_service = labels(service)
            decided[service] = None if of_service is None else effective_policy(known, of_service)
        return decided[service]

    return policy_of


def _gone_at(removed: RemovedBackend, policy: Policy) -> float:
    """From when on a backend counts as gone; an unready one never does if the policy says so."""
    if removed.reason is CleanupReason.ENDPOINT_REMOVED:
        return removed.gone_at
    return removed.gone_at + (policy.unready_after_seconds or inf)
