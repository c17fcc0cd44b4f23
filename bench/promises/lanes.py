"""Messages are delivered in order and once for little more than the two commits each of them needs.

However many wait: lanes are claimed and not messages, so a claim costs the same with a hundred
thousand messages blocked behind busy conversations.  Whoever lost a lane can write no more.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from statistics import median
from uuid import UUID

import msgspec

from greffier.bench.pgbench import CLIENTS, Pgbench
from greffier.bench.places import Place, place, scratch
from greffier.bench.results import Goal, Line, Pace, rates, ratios, times, value
from greffier.bench.talks import fill
from greffier.bench.turns import one_by_one, take_turns
from greffier.store.connection import Connection
from lab import lanes, peers
from lab.drain import Drained, drain
from lab.scale import Scale
from lab.spent import Meter, Spent
from lab.world import World

#: Conversations that somebody is busy with, for as long as a claim is measured.
BUSY = 200
#: Rounds of a drain at most: each delivers all of its messages.
ROUNDS = 3
_CLAIM = "select * from claim_lanes_v1('out', 'idle', 50, '30 s', 3)"


async def measure(world: World) -> list[Line]:
    """Measure the drain, the claim, and what a zombie may write."""
    # Behind those whose messages are delivered: those that are busy, and the zombie's.
    talks = world.scale.keys + BUSY + 1
    async with place(world.server, talks=talks) as here, scratch(world.server) as theirs:
        if here.pgbench is None:
            raise RuntimeError("the floor of lanes is pgbench's, and there is none")
        pgbench = replace(here.pgbench, conversations=world.scale.keys)
        async with here.connection() as live:
            shop = Shop(world.scale, here, live, theirs, pgbench)
            return [
                *await _drains(shop), *await _beside_peers(shop), *await _zombies(shop),
                *await _claims(shop, world.server),
            ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Shop:
    """Where it is measured."""

    scale: Scale
    here: Place
    live: Connection
    #: The peers' database.
    theirs: str
    #: Of the conversations whose messages are delivered.
    pgbench: Pgbench


@dataclass(frozen=True, slots=True)
class Went:
    """A round of one side: all of its messages, put on record and delivered."""

    messages: int
    seconds: float
    spent: Spent
    drained: Drained | None = None

    @property
    def pace(self) -> Pace:
        """How many messages a second."""
        return Pace(rate=self.messages / self.seconds)

    @property
    def cpu(self) -> float:
        """Seconds of the server's processor for a thousand messages."""
        return 1000 * self.spent.cpu / self.messages

    @property
    def wal(self) -> float:
        """Bytes of log for each message."""
        return self.spent.wal / self.messages


async def _drains(shop: Shop) -> list[Line]:
    scale, live, pgbench = shop.scale, shop.live, shop.pgbench
    many = max(scale.keys * scale.each // CLIENTS, 1) * CLIENTS
    await live.execute(lanes.TABLES.format(lanes=scale.keys))
    await lanes.deliver_everything(live)
    meter = await Meter.of(live)

    async def ours(count: int) -> Went:
        before, began = await meter.read(), time.perf_counter()
        await lanes.enqueue(pgbench, count)
        took = time.perf_counter() - began
        drained = await drain("greffier", shop.here.dsn, count, scale.hands)
        return Went(count, took + drained.seconds, await meter.read() - before, drained)

    async def floor(count: int) -> Went:
        before, began = await meter.read(), time.perf_counter()
        await lanes.bare_enqueue(pgbench, count)
        await lanes.bare_done(pgbench, count)
        return Went(count, time.perf_counter() - began, await meter.read() - before)

    # Lanes are made once; what they cost when they are is not what delivery costs.
    if scale.effort.rounds > 1:
        for side in (ours, floor):
            await side(max(many // 10 // CLIENTS, 1) * CLIENTS)
    found = [(await ours(many), await floor(many)) for _ in range(min(scale.effort.rounds, ROUNDS))]
    left = await live.fetchval("select count(*) from lanes where due_at is not null")
    if left:
        raise RuntimeError(f"{left} lanes are still due")
    mine, bare = [one for one, _ in found], [one for _, one in found]
    by = f"pgbench, {CLIENTS} clients, the two commits by hand"
    what = f"keyed delivery, {scale.keys:,} conversations, {many:,} messages"
    drains = [one.drained for one in mine if one.drained is not None]
    delivering = median(one.seconds for one in drains) / median(one.seconds for one in mine)
    python = 1e6 * median(one.cpu / one.deliveries for one in drains)
    return [
        rates(f"{what}: messages", by, [one.pace for one in mine], [one.pace for one in bare],
              Goal("≥", 0.7), f"{scale.hands} worker processes",
              f"{python:.0f} µs of Python each",
              f"{delivering:.0%} of the time delivering"),
        ratios(f"{what}: server's processor", by, "s for 1,000",
               [(one.cpu, other.cpu) for one, other in found], Goal("≤", 1.3)),
        ratios(f"{what}: log", by, "bytes each",
               [(one.wal, other.wal) for one, other in found], Goal("≤", 1.5)),
        ratios(f"{what}: first and in order", "deliveries", "deliveries",
               [(d.deliveries - d.doubles - d.disorders, d.deliveries) for d in drains],
               Goal("≥", 1)),
    ]  # fmt: skip


async def _beside_peers(shop: Shop) -> list[Line]:
    """Put the same messages on record and deliver them, by ours and by what there is on PyPI."""
    scale, theirs = shop.scale, shop.theirs
    many = max(scale.peers // CLIENTS, 1) * CLIENTS
    messages = [(n % scale.keys + 1, n // scale.keys + 1) for n in range(many)]
    writes: dict[str, Callable[[], Awaitable[None]]] = {
        "greffier": lambda: lanes.enqueue(shop.pgbench, many),
        "procrastinate": lambda: peers.enqueue_procrastinate(theirs, messages),
        "pgqueuer": lambda: peers.enqueue_pgqueuer(theirs, messages),
    }
    meter = await Meter.of(shop.live)
    await peers.install(theirs)
    found: dict[str, list[Went]] = {}
    # Once: what is counted needs no rounds, and procrastinate takes its time.
    for who, write in writes.items():
        where = shop.here.dsn if who == "greffier" else theirs
        before = await meter.read()
        await write()
        drained = await drain(who, where, many, scale.hands)
        found[who] = [Went(many, drained.seconds, await meter.read() - before, drained)]
    paces = {who: [one.pace for one in all_] for who, all_ in found.items()}
    procrastinate = "procrastinate, lock=conversation"
    return [
        rates(f"keyed drain, {many:,} messages", procrastinate, paces["greffier"],
              paces["procrastinate"], Goal("≥", 1), *(_said(who, found[who]) for who in found)),
        ratios(f"keyed delivery, {many:,} messages: server's processor", procrastinate,
               "s for 1,000",
               [(one.cpu, other.cpu)
                for one, other in zip(found["greffier"], found["procrastinate"], strict=True)],
               Goal("≤", 1)),
    ]  # fmt: skip


def _said(who: str, rounds: list[Went]) -> str:
    drains = [one.drained for one in rounds if one.drained is not None]
    return (
        f"{who}: {median(one.pace.rate for one in rounds):.0f}/s, for 1,000 messages "
        f"{median(one.cpu for one in rounds):.2f} s of the server's processor and "
        f"{median(1000 * one.cpu / one.deliveries for one in drains):.2f} s of its workers', "
        f"{median(one.wal for one in rounds) / 1024:.1f} KiB of log each; "
        f"{sum(one.doubles for one in drains):,} doubles, "
        f"{sum(one.disorders for one in drains):,} out of order"
    )


async def _claims(shop: Shop, server: str) -> list[Line]:
    """Look for something to do where all that waits is blocked."""
    sizes = {"few": 1_000 // BUSY, "many": max(shop.scale.blocked // BUSY, 1)}
    few, many = (f"{BUSY * size:,}" for size in sizes.values())
    keys = shop.scale.keys
    async with (
        place(server, talks=BUSY) as small, small.connection() as few_live,
        scratch(server) as other,
        peers.blocked_procrastinate(other, BUSY, BUSY * sizes["few"]) as fetch_few,
        peers.blocked_procrastinate(shop.theirs, BUSY, BUSY * sizes["many"]) as fetch_many,
    ):  # fmt: skip
        buffers: dict[str, int] = {}
        sides: dict[str, Callable[[float], Awaitable[Pace]]] = {}
        for name, live, talks in (
            ("few", few_live, small.talks),
            ("many", shop.live, shop.here.talks[keys : keys + BUSY]),
        ):
            sides[name] = await _claiming(live, talks, sizes[name])
            buffers[name] = await _buffers(live)
        sides["their few"] = lambda seconds: one_by_one(fetch_few, seconds)
        sides["their many"] = lambda seconds: one_by_one(fetch_many, seconds)
        # A claim takes microseconds, and one fetch of theirs is enough of it.
        effort = replace(shop.scale.effort, seconds=shop.scale.effort.seconds / 8)
        found = await take_turns(effort, sides)
    theirs = [median(went.p50 or 0.0 for went in found[f"their {size}"]) for size in sizes]
    what = f"claim with {BUSY} busy lanes, {many} messages blocked behind"
    return [
        times(what, f"{few} blocked behind", found["many"], found["few"], Goal("≤", 1.5),
              f"procrastinate's fetch: {theirs[0]:.1f} ms at {few}, {theirs[1]:.1f} at {many}",
              "pgqueuer knows no keys: it would hand all of them out"),
        times(what, "procrastinate's fetch, the same", found["many"], found["their many"],
              Goal("≤", 1)),
        value(f"{what}: pages", [buffers["many"]], Goal("≤", 20, "buffers"),
              f"at {few}: {buffers['few']}"),
    ]  # fmt: skip


async def _claiming(
    live: Connection, talks: Sequence[UUID], each: int
) -> Callable[[float], Awaitable[Pace]]:
    await fill(live, list(talks), each)
    await lanes.block(live, talks, each)
    await live.execute("vacuum analyze")
    statement = await live.prepare(_CLAIM, name="claim")

    async def claim() -> None:
        assert not await statement.fetch()

    async def side(seconds: float) -> Pace:
        return await one_by_one(claim, seconds)

    return side


async def _buffers(live: Connection) -> int:
    """Count the pages of a claim."""
    await live.fetch(_CLAIM)
    raw = await live.fetchval(f"explain (analyze, buffers, format json) {_CLAIM}")
    plan = msgspec.json.decode(raw)[0]["Plan"]
    return int(plan["Shared Hit Blocks"]) + int(plan["Shared Read Blocks"])


async def _zombies(shop: Shop) -> list[Line]:
    """Let a worker that lost its lane, and does not know, write all that a worker writes."""
    talk = shop.here.talks[-1]
    await fill(shop.live, [talk], 3)
    tried, accepted, counted = await _zombie(shop.live, talk)
    p_tried, p_accepted, together = await peers.zombie_procrastinate(shop.theirs)
    q_tried, q_accepted = await peers.zombie_pgqueuer(shop.theirs)
    return [
        ratios("writes of a worker that lost its lane: refused", "tried", "writes",
               [(tried - accepted, tried)], Goal("≥", 1), f"{counted} of them counted on the lane",
               f"procrastinate accepted {p_accepted} of {p_tried}, and gave out another job of the"
               f" lock meanwhile {together} times",
               f"pgqueuer accepted {q_accepted} of {q_tried}"),
    ]  # fmt: skip


async def _zombie(live: Connection, talk: UUID) -> tuple[int, int, int]:
    """Claim, lose the lease, let another claim, and write.

    Returns:
        Writes tried, accepted, and refusals that stand on the lane.
    """
    lane = await live.fetchval(
        "select enqueue_v1($1, 'out', $2, 1, 3, lane_clock())", talk, lanes.ENDPOINT
    )
    claim = "select token from claim_lanes_v1('out', $1, 1, $2, null)"
    # A lease of no time is over at once.
    old = await live.fetchval(claim, "zombie", timedelta(0))
    new = await live.fetchval(claim, "heir", timedelta(hours=1))
    assert None not in (old, new)
    assert old != new
    key = (talk, lane, old)
    said = [
        await live.fetchval("select intend_v1($1, $2, $3, 1, '0')", *key) == "go",
        await live.fetchval("select done_v1($1, $2, $3, 1, 'accepted', null, null, '30 s')", *key),
        await live.fetchval(
            "select fail_v1($1, $2, $3, 1, 'not_sent', null, '1 s', 3, null)", *key
        ),
        await live.fetchval("select release_v1($1, $2, $3)", *key),
        await live.fetchval(
            "select count(*) > 0 from heartbeat_v1(array[$1::uuid], array[$2::uuid],"
            " array[$3::uuid], '1 hour')",
            *key,
        ),
    ]
    row = await live.fetchrow("select * from lanes where conversation_id = $1", talk)
    assert row is not None
    # The heir's lane is as it was.
    assert (row["token"], row["head_seq"], row["owner"]) == (new, 1, "heir")
    return len(said), sum(said), row["refused"]
