"""What can go wrong with the API server, classified by what the caller will do about it."""

from __future__ import annotations


class ApiError(Exception):
    """Any failure of a request to the API server; the cause is chained."""


class ApiNotConfigured(ApiError):
    """Neither a pod's service account nor a kubeconfig: there is no API server to talk to."""


class ApiUnavailable(ApiError):
    """No connection, a timeout, 429, 5xx or an answer that is none: try again later."""


class ApiRefused(ApiError):
    """The API server understood and said no; the same request will be refused again.

    `status` is the HTTP code, `reason` the API's CamelCase word (NotFound, AlreadyExists, Conflict,
    Invalid, Forbidden, Unauthorized, Expired), `message` its own sentence, `fields` the paths of
    the fields that it names.
    """

    def __init__(self, *, status: int, reason: str, message: str, fields: tuple[str, ...]) -> None:
        super().__init__(f"{reason} ({status}): {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.fields = fields

    @property
    def not_found(self) -> bool:
        """Whether the object, or its kind, is not there."""
        return self.reason == "NotFound"
