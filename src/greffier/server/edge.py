"""The edge: makes a call of each request, sends its answer, and turns what goes wrong into one.

One thin wrapper instead of a stack of middleware: request ids, problems, security, metrics and the
log line are all about the same moment, and each layer would cost every request again.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from asyncio import (
    FIRST_COMPLETED,
    CancelledError,
    Task,
    create_task,
    ensure_future,
    wait,
)
from collections.abc import AsyncIterator
from time import perf_counter
from typing import TYPE_CHECKING, Any

import socketio
from starlette.types import Message, Receive, Scope, Send
from structlog.typing import FilteringBoundLogger

from greffier.errors import CODES, Error, MethodNotAllowed, Unavailable
from greffier.server.answers import Answer, Stream, no_content, problem
from greffier.server.call import Call, ClientGone
from greffier.server.logs import safe_exception
from greffier.server.origins import Admitted, Origins, saying
from greffier.server.protocol import WHOLE, Whole
from greffier.server.sockets import Sockets
from greffier.server.table import Resource, Table

if TYPE_CHECKING:
    from greffier.publish.feed import Feed
    from greffier.publish.own import OwnFeeds
    from greffier.publish.signals import Signals
    from greffier.server.service import Service

#: What a caller may bring as X-Request-Id; anything else could write lines of its own into logs.
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
#: Small pieces of a stream are sent together: one message at a time is one write each.
_CHUNK = 64 << 10
_NONE: dict[str, Any] = {}
#: Of a request that no page of another origin may have sent.
_OURS = Admitted(())
#: In the log, for a caller who left before the answer (nginx's number).
_LEFT = 499


#: Where Socket.IO is spoken.
SOCKETS = "/socket.io/"


class Edge:
    """The ASGI application."""

    def __init__(
        self,
        service: Service,
        resources: list[Resource],
        log: FilteringBoundLogger,
        origins: Origins | None = None,
    ) -> None:
        self.service = service
        self._origins = origins
        self._table = Table(resources)
        self._log = log
        self.sockets = Sockets(service)
        self._sockets_app = socketio.ASGIApp(self.sockets.server)
        self._prefix = secrets.token_hex(6)
        self._count = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        # Taken out, or the request would hold on to itself until somebody looks for garbage.
        whole: Whole | None = scope.get("state", _NONE).pop(WHOLE, None)
        admitted = _OURS
        if self._origins is not None and scope["type"] != "lifespan":
            admitted = self._origins.admit(scope)
        if scope["type"] != "lifespan" and scope["path"].startswith(SOCKETS) and not admitted.asks:
            said = saying(send, admitted.headers) if admitted.headers else send
            await self._sockets_app(scope, receive, said)
            return
        if scope["type"] != "http":
            await _not_http(scope, receive, send)
            return
        began = perf_counter()
        call = Call(self.service, scope, receive, self._request_id(scope))
        error: BaseException | None = None
        try:
            try:
                if self.service.local is not None:
                    self.service.local.guard(call)
                if admitted.asks:
                    call.answer = no_content()
                else:
                    call.resource, values = self._table.find(scope)
                    await call.resource.serve(call, values)
            except Error as refusal:
                call.answer = self._refuse(call, refusal)
            except ClientGone:
                call.answer = None
            except Exception as unexpected:  # noqa: BLE001 - the last place that can tell anybody
                error = unexpected
                call.answer = self._refuse(call, Error())
            answer = call.answer
            if answer is not None and (call.extra or admitted.headers):
                answer.headers += (*call.extra, *admitted.headers)
            if isinstance(answer, Stream):
                error = await self._stream(call, answer, send)
            elif answer is not None:
                await self._send(call, answer, send, whole)
        finally:
            self._note(call, perf_counter() - began, error)

    def live(self) -> tuple[Feed, OwnFeeds, Signals, Sockets]:
        """What has a life of its own: whoever serves runs them."""
        service = self.service
        return service.feed, service.own, service.signals, self.sockets

    async def say_goodbye(self) -> None:
        """Let those who follow come back elsewhere: an open stream would be waited for."""
        self.service.feed.close()
        self.service.own.close()
        self.service.runs.close()
        if self.service.work is not None:
            self.service.work.stop()
        await self.sockets.close()

    def _request_id(self, scope: Scope) -> str:
        for name, value in scope["headers"]:
            if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
                return str(value, "ascii")
        self._count += 1
        return f"{self._prefix}-{self._count}"

    def _refuse(self, call: Call, error: Error) -> Answer:
        if error.code not in CODES:
            # Not the caller's to know: the private PostgreSQL does not start again, say.
            self._log.error(
                "unavailable", request_id=call.request_id, code=error.code, detail=error.detail
            )
            error = Unavailable(retry_after=5)
        answer = problem(error, call.request_id)
        if isinstance(error, MethodNotAllowed) and call.resource is not None:
            answer.headers.append((b"allow", call.resource.allow.encode()))
        return answer

    async def _send(self, call: Call, answer: Answer, send: Send, whole: Whole | None) -> None:
        body = answer.body
        headers = answer.headers
        headers.append((b"x-request-id", call.request_id.encode()))
        if answer.status not in (204, 304):
            headers.append((b"content-length", b"%d" % len(body)))
        if call.method == "HEAD":
            body = b""
        call.sent = len(body)
        if whole is not None and whole(answer.status, headers, body):
            return
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _stream(self, call: Call, answer: Stream, send: Send) -> BaseException | None:
        """Send a stream, and give up when the caller leaves.

        What fails half-way leaves the answer unfinished, and the connection is then broken: the
        caller must not take a part for the whole.

        Returns:
            What failed.
        """
        answer.headers.append((b"x-request-id", call.request_id.encode()))
        gone = create_task(_until_gone(call.receive))
        try:
            await send(
                {"type": "http.response.start", "status": answer.status, "headers": answer.headers}
            )
            if call.method == "HEAD":
                await send({"type": "http.response.body", "body": b""})
                return None
            chunks = _until(gone, answer.pieces) if answer.live else _chunks(answer.pieces)
            async for chunk in chunks:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
                if gone.done():
                    return ClientGone()
                call.sent += len(chunk)
            if gone.done():
                return ClientGone()
            await send({"type": "http.response.body", "body": b""})
        except Exception as error:  # noqa: BLE001 - logged by the caller of this
            return error
        finally:
            gone.cancel()
            # Lets go of the snapshot now, not when the garbage is collected.
            await answer.close()
        return None

    def _note(self, call: Call, seconds: float, error: BaseException | None) -> None:
        route = call.route
        answer = call.answer
        status = _LEFT if answer is None or isinstance(error, ClientGone) else answer.status
        path = "none" if route is None else route.path
        method = call.method if call.method in _METHODS else "other"
        slow = route is not None and route.alert_after is not None and seconds > route.alert_after
        self.service.metrics.request(path, method, status, seconds)
        if slow:
            self.service.metrics.slow_page()
        more: dict[str, Any] = {"slow": True} if slow else {}
        if call.key is not None:
            more["key"] = call.key
        say = self._log.warning if slow else self._log.info
        if error is not None and not isinstance(error, ClientGone):
            say = self._log.error
            more["exception"] = safe_exception(error)
        say(
            "request",
            method=method,
            route=path,
            status=status,
            ms=round(seconds * 1000, 2),
            user=call.user_id,
            bytes=call.sent,
            request_id=call.request_id,
            **more,
        )


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _chunks(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    held: list[bytes] = []
    size = 0
    async for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size >= _CHUNK:
            yield b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)


async def _until(gone: Task[None], pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Pass pieces on as they come, and stop waiting for the next when the caller has left."""
    while not gone.done():
        piece = ensure_future(anext(pieces))
        try:
            await wait({piece, gone}, return_when=FIRST_COMPLETED)
            if not piece.done():
                return
            yield piece.result()
        except StopAsyncIteration:
            return
        finally:
            if not piece.done():
                piece.cancel()
                with contextlib.suppress(CancelledError, StopAsyncIteration):
                    await piece


async def _not_http(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1000})
        return
    while True:
        message: Message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
