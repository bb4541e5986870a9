"""F1: a backend's IP goes to another Service after the cooldown; who answers the old SYNs?

RUNS (3): repetitions of each half. COOLDOWN (3): seconds between removal and reuse.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.cluster import installation
from tests.cluster.figures import record, repetitions
from tests.cluster.reuse import Outcome, Play, Stage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.rig.cluster import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(3600)]

RUNS = repetitions("RUNS", 3)
PLAY = Play(cooldown=repetitions("COOLDOWN", 3), watch=max(10, repetitions("COOLDOWN", 3) / 2))


@pytest.fixture(scope="module")
def stage(synsweep: Cluster) -> Iterator[Stage]:
    """The shop and the stranger, on a cluster with synsweep installed."""
    made = Stage(synsweep)
    made.build()
    yield made
    made.remove()


def perform(stage: Stage, half: str) -> list[Outcome]:
    """Play RUNS times and record the rates."""
    outcomes = [stage.perform(PLAY) for _ in range(RUNS)]
    stuck: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    for outcome in outcomes:
        for way in PLAY.ways:
            stuck[way] += len(outcome.of_stuck(way))
            wrong[way] += len(outcome.wrong(way))
    record(
        f"headline {half}",
        runs=RUNS,
        cooldown=PLAY.cooldown,
        stuck=dict(stuck),
        wrong=dict(wrong),
        runs_with_a_wrong_answer=sum(any(o.wrong(w) for w in PLAY.ways) for o in outcomes),
    )
    return outcomes


def test_without_the_operator_clients_reach_the_ips_next_owner(stage: Stage) -> None:
    installation.set_mode(stage.cluster, "Disabled")
    outcomes = perform(stage, "without")
    for outcome in outcomes:
        assert outcome.left_before_reuse, "the half-open entries outlive the cooldown"
        assert any(outcome.wrong(way) for way in PLAY.ways)
        assert outcome.established_wrong, "conntrack shows the flow ESTABLISHED to the stranger"


def test_with_the_operator_no_client_ever_does(stage: Stage) -> None:
    installation.set_mode(stage.cluster, "Enforce")
    outcomes = perform(stage, "with")
    for outcome in outcomes:
        assert outcome.left_before_reuse == []
        assert outcome.established_wrong == []
        for way in PLAY.ways:
            assert outcome.wrong(way) == []
            for flow in outcome.of_stuck(way):
                assert flow.answers, f"flow {flow.number} never reached a live backend"
