"""How long a client may take, and how large the head of a request may be.

Uvicorn waits for ever for the rest of a request, and for its answer to be taken; its parser
collects a header for as long as it goes on.  A caller that sends a byte a minute keeps a
connection, one that reads nothing keeps an export's snapshot, one that sends a header of a gigabyte
fills the memory, and two of them need not say who they are.  What comes whole in one piece and is
taken in one, as nearly all is, pays for this by a look and sets no timer.
"""

from __future__ import annotations

import secrets
from asyncio import TimerHandle, Transport
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from greffier.errors import BadRequest, Error, HeadersTooLarge, RequestTimeout
from greffier.model.limits import DEFAULT
from greffier.server.answers import problem

if TYPE_CHECKING:
    from uvicorn._types import HTTPScope

#: The default of the setting.
CLIENT_SECONDS = 60.0


class Bounded(HttpToolsProtocol):
    """One connection whose requests are here in time, with heads that end, and answers taken.

    What does not keep to it is told so as any refusal is, and hung up on: where its next request
    would begin, nobody knows.
    """

    # Uvicorn does not say that there is neither at first.
    scope: HTTPScope | None  # type: ignore[assignment]
    cycle: RequestResponseCycle | None  # type: ignore[assignment]

    def __init__(
        self,
        *args: Any,
        client_seconds: float = CLIENT_SECONDS,
        limit_head: int = DEFAULT.head,
        **more: Any,
    ) -> None:
        """Take uvicorn's arguments.

        Args:
            args: For uvicorn.
            client_seconds: From a request's first byte to its last, to the first one of all, and
                until some of an answer that waits is taken.
            limit_head: Bytes of a request's first line and its headers.
            more: For uvicorn.
        """
        super().__init__(*args, **more)
        self._seconds = client_seconds
        self._most = limit_head
        #: Bytes of pieces that ended inside the same head.
        self._came = 0
        self._piece = 0
        self._timer: TimerHandle | None = None
        self._refusal: Error | None = None
        #: While an answer waits to be taken: when to look again, and how much waited.
        self._stuck: TimerHandle | None = None
        self._untaken = 0

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._timer = self.loop.call_later(self._seconds, self._late)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._stop_timer()
        self._taken()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take a piece, and wait for the rest if it does not end a request."""
        self._piece = len(data)
        super().data_received(data)
        scope, cycle = self.scope, self.cycle
        if cycle is not None and cycle.scope is scope and not cycle.more_body:
            self._came = 0
            if self._timer is not None:
                self._stop_timer()
        elif self.transport.is_closing() or self.transport.get_protocol() is not self:
            # Refused, or a socket from here on.
            self._stop_timer()
        else:
            self._wait_for_the_rest(in_head=cycle is None or cycle.scope is not scope)

    def _wait_for_the_rest(self, *, in_head: bool) -> None:
        # The piece in which a head begins may hold the end of another request, and is not counted:
        # what the parser keeps of an endless head is the limit and one read of the socket.
        self._came = self._came + self._piece if in_head and self._came else int(in_head)
        if self._came > self._most:
            self._refuse(self._too_large())
        elif self._timer is None:
            self._timer = self.loop.call_later(self._seconds, self._late)

    def on_headers_complete(self) -> None:
        """Begin to answer, unless the head is too large."""
        # Measured only when it could be too large: the pieces it came in were.
        if self._came + self._piece > self._most:
            head = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            if head > self._most:
                self._refusal = self._too_large()
                # The parser makes a fault of the request's of it, and uvicorn answers that.
                raise self._refusal
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer a request that is none, in the form of every other refusal."""
        self._refuse(self._refusal or BadRequest())

    # -- answers -----------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        """Let the application wait until what it wrote is taken, and see that some is."""
        super().pause_writing()
        self._look_whether_taken()

    def resume_writing(self) -> None:
        """Let it write on."""
        self._taken()
        super().resume_writing()

    def _look_whether_taken(self) -> None:
        waits = self.transport.get_write_buffer_size()
        if self._stuck is not None and waits >= self._untaken:
            # Not closed: that would wait until all is taken.
            self.transport.abort()
            return
        self._untaken = waits
        self._stuck = self.loop.call_later(self._seconds, self._look_whether_taken)

    def _taken(self) -> None:
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None

    # -- refusals ----------------------------------------------------------------------------------

    def _too_large(self) -> HeadersTooLarge:
        return HeadersTooLarge(
            f"The headers are larger than {self._most} bytes, which is this server's limit."
        )

    def _late(self) -> None:
        """Refuse what is not here by now."""
        self._timer = None
        if self.flow.read_paused:
            # It is us who do not read: an answer before it is under way, or its body is not taken.
            self._timer = self.loop.call_later(self._seconds, self._late)
        elif self.scope is None:
            self.transport.close()
        else:
            self._refuse(
                RequestTimeout(f"The request was not here whole within {self._seconds:g} seconds.")
            )

    def _refuse(self, error: Error) -> None:
        self._stop_timer()
        cycle = self.cycle
        begun = cycle is not None and cycle.scope is self.scope
        if cycle is None:
            waits = True
        elif cycle.response_complete:
            # Unless it had its answer before it was whole.
            waits = not (begun and cycle.more_body)
        else:
            # Not inside the answer to another, nor before it.
            waits = begun and not cycle.response_started and not self.pipeline
        if waits:
            self._say(error)
        if cycle is not None and not cycle.response_complete:
            # Whoever waits for the rest of its body is told that it does not come.
            cycle.disconnected = True
            cycle.message_event.set()
        self.transport.close()

    def _say(self, error: Error) -> None:
        request_id = secrets.token_hex(9)
        answer = problem(error, request_id)
        headers = [
            *answer.headers,
            (b"x-request-id", request_id.encode()),
            (b"content-length", b"%d" % len(answer.body)),
            (b"connection", b"close"),
        ]
        lines = [b"%b: %b\r\n" % one for one in (*self.server_state.default_headers, *headers)]
        self.transport.write(b"".join((STATUS_LINE[answer.status], *lines, b"\r\n", answer.body)))
        self.logger.warning("refused a request that did not come whole: %s", error.code)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
