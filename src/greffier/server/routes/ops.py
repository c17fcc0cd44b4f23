"""For whoever looks after the queue: how it does, which lanes stand where, and what helps them.

Admins and keys of scope ``ops`` come in here.  Nothing of what anybody said is shown, nor where an
endpoint points.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from greffier import access
from greffier.deliver import operate
from greffier.errors import Forbidden, Invalid, NotFound, UnsupportedMediaType
from greffier.model.ids import parse_uuid
from greffier.model.queue import (
    Alert,
    Attempt,
    Diagnosis,
    Kind,
    Lane,
    LaneState,
    Operated,
    Unlock,
    shown,
)
from greffier.read import queue
from greffier.server.answers import Answer, encoded
from greffier.server.call import Call
from greffier.server.decode import optional_decoder
from greffier.server.routes.lists import Listed
from greffier.server.table import Route

_Limit = Annotated[int, Meta(extra_json_schema={"minimum": 1, "maximum": 100})]


class LanesQuery(msgspec.Struct, frozen=True):
    """Which lanes, and how many; go on with the ``next_cursor`` of the answer.

    States are ``due``, ``leased`` (somebody works on it), ``expired`` (whose worker was lost),
    ``waiting`` (for its time), ``endpoint`` (for its endpoint to go on), ``parked`` (for a person),
    ``paused`` (by a person) and ``idle``.
    """

    state: LaneState | None = None
    kind: Kind | None = None
    limit: _Limit = 20
    cursor: str | None = None


class AttemptsQuery(msgspec.Struct, frozen=True):
    """Of which lane, of all without; how many; go on with the ``next_cursor`` of the answer."""

    lane_id: Annotated[str, Meta(extra_json_schema={"format": "uuid"})] | None = None
    limit: _Limit = 20
    cursor: str | None = None


async def get_queue(call: Call) -> Answer:
    """Say how the queue does: in numbers, alerts and advice; ``well`` when nobody is needed.

    It looks at every lane once and at the last day's journal: for a person, or for once a minute.
    """
    access.operator(call.principal)
    service = call.service
    found = await queue.diagnose(service.database, max_attempts=service.max_attempts)
    return encoded(shown(found))


async def list_lanes(call: Call) -> Answer:
    """List lanes: with a state, those that stand there, the longest due first; else all by id."""
    access.operator(call.principal)
    asked: LanesQuery = call.query
    found, following = await queue.lanes(
        call.service.database,
        state=asked.state,
        kind=asked.kind,
        limit=asked.limit,
        cursor=asked.cursor,
    )
    return encoded({"data": shown(found), "next_cursor": following})


async def get_lane(call: Call) -> Answer:
    """Look at a lane."""
    access.operator(call.principal)
    return encoded(shown(await queue.lane(call.service.database, call.params["lane_id"])))


async def list_attempts(call: Call) -> Answer:
    """Read the journal, newest first: what was tried, and what came of it.

    With ``lane_id`` all of that lane's, else every lane's of the last seven days. Two tries of one
    message that may both have arrived explain a double at the far side.
    """
    access.operator(call.principal)
    asked: AttemptsQuery = call.query
    lane_id = None if asked.lane_id is None else parse_uuid(asked.lane_id)
    if lane_id is None and asked.lane_id is not None:
        raise Invalid.at("/lane_id", "uuid", "This is no UUID.")
    found, following = await queue.attempts(
        call.service.database, lane_id, limit=asked.limit, cursor=asked.cursor
    )
    return encoded({"data": shown(found), "next_cursor": following})


async def list_alerts(call: Call) -> Answer:
    """List what somebody should know now, and since when; then what ended within the last day.

    Codes are ``no-worker``, ``oldest-due`` (5 minutes), ``processing-long`` (30 minutes),
    ``many-failed`` (more than 10 in a day), ``doubles``, ``uncertain`` and ``endpoint-disabled``.
    """
    access.operator(call.principal)
    service = call.service
    found = await queue.alerts(service.database, max_attempts=service.max_attempts)
    return encoded({"data": shown(found), "next_cursor": None})


async def unlock_lane(call: Call) -> Answer:
    """Make a lane ready again, with all its tries; whoever held it can write no more.

    By default when its lease is over, or when it is parked with tries left. What a worker that was
    stolen from was just sending may arrive twice.
    """
    access.operator(call.principal)
    asked: Unlock = call.body
    service = call.service
    lane = await queue.lane(service.database, call.params["lane_id"])
    found = await queue.to_unlock(
        service.database,
        max_attempts=service.max_attempts,
        force=asked.force,
        steal=asked.steal,
        ids=[lane.id],
    )
    was = None
    for one, most in found:
        was = await operate.unlock(
            service.database, one.lane, most, force=asked.force, steal=asked.steal
        )
    return await _operated(call, lane, changed=was is not None, was=was)


async def retry_lane(call: Call) -> Answer:
    """Try a lane's head now, with all its tries, when it waits for a later try or is parked."""
    access.operator(call.principal)
    lane = await queue.lane(call.service.database, call.params["lane_id"])
    changed = await operate.retry(call.service.database, lane)
    return await _operated(call, lane, changed=changed)


async def skip_lane(call: Call) -> Answer:
    """Give up the message at a lane's head and go on behind it; the journal says who did.

    The message itself stays on record.
    """
    by = access.operator(call.principal)
    lane = await queue.lane(call.service.database, call.params["lane_id"])
    seq = await operate.skip(call.service.database, lane, by)
    return await _operated(call, lane, changed=seq is not None, seq=seq)


async def pause_lane(call: Call) -> Answer:
    """Let nothing begin in a lane until it is resumed; what is under way may end."""
    return await _pause(call, paused=True)


async def resume_lane(call: Call) -> Answer:
    """Let a lane go on that was paused."""
    return await _pause(call, paused=False)


async def _pause(call: Call, *, paused: bool) -> Answer:
    access.operator(call.principal)
    lane = await queue.lane(call.service.database, call.params["lane_id"])
    changed = await operate.pause(call.service.database, lane, paused=paused)
    return await _operated(call, lane, changed=changed)


async def _operated(
    call: Call, lane: Lane, *, changed: bool, was: str | None = None, seq: int | None = None
) -> Answer:
    if changed:
        call.service.work_is_due(lane.conversation_id)
    now = await queue.lane(call.service.database, lane.id)
    return encoded({"changed": changed, "was": was, "skipped_seq": seq, "lane": shown(now)})


_LANE = "/v1/ops/lanes/{lane_id}"

ROUTES = (
    Route(
        method="GET",
        path="/v1/ops/queue",
        handler=get_queue,
        response=Diagnosis,
        errors=(Forbidden,),
        operations=True,
    ),
    Route(
        method="GET",
        path="/v1/ops/lanes",
        handler=list_lanes,
        query=LanesQuery,
        response=Listed[Lane],
        errors=(Forbidden,),
        operations=True,
    ),
    Route(
        method="GET",
        path=_LANE,
        handler=get_lane,
        response=Lane,
        errors=(Forbidden, NotFound),
        operations=True,
    ),
    Route(
        method="POST",
        path=f"{_LANE}/unlock",
        handler=unlock_lane,
        request=Unlock,
        decode=optional_decoder(Unlock),
        response=Operated,
        errors=(Forbidden, NotFound, UnsupportedMediaType),
        operations=True,
    ),
    *(
        Route(
            method="POST",
            path=f"{_LANE}/{name}",
            handler=handler,
            response=Operated,
            errors=(Forbidden, NotFound),
            operations=True,
        )
        for name, handler in (
            ("retry", retry_lane),
            ("skip", skip_lane),
            ("pause", pause_lane),
            ("resume", resume_lane),
        )
    ),
    Route(
        method="GET",
        path="/v1/ops/attempts",
        handler=list_attempts,
        query=AttemptsQuery,
        response=Listed[Attempt],
        errors=(Forbidden,),
        operations=True,
    ),
    Route(
        method="GET",
        path="/v1/ops/alerts",
        handler=list_alerts,
        response=Listed[Alert],
        errors=(Forbidden,),
        operations=True,
    ),
)
