"""The route table: what is declared here is served, checked and documented.

A route is one entry: its types are what a request is checked against, what its handler gets, and
what the OpenAPI document says.  Of paths with as many slashes the first that matches counts: the
hot ones come first.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import unquote

import msgspec

from greffier.access import OPERATIONS_ONLY
from greffier.errors import Error, Forbidden, MethodNotAllowed, NotFound
from greffier.model.ids import parse_uuid
from greffier.server.answers import Answer, Stream
from greffier.server.call import SAFE_METHODS, Call
from greffier.server.decode import check_coding, check_media, json_decoder, query_decoder
from greffier.store.position import Position

if TYPE_CHECKING:
    from starlette.types import Scope

Handler: TypeAlias = Callable[[Call], Awaitable[Answer | Stream]]


class NoQuery(msgspec.Struct, frozen=True):
    """A route without parameters."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A variable part of a path: how it is read (None: nothing has that name), and its schema."""

    read: Callable[[str], Any]
    schema: Mapping[str, Any]


#: The ids of the conversations that are asked for now; reading one takes 2 us.
_read_id = functools.lru_cache(maxsize=8192)(parse_uuid)


_SEQ = re.compile(r"[1-9][0-9]{0,14}")


def _seq(text: str) -> int | None:
    # Not 0, which stands for the whole conversation where feedback is kept; and below 2^53.
    return int(text) if _SEQ.fullmatch(text) else None


def _name(text: str) -> str | None:
    return None if "\x00" in text else text


#: The variable parts of paths, by name.
PARAMETERS: Mapping[str, Parameter] = {
    "conversation_id": Parameter(_read_id, {"type": "string", "format": "uuid"}),
    "seq": Parameter(_seq, {"type": "integer", "minimum": 1}),
    "run_id": Parameter(parse_uuid, {"type": "string", "format": "uuid"}),
    "branch_id": Parameter(parse_uuid, {"type": "string", "format": "uuid"}),
    "invitation_id": Parameter(parse_uuid, {"type": "string", "format": "uuid"}),
    "agent_id": Parameter(parse_uuid, {"type": "string", "format": "uuid"}),
    "endpoint_id": Parameter(parse_uuid, {"type": "string", "format": "uuid"}),
    "source_id": Parameter(parse_uuid, {"type": "string", "format": "uuid"}),
    "lane_id": Parameter(parse_uuid, {"type": "string", "format": "uuid"}),
    "key_id": Parameter(parse_uuid, {"type": "string", "format": "uuid"}),
    "user_id": Parameter(_name, {"type": "string", "minLength": 1}),
    "subject": Parameter(_name, {"type": "string", "minLength": 1}),
    "schema": Parameter(_name, {"type": "string", "pattern": r"^\w+$"}),
}


@dataclass(frozen=True, kw_only=True)
class Route:
    """One method of one path.

    Attributes:
        method: ``GET`` also serves ``HEAD``.
        path: With variable parts in braces, each named in ``PARAMETERS``.
        handler: Its name is the operation's id, its docstring the operation's description.
        response: The type of the answer's body; None when there is none or it is not JSON.
        status: The status of success.
        request: The type of the body, several for one of several, None for no body.
        decode: Reads the body, when that is more than ``request`` says.
        query: The type of the query string.
        also: Other good answers and when they come.
        media: The answer's media types.
        errors: Refusals beyond those any route may give.
        auth: Whether the caller must say who they are.
        operations: Whether a key of scope ``ops`` may: no other route of ours is for it.
        limited: Whether messages of role ``user`` are charged.
        writes: Whether success carries a ``Greffier-Position``.
        tagged: Whether the answer carries an ``ETag``.
        request_headers: Headers it heeds, and what they do.
        alert_after: Seconds after which an answer is slow, logged as such and counted.
    """

    method: str
    path: str
    handler: Handler
    response: Any = None
    status: int = 200
    request: Any = None
    decode: Callable[[bytes], Any] | None = None
    query: type[msgspec.Struct] = NoQuery
    also: Mapping[int, str] = field(default_factory=dict)
    media: Sequence[str] = ("application/json",)
    errors: tuple[type[Error], ...] = ()
    auth: bool = True
    operations: bool = False
    limited: bool = False
    writes: bool = False
    tagged: bool = False
    request_headers: Mapping[str, str] = field(default_factory=dict)
    alert_after: float | None = None

    @functools.cached_property
    def read_body(self) -> Callable[[bytes], Any]:
        """Reads the body into its declared type, or refuses it."""
        return self.decode or json_decoder(self.request)

    @functools.cached_property
    def read_query(self) -> Callable[[bytes], Any]:
        """Reads the query string into its declared type, or refuses it."""
        return query_decoder(self.query)

    @property
    def public_name(self) -> str:
        """The operation's id: stable, for clients that are generated."""
        return self.handler.__name__


class Resource:
    """One path with all its methods."""

    def __init__(self, path: str, routes: Sequence[Route]) -> None:
        self.path = path
        self.names = re.findall(r"{(\w+)}", path)
        self._readers = [PARAMETERS[name].read for name in self.names]
        literal = re.split(r"{\w+}", path)
        #: Finds the variable parts of a path, when it is this one.
        self.match = re.compile("([^/]+)".join(map(re.escape, literal))).fullmatch
        self._routes = {route.method: route for route in routes}
        if "GET" in self._routes:
            self._routes.setdefault("HEAD", self._routes["GET"])
        self.allow = ", ".join(sorted(self._routes))

    async def serve(self, call: Call, values: Sequence[str]) -> None:
        """Leave the answer with the call; whoever made the call sends it.

        Args:
            call: The request.
            values: The variable parts of its path, as they were sent.

        Raises:
            Error: It is refused.
        """
        route = self._routes.get(call.method)
        if route is None:
            raise MethodNotAllowed(f"Use one of: {self.allow}.")
        call.route = route
        if route.auth:
            service = call.service
            call.principal = principal = await service.identify(call)
            if principal.role == "ops" and not route.operations:
                raise Forbidden(OPERATIONS_ONLY)
            if not service.users.knows(principal):
                await service.users.see(principal)
        for name, read, text in zip(self.names, self._readers, values, strict=True):
            if (value := read(text)) is None:
                raise NotFound
            call.params[name] = value
        headers = call.headers
        if (position := headers.get(b"greffier-position")) is not None:
            # One of another epoch is no fault: what is read now is all there is.
            call.position = Position.parse(position.decode("latin-1"))
        # Probes and browsers add what they like to a page that takes nothing.
        if route.auth or route.query is not NoQuery:
            call.query = route.read_query(call.scope["query_string"])
        if route.request is not None:
            if headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers:
                check_media(headers.get(b"content-type"))
                check_coding(headers.get(b"content-encoding"))
            call.body = route.read_body(await call.read(call.service.limits.body))
        call.answer = answer = await route.handler(call)
        if route.writes:
            position = str(call.service.database.position).encode()
            answer.headers.append((b"greffier-position", position))


class Table:
    """All resources."""

    def __init__(self, resources: Iterable[Resource]) -> None:
        # No variable part holds a slash: only paths of as many need be tried.
        self._by_slashes: dict[int, list[Resource]] = {}
        for resource in resources:
            self._by_slashes.setdefault(resource.path.count("/"), []).append(resource)

    def find(self, scope: Scope) -> tuple[Resource, Sequence[str]]:
        """Find what a request is for, whatever its method, and the variable parts of its path.

        Raises:
            NotFound: There is nothing at this path.
        """
        # A name in a path may hold a slash, written %2F: only then is it read as it was sent.
        raw: bytes = scope.get("raw_path") or b""
        escaped = b"%" in raw and (b"%2F" in raw or b"%2f" in raw)
        path: str = raw.decode("latin-1") if escaped else scope["path"]
        if root := scope.get("root_path"):
            path = path.removeprefix(root)
        for resource in self._by_slashes.get(path.count("/"), ()):
            found = resource.match(path)
            if found is None:
                continue
            values = found.groups()
            if not escaped:
                return resource, values
            try:
                return resource, [unquote(value, errors="strict") for value in values]
            except UnicodeDecodeError:
                continue
        raise NotFound("There is nothing at this path; /docs lists what there is.")


def resources(routes: Iterable[Route]) -> list[Resource]:
    """Gather the routes of each path, in the order in which the paths first come."""
    paths: dict[str, list[Route]] = {}
    for route in routes:
        paths.setdefault(route.path, []).append(route)
    return [Resource(path, group) for path, group in paths.items()]


def is_safe(method: str) -> bool:
    """Say whether a method only reads (RFC 9110, 9.2.1)."""
    return method in SAFE_METHODS
