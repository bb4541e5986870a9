"""A cleanup as the API holds it: from a ConntrackCleanup's body, and to one.

All of a body is believed or nothing: an unknown format version, a value out of its limits or a
shape that is not ours refuses the whole cleanup, never half of it. Unknown fields are ignored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from synsweep.core.cleanup import (
    FORMAT_VERSION,
    Cleanup,
    CleanupReason,
    CleanupRefused,
    CleanupTarget,
    Frontend,
    Misrouted,
    Mode,
    NodePort,
    Reuse,
    TargetBackend,
)
from synsweep.core.fields import BadField, Fields
from synsweep.core.flow import Address

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

API_VERSION = "synsweep.io/v1alpha1"
KIND = "ConntrackCleanup"
POLICY_KIND = "ConntrackPolicy"
POLICY_LABEL = "synsweep.io/policy"

MAX_BACKENDS = 500  # of one object, over all its targets
MAX_TARGETS = 500
MAX_FRONTENDS = 64  # of one target
MAX_NODES = 5000
MAX_SEQUENCE = 2**63 - 1
_MAX_OWNERS = 100
_MAX_GONE_SECONDS = 31_536_000  # a year
_MAX_SECONDS = 3600
_MIN_CYCLE_SECONDS = 5
_LONGEST_LABEL = 63  # namespace, Service and port names
_LONGEST_NAME = 253  # object and node names
_LONGEST_UID = 128
_LONGEST_TIME = 64


def cleanup_from_wire(body: Mapping[str, Any]) -> Cleanup:
    """Read a ConntrackCleanup.

    Raises:
        CleanupRefused: which names the first field that is wrong, its value and what is allowed.
    """
    try:
        return _read(Fields.of(body))
    except BadField as bad:
        raise CleanupRefused(
            reason="MalformedCleanup" if bad.malformed else "FieldOutOfLimits",
            field=bad.field,
            value=bad.value,
            allowed=bad.allowed,
        ) from bad


def cleanup_to_wire(cleanup: Cleanup, *, namespace: str) -> dict[str, Any]:
    """Write the whole object, as it is to be created in `namespace` (the operator's own)."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {
            "name": cleanup.name,
            "namespace": namespace,
            "labels": {POLICY_LABEL: cleanup.policy[:_LONGEST_LABEL].rstrip("-.")},
            # Deleting the policy stops everything, even without us: the API server collects these.
            "ownerReferences": [
                {
                    "apiVersion": API_VERSION,
                    "kind": POLICY_KIND,
                    "name": cleanup.policy,
                    "uid": cleanup.policy_uid,
                }
            ],
        },
        "spec": {
            "formatVersion": FORMAT_VERSION,
            "sequence": cleanup.sequence,
            "mode": cleanup.mode.value,
            "misrouted": cleanup.misrouted.value,
            "reason": cleanup.reason.value,
            "goneForSeconds": round(cleanup.gone_for_seconds, 3),
            "removedAt": cleanup.removed_at,
            "reuseAfterSeconds": cleanup.reuse_after_seconds,
            "sweepForSeconds": cleanup.sweep_for_seconds,
            "reportWithinSeconds": cleanup.report_within_seconds,
            "nodes": list(cleanup.nodes),
            "targets": targets_to_wire(cleanup.targets),
        },
    }


def targets_to_wire(targets: Iterable[CleanupTarget]) -> list[dict[str, Any]]:
    """Write `spec.targets` alone, which is all that a revocation changes."""
    return [
        {
            "id": target.id,
            "namespace": target.namespace,
            "service": target.service,
            "portName": target.port_name,
            "frontends": [_frontend_to_wire(frontend) for frontend in target.frontends],
            "backends": [_backend_to_wire(backend) for backend in target.backends],
        }
        for target in targets
    ]


def _frontend_to_wire(frontend: Frontend) -> dict[str, Any]:
    if isinstance(frontend, NodePort):
        return {"nodePort": frontend.port}
    return {"ip": str(frontend.ip), "port": frontend.port}


def _backend_to_wire(backend: TargetBackend) -> dict[str, Any]:
    wire: dict[str, Any] = {
        "ip": str(backend.address.ip),
        "port": backend.address.port,
        "terminated": backend.terminated,
    }
    if backend.reused:
        wire["reused"] = {
            "namespace": backend.reused.namespace,
            "service": backend.reused.service,
            "podUID": backend.reused.pod_uid,
        }
    return wire


def _read(body: Fields) -> Cleanup:
    metadata = body.child("metadata")
    spec = body.child("spec")
    _check_version(spec)  # first of all: in another version every other field may mean otherwise
    owner = _read_owner(metadata)
    targets = tuple(_read_target(one) for one in spec.children("targets", at_most=MAX_TARGETS))
    _check_backends_total(targets)
    return Cleanup(
        name=metadata.text("name", longest=_LONGEST_NAME),
        uid=metadata.text("uid", longest=_LONGEST_UID, default=""),
        created_at=metadata.text("creationTimestamp", longest=_LONGEST_TIME, default=""),
        policy=owner.text("name", longest=_LONGEST_NAME),
        policy_uid=owner.text("uid", longest=_LONGEST_UID),
        sequence=spec.integer("sequence", low=1, high=MAX_SEQUENCE),
        mode=spec.word("mode", (Mode.ENFORCE, Mode.DRY_RUN)),
        misrouted=spec.word("misrouted", Misrouted),
        reason=spec.word("reason", CleanupReason),
        gone_for_seconds=spec.number("goneForSeconds", low=0, high=_MAX_GONE_SECONDS),
        removed_at=spec.text("removedAt", longest=_LONGEST_TIME),
        reuse_after_seconds=spec.integer(
            "reuseAfterSeconds", low=_MIN_CYCLE_SECONDS, high=_MAX_SECONDS
        ),
        sweep_for_seconds=spec.integer(
            "sweepForSeconds", low=_MIN_CYCLE_SECONDS, high=_MAX_SECONDS
        ),
        report_within_seconds=spec.integer("reportWithinSeconds", low=1, high=_MAX_SECONDS),
        nodes=spec.texts("nodes", at_most=MAX_NODES, longest=_LONGEST_NAME),
        targets=targets,
    )


def _check_version(spec: Fields) -> None:
    version = spec.body.get("formatVersion")
    if version != FORMAT_VERSION or isinstance(version, bool):
        raise CleanupRefused(
            reason="UnknownFormatVersion",
            field="spec.formatVersion",
            value="missing" if version is None else repr(version)[:_LONGEST_LABEL],
            allowed=str(FORMAT_VERSION),
        )


def _read_owner(metadata: Fields) -> Fields:
    for owner in metadata.children("ownerReferences", at_most=_MAX_OWNERS):
        if owner.body.get("kind") == POLICY_KIND:
            return owner
    raise BadField(
        field="metadata.ownerReferences",
        value=None,
        allowed=f"one of kind {POLICY_KIND}",
        malformed=True,
    )


def _read_target(target: Fields) -> CleanupTarget:
    return CleanupTarget(
        id=target.integer("id", low=0, high=MAX_TARGETS - 1),
        namespace=target.text("namespace", longest=_LONGEST_LABEL),
        service=target.text("service", longest=_LONGEST_LABEL),
        port_name=target.text("portName", longest=_LONGEST_LABEL, default=""),
        frontends=tuple(
            _read_frontend(one) for one in target.children("frontends", at_most=MAX_FRONTENDS)
        ),
        backends=tuple(
            _read_backend(one) for one in target.children("backends", at_most=MAX_BACKENDS)
        ),
    )


def _read_frontend(frontend: Fields) -> Frontend:
    if frontend.has("ip") == frontend.has("nodePort"):
        raise BadField(
            field=frontend.path,
            value=dict(frontend.body),
            allowed="either ip and port, or nodePort",
            malformed=True,
        )
    if frontend.has("nodePort"):
        return NodePort(frontend.port("nodePort"))
    return _read_address(frontend)


def _read_backend(backend: Fields) -> TargetBackend:
    return TargetBackend(
        address=_read_address(backend),
        terminated=backend.truth("terminated"),
        reused=_read_reuse(backend.child("reused")) if backend.has("reused") else None,
    )


def _read_address(fields: Fields) -> Address:
    return Address(fields.ip("ip"), fields.port("port"))


def _read_reuse(reused: Fields) -> Reuse:
    return Reuse(
        namespace=reused.text("namespace", longest=_LONGEST_LABEL),
        service=reused.text("service", longest=_LONGEST_LABEL),
        pod_uid=reused.text("podUID", longest=_LONGEST_UID),
    )


def _check_backends_total(targets: tuple[CleanupTarget, ...]) -> None:
    total = sum(len(target.backends) for target in targets)
    if total > MAX_BACKENDS:
        raise BadField(
            field="spec.targets",
            value=f"{total} backends",
            allowed=f"at most {MAX_BACKENDS} backends in total",
            malformed=False,
        )
