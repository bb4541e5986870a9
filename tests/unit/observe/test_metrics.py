"""docs/metrics.md and the code agree, and names are as Prometheus users expect."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry

from synsweep.observe.metrics import NodeMetrics
from synsweep.observe.metrics_controller import ControllerMetrics

if TYPE_CHECKING:
    from collections.abc import Callable

PAGE = Path(__file__).parents[3] / "docs" / "metrics.md"
ROW = re.compile(r"^\| `(?P<name>\w+)` \| (?P<type>\w+) \| (?P<labels>[^|]*)\| \S", re.MULTILINE)
PARTS = {"Node helper": NodeMetrics, "Controller": ControllerMetrics}

Row = tuple[str, str, tuple[str, ...]]  # name, type, labels


def documented(part: str) -> list[Row]:
    text = PAGE.read_text(encoding="utf-8").partition(f"## {part}\n")[2].partition("\n## ")[0]
    return sorted(
        (row["name"], row["type"], tuple(re.findall(r"`(\w+)`", row["labels"])))
        for row in ROW.finditer(text)
    )


def defined(metrics: Callable[[CollectorRegistry], object]) -> list[Row]:
    registry = CollectorRegistry()
    made = metrics(registry)
    labels = {
        metric._name: tuple(metric._labelnames)  # noqa: SLF001 - the library has no other way
        for metric in vars(made).values()
        if hasattr(metric, "_labelnames")
    }
    return sorted(
        (
            f"{metric.name}_total" if metric.type == "counter" else metric.name,
            metric.type,
            labels[metric.name],
        )
        for metric in registry.collect()
    )


@pytest.mark.parametrize("part", PARTS)
def test_every_metric_is_documented_and_nothing_else(part: str) -> None:
    assert documented(part) == defined(PARTS[part])


@pytest.mark.parametrize("part", PARTS)
def test_names_have_one_prefix_and_base_units(part: str) -> None:
    for name, kind, labels in defined(PARTS[part]):
        assert name.startswith("synsweep_")
        assert not re.search(r"_(ms|millis|kb|minutes|percent)(_|$)", name)
        assert (kind == "counter") == name.endswith("_total")
        assert not {"ip", "pod", "node", "service"} & set(labels)
