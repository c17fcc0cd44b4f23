"""HTTP as uvicorn speaks it, with an answer that is whole sent as one.

Uvicorn takes the head of an answer and its body by two calls and writes each at once: two calls of
the kernel and two wake-ups of whoever reads, and between them it looks at each header by two
regular expressions and once more for what it means.  All that was a sixth of a page's time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeAlias, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from greffier.server.bounds import Bounded

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application

    from greffier.server.service import Service

#: Sends an answer whose headers say its length; False when it has to go the ordinary way.
Whole: TypeAlias = Callable[[int, Sequence[tuple[bytes, bytes]], bytes], bool]

#: Where the application finds it, in the state of its scope.
WHOLE = "greffier.whole"
#: Larger bodies are passed on as they are: copying one costs more than a call.
_JOINED = 64 << 10


class Protocol(Bounded):
    """One connection."""

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        cycle.scope["state"][WHOLE] = partial(_whole, cycle)
        super()._start_asgi_task(cycle, app)


def bounded(service: Service) -> type[Protocol]:
    """Give a service's protocol, with the bounds of its settings."""
    made = partial(Protocol, client_seconds=service.client_seconds, limit_head=service.limits.head)
    # Uvicorn wants a class, and does nothing with it but call it.
    return cast("type[Protocol]", made)


def _whole(
    cycle: RequestResponseCycle,
    status: int,
    headers: Sequence[tuple[bytes, bytes]],
    body: bytes,
) -> bool:
    """Send an answer (``Whole``), unless the caller reads slowly or has hung up."""
    if cycle.flow.write_paused or cycle.disconnected:
        return False
    lines = [b"%b: %b\r\n" % header for header in (*cycle.default_headers, *headers)]
    if not cycle.keep_alive:
        lines.append(b"connection: close\r\n")
    head = STATUS_LINE[status] + b"".join(lines)
    if not head.count(b"\r") == head.count(b"\n") == len(lines) + 1:
        # A value brought a line of its own: uvicorn says so.
        return False
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    if len(body) < _JOINED:
        cycle.transport.write(b"%b\r\n%b" % (head, body))
    else:
        cycle.transport.writelines((head, b"\r\n", body))
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()
    return True
