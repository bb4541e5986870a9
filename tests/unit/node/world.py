"""One node in memory: its table, its cleanups, an API server, and a clock that a test turns."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from prometheus_client import CollectorRegistry

from synsweep.cluster.client import Answer
from synsweep.cluster.errors import ApiRefused, ApiUnavailable
from synsweep.cluster.listwatch import Added, Deleted, Listed, Modified
from synsweep.cluster.nodes import ConntrackNodes
from synsweep.conntrack.memory import MemoryTable
from synsweep.core.brake import Brakes
from synsweep.core.cleanup_wire import cleanup_to_wire
from synsweep.node.cleanups import KnownCleanups
from synsweep.node.discovery import Datapath, KubeProxyMode
from synsweep.node.loop import SweepLoop
from synsweep.node.record import Record
from synsweep.node.reporting import Reporter
from synsweep.node.sweep import Surroundings, Sweeper
from synsweep.node.telling import Teller
from synsweep.observe.metrics import NodeMetrics
from tests.unit.core.samples import NODE, NODE_IP, SYN_SENT_TIMEOUT, cleanup

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from collections.abc import Set as AbstractSet

    from synsweep.cluster.client import Api, Body
    from synsweep.conntrack.table import Judge, Listing
    from synsweep.core.cleanup import Cleanup
    from synsweep.core.flow import Address
    from synsweep.core.staleness import CondemnedEntry, Deletion

EPOCH = 1_800_000_000.0  # the API server's clock when ours says 0
NOW = 1000.0  # by our clock, when a test begins; the API server's says EPOCH + NOW


class Clock:
    """Monotonic, as far as the test goes."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def forward(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


def body(of: Cleanup | None = None, *, created: float = NOW, **changed: Any) -> Body:
    """A cleanup as the API server has it; `created` seconds after EPOCH by its clock."""
    chosen = of or cleanup(**changed)
    made = cleanup_to_wire(chosen, namespace="synsweep-system")
    moment = datetime.fromtimestamp(EPOCH + created, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    made["metadata"] |= {"uid": chosen.uid, "creationTimestamp": moment}
    return made


class EventfulTable(MemoryTable):
    """A table in which something happens while a sweep is under way."""

    def __init__(self) -> None:
        super().__init__()
        self.while_listed: Callable[[], object] = lambda: None
        self.once_listed: Callable[[], object] = lambda: None
        self.after_delete: Callable[[], object] = lambda: None

    def entries(
        self,
        asked_for: AbstractSet[Address] = frozenset(),
        *,
        among: AbstractSet[Address] | None = None,
    ) -> Listing:
        self.while_listed()
        listing = super().entries(asked_for, among=among)
        self.once_listed()
        return listing

    def delete(self, condemned: CondemnedEntry, judge: Judge) -> Deletion:
        deletion = super().delete(condemned, judge)
        self.after_delete()
        return deletion


class Ruleset:
    """A ruleset that changes when the test says so."""

    available = False

    def __init__(self) -> None:
        self.pending = False

    def fileno(self) -> int:
        return -1

    def changed(self) -> bool:
        pending, self.pending = self.pending, False
        return pending


class MemoryApi:
    """The three verbs of `cluster.client.Api` over a dictionary of paths."""

    def __init__(self) -> None:
        self.objects: dict[str, Body] = {}
        self.requests: list[tuple[str, str]] = []
        self.down = False
        self.forbidden = ""  # a verb
        self.asked: Callable[[], object] = lambda: None  # happens while it is asked

    def get(self, path: str, **_: Any) -> Answer:
        self._ask("get", path)
        return self._answer(self._found(path))

    def post(self, path: str, sent: Body) -> Answer:
        self._ask("post", path)
        where = f"{path}/{sent['metadata']['name']}"
        if where in self.objects:
            raise ApiRefused(status=409, reason="AlreadyExists", message=where, fields=())
        self.objects[where] = sent
        return self._answer(sent)

    def patch(self, path: str, sent: Body, **_: Any) -> Answer:
        self._ask("patch", path)
        found = self._found(path.removesuffix("/status"))
        if path.endswith("/status"):
            found.setdefault("status", {}).update(sent["status"])
        else:
            annotations = found["metadata"].setdefault("annotations", {})
            annotations.update(sent["metadata"]["annotations"])
        return self._answer(found)

    def writes(self) -> int:
        """How many status writes were asked for."""
        return sum(path.endswith("/status") for _, path in self.requests)

    def _ask(self, verb: str, path: str) -> None:
        self.requests.append((verb, path))
        self.asked()
        if self.down:
            raise ApiUnavailable("connection refused")
        if self.forbidden == verb:
            raise ApiRefused(status=403, reason="Forbidden", message="no", fields=())

    def _found(self, path: str) -> Body:
        if path not in self.objects:
            raise ApiRefused(status=404, reason="NotFound", message=path, fields=())
        return self.objects[path]

    def _answer(self, found: Body) -> Answer:
        return Answer(body=found, server_time=EPOCH)


NODE_PATH = f"/api/v1/nodes/{NODE}"
OWN_PATH = f"/apis/synsweep.io/v1alpha1/conntracknodes/{NODE}"


class World:
    """All parts of a helper but its threads."""

    def __init__(
        self,
        *,
        now: float = NOW,
        draw: float = 0.5,
        api: MemoryApi | None = None,
        mark: str = "me",
    ) -> None:
        self.clock = Clock(now)
        self.cpu = Clock(0.0)
        self.table = EventfulTable()
        self.ruleset = Ruleset()
        self.mode = KubeProxyMode.IPTABLES
        self.delays: list[float] = []
        self.metrics_registry = CollectorRegistry()
        metrics = NodeMetrics(self.metrics_registry)
        self.cleanups = KnownCleanups(NODE, notified=lambda: True, jitter=lambda: 0.2)
        self.record = Record(clock=self.clock, draw=lambda: draw)
        self.datapath = Datapath(
            mode=lambda: self.mode,
            sysctls=lambda: {"nf_conntrack_tcp_timeout_syn_sent": SYN_SENT_TIMEOUT},
            addresses=lambda: frozenset({NODE_IP}),
        )
        self.sweeper = Sweeper(
            table=self.table,
            cleanups=self.cleanups,
            node_name=NODE,
            surroundings=lambda: Surroundings(
                addresses=frozenset({NODE_IP}), syn_sent_timeout=SYN_SENT_TIMEOUT
            ),
            brakes=Brakes(),
            clock=self.clock,
            cpu_clock=self.cpu,
            served=self.delays.append,
        )
        self.loop = SweepLoop(
            self.sweeper,
            cleanups=self.cleanups,
            ruleset=self.ruleset,
            supported=lambda: self.datapath.supported,
            listener=Teller(
                metrics=metrics,
                record=self.record,
                syn_sent_timeout=lambda: SYN_SENT_TIMEOUT,
                last_dump=lambda: None,
            ),
            clock=self.clock,
        )
        if api is None:
            api = MemoryApi()
            api.objects[NODE_PATH] = {
                "metadata": {"name": NODE, "uid": "node-uid"},
                "status": {"addresses": [{"type": "InternalIP", "address": str(NODE_IP)}]},
            }
        self.api = api
        self.reporter = Reporter(
            NODE,
            objects=ConntrackNodes(cast("Api", api)),
            record=self.record,
            datapath=self.datapath,
            refused=self.cleanups.refused,
            not_ready=self.loop.not_ready,
            server_now=lambda: EPOCH + self.clock.now,
            metrics=metrics,
            clock=self.clock,
            draw=lambda: draw,
            mark=mark,
        )
        self.metrics = metrics

    @property
    def server_time(self) -> float:
        """The API server's clock, which nobody compares with ours."""
        return EPOCH + self.clock.now

    def list(self, *bodies: Body) -> None:
        """The API server lists these, and no others."""
        event = Listed(items=bodies, vanished=(), server_time=self.server_time)
        self.cleanups.apply(event, now=self.clock.now)

    def add(self, added: Body) -> None:
        """The API server tells of a new cleanup."""
        self.cleanups.apply(Added(body=added, server_time=self.server_time), now=self.clock.now)

    def modify(self, modified: Body) -> None:
        """The API server tells of a changed cleanup."""
        event = Modified(body=modified, server_time=self.server_time)
        self.cleanups.apply(event, now=self.clock.now)

    def delete(self, deleted: Body) -> None:
        """The API server tells that a cleanup is gone."""
        self.cleanups.apply(Deleted(body=deleted, server_time=self.server_time), now=self.clock.now)

    def run(self, seconds: float) -> None:
        """Let the sweeping thread run so long; entries age with the clock."""
        end = self.clock.now + seconds
        while (pause := self.loop.step()) == 0 or self.clock.now + pause <= end:
            self.clock.now += pause
        self.clock.now = end

    def report(self, seconds: float = 0.0) -> None:
        """Let the reporting thread run so long."""
        end = self.clock.now + seconds
        while (pause := self.reporter.step()) == 0 or self.clock.now + pause <= end:
            self.clock.now += pause
        self.clock.now = end

    @property
    def own(self) -> Body:
        """This node's ConntrackNode."""
        return self.api.objects[OWN_PATH]

    def sample(self, name: str, labels: Mapping[str, str] | None = None) -> float | None:
        """One metric."""
        return self.metrics_registry.get_sample_value(name, dict(labels or {}))
