"""What is said of many lanes in one call, on one connection."""

from __future__ import annotations

from datetime import timedelta
from typing import NamedTuple
from uuid import UUID

from helpers.lanes import ENDPOINT, Claim, Hand


class Word(NamedTuple):
    """What is said of a lane: what is done, and what is next."""

    claim: Claim
    seq: int | None = None
    then: int | None = None
    keep: bool = True
    external_id: str | None = None
    outcome: str = "accepted"
    endpoint: UUID = ENDPOINT
    rev: int | None = None


async def settle(
    hand: Hand, *words: Word, lease: float = 30, margin: float = 1
) -> list[str | None]:
    """Say it of all at once."""
    rows = await hand.rows(
        "settle_v1",
        [word.claim.lane.talk for word in words], [word.claim.lane.id for word in words],
        [word.claim.token for word in words], [word.seq for word in words],
        [word.outcome if word.seq else None for word in words], [None for _ in words],
        [word.external_id for word in words], [word.endpoint for word in words],
        [word.keep for word in words], [word.then for word in words], [word.rev for word in words],
        timedelta(seconds=lease), timedelta(seconds=margin),
    )  # fmt: skip
    return [row["answer"] for row in rows]


async def settle_alone(hand: Hand, word: Word, *, lease: float = 30, margin: float = 1) -> str:
    """Say it of one lane, by the functions that wait and look closer."""
    needed = timedelta(seconds=margin)
    key = (*word.claim.lane, word.claim.token)
    answer: str
    if word.seq is None:
        answer = await hand.call("intend_v1", *key, word.then, needed, word.rev)
        return answer
    answer = await hand.call(
        "done_and_next_v1", *key, word.seq, word.outcome, None, word.external_id, word.endpoint,
        timedelta(seconds=lease) if word.keep else None, word.then, needed, word.rev,
    )  # fmt: skip
    return answer
