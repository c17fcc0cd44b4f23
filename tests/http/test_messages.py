"""Promise: a message is put on record once, and read as it was said."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest

from helpers.api import Person, expect, path, pointers, refused

CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"a":1}'}}


async def test_a_message_is_answered_as_it_stands(ada: Person) -> None:
    """With its number, author and rev, the same as when it is read."""
    made = await ada.create()

    answer = await ada.http.post(f"{path(made)}/messages", json={"content": "Bonjour, été 🎈"})

    body = expect(answer, 201)
    said = body["message"]
    assert body["rev"] == said["rev"] == 2
    assert (said["seq"], said["parent_seq"], said["role"]) == (1, None, "user")
    assert (said["author_id"], said["author_name"], said["written_by"]) == (ada.id, "Ada", ada.id)
    assert said["content"] == "Bonjour, été 🎈"
    assert answer.headers["greffier-position"]
    assert expect(await ada.http.get(f"{path(made)}/messages/1"), 200) == said


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "tool_calls": [CALL], "reasoning": "I should look."},
        {"role": "tool", "tool_call_id": "call_1", "content": "found"},
        {"role": "system", "content": "Be kind.", "name": "house"},
        {"content": "x", "metadata": {"deep": [1, 2.5, None, {"é": "\\"}]}},
        {
            "parts": [
                {"type": "text", "text": "a"},
                {"type": "image_url", "image_url": {"url": "u"}},
            ]
        },
        {"content": "x", "said_at": "2020-02-29T23:59:59.123456+02:00"},
        {"content": "x", "said_at": "0002-01-01T00:00:00+14:00"},
        {"content": "x", "said_at": "9998-12-31T23:59:59.999999-12:00"},
    ],
    ids=["calls", "result", "system", "metadata", "parts", "said-at", "first-day", "last-day"],
)
async def test_every_kind_of_message_is_kept(ada: Person, message: dict[str, Any]) -> None:
    """What was sent comes back, as it was stored and as it is read."""
    made = await ada.create()

    said = expect(await ada.http.post(f"{path(made)}/messages", json=message), 201)["message"]

    for name, value in message.items():
        if name != "said_at":
            assert said[name] == value
    assert expect(await ada.http.get(f"{path(made)}/messages/1"), 200) == said


async def test_a_batch_is_one_rev(ada: Person) -> None:
    """Several messages are numbered in their order and answered in it."""
    made = await ada.create()
    batch = [{"content": "a"}, {"role": "assistant", "content": "b"}, {"content": "c"}]

    answer = await ada.http.post(f"{path(made)}/messages", json={"messages": batch})

    body = expect(answer, 201)
    assert [(one["seq"], one["content"]) for one in body["messages"]] == [
        (1, "a"),
        (2, "b"),
        (3, "c"),
    ]
    assert {one["rev"] for one in body["messages"]} == {body["rev"]} == {2}


async def test_a_batch_with_a_fault_stores_nothing(ada: Person) -> None:
    """All or none; the fault is told with its place."""
    made = await ada.create()
    batch = [{"content": "a"}, {"content": ""}]

    answer = await ada.http.post(f"{path(made)}/messages", json={"messages": batch})

    assert pointers(refused(answer, 422, "validation")) == [("/messages/1/content", "empty")]
    assert expect(await ada.http.get(f"{path(made)}/messages"), 200)["total"] == 0


async def test_the_same_message_fifty_times_at_once_is_one(ada: Person) -> None:
    """One request is answered 201, all others 200, all with the same message."""
    made = await ada.create()
    body = {"id": str(uuid.uuid4()), "content": "once"}

    answers = await asyncio.gather(
        *(ada.http.post(f"{path(made)}/messages", json=body) for _ in range(50))
    )

    assert sorted(answer.status_code for answer in answers) == [200] * 49 + [201]
    assert len({answer.text for answer in answers}) == 1
    assert expect(await ada.http.get(f"{path(made)}/messages"), 200)["total"] == 1


async def test_an_id_with_other_words_is_refused(ada: Person) -> None:
    """And the refusal tells nothing of the first."""
    made = await ada.create()
    body = {"id": str(uuid.uuid4()), "content": "secret"}
    await ada.say(made, **body)

    answer = await ada.http.post(f"{path(made)}/messages", json={**body, "content": "other"})

    assert "secret" not in str(refused(answer, 409, "id-reused"))


async def test_the_order_of_members_does_not_make_other_words(ada: Person) -> None:
    """A client whose JSON library writes an object in another order sends the same message."""
    made = await ada.create()
    where = f"{path(made)}/messages"
    said = {"type": "image_url", "image_url": {"url": "https://example.org/a.png", "detail": "low"}}
    body = {"id": str(uuid.uuid4()), "parts": [said], "metadata": {"b": {"d": 1, "c": 2}, "a": 3}}
    turned = {
        "metadata": {"a": 3, "b": {"c": 2, "d": 1}},
        "parts": [dict(reversed(said.items()))],
        "id": body["id"],
    }

    first = expect(await ada.http.post(where, json=body), 201)

    assert expect(await ada.http.post(where, json=turned), 200) == first


async def test_a_replayed_batch_answers_200_with_what_is_there(ada: Person) -> None:
    """And a batch with one new message answers 201, the old ones as they are."""
    made = await ada.create()
    batch = [{"id": str(uuid.uuid4()), "content": str(n)} for n in range(3)]
    where = f"{path(made)}/messages"

    first = expect(await ada.http.post(where, json={"messages": batch}), 201)
    again = expect(await ada.http.post(where, json={"messages": batch}), 200)
    more = expect(await ada.http.post(where, json={"messages": [*batch, {"content": "new"}]}), 201)

    assert again == first
    assert more["messages"][:3] == first["messages"]
    assert (more["messages"][3]["seq"], more["rev"]) == (4, 3)


async def test_an_idempotency_key_makes_ids(ada: Person) -> None:
    """Of one message, and of each message of a batch that brings none."""
    made = await ada.create()
    where = f"{path(made)}/messages"
    header = {"idempotency-key": "k1"}
    own = str(uuid.uuid4())
    batch = {"messages": [{"content": "a"}, {"id": own, "content": "b"}, {"content": "c"}]}

    one = expect(await ada.http.post(where, json={"content": "x"}, headers=header), 201)
    one_again = expect(await ada.http.post(where, json={"content": "x"}, headers=header), 200)
    many = expect(await ada.http.post(where, json=batch, headers=header), 201)
    many_again = expect(await ada.http.post(where, json=batch, headers=header), 200)

    assert one == one_again
    assert many == many_again
    assert many["messages"][1]["id"] == own
    assert expect(await ada.http.get(where), 200)["total"] == 4
    refused(await ada.http.post(where, json={"content": "y"}, headers=header), 409, "id-reused")


@pytest.mark.parametrize("seq", ["0", "2", "x", "-1", "1.0", "٣", "9" * 19, "9" * 40])
async def test_a_seq_that_is_not_there_is_not_found(ada: Person, seq: str) -> None:
    """Whether no number, out of range, or not said yet."""
    made = await ada.talk(1)

    refused(await ada.http.get(f"{path(made)}/messages/{seq}"), 404, "not-found")


async def test_pages_lead_through_the_whole_conversation(ada: Person) -> None:
    """The latest page, what is before, after and around; each says what lies beyond it."""
    made = await ada.talk(10)

    async def page(query: str) -> tuple[list[int], bool, bool]:
        body = expect(await ada.http.get(f"{path(made)}/messages?{query}"), 200)
        assert (body["total"], body["rev"], body["epoch"]) == (10, 2, made["epoch"])
        assert body["authors"] == {ada.id: {"name": "Ada", "role": "owner"}}
        return [one["seq"] for one in body["data"]], body["has_before"], body["has_after"]

    assert await page("") == (list(range(1, 11)), False, False)
    assert await page("limit=3") == ([8, 9, 10], True, False)
    assert await page("limit=3&before=8") == ([5, 6, 7], True, True)
    assert await page("limit=3&before=3") == ([1, 2], False, True)
    assert await page("limit=3&after=5") == ([6, 7, 8], True, True)
    assert await page("limit=3&around=5") == ([4, 5, 6], True, True)


async def test_a_page_of_nothing_is_a_page(ada: Person) -> None:
    """An empty conversation has an empty page."""
    made = await ada.create()

    page = expect(await ada.http.get(f"{path(made)}/messages"), 200)

    assert (page["data"], page["has_before"], page["has_after"], page["authors"]) == (
        [],
        False,
        False,
        {},
    )


@pytest.mark.parametrize(
    ("query", "fault"),
    [
        ("limit=0", ("/limit", "range")),
        ("limit=201", ("/limit", "range")),
        ("limit=ten", ("/limit", "type")),
        ("before=1&after=2", ("", "exclusive")),
        ("before=-1", ("/before", "range")),
        ("before=null", ("/before", "type")),
        ("around=9223372036854775807", ("/around", "range")),
        ("include=everything", ("/include", "choice")),
        ("page=2", ("/page", "unknown-field")),
    ],
)
async def test_a_page_that_makes_no_sense_is_refused(
    ada: Person, query: str, fault: tuple[str, str]
) -> None:
    """With the parameter at fault."""
    made = await ada.create()

    answer = await ada.http.get(f"{path(made)}/messages?{query}")

    assert pointers(refused(answer, 422, "validation")) == [fault]


async def test_a_long_content_is_cut_in_pages_and_whole_alone(ada: Person) -> None:
    """A page says that it cut, and how much there is."""
    made = await ada.create()
    long = "é" * 20_000
    await ada.say(made, long)

    cut = expect(await ada.http.get(f"{path(made)}/messages"), 200)["data"][0]
    whole = expect(await ada.http.get(f"{path(made)}/messages/1"), 200)

    assert (cut["truncated"], cut["size"]) == (True, 40_000)
    assert cut["content"] == "é" * 8192
    assert whole["content"] == long
    assert "truncated" not in whole


async def test_a_context_is_ready_to_send(ada: Person) -> None:
    """In the OpenAI chat format, as many messages as asked for, with what was left out."""
    made = await ada.talk(6)

    body = expect(await ada.http.get(f"{path(made)}/context?max_messages=2"), 200)
    few = expect(await ada.http.get(f"{path(made)}/context?max_tokens=1"), 200)

    assert body["messages"] == [
        {"role": "user", "content": "message 5"},
        {"role": "assistant", "content": "message 6"},
    ]
    assert body["omitted"] == {"messages": 4, "tools": 0, "reason": "max_messages"}
    assert few["messages"] == []
    assert few["omitted"]["reason"] == "max_tokens"


async def test_a_context_leaves_tools_out_on_request(ada: Person) -> None:
    """Calls and results go together."""
    made = await ada.create()
    await ada.say(made, "look")
    await ada.say(made, "I look", role="assistant", tool_calls=[CALL])
    await ada.say(made, "found", role="tool", tool_call_id="call_1")

    with_tools = expect(await ada.http.get(f"{path(made)}/context"), 200)
    without = expect(await ada.http.get(f"{path(made)}/context?include_tools=false"), 200)

    assert [one["role"] for one in with_tools["messages"]] == ["user", "assistant", "tool"]
    assert [one["role"] for one in without["messages"]] == ["user", "assistant"]
    refused(await ada.http.get(f"{path(made)}/context?max_messages=-1"), 422, "validation")
