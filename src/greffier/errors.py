"""Every refusal Greffier can give, one class and one stable code each.

The docstring of a class is its default message; ``status`` is the HTTP status it becomes.
The SQL functions refuse with SQLSTATE ``GRnnn``; ``SQLSTATES`` maps them here, and a test holds
both lists equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault in what was sent: where (a JSON pointer), which (a stable code), and in words."""

    pointer: str
    code: str
    detail: str


class Error(Exception):
    """Something went wrong in Greffier."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str | None = None, *, retry_after: float | None = None) -> None:
        """Take the class docstring as the message unless a better one is given.

        Args:
            detail: What happened, for a person; never SQL, never another user's data.
            retry_after: Seconds after which the same request may succeed.
        """
        self.detail = detail or (type(self).__doc__ or "").strip().split("\n\n")[0]
        self.retry_after = retry_after
        super().__init__(self.detail)


class BadRequest(Error):
    """What was sent is no HTTP request that can be read."""

    code = "bad-request"
    status = 400
    title = "Bad request"


class Unauthenticated(Error):
    """Say who you are: a valid token is needed."""

    code = "unauthenticated"
    status = 401
    title = "Unauthenticated"


class Forbidden(Error):
    """You may see this, but not do that to it."""

    code = "forbidden"
    status = 403
    title = "Forbidden"


class NotFound(Error):
    """There is nothing here that you may see."""

    code = "not-found"
    status = 404
    title = "Not found"


class Gone(Error):
    """This conversation was erased; its id is remembered so that it cannot come back."""

    code = "gone"
    status = 410
    title = "Gone"


class Invalid(Error):
    """The request is not valid."""

    code = "validation"
    status = 422
    title = "Validation failed"

    def __init__(self, detail: str | None = None, *, problems: tuple[Problem, ...] = ()) -> None:
        """Keep every fault found, so that a client can mend all of them at once."""
        if detail is None and problems:
            first = problems[0]
            detail = f"{first.pointer}: {first.detail}" if first.pointer else first.detail
        super().__init__(detail)
        self.problems = problems

    @classmethod
    def at(cls, pointer: str, code: str, detail: str) -> Invalid:
        """Refuse for one fault at one place."""
        return cls(problems=(Problem(pointer, code, detail),))


class MethodNotAllowed(Error):
    """This method does nothing here; the header Allow names those that do."""

    code = "method-not-allowed"
    status = 405
    title = "Method not allowed"


class RequestTimeout(Error):
    """The request did not come whole in time; an id makes it safe to send again."""

    code = "request-timeout"
    status = 408
    title = "Request timeout"


class IdReused(Error):
    """This id was already used for something else."""

    code = "id-reused"
    status = 409
    title = "Id reused"


class SubjectTaken(Error):
    """You already have an active conversation on this subject."""

    code = "subject-taken"
    status = 409
    title = "Subject taken"


class AgentFixed(Error):
    """The agent of a conversation is chosen at its creation and never changes."""

    code = "agent-fixed"
    status = 409
    title = "Agent fixed"


class RunActive(Error):
    """An answer is being written in this conversation."""

    code = "run-active"
    status = 409
    title = "Run active"


class Archived(Error):
    """This conversation is archived; bring it back before writing to it."""

    code = "archived"
    status = 409
    title = "Archived"


class Stale(Error):
    """It changed since you read it."""

    code = "stale"
    status = 412
    title = "Stale"


class PayloadTooLarge(Error):
    """The body is larger than this server accepts."""

    code = "payload-too-large"
    status = 413
    title = "Payload too large"


class UnsupportedMediaType(Error):
    """This server reads JSON here."""

    code = "unsupported-media-type"
    status = 415
    title = "Unsupported media type"


class HeadersTooLarge(Error):
    """The request's headers are larger than this server accepts."""

    code = "headers-too-large"
    status = 431
    title = "Headers too large"


class RateLimited(Error):
    """Too many messages in too short a time."""

    code = "rate-limited"
    status = 429
    title = "Rate limited"


class QuotaExceeded(Error):
    """The quota for this month is used up."""

    code = "quota-exceeded"
    status = 429
    title = "Quota exceeded"


class Unavailable(Error):
    """The service cannot answer now; nothing was lost that was acknowledged."""

    code = "unavailable"
    status = 503
    title = "Unavailable"


class SettingsError(Error):
    """A setting has a value that cannot work."""

    code = "settings"


class ListenError(Error):
    """The server cannot listen at its address."""

    code = "listen"


class EmbeddedError(Error):
    """The private PostgreSQL could not be started."""

    code = "embedded"


class SchemaError(Error):
    """The database's schema is not one this release can work with."""

    code = "schema"


class FileError(Error):
    """A file that was named cannot be read or written."""

    code = "file"


class BackupError(Error):
    """The backup could not be written, or the file is none."""

    code = "backup"


#: SQLSTATE raised by a SQL function → the refusal it means.
SQLSTATES: dict[str, type[Error]] = {
    "GR404": NotFound,
    "GR410": Gone,
    "GR403": Forbidden,
    "GR409": IdReused,
    "GR419": Archived,
    "GR429": SubjectTaken,
    "GR439": AgentFixed,
    "GR449": RunActive,
    "GR412": Stale,
    "GR422": Invalid,
}

#: Every code a caller of HTTP or of the library can meet, for the reference and its test.
CODES: dict[str, type[Error]] = {
    kind.code: kind
    for kind in (
        BadRequest,
        Unauthenticated,
        Forbidden,
        NotFound,
        MethodNotAllowed,
        RequestTimeout,
        Gone,
        Invalid,
        IdReused,
        SubjectTaken,
        AgentFixed,
        RunActive,
        Archived,
        Stale,
        PayloadTooLarge,
        UnsupportedMediaType,
        RateLimited,
        QuotaExceeded,
        HeadersTooLarge,
        Unavailable,
        Error,
    )
}
