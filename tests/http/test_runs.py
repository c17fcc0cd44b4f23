"""Promise: one answer at a time, asked for once, told as it is made, and then on record."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from typing import Any

import pytest

from helpers.api import Person, expect, path, pointers, refused
from helpers.following import text_of, whole
from helpers.openai_server import pause, saying
from helpers.working import Working, contents

THOUGHT = ("reasoning.delta", {"text": "Réfléchissons… "})
CALL = ("tool.call", {"id": "c1", "name": "weather", "arguments": '{"city":"Lyon"}'})
RESULT = ("tool.result", {"id": "c1", "content": "18 °C"})
WORDS = ("content.delta", {"text": "Il fait 18 °C à Lyon 🌞."})
USED = ("usage", {"input_tokens": 20, "output_tokens": 9, "cached_tokens": 4})
HELLO = {"message": {"content": "Quel temps fait-il ?"}}


async def asking(work: Working, person: Person) -> tuple[dict[str, Any], dict[str, Any]]:
    """Ask the scripted service, which says one word and waits; give conversation and run."""
    work.provider.put(saying("Bon", pause(), "jour"))
    talk = await work.talk(person, await work.agent())
    run = expect(await person.http.post(f"{path(talk)}/runs", json=HELLO), 202)
    return talk, run


async def midway(work: Working, person: Person) -> tuple[dict[str, Any], dict[str, Any]]:
    """The same, when its first word is on record."""
    talk, run = await asking(work, person)
    async with work.follow(person, run["id"]) as stream:
        await stream.until("content.delta")
    return talk, run


async def test_a_run_tells_its_events_to_the_letter(work: Working, eve: Person) -> None:
    """Numbered from one, in the order in which they happened, and with exactly one end."""
    agent = await work.script(THOUGHT, ("content.delta", {"text": "Voyons."}), CALL, RESULT, WORDS,
                              USED)  # fmt: skip
    talk = await work.talk(eve, agent)

    async with work.run(eve, talk, HELLO) as stream:
        events = await stream.rest()

    assert (stream.status, stream.headers["content-type"].partition(";")[0]) == (
        200,
        "text/event-stream",
    )
    whole(events)
    run_id = events[0].data["run_id"]
    assert events[0].data == {"run_id": run_id, "conversation_id": talk["id"]}
    assert [name for name, _ in itertools.groupby(one.name for one in events)] == [
        "run.started", "reasoning.delta", "content.delta", "tool.call", "tool.result",
        "content.delta", "message", "run.completed",
    ]  # fmt: skip
    told = {one.name: one.data for one in events}
    assert told["tool.call"] == CALL[1]
    assert told["tool.result"] == RESULT[1]
    usage = {"input_tokens": 20, "output_tokens": 9, "cached_tokens": 4, "cost": 0}
    assert told["run.completed"] == {"usage": usage}
    page = expect(await eve.http.get(f"{path(talk)}/messages"), 200)["data"]
    assert [one.data["message"] for one in events if one.name == "message"] == page[1:]
    first, tool, last = page[1:]
    assert (first["role"], first["content"], first["reasoning"]) == (
        "assistant", "Voyons.", THOUGHT[1]["text"],
    )  # fmt: skip
    assert first["tool_calls"] == [
        {"id": "c1", "type": "function",
         "function": {"name": "weather", "arguments": '{"city":"Lyon"}'}}
    ]  # fmt: skip
    assert (tool["role"], tool["tool_call_id"], tool["content"]) == ("tool", "c1", "18 °C")
    assert (last["role"], last["content"], last["status"]) == (
        "assistant", WORDS[1]["text"], "complete",
    )  # fmt: skip
    assert {one["run_id"] for one in page[1:]} == {run_id}
    run = await work.read(eve, run_id)
    assert (run["status"], run["message_seq"], run["error"]) == ("completed", 4, None)
    assert run["usage"] == usage
    assert run["created_at"] <= run["started_at"] <= run["ended_at"]


async def test_without_asking_for_events_the_run_is_the_answer(work: Working, eve: Person) -> None:
    """202 and where to look; closing the connection cancels nothing."""
    talk = await work.talk(eve, await work.script(WORDS))

    answer = await eve.http.post(f"{path(talk)}/runs", json=HELLO)

    run = expect(answer, 202)
    assert answer.headers["location"] == f"/v1/runs/{run['id']}"
    assert (run["status"], run["message_seq"], run["conversation_id"]) == (
        "queued", None, talk["id"],
    )  # fmt: skip
    async with work.follow(eve, run["id"]) as stream:
        whole(await stream.rest())
    async with work.run(eve, talk, {}, accept="text/html, text/event-stream;q=0.9") as stream:
        await stream.next()
        run_id = stream.seen[0].data["run_id"]
    async with work.follow(eve, run_id) as stream:
        assert (await stream.rest())[-1].name == "run.completed"


async def test_the_same_id_attaches_while_it_runs_and_after(work: Working, eve: Person) -> None:
    """The same request again, or a bare one: one run, one message, one answer by the model."""
    work.provider.put(saying("Bon", pause(), "jour"))
    talk = await work.talk(eve, await work.agent())
    asked = {**HELLO, "id": str(uuid.uuid4())}
    asked["message"] = {**HELLO["message"], "id": str(uuid.uuid4())}

    async with (
        work.run(eve, talk, asked) as first,
        work.run(eve, talk, asked) as second,
        work.run(eve, talk, {"id": asked["id"]}) as bare,
    ):
        await first.until("content.delta")
        await second.until("content.delta")
        again = expect(await eve.http.post(f"{path(talk)}/runs", json=asked), 202)
        assert (again["id"], again["status"]) == (asked["id"], "running")
        work.provider.go_on()
        seen = [await one.rest() for one in (first, second, bare)]
    after = await work.answer(eve, talk, asked)
    later = await work.answer(eve, talk, {"id": asked["id"]})

    whole(after)
    assert seen == [after, after, after]
    assert later == after
    assert len(work.provider.requests) == 1
    assert await contents(eve, talk) == [
        ("user", "Quel temps fait-il ?"), ("assistant", "Bonjour"),
    ]  # fmt: skip


async def test_a_key_makes_the_id_of_run_and_message(work: Working, eve: Person) -> None:
    """So that whoever has no id of their own may send twice too."""
    talk = await work.talk(eve, await work.script(WORDS))
    key = {"idempotency-key": "once and no more"}

    first = expect(await eve.http.post(f"{path(talk)}/runs", json=HELLO, headers=key), 202)
    second = expect(await eve.http.post(f"{path(talk)}/runs", json=HELLO, headers=key), 202)

    assert first["id"] == second["id"]
    async with work.follow(eve, first["id"]) as stream:
        await stream.rest()
    assert len(await contents(eve, talk)) == 2


async def test_another_request_under_the_same_id_is_refused(work: Working, eve: Person) -> None:
    """Also in another conversation; nothing is stored."""
    agent = await work.script(WORDS)
    talk, other = await work.talk(eve, agent), await work.talk(eve, agent)
    asked = {**HELLO, "id": str(uuid.uuid4())}
    await work.answer(eve, talk, asked)

    different = {**asked, "message": {"content": "autre chose"}}
    rewinding = {"id": asked["id"], "rewind_after": 0}
    for where, body in ((talk, different), (talk, rewinding), (other, asked)):
        answer = await eve.http.post(f"{path(where)}/runs", json=body)
        refused(answer, 409, "id-reused")

    assert [len(await contents(eve, one)) for one in (talk, other)] == [2, 0]


async def test_while_one_answers_another_is_refused_and_nothing_is_stored(
    work: Working, eve: Person
) -> None:
    """Neither the message nor the rewinding; when to ask again is told."""
    talk, run = await midway(work, eve)

    body = {"message": {"content": "et demain ?"}, "rewind_after": 0}
    answer = await eve.http.post(f"{path(talk)}/runs", json=body)

    refused(answer, 409, "run-active")
    assert float(answer.headers["retry-after"]) >= 1
    assert await contents(eve, talk) == [("user", "Quel temps fait-il ?")]
    # People go on meanwhile.
    await eve.say(talk, "j'attends")
    work.provider.go_on()
    async with work.follow(eve, run["id"]) as stream:
        whole(await stream.rest())
    assert await contents(eve, talk) == [
        ("user", "Quel temps fait-il ?"), ("user", "j'attends"), ("assistant", "Bonjour"),
    ]  # fmt: skip


async def test_edit_and_regenerate_are_one_request(work: Working, eve: Person) -> None:
    """Rewound, said and answered; or rewound and answered again."""
    talk = await work.talk(eve, await work.agent())
    work.provider.say("premier")
    work.provider.say("deuxième")
    work.provider.say("troisième")
    await work.answer(eve, talk, HELLO)

    await work.answer(eve, talk, {"rewind_after": 1})
    assert await contents(eve, talk) == [
        ("user", "Quel temps fait-il ?"),
        ("assistant", "deuxième"),
    ]
    edited = {"rewind_after": 0, "message": {"content": "Bonjour ?"}}
    events = await work.answer(eve, talk, edited)

    whole(events)
    assert await contents(eve, talk) == [("user", "Bonjour ?"), ("assistant", "troisième")]
    assert [message["content"] for message in work.provider.requests[2].body["messages"]] == [
        "Bonjour ?"
    ]
    assert len(expect(await eve.http.get(f"{path(talk)}/branches"), 200)["data"]) == 2


async def test_what_a_rewinding_takes_away_is_not_what_is_said_after_it(
    work: Working, eve: Person
) -> None:
    """An edit sent again as a new run takes nothing away: the message it says is there already."""
    talk = await work.talk(eve, await work.script(WORDS))
    message = {"id": str(uuid.uuid4()), "content": "Bonjour ?"}
    edited = {"rewind_after": 0, "message": message}
    await work.answer(eve, talk, edited)
    before = await contents(eve, talk)

    refused(await eve.http.post(f"{path(talk)}/runs", json=edited), 409, "id-reused")

    assert await contents(eve, talk) == before
    assert len(before) == 2


async def test_what_cannot_be_asked_for_is_refused_whole(work: Working, eve: Person) -> None:
    """No agent, one that was deleted, an archived conversation, a message that breaks a rule."""
    agent = await work.script(WORDS)
    none, gone, archived, good = [
        await work.talk(eve, one) for one in (None, agent, agent, agent)
    ]  # fmt: skip
    await eve.http.patch(path(archived), json={"archived": True})
    wrong = {"message": {"content": "a\x00b"}}
    answer = await eve.http.post(f"{path(good)}/runs", json=wrong)
    assert pointers(refused(answer, 422, "validation")) == [("/message/content", "nul-character")]
    answer = await eve.http.post(f"{path(good)}/runs", json={**HELLO, "rewind_after": 7})
    assert pointers(refused(answer, 422, "validation")) == [("/rewind_after", "off-path")]
    for no_seq in (-1, 1 << 53, 10**30):
        answer = await eve.http.post(f"{path(good)}/runs", json={**HELLO, "rewind_after": no_seq})
        assert pointers(refused(answer, 422, "validation")) == [("/rewind_after", "range")]
    refused(await eve.http.post(f"{path(archived)}/runs", json=HELLO), 409, "archived")
    answer = await eve.http.post(f"{path(none)}/runs", json=HELLO)
    assert pointers(refused(answer, 422, "validation")) == [("", "no-agent")]

    async with (root := work.person("root", admin=True)).http:
        assert (await root.http.delete(f"/v1/agents/{agent}")).status_code == 204
    answer = await eve.http.post(f"{path(gone)}/runs", json=HELLO)

    assert pointers(refused(answer, 422, "validation")) == [("", "no-agent")]
    for talk in (none, gone, archived, good):
        assert await contents(eve, talk) == []


async def test_the_agent_is_as_it_was_when_it_was_asked(work: Working, eve: Person) -> None:
    """Whoever changes it changes the next answer."""
    talk, run = await midway(work, eve)
    async with (root := work.person("root", admin=True)).http:
        where = f"/v1/agents/{run['agent_id']}"
        expect(await root.http.patch(where, json={"name": "Hugo", "model": "other"}), 200)
    work.provider.go_on()
    async with work.follow(eve, run["id"]) as stream:
        message = (await stream.until("message")).data["message"]
    work.provider.say("encore")
    events = await work.answer(eve, talk, HELLO)

    assert message["author_name"] == "Claire"
    assert (
        next(one for one in events if one.name == "message").data["message"]["author_name"]
        == "Hugo"
    )
    assert [one.body["model"] for one in work.provider.requests] == ["test", "other"]


async def test_cancelling_keeps_what_was_said(work: Working, eve: Person) -> None:
    """Twice is once; nobody is asked further, and the next may be asked at once."""
    talk, run = await midway(work, eve)
    async with work.follow(eve, run["id"]) as stream:
        await stream.until("content.delta")
        answer = await eve.http.post(f"/v1/runs/{run['id']}/cancel")
        cancelled = expect(answer, 200)
        events = await stream.rest()
    again = expect(await eve.http.post(f"/v1/runs/{run['id']}/cancel"), 200)

    whole(events)
    assert [one.name for one in events[-2:]] == ["message", "run.cancelled"]
    assert events[-1].data == {}
    assert events[-2].data["message"]["status"] == "cancelled"
    assert (cancelled["status"], cancelled["message_seq"]) == ("cancelled", 2)
    assert again == cancelled
    assert await contents(eve, talk) == [("user", "Quel temps fait-il ?"), ("assistant", "Bon")]
    assert await work.provider.requests[0].left()
    work.provider.say("encore")
    whole(await work.answer(eve, talk, HELLO))


async def test_a_run_that_waits_is_cancelled_too(work: Working, eve: Person) -> None:
    """It never begins, and says nothing but its end."""
    work.begin_nothing()
    talk, run = await asking(work, eve)

    async with work.follow(eve, run["id"]) as stream:
        cancelled = expect(await eve.http.post(f"/v1/runs/{run['id']}/cancel"), 200)
        events = await stream.rest()

    assert (cancelled["status"], cancelled["started_at"]) == ("cancelled", None)
    assert [(one.id, one.name, one.data) for one in events] == [(1, "run.cancelled", {})]
    assert await contents(eve, talk) == [("user", "Quel temps fait-il ?")]
    assert work.provider.requests == []


@pytest.mark.parametrize("how", ["archive", "rewind", "activate"])
async def test_what_changes_the_path_ends_the_answer(work: Working, eve: Person, how: str) -> None:
    """Archiving and rewinding cancel in the same commit; what was said before stays on record."""
    talk, run = await midway(work, eve)
    if how == "activate":
        await eve.http.post(f"/v1/runs/{run['id']}/cancel")
        expect(await eve.http.post(f"{path(talk)}/rewind", json={"after_seq": 0}), 200)
        branch = expect(await eve.http.get(f"{path(talk)}/branches"), 200)["data"][0]["id"]
        work.provider.put(saying("Bon", pause(), "jour"))
        run = expect(await eve.http.post(f"{path(talk)}/runs", json=HELLO), 202)
    async with work.follow(eve, run["id"]) as stream:
        await stream.until("content.delta")
        if how == "archive":
            expect(await eve.http.patch(path(talk), json={"archived": True}), 200)
        elif how == "rewind":
            expect(await eve.http.post(f"{path(talk)}/rewind", json={"after_seq": 0}), 200)
        else:
            expect(await eve.http.post(f"{path(talk)}/branches/{branch}/activate"), 200)
        events = await stream.rest()

    whole(events)
    assert events[-1].name == "run.cancelled"
    assert text_of(events) == "Bon"
    assert (await work.read(eve, run["id"]))["status"] == "cancelled"
    assert await work.provider.requests[-1].left()


async def test_erasing_the_conversation_ends_the_answer_and_leaves_nothing(
    work: Working, eve: Person
) -> None:
    """Who follows hears no more, and whoever asks again finds nothing."""
    talk, run = await midway(work, eve)
    async with work.follow(eve, run["id"]) as stream:
        await stream.until("content.delta")
        gone = await eve.http.delete(path(talk))
        assert gone.status_code == 204
        events = await stream.rest()

    assert text_of(events) == "Bon"
    assert await work.provider.requests[0].left()
    refused(await eve.http.get(f"/v1/runs/{run['id']}"), 404, "not-found")
    for table in ("runs", "run_events", "run_ids", "run_steps", "lanes"):
        assert await work.fetch(f"select 1 from greffier.{table}") == [], table


async def test_who_has_used_up_their_month_is_refused_before_a_token_is_spent(
    work: Working, eve: Person
) -> None:
    """By tokens or cost; nothing is stored and nobody is asked."""
    talk = await work.talk(eve, await work.agent())
    work.provider.say("un")
    await work.answer(eve, talk, HELLO)
    async with (root := work.person("root", admin=True)).http:
        for quota in ({"tokens_per_month": 18}, {"cost_per_month": 0.0001}):
            where = f"/v1/users/{eve.id}/quota"
            expect(await root.http.put(where, json=quota), 200)
            problem = refused(
                await eve.http.post(f"{path(talk)}/runs", json=HELLO), 429, "quota-exceeded"
            )
            assert "month" in problem["detail"]

    assert len(await contents(eve, talk)) == 2
    assert len(work.provider.requests) == 1


async def test_a_hundred_at_once_are_one_run(work: Working, eve: Person) -> None:
    """Half bring the same id and attach, the others are refused, with nothing of theirs stored."""
    work.provider.put(saying("Bon", pause(), "jour"))
    talk = await work.talk(eve, await work.agent())
    same = {"id": str(uuid.uuid4()), "message": {"id": str(uuid.uuid4()), "content": "la même"}}

    answers = await asyncio.gather(
        *(
            eve.http.post(
                f"{path(talk)}/runs",
                json=same if n % 2 else {"message": {"content": f"la {n}e"}},
            )
            for n in range(100)
        )
    )

    started = {answer.json()["id"] for answer in answers if answer.status_code == 202}
    assert len(started) == 1
    for answer in answers:
        if answer.status_code != 202:
            refused(answer, 409, "run-active")
    work.provider.go_on()
    async with work.follow(eve, started.pop()) as stream:
        whole(await stream.rest())
    said = await contents(eve, talk)
    assert len(said) == 2
    assert said[1] == ("assistant", "Bonjour")
    assert await work.fetch("select count(*) from greffier.runs") == [(1,)]
    assert len(work.provider.requests) == 1


async def test_a_failure_of_the_model_is_told_and_kept(work: Working, eve: Person) -> None:
    """With its code; what it said before that is on record, as failed."""
    refusing = await work.script(("run.failed", {"code": "provider-refused", "detail": "Non."}))
    broken = ("run.failed", {"code": "provider-unavailable", "detail": "Pff."})
    breaking = await work.script(WORDS, USED, broken)

    for agent, code, words in (
        (refusing, "provider-refused", []),
        (breaking, "provider-unavailable", [("assistant", WORDS[1]["text"])]),
    ):
        talk = await work.talk(eve, agent)
        events = await work.answer(eve, talk, HELLO)
        whole(events)
        assert (events[-1].name, events[-1].data["code"]) == ("run.failed", code)
        run = await work.read(eve, events[0].data["run_id"])
        assert (run["status"], run["error"]) == ("failed", events[-1].data)
        assert await contents(eve, talk) == [("user", "Quel temps fait-il ?"), *words]
    assert run["usage"]["output_tokens"] == 9
    page = expect(await eve.http.get(f"{path(talk)}/messages"), 200)["data"]
    assert page[1]["status"] == "failed"
