"""What every test shares: one that needs more than this machine gives says so; CI then fails."""

from __future__ import annotations

import os

import pytest


def needs(available: bool, what: str) -> None:  # noqa: FBT001
    """Skip a test for want of something, by name; under CI a skip of that kind is a failure."""
    if available:
        return
    if os.environ.get("CI"):
        pytest.fail(f"needs {what}, and CI may not skip it", pytrace=False)
    pytest.skip(f"needs {what}")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests marked `kernel` or `cluster` make network namespaces: root only."""
    if any(item.iter_markers("kernel")) or any(item.iter_markers("cluster")):
        needs(os.geteuid() == 0, "root (it makes network namespaces)")
