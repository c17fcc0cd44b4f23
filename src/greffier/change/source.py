"""Create, change, rotate and delete sources, and put on record what they bring."""

from __future__ import annotations

import secrets as randomness
from typing import NamedTuple
from uuid import UUID

import msgspec

from greffier.errors import IdReused, Invalid, NotFound, Problem, Stale
from greffier.model import text
from greffier.model.ids import uuid7
from greffier.model.limits import DEFAULT, Limits
from greffier.model.row import Row
from greffier.model.source import (
    Incoming,
    NewSource,
    Received,
    Source,
    SourcePatch,
    Status,
    StatusReport,
    check,
    check_incoming,
    merged,
)
from greffier.store.database import Database

CREATE = "select create_source_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
PATCH = "select patch_source_v1($1, $2, $3, $4, $5, $6, $7)"
ROTATE = "select rotate_source_v1($1, $2)"
DELETE = "select delete_source_v1($1)"
LOOK = "select source_json(s) from sources s where s.id = $1"
RECEIVE = "select * from receive_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)"
RECEIPT = "select receipt_v1($1, $2, $3)"

_source = msgspec.json.Decoder(Source).decode


def telegram_secret() -> str:
    """Make a secret of the characters that Telegram takes."""
    return randomness.token_urlsafe(32)


class Created(NamedTuple):
    """A source that is there: whether it was made now, and then its secret."""

    id: UUID
    created: bool
    secret: str | None


async def create(
    database: Database,
    new: NewSource,
    secret: str,
    *,
    created_by: str,
    limits: Limits = DEFAULT,
) -> Created:
    """Create a source; the same request again finds it, and tells no secret.

    Raises:
        Invalid: The request breaks a rule, or names an agent or endpoint that is not there.
        IdReused: The id names a source made by another request.
    """
    checked = check(new, limits=limits)
    id_ = new.id or uuid7()
    name, owner, agent, endpoint, debounce = checked.columns
    try:
        rows = await database.verb(
            CREATE, id_, checked.request_hash, name, owner, agent, endpoint, new.adapter,
            [secret], debounce, created_by, again=False,
        )  # fmt: skip
    except Invalid:
        raise _nowhere() from None
    created = bool(rows[0][0])
    return Created(id_, created, secret if created else None)


async def patch(
    database: Database,
    source_id: UUID,
    change: SourcePatch,
    *,
    if_version: int | None = None,
    limits: Limits = DEFAULT,
) -> int:
    """Change a source; what is not given stays (see ``change.agent.patch``).

    Returns:
        Its version afterwards; the same as before when nothing changed.

    Raises:
        Invalid: The source would break a rule, or name what is not there.
        NotFound: There is none.
        Stale: It is no longer at ``if_version``.
    """
    while True:
        source = await look(database, source_id)
        if if_version is not None and source.version != if_version:
            raise Stale
        wanted = merged(source, change)
        if wanted == merged(source, SourcePatch()):
            return source.version
        columns = check(wanted, limits=limits).columns
        try:
            rows = await database.verb(
                PATCH, source_id, source.version, *columns, again=if_version is None
            )
        except Stale:
            if if_version is not None:
                raise
            continue
        except Invalid:
            raise _nowhere() from None
        return int(rows[0][0])


async def look(database: Database, source_id: UUID) -> Source:
    """Read a source where it is written.

    Raises:
        NotFound: There is none.
    """
    rows = await database.verb(LOOK, source_id, again=True)
    if not rows:
        raise NotFound
    return _source(rows[0][0])


async def rotate(database: Database, source_id: UUID, secret: str) -> None:
    """Give a source a new secret; the one before holds for a day beside it.

    Raises:
        NotFound: There is none.
    """
    rows = await database.verb(ROTATE, source_id, secret, again=False)
    if rows[0][0] is None:
        raise NotFound


async def delete(database: Database, source_id: UUID) -> None:
    """Let nothing come in by a source any more; the conversations stay.

    Raises:
        NotFound: There is none.
    """
    rows = await database.verb(DELETE, source_id, again=False)
    if not rows[0][0]:
        raise NotFound


async def receive(
    database: Database, source_id: UUID, incoming: Incoming, *, limits: Limits = DEFAULT
) -> Received:
    """Put a message from outside on record, once for its external id, and ask for its answer.

    It stands in the one conversation of its source and contact, which the first makes.

    Raises:
        Invalid, PayloadTooLarge: It breaks a rule.
        NotFound: There is no such source.
        Unavailable: The database is away; the same call again changes nothing twice.
    """
    checked = check_incoming(source_id, incoming, limits=limits)
    said = Row._make(checked.draft.columns)
    asked = (
        source_id, incoming.external_id, checked.contact, checked.contact_in_url, checked.title,
        checked.name, said.content, said.metadata, said.said_at, said.id, said.request_hash,
        uuid7(), uuid7(),
    )  # fmt: skip
    try:
        (row,) = await database.verb(RECEIVE, *asked, again=True)
    except IdReused:
        # It came at once from another contact, whose is on record now: there it is found.
        (row,) = await database.verb(RECEIVE, *asked, again=True)
    if row["outcome"] == "gone":
        raise NotFound
    if row["outcome"] == "stored":
        database.committed(row["conversation_id"], row["rev"], people=row["created"])
    return Received(
        conversation_id=row["conversation_id"],
        seq=row["seq"],
        replayed=row["outcome"] == "replayed",
        answering=row["runs"],
    )


async def report(database: Database, endpoint_id: UUID | None, told: StatusReport) -> Status:
    """Keep what became of a message that left; a report never takes back a later one.

    Raises:
        Invalid: Nothing can be called so.
        NotFound: No message of this endpoint is called so.
    """
    if fault := text.faults(told.external_id, "/external_id"):
        raise Invalid(problems=(fault,))
    rows = await database.verb(
        RECEIPT, endpoint_id, told.external_id, told.status, again=True
    )  # fmt: skip
    status: Status | None = rows[0][0]
    if status is None:
        raise NotFound
    return status


def _nowhere() -> Invalid:
    return Invalid(
        problems=(
            Problem("", "unknown", "agent_id or endpoint_id names nothing for sources here."),
        )
    )
