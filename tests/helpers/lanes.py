"""Lanes and runs by their SQL functions alone, called on one connection as they are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

from greffier.model.ids import uuid7
from greffier.store.connection import Connection

#: Where messages go; a lane needs no more of it than its id.
ENDPOINT = UUID(int=7)


class Lane(NamedTuple):
    """What a lane is found by."""

    talk: UUID
    id: UUID


class Claim(NamedTuple):
    """A lane somebody has claimed."""

    lane: Lane
    fence: int
    token: UUID | None
    head: int
    tail: int
    tries: int
    parked: bool


class Hand:
    """Whoever works on lanes, with one connection."""

    def __init__(self, live: Connection) -> None:
        self.live = live

    async def call(self, function: str, *args: object) -> Any:
        """Call a function that gives one value."""
        marks = ", ".join(f"${n}" for n in range(1, len(args) + 1))
        return await self.live.fetchval(f"select {function}({marks})", *args)

    async def rows(self, function: str, *args: object) -> list[Any]:
        """Call a function that gives rows, or several values."""
        marks = ", ".join(f"${n}" for n in range(1, len(args) + 1))
        return list(await self.live.fetch(f"select * from {function}({marks})", *args))

    # -- what lanes are about

    async def talk(
        self,
        owner: str = "ada",
        *,
        kind: str = "assistant",
        agent: UUID | None = None,
        members: Sequence[str] = (),
        viewers: Sequence[str] = (),
        **given: str,
    ) -> UUID:
        """Make a conversation."""
        made = uuid7()
        await self.call(
            "create_conversation_v1", made, made, kind, given.get("title", ""), None, agent, owner,
            30, "{}", [*members, *viewers],
            ["member"] * len(members) + ["viewer"] * len(viewers),
        )  # fmt: skip
        return made

    async def say(self, talk: UUID, content: str = "hello", *, role: str = "user") -> int:
        """Put a message on record; its seq."""
        (row,) = await self.rows(
            "append_message_v1", talk, None, uuid7(), b"h", role, None, None, "ada", content, None,
            None, None, None, None, None, None, True, True,
        )  # fmt: skip
        assert row["outcome"] == "stored"
        seq: int = row["seq"]
        return seq

    async def clock(self) -> Any:
        """What time it is, for lanes."""
        return await self.call("lane_clock")

    async def shift(self, hours: float) -> None:
        """Let the lanes' clock be off, for everybody at once."""
        await self.live.execute(
            "insert into identity (epoch, system_identifier, timeline, clock_shift) "
            "values ('test', 0, 0, $1) on conflict (one) do update set clock_shift = $1",
            timedelta(hours=hours),
        )

    # -- lanes

    async def enqueue(
        self, talk: UUID, tail: int, *, head: int = 1, delay: float = 0, kind: str = "out"
    ) -> Lane:
        """Ask for work up to a number."""
        endpoint = ENDPOINT if kind == "out" else None
        due = await self.clock() + timedelta(seconds=delay)
        id_ = await self.call("enqueue_v1", talk, kind, endpoint, head, tail, due)
        return Lane(talk, id_)

    async def lane(self, messages: int = 3, *, tail: int | None = None) -> Lane:
        """Make a conversation of some messages, all of them (or up to a tail) for one endpoint."""
        talk = await self.talk()
        for n in range(messages):
            await self.say(talk, f"message {n + 1}")
        return await self.enqueue(talk, messages if tail is None else tail)

    async def claim(
        self,
        *,
        kind: str = "out",
        limit: int = 10,
        lease: float = 30,
        max_tries: int | None = 3,
        owner: str = "worker",
    ) -> list[Claim]:
        """Claim what is due."""
        rows = await self.rows(
            "claim_lanes_v1", kind, owner, limit, timedelta(seconds=lease), max_tries
        )
        return [
            Claim(
                Lane(r["conversation_id"], r["lane_id"]), r["fence"], r["token"], r["head_seq"],
                r["tail_seq"], r["tries"], r["parked"],
            )
            for r in rows
        ]  # fmt: skip

    async def claim_one(self, **how: Any) -> Claim:
        """Claim the one lane that is due."""
        (claim,) = await self.claim(**how)
        return claim

    async def intend(self, claim: Claim, seq: int, margin: float = 1) -> str:
        """Say that something is about to be done."""
        answer: str = await self.call(
            "intend_v1", *claim.lane, claim.token, seq, timedelta(seconds=margin)
        )
        return answer

    async def done(self, claim: Claim, seq: int, *, keep: float | None = None) -> bool:
        """Say that it is done; keep the lane for so many seconds, or let it go."""
        answer: bool = await self.call(
            "done_v1", *claim.lane, claim.token, seq, "accepted", None, f"far-{seq}",
            None if keep is None else timedelta(seconds=keep),
        )  # fmt: skip
        return answer

    async def fail(
        self,
        claim: Claim,
        seq: int,
        *,
        retry_in: float | None = 60,
        max_tries: int = 3,
        reason: str | None = None,
        outcome: str = "not_sent",
    ) -> bool:
        """Say that it was tried and is not done."""
        answer: bool = await self.call(
            "fail_v1", *claim.lane, claim.token, seq, outcome, "503",
            None if retry_in is None else timedelta(seconds=retry_in), max_tries, reason,
        )  # fmt: skip
        return answer

    async def heartbeat(self, *claims: Claim, lease: float = 30) -> set[UUID]:
        """Renew leases; which lanes are still ours."""
        rows = await self.rows(
            "heartbeat_v1", [c.lane.talk for c in claims], [c.lane.id for c in claims],
            [c.token for c in claims], timedelta(seconds=lease),
        )  # fmt: skip
        return {row["lane_id"] for row in rows}

    async def release(self, claim: Claim) -> bool:
        """Let go."""
        answer: bool = await self.call("release_v1", *claim.lane, claim.token)
        return answer

    async def unlock(
        self, lane: Lane, *, max_tries: int = 3, force: bool = False, steal: bool = False
    ) -> str | None:
        """Unlock a lane, as an operator."""
        was: str | None = await self.call("unlock_v1", *lane, max_tries, force, steal)
        return was

    async def pause(self, lane: Lane, paused: bool = True) -> bool:
        """Pause a lane, or resume it."""
        changed: bool = await self.call("pause_v1", *lane, paused)
        return changed

    async def look(self, lane: Lane) -> Any:
        """A lane's row."""
        return await self.live.fetchrow(
            "select * from lanes where conversation_id = $1 and id = $2", *lane
        )

    async def state(self, lane: Lane) -> str:
        """Where a lane stands: one word, of which there must always be one (I7)."""
        row = await self.look(lane)
        now = await self.clock()
        held, waits = row["token"] is not None, row["due_at"] is not None
        what = (held, waits, row["parked_at"] is not None, row["head_seq"] <= row["tail_seq"])
        match what:
            case (True, True, False, _):
                state = "leased" if row["due_at"] > now else "expired"
            case (False, True, False, True):
                state = "waiting" if row["due_at"] > now else "due"
            case (False, False, True, True):
                assert row["park_reason"]
                state = "parked"
            case (False, False, False, False):
                state = "idle"
            case (False, False, False, True) if row["paused_at"] is not None:
                return "paused"
            case _:
                state = f"lost: {dict(row)}"
        return state if row["paused_at"] is None else f"paused, {state}"

    async def journal(self, lane: Lane) -> list[tuple[int, str | None]]:
        """What was tried, in order: the seq, and what came of it."""
        rows = await self.live.fetch(
            "select seq, outcome from attempts where conversation_id = $1 and lane_id = $2 "
            "order by fence, seq",
            *lane,
        )
        return [tuple(row) for row in rows]

    async def refused(self, lane: Lane) -> int:
        """How many writes were refused for a token that was no longer the lane's."""
        count: int = (await self.look(lane))["refused"]
        return count

    # -- runs

    async def agent(self, name: str = "Echo") -> UUID:
        """Make an agent."""
        made = uuid7()
        await self.call(
            "create_agent_v1", made, made, name, "echo", "echo-1", "be kind", "[]", "{}"
        )
        return made

    async def start(
        self,
        talk: UUID,
        run: UUID | None = None,
        *,
        message: str | None = None,
        message_id: UUID | None = None,
        after: int | None = None,
        actor: str | None = "ada",
        asked_by: str | None = None,
        origin: str = "api",
        delay: float = 0,
        hash_: bytes = b"hash",
        role: str = "user",
    ) -> Any:
        """Ask for an answer."""
        said: list[object] = [None] * 14
        if message is not None:
            said = [
                message_id or uuid7(), b"m", role, actor, None, actor or "service", message,
                *[None] * 7,
            ]  # fmt: skip
        (row,) = await self.rows(
            "start_run_v1", talk, actor, run or uuid7(), hash_, asked_by, origin,
            timedelta(seconds=delay), after, uuid7(), *said,
        )  # fmt: skip
        return row

    async def begin(self, claim: Claim, *, lease: float = 30, max_tries: int = 3) -> Any:
        """Begin what waits in a run lane that was claimed."""
        (row,) = await self.rows(
            "begin_run_v1", *claim.lane, claim.token, timedelta(seconds=lease), max_tries
        )
        return row

    async def speak(
        self,
        claim: Claim,
        run: UUID,
        *events: tuple[str, str],
        known: int | None = None,
        spent: str | None = None,
        lease: float = 30,
    ) -> int | None:
        """Say events in a run, and what questions took (or all did); the last id that is stored."""
        row = await self.run(claim.lane.talk, run)
        took = [body for event, body in events if event == "usage"]
        words = [one for one in events if one[0] != "usage"]
        if spent or took:
            words.append(("usage", spent or account(row, *took)))
        (said,) = await self.rows(
            "say_in_runs_v1", [claim.lane.talk], [run], [claim.token],
            [row["last_event"] if known is None else known], [len(words)],
            [event for event, _ in words], [body for _, body in words], timedelta(seconds=lease),
        )  # fmt: skip
        last: int | None = said["last_event"]
        return last

    async def finish(
        self,
        claim: Claim,
        run: UUID,
        status: str = "completed",
        *,
        code: str | None = None,
        detail: str | None = None,
    ) -> int | None:
        """End a run."""
        rev: int | None = await self.call(
            "finish_run_v1", claim.lane.talk, run, claim.token, status, code, detail
        )
        return rev

    async def cancel(self, talk: UUID, run: UUID, actor: str | None = "ada") -> Any:
        """Cancel a run; as the API shows it then."""
        (row,) = await self.rows("cancel_run_v1", talk, actor, run)
        return json.loads(row["run"])

    async def running(self, talk: UUID | None = None, **asked: Any) -> tuple[Claim, UUID]:
        """Bring a run to where it speaks."""
        if talk is None:
            talk = await self.talk(agent=await self.agent())
        run: UUID = asked.pop("run", None) or uuid7()
        started = await self.start(talk, run, **asked)
        assert started["outcome"] == "created"
        found = await self.claim(kind="run", limit=1000, max_tries=None)
        (claim,) = (one for one in found if one.lane.talk == talk)
        assert (await self.begin(claim))["outcome"] == "run"
        return claim, run

    async def run(self, talk: UUID, run: UUID) -> Any:
        """A run's row."""
        return await self.live.fetchrow(
            "select * from runs where conversation_id = $1 and id = $2", talk, run
        )

    async def conversation(self, talk: UUID) -> Any:
        """A conversation's row."""
        return await self.live.fetchrow("select * from conversations where id = $1", talk)

    async def messages(self, talk: UUID) -> list[Any]:
        """All of a conversation's messages."""
        return list(
            await self.live.fetch(
                "select * from messages where conversation_id = $1 order by seq", talk
            )
        )


def call(id_: str, name: str = "look", arguments: str = "{}") -> tuple[str, str]:
    """A tool's call, as a run says it."""
    return "tool.call", json.dumps({"id": id_, "name": name, "arguments": arguments})


def result(id_: str, content: str = "found") -> tuple[str, str]:
    """A tool's result, as a run says it."""
    return "tool.result", json.dumps({"id": id_, "content": content})


def text(words: str) -> tuple[str, str]:
    """Words of an answer."""
    return "content.delta", words


def thought(words: str) -> tuple[str, str]:
    """Words of its reasoning."""
    return "reasoning.delta", words


def account(row: Mapping[str, Any], *took: str) -> str:
    """What a run took with some questions more, in all."""
    more = [json.loads(one, parse_float=Decimal) for one in took]
    counts = ("input_tokens", "output_tokens", "cached_tokens")
    whole: dict[str, Any] = {
        name: row[name] + sum(one.get(name, 0) for one in more) for name in counts
    }
    cost = row["cost"] + sum(Decimal(one["cost"]) for one in more)
    return json.dumps({"calls": row["calls"] + len(more), **whole, "cost": str(cost)})


def usage(input_tokens: int = 10, output_tokens: int = 5, cost: str = "0.25") -> tuple[str, str]:
    """What a question to the model took."""
    return "usage", json.dumps(
        {
            "input_tokens": input_tokens,
            "output_tokens": output_tokens,
            "cached_tokens": 3,
            "cost": float(cost),
        }
    )
