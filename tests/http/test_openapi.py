"""Promise: the OpenAPI document says what is served, no more and no less."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import pytest
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from greffier.errors import CODES
from greffier.server.routes import ROUTES
from greffier.server.table import PARAMETERS
from helpers.api import Person, Served, expect, path


@pytest.fixture(scope="module")
async def document(served: Served) -> dict[str, Any]:
    """The document as it is served."""
    async with served.anonymous() as nobody:
        found: dict[str, Any] = expect(await nobody.get("/openapi.json"), 200)
    return found


def validator(document: dict[str, Any], schema: dict[str, Any]) -> jsonschema.Draft202012Validator:
    """A validator for a schema of the document, formats included."""
    resource = DRAFT202012.create_resource(document)
    registry = Registry().with_resource("urn:document", resource)
    absolute = json.loads(json.dumps(schema).replace('"#/', '"urn:document#/'))
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    return jsonschema.Draft202012Validator(absolute, registry=registry, format_checker=checker)


async def test_it_lists_exactly_the_table(document: dict[str, Any]) -> None:
    """Every route with its name, once."""
    listed = {
        (method.upper(), where, operation["operationId"])
        for where, methods in document["paths"].items()
        for method, operation in methods.items()
    }

    assert listed == {(route.method, route.path, route.public_name) for route in ROUTES}
    assert len({name for _, _, name in listed}) == len(ROUTES)


async def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    """Within the document."""
    for reference in set(re.findall(r'"\$ref": "([^"]+)"', json.dumps(document))):
        found: Any = document
        for step in reference.removeprefix("#/").split("/"):
            found = found[step]
        assert found


async def test_every_schema_is_valid(document: dict[str, Any]) -> None:
    """As JSON Schema 2020-12, which OpenAPI 3.1 speaks."""
    assert document["openapi"] == "3.1.0"
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


async def test_every_operation_is_complete(document: dict[str, Any]) -> None:
    """A summary, its path's parameters, a good answer, and who may call."""
    for where, methods in document["paths"].items():
        for operation in methods.values():
            assert operation["summary"]
            parameters = operation.get("parameters", [])
            named = {one["name"] for one in parameters if one.get("in") == "path"}
            assert named == set(re.findall(r"{(\w+)}", where))
            assert any(status < "300" for status in operation["responses"])
            assert all(response["description"] for response in operation["responses"].values())
            secured = operation["security"] == [{"bearer": []}]
            # What comes in from outside is signed.
            assert secured == (where.startswith("/v1/") and not where.startswith("/v1/inbox/"))


async def test_a_body_that_may_be_left_out_is_not_required(document: dict[str, Any]) -> None:
    """So that a client made from the document may call without one where the server lets it."""
    free = {
        f"{method.upper()} {where}"
        for where, methods in document["paths"].items()
        for method, operation in methods.items()
        if not operation.get("requestBody", {"required": True})["required"]
    }

    assert free == {
        "POST /v1/conversations/{conversation_id}/runs",
        "POST /v1/conversations/{conversation_id}/invitations",
        "POST /v1/endpoints/{endpoint_id}/rotate",
        "POST /v1/sources/{source_id}/rotate",
        "POST /v1/ops/lanes/{lane_id}/unlock",
    }


async def test_every_error_code_is_told(document: dict[str, Any]) -> None:
    """With its status and its words, and on the page where its type leads."""
    assert document["x-error-codes"].keys() == CODES.keys()


async def test_the_page_shows_every_route_and_code(served: Served) -> None:
    """On one page, without anything from elsewhere."""
    async with served.anonymous() as nobody:
        answer = await nobody.get("/docs")

    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    for route in ROUTES:
        assert f"<code>{route.method} {route.path}</code>" in answer.text
    for code in CODES:
        assert f'id="{code}"' in answer.text
    assert not re.search(r"https?://|<script", answer.text)


async def test_answers_are_what_it_says(ada: Person, document: dict[str, Any]) -> None:
    """Each good answer of a walk through the API fits its schema, and each refusal its own."""
    made = await ada.talk(3, title="Plans", metadata={"a": [1]})
    one = path(made)
    batch = {"messages": [{"content": "x"}]}
    walk = [
        ("POST", "/v1/conversations", "/v1/conversations", {}),
        ("GET", "/v1/conversations", "/v1/conversations", None),
        ("GET", one, "/v1/conversations/{conversation_id}", None),
        ("PATCH", one, "/v1/conversations/{conversation_id}", {"title": "x"}),
        ("PATCH", one, "/v1/conversations/{conversation_id}", {"title": 7}),
        (
            "POST",
            f"{one}/messages",
            "/v1/conversations/{conversation_id}/messages",
            {"content": "x"},
        ),
        ("POST", f"{one}/messages", "/v1/conversations/{conversation_id}/messages", batch),
        ("POST", f"{one}/messages", "/v1/conversations/{conversation_id}/messages", {}),
        ("GET", f"{one}/messages", "/v1/conversations/{conversation_id}/messages", None),
        ("GET", f"{one}/messages/2", "/v1/conversations/{conversation_id}/messages/{seq}", None),
        ("GET", f"{one}/messages/99", "/v1/conversations/{conversation_id}/messages/{seq}", None),
        ("GET", f"{one}/context", "/v1/conversations/{conversation_id}/context", None),
        ("GET", f"{one}/stats", "/v1/conversations/{conversation_id}/stats", None),
        ("GET", "/v1/me", "/v1/me", None),
        ("DELETE", one, "/v1/conversations/{conversation_id}", None),
        ("GET", one, "/v1/conversations/{conversation_id}", None),
    ]

    for method, url, template, body in walk:
        answer = await ada.http.request(method, url, json=body)
        said = document["paths"][template][method.lower()]["responses"][str(answer.status_code)]
        content = said.get("content", {})
        media = answer.headers.get("content-type")
        if media is None:
            assert not content
            continue
        validator(document, content[media]["schema"]).validate(answer.json())
        for header in ("etag", "greffier-position", "location"):
            named = {name.lower() for name in said["headers"]}
            assert (header in answer.headers) <= (header in named)


async def test_an_answer_has_no_field_it_does_not_say(
    ada: Person, document: dict[str, Any]
) -> None:
    """What a conversation and a message hold is all named, and all of it is there."""
    made = await ada.create()
    said = await ada.say(made, "x")
    schemas = document["components"]["schemas"]

    assert made.keys() == set(schemas["Conversation"]["required"])
    assert said.keys() == set(schemas["Message"]["required"])
    assert set(schemas["Message"]["properties"]) - said.keys() >= {"truncated", "size"}


def test_every_variable_part_of_a_path_is_declared() -> None:
    """By a name that says how it is read."""
    for route in ROUTES:
        for name in re.findall(r"{(\w+)}", route.path):
            assert name in PARAMETERS
