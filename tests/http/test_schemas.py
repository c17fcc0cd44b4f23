"""Promise: every object is published as a JSON Schema that needs nothing around it, and fits."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest

from helpers.api import Person, Served, expect, path, refused


async def schema(served: Served, name: str) -> dict[str, Any]:
    """A schema as it is served."""
    async with served.anonymous() as nobody:
        answer = await nobody.get(f"/schemas/{name}.json")
    assert answer.headers["content-type"] == "application/schema+json"
    found: dict[str, Any] = expect(answer, 200)
    return found


async def test_every_type_of_the_api_has_one(served: Served) -> None:
    """Under its name; each is valid, leads nowhere outside, and says what it is."""
    async with served.anonymous() as nobody:
        document = expect(await nobody.get("/openapi.json"), 200)
    for name, one in document["components"]["schemas"].items():
        found = await schema(served, name)
        jsonschema.Draft202012Validator.check_schema(found)
        assert found["$id"] == f"/schemas/{name}.json"
        assert found["$defs"][name].keys() == one.keys()
        assert "components" not in str(found)


@pytest.mark.parametrize("name", ["Nothing", "message", "Message.json", "a%00b"])
async def test_what_is_no_type_has_none(served: Served, name: str) -> None:
    """404, whatever its name."""
    async with served.anonymous() as nobody:
        refused(await nobody.get(f"/schemas/{name}.json"), 404, "not-found")


async def test_objects_fit_theirs(served: Served, ada: Person, bob: Person) -> None:
    """What the API shows is valid against it, and what it does not show is not."""
    room = await ada.create(kind="room", participants=[{"user_id": bob.id}])
    said = await ada.say(room, "hello", metadata={"any": ["thing"]})
    here = path(room)
    rated = expect(await ada.http.put(f"{here}/feedback", json={"rating": 1}), 200)
    invited = expect(await ada.http.post(f"{here}/invitations", json={}), 201)
    shown = {
        "Conversation": expect(await ada.http.get(here), 200),
        "Message": said,
        "Page": expect(await ada.http.get(f"{here}/messages"), 200),
        "Participant": expect(await ada.http.get(f"{here}/participants"), 200)["data"][0],
        "Invited": invited,
        "Feedback": rated,
        "Context": expect(await ada.http.get(f"{here}/context"), 200),
        "Changes": expect(await ada.http.get(f"{here}/changes?since=1"), 200),
        "MyStats": expect(await ada.http.get("/v1/me/stats"), 200),
        "ProblemDocument": (await bob.http.delete(here)).json(),
    }
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    for name, one in shown.items():
        validator = jsonschema.Draft202012Validator(
            await schema(served, name), format_checker=checker
        )
        validator.validate(one)
        first = next(iter(one))
        assert not validator.is_valid({key: one[key] for key in one if key != first}), name
