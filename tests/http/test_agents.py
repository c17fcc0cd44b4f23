"""Promise: admins say who may answer, everybody sees it, and two of them do not undo each other."""

from __future__ import annotations

import uuid
from typing import Any

import httpx2

from greffier.model.agent import ECHO_ID
from helpers.api import SECRET, Person, Served, expect, pointers, refused
from helpers.postgres import connected
from helpers.serving import headers, started

WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "What the weather is like.",
        "parameters": {
            "type": "object",
            "properties": {"place": {"type": "string"}},
            "required": ["place"],
        },
    },
    "url": "https://tools.example.org/weather",
}
ECHO = {"name": "Echo", "provider": "echo", "model": "echo"}


async def make(root: Person, **more: Any) -> dict[str, Any]:
    """Make an agent."""
    made: dict[str, Any] = expect(await root.http.post("/v1/agents", json={**ECHO, **more}), 201)
    return made


async def test_an_agent_is_made_by_admins_and_read_by_everybody(root: Person, ada: Person) -> None:
    """As it was asked for, with what was left out."""
    asked = {
        "id": str(uuid.uuid4()),
        "name": "Météo",
        "provider": "script",
        "model": "none",
        "instructions": "Be brief.",
        "tools": [WEATHER],
        "params": {"temperature": 0.5, "script": []},
    }
    answer = await root.http.post("/v1/agents", json=asked)
    made = expect(answer, 201)

    assert {name: made[name] for name in asked} == asked
    assert made["version"] == 1
    assert answer.headers["location"] == f"/v1/agents/{made['id']}"
    assert "greffier-position" in answer.headers
    assert expect(await ada.http.get(f"/v1/agents/{made['id']}"), 200) == made
    assert made in expect(await ada.http.get("/v1/agents?limit=100"), 200)["data"]
    bare = await make(root)
    assert (bare["instructions"], bare["tools"], bare["params"]) == (None, [], {})
    refused(await ada.http.post("/v1/agents", json=asked), 403, "forbidden")


async def test_the_same_request_again_finds_the_agent(root: Person) -> None:
    """By its id or the header's key; another request under it is refused, and changes nothing."""
    asked = {**ECHO, "id": str(uuid.uuid4()), "tools": [WEATHER]}
    made = expect(await root.http.post("/v1/agents", json=asked), 201)
    await root.http.patch(f"/v1/agents/{made['id']}", json={"name": "Echo 2"})

    again = expect(await root.http.post("/v1/agents", json=asked), 200)
    other = await root.http.post("/v1/agents", json={**asked, "model": "another"})

    assert (again["name"], again["version"]) == ("Echo 2", 2)
    refused(other, 409, "id-reused")
    key = {"idempotency-key": f"the echo {uuid.uuid4()}"}
    first = expect(await root.http.post("/v1/agents", json=ECHO, headers=key), 201)
    second = expect(await root.http.post("/v1/agents", json=ECHO, headers=key), 200)
    assert first == second


async def test_what_cannot_be_is_refused_with_its_place(root: Person) -> None:
    """A provider that is not here, a tool without a name, a script nobody can play."""
    for wrong, found in (
        ({"provider": "openia"}, [("/provider", "unknown-provider")]),
        ({"tools": [{**WEATHER, "url": "http://x.org"}]}, [("/tools/0/url", "url")]),
        ({"tools": [{"type": "function", "function": {}}]},
         [("/tools/0/function/name", "missing")]),
        ({"tools": [{**WEATHER, "type": "retrieval"}]}, [("/tools/0/type", "choice")]),
        ({"tools": [{**WEATHER, "secret": "x"}]}, [("/tools/0/secret", "unknown-field")]),
        ({"provider": "script", "params": {"script": [7]}}, [("/params/script/0", "type")]),
        ({"key": "sk-…"}, [("/key", "unknown-field")]),
    ):  # fmt: skip
        answer = await root.http.post("/v1/agents", json={**ECHO, **wrong})
        assert pointers(refused(answer, 422, "validation")) == found
    large = {**ECHO, "instructions": "a" * (256 * 1024 + 1)}
    refused(await root.http.post("/v1/agents", json=large), 413, "payload-too-large")


async def test_a_change_leaves_what_it_does_not_name(root: Person) -> None:
    """Null takes instructions, tools and params away; the same again is no change."""
    made = await make(root, instructions="Be brief.", tools=[WEATHER], params={"top_p": 1})
    where = f"/v1/agents/{made['id']}"

    renamed = expect(await root.http.patch(where, json={"name": "Parrot"}), 200)
    assert renamed == {**made, "name": "Parrot", "version": 2, "updated_at": renamed["updated_at"]}
    assert renamed["updated_at"] > made["updated_at"]
    assert expect(await root.http.patch(where, json={"name": "Parrot"}), 200) == renamed
    assert expect(await root.http.patch(where, json={}), 200) == renamed
    nothing = {"instructions": None, "tools": None, "params": None}
    bare = expect(await root.http.patch(where, json=nothing), 200)
    assert (bare["instructions"], bare["tools"], bare["params"]) == (None, [], {})
    refused(await root.http.patch(where, json={"name": None}), 422, "validation")


async def test_a_change_is_checked_with_what_stays(root: Person) -> None:
    """Neither half of the agent is wrong alone."""
    made = await make(root, params={"script": [7]})

    answer = await root.http.patch(f"/v1/agents/{made['id']}", json={"provider": "script"})

    assert pointers(refused(answer, 422, "validation")) == [("/params/script/0", "type")]


async def test_a_change_is_made_for_the_agent_that_was_seen(root: Person, ada: Person) -> None:
    """If-Match lets one of two changes through; what did not change is not sent again."""
    made = await make(root)
    where = f"/v1/agents/{made['id']}"
    tag = (await ada.http.get(where)).headers["etag"]

    first = await root.http.patch(where, json={"name": "a"}, headers={"if-match": tag})
    second = await root.http.patch(where, json={"name": "b"}, headers={"if-match": tag})

    refused(second, 412, "stale")
    assert expect(await ada.http.get(where), 200)["name"] == "a"
    for target in (where, "/v1/agents"):
        seen = (await ada.http.get(target)).headers["etag"]
        again = await ada.http.get(target, headers={"if-none-match": seen})
        assert (again.status_code, again.content) == (304, b"")
    assert (await ada.http.get(where)).headers["etag"] == first.headers["etag"] != tag


async def test_a_deleted_agent_is_gone_for_good(root: Person, ada: Person) -> None:
    """Nobody sees it, and its id cannot come back; a conversation of its stays."""
    asked = {**ECHO, "id": str(uuid.uuid4())}
    made = expect(await root.http.post("/v1/agents", json=asked), 201)
    where = f"/v1/agents/{made['id']}"
    talk = await ada.create(agent_id=made["id"])

    assert (await root.http.delete(where)).status_code == 204

    for method in ("GET", "DELETE", "PATCH"):
        answer = await root.http.request(method, where, json={} if method == "PATCH" else None)
        refused(answer, 404, "not-found")
    listed = expect(await ada.http.get("/v1/agents?limit=100"), 200)["data"]
    assert made["id"] not in {one["id"] for one in listed}
    refused(await root.http.post("/v1/agents", json=asked), 410, "gone")
    refused(await root.http.post("/v1/agents", json={**asked, "name": "x"}), 409, "id-reused")
    assert await ada.say(talk, "anybody there?")


async def test_the_list_goes_on_where_it_ended(root: Person, ada: Person) -> None:
    """The oldest first, each once, also when the last one seen is deleted meanwhile."""
    names = [f"agent {uuid.uuid4()}" for _ in range(5)]
    for name in names:
        await make(root, name=name)
    seen: list[str] = []
    where = "/v1/agents?limit=2"
    while True:
        page = expect(await ada.http.get(where), 200)
        seen += [one["name"] for one in page["data"] if one["name"] in names]
        if page["next_cursor"] is None:
            break
        where = f"/v1/agents?limit=2&cursor={page['next_cursor']}"
        await root.http.delete(f"/v1/agents/{page['data'][-1]['id']}")

    assert seen == names
    for wrong in ("limit=0", "limit=101", "cursor=x", "cursor="):
        refused(await ada.http.get(f"/v1/agents?{wrong}"), 422, "validation")


async def test_a_first_start_makes_echo_and_no_other_start_does(database: str) -> None:
    """Who deletes it has it deleted."""
    found: list[list[str]] = []
    for _ in range(2):
        with started(DATABASE_URL=database, JWT_SECRET=SECRET) as server:
            url = server.until(r"listens on (http://127\.0\.0\.1:\d+) ")[1]
            async with httpx2.AsyncClient(base_url=url, headers=headers(), timeout=60) as ada:
                page = expect(await ada.get("/v1/agents"), 200)["data"]
            found.append([one["id"] for one in page])
        async with connected(database) as live:
            await live.execute("select delete_agent_v1($1)", ECHO_ID)

    assert found == [[str(ECHO_ID)], []]


async def test_a_service_reads_agents_and_writes_none(served: Served, root: Person) -> None:
    """No key is ever admin."""
    made = expect(await root.http.post("/v1/keys", json={"scope": "service", "name": "bot"}), 201)
    async with served.anonymous(authorization=f"Bearer {made['key']}") as bot:
        expect(await bot.get("/v1/agents"), 200)
        refused(await bot.post("/v1/agents", json=ECHO), 403, "forbidden")
