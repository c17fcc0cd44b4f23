"""One request on its way: what came in, who it is from, and what is decided about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from greffier.access import Principal
from greffier.errors import Invalid, PayloadTooLarge
from greffier.model.ids import foreign

if TYPE_CHECKING:
    from starlette.types import Receive, Scope

    from greffier.server.answers import Answer, Header, Stream
    from greffier.server.service import Service
    from greffier.server.table import Resource, Route
    from greffier.store.database import Database
    from greffier.store.position import Position

SAFE_METHODS = frozenset({"GET", "HEAD"})


class ClientGone(Exception):
    """The caller hung up before the whole request was here; there is nobody to answer."""


class Call:
    """One request.  ``query`` and ``body`` are of the types its route declares."""

    __slots__ = (
        "_database", "_principal", "answer", "body", "extra", "headers", "method", "params",
        "position", "query", "receive", "request_id", "resource", "route", "scope", "sent",
        "service",
    )  # fmt: skip

    def __init__(self, service: Service, scope: Scope, receive: Receive, request_id: str) -> None:
        self.service = service
        self.scope = scope
        self.receive = receive
        self.request_id = request_id
        self.method: str = scope["method"]
        # Of a header that stands twice the last counts; none that we read may.
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.resource: Resource | None = None
        self.route: Route | None = None
        self.params: dict[str, Any] = {}
        self.query: Any = None
        self.body: Any = None
        self.answer: Answer | Stream | None = None
        #: Headers of the answer, whatever it will be.
        self.extra: tuple[Header, ...] = ()
        self.sent = 0
        #: What the caller must see at least (the header Greffier-Position).
        self.position: Position | None = None
        self._database: Database | None = None
        self._principal: Principal | None = None

    @property
    def principal(self) -> Principal:
        """Who calls, on a route that asks for it."""
        assert self._principal is not None, "this route admits everybody"
        return self._principal

    @principal.setter
    def principal(self, principal: Principal) -> None:
        self._principal = principal

    @property
    def user_id(self) -> str | None:
        """Who calls, as far as is known, for the log."""
        return None if self._principal is None else self._principal.user_id

    @property
    def key(self) -> str | None:
        """The name of the API key they came with, for the log."""
        return None if self._principal is None else self._principal.key

    @property
    def database(self) -> Database:
        """The database as this caller may see it: a standby answers once it has what they know."""
        if self._database is None:
            self._database = self.service.database.at(self.position)
        return self._database

    @property
    def conversation_id(self) -> UUID:
        """The conversation named in the path."""
        found: UUID = self.params["conversation_id"]
        return found

    def idempotency_key(self, *place: str) -> UUID | None:
        """Make an id of the header Idempotency-Key: the same user and key, the same id.

        Args:
            place: Which of several things of this request.

        Raises:
            Invalid: The header is empty.
        """
        raw = self.headers.get(b"idempotency-key")
        if raw is None:
            return None
        key = raw.decode("latin-1").strip()
        if not key:
            raise Invalid.at("", "idempotency-key", "The header Idempotency-Key is empty.")
        return foreign("idempotency-key", self.user_id or "", key, *place)

    async def read(self, limit: int) -> bytes:
        """Read the body, and no more of it than may be.

        Raises:
            PayloadTooLarge: It is longer than the limit.
            ClientGone: The caller hung up.
        """
        length = self.headers.get(b"content-length", b"")
        if length.isdigit() and int(length[:20]) > limit:
            raise _too_large(limit)
        pieces: list[bytes] = []
        size = 0
        while True:
            message = await self.receive()
            if message["type"] != "http.request":
                raise ClientGone
            piece: bytes = message.get("body", b"")
            size += len(piece)
            if size > limit:
                raise _too_large(limit)
            if not message.get("more_body", False):
                return b"".join((*pieces, piece)) if pieces else piece
            pieces.append(piece)


def _too_large(limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"The body is larger than {limit} bytes, which is this server's limit.")
