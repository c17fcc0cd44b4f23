"""Following live, as server-sent events: ``curl -N`` is a client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import msgspec

from greffier import access
from greffier.errors import Error, Forbidden, Gone, Invalid, NotFound, Unauthenticated
from greffier.publish.change import Change
from greffier.publish.feed import Following
from greffier.publish.own import OwnFollower
from greffier.publish.signals import Presence
from greffier.read.people import participants
from greffier.server.answers import Answer, Stream, encoded, events
from greffier.server.call import Call
from greffier.server.routes.messages import NotNegative
from greffier.server.table import Route

#: Seconds of silence after which a comment is sent, so that whatever stands between keeps the
#: connection open and a caller who vanished is noticed.
HEARTBEAT = 15.0
#: Seconds between two looks at whether the caller may still be here.
RECHECK = 5.0


class Still:
    """Whether a caller may still be here: their token may expire, their key may be revoked."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._spoke = self._looked = asyncio.get_running_loop().time()
        #: Seconds to wait for something to say before asking again.
        self.patience = RECHECK

    async def here(self) -> bool:
        """Look again, now and then."""
        now = asyncio.get_running_loop().time()
        if now - self._looked < RECHECK:
            return True
        self._looked = now
        try:
            await self._call.service.identify(self._call)
        except Unauthenticated:
            return False
        except Error:
            # Nobody can tell now: the database or the provider is away.
            return True
        return True

    def spoke(self) -> None:
        """Something was sent."""
        self._spoke = asyncio.get_running_loop().time()

    def silent(self) -> bool:
        """Whether it is time to send something only to be heard."""
        if asyncio.get_running_loop().time() - self._spoke < HEARTBEAT:
            return False
        self.spoke()
        return True


class FollowQuery(msgspec.Struct, frozen=True):
    """From which rev on; Last-Event-ID comes first. Without either, from the present one."""

    since: NotNegative | None = None
    epoch: str | None = None


async def follow_conversation(call: Call) -> Stream:
    """Follow a conversation: an event ``change`` for whatever happens to it, as it happens.

    The data is what ``changes`` answers, with the conversation's id. The event's id is
    ``<epoch>.<rev>``, so that Last-Event-ID resumes exactly where the connection broke. The first
    event says where the caller stands. ``reset``: start from a page. The stream ends when the
    caller may see no more.
    """
    asked: FollowQuery = call.query
    since, epoch = asked.since, asked.epoch
    if last := call.headers.get(b"last-event-id"):
        epoch, since = _position(last.decode("latin-1"))
    # Whether there is anything to follow is decided before the status is.
    stack = AsyncExitStack()
    following = await stack.enter_async_context(
        call.service.feed.follow(call.conversation_id, access.reader(call.principal), since, epoch)
    )
    return events(_conversation_events(call, following, since), stack)


def _position(text: str) -> tuple[str, int]:
    epoch, _, rev = text.strip().rpartition(".")
    if not epoch or not rev.isascii() or not rev.isdigit() or len(rev) > 18:
        raise Invalid.at("", "last-event-id", "The header Last-Event-ID is <epoch>.<rev>.")
    return epoch, int(rev)


async def _conversation_events(
    call: Call, following: Following, since: int | None
) -> AsyncIterator[bytes]:
    if since is None:
        # So that the caller knows from where on nothing is missed.
        yield b'event: change\nid: %b.%d\ndata: {"conversation_id":"%b","epoch":"%b",' % (
            call.service.feed.epoch.encode(),
            following.rev,
            str(call.conversation_id).encode(),
            call.service.feed.epoch.encode(),
        ) + b'"since":%d,"rev":%d}\n\n' % (following.rev, following.rev)
    else:
        yield b": following\n\n"
    still = Still(call)
    while await still.here():
        try:
            async with asyncio.timeout(still.patience):
                change = await following.next()
        except TimeoutError:
            if still.silent():
                yield b": %d\n\n" % following.rev
            continue
        if change is None:
            return
        still.spoke()
        yield _event(change)


class OwnQuery(msgspec.Struct, frozen=True):
    """From which list_rev on; Last-Event-ID comes first. Without either, from the present one."""

    list_rev: NotNegative | None = None


async def follow_own(call: Call) -> Stream:
    """Follow what is the caller's: their list, and what moves in it.

    ``list`` {since, list_rev, conversations, removed} says which conversations joined, changed
    their place in or left the list; its id ``<epoch>.<list_rev>`` resumes exactly with
    Last-Event-ID. ``activity`` {conversation_id, rev, last_message, unread} says that one moved;
    one older than what is known is ignored. The first event says where the caller stands.
    """
    asked: OwnQuery = call.query
    since = asked.list_rev
    if last := call.headers.get(b"last-event-id"):
        epoch, since = _position(last.decode("latin-1"))
        if epoch != call.service.feed.epoch:
            since = 0
    stack = AsyncExitStack()
    follower = await stack.enter_async_context(
        call.service.own.follow(access.myself(call.principal), since)
    )
    return events(_own_events(call, follower), stack)


async def _own_events(call: Call, follower: OwnFollower) -> AsyncIterator[bytes]:
    epoch = call.service.feed.epoch.encode()
    still = Still(call)
    while await still.here():
        try:
            async with asyncio.timeout(still.patience):
                event = await follower.next()
        except TimeoutError:
            if still.silent():
                yield b":\n\n"
            continue
        if event is None:
            return
        still.spoke()
        name, body = event.name.encode(), event.body
        if event.list_rev is None:
            yield b"event: %b\ndata: %b\n\n" % (name, body)
        else:
            yield b"event: %b\nid: %b.%d\ndata: %b\n\n" % (
                name,
                epoch,
                event.list_rev,
                body,
            )


async def list_presence(call: Call) -> Answer:
    """Say who of a conversation's people is online, and when they were last active.

    It is never stored: a restart forgets when somebody was last active.
    """
    found = await participants(call.database, call.conversation_id, access.reader(call.principal))
    return encoded(call.service.signals.presence(one.user_id for one in found))


def _event(change: Change) -> bytes:
    # JSON has no raw newline in it, so that one line of data holds it all.
    return b"event: change\nid: %b\ndata: %b\n\n" % (change.event_id.encode(), change.body)


ROUTES = (
    Route(
        method="GET",
        path="/v1/conversations/{conversation_id}/events",
        handler=follow_conversation,
        query=FollowQuery,
        media=("text/event-stream",),
        errors=(NotFound, Gone),
        request_headers={"Last-Event-ID": "The id of the last event that was seen."},
    ),
    Route(
        method="GET",
        path="/v1/conversations/{conversation_id}/presence",
        handler=list_presence,
        response=list[Presence],
        errors=(NotFound, Gone),
    ),
    Route(
        method="GET",
        path="/v1/events",
        handler=follow_own,
        query=OwnQuery,
        media=("text/event-stream",),
        errors=(Forbidden,),
        request_headers={"Last-Event-ID": "The id of the last list event that was seen."},
    ),
)
