"""The wire to a server: requests, refusals as this package's errors, and read-your-writes."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import httpx2
import msgspec

from greffier.errors import CODES, Error, Invalid, Problem, Stale, Unavailable

#: Seconds for a connection, and for an answer to begin.
CONNECT, ANSWER = 10.0, 30.0

_encode = msgspec.json.Encoder().encode


class Unanswered(Unavailable):
    """No answer came: whether it was done is not known, and the same request may be made again."""


class _Me(msgspec.Struct):
    # A service is nobody.
    id: str | None


class _Fault(msgspec.Struct):
    pointer: str = ""
    code: str = ""
    detail: str = ""


class _Refusal(msgspec.Struct):
    code: str = ""
    detail: str | None = None
    errors: list[_Fault] = []


class Wire:
    """Calls to one server in one person's name.

    Each answer to a write carries a position; each later read sends it back, so that whatever
    answers it, a standby too, has what was written.
    """

    def __init__(self, url: str, token: str, *, transport: Any = None) -> None:
        """Describe the wire; connections are opened when they are needed.

        Args:
            url: Where the server is, with or without ``/v1``.
            token: A JWT or an API key.
            transport: Another way to the server, for tests.

        Raises:
            Invalid: The URL is none of a server.
        """
        self.url = _server(url)
        self.token = token
        #: What the last write was answered with.
        self.position: str | None = None
        self._me: _Me | None = None
        self.http = httpx2.AsyncClient(
            base_url=self.url,
            headers={"authorization": f"Bearer {token}", "accept": "application/json"},
            timeout=httpx2.Timeout(ANSWER, connect=CONNECT),
            transport=transport,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.http.aclose()

    async def get(self, path: str, form: Any, /, *, actor: str | None = None, **query: Any) -> Any:
        """Read something, on behalf of a user when there is an ``actor``.

        Raises:
            Error: The refusal, by its code.
            Unanswered: No answer came.
        """
        params = {k: _text(v) for k, v in query.items() if v is not None}
        headers = await self._acting(actor)
        if self.position is not None:
            headers["greffier-position"] = self.position
        answer = await self._call("GET", path, None, params=params, headers=headers)
        return msgspec.json.decode(answer.content, type=form)

    async def unchanged(
        self, path: str, form: Any, field: str, wanted: int | None, *, actor: str | None = None
    ) -> dict[str, str]:
        """Give the headers with which a write passes only over the state that its caller has seen.

        What is there is read for its ETag, whose inside is the server's: between this and the
        write nothing is promised, and If-Match refuses what came between.

        Args:
            path: What is to be changed.
            form: Its type.
            field: Which of its numbers counts its changes.
            wanted: The number the caller has seen; None is any.
            actor: For whom.

        Raises:
            Stale: It is no longer at that.
            Error: Another refusal, by its code.
            Unanswered: No answer came.
        """
        if wanted is None:
            return {}
        headers = await self._acting(actor)
        if self.position is not None:
            headers["greffier-position"] = self.position
        answer = await self._call("GET", path, None, params={}, headers=headers)
        if getattr(msgspec.json.decode(answer.content, type=form), field) != wanted:
            raise Stale
        return {"if-match": answer.headers["etag"]}

    async def write(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        actor: str | None = None,
        **query: Any,
    ) -> bytes:
        """Change something, and keep its position for the reads that follow.

        With an ``actor`` it is done on behalf of that user.

        Raises:
            Error: The refusal, by its code.
            Unanswered: No answer came; it may have been done.
        """
        params = {k: _text(v) for k, v in query.items() if v is not None}
        content = None if body is None else _encode(body)
        said = {**(headers or {}), **await self._acting(actor)}
        return (await self._call(method, path, content, params=params, headers=said)).content

    @contextlib.asynccontextmanager
    async def stream(
        self,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        actor: str | None = None,
        silence: float = ANSWER,
        **query: Any,
    ) -> AsyncIterator[httpx2.Response]:
        """Read something piece by piece, on behalf of a user when there is an ``actor``.

        Args:
            path: What.
            headers: Of the request.
            actor: For whom.
            silence: Seconds without a byte until the connection is dead.
            query: The query string; None is left out.

        Raises:
            Error: The refusal, by its code.
            Unanswered: No answer came, or it broke off.
        """
        params = {k: _text(v) for k, v in query.items() if v is not None}
        said = {**(headers or {}), **await self._acting(actor)}
        if self.position is not None:
            said["greffier-position"] = self.position
        try:
            async with self.http.stream(
                "GET", path, params=params, headers=_raw(said), timeout=silence
            ) as answer:
                if not answer.is_success:
                    raise refusal(answer.status_code, answer.headers, await answer.aread())
                yield answer
        except httpx2.TransportError as error:
            raise Unanswered(f"The answer broke off: {type(error).__name__}.") from error

    async def acting(self, actor: str | None) -> str | None:
        """Say for whom else; None is whom the token names: only a service acts for another."""
        return None if actor is None or actor == await self.me() else actor

    async def me(self) -> str | None:
        """Say whom the token names; a service is nobody, None."""
        if self._me is None:
            found = await self._call("GET", "/v1/me", None, params={}, headers={})
            self._me = msgspec.json.decode(found.content, type=_Me)
        return self._me.id

    async def _acting(self, actor: str | None) -> dict[str, str]:
        acting = await self.acting(actor)
        return {} if acting is None else {"greffier-act-as": acting}

    async def _call(
        self,
        method: str,
        path: str,
        content: bytes | None,
        *,
        params: dict[str, str],
        headers: dict[str, str],
    ) -> httpx2.Response:
        if content is not None:
            headers["content-type"] = "application/json"
        try:
            answer = await self.http.request(
                method, path, content=content, params=params, headers=_raw(headers)
            )
        except httpx2.TransportError as error:
            raise Unanswered(f"The server did not answer: {type(error).__name__}.") from error
        if (position := answer.headers.get("greffier-position")) is not None:
            self.position = position
        if not answer.is_success:
            raise refusal(answer.status_code, answer.headers, answer.content)
        return answer


def _server(url: str) -> str:
    try:
        parts = urlsplit(url)
        right = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1)
    except ValueError:
        right = False
    if not right:
        # Asked as it is it would never answer, and be asked for ever.
        detail = "A server is where https:// or http:// leads, and has a host."
        raise Invalid.at("/url", "url", detail)
    return url.rstrip("/").removesuffix("/v1")


def _raw(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    # A user's id stands in its header as it is, in UTF-8.
    return [(name.encode(), value.encode()) for name, value in headers.items()]


def refusal(status: int, headers: Mapping[str, str], body: bytes) -> Error:
    """Make the error that an answer stands for; what is no problem of ours goes by its status."""
    try:
        said = msgspec.json.decode(body, type=_Refusal)
    except msgspec.DecodeError:
        said = _Refusal()
    kind = CODES.get(said.code)
    if kind is None:
        # A proxy's word: 502, 503 and 504 say nothing of what became of the request.
        kind = Unanswered if status in (502, 503, 504) else _BY_STATUS.get(status, Error)
    if kind is Invalid:
        faults = tuple(Problem(one.pointer, one.code, one.detail) for one in said.errors)
        return Invalid(said.detail, problems=faults)
    return kind(said.detail, retry_after=_seconds(headers.get("retry-after")))


_BY_STATUS = {kind.status: kind for kind in reversed(CODES.values())}


def _seconds(text: str | None) -> float | None:
    return float(text) if text is not None and text.isascii() and text.isdigit() else None


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
