"""A message leaves soon, whoever else has much to say, looks back in time, or dies.

What is measured is how long one waits: among others, at a steady pace, behind a snapshot that
somebody holds, after a worker was killed, and when all lanes are due at the same moment.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from uuid import UUID

from greffier.agents.work import GATHER
from greffier.bench.places import Place, place, scratch
from greffier.bench.results import Goal, Line, Pace, pace, rates, ratios, times, value
from greffier.bench.talks import WORDS, fill
from greffier.deliver.worker import AT_ONCE, POLL
from greffier.store.connection import Connection
from lab import lanes, peers, posting
from lab.drain import Drained, drain
from lab.hands import SHORT
from lab.killed import kill_and_recover
from lab.leaving import Leaving, leaving
from lab.scale import Scale
from lab.steady import steadily
from lab.world import World

#: Conversations with little to say.
LIGHT = 100
#: Messages that wait in the hot one for each second it is measured: more than leave in it.
HOT = 2_000
#: Rounds at most; each message of a conversation that is due at once leaves once.
ROUNDS = 3
#: Lanes due at a time where the same number comes steadily.
PORTION = 100
#: Conversations at most that webhooks leave from: a second of posting.
POSTING = 500
#: How often each lane is claimed in a round.
CLAIMED = 5
#: Messages of each lane while its worker is killed, and lanes.
EACH, MORTAL = 8, 40
_CLAIM = f"select * from claim_lanes_v1('out', 'bench', {AT_ONCE}, '1 hour', null)"
_FREE = """
update lanes set due_at = lane_clock(), token = null
where conversation_id = any ($1) and endpoint_id = $2
"""
_DEAD = "select n_dead_tup from pg_stat_user_tables where relname = 'lanes'"


async def measure(world: World) -> list[Line]:
    """Measure each of the six, one after the other."""
    scale = world.scale
    async with place(world.server, talks=scale.due + LIGHT + 1) as here, here.connection() as live:
        rounds = min(scale.effort.rounds, ROUNDS)
        shop = Shop(scale, here, live, rounds, *_dealt(here.talks, scale.due))
        hot = max(round(HOT * scale.effort.seconds), 10)
        await fill(live, shop.all_at_once, 2 * (rounds + 2))
        await fill(live, [shop.hot], hot * rounds)
        # What was filled at once is taken for empty by whoever plans before it was looked at.
        await live.execute("vacuum analyze")
        async with leaving(here, live) as one:
            # The first message of each lane makes it, and plans are made.
            await asyncio.gather(*(one.say(talk) for talk in shop.light))
            lines = [
                *await _hot(shop, one, hot), *await _steady(shop, one), *await _held(shop, one),
                *await _at_once(shop, one), *await _webhooks(shop, one),
            ]  # fmt: skip
        lines += await _claims(shop)
    return [*lines, *await _killed(world), *await _beside_peers(world)]


@dataclass(frozen=True, slots=True)
class Shop:
    """Where it is measured."""

    scale: Scale
    here: Place
    live: Connection
    rounds: int
    all_at_once: list[UUID]
    light: list[UUID]
    hot: UUID


def _dealt(talks: Sequence[UUID], due: int) -> tuple[list[UUID], list[UUID], UUID]:
    return list(talks[:due]), list(talks[due : due + LIGHT]), talks[due + LIGHT]


async def _say(shop: Shop, one: Leaving, seconds: float) -> Pace:
    """Say something in the light ones by turns, at the steady pace."""
    return await steadily(
        shop.scale.offered, seconds, lambda number: one.say(shop.light[number % LIGHT])
    )


def _later(what: str, floor: str, ours: list[Pace], floors: list[Pace], goal: Goal) -> Line:
    """Compare what all but a hundredth took at most."""
    both = [(one.p99 or 0.0, other.p99 or 0.0) for one, other in zip(ours, floors, strict=True)]
    return ratios(what, floor, "ms (p99)", both, goal)


async def _hot(shop: Shop, one: Leaving, many: int) -> list[Line]:
    """Let one conversation have much to say, while the others say what they did before."""
    alone: list[Pace] = []
    beside: list[Pace] = []
    left: list[int] = []
    fast: list[float] = []
    for number in range(shop.rounds):
        alone.append(await _say(shop, one, shop.scale.effort.seconds))
        emptying = asyncio.create_task(one.due([shop.hot], many * (number + 1), many))
        beside.append(await _say(shop, one, shop.scale.effort.seconds))
        left.append(one.departures.missing)
        fast.append(many / await emptying)
    what = f"{LIGHT} light lanes, {shop.scale.offered}/s, beside one with {many:,} messages waiting"
    said = f"of the hot one {min(left):,} waited still at the end, and {median(fast):.0f}/s left"
    goal = Goal("≤", 2)
    return [
        times(f"{what}: p50", "without it", beside, alone, goal, said),
        _later(f"{what}: p99", "without it", beside, alone, goal),
    ]


async def _steady(shop: Shop, one: Leaving) -> list[Line]:
    """Say something steadily; by hand, a COMMIT and a NOTIFY that somebody hears."""
    async with shop.here.connection() as writes, shop.here.connection() as listens:
        await writes.execute("create table bare_said (n integer, content text)")
        heard: dict[int, asyncio.Future[float]] = {}
        loop = asyncio.get_running_loop()
        lock = asyncio.Lock()

        def hear(*words: object) -> None:
            heard.pop(int(str(words[-1]))).set_result(time.perf_counter())

        await listens.add_listener("bare_said", hear)

        async def by_hand(number: int) -> float:
            future: asyncio.Future[float] = loop.create_future()
            heard[number] = future
            async with lock:
                await writes.execute("insert into bare_said values ($1, $2)", number, WORDS)
                await writes.execute("select pg_notify('bare_said', $1)", str(number))
            return await future

        ours: list[Pace] = []
        floor: list[Pace] = []
        for _ in range(shop.rounds):
            ours.append(await _say(shop, one, shop.scale.effort.seconds))
            floor.append(await steadily(shop.scale.offered, shop.scale.effort.seconds, by_hand))
    what = f"steady {shop.scale.offered}/s, from asking for its append to its leaving"
    hand = "COMMIT + NOTIFY to a listener, by hand"
    return [
        times(f"{what}: p50", hand, ours, floor, Goal("≤", 2),
              "ours has three commits before it leaves: the message, the claim, the intent",
              f"looks for what is due are {1000 * GATHER:g} ms apart at least"),
        value(f"{what}: p99", [went.p99 or 0.0 for went in ours], Goal("≤", 20, "ms"),
              f"by hand {median(went.p99 or 0.0 for went in floor):.1f} ms"),
    ]  # fmt: skip


async def _held(shop: Shop, one: Leaving) -> list[Line]:
    """Hold a snapshot, for which no dead row can go, while messages come as before."""
    seconds, live = shop.scale.held, shop.live
    await live.execute("vacuum lanes")
    before = await _say(shop, one, min(seconds, 5))
    async with shop.here.connection() as looks:
        await looks.execute("begin isolation level repeatable read")
        await looks.fetchval("select count(*) from lanes")
        during = await _say(shop, one, seconds)
        await live.execute("vacuum lanes")
        dead = await live.fetchval(_DEAD)
        await looks.execute("rollback")
    await live.execute("vacuum lanes")
    kept = await live.fetchval(_DEAD)
    after = await _say(shop, one, min(seconds, 5))
    what = f"a snapshot held for {seconds:g} s, {shop.scale.offered}/s offered"
    return [
        rates(f"{what}: messages", "before it", [during], [before], Goal("≥", 0.9),
              f"p50 / p99 before {before.p50:.1f} / {before.p99:.1f} ms, during {during.p50:.1f} /"
              f" {during.p99:.1f}, after {after.p50:.1f} / {after.p99:.1f}",
              f"{dead:,} dead rows of lanes that no vacuum removed, {kept:,} when it was gone"),
        times(f"{what}: p50 when it is gone", "before it", [after], [before], Goal("≤", 1.5)),
    ]  # fmt: skip


async def _at_once(shop: Shop, one: Leaving) -> list[Line]:
    """Let all lanes be due at the same moment, and as many by portions."""
    many = len(shop.all_at_once)
    portions = [shop.all_at_once[at : at + PORTION] for at in range(0, many, PORTION)]
    # Lanes are made once.
    await one.due(shop.all_at_once, 1, many)
    together: list[Pace] = []
    steadily_: list[Pace] = []
    for number in range(shop.rounds):
        together.append(Pace(rate=many / await one.due(shop.all_at_once, 2 * number + 2, many)))
        took = [await one.due(portion, 2 * number + 3, len(portion)) for portion in portions]
        steadily_.append(Pace(rate=many / sum(took)))
    return [
        rates(f"{many:,} lanes due at once: drained", f"as many, {PORTION} at a time", together,
              steadily_, Goal("≥", 0.9),
              f"all have left after {median(many / went.rate for went in together):.2f} s"),
    ]  # fmt: skip


async def _webhooks(shop: Shop, one: Leaving) -> list[Line]:
    """Post messages to a receiver: by the product, and by the client below it alone."""
    talks = shop.all_at_once[:POSTING]
    many = 2 * len(talks)
    ours: list[Pace] = []
    floor: list[Pace] = []
    channel: list[Pace] = []
    async with posting.sink() as url:
        endpoint = await posting.to_sink(one, f"{url}/hook")
        for number in range(shop.rounds + 1):
            ours.append(Pace(rate=many / await one.due(talks, 2 * number + 2, many, endpoint)))
            floor.append(await posting.bare(f"{url}/hook", many))
            channel.append(await posting.channel(f"{url}/hook", many))
    alone = median(went.rate for went in channel[1:])
    return [
        # The first of each warms all up.
        rates(f"webhooks to a sink, {many:,} messages of {len(talks):,} conversations",
              f"the same client alone, {posting.AT_ONCE} at once", ours[1:], floor[1:],
              Goal("≥", 0.6), "one process, two messages a claim, each with an intent on record",
              f"the channel without a record: {alone:.0f}/s"),
    ]  # fmt: skip


async def _claims(shop: Shop) -> list[Line]:
    """Claim all that is due, fifty lanes at a time, and as often a tenth of it."""
    live, many = shop.live, shop.all_at_once
    few = many[: max(len(many) // 10, 1)]
    statement = await live.prepare(_CLAIM, name="claim")

    async def claim(talks: Sequence[UUID]) -> Pace:
        took: list[float] = []
        for _ in range(CLAIMED * len(many) // len(talks)):
            await live.execute(_FREE, talks, lanes.ENDPOINT)
            await live.execute("vacuum lanes")
            began = time.perf_counter()
            while await statement.fetch():
                took.append(time.perf_counter() - began)
                began = time.perf_counter()
        return pace(sum(took), took)

    found = [(await claim(many), await claim(few)) for _ in range(shop.rounds)]
    ours, floor = [one for one, _ in found], [other for _, other in found]
    what = f"claims of {AT_ONCE} lanes with {len(many):,} due"
    return [_later(f"{what}: p99", f"{len(few):,} due", ours, floor, Goal("≤", 1.5))]


async def _killed(world: World) -> list[Line]:
    """Kill a worker, with a lease of a second."""
    async with place(world.server, talks=MORTAL) as here, here.connection() as live:
        await fill(live, list(here.talks), EACH)
        await lanes.deliver_everything(live)
        went = await kill_and_recover(here.dsn, live, here.talks, EACH)
    what = f"a worker killed amid {MORTAL} lanes, a lease of {SHORT:g} s"
    explained = went.deliveries - went.unexplained - went.disorders
    return [
        value(f"{what}: until the last lane it held goes on", [max(went.took)],
              Goal("≤", SHORT + POLL, "s"),
              f"{len(went.took)} lanes were held, half of them for {median(went.took):.2f} s"),
        ratios(f"{what}: in order, or a double with two intents on record", "deliveries",
               "deliveries", [(explained, went.deliveries)], Goal("≥", 1),
               f"{went.doubles} doubles, of messages that had left when it was killed"),
    ]  # fmt: skip


async def _beside_peers(world: World) -> list[Line]:
    """Let as many conversations have one message each, and drain them by ours and by PyPI's."""
    scale = world.scale
    messages = [(number, 1) for number in range(1, scale.due + 1)]
    found: dict[str, Drained] = {}
    async with place(world.server, talks=scale.due) as here, scratch(world.server) as theirs:
        async with here.connection() as live:
            await fill(live, list(here.talks), 1)
            await lanes.deliver_everything(live)
            await lanes.work_for(live, here.talks, 1)
        await peers.install(theirs)
        await peers.enqueue_procrastinate(theirs, messages)
        await peers.enqueue_pgqueuer(theirs, messages)
        for who, where in (
            ("greffier", here.dsn), ("procrastinate", theirs), ("pgqueuer", theirs)
        ):  # fmt: skip
            found[who] = await drain(who, where, scale.due, scale.hands)
    by = {who: Pace(rate=went.deliveries / went.seconds) for who, went in found.items()}
    return [
        rates(f"{scale.due:,} lanes due at once, {scale.hands} workers",
              "procrastinate, lock=conversation", [by["greffier"]], [by["procrastinate"]],
              Goal("≥", 1), f"pgqueuer, which knows no keys: {by['pgqueuer'].rate:.0f}/s",
              *(f"{who}: {1000 * went.cpu / went.deliveries:.2f} s of its workers' processor for"
                " 1,000" for who, went in found.items())),
    ]  # fmt: skip
