"""The queue for those who operate it: how it does, which lanes stand where, what was tried."""

from __future__ import annotations

import base64
import contextlib
import re
import time
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import msgspec

from greffier.errors import Invalid, NotFound
from greffier.model.ids import parse_uuid
from greffier.model.queue import (
    LONG,
    NOT_MADE,
    SILENT,
    Advice,
    Alert,
    Attempt,
    Diagnosis,
    EndpointLine,
    Kind,
    Lane,
    LaneCount,
    LaneState,
    Parked,
    Session,
    Table,
    Tries,
    Unlockable,
    WorkerLine,
    advise,
    find_alerts,
)
from greffier.store.connection import Connection
from greffier.store.database import Database
from greffier.store.queries import queries

#: Reasons, workers and endpoints that a diagnosis names.
NAMED = 50
#: Seconds an answer may take for it to tell what time it is at the database.
_QUICK = 0.5

_LANE: Final = msgspec.json.Decoder(Lane)
_FIRST = UUID(int=0)
#: A try's place in a journal: seq and fence, both below 2^63.
_TRY = re.compile(r"([0-9]{1,18})\.([0-9]{1,18})")
#: The same in the journal of all lanes: after microseconds since 1970 and the lane's id.
_TRY_OF_ALL = re.compile(r"([0-9]{1,17})\.([0-9a-f]{32})\." + _TRY.pattern)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: How far back the journal of all lanes is looked through, in steps: what is newest mostly lies in
#: the first, and a busy day need not be sorted for twenty lines of it.
_BACK = (timedelta(hours=1), timedelta(days=1), timedelta(days=7))


async def diagnose(database: Database, *, max_attempts: int = 3) -> Diagnosis:
    """Say how the queue does: in numbers, in alerts and in advice.

    It looks at every lane once and at the last day's journal, within one snapshot: for a person, or
    for once a minute.

    Args:
        database: Which.
        max_attempts: Tries of a message whose endpoint says nothing else.

    Raises:
        Unavailable: The database is away.
    """
    async with database.snapshot() as live:
        # A large queue takes a while; a limit meant for requests is not for it.
        await live.execute("set local statement_timeout = 0")
        rows = await _rows(live, max_attempts)
    return _judged(rows)


async def _rows(live: Connection, max_attempts: int) -> dict[str, Any]:
    texts = queries()
    asked, began = time.time(), time.monotonic()
    found: dict[str, Any] = {"queue_database": await live.fetch(texts["queue_database"])}
    took = time.monotonic() - began
    there = found["queue_database"][0]["now"].timestamp()
    found["ahead"] = asked + took / 2 - there if took <= _QUICK else None
    silent, long = timedelta(seconds=SILENT), timedelta(seconds=LONG)
    for name, args in (
        ("queue_states", ()),
        ("queue_heads", (long,)),
        ("queue_parked", (max_attempts, NAMED)),
        ("queue_workers", (silent, NAMED)),
        ("queue_endpoints", (NAMED,)),
        ("queue_journal", (NOT_MADE,)),
        ("queue_runs", ()),
        ("queue_tables", ()),
    ):
        found[name] = await live.fetch(texts[name], *args)
    return found


def _judged(rows: dict[str, Any]) -> Diagnosis:
    states, (heads,), (journal,) = rows["queue_states"], rows["queue_heads"], rows["queue_journal"]
    (database,) = rows["queue_database"]
    lanes: dict[tuple[Kind, LaneState], int] = {}
    tries: dict[int, int] = {}
    for row in states:
        lanes[row["kind"], row["state"]] = lanes.get((row["kind"], row["state"]), 0) + row["lanes"]
        tries[row["tries"]] = tries.get(row["tries"], 0) + row["lanes"]
    overdue = [
        row["overdue"]
        for row in states
        if row["state"] in ("due", "expired") and row["overdue"] is not None
    ]
    found = Diagnosis(
        at=database["at"],
        well=True,
        lanes=[LaneCount(kind, state, count) for (kind, state), count in sorted(lanes.items())],
        oldest_due=max(overdue, default=None),
        tries=[Tries(number, count) for number, count in sorted(tries.items())],
        parked=[Parked(**dict(row)) for row in rows["queue_parked"]],
        long=heads["long"],
        longest=heads["longest"],
        unsure_parked=heads["unsure_parked"],
        unsure_waiting=heads["unsure_waiting"],
        doubles=journal["doubles"],
        given_up=journal["given_up"],
        parked_today=journal["parked"],
        runs={row["status"]: row["runs"] for row in rows["queue_runs"]},
        refused_writes=sum(row["refused"] for row in states),
        workers=[WorkerLine(**dict(row)) for row in rows["queue_workers"]],
        endpoints=[EndpointLine(**dict(row)) for row in rows["queue_endpoints"]],
        clock_ahead=rows["ahead"],
        notifications=database["notifications"],
        oldest_snapshot=None
        if database["pid"] is None
        else Session(
            pid=database["pid"],
            application=database["application"],
            state=database["state"],
            seconds=database["seconds"],
        ),
        tables=[Table(**dict(row)) for row in rows["queue_tables"]],
        alerts=[],
        advice=[],
    )
    alerts: list[Alert] = find_alerts(found)
    advice: list[Advice] = advise(found)
    well = not any(one.person for one in advice)
    return msgspec.structs.replace(found, alerts=alerts, advice=advice, well=well)


async def lanes(
    database: Database,
    *,
    state: LaneState | None = None,
    kind: Kind | None = None,
    limit: int = 20,
    cursor: str | None = None,
) -> tuple[list[Lane], str | None]:
    """List lanes: those with a time to act by that time, the longest due first; the others by id.

    Args:
        database: Where.
        state: Only those that stand there.
        kind: Only these.
        limit: How many, at most 100.
        cursor: What the list before ended with.

    Returns:
        The lanes, and a cursor for what follows (None at the end).

    Raises:
        Invalid: The limit is out of range, or the cursor is none of ours.
    """
    _check(limit)
    if state in ("due", "expired", "leased", "waiting", "endpoint"):
        at, after = _read(cursor, ("-infinity", _FIRST))
        rows = await database.read("lanes_waiting", state, kind, at, after, limit + 1)
        place = [(row["due_at"], row["id"]) for row in rows]
    else:
        _, after = _read(cursor, ("", _FIRST))
        name = "lanes_set_aside" if state in ("parked", "paused") else "lanes_all"
        rows = await database.read(name, state, kind, after, limit + 1)
        place = [("", row["id"]) for row in rows]
    found = [_LANE.decode(row["body"]) for row in rows[:limit]]
    return found, _write(*place[limit - 1]) if len(rows) > limit else None


async def lane(database: Database, lane_id: UUID) -> Lane:
    """Look at a lane.

    Raises:
        NotFound: There is none with this id.
    """
    rows = await database.read("lane", lane_id)
    if not rows:
        raise NotFound("There is no such lane.")
    return _LANE.decode(rows[0]["body"])


async def attempts(
    database: Database, lane_id: UUID | None = None, *, limit: int = 20, cursor: str | None = None
) -> tuple[list[Attempt], str | None]:
    """Read a lane's journal, or that of every lane for the last seven days; newest first.

    A lane is read to its first try.  Of all of them the last days only, since a tree over time
    would cost every try an entry: what there is is kept by block.

    Args:
        database: Where.
        lane_id: Of which lane; None is all of them.
        limit: How many, at most 100.
        cursor: What the list before ended with.

    Returns:
        The attempts, and a cursor for what follows (None at the end).

    Raises:
        Invalid: The limit is out of range, or the cursor is none of ours.
    """
    _check(limit)
    if lane_id is None:
        return await _attempts_of_all(database, limit, cursor)
    most = (1 << 63) - 1
    seq, fence = most, most
    if cursor is not None:
        parts = _TRY.fullmatch(cursor)
        if parts is None:
            raise _no_cursor()
        seq, fence = int(parts[1]), int(parts[2])
    rows = await database.read("attempts_of_lane", lane_id, seq, fence, limit + 1)
    found = [Attempt(**dict(row)) for row in rows[:limit]]
    last = found[-1] if len(rows) > limit else None
    return found, None if last is None else f"{last.seq}.{last.fence}"


async def _attempts_of_all(
    database: Database, limit: int, cursor: str | None
) -> tuple[list[Attempt], str | None]:
    place: tuple[datetime | None, UUID | None, int | None, int | None] = (None, None, None, None)
    if cursor is not None:
        parts = _TRY_OF_ALL.fullmatch(cursor)
        if parts is None:
            raise _no_cursor()
        at = _EPOCH + timedelta(microseconds=int(parts[1]))
        place = at, UUID(parts[2]), int(parts[3]), int(parts[4])
    rows: Any = []
    for back in _BACK:
        rows = await database.read("attempts_within", *place, back, _BACK[-1], limit + 1)
        if len(rows) > limit:
            break
    found = [Attempt(**dict(row)) for row in rows[:limit]]
    if len(rows) <= limit:
        return found, None
    last = found[-1]
    since = (last.intended_at - _EPOCH) // timedelta(microseconds=1)
    return found, f"{since}.{last.lane_id.hex}.{last.seq}.{last.fence}"


async def to_unlock(
    database: Database,
    *,
    max_attempts: int,
    force: bool = False,
    steal: bool = False,
    ids: list[UUID] | None = None,
    kind: Kind | None = None,
    endpoint_id: UUID | None = None,
) -> list[tuple[Unlockable, int]]:
    """List exactly the lanes that may be unlocked, each with the tries its messages have.

    Args:
        database: Where.
        max_attempts: Tries of a message whose endpoint says nothing else.
        force: Also those whose tries are used up.
        steal: Also those that somebody works on.
        ids: Only these.
        kind: Only of this kind.
        endpoint_id: Only those to this endpoint.
    """
    rows = await database.read(
        "lanes_to_unlock", max_attempts, force, steal, ids, kind, endpoint_id
    )
    return [
        (Unlockable(was=row["was"], lane=_LANE.decode(row["body"])), row["most"]) for row in rows
    ]


async def alerts(database: Database, *, max_attempts: int = 3) -> list[Alert]:
    """Say what somebody should know now, and since when; then what ended within the last day.

    Raises:
        Unavailable: The database is away.
    """
    found = await diagnose(database, max_attempts=max_attempts)
    noted = [Alert(**dict(row)) for row in await database.read("alerts_noted")]
    since = {one.code: one.since for one in noted if one.until is None}
    now = [msgspec.structs.replace(one, since=since.get(one.code)) for one in found.alerts]
    return [*now, *(one for one in noted if one.until is not None)]


def _check(limit: int) -> None:
    if not 1 <= limit <= 100:
        raise Invalid.at("/limit", "range", "From 1 to 100.")


def _write(at: str, after: UUID) -> str:
    return base64.urlsafe_b64encode(f"{at}|{after}".encode()).decode().rstrip("=")


def _read(cursor: str | None, first: tuple[str, UUID]) -> tuple[str, UUID]:
    if cursor is None:
        return first
    found = None
    with contextlib.suppress(ValueError):
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        found = _PLACE.fullmatch(text.decode("ascii"))
    after = None if found is None else parse_uuid(found[2])
    if found is None or after is None or bool(found[1]) != bool(first[0]):
        raise _no_cursor()
    return found[1], after


#: A lane's place in a list: due_at as PostgreSQL writes it, where that is the order, and its id.
_PLACE = re.compile(
    r"(|infinity|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d{1,6})?\+00)\|([0-9a-f-]{36})", re.ASCII
)


def _no_cursor() -> Invalid:
    return Invalid.at("/cursor", "cursor", "This is no cursor of ours.")
