"""The Events about a policy: made from what changed, in words for the one who runs the cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synsweep.cluster.audit import Involved, Note

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from synsweep.controller.fleet import Tally
    from synsweep.controller.view import SeenPolicy


def notes_about(policy: SeenPolicy, tally: Tally) -> Iterator[Note]:
    """Say what the nodes did for it; nothing done makes no Event."""
    if tally.deleted:
        yield Note(
            involved=_involved(policy),
            severity="Normal",
            reason="StaleEntriesDeleted",
            action="Delete",
            message=f"Deleted {_entries(tally.deleted)}",
        )
    if tally.found:
        yield Note(
            involved=_involved(policy),
            severity="Normal",
            reason="StaleEntriesFound",
            action="DryRun",
            message=f"Would have deleted {_entries(tally.found)}",
        )


def note_of_invalid(policy: SeenPolicy) -> Note:
    """Say which field sets the policy aside."""
    stays = "the last valid version stays in force" if policy.good else "nothing is done"
    return Note(
        involved=_involved(policy),
        severity="Warning",
        reason="PolicyInvalid",
        action="SetAside",
        message=f"{policy.invalid}; {stays}",
        subject=str(policy.generation),
    )


def _involved(policy: SeenPolicy) -> Involved:
    return Involved(
        api_version="synsweep.io/v1alpha1",
        kind="ConntrackPolicy",
        namespace="",
        name=policy.name,
        uid=policy.uid,
    )


def _entries(by_node: Mapping[str, int]) -> str:
    total = sum(by_node.values())
    busiest = max(sorted(by_node), key=lambda name: by_node[name])
    noun = "half-open connection" if total == 1 else "half-open connections"
    where = f"on node {busiest}"
    if len(by_node) > 1:
        where = f"on {len(by_node)} nodes, most on {busiest} ({by_node[busiest]})"
    return f"{total} {noun} to backends that are gone, {where}"
