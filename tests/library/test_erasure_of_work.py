"""P11 for what agents and lanes leave behind: runs, their tools, the journal, the accounts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID

import pytest
import pytest_asyncio

from greffier.change.forget import forget_user
from greffier.errors import Gone
from greffier.library import Greffier
from greffier.model.ids import uuid7
from greffier.read.audit import audit
from greffier.store.database import Database
from helpers.dump import Words, dump, sampled
from helpers.lanes import Hand, call, result, text, thought, usage
from helpers.postgres import connected


@pytest_asyncio.fixture
async def hand(database: str) -> AsyncIterator[Hand]:
    """Somebody who works on lanes."""
    async with connected(database) as live:
        yield Hand(live)


async def answer(hand: Hand, talk: UUID, words: Words, payer: str | None = None) -> None:
    """Fill every column of runs and lanes that can hold words; leave a run in mid-speech."""
    agent = (await hand.conversation(talk))["agent_id"]
    await hand.call(
        "patch_agent_v1", agent, None, words("agent"), None, None, words("instructions"), None, None
    )
    for status, detail in (("failed", words("detail")), ("running", None)):
        asked = words("hash").encode()
        # As pg_dump writes bytes.
        words.made[-1] = asked.hex()
        claim, run = await hand.running(talk, asked_by=payer, actor=None, hash_=asked)
        id_ = words("call")
        await hand.speak(
            claim,
            run,
            thought(words("reasoning")),
            text(words("text")),
            call(id_, words("function"), f'{{"{words("argument")}": 1}}'),
            result(id_, words("result")),
            usage(),
            text(words("answer")),
        )
        step = (talk, run, claim.token, 1, id_)
        assert await hand.call("begin_step_v1", *step, "look")
        if status == "failed":
            assert await hand.finish(claim, run, status, code="provider-refused", detail=detail)
    # The agent is called otherwise since, and only the runs know how it was.
    await hand.call("patch_agent_v1", agent, None, "Echo", None, None, "be kind", None, None)


async def deliver(hand: Hand, talk: UUID, words: Words) -> None:
    """Send a message somewhere, and fail with the next for good."""
    lane = await hand.enqueue(talk, 2)
    (claim,) = [one for one in await hand.claim() if one.lane == lane]
    for seq in (1, 2):
        assert await hand.intend(claim, seq) == "go"
        detail, external = words("detail"), words("external")
        if seq == 1:
            await hand.call(
                "done_v1", *lane, claim.token, seq, "accepted", detail, external, None
            )  # fmt: skip
            (claim,) = [one for one in await hand.claim() if one.lane == lane]
        else:
            words.made.remove(external)
            await hand.call(
                "fail_v1", *lane, claim.token, seq, "rejected", detail, None, 3, words("parked")
            )


async def test_an_erased_conversation_leaves_nothing_of_its_runs_and_lanes(
    g: Greffier, hand: Hand, database: str
) -> None:
    """In mid-answer too: words, the agent as it was, errors, calls, how others name it."""
    gone, kept = Words(), Words()
    payer = kept("payer")
    talks = []
    for words in (gone, kept):
        talk = await hand.talk(agent=await hand.agent())
        for _ in range(2):
            await hand.say(talk, words("said"))
        await answer(hand, talk, words, payer)
        await deliver(hand, talk, words)
        talks.append(talk)
    await hand.live.execute("analyze")
    before = await dump(database)
    assert gone.found_in(before) == gone.made
    assert kept.found_in(before) == kept.made

    await g.conversations.erase(talks[0])

    left = await dump(database)
    assert gone.found_in(left) == []
    assert kept.found_in(left) == kept.made
    assert gone.found_in(await sampled(database)) == []
    # What was spent is still in the accounts of whoever paid.
    lines = await hand.live.fetch("select user_id from usage where conversation_id = $1", talks[0])
    assert [line[0] for line in lines] == [payer, payer]
    assert await hand.live.fetchval("select count(*) from run_ids") == 2
    assert (await audit(g.database)).clean


async def test_an_erased_answer_is_nowhere_any_more(g: Greffier, hand: Hand, database: str) -> None:
    """The words are the messages' alone: the tape that is kept of a run says only how long."""
    gone, kept = Words(), Words()
    talk = await hand.talk(agent=await hand.agent())
    claim, run = await hand.running(talk)
    await hand.speak(
        claim, run, thought(gone("reasoning")), text(gone("text")), call("a", gone("function")),
        result("a", gone("result")), text(kept("answer")),
    )  # fmt: skip
    await hand.finish(claim, run)
    assert gone.found_in(await dump(database)) == gone.made

    for seq in (1, 2):
        await g.messages.delete(talk, seq, erase=True)

    left = await dump(database)
    assert gone.found_in(left) == []
    assert kept.found_in(left) == kept.made
    assert (await audit(g.database)).clean


async def test_a_forgotten_person_is_named_by_no_run_account_or_log(
    store: Database, g: Greffier, hand: Hand, database: str
) -> None:
    """What was spent and decided stays on record, as somebody's."""
    gone, kept = Words(), Words()
    ada, bob = gone("ada"), kept("bob")
    theirs = await hand.talk(bob, kind="room", agent=await hand.agent(), members=[ada])
    await hand.say(theirs, kept("said"))
    # One that is over and one in mid-answer, both at ada's cost.
    await answer(hand, theirs, kept, ada)
    # Where ada takes no part, and asked as an administrator.
    elsewhere = await hand.talk(bob, agent=await hand.agent())
    claim, run = await hand.running(elsewhere, asked_by=ada, actor=None)
    await hand.finish(claim, run)
    mine = await hand.talk(ada, agent=await hand.agent(), title=gone("title"))
    await hand.running(mine, actor=ada, message=gone("asked"))
    await hand.call("set_quota_v1", ada, 100, None, bob, uuid7())
    await hand.call("set_quota_v1", bob, 100, None, ada, uuid7())
    await hand.live.execute("analyze")
    assert gone.found_in(await dump(database)) == gone.made

    await forget_user(store, ada)

    left = await dump(database)
    assert gone.found_in(left) == []
    assert kept.found_in(left) == kept.made
    assert gone.found_in(await sampled(database)) == []
    assert await hand.live.fetchval("select count(*) from usage") == 3
    assert await hand.live.fetchval("select count(*) from admin_log") == 2
    with pytest.raises(Gone):
        await g.conversations.get(mine)
    # The answer under way goes on, and is somebody's.
    (active,) = await hand.live.fetch("select * from runs where status = 'running'")
    await hand.cancel(theirs, active["id"], bob)
    assert gone.found_in(await dump(database)) == []
    assert (await audit(store)).clean
