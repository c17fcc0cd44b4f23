"""Promise: a run's events are told once each, in order, from any event on, during it and after."""

from __future__ import annotations

import uuid
from contextlib import AsyncExitStack
from typing import Any

import pytest

from helpers.api import Person, expect, path, refused
from helpers.following import Event, text_of, whole
from helpers.openai_server import pause, saying, think
from helpers.working import Working, contents

WORDS = [
    "Ça",
    " va",
    " ? 👩‍👩‍👧‍👦",
    "🇫🇷",
    " e\u0301té",
    " — «\u00a0oui\u00a0»",
    '\n\t"\\ ',
    "\u2028",
    "𝄞.",
]
#: Each is an event of its own: what follows a thought is no more of the answer before it.
STEPS = [step for word in WORDS for step in (think(f"« {word} » "), word)]
ASK = {"message": {"content": "Dis-le-moi."}}


async def saying_half(work: Working, person: Person) -> tuple[dict[str, Any], str, int]:
    """Begin an answer that waits in its middle; give where, which run, and its last event then."""
    work.provider.put(saying(*STEPS[:10], pause(), *STEPS[10:]))
    talk = await work.talk(person, await work.agent())
    run = expect(await person.http.post(f"{path(talk)}/runs", json=ASK), 202)
    async with work.follow(person, run["id"]) as stream:
        for _ in range(11):
            event = await stream.next()
    assert event is not None
    assert event.id == 11
    return talk, run["id"], event.id


async def replayed(work: Working, person: Person, run_id: str, after: int = 0) -> list[Event]:
    """What somebody hears who follows now."""
    async with work.follow(person, run_id, after) as stream:
        return await stream.rest()


async def test_whoever_comes_back_hears_the_rest_wherever_they_were(
    work: Working, eve: Person
) -> None:
    """From every event on, in the middle of the answer and after its end, to the letter."""
    talk, run_id, last = await saying_half(work, eve)
    async with AsyncExitStack() as stack:
        streams = [
            await stack.enter_async_context(work.follow(eve, run_id, last_event_id=str(after)))
            for after in range(last + 1)
        ]
        for after, stream in enumerate(streams):
            for number in range(after + 1, last + 1):
                event = await stream.next()
                assert event is not None
                assert event.id == number
        work.provider.go_on()
        live = [await stream.rest() for stream in streams]

    everything = live[0]
    whole(everything)
    for after, events in enumerate(live):
        assert events == everything[after:], after
    for after in range(len(everything) + 1):
        assert await replayed(work, eve, run_id, after) == everything[after:], after
    assert text_of(everything) == "".join(WORDS)
    assert text_of(everything, "reasoning.delta") == "".join(f"« {word} » " for word in WORDS)
    message = expect(await eve.http.get(f"{path(talk)}/messages"), 200)["data"][1]
    assert message["content"] == text_of(everything)
    assert message["reasoning"] == text_of(everything, "reasoning.delta")


async def test_starting_again_with_a_position_goes_on_from_there(
    work: Working, eve: Person
) -> None:
    """POST with the same id and Last-Event-ID: one way to ask and to come back."""
    talk = await work.talk(eve, await work.agent())
    work.provider.put(saying(*STEPS))
    asked = {**ASK, "id": str(uuid.uuid4())}
    everything = await work.answer(eve, talk, asked)

    async with work.run(eve, talk, asked, last_event_id="5") as stream:
        assert await stream.rest() == everything[5:]


async def test_a_position_beyond_the_end_is_no_fault_and_nonsense_is(
    work: Working, eve: Person
) -> None:
    """The header comes first; what is no number is refused before anything is sent."""
    talk = await work.talk(eve, await work.agent())
    work.provider.put(saying(*STEPS))
    events = await work.answer(eve, talk, ASK)
    where = f"/v1/runs/{events[0].data['run_id']}/events"

    assert await replayed(work, eve, events[0].data["run_id"], 10**9) == []
    async with work.follow(eve, events[0].data["run_id"], 3, last_event_id="7") as stream:
        assert await stream.rest() == events[7:]
    for nonsense in ("-1", "x", "1.5", "1" * 16):
        header = {"last-event-id": nonsense}
        refused(await eve.http.get(where, headers=header), 422, "validation")
    for nonsense in ("-1", "x"):
        refused(await eve.http.get(f"{where}?after={nonsense}"), 422, "validation")
    refused(await eve.http.get(f"/v1/runs/{uuid.uuid4()}/events"), 404, "not-found")


async def test_asking_whether_there_is_something_to_follow_follows_nothing(
    work: Working, eve: Person
) -> None:
    """HEAD leaves nobody behind who would be told of everything for ever."""
    talk, run_id, _ = await saying_half(work, eve)

    for where in (f"/v1/runs/{run_id}/events", f"{path(talk)}/events", "/v1/events"):
        answer = await eve.http.head(where)
        assert (answer.status_code, answer.content) == (200, b"")

    service = work.app.service
    assert (service.runs._followers, service.feed._streams, service.own._users) == ({}, {}, {})


async def test_leaving_cancels_nothing(work: Working, eve: Person) -> None:
    """Whoever closes the page finds the whole answer later."""
    work.provider.put(saying(*STEPS[:10], pause(), *STEPS[10:]))
    talk = await work.talk(eve, await work.agent())
    async with work.run(eve, talk, ASK) as stream:
        event = await stream.until("content.delta")

    work.provider.go_on()

    rest = await replayed(work, eve, stream.seen[0].data["run_id"], event.id)
    assert text_of([*stream.seen, *rest]) == "".join(WORDS)


async def test_a_follower_who_is_slow_misses_nothing_and_holds_nobody_up(
    work: Working, eve: Person
) -> None:
    """More events than wait for anybody: they are read from the record then."""
    many = [step for n in range(200) for step in (think(f"{n}?"), f"{n}.")]
    work.provider.put(saying(many[0], many[1], pause(), *many[2:]))
    talk = await work.talk(eve, await work.agent())

    async with work.run(eve, talk, ASK) as slow:
        await slow.until("content.delta")
        run_id = slow.seen[0].data["run_id"]
        work.provider.go_on()
        quick = await replayed(work, eve, run_id)
        assert len(quick) == 403
        assert len(slow.seen) <= 4
        assert await slow.rest() == quick

    whole(quick)
    assert await replayed(work, eve, run_id) == quick


async def test_a_message_that_was_edited_is_told_as_it_was_said(work: Working, eve: Person) -> None:
    """The events are history; the message among them is as it stands now."""
    work.provider.put(saying(*STEPS))
    talk = await work.talk(eve, await work.agent())
    events = await work.answer(eve, talk, ASK)
    for words in ("autrement", "encore autrement"):
        expect(await eve.http.patch(f"{path(talk)}/messages/2", json={"content": words}), 200)

    again = await replayed(work, eve, events[0].data["run_id"])

    assert [one for one in again if one.name != "message"] == [
        one for one in events if one.name != "message"
    ]
    assert next(one for one in again if one.name == "message").data["message"]["content"] == (
        "encore autrement"
    )


@pytest.mark.parametrize("erase", [False, True])
async def test_a_message_that_was_deleted_is_left_out(
    work: Working, eve: Person, *, erase: bool
) -> None:
    """Nothing of it is told; what else was said keeps its numbers."""
    agent = await work.script(
        ("content.delta", {"text": "Je regarde."}),
        ("tool.call", {"id": "c1", "name": "look", "arguments": "{}"}),
        ("tool.result", {"id": "c1", "content": "rien"}),
        ("content.delta", {"text": "Rien."}),
    )
    talk = await work.talk(eve, agent)
    events = await work.answer(eve, talk, ASK)
    gone = await eve.http.delete(f"{path(talk)}/messages/2{'?erase=true' if erase else ''}")
    assert gone.status_code == 204

    again = await replayed(work, eve, events[0].data["run_id"])

    assert text_of(again) == "Rien."
    assert "Je regarde" not in str(again)
    assert [one.name for one in again] == [
        "run.started", "tool.result", "content.delta", "message", "message", "message",
        "run.completed",
    ]  # fmt: skip
    for event in again:
        if event.name != "message":
            assert event == events[event.id - 1]


async def test_what_is_cut_in_a_page_is_told_whole(work: Working, eve: Person) -> None:
    """Large arguments, results and words: the same after the end as during it."""
    large = "é" * 20_000
    agent = await work.script(
        ("reasoning.delta", {"text": large}),
        ("content.delta", {"text": large}),
        ("tool.call", {"id": "c1", "name": "look", "arguments": f'{{"a":"{large}"}}'}),
        ("tool.result", {"id": "c1", "content": large}),
        ("content.delta", {"text": large}),
    )
    talk = await work.talk(eve, agent)
    events = await work.answer(eve, talk, ASK)

    whole(events)
    assert await replayed(work, eve, events[0].data["run_id"]) == events
    call = next(one for one in events if one.name == "tool.call")
    assert call.data["arguments"] == f'{{"a":"{large}"}}'
    assert text_of(events) == 2 * large


async def test_who_is_removed_while_they_follow_hears_no_more(work: Working, eve: Person) -> None:
    """Their stream ends, the others' go on; a stranger never heard anything."""
    bob, zoe, sly = (work.person(name) for name in ("bob", "zoe", "sly"))
    async with bob.http, zoe.http, sly.http:
        work.provider.put(saying("Bon", pause(), "jour"))
        people = [{"user_id": bob.id}, {"user_id": zoe.id, "role": "viewer"}]
        talk = await work.talk(eve, await work.agent(), kind="room", participants=people)
        run = expect(await bob.http.post(f"{path(talk)}/runs", json=ASK), 202)
        async with work.follow(bob, run["id"]) as his, work.follow(zoe, run["id"]) as hers:
            await his.until("content.delta")
            await hers.until("content.delta")
            gone = await eve.http.delete(f"{path(talk)}/participants/{bob.id}")
            assert gone.status_code == 204
            heard = await his.rest()
            work.provider.go_on()
            whole(await hers.rest())

        assert text_of(heard) == "Bon"
        assert heard[-1].name == "content.delta"
        for person in (bob, sly):
            refused(await person.http.get(f"/v1/runs/{run['id']}"), 404, "not-found")
            refused(await person.http.get(f"/v1/runs/{run['id']}/events"), 404, "not-found")
            refused(await person.http.post(f"/v1/runs/{run['id']}/cancel"), 404, "not-found")
            refused(await person.http.post(f"{path(talk)}/runs", json=ASK), 404, "not-found")
        # A viewer hears, and neither asks nor stops.
        refused(await zoe.http.post(f"{path(talk)}/runs", json=ASK), 403, "forbidden")
        refused(await zoe.http.post(f"/v1/runs/{run['id']}/cancel"), 403, "forbidden")
        assert [who for who, _ in await contents(eve, talk)] == ["user", "system", "assistant"]


async def test_whoever_asked_stays_the_payer_when_they_leave(work: Working, eve: Person) -> None:
    """The answer goes on without them, and its tokens are theirs."""
    bob = work.person("bob")
    async with bob.http:
        work.provider.put(saying("Bon", pause(), "jour"))
        talk = await work.talk(
            eve, await work.agent(), kind="room", participants=[{"user_id": bob.id}]
        )
        run = expect(await bob.http.post(f"{path(talk)}/runs", json=ASK), 202)
        async with work.follow(eve, run["id"]) as stream:
            await stream.until("content.delta")
            await bob.http.delete(f"{path(talk)}/participants/{bob.id}")
            work.provider.go_on()
            whole(await stream.rest())

    assert await work.fetch("select user_id, input_tokens + output_tokens from greffier.usage") == [
        (bob.id, 18)
    ]
