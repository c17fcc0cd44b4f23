"""Server-sent events: ``curl -N`` follows, resumes exactly, and ends when it must."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import msgspec
import pytest

from greffier.server.routes import live
from helpers.patience import PATIENCE
from live.conftest import Running
from live.test_sockets import room, say


async def events(answer: httpx2.Response) -> AsyncIterator[dict[str, Any]]:
    """The events of a stream: name, id and data."""
    event: dict[str, Any] = {}
    async for line in answer.aiter_lines():
        if not line:
            if "data" in event:
                yield event
            event = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(": ")
            event[name] = msgspec.json.decode(value) if name == "data" else value


async def test_a_broken_stream_resumes_exactly_where_it_broke(server: Running) -> None:
    """Last-Event-ID brings what was missed, once, and then what is new."""
    talk = await room(server)
    path = f"/v1/conversations/{talk}/events"
    async with server.http("ada") as http, asyncio.timeout(PATIENCE):
        async with http.stream("GET", path) as answer:
            stream = events(answer)
            start = await anext(stream)
            await say(server, talk, "one")
            first = await anext(stream)
        await say(server, talk, "two")
        async with http.stream("GET", path, headers={"last-event-id": first["id"]}) as answer:
            stream = events(answer)
            second = await anext(stream)
            await say(server, talk, "three")
            third = await anext(stream)

    said = [
        [message["content"] for message in event["data"]["messages"]]
        for event in (first, second, third)
    ]
    assert start["data"]["rev"] == 1
    assert said == [["one"], ["two"], ["three"]]
    assert third["id"].endswith(".4")


async def test_one_s_own_feed_resumes_by_its_list_rev(server: Running) -> None:
    """What joined the list while the stream was broken is told first."""
    async with server.http("bob") as http, asyncio.timeout(PATIENCE):
        async with http.stream("GET", "/v1/events") as answer:
            start = await anext(events(answer))
        talk = await room(server, "bob")
        headers = {"last-event-id": start["id"]}
        async with http.stream("GET", "/v1/events", headers=headers) as answer:
            joined = await anext(events(answer))

    assert joined["event"] == "list"
    assert [one["id"] for one in joined["data"]["conversations"]] == [talk]


async def test_a_revoked_key_ends_its_stream(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An open stream lives no longer than the key it was opened with."""
    monkeypatch.setattr(live, "RECHECK", 0.1)
    talk = await room(server)
    async with server.http("ada") as http, asyncio.timeout(PATIENCE):
        made = (await http.post("/v1/keys", json={"scope": "user", "name": "phone"})).json()
        bearer = {"authorization": f"Bearer {made['key']}"}
        path = f"/v1/conversations/{talk}/events"
        async with http.stream("GET", path, headers=bearer) as answer:
            stream = events(answer)
            await anext(stream)
            await http.delete(f"/v1/keys/{made['id']}")
            rest = [event async for event in stream]

    assert rest == []


async def test_a_stranger_and_nonsense_are_refused_before_anything_is_sent(
    server: Running,
) -> None:
    """With a problem and its status, not with an empty stream."""
    talk = await room(server)
    path = f"/v1/conversations/{talk}/events"
    async with server.http("eve") as eve, server.http("ada") as ada:
        stranger = await eve.get(path)
        nonsense = [
            await ada.get(path, headers={"last-event-id": "yesterday"}),
            *[await ada.get(f"{path}?since={since}") for since in (-1, 1 << 63, "x")],
            *[await ada.get(f"/v1/events?list_rev={rev}") for rev in (-1, 1 << 63)],
        ]

    assert stranger.status_code == 404
    assert [one.status_code for one in nonsense] == [422] * 6
