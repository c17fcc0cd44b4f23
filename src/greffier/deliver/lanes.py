"""Lanes as Python sees them: one call each of ``sql/schema/50_lanes.sql``, which decides."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, TypeAlias
from uuid import UUID

from greffier.store.database import Database

#: What lanes are for.
LaneKind: TypeAlias = Literal["run", "out"]

_CLAIM = "select * from claim_lanes_v1($1, $2, $3, $4, $5, $6)"
_CLAIMED = "select * from claimed_v1($1, $2)"
_HEARTBEAT = "select lane_id from heartbeat_v1($1, $2, $3, $4)"
_RELEASE = "select release_v1($1, $2, $3)"


@dataclass(frozen=True, slots=True)
class Claim:
    """A lane that is ours until its lease ends.

    Attributes:
        conversation_id: Whose lane it is.
        lane_id: Which of the conversation's.
        endpoint_id: Where its messages go; None for runs.
        fence: How often it was claimed, ever; rises from claim to claim.
        token: What each write has to bring.
        head_seq: The first number that is not done.
        tail_seq: The last number there was work for.
        tries: How often the head failed or was lost.
    """

    conversation_id: UUID
    lane_id: UUID
    endpoint_id: UUID | None
    fence: int
    token: UUID
    head_seq: int
    tail_seq: int
    tries: int


async def claim(
    database: Database,
    kind: LaneKind,
    owner: str,
    limit: int,
    lease: float,
    max_tries: int | None,
    token: UUID,
) -> list[Claim]:
    """Claim lanes that are due, the longest due first.

    When the answer is lost on the way, ``claimed`` finds what was claimed.

    Args:
        database: Where.
        kind: Of which kind.
        owner: Who claims, for operators to read.
        limit: How many at most.
        lease: Seconds they are ours, by the database's clock.
        max_tries: Lost leases after which a lane is parked instead; None: never.
        token: Made for this claim.
    """
    rows = await database.verb(
        _CLAIM, kind, owner, limit, timedelta(seconds=lease), max_tries, token, again=False
    )
    return _claims(rows)


async def claimed(database: Database, kind: LaneKind, token: UUID) -> list[Claim]:
    """Find what was claimed under a token whose answer was lost, and still is ours."""
    return _claims(await database.verb(_CLAIMED, kind, token, again=True))


def _claims(rows: Iterable[Any]) -> list[Claim]:
    return [
        Claim(
            row["conversation_id"], row["lane_id"], row["endpoint_id"], row["fence"], row["token"],
            row["head_seq"], row["tail_seq"], row["tries"],
        )
        for row in rows
        if not row["parked"]
    ]  # fmt: skip


async def heartbeat(database: Database, claims: Sequence[Claim], lease: float) -> set[UUID]:
    """Renew leases; gives the lanes that are still ours.  The others are to be dropped at once."""
    rows = await database.verb(
        _HEARTBEAT,
        [one.conversation_id for one in claims],
        [one.lane_id for one in claims],
        [one.token for one in claims],
        timedelta(seconds=lease),
        again=True,
    )
    return {row["lane_id"] for row in rows}


async def release(database: Database, claim: Claim) -> bool:
    """Let go of a lane, which is due at once, without counting a try."""
    rows = await database.verb(
        _RELEASE, claim.conversation_id, claim.lane_id, claim.token, again=True
    )
    return bool(rows[0][0])
