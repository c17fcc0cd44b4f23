"""Promise: people are answered where they are: a thread of mails, a chat; each answer once."""

from __future__ import annotations

import asyncio
import contextlib
import email
import email.policy
import json
from collections.abc import AsyncIterator
from email.message import EmailMessage
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, Envelope

from greffier.deliver.channels.email import Email
from greffier.deliver.channels.telegram import Telegram
from greffier.model.source import Incoming
from helpers.delivering import PATIENCE, Delivery, delivering
from helpers.receivers import Web, response, serving

pytestmark = pytest.mark.timeout(PATIENCE)
TOKEN = "123456:AAbbCCddEEffGGhhIIjjKKllMMnnOOppQQ"


class Postbox:
    """A mail server on this machine (aiosmtpd)."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.to: list[str] = []
        self.port = 0
        self._news = asyncio.Event()

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Envelope) -> str:  # noqa: N802
        """Take a mail."""
        assert isinstance(envelope.content, bytes)
        found = email.message_from_bytes(envelope.content, policy=email.policy.default)
        assert isinstance(found, EmailMessage)
        self.mails.append(found)
        self.to += envelope.rcpt_tos
        self._news.set()
        return "250 Taken"

    async def until(self, count: int) -> None:
        """Wait until so many came."""
        while len(self.mails) < count:
            self._news.clear()
            await self._news.wait()


@contextlib.asynccontextmanager
async def postbox() -> AsyncIterator[Postbox]:
    """Take mails until the end of the block."""
    box = Postbox()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(box, hostname="here", loop=loop), "127.0.0.1", 0)
    box.port = server.sockets[0].getsockname()[1]
    try:
        yield box
    finally:
        server.close()
        await server.wait_closed()


async def ask(record: Delivery, source: Any, contact: str, *said: str) -> Any:
    """Bring messages, and say what an agent would."""
    for n, words in enumerate(said):
        incoming = Incoming(
            external_id=f"{contact}-{n}-{words}", contact=contact, content=words, subject="Plans"
        )
        received = await record.g.sources.receive(source.id, incoming)
        await record.say(received.conversation_id, f"answer to {words}", role="assistant")
    return received


async def test_a_conversation_is_a_thread_of_mails(database: str) -> None:
    """Each mail names the first and the one before; what the contact wrote is not sent back."""
    async with postbox() as box:
        channel = Email(f"smtp://127.0.0.1:{box.port}", "Greffier <bot@example.org>")
        async with delivering(database, [channel]) as record:
            endpoint = await record.g.endpoints.create(channel="email", target="{contact}")
            source = await record.g.sources.create(
                name="mail", owner="ada", endpoint=endpoint.id, debounce=0
            )
            await ask(record, source, "bob@example.net", "one", "two", "three")
            await ask(record, source, "eve@example.net", "hello")
            await box.until(4)
            await record.idle()

    mine = [mail for mail in box.mails if mail["To"] == "bob@example.net"]
    assert sorted(box.to) == ["bob@example.net"] * 3 + ["eve@example.net"]
    assert [mail.get_body(("plain",)).get_content().strip() for mail in mine] == [  # type: ignore[union-attr]
        "answer to one", "answer to two", "answer to three"
    ]  # fmt: skip
    ids = [mail["Message-ID"] for mail in mine]
    assert len(set(ids)) == 3
    assert mine[1]["In-Reply-To"] == ids[0]
    assert mine[2]["In-Reply-To"] == ids[1]
    assert ids[0] in mine[2]["References"]
    assert all("Plans" in mail["Subject"] for mail in mine)


async def test_a_chat_is_answered_in_the_chat(database: str) -> None:
    """With the bot's token, to the chat that wrote, after Telegram asked to wait too."""
    taken = [
        response(200, json.dumps({"ok": True, "result": {"message_id": n}}).encode())
        for n in range(1, 4)
    ]
    busy = json.dumps(
        {"ok": False, "error_code": 429, "description": "Too Many Requests: retry after 1",
         "parameters": {"retry_after": 1}}
    ).encode()  # fmt: skip
    web = Web(taken[0], response(429, busy), *taken[1:])
    async with serving(web) as server:
        channel = Telegram(api=f"http://{server.host}")
        async with delivering(database, [channel], max_attempts=5) as record:
            endpoint = await record.g.endpoints.create(
                channel="telegram", target="{contact}", secret=TOKEN
            )
            source = await record.g.sources.create(
                name="bot", owner="ada", endpoint=endpoint.id, adapter="telegram"
            )
            await ask(record, source, "-42", "one", "two")
            await record.until("select tries = 1 and token is null from lanes where kind = 'out'")
            await record.later(1)
            await record.idle()
            assert await record.journal() == [(2, "accepted"), (4, "rejected"), (4, "accepted")]

    sent = [json.loads(one.body) for one in web.requests]
    assert [one["text"] for one in sent] == ["answer to one", "answer to two", "answer to two"]
    assert {one["chat_id"] for one in sent} == {"-42"}
    assert {one.path for one in web.requests} == {f"/bot{TOKEN}/sendMessage"}


async def test_one_contact_who_wants_no_more_says_so_for_nobody_else(database: str) -> None:
    """A chat that blocked the bot waits for a person; the others are answered as before."""
    blocked = json.dumps(
        {"ok": False, "error_code": 403, "description": "Forbidden: bot was blocked by the user"}
    ).encode()
    taken = json.dumps({"ok": True, "result": {"message_id": 1}}).encode()
    web = Web(response(403, blocked), response(200, taken))
    async with serving(web) as server:
        channel = Telegram(api=f"http://{server.host}")
        async with delivering(database, [channel]) as record:
            endpoint = await record.g.endpoints.create(
                channel="telegram", target="{contact}", secret=TOKEN
            )
            source = await record.g.sources.create(
                name="bot", owner="ada", endpoint=endpoint.id, adapter="telegram"
            )
            await ask(record, source, "-42", "one")
            await record.until("select exists (select from lanes where parked_at is not null)")
            await ask(record, source, "-43", "two")
            await record.until("select exists (select from attempts where outcome = 'accepted')")
            await record.idle()
            assert (await record.g.endpoints.get(endpoint.id)).state == "active"
            (reason,) = await record.parked()
            assert "bot was blocked by the user" in reason


async def test_a_contact_who_cannot_be_written_to_slows_nobody_else(database: str) -> None:
    """What could not even leave, whatever the mail server does, is no failure of the endpoint."""
    async with postbox() as box:
        channel = Email(f"smtp://127.0.0.1:{box.port}", "Greffier <bot@example.org>")
        async with delivering(database, [channel]) as record:
            endpoint = await record.g.endpoints.create(channel="email", target="{contact}")
            source = await record.g.sources.create(
                name="mail", owner="ada", endpoint=endpoint.id, debounce=0
            )
            for number in range(6):
                await ask(record, source, f"no address {number}", "hello")
            await record.until("select count(*) = 6 from lanes where parked_at is not null")
            found = await record.g.endpoints.get(endpoint.id)
            assert (found.state, found.failing_since) == ("active", None)
            await ask(record, source, "eve@example.net", "hello")
            await box.until(1)
            await record.idle()


async def test_what_has_no_words_for_people_is_passed_over(database: str) -> None:
    """Calls of tools and their results, and they leave no trace in the journal."""
    web = Web(response(200, json.dumps({"ok": True, "result": {"message_id": 1}}).encode()))
    async with serving(web) as server:
        channel = Telegram(api=f"http://{server.host}")
        async with delivering(database, [channel], batch=2) as record:
            await record.g.endpoints.create(
                channel="telegram", target="-42", secret=TOKEN, roles=["assistant", "tool"]
            )
            call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
            talk = await record.talk()
            for _ in range(2):
                await record.g.messages.append(talk, role="assistant", tool_calls=[call])
                await record.g.messages.append(
                    talk, role="tool", tool_call_id="c", content="result"
                )
            await record.say(talk, "done", role="assistant")
            await record.until("select exists (select from attempts where outcome = 'accepted')")
            await record.idle()
            assert await record.journal() == [(5, "accepted")]
    assert [json.loads(one.body)["text"] for one in web.requests] == ["done"]
