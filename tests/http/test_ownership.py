"""Promise: what is yours is nobody else's; a stranger learns nothing, not even that it exists."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from helpers.api import Person, expect, path, refused

EVERYTHING: list[tuple[str, str, Any]] = [
    ("GET", "", None),
    ("PATCH", "", {"title": "mine"}),
    ("DELETE", "", None),
    ("GET", "/messages", None),
    ("POST", "/messages", {"content": "x"}),
    ("POST", "/messages", {"messages": [{"content": "x"}, {"content": "y"}]}),
    ("GET", "/messages/1", None),
    ("GET", "/context", None),
    ("GET", "/stats", None),
    ("GET", "/export", None),
]


@pytest.mark.parametrize(("method", "where", "body"), EVERYTHING)
async def test_a_stranger_finds_nothing(
    ada: Person, bob: Person, method: str, where: str, body: Any
) -> None:
    """The answer to a stranger is the answer to whoever asks for what never was."""
    made = await ada.talk(1)
    never = {"id": str(uuid.uuid4())}

    theirs = refused(
        await bob.http.request(method, path(made) + where, json=body), 404, "not-found"
    )
    nothing = refused(
        await bob.http.request(method, path(never) + where, json=body), 404, "not-found"
    )

    theirs.pop("request_id")
    nothing.pop("request_id")
    assert theirs == nothing
    assert expect(await ada.http.get(path(made)), 200)["rev"] == 2


@pytest.mark.parametrize(("method", "where", "body"), EVERYTHING)
async def test_an_id_that_is_none_finds_nothing(
    ada: Person, method: str, where: str, body: Any
) -> None:
    """Whatever its form, it is not there."""
    for name in ("1", "urn:uuid:" + str(uuid.uuid4()), uuid.uuid4().hex, "x%00y", "%C3%A9" * 18):
        answer = await ada.http.request(method, f"/v1/conversations/{name}{where}", json=body)
        refused(answer, 404, "not-found")


async def test_a_conversation_s_id_is_no_way_in(ada: Person, bob: Person) -> None:
    """Creating under a stranger's id is refused without a word about theirs."""
    made = await ada.create(title="secret plans")

    answer = await bob.http.post("/v1/conversations", json={"id": made["id"], "title": "x"})

    assert "secret" not in str(refused(answer, 409, "id-reused"))


async def test_an_admin_sees_and_changes_everything(ada: Person, root: Person) -> None:
    """And what they say is theirs."""
    made = await ada.talk(1)

    seen = expect(await root.http.get(path(made)), 200)
    said = await root.say(made, "from the house")
    expect(await root.http.patch(path(made), json={"title": "renamed"}), 200)
    page = expect(await root.http.get(f"{path(made)}/messages"), 200)

    assert seen["me"] is None
    assert (said["author_id"], said["written_by"]) == (root.id, root.id)
    assert page["total"] == 2
    assert expect(await ada.http.get(path(made)), 200)["title"] == "renamed"
    assert (await root.http.delete(path(made))).status_code == 204
    refused(await ada.http.get(path(made)), 410, "gone")


async def test_an_admin_has_a_place_of_their_own(ada: Person, root: Person) -> None:
    """Their list is theirs, and in their conversation they are the owner."""
    await ada.create()
    made = await root.create()

    listing = expect(await root.http.get("/v1/conversations"), 200)

    assert [one["id"] for one in listing["data"]] == [made["id"]]
    assert made["me"]["role"] == "owner"
    assert expect(await root.http.get(path(made)), 200) == made


async def test_in_a_room_people_speak_for_themselves(ada: Person, bob: Person) -> None:
    """Members see it and write as users; what only an owner may is forbidden, not hidden."""
    room = await ada.create(kind="room", participants=[{"user_id": bob.id}])

    said = await bob.say(room, "hello")
    as_model = await bob.http.post(
        f"{path(room)}/messages", json={"role": "assistant", "content": "x"}
    )

    assert (said["author_id"], said["author_name"]) == (bob.id, "Bob")
    assert expect(await bob.http.get(path(room)), 200)["me"]["role"] == "member"
    refused(as_model, 403, "forbidden")
    refused(await bob.http.patch(path(room), json={"title": "x"}), 403, "forbidden")
    refused(await bob.http.delete(path(room)), 403, "forbidden")


async def test_a_user_is_known_by_the_name_last_claimed(ada: Person, bob: Person) -> None:
    """Whoever comes is made on first sight; a page names its authors as they are called today."""
    room = await ada.create(kind="room", participants=[{"user_id": bob.id}])
    await bob.say(room, "hello")

    page = expect(await ada.http.get(f"{path(room)}/messages"), 200)

    assert page["authors"] == {bob.id: {"name": "Bob", "role": "member"}}
