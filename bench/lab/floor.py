"""The floor of an answer over HTTP: Starlette and uvicorn, set as ours are, with the bytes at hand.

    python floor.py ANSWER    # a file: header lines, an empty line, the body

It says where it listens, and answers every GET with that.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


def application(answer: bytes) -> Starlette:
    """Make the application."""
    head, _, body = answer.partition(b"\r\n\r\n")
    pairs = (line.partition(b": ") for line in head.split(b"\r\n"))
    headers = [(name.lower(), text) for name, _, text in pairs]

    async def page(_request: Request) -> Response:
        response = Response(body)
        response.raw_headers = list(headers)
        return response

    async def ready(_request: Request) -> Response:
        return Response(b"{}")

    path = "/v1/conversations/{conversation_id}/messages"
    return Starlette(routes=[Route(path, page), Route("/readyz", ready)])


async def main(answer: bytes) -> None:
    """Serve until it is ended."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    print(f"listens on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    config = uvicorn.Config(
        application(answer), http="httptools", ws="none", lifespan="off", access_log=False,
        log_config=None, server_header=False, proxy_headers=False, backlog=2048,
        timeout_keep_alive=75,
    )  # fmt: skip
    await uvicorn.Server(config).serve(sockets=[listener])


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1]).read_bytes()))
