"""Pages of other origins: which may call, and what their browsers are told (CORS).

One decision for the API, its events and the sockets, taken before any of them sees the request.
What protects a person here is that such a page brings a token of its own: the cookie that their
browser may send along does not count, and they are nobody by it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from greffier.server.answers import Header

if TYPE_CHECKING:
    from starlette.types import Message, Scope, Send

#: Any page of the web.
ANY: Final = "*"
#: What an answer says beside its body; a browser keeps all else from a page of another origin.
EXPOSED: Final = (
    *("Content-Disposition", "ETag", "Greffier-Position", "Location"),
    *("RateLimit", "RateLimit-Policy", "Retry-After", "X-Request-Id"),
)
#: Seconds for which a browser need not ask again: as long as Chromium believes us.
MAX_AGE: Final = 7200
_METHODS: Final = b"GET, POST, PUT, PATCH, DELETE"
#: A list of the names of headers.
_NAMES = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~, -]{0,1024}")
#: What is taken off a request that is answered by what it brings itself.
_OF_A_BROWSER = frozenset({b"origin", b"cookie"})


class Admitted(NamedTuple):
    """What is said with the answer; ``asks`` when a browser only asks whether it may call."""

    headers: tuple[Header, ...]
    asks: bool = False


class Origins:
    """Whose pages may call, besides our own."""

    def __init__(self, allowed: Sequence[str]) -> None:
        """Describe them.

        Args:
            allowed: Origins as browsers write them (``https://app.example``), or ``*``.
        """
        self._any = ANY in allowed
        self._allowed = frozenset(one.encode() for one in allowed)
        # A cache must not give one page what it kept for another.
        self._vary: tuple[Header, ...] = () if self._any else ((b"vary", b"origin"),)
        self._exposed: Header = (b"access-control-expose-headers", ", ".join(EXPOSED).encode())

    def admit(self, scope: Scope) -> Admitted:
        """Let a request of another origin's page in, if that may; it is then like a program's.

        Anything else is left as it is: what is forbidden to the page its browser refuses, and the
        sockets and local mode refuse themselves.
        """
        headers = dict(scope["headers"])
        origin = headers.get(b"origin")
        if origin is None or not self._is_guest(origin, headers.get(b"host", b"")):
            return Admitted(self._vary)
        scope["headers"] = [one for one in scope["headers"] if one[0] not in _OF_A_BROWSER]
        said = (*self._vary, (b"access-control-allow-origin", b"*" if self._any else origin))
        if scope["type"] != "http" or scope["method"] != "OPTIONS":
            return Admitted((*said, self._exposed))
        if b"access-control-request-method" not in headers:
            return Admitted(said)
        wanted = headers.get(b"access-control-request-headers", b"")
        return Admitted(
            (
                *said,
                (b"access-control-allow-methods", _METHODS),
                # Whatever they are: a header alone opens nothing here.
                (b"access-control-allow-headers", wanted if _NAMES.fullmatch(wanted) else b""),
                (b"access-control-max-age", b"%d" % MAX_AGE),
            ),
            asks=True,
        )

    def _is_guest(self, origin: bytes, host: bytes) -> bool:
        # Our own pages are no guests: they have a cookie.
        if origin.partition(b"://")[2] == host.lower():
            return False
        return self._any or origin in self._allowed


def saying(send: Send, headers: tuple[Header, ...]) -> Send:
    """Add headers to an answer on its way."""

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            # The engine lets a page send its cookies, which count for nothing.
            kept = [one for one in message["headers"] if not one[0].lower().startswith(_CORS)]
            message = {**message, "headers": [*kept, *headers]}
        await send(message)

    return sent


_CORS = b"access-control-"
