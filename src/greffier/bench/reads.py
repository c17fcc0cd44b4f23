"""What reading costs: a page wherever it lies, and the context a model is sent."""

from __future__ import annotations

import random
from collections.abc import Sequence
from uuid import UUID

from greffier.bench.places import Place
from greffier.bench.results import Goal, Line, Pace, times
from greffier.bench.turns import Effort, Side, one_by_one, take_turns
from greffier.read.pages import Where, page

#: How many messages a page has, as a screen does.
PAGE = 15
#: Places in the middle that are read in turn: few enough to stay in memory, as what is read does.
PLACES = 100


def reader(place: Place, talk: UUID, wheres: Sequence[Where]) -> Side:
    """Read pages of one conversation, as they are served: JSON, not decoded."""
    database = place.greffier.database
    turn = 0

    async def operation() -> None:
        nonlocal turn
        turn = (turn + 1) % len(wheres)
        await page(database, talk, None, wheres[turn])

    async def side(seconds: float) -> Pace:
        return await one_by_one(operation, seconds)

    return side


def latest(limit: int = PAGE) -> list[Where]:
    """The latest page."""
    return [Where(limit)]


def middle(messages: int) -> list[Where]:
    """Pages anywhere in a conversation of so many messages."""
    draw = random.Random(messages)  # noqa: S311 - the same places in each run
    return [Where(PAGE, before=draw.randint(PAGE + 1, messages)) for _ in range(PLACES)]


async def pages(
    place: Place, effort: Effort, long: tuple[UUID, int], short: tuple[UUID, int]
) -> list[Line]:
    """Compare pages of a long conversation with those of a short one.

    Args:
        place: Where both are.
        effort: How long to measure.
        long: A conversation and how many messages it has.
        short: The same.
    """
    found = await take_turns(
        effort,
        {
            "short": reader(place, short[0], latest()),
            "long": reader(place, long[0], latest()),
            "middle": reader(place, long[0], middle(long[1])),
        },
    )
    return [
        times(
            f"page of {PAGE} at {long[1]:,} messages",
            f"at {short[1]:,}", found["long"], found["short"], Goal("≤", 1.2),
        ),
        times(
            f"page anywhere in {long[1]:,} messages",
            "the latest page", found["middle"], found["long"], Goal("≤", 2),
        ),
    ]  # fmt: skip


async def contexts(place: Place, effort: Effort, long: tuple[UUID, int]) -> list[Line]:
    """Compare a context of 30 messages with a page of 60, both as values."""
    greffier, (talk, messages) = place.greffier, long

    async def context(seconds: float) -> Pace:
        return await one_by_one(lambda: greffier.context(talk, max_messages=30), seconds)

    async def recent(seconds: float) -> Pace:
        return await one_by_one(lambda: greffier.messages.recent(talk, limit=60), seconds)

    found = await take_turns(effort, {"page": recent, "context": context})
    return [
        times(
            f"context of 30 out of {messages:,} messages",
            "page of 60", found["context"], found["page"], Goal("≤", 2),
        )
    ]  # fmt: skip
