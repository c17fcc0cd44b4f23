"""What a handler returns: an answer in bytes, ready to be sent, or a stream of them."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import msgspec

from greffier.errors import Error, Invalid, RateLimited, Stale, Unauthenticated, Unavailable

Header: TypeAlias = tuple[bytes, bytes]

#: On every answer: nothing of ours is to be sniffed, framed, embedded or told to other sites.
SECURITY: tuple[Header, ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_INERT: Header = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
#: May be kept by the person's own browser, and is asked about again each time (ETag).
_REVALIDATE: Header = (b"cache-control", b"private, no-cache")
_FORGET: Header = (b"cache-control", b"no-store")

JSON: tuple[Header, ...] = (
    (b"content-type", b"application/json"),
    _REVALIDATE,
    _INERT,
    *SECURITY,
)
_PROBLEM: tuple[Header, ...] = (
    (b"content-type", b"application/problem+json"),
    _FORGET,
    _INERT,
    *SECURITY,
)

#: What is exact stays so on the wire: a number with all its digits.
_encode = msgspec.json.Encoder(decimal_format="number").encode


@dataclass(slots=True)
class Answer:
    """A whole answer."""

    body: bytes = b""
    status: int = 200
    headers: list[Header] = field(default_factory=lambda: list(JSON))


@dataclass(slots=True)
class Stream:
    """An answer sent piece by piece; what goes wrong half-way breaks the connection."""

    pieces: AsyncIterator[bytes]
    headers: list[Header]
    status: int = 200
    #: Each piece is sent at once, and it ends when the caller leaves, not when a piece fails.
    live: bool = False
    #: Let go of at the end, also when no piece was asked for: HEAD, and who left at once.
    holds: AsyncExitStack | None = None

    async def close(self) -> None:
        """Let go of everything."""
        close = getattr(self.pieces, "aclose", None)
        if close is not None:
            await close()
        if self.holds is not None:
            await self.holds.aclose()


def attachment(pieces: AsyncIterator[bytes], media: str, name: str) -> Stream:
    """Make a file to be saved; ``name`` is ours and plain ASCII."""
    return Stream(
        pieces,
        [
            (b"content-type", media.encode()),
            (b"content-disposition", f'attachment; filename="{name}"'.encode()),
            _FORGET,
            _INERT,
            *SECURITY,
        ],
    )


def events(pieces: AsyncIterator[bytes], holds: AsyncExitStack) -> Stream:
    """Make a stream of server-sent events; proxies are asked not to gather them."""
    return Stream(
        pieces,
        [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"x-accel-buffering", b"no"),
            _FORGET,
            _INERT,
            *SECURITY,
        ],
        live=True,
        holds=holds,
    )


def plain(body: bytes, media: str, *, status: int = 200) -> Answer:
    """Make an answer that is not to be kept, such as a health check."""
    headers = [(b"content-type", media.encode()), _FORGET, _INERT, *SECURITY]
    return Answer(body, status, headers)


def encoded(value: Any) -> Answer:
    """Make an answer of a value that is not JSON yet."""
    return Answer(_encode(value))


def no_content() -> Answer:
    """Say that it is done and there is nothing to show."""
    return Answer(b"", 204, [_REVALIDATE, *SECURITY])


# -- ETags -----------------------------------------------------------------------------------------


def etag(body: bytes, epoch: str, rev: int | None) -> str:
    """Name a body: ``"<epoch>-<rev>-<hash>"``.

    The hash tells bodies apart; epoch and rev let an If-Match say which state it was written for.
    What is not of one conversation has no rev.
    """
    # Not against an adversary.  8 KB take 4 us; BLAKE2b 8, without the CPU's own instructions.
    digest = hashlib.sha1(body, usedforsecurity=False).hexdigest()[:20]
    return f'"{epoch}-{"" if rev is None else rev}-{digest}"'


def tagged(
    body: bytes, tag: str, if_none_match: bytes | None, *, more: tuple[Header, ...] = ()
) -> Answer:
    """Answer with a body and its ETag, or with 304 when the caller has it."""
    raw = tag.encode()
    if if_none_match is not None and _holds(if_none_match, raw):
        return Answer(b"", 304, [(b"etag", raw), _REVALIDATE, *more, *SECURITY])
    return Answer(body, 200, [*JSON, (b"etag", raw), *more])


def _holds(header: bytes, tag: bytes) -> bool:
    """Compare weakly, as If-None-Match does (RFC 9110, 13.1.2); proxies weaken a tag they zip."""
    if header == tag:
        return True
    return any(one.strip().removeprefix(b"W/") in (tag, b"*") for one in header.split(b","))


def matched_rev(if_match: bytes | None, epoch: str) -> int | None:
    """Read from If-Match the rev that a change was written for; None when any will do.

    Raises:
        Stale: The header names no state of this history.
    """
    if if_match is None or if_match.strip() == b"*":
        return None
    revs: list[int] = []
    for one in if_match.split(b","):
        # A weak tag never matches here (RFC 9110, 13.1.1).
        tag = one.strip().decode("latin-1")
        named, _, rest = tag.removeprefix('"').partition("-")
        rev, _, digest = rest.partition("-")
        if tag.startswith('"') and digest.endswith('"') and named == epoch and _number(rev):
            revs.append(int(rev))
    if not revs:
        raise Stale
    # Of several states only the newest can still be there: a rev never comes back.
    return max(revs)


def _number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 19


# -- problems --------------------------------------------------------------------------------------


def problem(error: Error, request_id: str, **more: Any) -> Answer:
    """Say an error as RFC 9457 wants it; ``type`` leads to its words on the page ``/docs``.

    Args:
        error: What is refused, or went wrong.
        request_id: To find it in the log.
        more: Members of its own.
    """
    document: dict[str, Any] = {
        "type": f"/docs#{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
        "request_id": request_id,
    }
    if isinstance(error, Invalid):
        document["errors"] = [
            {"pointer": one.pointer, "code": one.code, "detail": one.detail}
            for one in error.problems
        ]
    headers = list(_PROBLEM)
    if isinstance(error, Unauthenticated):
        headers.append((b"www-authenticate", b'Bearer realm="greffier"'))
    if error.retry_after is not None or isinstance(error, (Unavailable, RateLimited)):
        seconds = max(1, -int(-(error.retry_after or 1) // 1))
        headers.append((b"retry-after", b"%d" % seconds))
    return Answer(_encode({**document, **more}), error.status, headers)
