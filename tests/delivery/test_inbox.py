"""Promise: what comes in is on record once, answered, and the answer goes back to who wrote."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from standardwebhooks import Webhook as Signer

from helpers.api import Person, expect, path, pointers, refused
from helpers.delivering import PATIENCE
from helpers.hooks import hooked
from helpers.lanes import Hand
from helpers.postgres import connected
from helpers.working import Working, contents, working

pytestmark = pytest.mark.timeout(2 * PATIENCE)


class Form:
    """A program that brings messages: signs with the official package."""

    def __init__(self, work: Working, source: dict[str, Any]) -> None:
        self.id = source["id"]
        self.secret = source["secret"]
        self._http = work.anonymous()

    async def post(
        self,
        body: Any,
        *,
        secret: str | None = None,
        age: float = 0,
        where: str = "",
        signed: bytes | None = None,
    ) -> httpx2.Response:
        """Send a body, signed as it is, or as something else was."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        at = datetime.now(UTC) - timedelta(seconds=age)
        name = f"msg_{uuid.uuid4().hex}"
        text = (raw if signed is None else signed).decode("utf-8", "surrogateescape")
        return await self._http.post(
            f"/v1/inbox/{self.id}{where}",
            content=raw,
            headers={
                "content-type": "application/json",
                "webhook-id": name,
                "webhook-timestamp": str(int(at.timestamp())),
                "webhook-signature": Signer(secret or self.secret).sign(name, at, text),
            },
        )

    async def say(self, contact: str, content: str, external_id: str | None = None) -> Any:
        """Bring a message; what is answered."""
        external_id = external_id or uuid.uuid4().hex
        body = {"external_id": external_id, "contact": contact, "content": content}
        return expect(await self.post(body), 202)


class Desk:
    """An application with a source, and a person whose conversations it brings."""

    def __init__(self, work: Working, owner: Person, root: Person) -> None:
        self.work, self.owner, self.root = work, owner, root

    async def source(self, **more: Any) -> Form:
        """Make a source."""
        body = {"name": "Form", "owner_id": self.owner.id, "debounce": 0, **more}
        return Form(self.work, expect(await self.root.http.post("/v1/sources", json=body), 201))

    async def endpoint(self, **more: Any) -> dict[str, Any]:
        """Make an endpoint."""
        made: dict[str, Any] = expect(await self.root.http.post("/v1/endpoints", json=more), 201)
        return made

    async def talk(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Read a conversation."""
        where = f"/v1/conversations/{answer['conversation_id']}"
        found: dict[str, Any] = expect(await self.owner.http.get(where), 200)
        return found

    async def until(self, query: str, *values: Any) -> Any:
        """Ask the database until it says so."""
        async with connected(self.work.database.dsn) as live, asyncio.timeout(PATIENCE):
            while not (found := await live.fetchval(query, *values)):
                pass
        return found


@pytest_asyncio.fixture
async def desk(postgres: str, template: str) -> AsyncIterator[Desk]:
    """An application that takes messages in and sends answers out."""
    async with working(postgres, template, allow_private_targets=True) as work:
        owner, root = work.person("owner"), work.person("root", admin=True)
        async with owner.http, root.http:
            yield Desk(work, owner, root)


async def test_a_contact_is_answered_where_they_wrote_from(desk: Desk) -> None:
    """Each has one conversation; the answer leaves by the source's endpoint, to them alone."""
    async with hooked() as hook:
        target = f"http://127.0.0.1:{hook.port}/to/{{contact}}"
        endpoint = await desk.endpoint(channel="webhook", target=target, roles=["assistant"])
        hook.secrets.append(endpoint["secret"])
        agent = await desk.work.agent(name="Echo", provider="echo", model="echo")
        form = await desk.source(agent_id=agent, endpoint_id=endpoint["id"])
        # Somebody else's conversations are none of the endpoint's.
        other = await desk.work.talk(desk.owner, None)
        await desk.owner.say(other, "not for it")

        first = await form.say("ada@example.org", "Bonjour")
        second = await form.say("a/../b?c", "Hello")
        arrivals = await hook.until(2)

        assert first["answering"]
        assert {one.path: one.content for one in arrivals} == {
            "/to/ada%40example.org": "Bonjour", "/to/a%2F..%2Fb%3Fc": "Hello"
        }  # fmt: skip
        assert first["conversation_id"] != second["conversation_id"]
        talk = await desk.talk(first)
        assert (talk["title"], talk["agent_id"]) == ("ada@example.org", agent)
        assert await contents(desk.owner, talk) == [("user", "Bonjour"), ("assistant", "Bonjour")]
        again = await form.say("ada@example.org", "encore")
        assert again["conversation_id"] == first["conversation_id"]
        await hook.until(3)
        page = expect(await desk.owner.http.get(f"{path(talk)}/messages"), 200)["data"]
        assert page[0]["author_id"] == "contact:ada@example.org"
        assert page[0]["written_by"] == f"source:{form.id}"
        await desk.until("select not exists (select from lanes where head_seq <= tail_seq)")


async def test_the_same_message_again_changes_nothing(desk: Desk) -> None:
    """A hundred at once, of a contact nobody knows yet: one conversation, one message."""
    form = await desk.source()
    body = {"external_id": "m-1", "contact": "ada", "content": "Bonjour"}

    answers = await asyncio.gather(*(form.post(body) for _ in range(100)))

    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [200] * 99 + [202]
    assert len({(a.json()["conversation_id"], a.json()["seq"]) for a in answers}) == 1
    other = expect(await form.post({**body, "contact": "bob", "content": "x"}), 200)
    assert (other["replayed"], other["seq"]) == (True, 1)
    assert await desk.work.fetch("select count(*) from conversations") == [(1,)]
    assert await desk.work.fetch("select count(*) from messages") == [(1,)]
    assert await desk.work.fetch("select contact from source_contacts") == [("ada",)]


async def test_what_is_forged_old_or_too_large_changes_nothing(desk: Desk) -> None:
    """Neither message nor contact is there afterwards."""
    form = await desk.source()
    body = {"external_id": "m-1", "contact": "ada", "content": "Bonjour"}
    raw = json.dumps(body).encode()
    stranger = await desk.source()

    for how in (
        {"secret": stranger.secret},
        {"age": 301},
        {"age": -301},
        {"signed": raw.replace(b"Bonjour", b"Bonsoir")},
    ):
        refused(await form.post(raw, **how), 401, "unauthenticated")
    async with desk.work.anonymous() as nobody:
        refused(await nobody.post(f"/v1/inbox/{form.id}", json=body), 401, "unauthenticated")
        gone = f"/v1/inbox/{uuid.uuid4()}"
        refused(await nobody.post(gone, json=body), 404, "not-found")
        refused(await nobody.post(f"/v1/inbox/{form.id}", content=raw), 415,
                "unsupported-media-type")  # fmt: skip
    large = {**body, "content": "a" * (256 * 1024 + 1)}
    refused(await form.post(large), 413, "payload-too-large")
    refused(await form.post({**body, "content": "a" * (1 << 20)}), 413, "payload-too-large")
    refused(await desk.owner.http.post(f"/v1/inbox/{form.id}", json=body), 401, "unauthenticated")
    for table in ("messages", "conversations", "source_contacts", "inbox"):
        assert await desk.work.fetch(f"select count(*) from {table}") == [(0,)]


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        ({"content": "a\x00b"}, [("/content", "nul-character")]),
        ({"content": " "}, [("/content", "empty")]),
        ({"contact": ""}, [("/contact", "length")]),
        ({"contact": "a" * 513}, [("/contact", "length")]),
        ({"contact_name": "a\x00"}, [("/contact_name", "nul-character")]),
        ({"external_id": "\x00"}, [("/external_id", "nul-character")]),
        ({"said_at": "2026-03-01T12:00:00"}, [("/said_at", "no-time-zone")]),
        ({"role": "system"}, [("/role", "unknown-field")]),
        (b'{"external_id": "1", "contact": "a", "content": "\\ud800"}', [("", "lone-surrogate")]),
        (b"[]", [("", "type")]),
    ],
)  # fmt: skip
async def test_what_cannot_be_kept_is_refused_with_its_place(
    desk: Desk, wrong: Any, found: list[tuple[str, str]]
) -> None:
    """As everywhere."""
    form = await desk.source()
    body = {"external_id": "1", "contact": "a", "content": "x"}

    answer = await form.post(wrong if isinstance(wrong, bytes) else {**body, **wrong})

    assert pointers(refused(answer, 422, "validation")) == found
    assert await desk.work.fetch("select count(*) from source_contacts") == [(0,)]


async def test_a_rotated_secret_and_the_one_before_both_open(desk: Desk) -> None:
    """For a day."""
    form = await desk.source()
    turned = expect(await desk.root.http.post(f"/v1/sources/{form.id}/rotate", json={}), 200)
    await form.say("ada", "with the old one")
    old, form.secret = form.secret, turned["secret"]
    await form.say("ada", "with the new one")
    await desk.work.fetch("update sources set rotated_at = now() - interval '25 hours'")
    refused(
        await form.post({"external_id": "x", "contact": "a", "content": "x"}, secret=old),
        401, "unauthenticated",
    )  # fmt: skip


async def test_what_comes_shortly_after_is_answered_together(desk: Desk) -> None:
    """One run for all of them, which has read them all."""
    agent = await desk.work.agent(name="Echo", provider="echo", model="echo")
    form = await desk.source(agent_id=agent, debounce=3600)
    for n in range(3):
        answer = await form.say("ada", f"part {n}")
        assert answer["answering"]
    assert await desk.work.fetch("select status, count(*) from runs group by 1") == [("queued", 1)]

    async with connected(desk.work.database.dsn) as live:
        # Ten times the wait at most: then it is answered, however fast they come.
        await Hand(live).shift(11)
    service = desk.work.app.service
    service.work_is_due(uuid.UUID(answer["conversation_id"]))
    await desk.until("select bool_and(status = 'completed') from runs")
    talk = await desk.talk(answer)
    assert await contents(desk.owner, talk) == [
        ("user", "part 0"), ("user", "part 1"), ("user", "part 2"), ("assistant", "part 2")
    ]  # fmt: skip


async def test_what_comes_while_it_answers_is_answered_next(desk: Desk) -> None:
    """All of it by one more run."""
    agent = await desk.work.agent(name="Echo", provider="echo", model="echo")
    form = await desk.source(agent_id=agent)
    answer = await form.say("ada", "first")
    # Whether the first answer is under way or over by then, each message is in some context.
    await asyncio.gather(*(form.say("ada", f"more {n}") for n in range(5)))
    await desk.until(
        "select not exists (select from runs where status in ('queued', 'running'))"
        " and (select max(seq) filter (where role = 'assistant')"
        "      > max(seq) filter (where role = 'user') from messages)"
    )
    every = await contents(desk.owner, await desk.talk(answer))
    said = [text or "" for role, text in every if role == "user"]
    assert said[0] == "first"
    assert sorted(said[1:]) == [f"more {n}" for n in range(5)]


async def test_an_archived_conversation_is_begun_anew(desk: Desk) -> None:
    """And an erased one; what was in it does not come back by its external id."""
    form = await desk.source()
    first = await form.say("ada", "one", external_id="m-1")
    at = f"/v1/conversations/{first['conversation_id']}"
    expect(await desk.owner.http.patch(at, json={"archived": True}), 200)

    second = await form.say("ada", "two")
    assert second["conversation_id"] != first["conversation_id"]
    assert (await desk.owner.http.delete(
        f"/v1/conversations/{second['conversation_id']}"
    )).status_code == 204  # fmt: skip
    third = await form.say("ada", "three")
    assert third["conversation_id"] not in (first["conversation_id"], second["conversation_id"])
    again = await form.post({"external_id": "m-1", "contact": "ada", "content": "one"})
    assert expect(again, 200)["conversation_id"] == first["conversation_id"]
    assert await desk.work.fetch("select count(*) from messages") == [(2,)]


async def test_the_far_side_s_word_only_moves_forward(desk: Desk) -> None:
    """Delivered is not undone by a late sent, nor by failed."""
    async with hooked() as hook:
        endpoint = await desk.endpoint(channel="webhook", target=hook.url, everywhere=False)
        form = await desk.source(endpoint_id=endpoint["id"])
        hook.secrets.append(endpoint["secret"])
        await form.say("ada", "Bonjour")
        (arrival,) = await hook.until(1)
        await desk.until("select exists (select from receipts)")
        told: list[str] = []
        for status in ("sent", "delivered", "sent", "failed", "read", "delivered"):
            body = {"external_id": arrival.id, "status": status}
            told.append(expect(await form.post(body, where="/status"), 200)["status"])
        assert told == ["sent", "delivered", "delivered", "delivered", "read", "read"]
        body = {"external_id": "another", "status": "read"}
        refused(await form.post(body, where="/status"), 404, "not-found")
        wrong = {"external_id": arrival.id, "status": "lost"}
        refused(await form.post(wrong, where="/status"), 422, "validation")
        nothing = {"external_id": "a\0b", "status": "read"}
        refused(await form.post(nothing, where="/status"), 422, "validation")
        forged = await form.post(body, where="/status", age=1000)
        refused(forged, 401, "unauthenticated")


def update(number: int, text: str | None = "Bonjour", **more: Any) -> dict[str, Any]:
    """An update as Telegram sends it, with all that we pass over."""
    chat = {"id": -42, "first_name": "Ada", "last_name": "L", "type": "private"}
    message = {"message_id": number, "date": int(datetime.now(UTC).timestamp()), "chat": chat,
               "from": {"id": 42, "is_bot": False, "first_name": "Ada"}}  # fmt: skip
    if text is not None:
        message["text"] = text
    return {"update_id": 1000 + number, "message": message, **more}


async def test_updates_of_telegram_are_read_as_they_are(desk: Desk) -> None:
    """The chat is the contact; edits and what has no words are taken and passed over."""
    form = await desk.source(adapter="telegram")
    where = f"/v1/inbox/{form.id}"
    secret = {"x-telegram-bot-api-secret-token": form.secret}
    async with desk.work.anonymous() as telegram:
        first = expect(await telegram.post(where, json=update(7), headers=secret), 202)
        again = expect(await telegram.post(where, json=update(7), headers=secret), 200)
        assert again["seq"] == first["seq"]
        edited = update(7, "Bonsoir")
        edited["edited_message"] = edited.pop("message")
        for quiet in (edited, update(8, None), {"update_id": 9, "poll": {}}):
            answer = await telegram.post(where, json=quiet, headers=secret)
            assert answer.status_code == 204
        for wrong in ({}, {"x-telegram-bot-api-secret-token": "guess"}):
            refused(await telegram.post(where, json=update(10), headers=wrong), 401,
                    "unauthenticated")  # fmt: skip
        refused(await telegram.post(where, json={"a": 1}, headers=secret), 422, "validation")
    talk = await desk.talk(first)
    assert (talk["title"], talk["message_count"]) == ("Ada L", 1)
    assert await desk.work.fetch("select contact from source_contacts") == [("-42",)]
