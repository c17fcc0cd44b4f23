"""What a worker says of itself over HTTP: that it lives, and what it measures; nobody is served."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

import uvicorn

from greffier.server.metrics import Metrics

_Scope: TypeAlias = MutableMapping[str, Any]
_Receive: TypeAlias = Callable[[], Awaitable[_Scope]]
_Send: TypeAlias = Callable[[_Scope], Awaitable[None]]

#: Seconds that a request under way has when the worker has stopped.
GRACE = 1


class Measured:
    """The application that tells it; nothing that anybody said is in it."""

    def __init__(self, metrics: Metrics) -> None:
        """Take what is measured."""
        self._metrics = metrics

    async def __call__(self, scope: _Scope, _receive: _Receive, send: _Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        status, body, media = 200, b'{"status":"alive"}', "application/json"
        if scope["path"] == "/metrics":
            accept = dict(scope["headers"]).get(b"accept", b"").decode("latin-1")
            await self._metrics.refresh()
            body, media = self._metrics.exposition(accept)
        elif scope["path"] != "/healthz":
            status, body, media = 404, b"A worker has /metrics and /healthz.\n", "text/plain"
        headers = [
            (b"content-type", media.encode()),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        said = b"" if scope["method"] == "HEAD" else body
        await send({"type": "http.response.body", "body": said})


class _Uvicorn(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        # They are the worker's own.
        yield


@contextlib.asynccontextmanager
async def measuring(listener: socket.socket | None, metrics: Metrics) -> AsyncIterator[None]:
    """Tell it beside a block, on a socket that listens; without one nobody is told."""
    if listener is None:
        yield
        return
    server = _Uvicorn(
        uvicorn.Config(
            Measured(metrics),
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=GRACE,
        )
    )
    metrics.up.set(1)
    serving = asyncio.get_running_loop().create_task(server.serve(sockets=[listener]))
    try:
        yield
    finally:
        metrics.up.set(0)
        server.should_exit = True
        await asyncio.wait({serving})
