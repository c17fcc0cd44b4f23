"""How fast messages are put on record, beside what PostgreSQL does for the same words alone."""

from __future__ import annotations

from greffier.bench.pgbench import APPEND, BARE, CLIENTS, bare_inserts
from greffier.bench.places import Place
from greffier.bench.results import Goal, Line, Pace, rates, times
from greffier.bench.talks import WORDS
from greffier.bench.turns import Effort, Side, one_by_one, take_turns
from greffier.bench.writers import append_for
from greffier.model.ids import uuid7
from greffier.store.writer import APPEND_ONE

#: Writers → how many times the floor their messages should come to.
CROWDS = {64: Goal("≥", 2), 256: Goal("≥", 3)}
HOT = 256


async def measure(place: Place, effort: Effort) -> list[Line]:
    """Measure appends through the library: one writer, many, and many in one conversation."""
    greffier, talks = place.greffier, place.talks
    batches: dict[str, str] = {}

    def crowd(name: str, writers: int, *, hot: bool = False) -> Side:
        async def side(seconds: float) -> Pace:
            before = greffier.database.writer.pressure
            stored, calls = before.stored, before.batches
            went = await append_for(greffier, talks[:1] if hot else talks, writers, seconds)
            after = greffier.database.writer.pressure
            batches[name] = f"{(after.stored - stored) / (after.batches - calls):.0f} a commit"
            return went

        return side

    sides: dict[str, Side] = {"bare": lambda seconds: bare(place, seconds)}
    sides |= {f"{writers}": crowd(f"{writers}", writers) for writers in CROWDS}
    sides["hot"] = crowd("hot", HOT, hot=True)
    sides["function"] = lambda seconds: function(place, seconds)
    sides["alone"] = crowd("alone", 1)
    found = await take_turns(effort, sides)

    def cpu(name: str) -> str:
        each = sorted(one.cpu or 0.0 for one in found[name])
        return f"{each[len(each) // 2]:.1f} µs of Python each"

    floor = bare_floor(place)
    lines = [
        rates(
            f"library append, {writers} writers, {len(talks):,} conversations",
            floor, found[f"{writers}"], found["bare"], goal, batches[f"{writers}"],
            cpu(f"{writers}"),
        )
        for writers, goal in CROWDS.items()
    ]  # fmt: skip
    lines.append(
        rates(
            f"library append, {HOT} writers, one conversation",
            floor, found["hot"], found["bare"], Goal("≥", 3), batches["hot"], cpu("hot"),
        )
    )  # fmt: skip
    same = "pgbench, 1 client, same function" if place.pgbench else "our driver, same function"
    lines += [
        rates("library append, one writer", same, found["alone"], found["function"],
              Goal("≥", 0.75), cpu("alone")),
        times("library append, one writer: time", same, found["alone"], found["function"],
              Goal("≤", 1.3)),
    ]  # fmt: skip
    return lines


def bare_floor(place: Place) -> str:
    """What the bare INSERTs are, in words."""
    return f"{'pgbench' if place.pgbench else 'our driver'}, {CLIENTS} clients, bare INSERT"


async def bare(place: Place, seconds: float) -> Pace:
    """The floor: one row a commit, without order, ids, access or counters."""
    if place.pgbench is None:
        return await bare_inserts(place.dsn, len(place.talks), seconds)
    return await place.pgbench.run(BARE, CLIENTS, seconds)


async def function(place: Place, seconds: float) -> Pace:
    """The floor of a lone writer: the same SQL function, with nothing of ours around it."""
    if place.pgbench is not None:
        return await place.pgbench.run(APPEND, 1, seconds, times=True)
    async with place.connection() as live:
        statement = await live.prepare(APPEND_ONE, name="append")

        async def operation() -> None:
            id_ = uuid7()
            talk = place.talks[id_.int % len(place.talks)]
            await statement.fetch(
                talk, None, id_, bytes(16), "user", None, None, "service", WORDS,
                *[None] * 7, True, False,
            )  # fmt: skip

        return await one_by_one(operation, seconds)
