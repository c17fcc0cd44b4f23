"""What may be counted on of a run: from the request to its messages, by 53_runs.sql alone."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio

from greffier.model.ids import uuid7
from greffier.read.audit import audit
from greffier.store.database import Database
from helpers.lanes import Claim, Hand, Lane, call, result, text, thought, usage
from helpers.postgres import connected


@pytest_asyncio.fixture
async def hand(database: str) -> AsyncIterator[Hand]:
    """Somebody with a connection to a new database, which audits clean whatever they did."""
    async with connected(database) as live:
        yield Hand(live)
    report = await audit(Database(database))
    assert report.clean, report.findings


async def answering(hand: Hand, **more: str) -> UUID:
    """Make a conversation with an agent, in which somebody has said something."""
    talk = await hand.talk(agent=await hand.agent(), **more)
    await hand.say(talk)
    return talk


async def everything(hand: Hand) -> dict[str, list[str]]:
    """Every row of every table, to be compared."""
    tables = await hand.live.fetch(
        "select relname from pg_class where relnamespace = 'greffier'::regnamespace "
        "and relkind = 'r' order by relname"
    )
    return {
        table: [r[0] for r in await hand.live.fetch(f"select t::text from {table} t order by 1")]
        for (table,) in tables
    }


# -- start


async def test_an_answer_is_asked_for_with_its_message_in_one_change(hand: Hand) -> None:
    """The message is on record, the run waits, and it all is one rev."""
    talk = await answering(hand)
    run = uuid7()
    before = await hand.conversation(talk)
    row = await hand.start(talk, run, message="and you?")
    assert (row["outcome"], row["message_seq"], row["message_stored"]) == ("created", 2, True)
    assert row["rev"] == before["rev"] + 1
    body = json.loads(row["run"])
    assert (body["id"], body["status"], body["message_seq"]) == (str(run), "queued", None)
    after = await hand.conversation(talk)
    assert (after["active_run_id"], after["rev"], after["last_seq"]) == (run, row["rev"], 2)
    (claim,) = await hand.claim(kind="run")
    assert (claim.head, claim.tail) == (1, 1)


async def test_a_run_without_a_message_is_a_change_too(hand: Hand) -> None:
    """Everybody sees that somebody is about to answer."""
    talk = await answering(hand)
    before = await hand.conversation(talk)
    row = await hand.start(talk)
    assert (row["outcome"], row["rev"]) == ("created", before["rev"] + 1)
    assert (row["message_seq"], row["message_stored"]) == (None, False)


async def test_the_same_request_again_attaches(hand: Hand) -> None:
    """Also a bare one, and after the run is over; another one under the id is refused."""
    talk = await answering(hand)
    run, said = uuid7(), uuid7()
    await hand.start(talk, run, message="and you?", message_id=said)
    state = await everything(hand)
    for asked in ({"message": "and you?", "message_id": said}, {"hash_": b"bare"}):
        row = await hand.start(talk, run, **asked)
        assert (row["outcome"], json.loads(row["run"])["id"]) == ("attached", str(run))
    other = await hand.start(talk, run, message="other", hash_=b"other")
    assert (other["outcome"], other["run"]) == ("id-reused", None)
    assert await everything(hand) == state
    await hand.cancel(talk, run)
    over = await hand.start(talk, run)
    assert json.loads(over["run"])["status"] == "cancelled"


async def test_while_one_answers_no_other_is_begun_and_nothing_is_stored(hand: Hand) -> None:
    """Neither the message nor the rewinding that came with the request."""
    talk = await answering(hand)
    await hand.running(talk)
    state = await everything(hand)
    row = await hand.start(talk, message="another", after=0)
    assert (row["outcome"], row["run"], row["message_seq"]) == ("run-active", None, None)
    assert await everything(hand) == state


async def test_a_run_id_names_one_run_anywhere(hand: Hand) -> None:
    """In another conversation it is taken."""
    one, other = await answering(hand), await answering(hand)
    run = uuid7()
    await hand.start(one, run)
    state = await everything(hand)
    assert (await hand.start(other, run, message="x"))["outcome"] == "id-reused"
    assert await everything(hand) == state


async def test_without_an_agent_nobody_can_be_asked(hand: Hand) -> None:
    """None was named, or it was deleted; an archived conversation takes none either."""
    alone = await hand.talk()
    deleted = await hand.agent()
    orphan = await hand.talk(agent=deleted)
    await hand.call("delete_agent_v1", deleted)
    shut = await answering(hand)
    await hand.call("patch_conversation_v1", shut, None, None, None, None, None, True)
    state = await everything(hand)
    outcomes = [
        (await hand.start(talk, message="hello"))["outcome"] for talk in (alone, orphan, shut)
    ]
    assert outcomes == ["no-agent", "no-agent", "archived"]
    assert await everything(hand) == state


async def test_a_refused_message_takes_everything_with_it(hand: Hand) -> None:
    """The rewinding before it and the run after it: it is as if nobody had asked."""
    talk = await answering(hand)
    await hand.say(talk)
    used = await hand.live.fetchval("select id from messages where seq = 1")
    state = await everything(hand)
    with pytest.raises(asyncpg.PostgresError) as refused:
        await hand.start(talk, message="other", message_id=used, after=1)
    assert refused.value.sqlstate == "GR409"
    with pytest.raises(asyncpg.PostgresError) as forbidden:
        await hand.start(
            await hand.talk("zoe", kind="room", agent=await hand.agent(), members=["ada"]),
            message="I am the machine", role="assistant",
        )  # fmt: skip
    assert forbidden.value.sqlstate == "GR403"
    now = await everything(hand)
    assert (now["messages"], now["branches"], now["runs"]) == (state["messages"], [], [])
    assert now["run_ids"] == now["lanes"] == []


async def test_editing_and_asking_again_is_one_request(hand: Hand) -> None:
    """What was said after leaves the path, the new words and the run come, all at once."""
    talk = await answering(hand)
    for n in range(3):
        await hand.say(talk, f"{n}")
    row = await hand.start(talk, message="better", after=1)
    assert (row["outcome"], row["message_seq"]) == ("created", 5)
    conversation = await hand.conversation(talk)
    assert conversation["message_count"] == 2
    assert await hand.live.fetchval("select count(*) from branches") == 1


async def test_regenerating_takes_the_answer_back_and_asks_again(hand: Hand) -> None:
    """Without a message of its own."""
    talk = await answering(hand)
    claim, run = await hand.running(talk)
    await hand.speak(claim, run, text("poor"))
    await hand.finish(claim, run)
    row = await hand.start(talk, after=1)
    assert row["outcome"] == "created"
    assert (await hand.conversation(talk))["message_count"] == 1


async def test_where_to_rewind_must_be_on_the_path(hand: Hand) -> None:
    """Otherwise nothing is stored."""
    talk = await answering(hand)
    state = await everything(hand)
    with pytest.raises(asyncpg.PostgresError) as refused:
        await hand.start(talk, message="x", after=7)
    assert refused.value.sqlstate == "GR422"
    assert await everything(hand) == state


async def test_a_run_may_wait_a_while(hand: Hand) -> None:
    """The inbox gathers what people write in a row; nobody begins it before."""
    talk = await answering(hand)
    await hand.start(talk, delay=60)
    assert await hand.claim(kind="run") == []
    await hand.shift(1)
    assert len(await hand.claim(kind="run")) == 1


# -- who may


async def test_who_may_ask_and_cancel(hand: Hand) -> None:
    """Members may; a viewer is told no, and to a stranger or somebody removed there is nothing."""
    talk = await hand.talk(
        kind="room", agent=await hand.agent(), members=["bob", "cleo"], viewers=["vic"]
    )
    await hand.call("remove_participant_v1", talk, None, "cleo", "service", uuid7())
    asked = uuid7()
    assert (await hand.start(talk, asked, actor="bob", message="hello"))["outcome"] == "created"
    for actor, refusal in (("vic", "GR403"), ("cleo", "GR404"), ("eve", "GR404")):
        for doing in (hand.start(talk, actor=actor), hand.cancel(talk, asked, actor)):
            with pytest.raises(asyncpg.PostgresError) as refused:
                await doing
            assert refused.value.sqlstate == refusal
    # Rewinding is the owner's.
    await hand.cancel(talk, asked, "bob")
    with pytest.raises(asyncpg.PostgresError) as refused:
        await hand.start(talk, actor="bob", after=0)
    assert refused.value.sqlstate == "GR403"
    assert await hand.live.fetchval("select count(*) from runs") == 1


async def test_a_run_that_is_not_there_cannot_be_cancelled(hand: Hand) -> None:
    """Nor one of another conversation."""
    one, other = await answering(hand), await answering(hand)
    run = uuid7()
    await hand.start(one, run)
    for talk, wanted in ((one, uuid7()), (other, run)):
        with pytest.raises(asyncpg.PostgresError) as refused:
            await hand.cancel(talk, wanted)
        assert refused.value.sqlstate == "GR404"


# -- begin, say, finish


async def test_a_run_begins_with_the_agent_as_it_was(hand: Hand) -> None:
    """What is changed later concerns later runs."""
    agent = await hand.agent("Echo")
    talk = await hand.talk(agent=agent)
    await hand.start(talk)
    await hand.call("patch_agent_v1", agent, None, "Other", None, None, None, None, None)
    claim = await hand.claim_one(kind="run")
    row = await hand.begin(claim)
    assert (row["outcome"], row["asked_by"], row["history_limit"]) == ("run", "ada", 30)
    assert json.loads(row["agent"])["name"] == "Echo"
    assert json.loads(row["run"])["status"] == "running"
    events = await hand.live.fetch("select id, event from run_events")
    assert [tuple(e) for e in events] == [(1, "run.started")]


async def test_what_is_said_is_numbered_in_the_run(hand: Hand) -> None:
    """Its lease is renewed by it, and what a question took is added up."""
    claim, run = await hand.running()
    talk = claim.lane.talk
    assert await hand.speak(claim, run, thought("hm"), text("Hel")) == 3
    assert await hand.speak(claim, run, usage(10, 5, "0.25"), text("lo")) == 4
    assert await hand.speak(claim, run, usage(1, 2, "0.5")) == 4
    row = await hand.run(talk, run)
    assert (row["calls"], row["input_tokens"], row["output_tokens"]) == (2, 11, 7)
    assert (row["cached_tokens"], float(row["cost"])) == (6, 0.75)
    await hand.speak(claim, run, text("!"), lease=300)
    await hand.shift(0.05)
    assert await hand.state(claim.lane) == "leased"


async def test_what_is_said_twice_is_stored_once(hand: Hand) -> None:
    """The answer to a batch may be lost; it is known by what its holder knew."""
    claim, run = await hand.running()
    batch = [text("Hel"), text("lo")]
    first, second = [
        f'{{"calls":{n},"input_tokens":{10 * n},"output_tokens":0,"cached_tokens":0,"cost":0}}'
        for n in (1, 2)
    ]
    for _ in range(2):
        assert await hand.speak(claim, run, *batch, known=1, spent=first) == 3
    for _ in range(2):
        assert await hand.speak(claim, run, known=3, spent=second) == 3
    assert await hand.speak(claim, run, text("!"), known=7) is None
    await hand.finish(claim, run)
    row = await hand.run(claim.lane.talk, run)
    assert (row["calls"], row["input_tokens"]) == (2, 20)
    assert (await hand.messages(claim.lane.talk))[-1]["content"] == "Hello"


async def test_the_answer_is_what_was_said(hand: Hand) -> None:
    """One message by the agent, its run's, in one rev, and the ledger has a line."""
    talk = await answering(hand)
    claim, run = await hand.running(talk, asked_by="bob")
    await hand.speak(claim, run, thought("Let me "), thought("see."), text("Hel"), text("lo"))
    await hand.speak(claim, run, usage(10, 5, "0.25"))
    before = await hand.conversation(talk)
    rev = await hand.finish(claim, run)
    after = await hand.conversation(talk)
    assert rev == after["rev"] == before["rev"] + 1
    assert (after["active_run_id"], after["last_seq"], after["message_count"]) == (None, 2, 2)
    said = (await hand.messages(talk))[-1]
    assert (said["role"], said["content"], said["reasoning"]) == (
        "assistant", "Hello", "Let me see.",
    )  # fmt: skip
    assert (said["author_name"], said["written_by"], said["status"]) == (
        "Echo",
        "agent",
        "complete",
    )
    assert (said["run_id"], said["rev"], said["parent_seq"], said["tool_calls"]) == (
        run,
        rev,
        1,
        None,
    )
    row = await hand.run(talk, run)
    assert (row["status"], row["first_seq"], row["message_seq"]) == ("completed", 2, 2)
    (line,) = await hand.live.fetch("select * from usage")
    assert (line["user_id"], line["run_id"], line["provider"], line["model"]) == (
        "bob", run, "echo", "echo-1",
    )  # fmt: skip
    assert (line["calls"], line["input_tokens"], line["output_tokens"]) == (1, 10, 5)
    assert (line["cached_tokens"], float(line["cost"])) == (3, 0.25)
    assert await hand.state(claim.lane) == "idle"
    assert await hand.live.fetchval("select count(*) from run_events") == 0


async def test_an_end_said_twice_is_one_end(hand: Hand) -> None:
    """The answer may be lost: the second time is no refusal and changes nothing."""
    claim, run = await hand.running()
    await hand.speak(claim, run, text("Hello"))
    rev = await hand.finish(claim, run)
    state = await everything(hand)
    assert await hand.finish(claim, run) == rev
    assert await hand.finish(claim, run, "failed") is None
    after = await everything(hand)
    assert {**after, "lanes": []} == {**state, "lanes": []}


async def test_an_empty_answer_is_a_message_when_it_is_complete(hand: Hand) -> None:
    """It had nothing to say, and says so; unless it did not come to its end."""
    claim, run = await hand.running()
    await hand.finish(claim, run)
    (said,) = await hand.messages(claim.lane.talk)
    assert (said["role"], said["content"], said["status"]) == ("assistant", "", "complete")
    claim, run = await hand.running()
    await hand.finish(claim, run, "failed", code="provider-refused", detail="429")
    assert await hand.messages(claim.lane.talk) == []
    row = await hand.run(claim.lane.talk, run)
    assert (row["message_seq"], row["error_code"], row["error_detail"]) == (
        None, "provider-refused", "429",
    )  # fmt: skip


@pytest.mark.parametrize("status", ["interrupted", "failed", "cancelled"])
async def test_what_was_said_before_a_bad_end_stays_and_says_so(hand: Hand, status: str) -> None:
    """The message has the run's status."""
    claim, run = await hand.running()
    await hand.speak(claim, run, text("Once upon a"))
    await hand.finish(claim, run, status)
    (said,) = await hand.messages(claim.lane.talk)
    assert (said["content"], said["status"]) == ("Once upon a", status)


# -- tools

Part = tuple[str, str | None, list[str] | None, str | None]


async def parts(hand: Hand, *events: tuple[str, str], status: str = "completed") -> list[Part]:
    """Let a run say events and end; what messages it became: role, content, calls, result's id."""
    claim, run = await hand.running()
    await hand.speak(claim, run, *events)
    await hand.finish(claim, run, status)
    found = await hand.messages(claim.lane.talk)
    assert [m["parent_seq"] for m in found] == [None, *[m["seq"] for m in found[:-1]]]
    assert {m["run_id"] for m in found} == {run}
    assert len({m["rev"] for m in found}) == 1
    return [
        (
            m["role"],
            m["content"],
            m["tool_calls"] and [c["id"] for c in json.loads(m["tool_calls"])],
            m["tool_call_id"],
        )
        for m in found
    ]


async def test_a_tool_is_called_answers_and_is_spoken_of(hand: Hand) -> None:
    """The call, its result and the answer are messages of their own, in order."""
    assert await parts(hand, call("a"), result("a", "42"), text("It is "), text("42.")) == [
        ("assistant", None, ["a"], None),
        ("tool", "42", None, "a"),
        ("assistant", "It is 42.", None, None),
    ]


async def test_a_call_is_kept_as_every_message_keeps_it(hand: Hand) -> None:
    """In the form of OpenAI's chat completions, its arguments as they were made."""
    claim, run = await hand.running()
    await hand.speak(claim, run, call("a", "search", '{"q": "caf\\u00e9 \\"noir\\""}'))
    await hand.finish(claim, run)
    (said,) = await hand.messages(claim.lane.talk)
    assert json.loads(said["tool_calls"]) == [
        {
            "id": "a",
            "type": "function",
            "function": {"name": "search", "arguments": '{"q": "caf\\u00e9 \\"noir\\""}'},
        }
    ]


async def test_words_before_a_call_are_the_same_answers(hand: Hand) -> None:
    """What is said and called in one answer of the model is one message."""
    assert await parts(hand, text("Let me look."), call("a"), result("a"), text("Yes.")) == [
        ("assistant", "Let me look.", ["a"], None),
        ("tool", "found", None, "a"),
        ("assistant", "Yes.", None, None),
    ]


async def test_calls_at_once_are_one_answers_with_their_results_behind_it(hand: Hand) -> None:
    """In the order they were called, and results in the order they came."""
    assert await parts(
        hand, call("a"), call("b"), result("b", "two"), result("a", "one"), text("Both.")
    ) == [
        ("assistant", None, ["a", "b"], None),
        ("tool", "two", None, "b"),
        ("tool", "one", None, "a"),
        ("assistant", "Both.", None, None),
    ]


async def test_words_between_calls_do_not_part_them_from_their_results(hand: Hand) -> None:
    """A result stands behind the answer that called for it, or no model takes the conversation."""
    assert await parts(
        hand, call("a"), thought("and"), text("also "), call("b"), text("this"), result("a"),
        result("b"), text("Done."),
    ) == [
        ("assistant", "also this", ["a", "b"], None),
        ("tool", "found", None, "a"),
        ("tool", "found", None, "b"),
        ("assistant", "Done.", None, None),
    ]  # fmt: skip


async def test_a_second_round_of_calls_is_another_answer(hand: Hand) -> None:
    """With or without words between."""
    assert await parts(
        hand, call("a"), result("a"), call("b"), result("b"), thought("so"), call("c"), result("c"),
        text("Done."),
    ) == [
        ("assistant", None, ["a"], None),
        ("tool", "found", None, "a"),
        ("assistant", None, ["b"], None),
        ("tool", "found", None, "b"),
        ("assistant", None, ["c"], None),
        ("tool", "found", None, "c"),
        ("assistant", "Done.", None, None),
    ]  # fmt: skip


async def test_results_without_words_after_them_end_a_run_too(hand: Hand) -> None:
    """The answer is then the one that called, and carries the run's status."""
    claim, run = await hand.running()
    await hand.speak(claim, run, text("Look:"), call("a"), result("a"))
    await hand.finish(claim, run, "interrupted")
    said = await hand.messages(claim.lane.talk)
    assert [m["status"] for m in said] == ["interrupted", "complete"]
    assert (await hand.run(claim.lane.talk, run))["message_seq"] == 1


async def test_only_the_last_answer_of_an_interrupted_run_says_so(hand: Hand) -> None:
    """What was called and answered before is whole."""
    claim, run = await hand.running()
    await hand.speak(claim, run, call("a"), result("a"), text("It is"))
    await hand.finish(claim, run, "interrupted")
    said = await hand.messages(claim.lane.talk)
    assert [m["status"] for m in said] == ["complete", "complete", "interrupted"]


async def test_a_tool_is_begun_once_and_its_end_is_on_record(hand: Hand) -> None:
    """Whoever is no longer the run's holder begins none."""
    claim, run = await hand.running()
    talk, token = claim.lane.talk, claim.token
    step = (talk, run, token, 1, "a")
    assert await hand.call("begin_step_v1", *step, "look") is True
    assert await hand.call("begin_step_v1", *step, "look") is False
    assert await hand.call("finish_step_v1", *step, False) is True
    (row,) = await hand.live.fetch("select * from run_steps")
    assert (row["name"], row["failed"], row["finished_at"] is not None) == ("look", False, True)
    await hand.shift(1)
    assert (await hand.begin(await hand.claim_one(kind="run")))["outcome"] == "ended"
    assert await hand.call("begin_step_v1", talk, run, token, 2, "b", "look") is False
    assert await hand.call("finish_step_v1", *step, True) is False
    assert await hand.refused(claim.lane) == 2


# -- the tape


async def test_the_tape_tells_every_event_of_an_ended_run(hand: Hand) -> None:
    """What kind each was, and of a delta how long: the words are the messages' alone."""
    claim, run = await hand.running()
    await hand.speak(
        claim, run, thought("hm"), text("Voil\u00e0"), text(" \U0001f600"), call("a"), result("a"),
        text("x"),
    )  # fmt: skip
    await hand.finish(claim, run)
    row = await hand.run(claim.lane.talk, run)
    marks = [(mark & 15, mark >> 4) for mark in row["tape"]]
    assert marks == [
        (0, 0), (2, 2), (1, 5), (1, 2), (3, 0), (4, 0), (1, 1), (5, 0), (5, 0), (5, 0), (6, 0),
    ]  # fmt: skip
    assert row["last_event"] == len(marks)


async def test_a_run_that_never_began_has_an_end_alone(hand: Hand) -> None:
    """It said nothing, and is not in the ledger."""
    talk = await answering(hand)
    run = uuid7()
    await hand.start(talk, run)
    assert (await hand.cancel(talk, run))["status"] == "cancelled"
    row = await hand.run(talk, run)
    assert (row["tape"], row["last_event"], row["started_at"]) == ([6], 1, None)
    assert await hand.live.fetchval("select count(*) from usage") == 0
    assert len(await hand.messages(talk)) == 1


# -- cancel, rewind, archive


async def cancelled(hand: Hand, claim: Claim, run: UUID) -> None:
    """See that a run is over as cancelled with its words, and that its holder is refused."""
    row = await hand.run(claim.lane.talk, run)
    assert row["status"] == "cancelled"
    (said,) = [m for m in await hand.messages(claim.lane.talk) if m["run_id"] == run]
    assert (said["content"], said["status"]) == ("Once upon a", "cancelled")
    before = await hand.refused(claim.lane)
    assert await hand.speak(claim, run, text(" time")) is None
    assert await hand.finish(claim, run) is None
    assert await hand.heartbeat(claim) == set()
    # They are no zombie, only told late.
    assert await hand.refused(claim.lane) == before
    assert (await hand.conversation(claim.lane.talk))["active_run_id"] is None


@pytest.mark.parametrize("how", ["cancelled", "rewound", "activated", "archived"])
async def test_whoever_ends_it_the_answer_so_far_stays_and_its_holder_may_write_no_more(
    hand: Hand, how: str
) -> None:
    """By its asker, or because the conversation goes another way."""
    talk = await answering(hand)
    await hand.say(talk)
    branch = uuid7()
    await hand.rows("rewind_v1", talk, None, 1, branch)
    claim, run = await hand.running(talk)
    await hand.speak(claim, run, text("Once upon a"))
    match how:
        case "cancelled":
            body = await hand.cancel(talk, run)
            assert (body["status"], body["message_seq"]) == ("cancelled", 3)
            assert await hand.cancel(talk, run) == body
        case "rewound":
            (row,) = await hand.rows("rewind_v1", talk, "ada", 1, uuid7())
            assert row["removed"] == 1
        case "activated":
            await hand.call("activate_branch_v1", talk, "ada", branch, uuid7())
        case _:
            await hand.call("patch_conversation_v1", talk, "ada", None, None, None, None, True)
    await cancelled(hand, claim, run)


async def test_cancelling_one_that_waits_behind_another_leaves_that_one_alone(hand: Hand) -> None:
    """The lane passes over it when it comes there."""
    talk = await answering(hand)
    claim, run = await hand.running(talk)
    waiting, third = uuid7(), uuid7()
    # As the inbox will: asked for while another answers.
    for number, id_ in ((2, waiting), (3, third)):
        await hand.live.execute(
            "insert into runs (conversation_id, id, number, agent_id, asked_by, origin, "
            "request_hash, agent, created_at) select conversation_id, $1, $2, agent_id, asked_by, "
            "'inbox', request_hash, agent, created_at from runs where id = $3",
            id_, number, run,
        )  # fmt: skip
        await hand.live.execute("insert into run_ids values ($1, $2)", id_, talk)
        await hand.enqueue(talk, number, kind="run")
    await hand.cancel(talk, waiting)
    assert (await hand.conversation(talk))["active_run_id"] == run
    assert await hand.speak(claim, run, text("still here")) == 2
    assert await hand.finish(claim, run) is not None
    assert (await hand.conversation(talk))["active_run_id"] == third
    again = await hand.claim_one(kind="run")
    assert (await hand.begin(again))["outcome"] == "none"
    again = await hand.claim_one(kind="run")
    row = await hand.begin(again)
    assert (row["outcome"], row["run_id"]) == ("run", third)
    await hand.finish(again, third)
    assert await hand.state(again.lane) == "idle"


# -- lost workers


async def lose(hand: Hand, lane: Lane) -> None:
    """Let a lane's lease be over."""
    await hand.live.execute(
        "update lanes set due_at = lane_clock() - interval '1 second' where id = $1", lane.id
    )


async def test_a_run_whose_worker_is_lost_is_ended_by_whoever_claims_it(hand: Hand) -> None:
    """As interrupted, with what it had said; it is not answered twice."""
    claim, run = await hand.running()
    await hand.speak(claim, run, text("Once"), usage())
    await lose(hand, claim.lane)
    found = await hand.claim_one(kind="run", max_tries=None)
    row = await hand.begin(found)
    assert (row["outcome"], row["run_id"]) == ("ended", run)
    (said,) = await hand.messages(claim.lane.talk)
    assert (said["content"], said["status"]) == ("Once", "interrupted")
    assert await hand.state(claim.lane) == "idle"
    assert await hand.speak(claim, run, text("!")) is None
    assert await hand.finish(claim, run) is None
    assert (await hand.begin(found))["outcome"] == "zombie"


@pytest.mark.parametrize("how", ["lost", "let go"])
async def test_whoever_asks_again_need_not_wait_for_a_worker_to_find_a_lost_run(
    hand: Hand, how: str
) -> None:
    """The request ends it and begins the next."""
    talk = await answering(hand)
    claim, run = await hand.running(talk)
    await hand.speak(claim, run, text("Once"))
    if how == "lost":
        await lose(hand, claim.lane)
    else:
        await hand.release(claim)
    row = await hand.start(talk, message="again?")
    assert row["outcome"] == "created"
    assert (await hand.run(talk, run))["status"] == "interrupted"
    assert [m["content"] for m in await hand.messages(talk)] == ["hello", "Once", "again?"]
    assert await hand.state(claim.lane) == "due"


async def test_a_run_that_waits_is_begun_by_the_next_when_its_worker_is_lost_before(
    hand: Hand,
) -> None:
    """Nothing was said yet, so that nothing is interrupted."""
    talk = await answering(hand)
    run = uuid7()
    await hand.start(talk, run)
    await hand.claim_one(kind="run", lease=-1)
    assert (await hand.start(talk))["outcome"] == "run-active"
    row = await hand.begin(await hand.claim_one(kind="run", max_tries=None))
    assert (row["outcome"], row["run_id"]) == ("run", run)


async def test_only_what_the_inbox_asked_for_is_asked_for_again_and_not_for_ever(
    hand: Hand,
) -> None:
    """As a new run for the same payer, up to as many as are allowed for each request."""
    talk = await answering(hand)
    for request in (b"first", b"second"):
        claim, run = await hand.running(talk, origin="inbox", asked_by="bob", hash_=request)
        runs = [run]
        for tries in range(1, 4):
            await lose(hand, claim.lane)
            found = await hand.claim_one(kind="run", max_tries=None)
            row = await hand.begin(found, max_tries=3)
            assert (row["outcome"], row["run_id"]) == ("ended", runs[-1])
            following = (await hand.conversation(talk))["active_run_id"]
            if tries == 3:
                assert following is None
                break
            runs.append(following)
            claim = await hand.claim_one(kind="run", max_tries=None)
            begun = await hand.begin(claim)
            assert (begun["outcome"], begun["run_id"], begun["asked_by"]) == (
                "run", following, "bob",
            )  # fmt: skip
        assert len(set(runs)) == 3
        statuses = [(await hand.run(talk, one))["status"] for one in runs]
        assert statuses == ["interrupted"] * 3
    assert await hand.live.fetchval("select count(*) from run_ids") == 6


async def test_a_paused_run_lane_begins_nothing_and_still_ends_what_was_lost(hand: Hand) -> None:
    """Nobody waits for ever for an answer that will not come."""
    talk = await answering(hand)
    claim, run = await hand.running(talk)
    await hand.pause(claim.lane)
    await lose(hand, claim.lane)
    row = await hand.begin(await hand.claim_one(kind="run", max_tries=None))
    assert (row["outcome"], row["run_id"]) == ("ended", run)
    await hand.start(talk)
    assert await hand.claim(kind="run") == []
    await hand.pause(claim.lane, False)
    late = await hand.claim_one(kind="run")
    await hand.pause(claim.lane)
    assert (await hand.begin(late))["outcome"] == "none"
    assert await hand.state(claim.lane) == "paused"


# -- quotas


async def spend(hand: Hand, talk: UUID, payer: str | None = None) -> None:
    """Let an answer take 15 tokens and 0.25."""
    claim, run = await hand.running(talk, asked_by=payer)
    await hand.speak(claim, run, usage(10, 5, "0.25"))
    await hand.finish(claim, run)


@pytest.mark.parametrize(
    ("tokens", "cost", "words"),
    [
        (15, None, "15 of 15 tokens of this month are used"),
        (None, 0.25, "0.25 of 0.25 of this month are spent"),
    ],
)
async def test_who_has_used_up_their_month_is_refused_before_anything_is_stored(
    hand: Hand, tokens: int | None, cost: float | None, words: str
) -> None:
    """In words that say how much of how much."""
    talk = await answering(hand)
    await hand.call("set_quota_v1", "ada", tokens, cost, "admin", uuid7())
    await spend(hand, talk)
    state = await everything(hand)
    row = await hand.start(talk, message="more", after=0)
    assert (row["outcome"], row["detail"]) == ("quota-exceeded", words)
    assert await everything(hand) == state


async def test_a_quota_is_the_payers_and_a_months(hand: Hand) -> None:
    """Others go on; a month begins with its first second in UTC; without limits all may."""
    talk = await answering(hand)
    await spend(hand, talk, "bob")
    for tokens in (16, 15):
        await hand.call("set_quota_v1", "bob", tokens, None, "admin", uuid7())
        told = await hand.call("quota_refusal", "bob", await hand.clock())
        assert (told is None) == (tokens == 16)
    assert (await hand.start(talk, asked_by="bob"))["outcome"] == "quota-exceeded"
    assert (await hand.start(talk))["outcome"] == "created"
    month = "date_trunc('month', now(), 'UTC')"
    for when, refused in ((f"{month} - interval '1 microsecond'", False), (month, True)):
        await hand.live.execute(f"update usage set at = {when}")
        told = await hand.live.fetchval("select quota_refusal('bob', now())")
        assert (told is not None) == refused
    await hand.live.execute("update quotas set tokens_per_month = null")
    assert await hand.live.fetchval("select quota_refusal('bob', now())") is None


async def test_the_log_says_who_changed_a_quota_and_what_stood_before(hand: Hand) -> None:
    """Each change is a line that stays."""
    await hand.call("set_quota_v1", "ada", 100, None, "root", uuid7())
    await hand.call("set_quota_v1", "ada", None, 7, "boss", uuid7())
    rows = await hand.live.fetch("select * from admin_log order by at")
    assert [(r["actor"], r["action"], r["subject"]) for r in rows] == [
        ("root", "quota", "ada"),
        ("boss", "quota", "ada"),
    ]
    assert json.loads(rows[1]["before"]) == {"tokens_per_month": 100, "cost_per_month": None}
    assert json.loads(rows[1]["after"]) == {"tokens_per_month": None, "cost_per_month": 7}
