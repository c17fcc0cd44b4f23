"""Live at its hardest: a server killed again and again, and a busy channel with 200 members."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket

import pytest

from greffier.client import connect, outbox
from helpers.api import SECRET
from helpers.crowd import OWNER, room, token
from helpers.sample_data import sample_data
from helpers.serving import started
from live.conftest import Running

LINE = re.compile(r"\[\d\d:\d\d\] <([^>]+)> (.+)")
#: Lines of the channel that are said again.
LINES = 300
MEMBERS = 200
#: Writes acknowledged between two kills of the server.
BETWEEN_KILLS = 25
#: Who of the members follow here, over so many sockets.
SOCKETS = 8


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_server_killed_again_and_again(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kill -9 while people write and follow: nothing acknowledged is lost, nothing comes twice."""
    monkeypatch.setattr(outbox, "LONGEST", 0.5)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    variables = {
        "DATABASE_URL": database,
        "JWT_SECRET": SECRET,
        "PORT": str(port),
        "RATE_LIMIT": "off",
    }
    people = ("ada", "bob", "carl")
    ended = asyncio.Event()

    def serve() -> contextlib.ExitStack:
        stack = contextlib.ExitStack()
        server = stack.enter_context(started(**variables))
        server.until("listens on")
        server.let_it_talk()
        return stack

    async with contextlib.AsyncExitStack() as stack:
        serving = await asyncio.to_thread(serve)

        @stack.callback
        def _() -> None:
            # Whichever serves then.
            serving.close()

        async def kill() -> int:
            nonlocal serving
            kills = 0
            while not ended.is_set():
                before = crowd.acknowledged
                # The rhythm of the faults: a server gets somewhere before it is killed, however
                # slow the machine.
                while (  # noqa: ASYNC110 - no wait, but the rhythm
                    not ended.is_set() and crowd.acknowledged < before + BETWEEN_KILLS
                ):
                    await asyncio.sleep(0.1)
                # Leaving the block kills it with SIGKILL.
                await asyncio.to_thread(serving.close)
                serving = await asyncio.to_thread(serve)
                kills += 1
            return kills

        crowd, ada = await stack.enter_async_context(room(url, people[1:]))
        clients = [await stack.enter_async_context(connect(url, token(one))) for one in people]
        for user, client in zip(people, clients, strict=True):
            await crowd.follow(client, f"{user}'s socket", user=user)
            await crowd.follow(client, f"{user}'s events", user=user, via="events")
        killing = asyncio.create_task(kill())
        async with asyncio.TaskGroup() as group:
            for user, client in zip(people, clients, strict=True):
                words = [f"{user} {number}" for number in range(60)]
                group.create_task(
                    crowd.write(client, user, words, alters=True, turns=user == OWNER)
                )
        ended.set()
        kills = await killing
        findings = await crowd.verdict(ada)

    assert findings == []
    assert kills >= 1
    assert len([one for one in crowd.history.attempts if one.outcome == "ok"]) == 180


async def test_a_real_channel_with_two_hundred_members(servers: tuple[Running, Running]) -> None:
    """Said by their authors as fast as it goes; every member's view is whole, over few sockets."""
    text = (sample_data("irc-disentanglement") / "channel-two.all.raw.txt").read_text("utf-8")
    said = [found.groups() for line in text.splitlines() if (found := LINE.fullmatch(line))][:LINES]
    authors = sorted({name for name, _ in said})
    lurkers = [f"lurker-{number}" for number in range(MEMBERS - len(authors) - 1)]
    urls = [one.url for one in servers]
    async with (
        room(urls[0], [*authors, *lurkers]) as (crowd, ada),
        contextlib.AsyncExitStack() as stack,
    ):
        for number, user in enumerate(lurkers[:SOCKETS]):
            client = await stack.enter_async_context(connect(urls[number % 2], token(user)))
            # Many views over one socket, as of many tabs: each is judged by itself.
            for tab in range(MEMBERS // SOCKETS):
                await crowd.follow(client, f"{user}, tab {tab}", user=user)
        async with asyncio.TaskGroup() as group:
            for number, author in enumerate(authors):
                client = await stack.enter_async_context(connect(urls[number % 2], token(author)))
                words = [content for name, content in said if name == author]
                group.create_task(crowd.write(client, author, words, reads=False))
        findings = await crowd.verdict(ada)
        people = await ada.conversations.participants(crowd.talk)

    assert findings == []
    assert len(people) == MEMBERS
    assert crowd.history.record is not None
    record = [one.content for one in crowd.history.record]
    assert sorted(c for c in record if c) == sorted(content for _, content in said)
