"""Runs: an agent is asked for an answer, and it is read as it is made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from uuid import UUID

import msgspec

from greffier import access
from greffier.agents.events import Event
from greffier.agents.follow import Follower
from greffier.change import run as verbs
from greffier.change.run import Asked
from greffier.errors import (
    Archived,
    Forbidden,
    Gone,
    IdReused,
    Invalid,
    NotFound,
    PayloadTooLarge,
    QuotaExceeded,
    RunActive,
    UnsupportedMediaType,
)
from greffier.model.message import Draft
from greffier.model.run import Run
from greffier.server.allowance import charge
from greffier.server.answers import JSON, Answer, Stream, events
from greffier.server.call import Call
from greffier.server.decode import optional_decoder
from greffier.server.routes.live import Still
from greffier.server.routes.messages import NotNegative, on_record
from greffier.server.table import Route


class NewRun(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is asked for: first the rewinding, then the message, then an answer; all or nothing."""

    id: UUID | None = None
    message: Draft | None = None
    rewind_after: NotNegative | None = None


async def start_run(call: Call) -> Answer | Stream:
    """Ask the conversation's agent for an answer.

    Rewinds if asked, appends the message if given, and then answers. With
    ``Accept: text/event-stream`` the answer is the run's events, otherwise 202 and the run. The
    same id again attaches to the run that there is. While another run answers: ``run-active``, and
    nothing is stored. Closing the connection cancels nothing.
    """
    asked: NewRun = call.body
    speaker = access.speaker(call.principal)
    message = asked.message
    if message is not None and message.id is None and b"idempotency-key" in call.headers:
        message = msgspec.structs.replace(message, id=call.idempotency_key("message"))
    drafts = [] if message is None else [message]
    with charge(call, drafts) as charged:
        await charged.settle(drafts, partial(on_record, call))
        done = await verbs.start(
            call.database,
            call.conversation_id,
            speaker,
            run_id=asked.id or call.idempotency_key(),
            message=message,
            rewind_after=asked.rewind_after,
            asked_by=call.principal.user_id,
            limits=call.service.limits,
        )
        charged.stored(int(done.message_stored))
    if done.created:
        call.service.work_is_due(call.conversation_id)
    if _wants_events(call):
        return await _follow(call, done.run_id, _after(call))
    return Answer(done.body, 202, [*JSON, _location(done)])


def _location(done: Asked) -> tuple[bytes, bytes]:
    return (b"location", b"/v1/runs/%b" % str(done.run_id).encode())


def _wants_events(call: Call) -> bool:
    accepted = call.headers.get(b"accept", b"")
    return any(
        one.partition(b";")[0].strip() == b"text/event-stream" for one in accepted.split(b",")
    )


async def get_run(call: Call) -> Answer:
    """Read a run: how it stands, which message it became, and what it used."""
    rows = await call.database.read("run", call.params["run_id"], access.reader(call.principal))
    if not rows:
        raise NotFound
    body: str = rows[0]["body"]
    return Answer(body.encode())


class EventsQuery(msgspec.Struct, frozen=True):
    """After which event; Last-Event-ID comes first. Without either, all of them."""

    after: NotNegative = 0


async def follow_run(call: Call) -> Stream:
    """Follow a run: its events as it makes them, every one once, and the stream ends with it.

    ``id`` counts 1, 2, 3 … within the run, so ``Last-Event-ID`` (or ``after``) resumes exactly
    where the connection broke, on any server, also when the run is over.
    """
    asked: EventsQuery = call.query
    return await _follow(call, call.params["run_id"], _after(call, asked.after))


def _after(call: Call, after: int = 0) -> int:
    last = call.headers.get(b"last-event-id")
    if last is None:
        if after < 0:
            raise Invalid.at("/after", "range", "after is a run event's number, or 0.")
        return after
    text = last.decode("latin-1").strip()
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise Invalid.at("", "last-event-id", "The header Last-Event-ID is a run event's number.")
    return int(text)


async def _follow(call: Call, run_id: UUID, after: int) -> Stream:
    # Whether there is anything to follow is decided before the status is.
    stack = AsyncExitStack()
    follower = await stack.enter_async_context(
        call.service.runs.follow(run_id, access.reader(call.principal), after)
    )
    return events(_events(call, follower), stack)


async def _events(call: Call, follower: Follower) -> AsyncIterator[bytes]:
    yield b": following\n\n"
    still = Still(call)
    while await still.here():
        try:
            async with asyncio.timeout(still.patience):
                found = await follower.next()
        except TimeoutError:
            if still.silent():
                yield b":\n\n"
            continue
        except (NotFound, Gone):
            # Removed meanwhile, or erased.
            return
        if found is None:
            return
        still.spoke()
        yield b"".join(map(_encoded, found))


def _encoded(event: Event) -> bytes:
    return b"event: %b\nid: %d\ndata: %b\n\n" % (event.name.encode(), event.id, event.data)


async def cancel_run(call: Call) -> Answer:
    """End a run as cancelled, with what it had said; one that is over stays as it was."""
    run_id = call.params["run_id"]
    reader = access.reader(call.principal)
    rows = await call.database.read("run", run_id, reader)
    if not rows:
        raise NotFound
    conversation_id = rows[0]["conversation_id"]
    body = await verbs.cancel(call.database, conversation_id, run_id, reader)
    # Whoever works on it learns at once that nobody wants it any more.
    call.service.runs.ended(conversation_id, run_id)
    return Answer(body)


_RUN = "/v1/runs/{run_id}"

ROUTES = (
    Route(
        method="POST",
        path="/v1/conversations/{conversation_id}/runs",
        handler=start_run,
        request=NewRun,
        decode=optional_decoder(NewRun),
        response=Run,
        status=202,
        also={200: "With `Accept: text/event-stream`: the run's events."},
        limited=True,
        errors=(
            Forbidden,
            NotFound,
            Gone,
            Archived,
            IdReused,
            RunActive,
            QuotaExceeded,
            PayloadTooLarge,
            UnsupportedMediaType,
        ),
        writes=True,
        request_headers={
            "Idempotency-Key": "Any text; makes the run's id when the body has none.",
            "Accept": "`text/event-stream` for the run's events instead of the run.",
            "Last-Event-ID": "With events: the number of the last one that was seen.",
        },
    ),
    Route(method="GET", path=_RUN, handler=get_run, response=Run, errors=(NotFound,)),
    Route(
        method="GET",
        path=_RUN + "/events",
        handler=follow_run,
        query=EventsQuery,
        media=("text/event-stream",),
        errors=(NotFound,),
        request_headers={"Last-Event-ID": "The number of the last event that was seen."},
    ),
    Route(
        method="POST",
        path=_RUN + "/cancel",
        handler=cancel_run,
        response=Run,
        errors=(Forbidden, NotFound, Gone),
        writes=True,
    ),
)
