"""Health and metrics over real HTTP on a free port of the loopback."""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry, Counter

from synsweep.observe.health import AddressInUse, HealthServer

if TYPE_CHECKING:
    from collections.abc import Iterator


class Health:
    """A server whose probes a test can turn."""

    def __init__(self, address: str = "127.0.0.1:0") -> None:
        self.not_live: str | None = None
        self.not_ready: str | None = None
        registry = CollectorRegistry()
        Counter("synsweep_example", "An example.", registry=registry).inc(3)
        self.server = HealthServer(
            address, live=lambda: self.not_live, ready=self._ready, registry=registry
        )
        self.server.start()

    def _ready(self) -> str | None:
        if self.not_ready == "raise":
            raise RuntimeError("a bug")
        return self.not_ready

    def get(
        self, path: str, host: str = "127.0.0.1", accept: str = ""
    ) -> tuple[int, str, str | None]:
        connection = http.client.HTTPConnection(host, self.server.port, timeout=5)
        try:
            connection.request("GET", path, headers={"Accept": accept} if accept else {})
            answer = connection.getresponse()
            return answer.status, answer.read().decode(), answer.getheader("Content-Type")
        finally:
            connection.close()


@pytest.fixture
def health() -> Iterator[Health]:
    health = Health()
    yield health
    health.server.stop()


def test_all_is_well(health: Health) -> None:
    assert health.get("/healthz")[:2] == (200, "ok\n")
    assert health.get("/readyz")[:2] == (200, "ok\n")


def test_what_is_not_well_is_told_in_the_body(health: Health) -> None:
    health.not_live = "the sweeping thread is stuck"
    health.not_ready = "no list of cleanups yet"
    assert health.get("/healthz")[:2] == (503, "the sweeping thread is stuck\n")
    assert health.get("/readyz?verbose")[:2] == (503, "no list of cleanups yet\n")


def test_a_probe_that_raises_is_a_500_and_the_server_goes_on(
    health: Health, caplog: pytest.LogCaptureFixture
) -> None:
    health.not_ready = "raise"
    assert health.get("/readyz")[0] == 500
    assert "a bug" in caplog.text
    assert health.get("/healthz")[0] == 200


def test_metrics_come_in_the_format_that_was_asked_for(health: Health) -> None:
    status, body, kind = health.get("/metrics")
    assert status == 200
    assert "synsweep_example_total 3.0" in body
    assert kind is not None
    assert kind.startswith("text/plain")
    kind = health.get("/metrics", accept="application/openmetrics-text; version=1.0.0")[2]
    assert kind is not None
    assert kind.startswith("application/openmetrics-text")


def test_another_path_is_answered_with_those_there_are(health: Health) -> None:
    assert health.get("/")[:2] == (404, "one of /healthz, /readyz, /metrics\n")


def test_a_port_in_use_is_said_in_one_line(health: Health) -> None:
    address = f"127.0.0.1:{health.server.port}"
    with pytest.raises(AddressInUse, match=rf"{address}: Address already in use"):
        Health(address)


def test_an_address_that_is_not_ours_is_said_in_one_line() -> None:
    with pytest.raises(AddressInUse, match="cannot serve health and metrics on 192\\.0\\.2\\.1:0"):
        Health("192.0.2.1:0")


def test_a_host_that_is_none_is_said_in_words() -> None:
    with pytest.raises(AddressInUse, match=r"metrics on 999\.1\.1\.1:80: [A-Z]") as raised:
        Health("999.1.1.1:80")
    assert "Unknown error" not in str(raised.value)


def test_no_host_means_every_address() -> None:
    health = Health(":0")
    try:
        assert health.get("/healthz", host="127.0.0.1")[0] == 200
    finally:
        health.server.stop()
    assert health.server.port == 0
