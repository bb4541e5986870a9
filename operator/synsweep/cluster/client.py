"""One keep-alive connection pool to the API server: raw JSON in and out.

Configuration as kubectl users expect it: `KUBECONFIG` if it is set, else the pod's service account,
else `~/.kube/config`. The API server's `Date` header comes with every answer, so that ages can be
computed without our wall clock.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias
from urllib.parse import urlencode

import urllib3.exceptions
from kubernetes import config
from kubernetes.client import ApiClient, Configuration
from kubernetes.client.exceptions import ApiException

from synsweep.cluster.errors import ApiNotConfigured, ApiRefused, ApiUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Body: TypeAlias = dict[str, Any]

MERGE_PATCH = "application/merge-patch+json"
JSON = "application/json"

CONNECT_TIMEOUT = (
    3.0  # seconds; a SYN that meets a dead endpoint is retried by the kernel after 1 s
)
READ_TIMEOUT = 10.0  # seconds between two pieces of an answer
_PIECE = 1 << 16
_TOO_MANY_REQUESTS = 429
_SERVER_ERROR = 500
_WORDS = {401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 409: "Conflict", 410: "Expired"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A 2xx answer. `server_time` is its Date: seconds since the epoch by the API's clock."""

    body: Body
    server_time: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """How to reach the API server, for clients other than this one (kopf has its own)."""

    server: str
    ca_path: str | None
    insecure: bool
    certificate_path: str | None
    private_key_path: str | None
    token: str | None
    proxy_url: str | None


class Stream:
    """An answer that is read line by line while it comes. Close it; `with` does."""

    def __init__(self, response: Any, *, server_time: float) -> None:
        self._response = response
        self.server_time = server_time

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def lines(self) -> Iterator[bytes]:
        """Yield each line when it is complete.

        Raises:
            ApiUnavailable: nothing came for the read timeout, or the connection broke.
        """
        rest = b""
        with _translated("watch"):
            while piece := self._response.read1(_PIECE):
                *whole, rest = (rest + piece).split(b"\n")
                yield from (line for line in whole if line.strip())
        if rest.strip():
            yield rest

    def interrupt(self) -> None:
        """Make a read that blocks in another thread end at once, as if the connection broke."""
        with contextlib.suppress(ValueError, RuntimeError, OSError):
            self._response.shutdown()

    def close(self) -> None:
        """Drop the connection: what is left of a watch is never read."""
        self._response.close()


class Api:
    """The API server of one cluster. Thread-safe."""

    def __init__(self, configuration: Configuration, *, user_agent: str) -> None:
        configuration.retries = False  # retrying is the caller's decision, and has his time budget
        configuration.keep_alive = True
        self.server: str = configuration.host.rstrip("/")
        self.last_answer_at: float | None = None
        self._clocks: tuple[float, float] | None = None  # the API server's, ours (monotonic)
        self._configuration = configuration
        self._client = ApiClient(configuration)
        self._user_agent = user_agent

    @classmethod
    def load(cls, *, user_agent: str, environ: Mapping[str, str] = os.environ) -> Api:
        """Find the API server: `KUBECONFIG`, else the pod's service account, else ~/.kube/config.

        Raises:
            ApiNotConfigured: none of them is there, or what is there is not usable.
        """
        configuration = Configuration()
        kubeconfig = environ.get("KUBECONFIG", "")
        in_pod = bool(environ.get("KUBERNETES_SERVICE_HOST"))
        try:
            if in_pod and not kubeconfig:
                config.load_incluster_config(configuration)  # type: ignore[no-untyped-call]
            else:
                file = kubeconfig or str(Path("~/.kube/config").expanduser())
                config.load_kube_config(  # type: ignore[no-untyped-call]
                    config_file=file, client_configuration=configuration, persist_config=False
                )
        except Exception as error:  # the library parses a file of the user: it may raise anything
            where = kubeconfig or ("the pod's service account" if in_pod else "~/.kube/config")
            raise ApiNotConfigured(
                f"no usable access to an API server in {where} ({error}); set KUBECONFIG to a"
                " kubeconfig file, or run in a pod with a service account"
            ) from error
        return cls(configuration, user_agent=user_agent)

    def get(
        self,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        accept: str = JSON,
        read_timeout: float = READ_TIMEOUT,
    ) -> Answer:
        """Read one object or one page of a list."""
        return self._ask("GET", path, query=query, accept=accept, read_timeout=read_timeout)

    def post(self, path: str, body: Body) -> Answer:
        """Create an object."""
        return self._ask("POST", path, body=body, content_type=JSON)

    def patch(self, path: str, body: Any, *, content_type: str = MERGE_PATCH) -> Answer:
        """Change an object or its status."""
        return self._ask("PATCH", path, body=body, content_type=content_type)

    def delete(self, path: str, body: Body | None = None) -> Answer:
        """Delete an object; `body` are DeleteOptions."""
        return self._ask("DELETE", path, body=body, content_type=JSON)

    def stream(self, path: str, *, query: Mapping[str, str], read_timeout: float) -> Stream:
        """Open a watch; `read_timeout` seconds of silence end it with ApiUnavailable."""
        response = self._send("GET", path, query=query, accept=JSON, read_timeout=read_timeout)
        try:
            return Stream(response, server_time=_server_time(response))
        except ApiUnavailable:
            response.close()
            raise

    def credentials(self) -> Credentials:
        """Tell another client how to log in; a token is read anew each time (it rotates)."""
        settings = self._configuration
        header = self._authorization() or ""
        return Credentials(
            server=self.server,
            ca_path=settings.ssl_ca_cert,
            insecure=not settings.verify_ssl,
            certificate_path=settings.cert_file,
            private_key_path=settings.key_file,
            token=header.partition(" ")[2] or None,
            proxy_url=settings.proxy,
        )

    def server_now(self) -> float | None:
        """Moment by the API server's clock, for what people read; None before its first answer."""
        if self._clocks is None:
            return None
        server, ours = self._clocks
        return server + time.monotonic() - ours

    def close(self) -> None:
        """Close the idle connections."""
        self._client.close()  # type: ignore[no-untyped-call]

    def _ask(self, method: str, path: str, **how: Any) -> Answer:
        response = self._send(method, path, **how)
        with _translated(f"{method} {path}"):
            raw = response.data
        try:
            body = json.loads(raw)
        except ValueError as error:
            raise ApiUnavailable(f"{method} {path}: the answer is no JSON") from error
        if not isinstance(body, dict):
            raise ApiUnavailable(f"{method} {path}: the answer is no object")
        return Answer(body=body, server_time=_server_time(response))

    def _send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str | None = None,
        accept: str = JSON,
        read_timeout: float = READ_TIMEOUT,
    ) -> Any:
        headers = {"Accept": accept, "User-Agent": self._user_agent}
        if content_type:
            headers["Content-Type"] = content_type
        if authorization := self._authorization():
            headers["Authorization"] = authorization
        url = self.server + path + (f"?{urlencode(query)}" if query else "")
        with _translated(f"{method} {path}"):
            answer = self._client.rest_client.request(  # type: ignore[no-untyped-call]
                method,
                url,
                headers=headers,
                body=body,
                _request_timeout=(CONNECT_TIMEOUT, read_timeout),
            )
        now = self.last_answer_at = time.monotonic()
        with contextlib.suppress(ApiUnavailable):
            self._clocks = _server_time(answer.response), now
        if answer.status >= 300:  # noqa: PLR2004  # the API server never redirects us
            _refuse(f"{method} {path}", answer.response)
        return answer.response

    def _authorization(self) -> str | None:
        setting = self._configuration.auth_settings().get("BearerToken")
        return setting["value"] if setting else None


@contextlib.contextmanager
def _translated(what: str) -> Iterator[None]:
    """Turn what the HTTP library raises into ApiUnavailable, the cause kept."""
    try:
        yield
    except (urllib3.exceptions.HTTPError, ApiException, OSError) as error:
        raise ApiUnavailable(f"{what}: {_first_line(error)}") from error


def _refuse(what: str, response: Any) -> None:
    """Raise what a non-2xx answer means; its connection goes back to the pool."""
    with _translated(what):
        raw = response.data
    try:
        status = json.loads(raw)
        message, reason = status["message"], status.get("reason") or ""
        causes = (status.get("details") or {}).get("causes") or ()
        fields = tuple(cause["field"] for cause in causes if "field" in cause)
    except (ValueError, KeyError, TypeError, AttributeError):
        message, reason, fields = raw[:200].decode(errors="replace").strip(), "", ()
    code = response.status
    if code == _TOO_MANY_REQUESTS or code >= _SERVER_ERROR:
        raise ApiUnavailable(f"{what}: {code} {message}")
    raise ApiRefused(
        status=code,
        reason=reason or _WORDS.get(code, "BadRequest"),
        message=message,
        fields=fields,
    )


def _server_time(response: Any) -> float:
    header = response.headers.get("Date", "")
    try:
        return parsedate_to_datetime(header).timestamp()
    except ValueError as error:
        raise ApiUnavailable(f"an answer without a usable Date ({header!r})") from error


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
