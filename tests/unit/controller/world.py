"""A controller without kopf and API server: raw events in, cleanups in memory out."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry

from synsweep.cluster.errors import ApiRefused
from synsweep.cluster.listwatch import Listed
from synsweep.controller.fleet import Fleet
from synsweep.controller.inbox import Inbox
from synsweep.controller.ledger import Ledger
from synsweep.controller.publishing import Clocks, Publishing
from synsweep.controller.revoking import Revoking
from synsweep.controller.settings import ControllerSettings
from synsweep.controller.tidying import Tidying
from synsweep.controller.view import Kind, View
from synsweep.controller.writing import Guarded, Sight, Writer
from synsweep.observe.metrics_controller import ControllerMetrics

if TYPE_CHECKING:
    from synsweep.core.cleanup import Cleanup

START = 1000.0  # the test's monotonic clock
EPOCH = 1_760_000_000.0  # the API server's clock at START


@dataclass
class Written:
    """ConntrackCleanups in memory: what the API server would hold, and what it was asked."""

    now: Any
    objects: dict[str, Cleanup] = field(default_factory=dict)
    log: list[tuple[str, str, float]] = field(default_factory=list)
    trouble: dict[str, Exception] = field(default_factory=dict)  # by verb
    refused_policy: str = ""  # whose cleanups are refused

    def create(self, cleanup: Cleanup) -> Cleanup:
        """Publish."""
        self._note("create", cleanup.name)
        if cleanup.policy == self.refused_policy:
            raise ApiRefused(status=422, reason="Invalid", message="no", fields=("spec",))
        self.objects[cleanup.name] = replace(cleanup, uid=f"uid-{cleanup.name}")
        return self.objects[cleanup.name]

    def replace_targets(self, cleanup: Cleanup) -> None:
        """Revoke."""
        self._note("patch", cleanup.name)
        self.objects[cleanup.name] = cleanup

    def delete(self, name: str) -> None:
        """Withdraw or tidy up."""
        self._note("delete", name)
        self.objects.pop(name, None)

    def times(self, verb: str) -> list[float]:
        """When it was asked for that, in seconds since the start."""
        return [round(at - START, 3) for what, _, at in self.log if what == verb]

    def backends(self) -> set[str]:
        """Which backends are condemned now."""
        return {
            str(backend.address.ip)
            for cleanup in self.objects.values()
            for target in cleanup.targets
            for backend in target.backends
        }

    def _note(self, verb: str, name: str) -> None:
        self.log.append((verb, name, self.now()))
        if verb in self.trouble:
            raise self.trouble[verb]


class World:
    """One controller. Time passes only by `run`."""

    def __init__(self, **settings: float) -> None:
        self.time = START
        self.holds = True
        self.version = 100
        self.settings = ControllerSettings(**settings)  # type: ignore[arg-type]
        self.registry = CollectorRegistry()
        self.metrics = ControllerMetrics(self.registry)
        self.inbox = Inbox()
        self.view = View(inbox=self.inbox, metrics=self.metrics, clock=self.now)
        self.ledger = Ledger(clock=self.now)
        self.fleet = Fleet(on_addresses=self.view.set_node_addresses, clock=self.now)
        self.written = Written(now=self.now)
        self.sight = Sight(view=self.view, ledger=self.ledger, fleet=self.fleet)
        self.clocks = Clocks(now=self.now, wall_now=self.wall_now)
        guarded = Guarded(instructions=self.written, holds=lambda _: self.holds, clock=self.now)
        shared: dict[str, Any] = {
            "sight": self.sight,
            "instructions": guarded,
            "metrics": self.metrics,
        }
        self.publishing = Publishing(
            **shared, settings=self.settings, nodes_total=lambda: 3, clocks=self.clocks
        )
        self.tidying = Tidying(**shared, keep_for=self.settings.keep_for)
        self.writer = Writer(
            inbox=self.inbox,
            sight=self.sight,
            jobs=(Revoking(**shared), self.publishing, self.tidying),
            metrics=self.metrics,
            holds=lambda _: self.holds,
            clock=self.now,
        )

    def counted(self, metric: str, **labels: str) -> float:
        """Read a metric; 0 if it was never touched."""
        return self.registry.get_sample_value(f"synsweep_{metric}", labels) or 0.0

    def now(self) -> float:
        """The test's monotonic clock."""
        return self.time

    def wall_now(self) -> str:
        """The API server's clock."""
        moment = datetime.fromtimestamp(EPOCH + self.time - START, tz=UTC)
        return moment.strftime("%Y-%m-%dT%H:%M:%SZ")

    def ready(self, *, policies: bool = True) -> World:
        """List everything: one Service with two backends, one policy for all."""
        self.take(Kind.NAMESPACE, {"metadata": {"name": "shop", "labels": {}}})
        self.service("web", "10.96.0.10")
        self.slice("web-1", "web", "10.0.0.1", "10.0.0.2")
        if policies:
            self.policy("all")
        self.ledger.fold(Listed(items=(), vanished=(), server_time=EPOCH))
        self.fleet.fold(Listed(items=(), vanished=(), server_time=EPOCH))
        self.view.fill()
        self.run(2.0)
        return self

    def run(self, seconds: float) -> None:
        """Let time pass, the writer stepping as it wants to, or at once when a note came."""
        end = self.time + seconds
        pause = self.writer.step()
        while self.time < end:
            self.time = min(end, self.time + max(pause, 0.001))
            pause = self.writer.step()

    def take(self, kind: Kind, body: dict[str, Any], type_: str | None = "MODIFIED") -> None:
        """Let kopf tell of a new version of an object."""
        self.version += 1
        body["metadata"]["resourceVersion"] = str(self.version)
        body["metadata"].setdefault("uid", f"uid-{body['metadata']['name']}")
        self.view.take(kind, type_, body)

    def service(self, name: str, ip: str, *, labels: dict[str, str] | None = None) -> None:
        """Tell of a Service with one port."""
        body = {
            "metadata": {"name": name, "namespace": "shop", "labels": labels or {}},
            "spec": {
                "type": "ClusterIP",
                "clusterIP": ip,
                "clusterIPs": [ip],
                "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
            },
        }
        self.take(Kind.SERVICE, body)

    def slice(self, name: str, service: str, *ips: str, unready: tuple[str, ...] = ()) -> None:
        """Tell of an EndpointSlice."""
        self.take(Kind.SLICE, a_slice(name, service, *ips, unready=unready))

    def no_slice(self, name: str) -> None:
        """Tell that a slice is gone."""
        self.take(Kind.SLICE, {"metadata": {"name": name, "namespace": "shop"}}, "DELETED")

    def policy(self, name: str, **spec: Any) -> None:
        """Tell of a policy."""
        metadata = {"name": name, "generation": self.version}
        self.take(Kind.POLICY, {"metadata": metadata, "spec": spec})

    def no_policy(self, name: str) -> None:
        """Tell that a policy is gone."""
        self.take(Kind.POLICY, {"metadata": {"name": name}}, "DELETED")


def a_slice(name: str, service: str, *ips: str, unready: tuple[str, ...] = ()) -> dict[str, Any]:
    """Make an EndpointSlice."""
    return {
        "metadata": {
            "name": name,
            "namespace": "shop",
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [
            {"addresses": [ip], "conditions": {"ready": ip not in unready}} for ip in ips
        ],
    }


def a_report(node: str, *, ready: bool = True, **status: Any) -> dict[str, Any]:
    """Make a ConntrackNode."""
    condition = {
        "type": "Ready",
        "status": str(ready),
        "reason": "Sweeping",
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    return {
        "metadata": {"name": node, "uid": f"uid-{node}"},
        "status": {"formatVersion": 1, "conditions": [condition], **status},
    }
