"""Answers whose database goes away: what nobody knows the fate of is stored once."""

from __future__ import annotations

import asyncio
import random
import uuid
from contextlib import AsyncExitStack
from typing import Any

import pytest

from helpers.api import Person
from helpers.following import Event, Following, text_of, whole
from helpers.openai_server import Step, pause, saying
from helpers.postgres import connected, wait_for_lock
from helpers.working import Working, working

pytestmark = pytest.mark.slow

MANY = 20
CUTS = 100
WORDS = [f"{n} 🌊 " for n in range(80)]


async def answer(work: Working, person: Person, talk: dict[str, Any]) -> list[Event]:
    """Ask until it is taken, by the same ids; give all events of the run."""
    message = {"id": str(uuid.uuid4()), "content": "Raconte."}
    asked = {"id": str(uuid.uuid4()), "message": message}
    while True:
        async with work.run(person, talk, asked) as stream:
            events = await stream.rest()
        if stream.status == 200:
            return events
        assert stream.status == 503, stream.raw


async def test_wires_that_are_cut_double_nothing(postgres: str, template: str) -> None:
    """Cut while batches and endings are under way, which PostgreSQL may finish or not.

    Every follower hears each event once, and their sum is what is on record.
    """
    async with working(postgres, template, run_lease_seconds=3) as work:
        script = [
            {"after_ms": 10, "event": "content.delta", "data": {"text": word}} for word in WORDS
        ]
        agent = await work.agent(provider="script", params={"script": script})
        eve = work.person("eve")
        async with eve.http:
            talks = [await work.talk(eve, agent) for _ in range(MANY)]
            answers = asyncio.gather(*(answer(work, eve, talk) for talk in talks))
            for _ in range(CUTS):
                await asyncio.wait({answers}, timeout=random.uniform(0.01, 0.1))
                # Told of the cut before this one, the server lets go of its end.
                work.wire.forget()
                work.wire.cut()
            heard = await answers

            for events in heard:
                whole(events)
                run = await work.read(eve, events[0].data["run_id"])
                async with work.follow(eve, run["id"]) as again:
                    assert await again.rest() == events
                assert await work.fetch(
                    "select coalesce(string_agg(content, ''), '') from greffier.messages"
                    " where run_id = $1",
                    run["id"],
                ) == [(text_of(events),)]
                assert run["status"] in ("completed", "interrupted")
                if run["status"] == "completed":
                    assert text_of(events) == "".join(WORDS)
        assert await work.fetch("select count(*) from greffier.messages where role = 'user'") == [
            (MANY,)
        ]


async def test_an_answer_outlasts_a_database_that_is_away(postgres: str, template: str) -> None:
    """For longer than anybody waits for it, as long as the lease lives: then all is said, once.

    What was under way when it went is said again as it was, and nothing else with it.
    """
    async with working(postgres, template, patience=1, run_lease_seconds=60) as work:
        script = [
            {"after_ms": 10, "event": "content.delta", "data": {"text": word}} for word in WORDS * 4
        ]
        agent = await work.agent(provider="script", params={"script": script})
        eve = work.person("eve")
        async with eve.http, AsyncExitStack() as stack:
            streams: list[Following] = []
            for _ in range(MANY):
                talk = await work.talk(eve, agent)
                asked = {"message": {"content": "Raconte."}}
                streams.append(await stack.enter_async_context(work.run(eve, talk, asked)))
            for _ in range(2):
                for stream in streams:
                    await stream.until("content.delta")
                await work.wire.down()
                await asyncio.sleep(1.5)
                await work.wire.up()
            heard = [await stream.rest() for stream in streams]

            for events in heard:
                whole(events)
                assert events[-1].name == "run.completed"
                assert text_of(events) == "".join(WORDS * 4)
                message = next(one for one in events if one.name == "message").data["message"]
                assert message["content"] == text_of(events)


async def test_a_batch_that_was_stored_unheard_is_not_stored_again(
    postgres: str, template: str
) -> None:
    """It is stored when the wire is gone, and nobody knows for longer than anybody waits.

    It is said again as it was, alone, and found; what was said meanwhile comes behind it.
    """
    async with working(postgres, template, patience=1, run_lease_seconds=60) as work:
        eve = work.person("eve")
        words: list[Step] = ["jour", pause(0.3), " tout", pause(0.3), " le", pause(1), " monde"]
        work.provider.put(saying("Bon", pause(), *words))
        async with eve.http, connected(work.wire.upstream) as other:
            talk = await work.talk(eve, await work.agent())
            async with work.run(eve, talk, {"message": {"content": "?"}}) as stream:
                await stream.until("content.delta")
                async with other.transaction():
                    await other.execute("select from greffier.lanes for update")
                    work.provider.go_on()
                    await wait_for_lock(other, "%say_in_runs_v1%")
                    await work.wire.down()
                while not await other.fetchval("select max(id) > 2 from greffier.run_events"):
                    pass
                await asyncio.sleep(1.5)
                await work.wire.up()
                events = await stream.rest()

        whole(events)
        assert events[-1].name == "run.completed"
        assert text_of(events) == "Bonjour tout le monde"
