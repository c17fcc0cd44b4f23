"""One HTTP request that tells, whatever happens, how far it came.

``httpx2`` says what an exception was, not whether the far side could have the request.  The core
below it says when a request's body begins to be written (the ``trace`` extension): before that
nothing can have been taken for the message, after it anything can.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpcore2
import httpx2

from greffier._version import __version__
from greffier.deliver.channels.addresses import ForbiddenTarget
from greffier.deliver.channels.protocol import Outcome, Result

USER_AGENT = f"Greffier/{__version__}"
#: Seconds that an answer's body may take once its status is known, which is what counts.
GRACE = 1.0
#: Bytes of a body that nobody wants: read so that the connection can be used again.
DRAIN = 16 << 10
#: Seconds that a connection is kept after a request: less than servers keep theirs (Gunicorn 2,
#: Node, Uvicorn and Apache 5), or one that is closed just as we write makes a message uncertain.
KEPT = 1.5
#: Seconds that a far side may name: longer is no wish but a mistake.
LONGEST_WAIT = 31 * 86400.0


@dataclass(frozen=True, slots=True)
class Answer:
    """The far side answered.

    Attributes:
        status: What with.
        headers: By their names in small letters.
        body: As much of it as was wanted and came in time.
        whole: Whether that is all of it.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    whole: bool


@dataclass(frozen=True, slots=True)
class Silence:
    """The far side did not answer.

    Attributes:
        begun: Whether it may have the request, or part of it.
        detail: What happened.
        retryable: Whether it may be otherwise later.
    """

    begun: bool
    detail: str
    retryable: bool = True

    @property
    def result(self) -> Result:
        """What that means for a message."""
        outcome: Outcome = "uncertain" if self.begun else "not_sent"
        return Result(outcome, self.detail, retryable=self.retryable)


class _Progress:
    """How far a request has come."""

    begun = False

    async def __call__(self, event: str, _info: Mapping[str, Any]) -> None:
        if event == "http11.send_request_body.started":
            self.begun = True


@functools.cache
def _system_trust() -> ssl.SSLContext:
    """The system's authorities, read once: that takes 20 ms."""
    return httpcore2.default_ssl_context()


def pool(
    network: httpcore2.AsyncNetworkBackend,
    tls: ssl.SSLContext | None = None,
    *,
    connections: int = 256,
    idle: int = 64,
) -> httpcore2.AsyncConnectionPool:
    """Make a pool of connections, all of which are opened by ``network``.

    Args:
        network: Opens them.
        tls: Whom to trust; the system's authorities when nothing is said.
        connections: How many there may be; who comes later waits, within their timeout.
        idle: How many are kept after their request, for a moment.
    """
    return httpcore2.AsyncConnectionPool(
        ssl_context=tls or _system_trust(),
        max_connections=connections,
        max_keepalive_connections=idle,
        keepalive_expiry=KEPT,
        network_backend=network,
    )


async def post(
    connections: httpcore2.AsyncConnectionPool,
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    timeout: float,  # noqa: ASYNC109 - what a channel is given
    wanted: int = 0,
) -> Answer | Silence:
    """Send a request, once, and wait for its answer.

    ``timeout`` is for all of it: name, connection, request and answer.  An answer counts from its
    status on; a body that is endless, slow or broken off takes nothing back.

    Args:
        connections: Where to take a connection from.
        url: Where to; it was checked.
        headers: What to say besides Host, User-Agent and Content-Length.
        body: What to send.
        timeout: Seconds.
        wanted: Bytes of the answer's body to return.
    """
    goal = httpx2.URL(url)
    # The core would write an IPv6 address without its brackets.
    said = {"Host": goal.netloc.decode("ascii"), "User-Agent": USER_AGENT, **headers}
    progress, answer = _Progress(), None
    try:
        async with (
            asyncio.timeout(timeout) as limit,
            connections.stream(
                "POST",
                httpcore2.URL(
                    scheme=goal.raw_scheme,
                    host=goal.raw_host,
                    port=goal.port,
                    target=goal.raw_path,
                ),
                headers=list(said.items()),
                content=body,
                extensions={"trace": progress, "timeout": {"connect": timeout}},
            ) as response,
        ):
            found = {
                name.decode("latin-1").lower(): value.decode("latin-1")
                for name, value in response.headers
            }
            answer = Answer(response.status, found, b"", whole=False)
            content, whole = await _read(response, max(wanted, DRAIN))
            answer = Answer(response.status, found, content[:wanted], whole)
    except ForbiddenTarget:
        # Not which address: a name of our own network would be told to who only guessed it.
        return Silence(
            begun=False, detail="The target's name leads to a private address.", retryable=False
        )
    except Exception as error:  # noqa: BLE001 - a parser can be made to raise anything
        if answer is None:
            late = isinstance(error, TimeoutError) and limit.expired()
            detail = f"No answer within {timeout:g} s." if late else _why(error, progress)
            return Silence(progress.begun, detail)
    return answer


async def _read(response: httpcore2.Response, most: int) -> tuple[bytes, bool]:
    """Read a body, up to a length and for a moment: what comes then is closed on."""
    content = bytearray()
    try:
        async with (
            asyncio.timeout(GRACE),
            contextlib.aclosing(response.aiter_stream()) as pieces,
        ):
            async for piece in pieces:
                content += piece
                if len(content) > most:
                    return bytes(content), False
    except TimeoutError:
        return bytes(content), False
    return bytes(content), True


def _why(error: BaseException, progress: _Progress) -> str:
    """Say what kept a request from being answered, in the words of who noticed."""
    place = "after" if progress.begun else "before"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"Its certificate is not valid: {cause.verify_message}."
        if isinstance(cause, ssl.SSLError):
            return f"TLS failed: {cause.reason or cause.strerror}."
        if isinstance(cause, OSError) and (words := system_words(cause)):
            return f"Failed {place} the request was sent: {words}."
        cause = cause.__cause__ or cause.__context__
    shown = f": {error}" if str(error) else ""
    return f"Failed {place} the request was sent: {type(error).__name__}{shown}."


def system_words(error: OSError) -> str:
    """Say what the system said, without the address that asyncio puts into its place."""
    number = error.errno or 0
    # Resolvers have numbers of their own, below zero.
    return os.strerror(number) if number > 0 else error.strerror or ""


_SECONDS = re.compile(r"[0-9]{1,9}")


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Read Retry-After, in seconds or as a date; None where it says nothing that can be read."""
    value = headers.get("retry-after", "").strip()
    if _SECONDS.fullmatch(value):
        return min(float(value), LONGEST_WAIT)
    try:
        at = parsedate_to_datetime(value)
        # "-0000" reads as a time of nowhere; HTTP knows GMT only.
        seconds = (at if at.tzinfo else at.replace(tzinfo=UTC)) - now
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return min(max(seconds.total_seconds(), 0.0), LONGEST_WAIT)
