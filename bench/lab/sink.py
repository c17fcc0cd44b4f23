"""A receiver that takes everything: HTTP by hand, so that it costs less than whoever sends.

    python sink.py

It says where it listens, and answers every request with 200 and nothing.
"""

from __future__ import annotations

import asyncio
from typing import cast

import httptools
import uvloop

_OK = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


class Sink(asyncio.Protocol):
    """One connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to read."""
        # uvloop's is none of asyncio's classes.
        self._transport = cast("asyncio.Transport", transport)
        self._parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        """Read some of a request."""
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        """Take it."""
        self._transport.write(_OK)


async def main() -> None:
    """Take requests until it is ended."""
    server = await asyncio.get_running_loop().create_server(Sink, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    print(f"listens on http://{host}:{port}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
