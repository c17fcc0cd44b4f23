"""Promise: over HTTP a conversation changes under conditions, in the open, and can be caught up."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from helpers.api import Person, Served, expect, path, pointers, refused


async def said(person: Person, conversation: dict[str, Any], **query: Any) -> list[Any]:
    """What a page shows of each message."""
    page = expect(await person.http.get(f"{path(conversation)}/messages", params=query), 200)
    return [one["content"] for one in page["data"]]


# -- edits and deletions ---------------------------------------------------------------------------


async def test_an_edit_shows_the_new_text_and_keeps_the_old(ada: Person) -> None:
    """The answer is the message as it now is; its earlier texts are listed oldest first."""
    talk = await ada.talk(1)
    where = f"{path(talk)}/messages/1"
    for text in ("better", "best"):
        edited = expect(await ada.http.patch(where, json={"content": text}), 200)
    versions = expect(await ada.http.get(f"{where}/versions"), 200)

    assert edited == expect(await ada.http.get(where), 200)
    assert (edited["content"], edited["rev"]) == ("best", 4)
    assert edited["edited_at"] > edited["created_at"]
    assert versions["next_cursor"] is None
    assert [(one["content"], one["rev"]) for one in versions["data"]] == [
        ("message 1", 3),
        ("better", 4),
    ]
    assert {one["replaced_by"] for one in versions["data"]} == {ada.id}


async def test_an_edit_for_a_state_that_passed_is_refused(ada: Person) -> None:
    """If-Match with the ETag that was read; the answer's own ETag is good for the next."""
    talk = await ada.talk(1)
    where = f"{path(talk)}/messages/1"
    tag = {"if-match": (await ada.http.get(where)).headers["etag"]}
    first = await ada.http.patch(where, json={"content": "one"}, headers=tag)
    late = await ada.http.patch(where, json={"content": "two"}, headers=tag)
    again = await ada.http.patch(
        where, json={"content": "three"}, headers={"if-match": first.headers["etag"]}
    )

    expect(first, 200)
    refused(late, 412, "stale")
    assert expect(again, 200)["content"] == "three"


@pytest.mark.parametrize(
    ("body", "status", "faults"),
    [
        ({}, 422, [("/content", "missing")]),
        ({"content": ""}, 422, [("/content", "empty")]),
        ({"content": None}, 422, [("/content", "type")]),
        ({"content": "a\x00"}, 422, [("/content", "nul-character")]),
        ({"content": "x", "role": "system"}, 422, [("/role", "unknown-field")]),
    ],
)
async def test_an_edit_that_makes_no_sense_is_refused(
    ada: Person, body: Any, status: int, faults: list[tuple[str, str]]
) -> None:
    """With the place, and the message as it was."""
    talk = await ada.talk(1)
    problem = refused(
        await ada.http.patch(f"{path(talk)}/messages/1", json=body), status, "validation"
    )

    assert pointers(problem) == faults
    assert await said(ada, talk) == ["message 1"]


async def test_an_edit_may_be_no_larger_than_a_message(ada: Person) -> None:
    """413, as for a new one."""
    talk = await ada.talk(1)
    answer = await ada.http.patch(
        f"{path(talk)}/messages/1", json={"content": "x" * ((256 << 10) + 1)}
    )

    refused(answer, 413, "payload-too-large")


async def test_a_deleted_message_has_a_number_and_no_words(ada: Person) -> None:
    """204, again 204, and nothing of it in pages, alone, in contexts or among versions."""
    talk = await ada.talk(2)
    where = f"{path(talk)}/messages/1"
    await ada.http.patch(where, json={"content": "better"})
    for _ in range(2):
        answer = await ada.http.delete(where)
        assert (answer.status_code, answer.content) == (204, b"")
        assert "greffier-position" in answer.headers

    assert await said(ada, talk) == [None, "message 2"]
    one = expect(await ada.http.get(where), 200)
    assert (one["seq"], one["content"], one["deleted_at"] is None) == (1, None, False)
    assert expect(await ada.http.get(f"{where}/versions"), 200)["data"] == []
    context = expect(await ada.http.get(f"{path(talk)}/context"), 200)
    assert [message["content"] for message in context["messages"]] == ["message 2"]
    refused(await ada.http.patch(where, json={"content": "x"}), 404, "not-found")
    assert expect(await ada.http.get(path(talk)), 200)["message_count"] == 1


async def test_an_erased_message_is_nowhere(served: Served, ada: Person) -> None:
    """Its words are on no row of the database any more; its id is still its own."""
    talk = await ada.create()
    first = await ada.say(talk, "a secret of mine")
    where = f"{path(talk)}/messages/1"
    await ada.http.patch(where, json={"content": "a secret of mine, edited"})
    await ada.http.put(f"{where}/feedback", json={"rating": 1, "comment": "a secret of mine"})
    answer = await ada.http.delete(f"{where}?erase=true")
    rows = await served.database.slots.run(
        "select (select count(*) from greffier.messages m where m::text like $1)"
        " + (select count(*) from greffier.message_versions v where v::text like $1)"
        " + (select count(*) from greffier.feedback f where f::text like $1)",
        "%a secret of mine%",
        again=True,
    )

    assert answer.status_code == 204
    assert rows[0][0] == 0
    sent = {"id": first["id"], "content": "a secret of mine"}
    replay = expect(await ada.http.post(f"{path(talk)}/messages", json=sent), 200)["message"]
    assert (replay["seq"], replay["content"]) == (1, None)


# -- rewinding -------------------------------------------------------------------------------------


async def test_what_was_rewound_is_on_record_and_can_come_back(ada: Person) -> None:
    """The path ends where it was cut; the branch is listed, and activated it is the path again."""
    talk = await ada.talk(4)
    here = path(talk)
    done = expect(await ada.http.post(f"{here}/rewind", json={"after_seq": 2}), 200)
    await ada.say(talk, "instead")
    (branch,) = expect(await ada.http.get(f"{here}/branches"), 200)["data"]

    assert done == {"removed": 2, "rev": 3}
    assert await said(ada, talk) == ["message 1", "message 2", "instead"]
    assert len(await said(ada, talk, include="superseded")) == 5
    assert (branch["path"], branch["last_seq"], branch["preview"]) == ([[1, 4]], 4, "message 4")
    activated = await ada.http.post(f"{here}/branches/{branch['id']}/activate")
    assert expect(activated, 200) == {"rev": 5}
    assert await said(ada, talk) == [f"message {number}" for number in range(1, 5)]
    (left,) = expect(await ada.http.get(f"{here}/branches"), 200)["data"]
    assert left["path"] == [[1, 2], [5, 5]]


async def test_nothing_to_rewind_is_no_change(ada: Person) -> None:
    """0 removed, under the same rev."""
    talk = await ada.talk(2)

    done = expect(await ada.http.post(f"{path(talk)}/rewind", json={"after_seq": 2}), 200)

    assert done == {"removed": 0, "rev": 2}


@pytest.mark.parametrize("after", [-1, 5, 1 << 60, 1.5, "1", None])
async def test_a_rewind_to_nowhere_is_refused(ada: Person, after: Any) -> None:
    """It is 0 or a message on the path; a rewound one is on it no more."""
    talk = await ada.talk(4)
    await ada.http.post(f"{path(talk)}/rewind", json={"after_seq": 2})
    for wrong in (after, 3):
        answer = await ada.http.post(f"{path(talk)}/rewind", json={"after_seq": wrong})
        (fault,) = refused(answer, 422, "validation")["errors"]
        assert fault["pointer"] == "/after_seq"

    assert expect(await ada.http.get(path(talk)), 200)["rev"] == 3


async def test_an_archived_conversation_stays_as_it_is(ada: Person) -> None:
    """No edit, rewind or branch; a deletion is heeded still."""
    talk = await ada.talk(3)
    here = path(talk)
    await ada.http.post(f"{here}/rewind", json={"after_seq": 2})
    (branch,) = expect(await ada.http.get(f"{here}/branches"), 200)["data"]
    await ada.http.patch(here, json={"archived": True})
    for method, where, body in (
        ("PATCH", "messages/1", {"content": "x"}),
        ("POST", "rewind", {"after_seq": 1}),
        ("POST", f"branches/{branch['id']}/activate", None),
        ("POST", "messages", {"content": "x"}),
    ):
        answer = await ada.http.request(method, f"{here}/{where}", json=body)
        refused(answer, 409, "archived")

    assert (await ada.http.delete(f"{here}/messages/1")).status_code == 204


async def test_a_branch_that_is_none_is_not_there(ada: Person) -> None:
    """404, whatever its name."""
    talk = await ada.talk(1)
    for name in (str(uuid.uuid4()), "x", "1"):
        answer = await ada.http.post(f"{path(talk)}/branches/{name}/activate")
        refused(answer, 404, "not-found")


# -- catching up -----------------------------------------------------------------------------------


async def test_whoever_was_away_catches_up(ada: Person) -> None:
    """What changed, once and as it is now; what left the path; what it is like now."""
    talk = await ada.talk(3)
    here = path(talk)
    await ada.http.patch(f"{here}/messages/1", json={"content": "better"})
    await ada.http.post(f"{here}/rewind", json={"after_seq": 2})
    await ada.say(talk, "instead")
    found = expect(await ada.http.get(f"{here}/changes?since=2"), 200)

    assert (found["since"], found["rev"], found["reset"], found["next"]) == (2, 5, False, False)
    assert [(one["seq"], one["content"]) for one in found["messages"]] == [
        (1, "better"),
        (4, "instead"),
    ]
    assert found["superseded"] == [[3, 3]]
    assert found["conversation"] == expect(await ada.http.get(here), 200)
    assert found["participants"] is None
    nothing = expect(await ada.http.get(f"{here}/changes?since=5"), 200)
    assert (nothing["rev"], nothing["messages"], nothing["superseded"]) == (5, [], [])


async def test_people_and_their_marks_are_caught_up_with(ada: Person, bob: Person) -> None:
    """When somebody came, left or read."""
    room = await ada.create(kind="room")
    await ada.http.post(f"{path(room)}/participants", json={"user_id": bob.id})
    found = expect(await ada.http.get(f"{path(room)}/changes?since=1"), 200)

    assert [one["user_id"] for one in found["participants"]] == [ada.id, bob.id]
    assert [one["role"] for one in found["messages"]] == ["system"]


@pytest.mark.parametrize("query", ["since=99", "since=1&epoch=another", "since=9007199254740991"])
async def test_a_position_that_cannot_be_continued_says_so(ada: Person, query: str) -> None:
    """Ahead of us, or of another history: start from a page."""
    talk = await ada.talk(1)
    found = expect(await ada.http.get(f"{path(talk)}/changes?{query}"), 200)

    assert found["reset"] is True


@pytest.mark.parametrize("query", ["", "since=-1", "since=x", "since=1.5", "since=", "epoch=x"])
async def test_a_position_that_is_none_is_refused(ada: Person, query: str) -> None:
    """422 with the parameter."""
    talk = await ada.create()
    problem = refused(await ada.http.get(f"{path(talk)}/changes?{query}"), 422, "validation")

    assert [pointer for pointer, _ in pointers(problem)] == ["/since"]


# -- feedback --------------------------------------------------------------------------------------


async def test_a_thumb_is_given_changed_and_taken_back(ada: Person) -> None:
    """On a message and on the conversation, each user's own; the numbers count the last."""
    talk = await ada.talk(2)
    here = path(talk)
    for where in (f"{here}/feedback", f"{here}/messages/2/feedback"):
        first = expect(await ada.http.put(where, json={"rating": 1}), 200)
        second = expect(await ada.http.put(where, json={"rating": -1, "comment": "no"}), 200)
        assert (first["rating"], first["comment"], first["user_id"]) == (1, None, ada.id)
        assert (second["rating"], second["comment"]) == (-1, "no")
        assert first["at"] < second["at"]
    assert expect(await ada.http.get(f"{here}/stats"), 200)["feedback"] == {"up": 0, "down": 2}
    for where in (f"{here}/feedback", f"{here}/messages/2/feedback"):
        for _ in range(2):
            assert (await ada.http.delete(where)).status_code == 204
    assert expect(await ada.http.get(f"{here}/stats"), 200)["feedback"] == {"up": 0, "down": 0}
    assert expect(await ada.http.get(here), 200)["rev"] == talk["rev"] + 1


async def test_a_thumb_is_read_by_who_gave_it(ada: Person, bob: Person) -> None:
    """As it was last given, and by nobody else; none is 404, as is one on what was deleted."""
    room = await ada.create(kind="room", participants=[{"user_id": bob.id}])
    await ada.say(room, "hello")
    places = (f"{path(room)}/feedback", f"{path(room)}/messages/1/feedback")
    for where in places:
        refused(await ada.http.get(where), 404, "not-found")
        given = expect(await ada.http.put(where, json={"rating": 1, "comment": "très bien"}), 200)
        answer = await ada.http.get(where)
        assert expect(answer, 200) == given
        tag = {"if-none-match": answer.headers["etag"]}
        assert (await ada.http.get(where, headers=tag)).status_code == 304
        refused(await bob.http.get(where), 404, "not-found")

    await ada.http.delete(places[0])
    await ada.http.delete(f"{path(room)}/messages/1")
    for where in places:
        refused(await ada.http.get(where), 404, "not-found")
    await ada.http.delete(path(room))
    refused(await ada.http.get(places[0]), 410, "gone")


@pytest.mark.parametrize(
    "body", [{}, {"rating": 0}, {"rating": 2}, {"rating": "1"}, {"rating": 1, "comment": "\x00"}]
)
async def test_a_thumb_points_up_or_down(ada: Person, body: Any) -> None:
    """1 or -1, and a word that can be kept."""
    talk = await ada.talk(1)
    for where in ("feedback", "messages/1/feedback"):
        refused(await ada.http.put(f"{path(talk)}/{where}", json=body), 422, "validation")
    long = {"rating": 1, "comment": "x" * 5000}
    refused(await ada.http.put(f"{path(talk)}/feedback", json=long), 413, "payload-too-large")
    refused(
        await ada.http.put(f"{path(talk)}/messages/9/feedback", json={"rating": 1}),
        404,
        "not-found",
    )
