"""The border to the API server: what comes in, and what each failure means to the caller."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from synsweep.cluster.client import Api
from synsweep.cluster.errors import ApiNotConfigured, ApiRefused, ApiUnavailable
from tests.unit.cluster.scripted_api import (
    SERVER_TIME,
    hang,
    kubeconfig,
    raw,
    refusal,
    reply,
    serving,
)

if TYPE_CHECKING:
    from pathlib import Path


def test_an_answer_carries_the_api_servers_clock(tmp_path: Path) -> None:
    with serving(tmp_path, reply(200, {"a": 1})) as (api, script):
        answer = api.get("/x", query={"limit": "5"})
        assert answer.body == {"a": 1}
        assert answer.server_time == SERVER_TIME
        assert script.asked[0].query == {"limit": "5"}
        assert script.asked[0].headers["User-Agent"] == "test"
        assert api.last_answer_at is not None
        assert SERVER_TIME <= (api.server_now() or 0) < SERVER_TIME + 5


def test_before_the_first_answer_the_api_servers_clock_is_unknown(tmp_path: Path) -> None:
    with serving(tmp_path) as (api, _):
        assert api.server_now() is None


def test_bodies_are_sent_as_json_and_merge_patch(tmp_path: Path) -> None:
    with serving(tmp_path, *(reply(200, {}) for _ in range(3))) as (api, script):
        api.post("/x", {"a": 1})
        api.patch("/x", {"b": None})
        api.delete("/x")
        assert [(asked.method, asked.body) for asked in script.asked] == [
            ("POST", {"a": 1}),
            ("PATCH", {"b": None}),
            ("DELETE", None),
        ]
        types = [asked.headers.get("Content-Type") for asked in script.asked]
        assert types[:2] == ["application/json", "application/merge-patch+json"]


def test_a_refusal_keeps_the_api_servers_words_and_fields(tmp_path: Path) -> None:
    answer = refusal(422, "Invalid", "spec.mode: Unsupported value", "spec.mode")
    with serving(tmp_path, answer) as (api, _), pytest.raises(ApiRefused) as refused:
        api.post("/x", {})
    assert refused.value.status == 422
    assert refused.value.reason == "Invalid"
    assert refused.value.fields == ("spec.mode",)
    assert "Unsupported value" in str(refused.value)


@pytest.mark.parametrize(
    ("answer", "meaning"),
    [
        pytest.param(refusal(404, "NotFound"), ApiRefused, id="not found is a refusal"),
        pytest.param(refusal(401, "Unauthorized"), ApiRefused, id="no credentials is a refusal"),
        pytest.param(raw(403, b"no"), ApiRefused, id="a refusal without a Status is one too"),
        pytest.param(reply(409, {"odd": 1}), ApiRefused, id="a refusal with an odd body too"),
        pytest.param(refusal(429, "TooManyRequests"), ApiUnavailable, id="429 means later"),
        pytest.param(refusal(500, "InternalError"), ApiUnavailable, id="500 means later"),
        pytest.param(raw(503, b"starting"), ApiUnavailable, id="503 means later"),
        pytest.param(raw(200, b"<html>"), ApiUnavailable, id="a page of HTML is no answer"),
        pytest.param(reply(200, [1]), ApiUnavailable, id="a list is no object"),
    ],
)
def test_what_an_answer_means(tmp_path: Path, answer: object, meaning: type[Exception]) -> None:
    with serving(tmp_path, answer) as (api, _), pytest.raises(meaning):  # type: ignore[arg-type]
        api.get("/x")


def test_silence_and_a_closed_port_mean_later(tmp_path: Path) -> None:
    with serving(tmp_path, hang) as (api, _), pytest.raises(ApiUnavailable):
        api.get("/x", read_timeout=0.1)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    api = Api.load(user_agent="test", environ={"KUBECONFIG": kubeconfig(tmp_path, port)})
    with pytest.raises(ApiUnavailable, match="GET /x") as failed:
        api.get("/x")
    assert failed.value.__cause__ is not None


@pytest.mark.parametrize(
    "environ",
    [
        pytest.param({"KUBECONFIG": "/nonexistent"}, id="a kubeconfig that is not there"),
        pytest.param({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, id="a pod without its token"),
        pytest.param({"KUBECONFIG": __file__}, id="a file that is no kubeconfig"),
    ],
)
def test_without_configuration_it_says_what_to_do(environ: dict[str, str]) -> None:
    with pytest.raises(ApiNotConfigured, match="set KUBECONFIG"):
        Api.load(user_agent="test", environ=environ)


def test_a_token_goes_with_each_request_and_to_other_clients(tmp_path: Path) -> None:
    with serving(tmp_path, reply(200, {})) as (reached, script):
        port = int(reached.server.rpartition(":")[2])
        path = kubeconfig(tmp_path, port, token="s3cret")  # noqa: S106
        api = Api.load(user_agent="test", environ={"KUBECONFIG": path})
        api.get("/x")
        assert script.asked[0].headers["Authorization"] == "Bearer s3cret"
        found = api.credentials()
        assert (found.server, found.token) == (reached.server, "s3cret")
