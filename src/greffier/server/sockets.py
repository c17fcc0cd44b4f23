"""Socket.IO: the same changes, pushed to browsers and programs (contract.md, Socket.IO).

Messages are written over HTTP only; sockets announce.  A socket that joins a conversation hears of
its changes first and reads after that, so that nothing falls between; what it heard meanwhile
follows the answer.  A socket too slow for its room is not waited for: it reads from its own
position once it has caught its breath.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field, replace
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
import socketio

from greffier import access
from greffier.access import Principal
from greffier.change.people import read_upto
from greffier.errors import Error, Invalid, NotFound, RateLimited, Unauthenticated, Unavailable
from greffier.model import text
from greffier.model.ids import parse_uuid
from greffier.model.person import is_reserved
from greffier.publish.arrivals import Arrival, Arrivals
from greffier.publish.change import Change
from greffier.publish.stream import Stream
from greffier.server.engine import Server
from greffier.server.packets import Event, MsgspecJson, Pieces, Wire, event, written
from greffier.server.run_rooms import RunRooms
from greffier.server.service import LONGEST_ID

if TYPE_CHECKING:
    from greffier.server.service import Service

#: Seconds between two words about positions: a client that missed the last change finds out.
POSITIONS = 15.0
#: Seconds between two looks at whether a socket may still be here.
RECHECK = 5.0
#: Conversations one socket may follow.
JOINED = 500
#: Changes heard while a join is being answered; beyond that the socket catches up instead.
HEARD = 256
#: Events of one socket that wait for their turn; a client that comes back joins all it had at once.
WAITING = 2 * JOINED
#: In rooms larger than this nobody is told who types or who is there; presence is asked for.
SIGNALLED = 200


@dataclass(eq=False)
class Joined:
    """A socket's place in one conversation."""

    sid: str
    conversation_id: UUID
    user: str | None
    rev: int = 0
    stream: Stream | None = None
    #: The engine's, to write to.
    socket: Any = None
    people: frozenset[str] = frozenset()
    #: Whether they were found to take part; until then they are told nothing whatever.
    admitted: bool = False
    #: Brings it to the present when it fell behind.
    recovery: asyncio.Task[None] | None = None
    #: What was heard while the join is answered or the socket catches up; None when it is live.
    heard: list[Change] | None = field(default_factory=list)
    told: int = 0


@dataclass(eq=False)
class Session:
    """A connected socket."""

    sid: str
    token: str | None
    principal: Principal
    #: One event of a socket after the other: the library runs each in a task of its own.
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0
    joined: dict[UUID, Joined] = field(default_factory=dict)
    own: asyncio.Task[None] | None = None


class _Place:
    """Hears a conversation's changes for one socket; see ``publish.stream.Follows``."""

    def __init__(self, sockets: Sockets, joined: Joined) -> None:
        self._sockets = sockets
        self._joined = joined

    def push(self, change: Change) -> None:
        joined = self._joined
        # The way of nearly every delivery, a thousand times for one change: 12 µs instead of 13,
        # of which the system call takes most.
        if (
            joined.heard is None
            and change.people is None
            and change.since <= joined.rev < change.rev
            and written(joined.socket, self._sockets.packet(change))
        ):
            joined.rev = change.rev
            return
        self._sockets.heard(joined, change, self)

    def revoke(self) -> None:
        self._sockets.revoke(self._joined, self)


class Sockets:
    """The sockets of one process."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.server = Server(
            async_mode="asgi",
            # No other site's page may use a person's cookie here; programs send no Origin.
            cors_allowed_origins=None,
            json=MsgspecJson,
            max_http_buffer_size=64 << 10,
            ping_interval=25,
            ping_timeout=20,
        )
        self._wire = Wire(self.server)
        self._arrivals = Arrivals(service.database, limits=service.limits)
        self._sessions: dict[str, Session] = {}
        self._rooms: dict[UUID, set[Joined]] = {}
        self._places: dict[Joined, _Place] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        #: A change goes to all who follow before the next one comes.
        self._latest: tuple[Change | None, Event] = (None, event("", b""))
        service.signals.listen(self)
        self._runs = RunRooms(service.runs, self._present, self._wire.send)
        on = self.server.on
        on("connect", self._connect)
        on("disconnect", self._disconnect)
        for name in ("join", "leave", "typing", "read"):
            on(name, self._serialised(name))
        on("*", self._unknown)

    def _present(self, conversation_id: UUID) -> list[str]:
        """Give the sockets that have joined a conversation and may see it."""
        return [one.sid for one in self._rooms.get(conversation_id, ()) if one.admitted]

    # -- connections ---------------------------------------------------------------------------

    async def _connect(self, sid: str, environ: dict[str, Any], auth: Any = None) -> None:
        token = auth.get("token") if isinstance(auth, dict) else None
        try:
            principal = await self._identify(token, environ)
            if isinstance(auth, dict) and "act_as" in auth:
                principal = await self._acting(principal, auth["act_as"])
            access.reader(principal)
            if not self._service.users.knows(principal):
                await self._service.users.see(principal)
        except Error as error:
            raise socketio.exceptions.ConnectionRefusedError(error.code) from error
        session = Session(sid, token if isinstance(token, str) else None, principal)
        self._sessions[sid] = session
        if principal.user_id is not None:
            self._service.signals.connected(principal.user_id)
            session.own = self._start(self._follow_own(session, principal.user_id))

    async def _identify(self, token: Any, environ: dict[str, Any]) -> Principal:
        if isinstance(token, str) and token:
            return await self._service.authenticator.identify(token)
        if self._service.local is not None:
            with contextlib.suppress(CookieError):
                cookies = SimpleCookie(environ.get("HTTP_COOKIE", ""))
                signed_in = await self._service.local.signed_in(
                    {name: morsel.value for name, morsel in cookies.items()}
                )
                if signed_in is not None:
                    return signed_in
        raise Unauthenticated

    async def _acting(self, principal: Principal, user: Any) -> Principal:
        """Give a service in the place of the user it names, as the header Greffier-Act-As does."""
        if (
            not isinstance(user, str)
            or text.faults(user, "")
            or not 0 < len(user.encode()) <= LONGEST_ID
            or is_reserved(user)
        ):
            detail = f"act_as is a user's id of 1 to {LONGEST_ID} bytes."
            raise Invalid.at("/act_as", "act-as", detail)
        name = await self._service.users.name(user)
        return replace(access.acting_for(principal, user), name=name)

    async def _disconnect(self, sid: str, *_: Any) -> None:
        session = self._sessions.pop(sid, None)
        if session is None:
            return
        for joined in list(session.joined.values()):
            self._forget(session, joined)
        if session.own is not None:
            session.own.cancel()
        if session.principal.user_id is not None:
            self._service.signals.disconnected(session.principal.user_id)

    def _start(self, coroutine: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def run(self) -> None:
        """Look after the sockets until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tell_positions())
            group.create_task(self._recheck())

    async def _tell_positions(self) -> None:
        while True:
            await asyncio.sleep(POSITIONS)
            for session in list(self._sessions.values()):
                moved = {
                    str(one.conversation_id): one.stream.rev
                    for one in session.joined.values()
                    if one.stream is not None and one.stream.rev > one.told
                }
                if moved and self._wire.send(
                    session.sid, event("positions", msgspec.json.encode(moved))
                ):
                    for one in session.joined.values():
                        one.told = moved.get(str(one.conversation_id), one.told)

    async def _recheck(self) -> None:
        """End sockets whose token has expired or whose key was revoked."""
        while True:
            await asyncio.sleep(RECHECK)
            for session in list(self._sessions.values()):
                if session.token is None:
                    continue
                try:
                    await self._service.authenticator.identify(session.token)
                except Unauthenticated:
                    await self.server.disconnect(session.sid)
                except Error:
                    continue

    async def close(self) -> None:
        """End every socket: they come back, here or elsewhere, with their positions."""
        for sid in list(self._sessions):
            await self._wire.hang_up(sid)
        await self.server.shutdown()

    # -- events of clients ---------------------------------------------------------------------

    def _serialised(self, name: str) -> Any:
        handler = getattr(self, f"_{name}")

        async def handle(sid: str, data: Any = None, *_: Any) -> dict[str, Any] | Pieces:
            session = self._sessions.get(sid)
            if session is None:
                return {"ok": False, "code": "unauthenticated"}
            if session.waiting >= WAITING:
                return {"ok": False, "code": RateLimited.code}
            session.waiting += 1
            try:
                async with session.turn:
                    found: dict[str, Any] | Pieces = await handler(
                        session, data if isinstance(data, dict) else {}
                    )
            except Error as error:
                code = error.code if error.status < 500 else "unavailable"
                return {"ok": False, "code": code}
            finally:
                session.waiting -= 1
            return found if isinstance(found, Pieces) else {"ok": True, **found}

        return handle

    async def _unknown(self, _name: str, _sid: str, *_: Any) -> dict[str, Any]:
        """Refuse what is no event of ours, rather than let whoever asked wait for an answer."""
        return {"ok": False, "code": Invalid.code}

    async def _join(self, session: Session, data: dict[str, Any]) -> Pieces:
        service = self._service
        conversation_id = _id(data)
        user = access.reader(session.principal)
        if (old := session.joined.get(conversation_id)) is not None:
            self._forget(session, old)
        if len(session.joined) >= JOINED:
            raise Invalid.at("/conversation_id", "too-many", f"At most {JOINED} at a time.")
        joined = Joined(session.sid, conversation_id, user, socket=self._wire.socket(session.sid))
        place = _Place(self, joined)
        # Heard before it is read: what is committed in between comes twice rather than never.
        joined.stream = await service.feed.hear(conversation_id, place)
        session.joined[conversation_id] = joined
        self._places[joined] = place
        self._rooms.setdefault(conversation_id, set()).add(joined)
        try:
            arrival = await self._arrivals.answer(conversation_id, user, self._since(data))
        except BaseException:
            self._forget(session, joined)
            raise
        if session.sid not in self._sessions:
            # Hung up while it was answered, before there was anything to forget.
            self._forget(session, joined)
        if session.joined.get(conversation_id) is not joined:
            # Removed while it was answered.
            raise NotFound
        joined.people = arrival.people.names
        for change in joined.heard or ():
            # What was heard may be newer than what was read.
            if change.people is not None and change.rev > arrival.rev:
                joined.people = change.people
        joined.admitted = True
        joined.rev = joined.told = arrival.rev
        # Our answer is written, or put into the socket's queue, before the loop turns; what was
        # heard meanwhile goes behind it.
        asyncio.get_running_loop().call_soon(self._go_live, joined)
        return Pieces(self._answer(arrival))

    def _since(self, data: dict[str, Any]) -> int | None:
        """Give the rev from which a socket can go on, when it is of our history.

        As over HTTP, who names no history means ours.
        """
        rev, epoch = data.get("rev"), data.get("epoch")
        if rev is not None and (type(rev) is not int or rev < 0):
            raise Invalid.at("/rev", "type", "A rev is an integer, from 0.")
        if epoch is not None and not isinstance(epoch, str):
            raise Invalid.at("/epoch", "type", "An epoch is text.")
        if rev is None or rev >= 1 << 53 or epoch not in (None, self._service.database.epoch):
            return None
        found: int = rev
        return found

    def _answer(self, arrival: Arrival) -> tuple[bytes, ...]:
        """Write the answer of a join around what all who came together share."""
        people = arrival.people
        everybody = b"null" if arrival.recovered and arrival.same_people else people.body
        presence = b"null"
        if len(people.order) <= SIGNALLED:
            presence = msgspec.json.encode(self._service.signals.presence(people.order))
        return (
            b'{"ok":true,"recovered":%b,"%b":'
            % ((b"true", b"changes") if arrival.recovered else (b"false", b"snapshot")),
            *arrival.body,
            b',"epoch":"%b","rev":%d,"participants":'
            % (self._service.database.epoch.encode(), arrival.rev),
            everybody,
            b',"presence":%b}' % presence,
        )

    async def _leave(self, session: Session, data: dict[str, Any]) -> dict[str, Any]:
        joined = session.joined.get(_id(data))
        if joined is not None:
            self._forget(session, joined)
        return {}

    async def _typing(self, session: Session, data: dict[str, Any]) -> dict[str, Any]:
        joined = session.joined.get(_id(data))
        if joined is None:
            raise NotFound
        on = data.get("on", True)
        if not isinstance(on, bool):
            raise Invalid.at("/on", "type", "It is true or false.")
        user = access.myself(session.principal)
        if len(joined.people) <= SIGNALLED:
            self._service.signals.type(joined.conversation_id, user, on=on)
        return {}

    async def _read(self, session: Session, data: dict[str, Any]) -> dict[str, Any]:
        seq = data.get("seq")
        if not isinstance(seq, int) or isinstance(seq, bool):
            raise Invalid.at("/seq", "type", "A seq is a number.")
        user = access.myself(session.principal)
        self._service.signals.active(user)
        mark = await read_upto(self._service.database, _id(data), user, seq)
        return {"last_read_seq": mark.last_read_seq, "rev": mark.rev}

    def _forget(self, session: Session, joined: Joined) -> None:
        if joined.recovery is not None and joined.recovery is not asyncio.current_task():
            # Of a socket that ended nobody takes what waits, and it would wait for that.
            joined.recovery.cancel()
        if session.joined.get(joined.conversation_id) is joined:
            del session.joined[joined.conversation_id]
        place = self._places.pop(joined, None)
        if place is not None and joined.stream is not None:
            self._service.feed.leave(joined.stream, place)
        room = self._rooms.get(joined.conversation_id)
        if room is not None:
            room.discard(joined)
            if not room:
                del self._rooms[joined.conversation_id]

    # -- changes -------------------------------------------------------------------------------

    def heard(self, joined: Joined, change: Change, _place: _Place) -> None:
        """Pass a change on to a socket, or keep it while the socket is not there yet."""
        if change.people is not None:
            if joined.user is not None and joined.user not in change.people:
                self.revoke(joined, _place)
                return
            joined.people = change.people
        if joined.heard is not None:
            if not change.adds:
                # What was heard may have been deleted: it is read again instead.
                joined.heard.clear()
                self._take_back(joined)
            if len(joined.heard) < HEARD:
                joined.heard.append(change)
            return
        self._pass(joined, change)

    def packet(self, change: Change) -> Event:
        """Give the packet of a change, made once for all who get it."""
        latest, ready = self._latest
        if latest is not change:
            ready = event("change", change.body)
            ready.about = (change.conversation_id, change.since)
            self._latest = (change, ready)
        return ready

    def _pass(self, joined: Joined, change: Change) -> bool:
        """Send a change; False when the socket has to catch up instead."""
        if change.rev <= joined.rev:
            return True
        if not change.adds and self._take_back(joined):
            self._fall_behind(joined)
            return False
        if change.since > joined.rev or not self._wire.send(joined.sid, self.packet(change)):
            self._fall_behind(joined)
            return False
        joined.rev = change.rev
        return True

    def _take_back(self, joined: Joined) -> bool:
        """Take back what waits for a slow socket: it may have been deleted, and is read again."""
        since = self._wire.recall(joined.sid, joined.conversation_id)
        if since is None:
            return False
        joined.rev = since
        return True

    def _fall_behind(self, joined: Joined) -> None:
        joined.heard = []
        joined.recovery = self._start(self._recover(joined))

    def _go_live(self, joined: Joined) -> None:
        heard, joined.heard = joined.heard or [], None
        if not all(self._pass(joined, change) for change in heard):
            return
        if joined.stream is not None and joined.rev < joined.stream.rev:
            # More was heard than could be kept.
            self._fall_behind(joined)

    async def _recover(self, joined: Joined) -> None:
        """Bring a socket that fell behind to the present, at its own pace."""
        service = self._service
        while joined in self._places and joined.stream is not None:
            if not await self._wire.drained(joined.sid):
                return
            joined.heard = []
            try:
                change = await service.feed.catch_up(
                    joined.conversation_id, joined.user, joined.rev, None
                )
            except Unavailable:
                await asyncio.sleep(1)
                continue
            except Error:
                if (place := self._places.get(joined)) is not None:
                    self.revoke(joined, place)
                return
            if joined not in self._places:
                return
            if change is not None and change.since != joined.rev:
                # Taken back meanwhile.
                continue
            if change is not None:
                if not self._wire.send(joined.sid, self.packet(change)):
                    continue
                joined.rev = change.rev
            if joined.rev >= joined.stream.rev:
                self._go_live(joined)
                return

    def revoke(self, joined: Joined, _place: _Place) -> None:
        """Tell a socket that it may see no more of a conversation."""
        session = self._sessions.get(joined.sid)
        if session is None or joined not in self._places:
            return
        self._forget(session, joined)
        if self._service.feed.closed:
            # The server stops: they may still see it, from another one.
            return
        body = b'{"conversation_id":"%b"}' % str(joined.conversation_id).encode()
        self._wire.send(joined.sid, event("revoked", body))

    # -- own feed and signals ------------------------------------------------------------------

    async def _follow_own(self, session: Session, user: str) -> None:
        while session.sid in self._sessions:
            try:
                async with self._service.own.follow(user) as follower:
                    while (told := await follower.next()) is not None:
                        if not self._wire.send(session.sid, event(told.name, told.body)):
                            # Too slow: start again from the present when it has drained.
                            break
                    else:
                        if self._service.own.closed:
                            return
            except Unavailable:
                await asyncio.sleep(1)
            if not await self._wire.drained(session.sid):
                return

    def typing(self, conversation_id: UUID, user: str, *, on: bool) -> None:
        """Tell those who follow that somebody types (``publish.signals.Hearer``)."""
        room = self._rooms.get(conversation_id)
        if not room:
            return
        body = msgspec.json.encode({"conversation_id": conversation_id, "user_id": user, "on": on})
        ready = event("typing", body)
        for joined in list(room):
            # Only who takes part is shown as typing, and to those who take part.
            if user in joined.people and joined.user != user and joined.admitted:
                self._wire.send(joined.sid, ready)

    def presence(self, users: frozenset[str]) -> None:
        """Tell those who follow that these came or went."""
        for conversation_id, room in list(self._rooms.items()):
            # Not of one whose join is being answered, who knows nobody yet.
            here = next((one.people for one in room if one.admitted), frozenset[str]())
            changed = here & users
            if not changed or len(here) > SIGNALLED:
                continue
            body = msgspec.json.encode(
                {
                    "conversation_id": conversation_id,
                    "users": self._service.signals.presence(sorted(changed)),
                }
            )
            ready = event("presence", body)
            for joined in list(room):
                if joined.admitted:
                    self._wire.send(joined.sid, ready)


def _id(data: dict[str, Any]) -> UUID:
    given = data.get("conversation_id")
    found = parse_uuid(given) if isinstance(given, str) else None
    if found is None:
        raise Invalid.at("/conversation_id", "uuid", "An id is a UUID.")
    return found
