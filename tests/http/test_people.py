"""Promise: over HTTP people come, read and go, and everybody who is there is told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from helpers.api import Person, Served, expect, path, pointers, refused


async def people(person: Person, conversation: dict[str, Any]) -> list[tuple[str, str]]:
    """Who is in a conversation, and as what."""
    found = expect(await person.http.get(f"{path(conversation)}/participants"), 200)
    assert found["next_cursor"] is None
    return [(one["user_id"], one["role"]) for one in found["data"]]


async def told(person: Person, conversation: dict[str, Any]) -> list[str]:
    """What system messages say."""
    page = expect(await person.http.get(f"{path(conversation)}/messages"), 200)
    return [one["content"] for one in page["data"] if one["role"] == "system"]


async def token(person: Person, conversation: dict[str, Any], **body: Any) -> str:
    """The token of a new invitation."""
    made = await person.http.post(f"{path(conversation)}/invitations", json=body)
    found: str = expect(made, 201)["token"]
    return found


# -- participants ----------------------------------------------------------------------------------


async def test_somebody_brought_in_is_there_and_everybody_is_told(ada: Person, bob: Person) -> None:
    """201 for who is new, 200 for who was in; a new role takes the place of the old."""
    room = await ada.create(kind="room")
    where = f"{path(room)}/participants"
    expect(await bob.http.get("/v1/me"), 200)
    first = await ada.http.post(where, json={"user_id": bob.id})
    same = await ada.http.post(where, json={"user_id": bob.id})
    other = await ada.http.post(where, json={"user_id": bob.id, "role": "viewer"})

    came = expect(first, 201)
    assert came == {
        "user_id": bob.id,
        "name": "Bob",
        "role": "member",
        "joined_at": came["joined_at"],
        "last_read_seq": 0,
    }
    assert expect(same, 200) == came
    assert expect(other, 200) == {**came, "role": "viewer"}
    assert await people(bob, room) == [(ada.id, "owner"), (bob.id, "viewer")]
    assert await told(bob, room) == ["Bob joined"]
    listed = expect(await bob.http.get("/v1/conversations"), 200)["data"]
    assert [one["id"] for one in listed] == [room["id"]]


async def test_who_leaves_sees_nothing_more_and_those_who_stay_are_told(
    ada: Person, bob: Person
) -> None:
    """Whether they go or are taken out; they may come back."""
    room = await ada.create(kind="room", participants=[{"user_id": bob.id}])
    where = f"{path(room)}/participants"
    for person in (bob, ada):
        gone = await person.http.delete(f"{where}/{bob.id}")
        assert gone.status_code == 204
        refused(await bob.http.get(path(room)), 404, "not-found")
        refused(await ada.http.delete(f"{where}/{bob.id}"), 404, "not-found")
        assert expect(await bob.http.get("/v1/conversations"), 200)["data"] == []
        expect(await ada.http.post(where, json={"user_id": bob.id}), 201)

    assert await told(ada, room) == ["Bob left", "Bob joined"] * 2


async def test_a_room_is_handed_over(ada: Person, bob: Person) -> None:
    """Its owner cannot just go; whoever it is handed to owns it, and the former owner stays."""
    room = await ada.create(kind="room", participants=[{"user_id": bob.id}])
    where = f"{path(room)}/participants"
    refused(await ada.http.delete(f"{where}/{ada.id}"), 403, "forbidden")
    refused(await ada.http.patch(f"{where}/{ada.id}", json={"role": "member"}), 403, "forbidden")
    handed = await ada.http.patch(f"{where}/{bob.id}", json={"role": "owner"})

    assert expect(handed, 200)["role"] == "owner"
    assert sorted(await people(ada, room)) == sorted([(ada.id, "member"), (bob.id, "owner")])
    assert expect(await ada.http.get(path(room)), 200)["owner_id"] == bob.id
    refused(await ada.http.patch(path(room), json={"title": "mine"}), 403, "forbidden")
    assert (await ada.http.delete(f"{where}/{ada.id}")).status_code == 204


async def test_an_assistant_s_conversation_stays_its_owner_s(ada: Person, bob: Person) -> None:
    """Only a room is handed over."""
    talk = await ada.create(participants=[{"user_id": bob.id}])
    answer = await ada.http.patch(f"{path(talk)}/participants/{bob.id}", json={"role": "owner"})

    refused(answer, 422, "validation")


async def test_who_is_not_there_has_no_role(ada: Person, bob: Person) -> None:
    """404 for a participant who is none."""
    room = await ada.create(kind="room")
    where = f"{path(room)}/participants/{bob.id}"

    refused(await ada.http.patch(where, json={"role": "viewer"}), 404, "not-found")
    refused(await ada.http.delete(where), 404, "not-found")


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ({}, ("/user_id", "missing")),
        ({"user_id": ""}, ("/user_id", "empty")),
        ({"user_id": "a" * 257}, ("/user_id", "too-long")),
        ({"user_id": "a\x00"}, ("/user_id", "nul-character")),
        ({"user_id": "x", "role": "admin"}, ("/role", "choice")),
        ({"user_id": "x", "name": "X"}, ("/name", "unknown-field")),
    ],
)
async def test_who_cannot_be_anybody_is_refused(
    ada: Person, body: Any, fault: tuple[str, str]
) -> None:
    """With the place that is wrong."""
    room = await ada.create(kind="room")
    problem = refused(
        await ada.http.post(f"{path(room)}/participants", json=body), 422, "validation"
    )

    assert pointers(problem) == [fault]


async def test_who_may_not_is_told_why(ada: Person, bob: Person) -> None:
    """In words about them, not only that they may not."""
    room = await ada.create(kind="room", participants=[{"user_id": bob.id}])
    asked = (
        (ada.http.delete(f"{path(room)}/participants/{ada.id}"), "hands the room over"),
        (bob.http.delete(f"{path(room)}/participants/{ada.id}"), "role"),
        (
            bob.http.post(f"{path(room)}/messages", json={"role": "assistant", "content": "x"}),
            "role user",
        ),
        (bob.http.patch(f"{path(room)}/messages/1", json={"content": "x"}), "author"),
    )
    await ada.say(room, "hello")
    for ask, why in asked:
        assert why in refused(await ask, 403, "forbidden")["detail"]


# -- invitations -----------------------------------------------------------------------------------


async def test_an_invitation_lets_in_whoever_has_its_token(ada: Person, bob: Person) -> None:
    """As what it says; the token is shown once, and no list has it."""
    room = await ada.create(kind="room")
    made = expect(
        await ada.http.post(f"{path(room)}/invitations", json={"role": "viewer", "max_uses": 5}),
        201,
    )
    came = expect(await bob.http.post("/v1/invitations/accept", json={"token": made["token"]}), 200)
    listed = await ada.http.get(f"{path(room)}/invitations")

    assert came == expect(await bob.http.get(path(room)), 200)
    assert came["me"]["role"] == "viewer"
    (one,) = expect(listed, 200)["data"]
    assert (one["id"], one["uses"], one["max_uses"]) == (made["id"], 1, 5)
    assert one["created_by"] == ada.id
    assert made["token"] not in listed.text
    again = await bob.http.post("/v1/invitations/accept", json={"token": made["token"]})
    assert expect(again, 200)["id"] == room["id"]
    assert expect(await ada.http.get(f"{path(room)}/invitations"), 200)["data"][0]["uses"] == 1


async def test_an_invitation_ends(ada: Person, bob: Person, root: Person) -> None:
    """When it is revoked, or used up; its owner sees for how long it would have lived."""
    room = await ada.create(kind="room")
    used = await token(ada, room, max_uses=1)
    expect(await root.http.post("/v1/invitations/accept", json={"token": used}), 200)
    made = expect(await ada.http.post(f"{path(room)}/invitations", json={"expires_in": 60}), 201)
    revoked = await ada.http.delete(f"{path(room)}/invitations/{made['id']}")
    ends = datetime.fromisoformat(made["expires_at"]) - datetime.now(UTC)

    assert timedelta(0) < ends <= timedelta(seconds=60)
    assert revoked.status_code == 204
    for dead in (used, made["token"], "gri_" + "a" * 43, "x", "é"):
        answer = await bob.http.post("/v1/invitations/accept", json={"token": dead})
        refused(answer, 404, "not-found")
    refused(await ada.http.delete(f"{path(room)}/invitations/{made['id']}"), 404, "not-found")
    assert expect(await ada.http.get(f"{path(room)}/invitations"), 200)["data"] == []


async def test_members_invite_and_see_what_they_made(ada: Person, bob: Person) -> None:
    """The owner sees and revokes all."""
    room = await ada.create(kind="room", participants=[{"user_id": bob.id}])
    where = f"{path(room)}/invitations"
    hers, his = [expect(await p.http.post(where, json={}), 201)["id"] for p in (ada, bob)]

    assert [one["id"] for one in expect(await bob.http.get(where), 200)["data"]] == [his]
    assert [one["id"] for one in expect(await ada.http.get(where), 200)["data"]] == [his, hers]
    refused(await bob.http.delete(f"{where}/{hers}"), 403, "forbidden")
    assert (await ada.http.delete(f"{where}/{his}")).status_code == 204


@pytest.mark.parametrize(
    "body",
    [
        {"role": "owner"},
        {"expires_in": 0},
        {"expires_in": -1},
        {"expires_in": 1e12},
        {"max_uses": 0},
        {"max_uses": 1 << 31},
        {"max_uses": 1.5},
        {"token": "gri_mine"},
    ],
)
async def test_an_invitation_that_makes_no_sense_is_refused(ada: Person, body: Any) -> None:
    """Nobody is invited to own, for ever backwards, or half a time."""
    room = await ada.create(kind="room")
    answer = await ada.http.post(f"{path(room)}/invitations", json=body)

    refused(answer, 422, "validation")


# -- reading ---------------------------------------------------------------------------------------


async def test_a_mark_moves_forward_alone(ada: Person, bob: Person) -> None:
    """Never back, and at most to the last message; what is unread follows it."""
    room = await ada.create(kind="room", participants=[{"user_id": bob.id}])
    for number in range(3):
        await ada.say(room, f"message {number}")
    marks = [
        expect(await bob.http.put(f"{path(room)}/read", json={"seq": seq}), 200)
        for seq in (2, 1, 99)
    ]

    assert [mark["last_read_seq"] for mark in marks] == [2, 2, 3]
    assert [mark["rev"] for mark in marks] == [5, 5, 6]
    assert expect(await bob.http.get(path(room)), 200)["me"] == {
        "role": "member",
        "last_read_seq": 3,
        "unread": 0,
    }
    refused(await bob.http.put(f"{path(room)}/read", json={"seq": -1}), 422, "validation")


async def test_who_has_read_is_told_and_never_the_author(ada: Person, bob: Person) -> None:
    """By message, and on a page that asks for it."""
    room = await ada.create(kind="room", participants=[{"user_id": bob.id}])
    await ada.say(room, "one")
    await ada.say(room, "two")
    for person, seq in ((ada, 2), (bob, 1)):
        expect(await person.http.put(f"{path(room)}/read", json={"seq": seq}), 200)
    here = f"{path(room)}/messages"
    readers = [expect(await ada.http.get(f"{here}/{seq}/readers"), 200) for seq in (1, 2)]
    page = expect(await ada.http.get(f"{here}?include=read_by"), 200)

    assert [[one["user_id"] for one in found] for found in readers] == [[bob.id], []]
    assert [one["read_by"] for one in page["data"]] == readers
    refused(await ada.http.get(f"{here}/9/readers"), 404, "not-found")


async def test_a_name_with_a_slash_in_it_is_reached(served: Served) -> None:
    """In a path it is written %2F, for people and for subjects."""
    ada = served.person("ada")
    async with ada.http as http:
        made = await http.post("/v1/conversations", json={"kind": "room"})
        people = f"/v1/conversations/{made.json()['id']}/participants"
        await http.post(people, json={"user_id": "auth0|école/42"})
        changed = await http.patch(f"{people}/auth0%7C%C3%A9cole%2F42", json={"role": "viewer"})
        said = await http.post("/v1/subjects/maths%2Falg%C3%A8bre/messages", json={"content": "x"})

    assert changed.json()["user_id"] == "auth0|école/42"
    assert said.json()["conversation"]["subject"] == "maths/algèbre"
