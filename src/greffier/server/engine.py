"""The library's Socket.IO server, held against what clients send and against how they leave.

python-socketio takes every frame for one of a client of its own: one that is no packet ends in a
traceback, an event named ``connect`` runs the handler of connections with what the client wrote for
the request, and whoever hangs up while they are let in stays for ever.  This file and ``packets``
alone know the insides of the library and its engine.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import engineio
import socketio
from engineio.async_drivers import asgi
from socketio import packet
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from greffier.server.packets import Acknowledgement, Outbox, Pieces, written

#: Seconds in which a connection says who it is; one that does not, or was sent away, is ended.
STRANGER = 45.0
#: Seconds after its end in which a connection closes; one whose client reads nothing is cut then,
#: for as long as that one's kernel answers TCP would wait for it.
LINGER = 5.0

#: What the library handles itself; Node's server takes these from no client either.
_RESERVED = frozenset(
    {"connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"}
)
#: What of the engine a client sends besides messages.
_CONTROL = frozenset({"1", "2", "3", "5", "6", "2probe", "3probe"})


class Server(socketio.AsyncServer):  # type: ignore[misc]  # the library has no types
    """The library's server; answers in pieces go out as they are."""

    def __init__(self, **options: Any) -> None:
        log = logging.getLogger("greffier.sockets")
        # Given none, each of the two libraries writes to standard error, words and all.
        log.setLevel(logging.ERROR)
        log.addFilter(_of_ours)
        super().__init__(**options, logger=log, engineio_logger=log)
        self._strangers: dict[str, asyncio.TimerHandle] = {}
        self.eio.create_queue = Outbox
        self.eio._async = {**self.eio._async, "websocket": _WebSocket}  # noqa: SLF001

    def _engineio_server_class(self) -> type[_Engine]:
        return _Engine

    async def hang_up(self, eio_sid: str) -> None:
        """End a connection as a broken network would: its client comes back by itself.

        The library's own ``disconnect`` tells it to stay away.
        """
        socket = self.eio.sockets.get(eio_sid)
        if socket is None or socket.closed:
            return
        # Without a word of goodbye, and without waiting for a slow client.
        await socket.close(wait=False, abort=True)
        # The writer ends behind what waits, and with it the WebSocket; or the poll that waits.
        socket.queue.put_nowait(None)

    # -- what comes ----------------------------------------------------------------------------

    async def _handle_eio_message(self, eio_sid: str, data: Any) -> None:
        try:
            sent = read(data)
        except ValueError:
            await self.hang_up(eio_sid)
            return
        if sent.packet_type == packet.CONNECT:
            await self._handle_connect(eio_sid, sent.namespace, sent.data)
        elif sent.packet_type == packet.DISCONNECT:
            await self._handle_disconnect(eio_sid, sent.namespace)
        elif sent.packet_type == packet.EVENT:
            await self._handle_event(eio_sid, sent.namespace, sent.id, sent.data)
        # Else an acknowledgement, and we ask for none.

    async def _send_packet(self, eio_sid: str, pkt: Any) -> None:
        if pkt.packet_type == packet.ACK and pkt.data:
            (answer,) = pkt.data
            if isinstance(answer, Pieces):
                socket = self.eio.sockets.get(eio_sid)
                if socket is not None and not socket.closed:
                    ready = Acknowledgement(pkt.id, answer)
                    if not written(socket, ready):
                        socket.queue.put_nowait(ready)
                return
        await super()._send_packet(eio_sid, pkt)

    # -- who comes and goes --------------------------------------------------------------------

    async def _handle_eio_connect(self, eio_sid: str, environ: dict[str, Any]) -> None:
        await super()._handle_eio_connect(eio_sid, environ)
        self._expect(eio_sid)

    async def _handle_connect(self, eio_sid: str, namespace: str | None, data: Any) -> None:
        if eio_sid not in self.environ:
            return
        await super()._handle_connect(eio_sid, namespace, data)
        if eio_sid in self.environ:
            self._expect(eio_sid)
        else:
            # Gone while it was let in: the library tells nobody, since it was not in yet.
            await self._handle_disconnect(eio_sid, namespace, self.reason.TRANSPORT_CLOSE)

    async def _handle_disconnect(
        self, eio_sid: str, namespace: str | None, reason: str | None = None
    ) -> None:
        await super()._handle_disconnect(eio_sid, namespace, reason)
        self._expect(eio_sid)

    async def disconnect(self, sid: str, namespace: str | None = None, **how: Any) -> None:
        """Send a client away; should it not go, it is cut off."""
        eio_sid = self.manager.eio_sid_from_sid(sid, namespace or "/")
        await super().disconnect(sid, namespace, **how)
        if eio_sid is not None:
            self._expect(eio_sid)

    async def _handle_eio_disconnect(self, eio_sid: str, reason: str) -> None:
        socket = self.eio.sockets.get(eio_sid)
        protocol = getattr(socket, "protocol", None)
        await super()._handle_eio_disconnect(eio_sid, reason)
        if (waited_for := self._strangers.pop(eio_sid, None)) is not None:
            waited_for.cancel()
        if protocol is not None:
            # The engine keeps the socket until its next ping would be due; not its connection too.
            socket.protocol = None
            asyncio.get_running_loop().call_later(LINGER, _cut, protocol.transport)

    def _expect(self, eio_sid: str) -> None:
        """End a connection in a while, if it has not come in by then."""
        if (before := self._strangers.pop(eio_sid, None)) is not None:
            before.cancel()
        if eio_sid in self.environ and self.manager.sid_from_eio_sid(eio_sid, "/") is None:
            self._strangers[eio_sid] = asyncio.get_running_loop().call_later(
                STRANGER, self._turn_out, eio_sid
            )

    def _turn_out(self, eio_sid: str) -> None:
        del self._strangers[eio_sid]
        if self.manager.sid_from_eio_sid(eio_sid, "/") is None:
            self.start_background_task(self.hang_up, eio_sid)


def read(data: Any) -> packet.Packet:
    """Read what a client sent.

    Raises:
        ValueError: It is no packet, or none that is a client's to send here.
    """
    if not isinstance(data, str):
        raise ValueError("We take nothing binary.")  # noqa: TRY004 - a value, as the others are
    try:
        found = packet.Packet(encoded_packet=data)
    except (RecursionError, IndexError) as error:
        raise ValueError("It is no packet.") from error
    if found.packet_type not in (packet.CONNECT, packet.DISCONNECT, packet.EVENT, packet.ACK):
        raise ValueError("It is no packet of a client.")
    if found.packet_type == packet.EVENT and not _is_event(found.data):
        raise ValueError("It is no event of a client.")
    return found


def _is_event(data: Any) -> bool:
    # A name first, then what it brings.
    return (
        isinstance(data, list)
        and len(data) > 0
        and isinstance(data[0], str)
        and data[0] not in _RESERVED
    )


def _cut(transport: asyncio.Transport) -> None:
    if not transport.is_closing():
        transport.abort()


def _of_ours(record: logging.LogRecord) -> bool:
    """Leave out of the log what a client did wrong."""
    return record.msg != "post request handler error"


class _Engine(engineio.AsyncServer):  # type: ignore[misc]  # the engine has no types
    """The engine, which waits for no client that does not read, and blames us for none."""

    async def disconnect(self, sid: str | None = None) -> None:
        """End a socket now: the engine's own waits until all that is queued for it was taken."""
        socket = self.sockets.pop(sid, None)
        if socket is not None:
            await socket.close(wait=False, reason=self.reason.SERVER_DISCONNECT)

    def _log_error_once(self, message: str, message_key: str) -> None:
        """Say nothing: it is the caller's mistake, and the answer says so."""


class _WebSocket(asgi.WebSocket):  # type: ignore[misc]  # the engine has no types
    """The engine's WebSocket, which its socket knows how to write to."""

    async def __call__(self, environ: dict[str, Any]) -> Any:
        # Of uvicorn's protocol; under another server, or compressed, there is only the queue.
        protocol = getattr(environ["asgi.send"], "__self__", None)
        if isinstance(protocol, WebSocketsSansIOProtocol) and not protocol.conn.extensions:
            self.handler.__self__.protocol = protocol
        return await super().__call__(environ)

    async def wait(self) -> str | None:
        """Take what comes next; None, as from who hung up, when it is nothing of the protocol."""
        sent = await super().wait()
        if not isinstance(sent, str):
            return None
        # 4: a message, whose first character says what it is of Socket.IO.
        return sent if sent in _CONTROL or (sent[:1] == "4" and sent[1:2] in _DIGITS) else None


_DIGITS = frozenset("0123456789")
