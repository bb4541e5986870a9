"""May this entry be deleted? The delete rule, and the words for its answer.

Rules of this file:

1. An entry is deleted only if every check of CHECKS lets it pass. A check is a pure function that
   returns a reason to keep the entry, or None; the first reason is the one that is told.
2. Everything unknown is a reason to keep. Keeping a stale entry costs a client seconds; deleting a
   live one costs it the connection.
3. An entry is judged twice by the same checks: when it is listed, and again right before the delete,
   because it may have been answered or replaced in between.
4. A check looks at the entry, at one candidate (one backend of one target of one cleanup) and at the
   node; it never looks at other entries. The rate brakes do, so they are a filter over what these
   checks have condemned (`brake`): a token is spent only on what passed everything here, once.
5. Where a backend is in several cleanups, one of them that condemns the entry is enough.

The words are those of conntrack(8): the frontend is the original destination, what the client
dialled; the backend is the reply source, who is to answer.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import TypeAlias

from synsweep.core.cleanup import Cleanup, CleanupTarget, Mode, NodePort, TargetBackend
from synsweep.core.flow import IPPROTO_TCP, Address, ConntrackEntry, IPAddress, TcpState

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


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanupBook:
    """All live cleanups, looked up by the ip:port that an entry's answer would come from."""

    by_backend: Mapping[Address, tuple[Candidate, ...]] = field(default_factory=dict)

    @property
    def backends(self) -> frozenset[Address]:
        """Every backend that is gone."""
        return frozenset(self.by_backend)


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepPlan:
    """What one listing came to: decided, nothing done yet."""

    condemned: tuple[CondemnedEntry, ...]  # to be deleted
    dry_run: tuple[CondemnedEntry, ...]  # would be
    kept: Mapping[KeepReason, int]
