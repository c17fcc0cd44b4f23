"""An answer is on record as it is made, for little more than listening to the model alone.

At whatever pace it comes, and however many answer at once; and who comes back to a long answer gets
the rest for what the rest costs.  All of it in one process: the worker, the record, and a follower
for each answer; beside it the same provider read by nobody but a loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from statistics import median
from uuid import UUID

from greffier.agents.events import said
from greffier.bench.places import Place, place
from greffier.bench.results import Goal, Line, times, value
from greffier.bench.results import Pace as Went
from greffier.bench.turns import one_by_one, take_turns
from greffier.store.connection import Connection
from greffier.store.database import Database
from lab.answers import TOKENS, Answering, Pace, answering, bare
from lab.scale import Scale
from lab.spent import Meter, Spent
from lab.world import World

#: Tokens a second of one answer → microseconds of processor that each may take.  A batch of words
#: is stored ten times a second, however few they are: 200 µs at 50 tokens are a hundredth of one
#: processor for each answer that speaks.
RATES = {50: Goal("≤", 200, "µs"), 500: Goal("≤", 30, "µs"), 5_000: Goal("≤", 30, "µs")}
#: Until the first word is heard: the request, the claim, the beginning, and the word itself.
COMMITS = 4
#: Of one answer at a time and the bare stream beside it, so many are given in a round: what waits
#: most of the time takes half as much again the next time, which hides what is looked for.
PAIRS = 3
#: Events told to the record in one call, when a long answer is made for measuring.
_BATCH = 1_000


async def measure(world: World) -> list[Line]:
    """Measure answers of each pace, one and many at once; what is stored; and coming back."""
    scale = world.scale
    async with place(world.server, talks=scale.streams + 4) as here, here.connection() as live:
        talks, spare = here.talks[: scale.streams], here.talks[scale.streams :]
        async with answering(here, here.talks) as there:
            meter = await Meter.of(live)
            lines = [await _first_word(there, scale, spare[1])]
            lines += await _paces(there, meter, scale, talks)
            lines += await _bytes(there, live, spare[0])
        lines += await _coming_back(here, live, scale, spare[2:])
    return lines


@dataclass(frozen=True, slots=True)
class Round:
    """Answers that were given at once, by ours and by the bare provider."""

    answers: int
    tokens: int
    #: Seconds of this process's processor.
    ours: float
    bare: float
    spent: Spent

    @property
    def each(self) -> float:
        """Seconds of this process for an answer."""
        return (self.ours - self.bare) / self.answers

    def each_token(self, answer: float) -> float:
        """Microseconds for a token, beside the seconds that an answer of one word takes."""
        each = 1e6 * (self.ours - self.bare - answer * self.answers) / self.tokens
        # Less than nothing is the machine's noise.
        return max(each, 0.1)

    @property
    def server(self) -> float:
        """Microseconds of PostgreSQL for a token."""
        return 1e6 * self.spent.cpu / self.tokens


async def _first_word(there: Answering, scale: Scale, talk: UUID) -> Line:
    """Ask for answers of one word, the first of all while nothing is planned yet."""
    there.provider.pace = Pace(1, 1)
    first = await there.answer(talk)
    later: list[float] = []
    commits: list[float] = []
    for _ in range(scale.effort.rounds):
        read: list[float] = []
        heard: list[float] = []
        until = time.perf_counter() + scale.effort.seconds
        while not heard or time.perf_counter() < until:
            read.append(await bare(there.provider))
            heard.append(await there.answer(talk))
        later.append(max(1000 * (median(heard) - median(read)), 0.01))
        commits.append(1000 * await _commits(there.here))
    return value(
        "the first word of an answer, later than the bare one", later, Goal("≤", 5, "ms"),
        f"it waits for {COMMITS} commits and two reads; as many bare INSERTs, one after the other, "
        f"took {median(commits):.1f} ms",
        f"the first answer of the process {1000 * first:.0f} ms",
    )  # fmt: skip


async def _paces(there: Answering, meter: Meter, scale: Scale, talks: Sequence[UUID]) -> list[Line]:
    async def round_(many: int, pace: Pace) -> Round:
        there.provider.pace = pace
        cpu = time.process_time()
        await asyncio.gather(*(bare(there.provider) for _ in range(many)))
        alone = time.process_time() - cpu
        before, cpu = await meter.read(), time.process_time()
        await asyncio.gather(*(there.answer(talk) for talk in talks[:many]))
        ours = time.process_time() - cpu
        spent = await meter.read() - before
        return Round(many, many * pace.tokens, ours, alone, spent)

    lines: list[Line] = []
    for many, pairs in ((1, PAIRS), (len(talks), 1)):
        rounds = scale.effort.rounds * pairs
        # What an answer costs of itself: most of it is no word.
        short = [await round_(many, Pace(1, 1)) for _ in range(rounds + 1)][1:]
        answer = median(one.each for one in short)
        for rate, goal in RATES.items():
            most = round(rate * scale.effort.seconds / 2 / pairs)
            tokens = max(min(most, scale.tokens // many), 2)
            found = [await round_(many, Pace(tokens, rate)) for _ in range(rounds)]
            alone = median(1e6 * one.bare / one.tokens for one in found)
            what = f"{many} at once, {rate:,} tokens/s, {tokens:,} each"
            lines.append(
                value(f"answers, {what}: processor of a token",
                      [one.each_token(answer) for one in found], goal,
                      f"the bare stream {alone:.1f}",
                      f"an answer of one word {1000 * answer:.2f} ms",
                      f"PostgreSQL {median(one.server for one in found):.1f} a token",
                      _log(found))
            )  # fmt: skip
    return lines


def _log(rounds: Sequence[Round]) -> str:
    each = median(one.spent.wal / one.tokens for one in rounds)
    return f"{each / len(TOKENS[0]):.1f} bytes of log for a byte of text"


async def _commits(here: Place) -> float:
    """Seconds of as many bare INSERTs as stand before a first word, half of the time at most."""
    took = []
    async with here.connection() as live:
        insert = await live.prepare(
            "insert into bare values ($1, $2, 'user', $3, now())", name="bare"
        )
        for _ in range(20):
            began = time.perf_counter()
            for _ in range(COMMITS):
                await insert.fetch(0, time.time_ns(), TOKENS[0])
            took.append(time.perf_counter() - began)
    return median(took)


async def _bytes(there: Answering, live: Connection, talk: UUID) -> list[Line]:
    """Weigh the rows of one answer at 500 tokens a second, before its end and after it."""
    there.provider.pace = Pace(500, 500)
    there.provider.may_end.clear()
    run_id = await there.ask(talk)
    await there.heard(run_id, 500)
    running = await live.fetchrow(_RUNNING, talk, run_id)
    there.provider.may_end.set()
    async with there.runs.follow(run_id, None) as follower:
        while await follower.next() is not None:
            pass
    rest = await live.fetchrow(_AT_REST, talk, run_id)
    assert running is not None
    assert rest is not None
    text = sum(len(TOKENS[number % len(TOKENS)]) for number in range(500))
    goal = Goal("≤", 2)
    return [
        value(f"bytes stored for a byte of answer, {name}", [row["bytes"] / text], goal,
              f"{row['bytes']:,} bytes in {row['rows']} rows, {text:,} of text")
        for name, row in (("while it runs", running), ("at rest", rest))
    ]  # fmt: skip


# A row as PostgreSQL counts it, uncompressed.
_RUNNING = """
select sum(size)::integer as bytes, count(*) as rows from (
    select pg_column_size(e) as size from run_events e where conversation_id = $1 and run_id = $2
    union all select pg_column_size(r) from runs r where conversation_id = $1 and id = $2
) x
"""
_AT_REST = """
select sum(size)::integer as bytes, count(*) as rows from (
    select pg_column_size(m) as size from messages m where conversation_id = $1 and run_id = $2
    union all select pg_column_size(e) from run_events e where conversation_id = $1 and run_id = $2
    union all select pg_column_size(r) from runs r where conversation_id = $1 and id = $2
    union all select pg_column_size(u) from usage u where conversation_id = $1 and run_id = $2
) x
"""


async def _coming_back(
    here: Place, live: Connection, scale: Scale, talks: Sequence[UUID]
) -> list[Line]:
    """Read the rest from the middle, in an answer of one event a token and in a shorter one."""
    long, short = scale.answer, scale.answer // 4
    database = here.greffier.database
    runs = {n: await _speaking(live, talk, n) for n, talk in zip((long, short), talks, strict=True)}
    await live.execute("analyze run_events")
    running = await _resumed(database, scale, runs)
    ended: dict[int, float] = {}
    for n, run in runs.items():
        began = time.perf_counter()
        await live.fetchval("select finish_run_v1($1, $2, $3, 'completed', null, null)", *run)
        ended[n] = time.perf_counter() - began
    over = await _resumed(database, scale, runs)
    ending = f"ending it: {1000 * ended[long]:.0f} ms, the shorter {1000 * ended[short]:.0f}"
    floor, goal = f"in one of {short:,}", Goal("≤", 6)
    return [
        times(f"the rest from the middle of {long:,} tokens, {name}", floor, found[long],
              found[short], goal, "4 would be in proportion", *notes)
        for name, found, notes in (
            ("while it runs", running, ()),
            ("after its end", over, (ending,)),
        )
    ]  # fmt: skip


#: A run: its conversation, its id, and what its holder's token is.
_Run = tuple[UUID, UUID, UUID]


async def _speaking(live: Connection, talk: UUID, tokens: int) -> _Run:
    """Bring a run to where it has said so many tokens, an event each."""
    run_id = await live.fetchval("select uuid7_v1()")
    await live.fetch(
        "select * from start_run_v1($1, null, $2, '\\x00', null, 'api', '0', null, null, null,"
        " null, null, null, null, null, null, null, null, null, null, null, null, null)",
        talk, run_id,
    )  # fmt: skip
    claim = await live.fetchrow("select * from claim_lanes_v1('run', 'bench', 1, '1 hour', null)")
    assert claim is not None
    token = claim["token"]
    await live.fetch(
        "select * from begin_run_v1($1, $2, $3, '1 hour', 1)", talk, claim["lane_id"], token
    )
    for known in range(0, tokens, _BATCH):
        words = [TOKENS[n % len(TOKENS)] for n in range(known, min(known + _BATCH, tokens))]
        last = await live.fetchval(
            "select last_event from say_in_runs_v1(array[$1::uuid], array[$2::uuid],"
            " array[$3::uuid], array[$4::bigint], array[$5::integer], $6, $7, '1 hour')",
            talk, run_id, token, known + 1, len(words), ["content.delta"] * len(words), words,
        )  # fmt: skip
        assert last == known + 1 + len(words)
    return talk, run_id, token


async def _resumed(
    database: Database, scale: Scale, runs: dict[int, _Run]
) -> dict[int, list[Went]]:
    def side(n: int, run_id: UUID) -> Callable[[float], Awaitable[Went]]:
        async def read() -> None:
            found = await said(database, run_id, None, n // 2)
            assert sum(event.name == "content.delta" for event in found.events) >= n // 2

        async def resumed(seconds: float) -> Went:
            return await one_by_one(read, seconds / 4)

        return resumed

    sides = {f"{n}": side(n, run_id) for n, (_, run_id, _) in runs.items()}
    found = await take_turns(scale.effort, sides)
    return {n: found[f"{n}"] for n in runs}
