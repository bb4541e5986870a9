"""The order of events does not matter: slices, Services and Namespaces come by independent watches.

Each object's own events keep their order; between objects any interleaving is possible, and
whatever it was, the index ends the same and says that the same pairs are gone.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st

from synsweep.core.cleanup import CleanupReason, Frontend
from synsweep.core.endpoints import ServicePortName
from synsweep.core.flow import Address
from tests.unit.core.world import Raw, World, at, up

if TYPE_CHECKING:
    from synsweep.core.index import BackendIndex

# One event: (kind, object name, options); the options None: deleted.
Event = tuple[str, str, Raw | None]
Gone = set[tuple[ServicePortName, Address, Frontend, CleanupReason]]

IPS = ("10.0.0.1", "10.0.0.2", "fd00:1::1")
CONDITIONS = (  # (ready, serving, terminating)
    (True, True, False),
    (False, False, False),
    (False, True, True),
    (False, False, True),
)
PORTS: tuple[dict[str, int], ...] = ({"http": 8080}, {"web": 8080}, {"http": 8080, "web": 8081}, {})

endpoints = st.builds(
    lambda ip, node, states: up(
        ip, node=node, **dict(zip(("ready", "serving", "terminating"), states, strict=True))
    ),
    st.sampled_from(IPS),
    st.sampled_from(("node1", "node2")),
    st.sampled_from(CONDITIONS),
)
slices: st.SearchStrategy[Raw | None] = st.none() | st.fixed_dictionaries(
    {
        "endpoints": st.lists(endpoints, max_size=3),
        "service": st.sampled_from(("a", "b")),
        "ports": st.sampled_from(PORTS),
        "labels": st.sampled_from(({}, {}, {"service.kubernetes.io/headless": ""})),
    }
)
services: st.SearchStrategy[Raw | None] = st.none() | st.fixed_dictionaries(
    {
        "ips": st.sampled_from((("10.96.0.1",), ("10.96.0.1", "fd00::1"), ())),
        "ports": st.sampled_from(({"http": 80}, {"web": 80}, {"http": 80, "web": 81})),
        "node_ports": st.sampled_from(({}, {"http": 30080})),
        "externalIPs": st.sampled_from(([], ["192.0.2.7"])),
        "externalTrafficPolicy": st.sampled_from(("Cluster", "Local")),
        "labels": st.sampled_from(({}, {}, {"service.kubernetes.io/service-proxy-name": "x"})),
    }
)


@st.composite
def histories(draw: st.DrawFn) -> dict[tuple[str, str], list[Event]]:
    """What happened to each object, in its own order."""
    events: dict[tuple[str, str], list[Event]] = {}
    for name in ("s1", "s2", "s3"):
        told = draw(st.lists(slices, max_size=4))
        events["slice", name] = [("slice", name, options) for options in told]
    for name in ("a", "b"):
        told = draw(st.lists(services, max_size=4))
        events["service", name] = [("service", name, options) for options in told]
    return events


@st.composite
def two_orders(draw: st.DrawFn) -> tuple[list[Event], list[Event]]:
    """The same events in two interleavings."""
    history = draw(histories())
    turns = [key for key, events in history.items() for _ in events]
    return _interleave(history, turns), _interleave(history, draw(st.permutations(turns)))


def _interleave(
    history: dict[tuple[str, str], list[Event]], turns: list[tuple[str, str]]
) -> list[Event]:
    waiting = {key: iter(events) for key, events in history.items()}
    return [next(waiting[turn]) for turn in turns]


def replay(events: list[Event], *, told_twice: bool = False, filled: bool = False) -> World:
    world = World()
    if filled:
        world.index.fill_is_complete()
    for kind, name, options in events:
        for _ in range(1 + told_twice):
            _tell(world, kind, name, options)
        world.wait(1)
    return world


def _tell(world: World, kind: str, name: str, options: Raw | None) -> None:
    if options is None:
        (world.delete_slice if kind == "slice" else world.delete_service)(name)
    elif kind == "slice":
        rest: dict[str, Any] = {key: told for key, told in options.items() if key != "endpoints"}
        world.slice(name, *options["endpoints"], **rest)
    else:
        world.service(name, **options)


def gone(index: BackendIndex, now: float) -> Gone:
    return {
        (one.service_port, one.backend, frontend, one.reason)
        for one in index.gone(now=now)
        for frontend in one.frontends
    }


@settings(deadline=None)  # a busy machine is no failure
@given(two_orders(), st.booleans())
def test_any_interleaving_ends_in_the_same_index_and_the_same_gone_pairs(
    orders: tuple[list[Event], list[Event]],
    filled: bool,  # noqa: FBT001 - hypothesis draws it
) -> None:
    one, other = (replay(order, filled=filled) for order in orders)

    assert gone(one.index, one.now) == gone(other.index, other.now)
    assert one.index.slice_versions() == other.index.slice_versions()
    assert one.index.service_versions() == other.index.service_versions()
    assert one.index.backends_total() == other.index.backends_total()
    assert [one.index.labels(key) for key in sorted(one.index.service_versions())] == [
        other.index.labels(key) for key in sorted(other.index.service_versions())
    ]


@settings(deadline=None)  # a busy machine is no failure
@given(two_orders())
def test_an_event_that_is_told_twice_changes_nothing(
    orders: tuple[list[Event], list[Event]],
) -> None:
    once, twice = replay(orders[1]), replay(orders[1], told_twice=True)

    assert gone(once.index, once.now) == gone(twice.index, twice.now)


@settings(deadline=None)  # a busy machine is no failure
@given(two_orders())
def test_after_their_time_nothing_is_gone_and_the_living_are_as_if_told_now(
    orders: tuple[list[Event], list[Event]],
) -> None:
    world = replay(orders[1])
    world.wait(300)
    world.index.expire(now=world.now, keep_for=300)
    last: dict[tuple[str, str], Event] = {}
    for event in orders[1]:
        last[event[:2]] = event

    fresh = replay(list(last.values()))

    assert world.removed() == set()
    assert world.unready() == fresh.unready()
    assert world.index.backends_total() == fresh.index.backends_total()


@settings(deadline=None)  # a busy machine is no failure
@given(two_orders())
def test_the_index_agrees_with_a_plain_reading_of_the_rule(
    orders: tuple[list[Event], list[Event]],
) -> None:
    """The rule without any cleverness: what was seen, times what was seen, less what is valid."""
    world = replay(orders[1])
    frontends: dict[tuple[str, str], set[str]] = defaultdict(set)
    backends: dict[tuple[str, str], set[str]] = defaultdict(set)
    has: dict[str, set[str]] = defaultdict(set)  # frontends of a Service now
    lists: dict[tuple[str, str], set[str]] = defaultdict(set)  # (slice, Service) now
    for kind, name, options in orders[1]:
        if kind == "service":
            _note_service(name, options, frontends, has)
        else:
            _note_slice(name, options, backends, lists)
    valid = {
        (frontend, backend)
        for service, mine in has.items()
        for frontend in mine
        for (_, of_service), theirs in lists.items()
        if of_service == service
        for backend in theirs
    }

    expected = {
        (frontend, backend)
        for port in frontends.keys() & backends.keys()
        for frontend in frontends[port]
        for backend in backends[port]
        if frontend.startswith("*") or ("[" in frontend) == ("[" in backend)
    } - valid

    assert world.removed() == expected


def _note_service(
    name: str,
    options: Raw | None,
    seen: dict[tuple[str, str], set[str]],
    has: dict[str, set[str]],
) -> None:
    has[name] = set()
    if options is None:
        return
    foreign = bool(options["labels"])
    for port in [port for service, port in seen if service == name and foreign]:
        del seen[name, port]
    if foreign or not options["ips"]:
        return
    for port, number in options["ports"].items():
        mine = {f"[{ip}]:{number}" if ":" in ip else f"{ip}:{number}" for ip in options["ips"]}
        mine |= {f"{ip}:{number}" for ip in options["externalIPs"]}
        mine |= {f"*:{options['node_ports'][port]}" for _ in (1,) if port in options["node_ports"]}
        seen[name, port] |= mine
        has[name] |= mine


def _note_slice(
    name: str,
    options: Raw | None,
    seen: dict[tuple[str, str], set[str]],
    lists: dict[tuple[str, str], set[str]],
) -> None:
    for known in [key for key in lists if key[0] == name]:
        del lists[known]
    if options is None or options["labels"]:
        return
    for port, number in options["ports"].items():
        theirs = {
            str(at(f"{endpoint['addresses'][0]}:{number}")) for endpoint in options["endpoints"]
        }
        seen[options["service"], port] |= theirs
        lists[name, options["service"]] |= theirs
