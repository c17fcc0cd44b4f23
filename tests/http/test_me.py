"""Promise: what is yours is counted, taken along whole, and gone when you say so."""

from __future__ import annotations

import json
from typing import Any

import httpx2

from greffier.library import Greffier
from greffier.store.database import open_database
from helpers.api import Person, Served, expect, path, refused
from helpers.importing import Desk
from helpers.keys import make_key
from helpers.postgres import new_database


def lines(answer: httpx2.Response) -> list[dict[str, Any]]:
    """The objects of a file of them."""
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


# -- stats -----------------------------------------------------------------------------------------


async def test_who_has_said_nothing_has_nothing(ada: Person) -> None:
    """Zeros, not an error."""
    assert expect(await ada.http.get("/v1/me/stats"), 200) == {
        "conversations": 0,
        "archived": 0,
        "messages": {"user": 0, "assistant": 0, "tool": 0, "system": 0},
        "tokens": 0,
        "unread": 0,
        "first_at": None,
        "last_at": None,
    }


async def test_everything_in_my_conversations_counts(ada: Person, bob: Person) -> None:
    """Own and others' I am in, archived too; not what was deleted or rewound, nor what I left."""
    first = await ada.talk(5)
    await ada.http.delete(f"{path(first)}/messages/1")
    await ada.http.post(f"{path(first)}/rewind", json={"after_seq": 4})
    archived = await ada.talk(1)
    await ada.http.patch(path(archived), json={"archived": True})
    people = [{"user_id": ada.id}]
    room = await bob.create(kind="room", participants=people)
    await bob.say(room, "good morning")
    left = await bob.create(kind="room", participants=people)
    await bob.say(left, "good night")
    await ada.http.delete(f"{path(left)}/participants/{ada.id}")
    await bob.talk(3)

    mine = expect(await ada.http.get("/v1/me/stats"), 200)

    assert (mine["conversations"], mine["archived"]) == (3, 1)
    assert mine["messages"] == {"user": 3, "assistant": 2, "tool": 0, "system": 0}
    assert mine["unread"] == 3
    assert mine["tokens"] > 0
    assert mine["first_at"] < mine["last_at"]


# -- export ----------------------------------------------------------------------------------------


async def test_everything_of_mine_is_in_the_file(served: Served, ada: Person, bob: Person) -> None:
    """Profile, keys, conversations with all that was said, rewound or edited, and my marks."""
    program = await make_key(served, ada, "user", name="my script")
    await program.http.aclose()
    talk = await ada.talk(3, title="Plans")
    await ada.http.patch(f"{path(talk)}/messages/1", json={"content": "better"})
    await ada.http.post(f"{path(talk)}/rewind", json={"after_seq": 2})
    room = await bob.create(kind="room", participants=[{"user_id": ada.id}])
    await bob.say(room, "good morning")
    await ada.say(room, "good day")
    await ada.http.put(f"{path(room)}/feedback", json={"rating": 1, "comment": "lively"})
    await bob.http.put(f"{path(room)}/feedback", json={"rating": -1, "comment": "not mine"})
    await ada.http.put(f"{path(room)}/messages/1/feedback", json={"rating": -1})
    await ada.http.put(f"{path(room)}/read", json={"seq": 2})
    invited = expect(await ada.http.post(f"{path(room)}/invitations", json={}), 201)
    expect(await bob.http.post(f"{path(room)}/invitations", json={}), 201)
    await bob.create(title="not mine")

    answer = await ada.http.get("/v1/me/export")
    profile, *rest = lines(answer)

    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.headers["content-disposition"] == 'attachment; filename="greffier-export.jsonl"'
    assert profile["profile"]["id"] == ada.id
    assert profile["profile"]["name"] == "Ada"
    assert [(key["id"], key["name"]) for key in profile["keys"]] == [(program.id, "my script")]
    heads = {line["conversation"]["id"]: line for line in rest if "conversation" in line}
    assert heads.keys() == {talk["id"], room["id"]}
    assert heads[talk["id"]]["conversation"]["me"]["role"] == "owner"
    mine = heads[room["id"]]
    assert {one["user_id"] for one in mine["participants"]} == {ada.id, bob.id}
    assert [(one["seq"], one["rating"], one["comment"]) for one in mine["feedback"]] == [
        (None, 1, "lively"),
        (1, -1, None),
    ]
    assert [one["seq"] for one in mine["read_marks"]] == [2]
    assert [one["id"] for one in mine["invitations"]] == [invited["id"]]
    said = [(line["conversation_id"], line["content"]) for line in rest if "content" in line]
    assert sorted(said) == sorted(
        [
            (talk["id"], "better"),
            (talk["id"], "message 2"),
            (room["id"], "good morning"),
            (room["id"], "good day"),
        ]
    )
    (rewound,) = (line["superseded"] for line in rest if "superseded" in line)
    (version,) = (line["version"] for line in rest if "version" in line)
    assert (rewound["conversation_id"], rewound["content"]) == (talk["id"], "message 3")
    assert (version["conversation_id"], version["seq"]) == (talk["id"], 1)
    assert version["content"] == "message 1"
    for secret in (program.key, invited["token"], "not mine", "key_hash"):
        assert secret not in answer.text


async def test_a_file_of_somebody_new_is_their_profile(ada: Person) -> None:
    """A line, and nothing after it."""
    (profile,) = lines(await ada.http.get("/v1/me/export"))

    assert profile["profile"]["id"] == ada.id
    assert profile["keys"] == []


async def test_what_was_deleted_or_erased_is_in_no_file(ada: Person) -> None:
    """Its number is there; its words, earlier ones too, are not."""
    talk = await ada.talk(2)
    for seq in (1, 2):
        await ada.http.patch(f"{path(talk)}/messages/{seq}", json={"content": f"secret {seq}"})
    await ada.http.delete(f"{path(talk)}/messages/1")
    await ada.http.delete(f"{path(talk)}/messages/2?erase=true")

    answer = await ada.http.get("/v1/me/export")

    assert [line["content"] for line in lines(answer)[2:]] == [None, None]
    assert "secret" not in answer.text
    assert "message" not in answer.text.replace("message_count", "").replace("last_message", "")


async def test_an_import_reads_the_file_back(
    ada: Person, bob: Person, postgres: str, template: str
) -> None:
    """Elsewhere, conversations and what was said in them; what else is in it is set aside."""
    talk = await ada.talk(3, title="Plans")
    room = await bob.create(kind="room", participants=[{"user_id": ada.id}])
    await ada.say(room, "good day")
    file = (await ada.http.get("/v1/me/export")).content
    async with (
        new_database(postgres, f"template {template}") as dsn,
        open_database(dsn) as database,
    ):
        desk = Desk(Greffier(database))
        account = await desk.take(file, owner=None)
        said = await desk.said(talk["id"])

    assert said == ["message 1", "message 2", "message 3"]
    assert account.mapped == 4
    # The profile, which is no conversation.
    assert [fault.reason for fault in desk.faults] == ["no-conversation"]


# -- forgetting ------------------------------------------------------------------------------------


async def test_who_says_so_is_forgotten(served: Served, ada: Person, bob: Person) -> None:
    """Own conversations are gone, in others they are nobody, and their keys open nothing."""
    program = await make_key(served, ada, "user")
    talk = await ada.talk(2)
    room = await bob.create(kind="room", participants=[{"user_id": ada.id}])
    await ada.say(room, "good day")
    async with program.http:
        expect(await program.http.get("/v1/me"), 200)
        answer = await ada.http.delete("/v1/me")
        refused(await program.http.get("/v1/me"), 401, "unauthenticated")

    assert answer.status_code == 204
    assert answer.content == b""
    refused(await ada.http.get(path(talk)), 410, "gone")
    refused(await ada.http.get(path(room)), 404, "not-found")
    page = expect(await bob.http.get(f"{path(room)}/messages"), 200)
    (said,) = (one for one in page["data"] if one["content"] == "good day")
    assert said["author_name"] is None
    assert ada.id not in json.dumps(page)


async def test_a_token_that_names_the_forgotten_names_somebody_new(ada: Person) -> None:
    """Who comes with it again begins afresh, and is known again by the name it claims."""
    await ada.talk(1)
    for _ in range(2):
        assert (await ada.http.delete("/v1/me")).status_code == 204

    assert expect(await ada.http.get("/v1/conversations"), 200)["data"] == []
    await ada.create()
    (profile, _) = lines(await ada.http.get("/v1/me/export"))
    assert profile["profile"]["name"] == "Ada"


async def test_a_service_has_its_user_forgotten(served: Served, ada: Person, root: Person) -> None:
    """As somebody who closes their account with it wants."""
    talk = await ada.talk(1)
    program = await make_key(served, root, "service")
    async with program.http:
        answer = await program.http.delete("/v1/me", headers=program.acting(ada.id))
        alone = await program.http.delete("/v1/me")

    assert answer.status_code == 204
    refused(alone, 403, "forbidden")
    refused(await ada.http.get(path(talk)), 410, "gone")
