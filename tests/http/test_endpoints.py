"""Promise: who may say where messages go and come from says it, and no secret is read again."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from greffier.deliver.channels.signatures import check_secret
from helpers.api import Person, Served, expect, path, pointers, refused

HOOK: dict[str, Any] = {"channel": "webhook", "target": "https://example.org/hook"}
BOT: dict[str, Any] = {
    "channel": "telegram", "target": "{contact}", "secret": "123456:AAE-this-is-a-bot-token_1234567"
}  # fmt: skip
#: One that nothing leaves by, so that the tests of this file do not see each other's.
QUIET = {**HOOK, "everywhere": False}


async def make(person: Person, **body: Any) -> dict[str, Any]:
    """Make an endpoint."""
    made: dict[str, Any] = expect(await person.http.post("/v1/endpoints", json=body), 201)
    return made


async def test_a_secret_is_shown_when_it_is_made_and_never_again(root: Person) -> None:
    """Neither by a read, nor by a list, nor by the same request again."""
    asked = {"id": str(uuid.uuid4()), **QUIET, "settings": {"a": [1]}}
    answer = await root.http.post("/v1/endpoints", json=asked)
    made = expect(answer, 201)
    secret = made.pop("secret")
    where = f"/v1/endpoints/{made['id']}"

    assert check_secret(secret, "") is None
    assert answer.headers["location"] == where
    assert {name: made[name] for name in asked} == asked
    assert (made["roles"], made["ordering"], made["state"]) == (None, "strict", "active")
    again = expect(await root.http.post("/v1/endpoints", json=asked), 200)
    assert again == {**made, "secret": None}
    for read in (where, "/v1/endpoints?limit=100"):
        answer = await root.http.get(read)
        assert secret not in answer.text
        assert "secret" not in answer.text
    other = await root.http.post("/v1/endpoints", json={**asked, "target": "https://b.example/"})
    refused(other, 409, "id-reused")


async def test_a_rotation_makes_another_secret(root: Person) -> None:
    """Shown once as well; a bot's token is its owner's to bring."""
    made = await make(root, **QUIET)
    where = f"/v1/endpoints/{made['id']}"

    turned = expect(await root.http.post(f"{where}/rotate"), 200)

    assert check_secret(turned["secret"], "") is None
    assert turned["secret"] != made["secret"]
    assert turned["version"] == 2
    bot = await make(root, **BOT)
    assert (bot["secret"], bot["everywhere"], bot["roles"]) == (None, False, ["assistant"])
    at = f"/v1/endpoints/{bot['id']}/rotate"
    assert pointers(refused(await root.http.post(at, json={}), 422, "validation")) == [
        ("/secret", "missing")
    ]
    brought = {"secret": "654321:AAE-this-is-another-token_7654321"}
    assert expect(await root.http.post(at, json=brought), 200)["secret"] is None


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        ({"channel": "pigeon"}, [("/channel", "unknown-channel")]),
        ({"target": "https://127.0.0.1/hook"}, [("/target", "private-target")]),
        ({"target": "ftp://example.org"}, [("/target", "url")]),
        ({"target": "https://{contact}/"}, [("/target", "contact")]),
        ({"target": "https://example.org/{contact}", "everywhere": True},
         [("/everywhere", "conflict")]),
        ({"channel": "email", "target": "a@example.org"}, [("/channel", "not-configured")]),
        ({"channel": "telegram", "target": "7"}, [("/secret", "secret")]),
        ({"secret": "guess"}, [("/secret", "secret")]),
        ({"target": "https://example.org/\x00"}, [("/target", "nul-character")]),
        ({"roles": []}, [("/roles", "empty")]),
        ({"roles": ["editor"]}, [("/roles/0", "choice")]),
        ({"ordering": "random"}, [("/ordering", "choice")]),
        ({"max_attempts": 0}, [("/max_attempts", "range")]),
        ({"concurrency": 1001, "per_minute": -1},
         [("/concurrency", "range"), ("/per_minute", "range")]),
        ({"settings": {"a": "\x00"}}, [("/settings/a", "nul-character")]),
        ({"settings": {"a": "x" * 20_000}}, [("/settings", "too-long")]),
        ({"conversation_id": str(uuid.uuid4()), "target": "https://example.org/{contact}"},
         [("/target", "contact")]),
    ],
)  # fmt: skip
async def test_what_cannot_be_is_refused_with_its_place(
    root: Person, wrong: dict[str, Any], found: list[tuple[str, str]]
) -> None:
    """Before anything is sent there."""
    answer = await root.http.post("/v1/endpoints", json={**HOOK, **wrong})

    assert pointers(refused(answer, 422, "validation")) == found


async def test_owners_look_after_those_of_their_conversations(
    root: Person, ada: Person, bob: Person
) -> None:
    """Others do not see them; what is for everybody is admins'."""
    talk = await ada.create()
    mine = await make(ada, **HOOK, conversation_id=talk["id"])
    where = f"/v1/endpoints/{mine['id']}"
    general = await make(root, **QUIET)

    refused(await ada.http.post("/v1/endpoints", json=HOOK), 403, "forbidden")
    theirs = {**HOOK, "conversation_id": talk["id"]}
    refused(await bob.http.post("/v1/endpoints", json=theirs), 404, "not-found")
    for method, at, body in (
        ("GET", where, None), ("PATCH", where, {"paused": True}), ("DELETE", where, None),
        ("POST", f"{where}/rotate", {}),
    ):  # fmt: skip
        refused(await bob.http.request(method, at, json=body), 404, "not-found")
    refused(await ada.http.get(f"/v1/endpoints/{general['id']}"), 404, "not-found")
    assert [one["id"] for one in expect(await ada.http.get("/v1/endpoints"), 200)["data"]] == [
        mine["id"]
    ]
    assert expect(await bob.http.get("/v1/endpoints"), 200)["data"] == []
    of_it = expect(await root.http.get(f"/v1/endpoints?conversation_id={talk['id']}"), 200)
    assert [one["id"] for one in of_it["data"]] == [mine["id"]]
    assert (await ada.http.delete(where)).status_code == 204
    refused(await ada.http.get(where), 404, "not-found")


async def test_a_room_s_endpoints_are_its_owner_s(ada: Person, bob: Person) -> None:
    """Who takes part may not say where its words go."""
    room = await ada.create(kind="room", participants=[{"user_id": bob.id, "role": "member"}])

    answer = await bob.http.post("/v1/endpoints", json={**HOOK, "conversation_id": room["id"]})

    refused(answer, 403, "forbidden")
    mine = await make(ada, **HOOK, conversation_id=room["id"])
    refused(await bob.http.get(f"/v1/endpoints/{mine['id']}"), 404, "not-found")


async def test_a_conversation_has_ten_endpoints_of_its_own(ada: Person) -> None:
    """Each of its messages is work for each of them."""
    talk = await ada.create()
    for _ in range(10):
        await make(ada, **HOOK, conversation_id=talk["id"])

    answer = await ada.http.post("/v1/endpoints", json={**HOOK, "conversation_id": talk["id"]})

    assert pointers(refused(answer, 422, "validation")) == [("/conversation_id", "too-many")]
    assert len(expect(await ada.http.get("/v1/endpoints?limit=100"), 200)["data"]) == 10


async def test_a_change_leaves_what_it_does_not_name(root: Person) -> None:
    """Null takes a limit away; the same again is no change, and If-Match lets one through."""
    made = await make(root, **QUIET, concurrency=4, per_minute=60, roles=["assistant"])
    del made["secret"]
    where = f"/v1/endpoints/{made['id']}"
    tag = (await root.http.get(where)).headers["etag"]

    paused = expect(
        await root.http.patch(where, json={"paused": True}, headers={"if-match": tag}), 200
    )

    assert paused == {**made, "paused": True, "state": "paused", "version": 2}
    assert expect(await root.http.patch(where, json={"paused": True}), 200) == paused
    refused(
        await root.http.patch(where, json={"paused": False}, headers={"if-match": tag}),
        412, "stale",
    )  # fmt: skip
    wider = expect(await root.http.patch(where, json={"concurrency": None, "roles": None}), 200)
    assert (wider["concurrency"], wider["roles"], wider["per_minute"]) == (None, None, 60)
    bad = await root.http.patch(where, json={"target": "https://10.0.0.1/"})
    assert pointers(refused(bad, 422, "validation")) == [("/target", "private-target")]


async def test_a_deleted_endpoint_cannot_come_back(root: Person) -> None:
    """Its id names what was sent, in the journal."""
    asked = {"id": str(uuid.uuid4()), **QUIET}
    await make(root, **asked)
    where = f"/v1/endpoints/{asked['id']}"

    assert (await root.http.delete(where)).status_code == 204

    refused(await root.http.delete(where), 404, "not-found")
    refused(await root.http.post("/v1/endpoints", json=asked), 410, "gone")
    listed = expect(await root.http.get("/v1/endpoints?limit=100"), 200)["data"]
    assert asked["id"] not in {one["id"] for one in listed}


# -- sources


async def test_sources_are_admins_and_show_their_secret_once(root: Person, ada: Person) -> None:
    """As endpoints do."""
    endpoint = await make(root, **BOT)
    asked = {
        "id": str(uuid.uuid4()), "name": "The form", "owner_id": ada.id,
        "endpoint_id": endpoint["id"], "debounce": 0.25,
    }  # fmt: skip
    made = expect(await root.http.post("/v1/sources", json=asked), 201)
    secret = made.pop("secret")
    where = f"/v1/sources/{made['id']}"

    assert check_secret(secret, "") is None
    assert {name: made[name] for name in asked} == asked
    assert expect(await root.http.post("/v1/sources", json=asked), 200)["secret"] is None
    refused(await root.http.post("/v1/sources", json={**asked, "name": "x"}), 409, "id-reused")
    for read in (where, "/v1/sources?limit=100"):
        assert secret not in (await root.http.get(read)).text
        refused(await ada.http.get(read), 403, "forbidden")
    changed = expect(await root.http.patch(where, json={"name": "Form", "endpoint_id": None}), 200)
    assert changed == {**made, "name": "Form", "endpoint_id": None, "version": 2}
    turned = expect(await root.http.post(f"{where}/rotate"), 200)
    assert turned["secret"] != secret
    assert (await root.http.delete(where)).status_code == 204
    refused(await root.http.get(where), 404, "not-found")


async def test_a_source_names_what_is_there(root: Person, ada: Person) -> None:
    """An agent, and an endpoint that is no conversation's."""
    talk = await ada.create()
    mine = await make(ada, **HOOK, conversation_id=talk["id"])
    form = {"name": "x", "owner_id": ada.id}

    for wrong, found in (
        ({"agent_id": str(uuid.uuid4())}, [("", "unknown")]),
        ({"endpoint_id": mine["id"]}, [("", "unknown")]),
        ({"owner_id": "service"}, [("/owner_id", "reserved")]),
        ({"debounce": -1}, [("/debounce", "range")]),
        ({"name": " "}, [("/name", "length")]),
        ({"adapter": "fax"}, [("/adapter", "choice")]),
    ):
        answer = await root.http.post("/v1/sources", json={**form, **wrong})
        assert pointers(refused(answer, 422, "validation")) == found


async def test_a_service_looks_after_conversations_endpoints(
    served: Served, root: Person, ada: Person
) -> None:
    """On its own account those of every conversation, never what is for all."""
    talk = await ada.create()
    general = await make(root, **QUIET)
    made = expect(await root.http.post("/v1/keys", json={"scope": "service", "name": "bot"}), 201)
    async with served.anonymous(authorization=f"Bearer {made['key']}") as bot:
        mine = expect(
            await bot.post("/v1/endpoints", json={**HOOK, "conversation_id": talk["id"]}), 201
        )
        assert mine["created_by"] == "service:bot"
        refused(await bot.get(f"/v1/endpoints/{general['id']}"), 404, "not-found")
        refused(await bot.post("/v1/endpoints", json=HOOK), 403, "forbidden")
        refused(await bot.get("/v1/sources"), 403, "forbidden")
    assert path(talk)
