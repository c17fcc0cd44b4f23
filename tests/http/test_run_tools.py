"""Promise: what a model calls is called once, its results are told and kept, all is counted."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterable
from contextlib import AsyncExitStack
from decimal import Decimal
from typing import Any

from greffier.agents.speaking import MOST_CALLS, MOST_STEPS, MOST_TOKENS
from greffier.agents.tools import LARGEST_RESULT, Tool, ToolRun
from helpers.api import Person, expect, path
from helpers.following import PATIENCE, Event, text_of, whole
from helpers.openai_server import (
    USAGE,
    Reply,
    call,
    chunk,
    delta,
    done,
    failing,
    finish,
    hang_up,
    pause,
    saying,
)
from helpers.working import Working, contents

ASK = {"message": {"content": "Quel temps à Lyon et à Brest ?"}}
LYON = call("c1", "weather", '{"city": "Lyon"}')
BREST = call("c2", "weather", '{"city": "Brest"}', index=1)


def spec(name: str) -> dict[str, Any]:
    """A tool as an agent names it."""
    parameters = {"type": "object", "properties": {}}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


async def asker(work: Working, person: Person, *names: str) -> dict[str, Any]:
    """A conversation with an agent that has these tools."""
    return await work.talk(person, await work.agent(tools=[spec(name) for name in names]))


def told(events: Iterable[Event], name: str) -> list[Any]:
    """The data of the events of a name."""
    return [event.data for event in events if event.name == name]


async def test_a_function_answers_and_the_model_goes_on(work: Working, eve: Person) -> None:
    """Its result is told, kept and sent; each call stands in the journal; both questions count."""
    given: list[ToolRun] = []

    async def weather(city: str, run: ToolRun) -> dict[str, Any]:
        """The weather in a city."""
        given.append(run)
        return {"city": city, "sky": "éclaircies"}

    work.tools.register(Tool.of(weather))
    talk = await asker(work, eve, "weather")
    work.provider.say("Voyons.", LYON)
    work.provider.say("Il fait beau.")

    events = await work.answer(eve, talk, ASK)

    whole(events)
    result = '{"city":"Lyon","sky":"éclaircies"}'
    assert told(events, "tool.result") == [{"id": "c1", "content": result}]
    assert [(str(one.conversation_id), one.asked_by, one.call_id) for one in given] == [
        (talk["id"], eve.id, "c1")
    ]
    assert await contents(eve, talk) == [
        ("user", ASK["message"]["content"]), ("assistant", "Voyons."), ("tool", result),
        ("assistant", "Il fait beau."),
    ]  # fmt: skip
    second = work.provider.requests[1].body["messages"]
    assert [one["role"] for one in second] == ["user", "assistant", "tool"]
    assert second[2]["content"] == result
    assert await work.fetch(
        "select step, call_id, name, failed, finished_at is null from greffier.run_steps"
    ) == [(1, "c1", "weather", False, False)]
    run = await work.read(eve, events[0].data["run_id"])
    assert run["usage"] == {
        "input_tokens": 22, "output_tokens": 14, "cached_tokens": 0, "cost": 0.000276,
    }  # fmt: skip


async def test_calls_of_one_answer_run_side_by_side(work: Working, eve: Person) -> None:
    """Neither waits for the other; their results are told in the order of the calls."""
    both = asyncio.Barrier(2)
    first = asyncio.Event()

    async def weather(city: str) -> str:
        await both.wait()
        if city == "Lyon":
            await first.wait()
        first.set()
        return f"{city} : 18 °C"

    work.tools.register(Tool.of(weather))
    talk = await asker(work, eve, "weather")
    work.provider.say(LYON, BREST)
    work.provider.say("18 °C partout.")

    events = await work.answer(eve, talk, ASK)

    assert told(events, "tool.result") == [
        {"id": "c1", "content": "Lyon : 18 °C"}, {"id": "c2", "content": "Brest : 18 °C"},
    ]  # fmt: skip
    page = expect(await eve.http.get(f"{path(talk)}/messages"), 200)["data"]
    assert [one["id"] for one in page[1]["tool_calls"]] == ["c1", "c2"]
    assert [one["tool_call_id"] for one in page[2:4]] == ["c1", "c2"]


async def test_a_tool_that_fails_is_told_to_the_model_and_not_why(
    work: Working, eve: Person
) -> None:
    """Wrong arguments, an exception, too much: the run goes on, and the journal says it failed."""

    def weather(city: str) -> str:
        if city == "Lyon":
            raise RuntimeError("password: hunter2")
        return "é" * LARGEST_RESULT

    work.tools.register(Tool.of(weather))
    talk = await asker(work, eve, "weather")
    work.provider.say(LYON, BREST, call("c3", "weather", '{"town": 7}', index=2))
    work.provider.say("Je ne sais pas.")

    events = await work.answer(eve, talk, ASK)

    whole(events)
    broken, large, wrong = [one["content"] for one in told(events, "tool.result")]
    assert broken == "error: weather failed: RuntimeError"
    assert wrong.startswith("error: the arguments do not fit")
    assert len(large.encode()) < LARGEST_RESULT + 100
    assert "[cut:" in large
    assert "hunter2" not in str(events)
    assert await work.fetch("select failed from greffier.run_steps order by call_id") == [
        (True,), (False,), (True,),
    ]  # fmt: skip
    async with work.follow(eve, events[0].data["run_id"]) as stream:
        assert await stream.rest() == events


async def test_however_a_tool_breaks_the_run_goes_on(work: Working, eve: Person) -> None:
    """A task of its own that was cancelled, its own timeout, a way out, what JSON cannot say."""

    async def cancelled() -> None:
        other = asyncio.ensure_future(asyncio.Event().wait())
        other.cancel()
        await other

    async def late() -> None:
        raise TimeoutError("of its own")

    def leaves() -> None:
        raise SystemExit(2)

    def circles() -> list[Any]:
        round_and_round: list[Any] = []
        round_and_round.append(round_and_round)
        return round_and_round

    tools = (cancelled, late, leaves, circles)
    for function in tools:
        work.tools.register(Tool.of(function))
    names = [function.__name__ for function in tools]
    talk = await asker(work, eve, *names)
    work.provider.say(*(call(name, name, "{}", index) for index, name in enumerate(names)))
    work.provider.say("Rien à faire.")

    events = await work.answer(eve, talk, ASK)

    whole(events)
    assert events[-1].name == "run.completed"
    assert [one["content"] for one in told(events, "tool.result")] == [
        "error: cancelled failed: CancelledError", "error: late failed: TimeoutError",
        "error: leaves failed: SystemExit", "error: circles failed: RecursionError",
    ]  # fmt: skip


async def test_what_the_agent_does_not_offer_is_not_called(work: Working, eve: Person) -> None:
    """A function that is there for another agent is the client's to answer, by whatever it says."""
    called: list[str] = []

    async def weather(city: str) -> str:
        called.append(city)
        return "beau"

    work.tools.register(Tool.of(weather))
    talk = await asker(work, eve, "news")
    work.provider.say("Voyons.", LYON)

    events = await work.answer(eve, talk, ASK)

    assert [event.name for event in events[-2:]] == ["message", "run.completed"]
    assert [one["name"] for one in told(events, "tool.call")] == ["weather"]
    assert called == []
    assert await work.fetch("select 1 from greffier.run_steps") == []


async def test_functions_that_never_return_hold_up_nothing_else(work: Working, eve: Person) -> None:
    """They run on threads of their own: names are looked up meanwhile, and providers are made."""
    begun, let_go = threading.Semaphore(0), threading.Event()

    def weather(city: str) -> str:
        begun.release()
        let_go.wait()
        return city

    work.tools.register(Tool.of(weather))
    talk = await asker(work, eve, "weather")
    many = 20  # more than the threads of an event loop on a small machine
    work.provider.say(*(call(f"c{one}", "weather", '{"city": "Lyon"}', one) for one in range(many)))
    work.provider.say("18 °C.")
    try:
        async with work.run(eve, talk, ASK) as stream:
            # On a thread of the event loop's, which would otherwise wait for one of theirs.
            assert await asyncio.to_thread(_acquired, begun, many)
            let_go.set()
            events = await stream.rest()
    finally:
        let_go.set()

    assert len(told(events, "tool.result")) == many
    assert text_of(events) == "18 °C."


def _acquired(begun: threading.Semaphore, many: int) -> bool:
    return all(begun.acquire(timeout=60) for _ in range(many))


async def test_what_nobody_here_answers_is_the_clients(work: Working, eve: Person) -> None:
    """The run ends with the calls; the client appends the results, and the next run goes on."""
    asked: list[str] = []

    def weather(city: str) -> str:
        asked.append(city)
        return f"{city} : 18 °C"

    work.tools.register(Tool.of(weather))
    talk = await asker(work, eve, "weather", "open_door")
    work.provider.say("Un instant.", LYON, call("c2", "open_door", "{}", index=1))
    work.provider.say("La porte est ouverte.")

    events = await work.answer(eve, talk, ASK)
    whole(events)
    assert events[-1].name == "run.completed"
    assert [one["name"] for one in told(events, "tool.call")] == ["weather", "open_door"]
    assert [one["id"] for one in told(events, "tool.result")] == ["c1"]
    await eve.say(talk, "ouverte", role="tool", tool_call_id="c2")
    after = await work.answer(eve, talk)

    assert text_of(after) == "La porte est ouverte."
    assert asked == ["Lyon"]
    question = work.provider.requests[1].body["messages"]
    assert [(one["role"], one.get("tool_call_id")) for one in question] == [
        ("user", None), ("assistant", None), ("tool", "c1"), ("tool", "c2"),
    ]  # fmt: skip


async def test_a_model_that_calls_for_ever_is_stopped_and_paid(work: Working, eve: Person) -> None:
    """After so many questions the run fails, with all that was said, called and used."""
    calls = 0

    def weather(city: str) -> str:
        nonlocal calls
        calls += 1
        return city

    work.tools.register(Tool.of(weather))
    talk = await asker(work, eve, "weather")
    work.provider.always(lambda _: saying(LYON))

    events = await work.answer(eve, talk, ASK)

    whole(events)
    assert events[-1].data["code"] == "too-many-steps"
    assert (calls, len(work.provider.requests)) == (MOST_STEPS, MOST_STEPS)
    run = await work.read(eve, events[0].data["run_id"])
    assert run["usage"]["input_tokens"] == MOST_STEPS * USAGE["prompt_tokens"]
    assert len(await contents(eve, talk)) == 1 + 2 * MOST_STEPS


async def test_too_many_calls_at_once_are_none(work: Working, eve: Person) -> None:
    """Nothing is called of an answer that is refused."""

    def weather(city: str) -> str:
        raise AssertionError(city)

    work.tools.register(Tool.of(weather))
    talk = await asker(work, eve, "weather")
    work.provider.say(
        *(call(f"c{n}", "weather", '{"city": "x"}', index=n) for n in range(MOST_CALLS + 1))
    )

    events = await work.answer(eve, talk, ASK)

    assert events[-1].data["code"] == "answer-too-long"
    assert await work.fetch("select 1 from greffier.run_steps") == []


async def test_cancelling_stops_a_tool_that_is_under_way(work: Working, eve: Person) -> None:
    """The call is on record, without a result; the next run can go on behind it."""
    begun, stopped = asyncio.Event(), asyncio.Event()

    async def weather(city: str) -> str:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        return city

    work.tools.register(Tool.of(weather))
    talk = await asker(work, eve, "weather")
    work.provider.say("Voyons.", LYON)
    async with work.run(eve, talk, ASK) as stream:
        await begun.wait()
        run_id = (await stream.until("run.started")).data["run_id"]
        run = expect(await eve.http.post(f"/v1/runs/{run_id}/cancel"), 200)
        events = await stream.rest()
    await asyncio.wait_for(stopped.wait(), PATIENCE)

    assert run["status"] == "cancelled"
    whole(events)
    assert [event.name for event in events[-3:]] == ["tool.call", "message", "run.cancelled"]
    work.provider.say("Pardon.")
    assert text_of(await work.answer(eve, talk, {"message": {"content": "Laisse."}})) == "Pardon."


async def test_what_the_provider_does_wrong_is_told_by_its_code(work: Working, eve: Person) -> None:
    """Refusals, a wait that is asked for, a line that breaks: what was said stays, and no more."""
    reset = {"message": "maximum context length", "code": "context_length_exceeded"}
    broken = (delta(role="assistant", content=""), "Il ", "fait", hang_up())
    for reply, code, words in (
        (failing(401, "Incorrect API key provided: sk-secret"), "provider-refused", None),
        (failing(429, "slow down", headers={"retry-after": "7"}), "provider-rate-limited", None),
        (failing(400, reset["message"], code=reset["code"]), "context-too-long", None),
        (failing(500), "provider-unavailable", None),
        (Reply(broken), "provider-unavailable", "Il fait"),
        (Reply((delta(content="Il "), "data: {\n\n")), "provider-unavailable", None),
    ):
        work.provider.put(reply)
        talk = await work.talk(eve, await work.agent())
        events = await work.answer(eve, talk, ASK)
        whole(events)
        assert (events[-1].name, events[-1].data["code"]) == ("run.failed", code)
        assert "sk-secret" not in str(events)
        if words is not None:
            assert text_of(events) == words
            assert (await contents(eve, talk))[1] == ("assistant", words)


async def test_a_count_that_cannot_be_is_no_harm(work: Working, eve: Person) -> None:
    """Whatever a service says it used, the run ends, and so do those beside it."""
    for tokens in (10**30, -5, 1.5, "7", None):
        said = {"prompt_tokens": tokens, "completion_tokens": tokens}
        work.provider.play(delta(content="Bon"), finish(), chunk(usage=said), done())
        talk = await work.talk(eve, await work.agent())
        events = await work.answer(eve, talk, ASK)
        assert events[-1].name == "run.completed"
        usage = events[-1].data["usage"]
        assert usage["input_tokens"] == (MOST_TOKENS if tokens == 10**30 else 0)


async def test_what_the_record_will_not_have_ends_one_run_alone(work: Working, eve: Person) -> None:
    """That one fails with what it had said; those whose words came with it lose nothing."""
    await work.fetch(
        "alter table greffier.run_events add constraint picky check (body not like '%poison%')"
    )
    agent = await work.agent()
    talks = [await work.talk(eve, agent) for _ in range(5)]
    work.provider.always(
        lambda body: saying("Bon", pause(), *(
            ["poison", "et", pause(1)] if "poison" in str(body) else ["jour"]
        ))
    )  # fmt: skip
    async with AsyncExitStack() as stack:
        streams = []
        for number, talk in enumerate(talks):
            asked = {"message": {"content": "poison" if number == 2 else "eau"}}
            streams.append(await stack.enter_async_context(work.run(eve, talk, asked)))
        for stream in streams:
            await stream.until("content.delta")
        work.provider.go_on()
        ends = [await stream.rest() for stream in streams]

    for number, events in enumerate(ends):
        whole(events)
        if number == 2:
            assert (text_of(events), events[-1].data["code"]) == ("Bon", "internal")
        else:
            assert (text_of(events), events[-1].name) == ("Bonjour", "run.completed")
    assert [line["error"] for line in work.broken()] == ["CheckViolationError"]


async def test_where_nothing_was_said_nobody_is_asked(work: Working, eve: Person) -> None:
    """An empty conversation has nothing to answer, which a service would refuse."""
    talk = await work.talk(eve, await work.agent())

    events = await work.answer(eve, talk, {})

    assert [(one.name, one.data.get("code")) for one in events[1:]] == [
        ("run.failed", "provider-refused")
    ]
    assert work.provider.requests == []


async def test_the_ledger_is_what_the_provider_counted(work: Working, eve: Person) -> None:
    """Of whole answers, failed ones and cancelled ones; per person and month, to the last digit."""
    counted = [
        {"prompt_tokens": 1000 + n, "completion_tokens": 10 * n,
         "prompt_tokens_details": {"cached_tokens": 100 * n}}
        for n in range(5)
    ]  # fmt: skip
    for used in counted:
        work.provider.put(saying("x", used={**used, "total_tokens": 0}))
        await work.answer(eve, await work.talk(eve, await work.agent()), ASK)
    work.provider.put(saying("un", pause(), "deux"))
    talk = await work.talk(eve, await work.agent())
    async with work.run(eve, talk, ASK) as stream:
        await stream.until("content.delta")
        await eve.http.post(f"/v1/runs/{stream.seen[0].data['run_id']}/cancel")
        await stream.rest()

    sent = sum(used["prompt_tokens"] for used in counted)  # type: ignore[misc]
    said = sum(used["completion_tokens"] for used in counted)  # type: ignore[misc]
    cached = sum(100 * n for n in range(5))
    cost = (Decimal(3) * (sent - cached) + Decimal("0.3") * cached + Decimal(15) * said) / 1_000_000
    rows = await work.fetch(
        "select count(*), sum(calls), sum(input_tokens), sum(output_tokens), sum(cached_tokens),"
        " sum(cost) from greffier.usage where user_id = $1", eve.id,
    )  # fmt: skip
    assert rows == [(6, 6, sent, said, cached, cost)]
    mine = expect(await eve.http.get("/v1/me/usage"), 200)
    assert json.dumps(mine).count(str(said)) >= 1


async def test_what_was_told_before_the_end_is_paid_for(work: Working, eve: Person) -> None:
    """Some services count as they go: a run that is cut short has on the ledger what they said."""
    agent = await work.agent(tools=[spec("weather")])
    work.tools.register(Tool.of(_weather, "weather"))
    work.provider.say(LYON)
    work.provider.play(
        delta(role="assistant", content="Il "), chunk(usage={**USAGE, "completion_tokens": 1}),
        "fait", chunk(usage={**USAGE, "completion_tokens": 2}), pause(),
    )  # fmt: skip
    talk = await work.talk(eve, agent)
    async with work.run(eve, talk, ASK) as stream:
        run_id = (await stream.until("run.started")).data["run_id"]
        so_far = "select input_tokens, output_tokens from greffier.runs where ended_at is null"
        while await work.fetch(so_far) != [(22, 9)]:
            pass
        await eve.http.post(f"/v1/runs/{run_id}/cancel")
        await stream.rest()

    assert await work.fetch(
        "select calls, input_tokens, output_tokens from greffier.usage where run_id = $1", run_id
    ) == [(2, 22, 9)]  # fmt: skip


async def _weather(city: str) -> str:
    return city
