"""The floors of fan-out: whatever is posted to /say is sent to every socket.

    python broadcast.py plain       # Starlette's WebSockets
    python broadcast.py socketio    # python-socketio as it comes, emit to a room

On uvicorn, set as ours is.  It says where it listens.
"""

from __future__ import annotations

import json
import socket
import sys
from typing import Any

import socketio
import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect


async def ready(_request: Request) -> Response:
    """Say that it is there."""
    return Response(b"{}")


def plain() -> Any:
    """Starlette's own WebSockets: one send after the other."""
    sockets: set[WebSocket] = set()

    async def listen(one: WebSocket) -> None:
        await one.accept()
        sockets.add(one)
        try:
            while True:
                await one.receive_text()
        except WebSocketDisconnect:
            sockets.discard(one)

    async def say(request: Request) -> Response:
        text = (await request.body()).decode()
        for one in list(sockets):
            await one.send_text(text)
        return Response(b"{}")

    return Starlette(
        routes=[
            WebSocketRoute("/listen", listen),
            Route("/say", say, methods=["POST"]),
            Route("/readyz", ready),
        ]
    )


def stock() -> Any:
    """python-socketio with its defaults: ``emit`` to a room."""
    server = socketio.AsyncServer(async_mode="asgi", cors_allowed_origins=[])

    async def connect(sid: str, _environ: Any, _auth: Any = None) -> None:
        await server.enter_room(sid, "room")

    server.on("connect", connect)

    async def say(request: Request) -> Response:
        # What comes is the packet: 42["change",{…}].
        name, data = json.loads((await request.body())[2:])
        await server.emit(name, data, room="room")
        return Response(b"{}")

    return socketio.ASGIApp(
        server, Starlette(routes=[Route("/say", say, methods=["POST"]), Route("/readyz", ready)])
    )


async def main(kind: str) -> None:
    """Serve until it is ended."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    print(f"listens on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    config = uvicorn.Config(
        plain() if kind == "plain" else stock(), http="httptools", ws="websockets-sansio",
        ws_per_message_deflate=False, ws_max_size=64 << 10, lifespan="off", access_log=False,
        log_config=None, server_header=False, proxy_headers=False, backlog=2048,
        timeout_keep_alive=75, timeout_graceful_shutdown=1,
    )  # fmt: skip
    await uvicorn.Server(config).serve(sockets=[listener])


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
