"""HTTP as uvicorn speaks it, with the head of an answer and its body sent as one.

Uvicorn writes them one after the other, and uvloop sends what it is given at once: two calls of the
kernel and two wake-ups of whoever reads, a tenth of a short answer's time on both sides.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

#: Larger bodies are passed on as they are: copying one costs more than a call.
_JOINED = 64 << 10


class Joined(asyncio.Transport):
    """A transport that holds a piece back, for a turn of the loop at most, to send two at once."""

    def __init__(self, inner: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.inner = inner
        self._loop = loop
        self._held: bytes = b""

    def write(self, data: Any) -> None:
        """Send what is held with this, or hold this."""
        held, self._held = self._held, b""
        if not held:
            self._held = data
            # Whatever comes next, or nothing: a stream's head goes before its first event.
            self._loop.call_soon(self.flush)
        elif len(data) < _JOINED:
            self.inner.write(held + data)
        else:
            self.inner.writelines((held, data))

    def flush(self) -> None:
        """Send what is held."""
        held, self._held = self._held, b""
        if held and not self.inner.is_closing():
            self.inner.write(held)

    def close(self) -> None:
        """Send what is held, and close when all is sent."""
        self.flush()
        self.inner.close()

    def is_closing(self) -> bool:
        """Say whether it is closed or about to be."""
        return self.inner.is_closing()


class Protocol(HttpToolsProtocol):
    """One connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin; flow is controlled on the connection itself."""
        super().connection_made(transport)
        self.transport = Joined(transport, self.loop)

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection over as it is: what comes now are frames, each a write of its own."""
        joined = self.transport
        assert isinstance(joined, Joined)
        joined.flush()
        self.transport = joined.inner
        super().handle_websocket_upgrade()
