"""What a run has said is told again exactly, from any event on, when only its messages are left."""

from __future__ import annotations

import json
import random
from typing import Any

from greffier.agents.events import said
from greffier.store.database import Database, open_database
from helpers.lanes import Hand, call, result, text, thought, usage
from helpers.postgres import connected

#: Words that are longer in bytes, in UTF-16 or on the screen than in characters.
WORDS = (
    "a",
    "Bonjour ",
    "d\u00e9j\u00e0",
    "\U0001f600",
    "e\u0301",
    "\u2028",
    '"\\',
    "\n\n",
    "\u4f60\u597d",
    " ",
)


def some_events(chance: random.Random) -> list[tuple[str, str]]:
    """What a model and its tools may say: any number of answers, each with any number of calls."""
    events: list[tuple[str, str]] = []
    for turn in range(chance.randint(0, 3)):
        calls = [f"{turn}-{n}" for n in range(chance.randint(0, 3))]
        for id_ in [None, *calls]:
            if id_ is not None:
                events.append(call(id_, "look", json.dumps({"q": chance.choice(WORDS)})))
            for _ in range(chance.choice((0, 0, 1, 3))):
                say = chance.choice((text, text, thought))
                events.append(say("".join(chance.choices(WORDS, k=chance.randint(1, 4)))))
            if chance.random() < 0.3:
                events.append(usage())
        # Whatever stops a run may stop it between a call and its result.
        answered = chance.choice((len(calls), chance.randint(0, len(calls))))
        events += [result(id_, chance.choice(WORDS)) for id_ in chance.sample(calls, answered)]
    return events


def shown(events: list[Any]) -> list[tuple[int, str, Any]]:
    """Events, as whoever follows understands them."""
    return [(event.id, event.name, json.loads(event.data)) for event in events]


async def check(store: Database, hand: Hand, chance: random.Random) -> None:
    """Let a run say something, and read it while it speaks and after its end."""
    claim, run = await hand.running()
    events = some_events(chance)
    if events:
        await hand.speak(claim, run, *events)
    during = await said(store, run, None)
    assert not during.over
    heard = shown(during.events)
    assert [name for _, name, _ in heard[1:]] == [e for e, _ in events if e != "usage"]
    status = chance.choice(("completed", "interrupted", "cancelled", "failed"))
    await hand.finish(claim, run, status)

    after = await said(store, run, None)
    told = shown(after.events)
    assert after.over
    assert told[: len(heard)] == heard
    assert [number for number, _, _ in told] == list(range(1, after.last + 1))
    *messages, (_, end, _) = told[len(heard) :]
    assert end == f"run.{status}"
    stored = await hand.messages(claim.lane.talk)
    assert [body["message"]["seq"] for _, _, body in messages] == [m["seq"] for m in stored]
    for delta, column in (("content.delta", "content"), ("reasoning.delta", "reasoning")):
        words = "".join(body["text"] for _, name, body in heard if name == delta)
        assert words == "".join(m[column] or "" for m in stored if m["role"] == "assistant")
    # Each result stands behind an answer that called for it, with nothing but results between.
    asked: set[str] = set()
    for message in stored:
        if message["role"] == "assistant":
            asked = {one["id"] for one in json.loads(message["tool_calls"] or "[]")}
        else:
            assert message["tool_call_id"] in asked
    # Whoever comes back with an event's id gets the rest.
    known = chance.randint(0, after.last)
    assert shown((await said(store, run, None, known)).events) == told[known:]


async def test_an_ended_run_is_told_as_it_was_heard(database: str) -> None:
    """Any answers, calls, results and words between, in any order a model may say them."""
    chance = random.Random(random.getrandbits(32))
    async with open_database(database) as store, connected(database) as live:
        for _ in range(60):
            await check(store, Hand(live), chance)
