"""Events on their way to many sockets: encoded once, never waited for.

python-socketio's own ``emit`` makes a task and encodes the event again for each recipient, and
reaches a fifth of what Node's socket.io does.  Here the engine's packet is made once and put into
each socket's queue; the engine caches what it encoded.  This file alone knows the engine's insides.
"""

from __future__ import annotations

from typing import Any

import msgspec
import socketio
from engineio import packet

#: Events that wait for one socket; beyond that it falls back to catching up from its position.
QUEUE = 512

_encode = msgspec.json.Encoder().encode


class MsgspecJson:
    """The JSON of our sockets: texts made by PostgreSQL pass through as ``msgspec.Raw``."""

    @staticmethod
    def dumps(value: Any, **_: Any) -> str:
        """Write a value."""
        return _encode(value).decode()

    @staticmethod
    def loads(text: str | bytes, **_: Any) -> Any:
        """Read a value.

        Raises:
            ValueError: It is no JSON.
        """
        return msgspec.json.decode(text)


def event(name: str, body: bytes) -> packet.Packet:
    """Make the packet of an event on the namespace ``/``, whose argument is this JSON."""
    # 4: an engine.io message; 2: a socket.io event.
    return packet.Packet(packet.MESSAGE, data=f'2["{name}",{body.decode()}]')


class Wire:
    """The way to the sockets of one server."""

    def __init__(self, server: socketio.AsyncServer) -> None:
        self._server = server

    def send(self, sid: str, ready: packet.Packet) -> bool:
        """Put an event into a socket's queue, without waiting.

        Returns:
            Whether it was taken: not when the socket is gone, or too much waits for it.
        """
        socket = self._socket(sid)
        if socket is None or socket.closed:
            return False
        if socket.queue.qsize() >= QUEUE:
            return False
        socket.queue.put_nowait(ready)
        return True

    async def drained(self, sid: str) -> bool:
        """Wait until everything that waited for a socket was taken by its transport.

        Returns:
            Whether the socket is still there.
        """
        socket = self._socket(sid)
        if socket is None:
            return False
        await socket.queue.join()
        return not socket.closed

    def _socket(self, sid: str) -> Any:
        eio_sid = self._server.manager.eio_sid_from_sid(sid, "/")
        return self._server.eio.sockets.get(eio_sid) if eio_sid else None
