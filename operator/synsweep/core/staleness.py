"""May this entry be deleted? The delete rule, and the words for its answer.

Rules of this file:

1. An entry is deleted only if every check of CHECKS lets it pass. A check is a pure function that
   returns a reason to keep the entry, or None; the first reason is the one that is told.
2. Everything unknown is a reason to keep. Keeping a stale entry costs a client seconds; deleting a
   live one costs it the connection.
3. An entry is judged twice by the same checks: when it is listed, and again right before the
   delete, because it may have been answered or replaced in between.
4. A check looks at the entry, at one candidate (one backend of one target of one cleanup) and at
   the node, never at other entries. The rate brakes do, so they are a filter over what these checks
   have condemned (`sweep_plan`): a token is spent on what passed everything here, and only once.
5. Where a backend is in several cleanups, one of them that condemns the entry is enough
   (`sweep_plan`, which looks the candidates up).

The words are those of conntrack(8): the frontend is the original destination, what the client
dialled; the backend is the reply source, who is to answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

from synsweep.core.cleanup import Mode, NodePort
from synsweep.core.flow import IPPROTO_TCP, ConntrackEntry, TcpState

if TYPE_CHECKING:
    from synsweep.core.cleanup import Cleanup, CleanupTarget, TargetBackend
    from synsweep.core.flow import Address, IPAddress

OLD_ENOUGH = 2  # seconds of computed age: more than 1 s, for an entry 5 ms old already shows 1
DEFAULT_ZONE = 0


class KeepReason(StrEnum):
    """Why an entry was kept: one word, the same in log, metric, Event and status."""

    NOT_TCP = "NotTcp"
    NOT_SYN_SENT = "NotSynSent"
    SEEN_REPLY = "SeenReply"
    NOT_DNATED = "NotDnated"
    OTHER_ZONE = "OtherZone"
    NOT_A_FRONTEND = "NotAFrontend"
    NOT_A_GONE_BACKEND = "NotAGoneBackend"
    TOO_YOUNG = "TooYoung"
    CLEANUP_OVER = "CleanupOver"
    CLEANUP_REVOKED = "CleanupRevoked"
    OTHER_NODE = "OtherNode"
    DRY_RUN = "DryRun"
    TARGET_BRAKE = "TargetBrake"
    NODE_BRAKE = "NodeBrake"
    REPLACED = "Replaced"  # the delete found another entry in its place


class Outcome(StrEnum):
    """What became of an entry that was condemned."""

    DELETED = "Deleted"
    ALREADY_GONE = "AlreadyGone"  # somebody else was faster, or its timer: success
    FAILED = "Failed"  # the kernel refused
    DRY_RUN = "DryRun"  # would have been deleted
    KEPT = "Kept"  # judged again right before the delete, and kept


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveCleanup:
    """A cleanup on this node. Times are of the node's own monotonic clock, in seconds."""

    cleanup: Cleanup
    arrived_at: float  # when this node first saw it
    gone_at: float  # when the backends went, counted back from arrived_at
    revoked: bool = False  # deleted from the API before it was over
    over_at: float = math.inf  # unknown before its first whole sweep, which it is owed however late


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One backend of one target of one cleanup: what an entry is judged against."""

    live: LiveCleanup
    target: CleanupTarget
    backend: TargetBackend


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a check must know of this node."""

    now: float  # seconds, monotonic
    node_name: str
    node_addresses: frozenset[IPAddress]  # read anew for each sweep
    syn_sent_timeout: int  # nf_conntrack_tcp_timeout_syn_sent, seconds


Check: TypeAlias = Callable[[ConntrackEntry, Candidate, Context], KeepReason | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class CondemnedEntry:
    """An entry that every check let pass (in `DryRun`: every other check), and on whose account."""

    entry: ConntrackEntry
    candidate: Candidate

    @property
    def cleanup(self) -> str:
        """Name of the ConntrackCleanup."""
        return self.candidate.live.cleanup.name

    @property
    def policy(self) -> str:
        """Name of the ConntrackPolicy."""
        return self.candidate.live.cleanup.policy

    @property
    def policy_uid(self) -> str:
        """Uid of the ConntrackPolicy: the key of the counters."""
        return self.candidate.live.cleanup.policy_uid

    @property
    def mode(self) -> Mode:
        """`DryRun` entries are told, never given to a table; one that were would be kept there."""
        return self.candidate.live.cleanup.mode

    @property
    def target(self) -> CleanupTarget:
        """The Service port."""
        return self.candidate.target

    @property
    def backend(self) -> Address:
        """Where the entry still points."""
        return self.candidate.backend.address


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    """What became of one condemned entry."""

    condemned: CondemnedEntry
    outcome: Outcome
    kept: KeepReason | None = None  # with Outcome.KEPT
    error: str = ""  # with Outcome.FAILED: the error's name, such as EPERM
    entry: ConntrackEntry | None = None  # what was there when it was read again


def not_tcp(entry: ConntrackEntry, _: Candidate, __: Context) -> KeepReason | None:
    """kube-proxy cleans UDP itself."""
    return None if entry.protocol == IPPROTO_TCP else KeepReason.NOT_TCP


def not_syn_sent(entry: ConntrackEntry, _: Candidate, __: Context) -> KeepReason | None:
    """SYN_SENT alone is half-open; a connection that drains is not."""
    return None if entry.tcp_state is TcpState.SYN_SENT else KeepReason.NOT_SYN_SENT


def seen_reply(entry: ConntrackEntry, _: Candidate, __: Context) -> KeepReason | None:
    """Nothing may have come back. Not enough alone: a flow picked up mid-stream has none either."""
    return KeepReason.SEEN_REPLY if entry.seen_reply else None


def not_dnated(entry: ConntrackEntry, _: Candidate, __: Context) -> KeepReason | None:
    """A flow straight to the pod's IP was chosen by its client, not by kube-proxy."""
    return None if entry.is_dnat else KeepReason.NOT_DNATED


def other_zone(entry: ConntrackEntry, _: Candidate, __: Context) -> KeepReason | None:
    """kube-proxy works in the default zone; the others are somebody else's."""
    return None if entry.zone == DEFAULT_ZONE else KeepReason.OTHER_ZONE


def not_a_frontend(
    entry: ConntrackEntry, candidate: Candidate, context: Context
) -> KeepReason | None:
    """By ip and port; the backend's IP may already serve another Service through its frontends."""
    frontend = entry.frontend
    frontends = candidate.target.frontends
    if frontend in frontends:
        return None
    on_this_node = frontend.ip.is_loopback or frontend.ip in context.node_addresses
    if on_this_node and NodePort(frontend.port) in frontends:
        return None
    return KeepReason.NOT_A_FRONTEND


def not_a_gone_backend(
    entry: ConntrackEntry, candidate: Candidate, _: Context
) -> KeepReason | None:
    """The reply's source, whatever the reply's destination is (masquerade, hairpin)."""
    return None if entry.backend == candidate.backend.address else KeepReason.NOT_A_GONE_BACKEND


def too_young(entry: ConntrackEntry, candidate: Candidate, context: Context) -> KeepReason | None:
    """Leave a backend that may live on more than a second to answer.

    Computed age = `nf_conntrack_tcp_timeout_syn_sent` - remaining, in whole seconds rounded up; the
    timer is not renewed by retransmits (kernel >= 5.14, e15d4cdf27cb; before that an entry only
    looks younger). Nothing answers for a pod that is being deleted, so what may have been there
    when the cleanup arrived goes at any age.
    """
    age = context.syn_sent_timeout - entry.timeout
    was_there = age > context.now - candidate.live.arrived_at
    if age >= OLD_ENOUGH or (candidate.backend.terminated and was_there):
        return None
    return KeepReason.TOO_YOUNG


def cleanup_over(_: ConntrackEntry, candidate: Candidate, context: Context) -> KeepReason | None:
    """An old instruction says nothing about today's backends."""
    return KeepReason.CLEANUP_OVER if context.now >= candidate.live.over_at else None


def cleanup_revoked(_: ConntrackEntry, candidate: Candidate, __: Context) -> KeepReason | None:
    """The backend serves again, the policy changed, or it is gone."""
    return KeepReason.CLEANUP_REVOKED if candidate.live.revoked else None


def other_node(_: ConntrackEntry, candidate: Candidate, context: Context) -> KeepReason | None:
    """An answer to a node's question is for that node."""
    return None if candidate.live.cleanup.is_for(context.node_name) else KeepReason.OTHER_NODE


def dry_run(_: ConntrackEntry, candidate: Candidate, __: Context) -> KeepReason | None:
    """Everything but the delete: so it comes after all others."""
    return None if candidate.live.cleanup.mode is Mode.ENFORCE else KeepReason.DRY_RUN


# An entry is deleted only if it is:
CHECKS: tuple[Check, ...] = (
    not_tcp,  # 1. TCP
    not_syn_sent,  # 2. in state SYN_SENT
    seen_reply,  # 3. without any answer (SEEN_REPLY not set)
    not_dnated,  # 4. sent to its backend by DNAT,
    other_zone,  #    in the default zone
    not_a_frontend,  # 5. from one of the target's frontends (nodePort: on an address of this node)
    not_a_gone_backend,  # 6. to one of that target's backends, which are gone
    too_young,  # 7. old: any age if it was there and its pod is being deleted, else more than 1 s
    cleanup_over,  # 8. under a cleanup that is not over,
    cleanup_revoked,  #    not revoked,
    other_node,  #    for this node,
    dry_run,  #    and in earnest
)  # 9. and if the rate brakes of its target and of the node let it through: sweep_plan.apply_brakes


def judge(entry: ConntrackEntry, candidate: Candidate, context: Context) -> KeepReason | None:
    """Run the checks in order: the first reason to keep the entry, or None to delete it."""
    for check in CHECKS:
        if reason := check(entry, candidate, context):
            return reason
    return None


def judge_again(
    condemned: CondemnedEntry, context: Context
) -> Callable[[ConntrackEntry], KeepReason | None]:
    """Make the judge that a table asks right before it deletes: same checks, no brake."""

    def judged(entry: ConntrackEntry) -> KeepReason | None:
        return judge(entry, condemned.candidate, context)

    return judged


def is_same_entry(judged: ConntrackEntry, seen: ConntrackEntry) -> bool:
    """Whether `seen` is the very entry that was judged, and not its successor on the same reply."""
    return (
        judged.id == seen.id
        and judged.zone == seen.zone
        and judged.original == seen.original
        and judged.reply == seen.reply
    )
