"""P1 to P6 together: nothing anybody could see through real servers breaks a promise.

Writers write and followers follow with ``greffier.client`` while something goes wrong; then
``greffier.testing.consistency`` judges everything they did and saw.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest

from greffier.client import Client, connect, outbox
from greffier.errors import NotFound
from greffier.publish import feed
from helpers.bad_bus import BadHub
from helpers.crowd import OWNER, Answerless, Crowd, room, token
from helpers.patience import PATIENCE
from helpers.postgres import connected
from helpers.proxy import proxied
from live.conftest import Running, running

WRITERS = ("ada", "bob", "carl", "dora")
#: Messages of each writer.
EACH = 20


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits long for a second try: these faults last for moments."""
    monkeypatch.setattr(outbox, "LONGEST", 0.5)


@contextlib.asynccontextmanager
async def clients(
    urls: list[str], *, transport: Callable[[int], Answerless] | None = None
) -> AsyncIterator[list[Client]]:
    """One client of each writer, in turns at these servers."""
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                connect(
                    urls[number % len(urls)],
                    token(user),
                    transport=transport(number) if transport else None,
                )
            )
            for number, user in enumerate(WRITERS)
        ]


async def everybody(crowd: Crowd, people: list[Client], each: int = EACH) -> None:
    """All follow, each by a socket and by a stream of events, and all write."""
    for user, client in zip(WRITERS, people, strict=True):
        await crowd.follow(client, f"{user}'s socket", user=user)
        await crowd.follow(client, f"{user}'s events", user=user, via="events")
    async with asyncio.TaskGroup() as group:
        for user, client in zip(WRITERS, people, strict=True):
            words = [f"{user} {number}" for number in range(each)]
            group.create_task(crowd.write(client, user, words, alters=True, turns=user == OWNER))


async def again(fault: Callable[[], object], seconds: float, crowd: Crowd) -> None:
    """Do it again and again until cancelled: the faults are the clock of these tests.

    Something gets through between two of them, however slow the machine: else nobody would arrive.
    """
    while True:
        before = crowd.acknowledged
        while crowd.acknowledged == before:  # noqa: ASYNC110 - no wait, but the rhythm of the faults
            await asyncio.sleep(seconds)
        done = fault()
        if asyncio.iscoroutine(done):
            await done


@contextlib.asynccontextmanager
async def meanwhile(
    fault: Callable[[], object], seconds: float, crowd: Crowd
) -> AsyncIterator[None]:
    """Let a fault happen again and again during a block."""
    task = asyncio.create_task(again(fault, seconds, crowd))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_two_servers_without_a_fault(servers: tuple[Running, Running]) -> None:
    """Four write and eight follow, half of them on each server."""
    urls = [one.url for one in servers]
    async with room(urls[0], WRITERS[1:]) as (crowd, ada), clients(urls) as people:
        await everybody(crowd, people)
        findings = await crowd.verdict(ada)

    assert findings == []
    history = crowd.history
    assert len([one for one in history.attempts if one.outcome == "ok"]) == len(WRITERS) * EACH
    # All of it happened: edits, deletions, erasures, rewinds and branches brought back.
    altered = {one.kind for one in history.alterations if one.outcome == "ok"}
    assert altered == {"edit", "delete", "erase"}
    assert {one.after is None for one in history.turns if one.outcome == "ok"} == {True, False}


async def test_a_bus_that_loses_doubles_and_reorders(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lost wake-up costs delay and nothing else."""
    monkeypatch.setattr(feed, "POLL", 0.3)
    hub = BadHub(1)
    async with (
        running(database, bus=hub.bus()) as here,
        running(database, bus=hub.bus()) as there,
        room(here.url, WRITERS[1:]) as (crowd, ada),
        clients([here.url, there.url]) as people,
    ):
        await everybody(crowd, people)
        findings = await crowd.verdict(ada)

    assert findings == []


async def test_connections_cut_between_commit_and_answer(database: str) -> None:
    """On both ways, to the server and to PostgreSQL: what was sent again is there once."""
    async with (
        proxied(database) as proxy,
        running(proxy.dsn) as cut,
        running(database) as whole,
        room(whole.url, WRITERS[1:]) as (crowd, ada),
        clients([cut.url, whole.url], transport=Answerless) as people,
    ):
        before: list[asyncio.StreamWriter] = []

        def cut_wire() -> None:
            # PostgreSQL hears of the end of a cut connection one cut later, when it has long done
            # what it was at; never hearing of it, it would run out of connections.
            while before:
                before.pop().close()
            before.extend(proxy._servers)
            proxy._servers.clear()
            proxy.cut()

        async with meanwhile(cut_wire, 0.5, crowd):
            await everybody(crowd, people)
        # Back to the proxy, which closes them when it goes.
        proxy._servers.extend(before)
        findings = await crowd.verdict(ada)

    assert findings == []


async def test_postgresql_ends_every_session(
    database: str, servers: tuple[Running, Running]
) -> None:
    """Backends are terminated at any moment, those that listen too."""
    urls = [one.url for one in servers]
    async with (
        connected(database) as operator,
        room(urls[0], WRITERS[1:]) as (crowd, ada),
        clients(urls) as people,
    ):

        async def terminate() -> None:
            await operator.fetch(
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where datname = current_database() and pid <> pg_backend_pid()"
            )

        async with meanwhile(terminate, 0.5, crowd):
            await everybody(crowd, people)
        findings = await crowd.verdict(ada)

    assert findings == []


async def test_a_follower_who_pauses_misses_nothing(server: Running) -> None:
    """More than can wait for them is said meanwhile; they then catch up by themselves."""
    async with room(server.url, WRITERS[1:]) as (crowd, ada), clients([server.url]) as people:
        slow = await crowd.follow(people[1], "slow", user="bob")
        await crowd.follow(people[2], "quick", user="carl")
        slow.goes.clear()
        words = [f"n{number}" for number in range(40)]
        async with asyncio.TaskGroup() as group:
            for writer in range(10):
                client = people[writer % len(people)]
                group.create_task(
                    crowd.write(client, f"{WRITERS[writer % 4]} {writer}", words, reads=False)
                )
        slow.goes.set()
        findings = await crowd.verdict(ada)

    assert findings == []


async def test_nobody_sees_anything_after_their_removal(servers: tuple[Running, Running]) -> None:
    """Removed by one server while many write through both; sockets of either say nothing more."""
    urls = [one.url for one in servers]
    async with room(urls[0], WRITERS[1:]) as (crowd, ada), clients(urls) as people:
        bobs = [
            crowd.gone(await crowd.follow(people[1], f"bob's {via}", user="bob", via=via))
            for via in ("socket", "events")
        ]
        words = [f"n{number}" for number in range(EACH)]
        async with asyncio.TaskGroup() as group:
            for user, client in ((WRITERS[0], people[0]), (WRITERS[2], people[2])):
                group.create_task(
                    crowd.write(client, user, words, alters=True, turns=user == OWNER)
                )
            await ada.conversations.leave(crowd.talk, "bob")
        async with asyncio.timeout(PATIENCE):
            ends = await asyncio.gather(*bobs, return_exceptions=True)
        page = await ada.messages.after(crowd.talk, 0, limit=200)
        left = max(one.rev for one in page.data if one.role == "system")
        crowd.history.removed("bob", rev=left)
        findings = await crowd.verdict(ada)

    assert [type(one) for one in ends] == [NotFound, NotFound]
    assert findings == []
