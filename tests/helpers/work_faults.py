"""Faults of lanes and runs, each planted in a conversation that has worked."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from helpers.lanes import Hand, call, result, text, usage

#: name → the checks that must fail, and what is done to the conversation $1 (see ``work``).
WORK_FAULTS: Final[dict[str, tuple[set[str], str]]] = {
    "a lane is held for ever": (
        {"lane"},
        "update lanes set token = gen_random_uuid() where conversation_id = $1 and kind = 'out'",
    ),
    "nobody looks at a lane with work": (
        {"lane"},
        "update lanes set tail_seq = tail_seq + 1 where conversation_id = $1 and kind = 'out'",
    ),
    "a lane is ahead of itself": (
        {"lane"},
        "update lanes set head_seq = tail_seq + 2 where conversation_id = $1 and kind = 'out'",
    ),
    "a lane has work that is not on record": (
        {"lane"},
        """
        update lanes set tail_seq = 99, due_at = now()
        where conversation_id = $1 and kind = 'out'
        """,
    ),
    "a lane is parked and due": (
        {"lane"},
        """
        update lanes set parked_at = now(), park_reason = 'x', due_at = now()
        where conversation_id = $1 and kind = 'out'
        """,
    ),
    "a lane is parked, and nobody knows why": (
        {"lane"},
        "update lanes set parked_at = now() where conversation_id = $1 and kind = 'out'",
    ),
    "a lane is paused and due": (
        {"lane"},
        """
        update lanes set paused_at = now(), due_at = now()
        where conversation_id = $1 and kind = 'out'
        """,
    ),
    "a lane is for nothing": (
        {"lane"},
        """
        update lanes set endpoint_id = null where conversation_id = $1 and kind = 'out'
        """,
    ),
    "a message was accepted twice": (
        {"intent"},
        """
        insert into attempts
        select conversation_id, lane_id, seq, 0, null, intended_at, outcome, null, null, settled_at
        from attempts where conversation_id = $1 and seq = 1
        """,
    ),
    "a message was accepted and is to come": (
        {"intent"},
        "update attempts set seq = 7 where conversation_id = $1 and seq = 2",
    ),
    "an attempt is ahead of its lane": (
        {"intent"},
        "update attempts set fence = 99 where conversation_id = $1 and seq = 2",
    ),
    "an attempt was settled at no time": (
        {"intent"},
        "update attempts set settled_at = null where conversation_id = $1 and seq = 2",
    ),
    "a run answers, and nobody says so": (
        {"run"},
        "update conversations set active_run_id = null where id = $1",
    ),
    "a run that is over answers": (
        {"run"},
        """
        update conversations c set active_run_id = r.id from runs r
        where c.id = $1 and r.conversation_id = $1 and r.status = 'completed'
        """,
    ),
    "a run is over at no time": (
        {"run"},
        "update runs set ended_at = null where conversation_id = $1 and status = 'completed'",
    ),
    "a run has no tape": (
        {"run"},
        "update runs set tape = null where conversation_id = $1 and status = 'completed'",
    ),
    "a run completed without having begun": (
        {"run"},
        "update runs set started_at = null where conversation_id = $1 and status = 'completed'",
    ),
    "a run that is over has events": (
        {"run"},
        """
        insert into run_events
        select conversation_id, id, 1, 'content.delta', 'x' from runs
        where conversation_id = $1 and status = 'completed'
        """,
    ),
    "a run has lost an event": (
        {"run"},
        """
        delete from run_events where conversation_id = $1 and id = 2
        """,
    ),
    "a run's tape is too short": (
        {"run"},
        """
        update runs set tape = trim_array(tape, 1)
        where conversation_id = $1 and status = 'completed'
        """,
    ),
    "a message of a run is another's": (
        {"run"},
        """
        update messages set run_id = null where conversation_id = $1 and role = 'tool'
        """,
    ),
    "a run's answer is somewhere else": (
        {"run"},
        "update runs set message_seq = 1 where conversation_id = $1 and status = 'completed'",
    ),
    "a run begins somewhere else": (
        {"run"},
        "update runs set first_seq = 2 where conversation_id = $1 and status = 'completed'",
    ),
    "an answer says another end": (
        {"run"},
        """
        update messages m set status = 'interrupted' from runs r
        where m.conversation_id = $1 and r.conversation_id = $1 and m.seq = r.message_seq
        """,
    ),
    "a run's lane is past it": (
        {"run"},
        """
        update lanes set head_seq = tail_seq + 1 where conversation_id = $1 and kind = 'run'
        """,
    ),
    "a run is not in the ledger": (
        {"run"},
        "delete from usage where conversation_id = $1",
    ),
    "a run is twice in the ledger": (
        {"run"},
        """
        insert into usage
        select 'eve', at, run_id, conversation_id, agent_id, provider, model, 0, 0, 0, 0, 0
        from usage where conversation_id = $1
        """,
    ),
    "a run is in the ledger too early": (
        {"run"},
        """
        insert into usage
        select 'ada', now(), id, conversation_id, agent_id, '', '', 0, 0, 0, 0, 0 from runs
        where conversation_id = $1 and status = 'running'
        """,
    ),
    "the ledger says other numbers": (
        {"run"},
        "update usage set output_tokens = output_tokens + 1 where conversation_id = $1",
    ),
    "a line of the ledger is of no run": (
        {"run"},
        """
        insert into usage
        select user_id, at, gen_random_uuid(), conversation_id, agent_id, '', '', 0, 0, 0, 0, 0
        from usage where conversation_id = $1
        """,
    ),
    "a run is not found by its id": (
        {"run"},
        """
        delete from run_ids where conversation_id = $1 and run_id in (
            select id from runs where status = 'completed')
        """,
    ),
    "an id leads to no run": (
        {"run"},
        "insert into run_ids values (gen_random_uuid(), $1)",
    ),
    "a step is of no run": (
        {"run"},
        "insert into run_steps values ($1, gen_random_uuid(), 1, 'a', 'look', now())",
    ),
    "a message is of no run": (
        {"run"},
        """
        update messages set run_id = gen_random_uuid() where conversation_id = $1 and seq = 1
        """,
    ),
}


async def work(hand: Hand) -> UUID:
    """Make a conversation with a lane that is idle, a run that is over and one that speaks."""
    talk = await hand.talk(agent=await hand.agent())
    for _ in range(3):
        await hand.say(talk)
    lane = await hand.enqueue(talk, 3)
    (claim,) = [one for one in await hand.claim(limit=1000) if one.lane == lane]
    for seq in (1, 2, 3):
        assert await hand.intend(claim, seq) == "go"
        assert await hand.done(claim, seq, keep=30)
    held, run = await hand.running(talk)
    await hand.speak(held, run, text("Let me see"), call("a"), result("a"), text("There."), usage())
    await hand.call("begin_step_v1", talk, run, held.token, 1, "a", "look")
    await hand.finish(held, run)
    speaking, run = await hand.running(talk)
    await hand.speak(speaking, run, text("Once"), usage())
    return talk
