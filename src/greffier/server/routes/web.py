"""Pages for people: what runs here, and the documentation of the API; all within one file each."""

from __future__ import annotations

import base64
import hashlib
from html import escape
from typing import Any

import msgspec

from greffier._version import __version__
from greffier.errors import Forbidden, NotFound
from greffier.server.answers import SECURITY, Answer, plain
from greffier.server.call import Call
from greffier.server.language import preferred
from greffier.server.openapi import standalone
from greffier.server.table import Route

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:54rem;margin:2rem auto;padding:0 1rem;"
    "color:#222;background:#fff}code{font-size:.95em}h2{margin-top:2.5rem}"
    "details{border-top:1px solid #ddd;padding:.4rem 0}summary{cursor:pointer}"
    "td,th{text-align:left;vertical-align:top;padding:.15rem 1rem .15rem 0}"
    "@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}a{color:#8bf}"
    "details{border-color:#444}}"
)
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
#: A page may show our own style and nothing else.
_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
).encode()


def html(title: str, body: str, *, language: str = "en", status: int = 200) -> Answer:
    """Make a page; ``body`` is HTML, ``title`` text."""
    page = (
        f'<!doctype html><html lang="{language}"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>{body}</body></html>"
    )
    return Answer(
        page.encode(),
        status,
        [
            (b"content-type", b"text/html; charset=utf-8"),
            (b"content-language", language.encode()),
            (b"vary", b"accept-language"),
            (b"cache-control", b"no-cache"),
            (b"content-security-policy", _POLICY),
            *SECURITY,
        ],
    )


_HOME = {
    "en": (
        "<h1>Greffier</h1><p>This is Greffier {version}. It keeps conversations: what was said, in "
        "order, never lost, never doubled.</p><ul>"
        '<li><a href="/docs">The API</a>, made from <a href="/openapi.json">its OpenAPI '
        "document</a></li>"
        '<li><a href="/readyz">Whether it is ready</a>, and <a href="/metrics">what is '
        "measured</a></li></ul>"
    ),
    "fr": (
        "<h1>Greffier</h1><p>Ici tourne Greffier {version}. Il tient les conversations&nbsp;: ce "
        "qui s&rsquo;est dit, dans l&rsquo;ordre, sans rien perdre ni doubler.</p><ul>"
        '<li><a href="/docs">L&rsquo;API</a> (en anglais), tirée de '
        '<a href="/openapi.json">son document OpenAPI</a></li>'
        '<li><a href="/readyz">Est-il prêt</a>, et <a href="/metrics">ce qui est mesuré</a></li>'
        "</ul>"
    ),
}


async def asyncapi(call: Call) -> Answer:
    """Describe what is sent and taken over Socket.IO, as an AsyncAPI document."""
    return plain(call.service.documents["asyncapi"], "application/json")


async def home(call: Call) -> Answer:
    """Say what runs here and where its documentation is, in French or English."""
    chosen = preferred(call.headers.get(b"accept-language"))
    return html("Greffier", _HOME[chosen].format(version=__version__), language=chosen)


async def openapi(call: Call) -> Answer:
    """Give the OpenAPI 3.1 document of this API."""
    return plain(call.service.documents["openapi"], "application/json")


async def docs(call: Call) -> Answer:
    """Show the routes and the error codes on one page."""
    document = msgspec.json.decode(call.service.documents["openapi"])
    return html("Greffier API", _reference(document))


async def get_schema(call: Call) -> Answer:
    """Give a type of this API as a JSON Schema (2020-12) that needs nothing around it.

    The types are those of the OpenAPI document, under the same names.
    """
    document = msgspec.json.decode(call.service.documents["openapi"])
    found = standalone(document, call.params["schema"])
    if found is None:
        raise NotFound("There is no type of this name; /docs lists them.")
    return plain(msgspec.json.encode(found), "application/schema+json")


class SignInQuery(msgspec.Struct, frozen=True):
    """The token of the link."""

    token: str = ""


async def sign_in(call: Call) -> Answer:
    """Sign the person at this machine in with the link that was printed at the start.

    Only in local mode. The link works once; it sets a cookie and leads to the first page.
    """
    local = call.service.local
    assert local is not None, "the route is there in local mode only"
    if call.method == "HEAD":
        return html("Greffier", "")
    asked: SignInQuery = call.query
    try:
        cookies = local.sign_in(asked.token)
    except Forbidden as refusal:
        body = (
            f"<h1>Greffier</h1><p>{escape(refusal.detail)} Start the server again for a new one."
            '</p><p lang="fr">Ce lien a déjà servi, ou date d&rsquo;un démarrage précédent. '
            "Redémarrez le serveur pour en avoir un autre.</p>"
        )
        return html("Greffier", body, status=refusal.status)
    headers = [(b"location", b"/"), (b"cache-control", b"no-store"), *SECURITY]
    headers += [(b"set-cookie", cookie.encode()) for cookie in cookies]
    return Answer(b"", 303, headers)


def _reference(document: dict[str, Any]) -> str:
    pieces = [
        f"<h1>Greffier API <small>{escape(document['info']['version'])}</small></h1>",
        f"<p>{escape(document['info']['summary'])}</p>",
        '<p><a href="/openapi.json">The OpenAPI document</a>, <a href="#errors">errors</a>.</p>',
    ]
    for tag in document["tags"]:
        pieces.append(f"<h2>{escape(tag['name'].capitalize())}</h2>")
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                if tag["name"] in operation["tags"]:
                    pieces.append(_operation(method.upper(), path, operation))
    pieces.append('<h2 id="types">Types</h2>')
    pieces += [_type(name, schema) for name, schema in document["components"]["schemas"].items()]
    pieces.append('<h2 id="errors">Errors</h2><table><tr><th>Code<th>Status<th>Means</tr>')
    for code, error in document["x-error-codes"].items():
        pieces.append(
            f'<tr id="{escape(code)}"><td><code>{escape(code)}</code><td>{error["status"]}'
            f"<td>{escape(error['detail'])}</tr>"
        )
    pieces.append("</table>")
    return "".join(pieces)


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    rows = []
    for parameter in operation.get("parameters", ()):
        if "$ref" in parameter:
            continue
        note = parameter.get("description") or _shape(parameter["schema"])
        rows.append((parameter["in"], parameter["name"], escape(note)))
    for media, body in operation.get("requestBody", {}).get("content", {}).items():
        rows.append(("body", media, _shape(body["schema"])))
    for status, response in operation["responses"].items():
        content = "".join(
            f" {_shape(one['schema'])}"
            for one in response.get("content", {}).values()
            if "schema" in one
        )
        rows.append(("answer", status, escape(response["description"]) + content))
    table = "".join(f"<tr><td>{a}<td><code>{escape(b)}</code><td>{c}</tr>" for a, b, c in rows)
    return (
        f'<details id="{operation["operationId"]}"><summary><code>{method} {escape(path)}</code> '
        f"{escape(operation['summary'])}</summary>"
        f"<p>{escape(operation.get('description', ''))}</p><table>{table}</table></details>"
    )


def _type(name: str, schema: dict[str, Any]) -> str:
    required = schema.get("required", ())
    rows = "".join(
        f"<tr><td><code>{escape(field)}</code><td>{_shape(one)}"
        f"<td>{'' if field in required else 'may be left out'}</tr>"
        for field, one in schema.get("properties", {}).items()
    )
    return (
        f'<details id="type-{escape(name)}"><summary><code>{escape(name)}</code></summary>'
        f"<p>{escape(schema.get('description', ''))}"
        f' <a href="/schemas/{escape(name)}.json">JSON Schema</a></p>'
        f"<table>{rows}</table></details>"
    )


def _shape(schema: dict[str, Any]) -> str:
    """Write a schema in a few words, as HTML."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f'<a href="#type-{name}">{name}</a>'
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return " or ".join(_shape(one) for one in schema[several])
    if "enum" in schema:
        return " or ".join(f"<code>{escape(str(one))}</code>" for one in schema["enum"])
    if "prefixItems" in schema:
        return "[" + ", ".join(_shape(one) for one in schema["prefixItems"]) + "]"
    if schema.get("type") == "array":
        return f"list of {_shape(schema.get('items', {}))}"
    return escape(schema.get("format") or schema.get("type") or "anything")


SIGN_IN = Route(
    method="GET",
    path="/signin",
    handler=sign_in,
    query=SignInQuery,
    media=("text/html",),
    auth=False,
)

ROUTES = (
    Route(method="GET", path="/openapi.json", handler=openapi, auth=False),
    Route(method="GET", path="/asyncapi.json", handler=asyncapi, auth=False),
    Route(
        method="GET",
        path="/schemas/{schema}.json",
        handler=get_schema,
        media=("application/schema+json",),
        errors=(NotFound,),
        auth=False,
    ),
    Route(method="GET", path="/docs", handler=docs, media=("text/html",), auth=False),
    Route(method="GET", path="/", handler=home, media=("text/html",), auth=False),
)
