"""Which ConntrackPolicy decides for a Service.

The schema refuses most mistakes in a policy; what it lets through is refused here by field, and the
caller keeps the last good policy of that name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from synsweep.core.bodies import BodyReader, MalformedObject
from synsweep.core.cleanup import Misrouted, Mode
from synsweep.core.selectors import LabelSelector, read_selector

if TYPE_CHECKING:
    from collections.abc import Iterable

    from synsweep.core.bodies import Labels

DEFAULT_UNREADY_AFTER: Final = 10  # seconds; the schema's default
MAX_UNREADY_AFTER: Final = 300
MAX_PRIORITY: Final = 1000
_CAUTION: Final = {Mode.DISABLED: 0, Mode.DRY_RUN: 1, Mode.ENFORCE: 2}  # the first wins a tie


class PolicyInvalid(ValueError):
    """A ConntrackPolicy that cannot be followed: which field, what it holds, what is allowed."""

    def __init__(self, *, name: str, field: str, value: object, allowed: str) -> None:
        super().__init__(f"ConntrackPolicy {name}: {field} is {value!r:.100}; allowed: {allowed}")
        self.name = name
        self.field = field
        self.value = value
        self.allowed = allowed


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What one ConntrackPolicy wants."""

    name: str
    uid: str
    generation: int
    mode: Mode
    priority: int
    namespace_selector: LabelSelector
    service_selector: LabelSelector
    unready_after_seconds: int  # 0 = never
    misrouted: Misrouted


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceLabels:
    """The labels that decide about one Service; None: the Namespace is not known (yet)."""

    namespace: Labels | None
    service: Labels


def effective_policy(policies: Iterable[Policy], labels: ServiceLabels) -> Policy | None:
    """Find the policy that decides: by priority, then the more cautious mode, then the name.

    While the Namespace is unknown nothing is decided if it could matter to any policy.
    """
    selecting = [policy for policy in policies if policy.service_selector.matches(labels.service)]
    namespace = labels.namespace
    if namespace is None:
        if any(policy.namespace_selector.requirements for policy in selecting):
            return None
        namespace = {}
    return min(
        (policy for policy in selecting if policy.namespace_selector.matches(namespace)),
        key=lambda policy: (-policy.priority, _CAUTION[policy.mode], policy.name),
        default=None,
    )


def matched_services(
    policies: Iterable[Policy], services: Iterable[ServiceLabels]
) -> dict[str, int]:
    """Count, by policy uid, the Services for which each policy decides."""
    known = tuple(policies)
    counts = {policy.uid: 0 for policy in known}
    for labels in services:
        policy = effective_policy(known, labels)
        if policy is not None:
            counts[policy.uid] += 1
    return counts


def read_policy(body: Any) -> Policy:
    """Read a raw ConntrackPolicy, with the schema's defaults. Raises PolicyInvalid."""
    try:
        return _read(body)
    except MalformedObject as error:
        raise PolicyInvalid(
            name=error.name, field=error.field, value=error.value, allowed=error.allowed
        ) from error


def _read(body: Any) -> Policy:
    reader = BodyReader.of(body, kind="ConntrackPolicy")
    spec = reader.mapping(body.get("spec"), "spec")

    def number(name: str, absent: int, lowest: int, highest: int) -> int:
        return reader.number(
            spec.get(name), f"spec.{name}", absent=absent, lowest=lowest, highest=highest
        )

    return Policy(
        name=reader.name,
        uid=reader.uid,
        generation=reader.number(
            reader.metadata.get("generation"),
            "metadata.generation",
            absent=0,
            lowest=0,
            highest=2**63 - 1,
        ),
        mode=reader.word(spec.get("mode"), "spec.mode", Mode, absent=Mode.ENFORCE),
        priority=number("priority", 0, -MAX_PRIORITY, MAX_PRIORITY),
        namespace_selector=read_selector(
            reader, spec.get("namespaceSelector"), "spec.namespaceSelector"
        ),
        service_selector=read_selector(reader, spec.get("serviceSelector"), "spec.serviceSelector"),
        unready_after_seconds=number(
            "unreadyAfterSeconds", DEFAULT_UNREADY_AFTER, 0, MAX_UNREADY_AFTER
        ),
        misrouted=reader.word(
            spec.get("misrouted"), "spec.misrouted", Misrouted, absent=Misrouted.REPORT
        ),
    )
