"""A node's report as the API holds it: the status of its ConntrackNode, under 4 KB.

5,000 nodes report, and etcd keeps every version for a while, so a report has a fixed size limit.
All that a node usually has to say fits. Where it does not (dozens of policies, suspects or
addresses at once), the ends of lists are left out, in the order of OPTIONAL: suspects come again in
a later report, refused cleanups are in the log too, and the policies that lose their counters are
those that this node has not worked for the longest. Messages are cut.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from synsweep.core.conditions import MAX_CONDITIONS, condition_from_wire, condition_to_wire
from synsweep.core.fields import Fields
from synsweep.core.flow import Address
from synsweep.core.report import (
    REPORT_FORMAT_VERSION,
    NodeReport,
    PolicyCounters,
    RefusedCleanup,
    Suspect,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_STATUS_BYTES = 4096  # of compact JSON
MAX_ADDRESSES = 64
MAX_COUNTERS = 64
MAX_REFUSED = 10
MAX_SUSPECTS = 50
OPTIONAL = ("suspects", "refusedCleanups", "counters", "addresses")  # shortened in this order
SYSCTLS = {  # kernel's name: field of the status
    "nf_conntrack_tcp_timeout_syn_sent": "nfConntrackTcpTimeoutSynSent",
    "nf_conntrack_tcp_timeout_established": "nfConntrackTcpTimeoutEstablished",
    "nf_conntrack_tcp_timeout_close_wait": "nfConntrackTcpTimeoutCloseWait",
    "nf_conntrack_tcp_loose": "nfConntrackTcpLoose",
    "tcp_syn_retries": "tcpSynRetries",
    "tcp_tw_reuse": "tcpTwReuse",
}

_MAX_COUNT = 2**63 - 1
_MAX_SYSCTL = 2**31 - 1
_MAX_OWNERS = 100
_LONGEST_NAME = 253
_LONGEST_MESSAGE = 1024
_LONGEST_REFUSAL = 160  # characters of a message in a report, so that one does not fill it
_LONGEST_CONDITION = 256
_LONGEST_WORD = 128
_LONGEST_VERSION = 64
_LONGEST_IP = 45


def report_to_wire(report: NodeReport) -> dict[str, Any]:
    """Write the status, shortened to MAX_STATUS_BYTES."""
    status: dict[str, Any] = {
        "formatVersion": report.format_version,
        "helperVersion": report.helper_version[:_LONGEST_VERSION],
        "sweptThrough": report.swept_through,
        "addresses": list(report.addresses[:MAX_ADDRESSES]),
        "kernelVersion": report.kernel[:_LONGEST_WORD],
        "kubeProxyMode": report.kube_proxy_mode,
        "sysctls": {
            field: report.sysctls[name]
            for name, field in SYSCTLS.items()
            if 0 <= report.sysctls.get(name, -1) <= _MAX_SYSCTL
        },
        "conditions": [
            _short(condition_to_wire(one), _LONGEST_CONDITION)
            for one in report.conditions[:MAX_CONDITIONS]
        ],
        "counters": [_counters_to_wire(one) for one in report.counters[:MAX_COUNTERS]],
        "refusedCleanups": [
            _short({"name": one.name, "reason": one.reason, "message": one.message})
            for one in report.refused[:MAX_REFUSED]
        ],
        "suspects": [_suspect_to_wire(one) for one in report.suspects[:MAX_SUSPECTS]],
    }
    if report.last_sweep_time:
        status["lastSweepTime"] = report.last_sweep_time
    for name in OPTIONAL:
        _shorten(status, name)
    return status


def report_from_wire(body: Mapping[str, Any]) -> NodeReport:
    """Read a ConntrackNode; one without a status yet is an empty report.

    Raises:
        BadField: which names the field; another `formatVersion` is refused like any other field.
    """
    whole = Fields.of(body)
    metadata = whole.child("metadata")
    status = whole.child("status") if whole.has("status") else Fields.of({}, "status")
    sysctls = status.child("sysctls") if status.has("sysctls") else Fields.of({})
    return NodeReport(
        # First of all: in another version every other field may mean something else.
        format_version=status.integer(
            "formatVersion",
            low=REPORT_FORMAT_VERSION,
            high=REPORT_FORMAT_VERSION,
            default=REPORT_FORMAT_VERSION,
        ),
        node_name=metadata.text("name", longest=_LONGEST_NAME),
        node_uid=_node_uid(metadata),
        helper_version=status.text("helperVersion", longest=_LONGEST_VERSION, default=""),
        swept_through=status.integer("sweptThrough", low=0, high=_MAX_COUNT, default=0),
        last_sweep_time=status.text("lastSweepTime", longest=_LONGEST_VERSION, default=""),
        addresses=status.texts("addresses", at_most=MAX_ADDRESSES, longest=_LONGEST_IP),
        kernel=status.text("kernelVersion", longest=_LONGEST_WORD, default=""),
        kube_proxy_mode=status.text("kubeProxyMode", longest=_LONGEST_WORD, default="Unknown"),
        sysctls={
            name: sysctls.integer(field, low=0, high=_MAX_SYSCTL)
            for name, field in SYSCTLS.items()
            if sysctls.has(field)
        },
        conditions=tuple(
            condition_from_wire(one)
            for one in status.children("conditions", at_most=MAX_CONDITIONS)
        ),
        counters=tuple(
            _read_counters(one) for one in status.children("counters", at_most=MAX_COUNTERS)
        ),
        refused=tuple(
            _read_refused(one) for one in status.children("refusedCleanups", at_most=MAX_REFUSED)
        ),
        suspects=tuple(
            _read_suspect(one) for one in status.children("suspects", at_most=MAX_SUSPECTS)
        ),
    )


def _shorten(status: dict[str, Any], name: str) -> None:
    """Drop the end of one list until the status fits, or the list is empty."""
    over = _size(status) - MAX_STATUS_BYTES
    items = status[name]
    while items and over > 0:
        over -= _size(items.pop()) + 1  # its comma


def _size(value: object) -> int:
    return len(json.dumps(value, separators=(",", ":")).encode())


def _short(wire: dict[str, Any], longest: int = _LONGEST_REFUSAL) -> dict[str, Any]:
    message = wire["message"]
    if len(message) > longest:
        wire["message"] = f"{message[: longest - 1]}…"
    return wire


def _counters_to_wire(counters: PolicyCounters) -> dict[str, Any]:
    return {
        "policyUID": counters.policy_uid,
        "deleted": counters.deleted,
        "alreadyGone": counters.already_gone,
        "failed": counters.failed,
        "dryRun": counters.dry_run,
        "kept": counters.kept,
    }


def _suspect_to_wire(suspect: Suspect) -> dict[str, Any]:
    return {
        "frontend": {"ip": str(suspect.frontend.ip), "port": suspect.frontend.port},
        "backend": {"ip": str(suspect.backend.ip), "port": suspect.backend.port},
        "count": suspect.count,
        "oldestSeconds": suspect.oldest_seconds,
    }


def _node_uid(metadata: Fields) -> str:
    for owner in metadata.children("ownerReferences", at_most=_MAX_OWNERS):
        if owner.body.get("kind") == "Node":
            return owner.text("uid", longest=_LONGEST_WORD)
    return ""


def _read_counters(counters: Fields) -> PolicyCounters:
    def count(name: str) -> int:
        return counters.integer(name, low=0, high=_MAX_COUNT, default=0)

    return PolicyCounters(
        policy_uid=counters.text("policyUID", longest=_LONGEST_WORD),
        deleted=count("deleted"),
        already_gone=count("alreadyGone"),
        failed=count("failed"),
        dry_run=count("dryRun"),
        kept=count("kept"),
    )


def _read_refused(refused: Fields) -> RefusedCleanup:
    return RefusedCleanup(
        name=refused.text("name", longest=_LONGEST_NAME),
        reason=refused.text("reason", longest=_LONGEST_WORD),
        message=refused.text("message", longest=_LONGEST_MESSAGE, default=""),
    )


def _read_suspect(suspect: Fields) -> Suspect:
    return Suspect(
        frontend=_read_address(suspect.child("frontend")),
        backend=_read_address(suspect.child("backend")),
        count=suspect.integer("count", low=1, high=_MAX_COUNT),
        oldest_seconds=suspect.integer("oldestSeconds", low=0, high=_MAX_SYSCTL),
    )


def _read_address(fields: Fields) -> Address:
    return Address(fields.ip("ip"), fields.port("port"))
