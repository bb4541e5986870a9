"""What `kubectl describe conntrackpolicy` shows: the status of each policy, and Events about it.

The status is a pure function of what is known; it is written on change only and at most every 10 s
per policy. Counters are sums over the nodes present, so nothing is counted twice after a restart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from synsweep.core.cleanup import Misrouted, Mode
from synsweep.core.conditions import (
    FALSE,
    TRUE,
    Condition,
    condition_from_wire,
    condition_to_wire,
    set_condition,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synsweep.controller.view import SeenPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a policy's status tells of the rest of the cluster."""

    matched_services: int
    nodes_ready: int
    nodes_total: int  # what the DaemonSet desires
    nodes_unsupported: int  # of those that report: IPVS, or no kube-proxy at all
    deleted_entries: int
    last_cleanup: str  # RFC 3339; "" = none that we know of


def policy_status(
    policy: SeenPolicy, around: Surroundings, *, previous: Mapping[str, Any], wall_now: str
) -> dict[str, Any]:
    """Make the whole status.

    Args:
        policy: the object as it was last seen.
        around: the rest of the cluster.
        previous: the status that was last written or seen; keeps the times of transitions.
        wall_now: RFC 3339, by the API server's clock, for what changed now.
    """
    conditions: tuple[Condition, ...] = _readable(previous)
    for type_, (verdict, reason, message) in _verdicts(policy, around).items():
        conditions = set_condition(
            conditions,
            Condition(
                type=type_,
                status=verdict,
                reason=reason,
                message=message,
                last_transition_time=wall_now,
                observed_generation=policy.generation,
            ),
        )
    status: dict[str, Any] = {
        "observedGeneration": policy.generation,
        "conditions": [condition_to_wire(one) for one in conditions],
        "matchedServices": around.matched_services,
        "nodesReady": around.nodes_ready,
        "nodesTotal": around.nodes_total,
        "deletedEntries": around.deleted_entries,
    }
    last = max(around.last_cleanup, str(previous.get("lastCleanupTime") or ""))
    return status | ({"lastCleanupTime": last} if last else {})


def _verdicts(policy: SeenPolicy, around: Surroundings) -> dict[str, tuple[str, str, str]]:
    return {
        "Ready": _ready(policy, around),
        "Degraded": _degraded(policy, around),
        "MisroutedHandled": _misrouted(policy),
    }


def _ready(policy: SeenPolicy, around: Surroundings) -> tuple[str, str, str]:
    if policy.invalid is not None:
        stays = "the last valid version stays in force" if policy.good else "nothing is done"
        return FALSE, "PolicyInvalid", f"{policy.invalid}; {stays}"
    assert policy.good is not None  # noqa: S101  # valid, so it was read
    if policy.good.mode is Mode.DISABLED:
        return TRUE, "Disabled", "Nothing is done for the Services that this policy decides for"
    if around.nodes_ready == 0:
        return (
            FALSE,
            "NoNodeReady",
            f"None of {around.nodes_total} nodes has a helper that is ready",
        )
    if policy.good.mode is Mode.DRY_RUN:
        return TRUE, "DryRun", "Stale entries are found and counted, none is deleted"
    return TRUE, "Enforcing", "Stale entries are deleted"


def _degraded(policy: SeenPolicy, around: Surroundings) -> tuple[str, str, str]:
    if policy.invalid is not None:
        return TRUE, "PolicyInvalid", str(policy.invalid)
    if around.nodes_ready < max(around.nodes_total, 1):
        message = f"{around.nodes_ready} of {around.nodes_total} nodes have a helper that is ready"
        return TRUE, "NodesNotReady", f"{message}; see kubectl get conntracknodes"
    if around.nodes_unsupported:
        message = f"On {around.nodes_unsupported} nodes kube-proxy's mode leaves nothing to clean"
        return TRUE, "NodesUnsupported", f"{message}; see kubectl get conntracknodes"
    return FALSE, "AsExpected", "All nodes act"


def _misrouted(policy: SeenPolicy) -> tuple[str, str, str]:
    """Say that `misrouted` is not acted on, instead of silently ignoring it."""
    wanted = policy.good.misrouted if policy.good else Misrouted.REPORT
    if wanted is Misrouted.IGNORE:
        return TRUE, "Ignored", "spec.misrouted is Ignore: there is nothing to do"
    return (
        FALSE,
        "NotSupported",
        (
            f"spec.misrouted is {wanted}, which this version does not act on: connections that have"
            " reached another pod are neither reported nor reset; half-open ones are handled"
        ),
    )


def _readable(previous: Mapping[str, Any]) -> tuple[Condition, ...]:
    """Read the conditions of before; what cannot be read is made anew."""
    found: list[Condition] = []
    for body in previous.get("conditions") or ():
        try:
            found.append(condition_from_wire(body))
        except ValueError:
            continue
    return tuple(found)
