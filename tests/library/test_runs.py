"""Promises of the library about agents that answer in the caller's own process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Any

import pytest
import pytest_asyncio

import greffier
from greffier import Greffier, Invalid, NotFound, RunActive, ToolRun
from greffier.library import closing
from greffier.settings import Settings
from greffier.store.database import open_database


@pytest_asyncio.fixture
async def g(database: str) -> AsyncIterator[Greffier]:
    """A record, with nobody who works on it yet."""
    async with open_database(database) as opened, closing(Greffier(opened)) as record:
        yield record


async def scripted(
    g: Greffier, *script: dict[str, Any], tools: Sequence[dict[str, Any]] = ()
) -> greffier.Conversation:
    """Make a conversation of ada's whose agent plays a script."""
    agent = await g.agents.create(
        name="Script", provider="script", model="x", tools=list(tools), params={"script": script}
    )
    return await g.conversations.create(owner="ada", agent=agent.id)


def says(text: str, after_ms: int = 0) -> dict[str, Any]:
    """A step of a script: more of the answer."""
    return {"after_ms": after_ms, "event": "content.delta", "data": {"text": text}}


def calls(name: str, arguments: str) -> dict[str, Any]:
    """A step of a script: a tool is called."""
    data = {"id": "c1", "name": name, "arguments": arguments}
    return {"after_ms": 0, "event": "tool.call", "data": data}


async def test_an_answer_is_read_as_it_is_made_and_is_on_record_at_its_end(g: Greffier) -> None:
    """What the deltas say together is what the message says."""
    talk = await scripted(g, says("Bon"), says("jour "), says("à tous 🎉"))
    async with g.working(Settings()):
        run = await g.runs.start(talk.id, content="Dis bonjour", actor="ada")
        events = [event async for event in g.runs.events(run.id)]

    names = [event.name for event in events]
    assert names[0] == "run.started"
    assert names[-2:] == ["message", "run.completed"]
    assert [event.id for event in events] == list(range(1, len(events) + 1))
    told = "".join(event.data["text"] for event in events if event.name == "content.delta")
    page = await g.messages.recent(talk.id)
    assert [message.content for message in page.data] == ["Dis bonjour", told]
    assert told == "Bonjour à tous 🎉"
    ended = await g.runs.get(run.id, actor="ada")
    assert (ended.status, ended.message_seq) == ("completed", 2)


async def test_a_function_of_this_process_is_called_by_the_model(g: Greffier) -> None:
    """Its types are checked, it may ask for which run it is, and its result is on record."""
    asked: list[tuple[str, int, str]] = []

    @g.tool
    async def weather(city: str, run: ToolRun, days: int = 1) -> dict[str, Any]:
        """Say how the weather is."""
        asked.append((city, days, run.asked_by))
        return {"city": city, "temps": "beau"}

    tool = g.tools.get("weather")
    assert tool is not None
    properties = tool.spec["function"]["parameters"]["properties"]
    assert set(properties) == {"city", "days"}

    talk = await scripted(
        g, calls("weather", '{"city": "Lyon"}'), says("Il fait beau."), tools=[tool.spec]
    )
    async with g.working(Settings()):
        run = await g.runs.start(talk.id, content="Et à Lyon ?", actor="ada")
        await g.runs.wait(run.id)

    page = await g.messages.recent(talk.id)
    assert [(m.role, m.content) for m in page.data[1:]] == [
        ("assistant", None),
        ("tool", '{"city":"Lyon","temps":"beau"}'),
        ("assistant", "Il fait beau."),
    ]
    assert asked == [("Lyon", 1, "ada")]


async def test_a_tool_that_cannot_is_told_to_the_model_and_not_to_the_world(g: Greffier) -> None:
    """The model learns that it failed, and how its arguments were wrong: no stack, no secret."""

    @g.tool
    def divide(by: int) -> float:
        """Divide."""
        raise ZeroDivisionError(f"password=hunter{by}")

    tool = g.tools.get("divide")
    assert tool is not None
    talk = await scripted(g, calls("divide", '{"by": 0}'), says("Non."), tools=[tool.spec])
    wrong = await scripted(g, calls("divide", '{"by": "x"}'), says("Non."), tools=[tool.spec])
    async with g.working(Settings()):
        for one in (talk, wrong):
            await g.runs.wait((await g.runs.start(one.id, content="?", actor="ada")).id)

    said = [(await g.messages.recent(one.id)).data[2].content for one in (talk, wrong)]
    assert said[0] == "error: divide failed: ZeroDivisionError"
    assert said[1] is not None
    assert said[1].startswith("error: the arguments do not fit")


async def test_one_voice_at_a_time_until_it_is_taken_back(g: Greffier) -> None:
    """A second run is refused with nothing stored; a cancelled one keeps what it had said."""
    talk = await scripted(g, says("Je"), says(" continue", after_ms=3_600_000))
    async with g.working(Settings()):
        run = await g.runs.start(talk.id, content="Vas-y", actor="ada")
        events = g.runs.events(run.id)
        async for event in events:
            if event.name == "content.delta":
                break
        with pytest.raises(RunActive):
            await g.runs.start(talk.id, content="Moi aussi", actor="ada")
        assert (await g.runs.cancel(run.id, actor="ada")).status == "cancelled"
        rest = [event.name async for event in events]

    assert rest == ["message", "run.cancelled"]
    page = await g.messages.recent(talk.id)
    assert [(m.content, m.status) for m in page.data] == [
        ("Vas-y", "complete"),
        ("Je", "cancelled"),
    ]


async def test_who_follows_the_conversation_sees_the_answer_come(g: Greffier) -> None:
    """Old view and changes make the fresh view, and say who is answering meanwhile."""
    talk = await scripted(g, says("Oui."))
    active: list[object] = []
    seen: list[str | None] = []

    async def follow() -> None:
        async for change in g.follow(talk.id, since=talk.rev, epoch=talk.epoch):
            assert change.conversation is not None
            active.append(change.conversation.active_run_id)
            seen.extend(message.content for message in change.messages)
            if seen[-1:] == ["Oui."]:
                return

    async with g.working(Settings()), asyncio.TaskGroup() as group:
        group.create_task(follow())
        run = await g.runs.start(talk.id, content="Non ?", actor="ada")

    assert seen == ["Non ?", "Oui."]
    assert active[-1] is None
    assert set(active) <= {run.id, None}


async def test_following_ends_with_the_reason(g: Greffier) -> None:
    """Who is removed from a room learns so, instead of waiting for ever."""
    room = await g.conversations.create(owner="ada", kind="room", participants={"bob": "member"})
    following = g.follow(room.id, since=room.rev, actor="bob")

    async def to_the_end() -> None:
        async for _ in following:
            pass

    async with asyncio.TaskGroup() as group:
        task = group.create_task(_refused(to_the_end()))
        await g.conversations.leave(room.id, user="bob")

    assert isinstance(task.result(), NotFound)


async def test_nobody_is_asked_where_there_is_no_agent(g: Greffier) -> None:
    """The refusal says so, and the message is not on record."""
    talk = await g.conversations.create(owner="ada")

    with pytest.raises(Invalid) as refused:
        await g.runs.start(talk.id, content="?", actor="ada")

    assert [one.code for one in refused.value.problems] == ["no-agent"]
    assert (await g.messages.recent(talk.id)).data == []


async def _refused(call: Awaitable[None]) -> greffier.Error:
    """Give the refusal that a call ends with."""
    try:
        await call
    except greffier.Error as error:
        return error
    raise AssertionError("it was not refused")
