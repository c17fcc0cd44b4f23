"""Promise: what cannot be stored is refused with its place, and never breaks anything."""

from __future__ import annotations

import json
from typing import Any

import pytest

from helpers.api import Person, expect, path, pointers, refused

JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("body", "faults"),
    [
        ({"title": 5}, [("/title", "type")]),
        ({"colour": "red"}, [("/colour", "unknown-field")]),
        ({"a/b~c": 1}, [("/a~1b~0c", "unknown-field")]),
        ({"kind": "group"}, [("/kind", "choice")]),
        ({"id": "7"}, [("/id", "uuid")]),
        ({"history_limit": -1}, [("/history_limit", "range")]),
        ({"history_limit": 10**30}, [("/history_limit", "range")]),
        ({"title": "a\x00b"}, [("/title", "nul-character")]),
        ({"title": "é" * 501, "subject": ""}, [("/title", "too-long"), ("/subject", "empty")]),
        ({"metadata": []}, [("/metadata", "type")]),
        ({"metadata": {"a": {"b": "\x00"}}}, [("/metadata/a/b", "nul-character")]),
        ({"participants": [{"user_id": "b"}, {}]}, [("/participants/1/user_id", "missing")]),
        ({"participants": [{"user_id": ""}]}, [("/participants/0/user_id", "empty")]),
        ({"participants": [{"user_id": "b" * 300}]}, [("/participants/0/user_id", "too-long")]),
        ([], [("", "type")]),
        (None, [("", "type")]),
    ],
)
async def test_a_conversation_is_checked(
    ada: Person, body: Any, faults: list[tuple[str, str]]
) -> None:
    """Every fault is told as a JSON pointer and a stable code."""
    content = json.dumps(body).encode()

    answer = await ada.http.post("/v1/conversations", content=content, headers=JSON)

    assert pointers(refused(answer, 422, "validation")) == faults


async def test_who_needs_say_nothing_may_send_nothing(ada: Person) -> None:
    """A run, an invitation, a rotation or an unlocking without a body is one of no wishes."""
    talk = await ada.create()

    invited = await ada.http.post(f"{path(talk)}/invitations")
    asked = await ada.http.post(f"{path(talk)}/runs")

    assert expect(invited, 201)["role"] == "member"
    assert pointers(refused(asked, 422, "validation")) == [("", "no-agent")]


@pytest.mark.parametrize(
    ("body", "faults"),
    [
        ({}, [("/content", "empty")]),
        ({"content": 5}, [("/content", "type")]),
        ({"content": "x", "role": "bot"}, [("/role", "choice")]),
        ({"content": "x", "contents": "y"}, [("/contents", "unknown-field")]),
        ({"content": "a\x00"}, [("/content", "nul-character")]),
        ({"content": "x", "id": "{}"}, [("/id", "uuid")]),
        ({"content": "x", "said_at": "yesterday"}, [("/said_at", "time")]),
        ({"content": "x", "said_at": "2020-01-01T00:00:00"}, [("/said_at", "no-time-zone")]),
        ({"content": "x", "said_at": "0001-01-01T00:00:00+14:00"}, [("/said_at", "range")]),
        ({"content": "x", "said_at": "9999-12-31T23:59:59.999999Z"}, [("/said_at", "range")]),
        ({"content": "x", "tool_call_id": "c"}, [("/tool_call_id", "misplaced")]),
        ({"role": "tool", "content": "x"}, [("/tool_call_id", "missing")]),
        ({"content": "x", "parts": ["y"]}, [("/parts/0", "type")]),
        ({"parts": [{"text": "y"}]}, [("/parts/0/type", "missing")]),
        (
            {"content": "x", "parts": [{"type": "text", "text": "y"}]},
            [("/content", "content-mismatch")],
        ),
        (
            {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f"}}]},
            [("/tool_calls/0/function/arguments", "missing")],
        ),
        ({"messages": []}, [("/messages", "empty")]),
        ({"messages": [{"content": "x"}], "role": "user"}, [("/role", "unknown-field")]),
        ({"messages": [{"content": "x"}, {"content": 5}]}, [("/messages/1/content", "type")]),
        ({"messages": [{"content": "x"}, {"x": 5}]}, [("/messages/1/x", "unknown-field")]),
        ({"messages": [{"content": "x"}] * 101}, [("/messages", "too-many")]),
        (
            {"messages": [{"id": "00000000-0000-4000-8000-000000000000", "content": "x"}] * 2},
            [("/messages/1/id", "duplicate")],
        ),
        ({"content": "x", "metadata": {"n": 1e999}}, [("", "malformed")]),
    ],
)
async def test_a_message_is_checked(ada: Person, body: Any, faults: list[tuple[str, str]]) -> None:
    """Every fault is told as a JSON pointer and a stable code."""
    made = await ada.create()
    content = json.dumps(body).encode()

    answer = await ada.http.post(f"{path(made)}/messages", content=content, headers=JSON)

    assert pointers(refused(answer, 422, "validation")) == faults


DEEP = b'{"content":"x","metadata":{"a":' + b"[" * 101 + b"]" * 101 + b"}}"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "empty"),
        (b"{", "malformed"),
        (b"hello", "malformed"),
        (b'{"content":"x"}{}', "malformed"),
        (b"\xef\xbb\xbf{}", "malformed"),
        (b'{"content":"a\xffb"}', "not-utf-8"),
        (b'{"content":"\xed\xa0\x80"}', "not-utf-8"),
        (rb'{"content":"\ud800"}', "lone-surrogate"),
        (rb'{"content":"a\ude00b"}', "lone-surrogate"),
        (rb'{"content":"x","metadata":{"\ud800":1}}', "lone-surrogate"),
        (rb'{"content":"\ud83d\ude00', "malformed"),
        (b'{"content":"a\x00b"}', "malformed"),
        (b'{"content":"x","metadata":{"a":NaN}}', "malformed"),
        (DEEP, "too-deep"),
        (DEEP.replace(b"[" * 101, b"[" * 100_000).replace(b"]" * 101, b"]" * 100_000), "too-deep"),
        (
            b'{"content":"x","metadata":{"a":' + b'{"a":' * 5000 + b"1" + b"}" * 5000 + b"}}",
            "too-deep",
        ),
    ],
)
async def test_a_body_that_is_no_text_of_ours_is_refused(
    ada: Person, body: bytes, code: str
) -> None:
    """Broken JSON, broken UTF-8, halves of characters and endless nesting."""
    made = await ada.create()

    answer = await ada.http.post(f"{path(made)}/messages", content=body, headers=JSON)

    assert pointers(refused(answer, 422, "validation")) == [("", code)]


async def test_what_is_deep_within_the_limit_is_kept(ada: Person) -> None:
    """A hundred levels are stored; brackets within a text are no levels."""
    made = await ada.create()
    nested: Any = 1
    for _ in range(98):
        nested = [nested]

    said = await ada.say(made, "[" * 5000, metadata={"a": nested})

    assert said["metadata"] == {"a": nested}


@pytest.mark.parametrize(
    "media",
    [
        None,
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/json; charset=latin-1",
        "application/jsonp",
    ],
)
async def test_only_json_is_read(ada: Person, media: str | None) -> None:
    """Also not without a word of what it is: a form of another site could then pass."""
    headers = {} if media is None else {"content-type": media}

    answer = await ada.http.post("/v1/conversations", content=b"{}", headers=headers)

    refused(answer, 415, "unsupported-media-type")


@pytest.mark.parametrize("coding", ["gzip", "br", "x-unknown", "gzip, identity"])
async def test_a_body_comes_as_it_is(ada: Person, coding: str) -> None:
    """One that says it is packed is told so, instead of being no JSON."""
    headers = {"content-type": "application/json", "content-encoding": coding}

    answer = await ada.http.post("/v1/conversations", content=b"{}", headers=headers)

    assert "Content-Encoding" in refused(answer, 415, "unsupported-media-type")["detail"]
    headers["content-encoding"] = "identity"
    plain = await ada.http.post("/v1/conversations", content=b"{}", headers=headers)
    assert plain.status_code == 201


@pytest.mark.parametrize(
    "media",
    ["application/json", "Application/JSON; charset=UTF-8", 'application/json;charset="utf-8"'],
)
async def test_json_may_be_said_in_several_ways(ada: Person, media: str) -> None:
    """Case and the one charset do not matter."""
    answer = await ada.http.post(
        "/v1/conversations", content=b"{}", headers={"content-type": media}
    )

    assert answer.status_code == 201


async def test_a_content_has_a_limit(ada: Person) -> None:
    """256 KiB are kept, a byte more is too much."""
    made = await ada.create()

    await ada.say(made, "a" * (256 << 10))
    answer = await ada.http.post(
        f"{path(made)}/messages", json={"content": "a" * ((256 << 10) + 1)}
    )

    refused(answer, 413, "payload-too-large")


@pytest.mark.parametrize("header", ["", "garbage", "1.xyz.0.0", "1.0123456789ab.0.0 ", "2.0.0.0"])
async def test_a_position_of_nobody_is_refused(ada: Person, header: str) -> None:
    """On reads and on writes."""
    headers = {"greffier-position": header}

    refused(await ada.http.get("/v1/conversations", headers=headers), 422, "validation")
    refused(await ada.http.post("/v1/conversations", json={}, headers=headers), 422, "validation")


async def test_a_position_is_read_back(ada: Person) -> None:
    """A write's own, and one of another epoch, which is answered afresh."""
    answer = await ada.http.post("/v1/conversations", json={})
    position = answer.headers["greffier-position"]
    epoch = answer.json()["epoch"]
    foreign = position.replace(epoch, "0" * 12)

    for header in (position, foreign):
        read = await ada.http.get("/v1/conversations", headers={"greffier-position": header})
        assert read.status_code == 200


async def test_a_parameter_that_is_needed_is_asked_for(ada: Person) -> None:
    """As a field of a body is."""
    made = await ada.create()

    problem = refused(await ada.http.get(f"{path(made)}/changes"), 422, "validation")

    assert pointers(problem) == [("/since", "missing")]


async def test_every_write_returns_a_position(ada: Person) -> None:
    """Made, replayed, changed or erased."""
    made = await ada.create()
    key = {"idempotency-key": "p"}
    answers = [
        await ada.http.post(f"{path(made)}/messages", json={"content": "x"}, headers=key),
        await ada.http.post(f"{path(made)}/messages", json={"content": "x"}, headers=key),
        await ada.http.patch(path(made), json={"title": "x"}),
        await ada.http.delete(path(made)),
    ]

    assert [answer.status_code for answer in answers] == [201, 200, 200, 204]
    assert all(answer.headers["greffier-position"] for answer in answers)
