"""The OpenAPI 3.1 document, made from the route table and the types it names."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from greffier._version import __version__
from greffier.errors import (
    CODES,
    Error,
    Forbidden,
    Invalid,
    PayloadTooLarge,
    RateLimited,
    Unauthenticated,
    Unavailable,
)
from greffier.server.table import PARAMETERS, NoQuery, Route

_REF = "#/components/schemas/"

#: Type → how an operation names its schema.
Refs: TypeAlias = Mapping[Any, Mapping[str, Any]]
_PROBLEM = "application/problem+json"
_LIMIT = ("RateLimit", "RateLimit-Policy")


class ProblemDetail(msgspec.Struct, frozen=True):
    """One fault: where (a JSON pointer into the body, or the parameter), which, and in words."""

    pointer: str
    code: str
    detail: str


class ProblemDocument(msgspec.Struct, frozen=True):
    """What was refused or went wrong (RFC 9457); ``code`` is stable and listed on /docs."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: list[ProblemDetail] | msgspec.UnsetType = msgspec.UNSET


def document(routes: Sequence[Route]) -> dict[str, Any]:
    """Describe these routes, no more and no less."""
    refs, schemas = _schemas(routes)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, refs)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Greffier",
            "version": __version__,
            "summary": "Keeps conversations: what was said, in order, never lost, never doubled.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": tag} for tag in dict.fromkeys(_tag(route) for route in routes)],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "A JWT with the claims sub and exp, signed with the server's "
                    "secret (HS256) or by its identity provider; or an API key (grf_…).",
                }
            },
            "parameters": {
                "Greffier-Act-As": {
                    "name": "Greffier-Act-As",
                    "in": "header",
                    "description": "The user for whom a key of scope service acts, in UTF-8: what "
                    "is read and changed is then theirs. Nobody else acts for others.",
                    "schema": {"type": "string", "minLength": 1},
                },
                "Greffier-Position": {
                    "name": "Greffier-Position",
                    "in": "header",
                    "description": "As an earlier write answered: what is read is not older.",
                    "schema": {"type": "string"},
                },
            },
            "headers": {
                "Greffier-Position": {
                    "description": "Where this write is on record; send it back with a read.",
                    "schema": {"type": "string"},
                },
                "ETag": {
                    "description": "Names this state, for If-None-Match and If-Match.",
                    "schema": {"type": "string"},
                },
                "Location": {"schema": {"type": "string"}},
                "Retry-After": {
                    "description": "Seconds after which the same request may succeed.",
                    "schema": {"type": "integer", "minimum": 1},
                },
                "RateLimit": {
                    "description": "What the caller may still send, r messages at once, and the "
                    "seconds t until all is back (refused: until the same request may succeed). "
                    "Absent for callers who are not limited.",
                    "schema": {"type": "string"},
                },
                "RateLimit-Policy": {
                    "description": "The limit: q messages at once, which return within w seconds.",
                    "schema": {"type": "string"},
                },
                "X-Request-Id": {
                    "description": "Names this request in the log; a caller may bring its own.",
                    "schema": {"type": "string"},
                },
            },
        },
        "x-error-codes": {
            code: {"status": kind.status, "title": kind.title, "detail": words(kind)}
            for code, kind in CODES.items()
        },
    }


def standalone(document: dict[str, Any], name: str) -> dict[str, Any] | None:
    """Give one type of a document as a JSON Schema that needs nothing around it.

    Returns:
        The schema (2020-12), with all it refers to; None when there is no such type.
    """
    schemas: dict[str, Any] = document["components"]["schemas"]
    if name not in schemas:
        return None
    root = {"$ref": f"{_REF}{name}"}
    whole = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"/schemas/{name}.json",
        **root,
        "$defs": {one: schemas[one] for one in sorted(_reachable(schemas, [root]))},
    }
    text = msgspec.json.encode(whole).replace(_REF.encode(), b"#/$defs/")
    found: dict[str, Any] = msgspec.json.decode(text)
    return found


def words(kind: type[Any] | None) -> str:
    """Give the docstring of a class or function as text."""
    return inspect.cleandoc(kind.__doc__ or "").replace("``", "") if kind else ""


def refusals(route: Route) -> list[type[Error]]:
    """List what a route may refuse with, by status."""
    kinds: list[type[Error]] = [*route.errors]
    if route.auth:
        kinds += [Unauthenticated, Forbidden, Invalid, Unavailable]
    if route.request is not None:
        kinds.append(PayloadTooLarge)
    if route.limited:
        kinds.append(RateLimited)
    kinds.append(Error)
    return sorted(dict.fromkeys(kinds), key=lambda kind: (kind.status, kind.code))


def _operation(route: Route, refs: Refs) -> dict[str, Any]:
    summary, _, more = words(route.handler).partition("\n\n")  # type: ignore[arg-type]
    operation: dict[str, Any] = {
        "operationId": route.public_name,
        "tags": [_tag(route)],
        "summary": " ".join(summary.split()).rstrip("."),
        "security": [{"bearer": []}] if route.auth else [],
        "responses": _responses(route, refs),
    }
    if more:
        operation["description"] = more
    if parameters := [*_path(route), *_query(route), *_headers(route)]:
        operation["parameters"] = parameters
    if route.request is not None:
        operation["requestBody"] = {
            "required": not _left_out(route),
            "content": {"application/json": {"schema": _one_of(_several(route.request), refs)}},
        }
    return operation


def _left_out(route: Route) -> bool:
    """Whether sending nothing is sending {}: its own reader says so."""
    try:
        return bool(route.read_body(b"") == route.read_body(b"{}"))
    except Error:
        return False


def _path(route: Route) -> Iterable[dict[str, Any]]:
    for name in re.findall(r"{(\w+)}", route.path):
        schema = dict(PARAMETERS[name].schema)
        yield {"name": name, "in": "path", "required": True, "schema": schema}


def _query(route: Route) -> Iterable[dict[str, Any]]:
    if route.query is NoQuery:
        return
    (_,), found = msgspec.json.schema_components([route.query], ref_template=_REF + "{name}")
    properties: dict[str, dict[str, Any]] = found[route.query.__name__]["properties"]
    required = found[route.query.__name__]["required"]
    for name, schema in properties.items():
        # In a query string nothing is null: it is left out.
        options = [one for one in schema.get("anyOf", [schema]) if one.get("type") != "null"]
        plain = dict(options[0])
        if schema.get("default") is not None:
            plain["default"] = schema["default"]
        parameter = {"name": name, "in": "query", "schema": plain}
        yield {**parameter, "required": True} if name in required else parameter


def _headers(route: Route) -> Iterable[dict[str, Any]]:
    if route.auth:
        yield {"$ref": "#/components/parameters/Greffier-Act-As"}
        yield {"$ref": "#/components/parameters/Greffier-Position"}
    for name, description in route.request_headers.items():
        yield {
            "name": name,
            "in": "header",
            "description": description,
            "schema": {"type": "string"},
        }


def _responses(route: Route, refs: Refs) -> dict[str, Any]:
    headers: dict[str, Any] = {"X-Request-Id": {"$ref": "#/components/headers/X-Request-Id"}}
    good = dict(headers)
    for name, said in (("Greffier-Position", route.writes), ("ETag", route.tagged)):
        if said:
            good[name] = {"$ref": f"#/components/headers/{name}"}
    limit = {name: {"$ref": f"#/components/headers/{name}"} for name in _LIMIT}
    if route.limited:
        good |= limit
    if route.status == 201 and route.tagged:
        good["Location"] = {"$ref": "#/components/headers/Location"}
    success: dict[str, Any] = {"description": "Done.", "headers": good}
    if route.response is not None:
        schema = _one_of(_several(route.response), refs)
        success["content"] = {
            media: {"schema": schema} if media.endswith("json") else {} for media in route.media
        }
    elif route.status != 204:
        success["content"] = {media: {} for media in route.media}
    found = {str(route.status): success}
    for status, description in route.also.items():
        found[str(status)] = {**success, "description": description}
    if "If-None-Match" in route.request_headers:
        found["304"] = {"description": "The caller has it already.", "headers": good}
    for kind in refusals(route):
        entry = found.setdefault(
            str(kind.status),
            {
                "description": "",
                "headers": dict(headers),
                "content": {_PROBLEM: {"schema": {"$ref": _REF + ProblemDocument.__name__}}},
            },
        )
        entry["description"] = f"{entry['description']} `{kind.code}`: {words(kind)}".strip()
        if kind in (Unavailable, RateLimited):
            entry["headers"]["Retry-After"] = {"$ref": "#/components/headers/Retry-After"}
        if kind is RateLimited:
            entry["headers"] |= limit
    return found


def _tag(route: Route) -> str:
    return route.handler.__module__.rpartition(".")[2]


def _several(kinds: Any) -> tuple[Any, ...]:
    return kinds if isinstance(kinds, tuple) else (kinds,)


def _one_of(kinds: tuple[Any, ...], refs: Refs) -> dict[str, Any]:
    found = [dict(refs[kind]) for kind in kinds]
    return found[0] if len(found) == 1 else {"oneOf": found}


def _schemas(routes: Sequence[Route]) -> tuple[Refs, dict[str, Any]]:
    """Describe every type once; returns how each is referred to, and the components."""
    asked = [kind for route in routes if route.request for kind in _several(route.request)]
    shown = [kind for route in routes if route.response for kind in _several(route.response)]
    everything = list(dict.fromkeys([*asked, *shown, ProblemDocument]))
    said, schemas = msgspec.json.schema_components(everything, ref_template=_REF + "{name}")
    refs: Refs = dict(zip(everything, said, strict=True))
    requests = _reachable(schemas, [refs[kind] for kind in asked])
    for name, schema in schemas.items():
        schema["description"] = inspect.cleandoc(schema.get("description", "")).replace("``", "")
        if name not in requests:
            _always_there(schema)
        for field, one in schema.get("properties", {}).items():
            for option in one.get("anyOf", [one]):
                if option.get("format") == "decimal":
                    # msgspec describes them as texts; answers write them as numbers.
                    del option["format"]
                    option["type"] = "number"
            if field.endswith("_at"):
                # msgspec names the format only of times that must have a zone.
                for option in one.get("anyOf", [one]):
                    if option.get("type") == "string":
                        option["format"] = "date-time"
    return refs, dict(sorted(schemas.items()))


def _always_there(schema: dict[str, Any]) -> None:
    """In an answer every field is there, also one that has a default in Python.

    Left out are those marked unset, which msgspec gives no default.
    """
    properties: dict[str, Any] = schema.get("properties", {})
    required = set(schema.get("required", ()))
    schema["required"] = [
        name for name, one in properties.items() if name in required or "default" in one
    ]
    for one in properties.values():
        one.pop("default", None)


def _reachable(schemas: dict[str, Any], start: Sequence[Any]) -> set[str]:
    """Name every component that these schemas lead to."""
    found: set[str] = set()
    waiting = list(start)
    while waiting:
        text = msgspec.json.encode(waiting.pop()).decode()
        for name in re.findall(_REF + r"(\w+)", text):
            if name not in found:
                found.add(name)
                waiting.append(schemas[name])
    return found
