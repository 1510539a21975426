"""Errors as JSON: `{"error": {"message", "hint", "type", "code"}}`, in the form that OpenAI's clients read."""

from __future__ import annotations

import json
import re
from typing import Any

from starlette.responses import Response

from awareness.errors import (
    AwarenessError,
    IndexCorrupt,
    IndexLocked,
    ModelNotAvailable,
    NoIndex,
    NothingFound,
    StorageFailed,
    UsageError,
)
from awareness.serve.repositories import NotServed

STATUS: dict[type[AwarenessError], int] = {
    NotServed: 404,
    NothingFound: 404,
    NoIndex: 404,
    UsageError: 400,
    IndexLocked: 409,
    ModelNotAvailable: 503,
    IndexCorrupt: 500,
    StorageFailed: 507,
}
CODES = {
    400: "bad_request",
    401: "invalid_api_key",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    409: "locked",
    413: "too_large",
    429: "rate_limit_exceeded",
    503: "not_available",
    507: "storage_failed",
}


class Json(Response):
    """JSON in ASCII: a name of a file that is not UTF-8 (surrogates) is escaped, as is everything else."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return json_bytes(content)


def json_bytes(content: Any) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode("ascii")


class Refused(AwarenessError):
    """A request that is refused before any work. status: of HTTP. headers: of the response."""

    def __init__(
        self, status: int, message: str, *, hint: str | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.status, self.headers = status, headers or {}


def status_of(error: AwarenessError) -> int:
    """The HTTP status of an error."""
    if isinstance(error, Refused):
        return error.status
    return next((status for kind, status in STATUS.items() if isinstance(error, kind)), 500)


def error_fields(error: AwarenessError) -> dict[str, Any]:
    """`message`, `hint`, `type` (the class in snake case, or the code), `param` and `code`."""
    status = status_of(error)
    code = CODES.get(status, "server_error")
    return {
        "message": "\n".join([error.message, *error.details]),
        "hint": error.hint,
        "type": code if type(error) is Refused else _snake(type(error).__name__),
        "param": None,
        "code": code,
    }


def internal_fields(error: BaseException) -> dict[str, Any]:
    """The same of an error of ours, whose text may show what is nobody's business."""
    return {
        "message": f"an error of ours: {type(error).__name__}",
        "hint": "the terminal of `awareness serve` has the details",
        "type": "internal_error",
        "param": None,
        "code": "server_error",
    }


def error_response(error: AwarenessError) -> Json:
    headers = error.headers if isinstance(error, Refused) else {}
    return Json({"error": error_fields(error)}, status_of(error), headers)


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
