"""Run an import: read in a thread, store many conversations at once, account for every row.

Each conversation's pieces are stored one after the other, different conversations beside each
other.  What is in flight is bounded in number and in bytes, so memory stays flat.  Killed at any
moment and run again it gives the same record: ids are made of the source alone, and what is on
record already is counted and left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Final
from uuid import UUID

from greffier.errors import Error, Gone, IdReused, Unavailable
from greffier.imports.account import Account, Fault, Place
from greffier.imports.ahead import in_thread
from greffier.imports.piece import Item, Options, Piece, Talk
from greffier.imports.plan import pieces
from greffier.imports.record import Known, Live, Record, Rehearsal, Standing, said
from greffier.imports.seen import seen
from greffier.imports.values import Source
from greffier.store.database import Database

#: Conversations stored beside each other.
IN_FLIGHT: Final = 32
#: Bytes of source in flight; a larger piece goes alone.
IN_FLIGHT_BYTES: Final = 16 << 20
#: What goes into one append: the writer's queue takes 64 MiB, and one commit stays short.
BATCH_MESSAGES: Final = 100
BATCH_BYTES: Final = 1 << 20
OUT_OF_PLACE: Final = (
    "The record goes on differently after the message before it. If this is another thread that "
    "has the same id, import it with --origin NAME."
)

#: Told after each piece: how many bytes of source are done with.
Progress = Callable[[int], object]
#: Told of each row that is not taken, in no particular order.
OnFault = Callable[[Fault], object]


async def import_files(
    database: Database | None,
    sources: Iterable[Source],
    options: Options,
    account: Account,
    *,
    dry_run: bool = False,
    on_fault: OnFault = lambda _: None,
    progress: Progress = lambda _: None,
) -> None:
    """Import files, and write into ``account`` what became of each row.

    Args:
        database: Where to; None only for a rehearsal without one.
        sources: The files.
        options: How.
        account: Filled as the import goes on, so that it is right also when this fails half-way.
        dry_run: Do everything but write.
        on_fault: Told of each row that is set aside.
        progress: Told how far it is.

    Raises:
        Unavailable: The database is away; what the account says is stored.
        PayloadTooLarge: A file is a document too large to be held in memory.
        OSError: A file cannot be read.
    """
    with seen() as entries, seen() as planned:
        if dry_run:
            record: Record = Rehearsal(database, planned)
        else:
            assert database is not None
            record = Live(database)
        importer = _Importer(record, account, on_fault, progress)
        plan = (piece for source in sources for piece in pieces(source, options, entries))
        try:
            async with asyncio.TaskGroup() as group:
                async for piece in in_thread(plan):
                    await importer.take(piece, group)
        except BaseExceptionGroup as failed:
            # One of them says it: the others were cancelled, or met the same.
            raise _first(failed) from None


class _Importer:
    """Stores pieces, and accounts for them."""

    def __init__(
        self, record: Record, account: Account, on_fault: OnFault, progress: Progress
    ) -> None:
        self._record = record
        self._account = account
        self._on_fault = on_fault
        self._progress = progress
        self._room = _Room()
        # The conversations in flight: how each stands, and the task that stores its last piece.
        self._standing: dict[UUID, Standing | Error] = {}
        self._running: dict[UUID, asyncio.Task[None]] = {}

    async def take(self, piece: Piece, group: asyncio.TaskGroup) -> None:
        """Store a piece as soon as there is room, after the others of its conversation."""
        size = piece.size
        await self._room.enter(size)
        talk = piece.talk
        before = self._running.get(talk.id) if talk else None
        task = group.create_task(self._store(piece, before))
        if talk:
            self._running[talk.id] = task

        def done(task: asyncio.Task[None]) -> None:
            self._room.leave(size)
            if talk and self._running.get(talk.id) is task:
                del self._running[talk.id]

        task.add_done_callback(done)

    async def _store(self, piece: Piece, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait([before])
        self._account.read += piece.read
        for fault in piece.faults:
            self._quarantine(fault)
        for policy in piece.deletions:
            self._account.delete(policy)
        talk = piece.talk
        # A thread of which no message can be kept is not made: it would be an empty one.
        if talk is not None and (piece.items or not piece.faults or talk.id in self._standing):
            await self._conversation(talk, piece)
        self._progress(piece.size)

    async def _conversation(self, talk: Talk, piece: Piece) -> None:
        standing = self._standing.get(talk.id)
        if standing is None:
            try:
                standing = await self._record.stand(talk)
            except Unavailable:
                raise
            except Error as error:
                standing = error
            else:
                self._account.conversations += standing.made
                if standing.made:
                    self._account.altered.update([*piece.altered.elements(), *standing.altered])
        self._standing[talk.id] = standing
        talk.rows += piece.read
        if isinstance(standing, Error):
            for item in piece.items:
                self._refuse(item.place, item.raw, standing)
            if piece.last and not talk.rows:
                # It has no rows, so it is one itself: nothing goes by uncounted.
                self._account.read += 1
                self._refuse(talk.place, None, standing)
        else:
            await self._messages(talk, standing, piece.items)
        if piece.last:
            del self._standing[talk.id]
            if isinstance(standing, Standing):
                await self._record.finish(talk)

    async def _messages(self, talk: Talk, standing: Standing, items: list[Item]) -> None:
        known: dict[UUID, Known] = {}
        if not standing.made:
            known = await self._record.known(talk, [item.checked.id for item in items])
        new: list[Item] = []
        size = 0
        for item in items:
            there = known.get(item.checked.id)
            if there is not None:
                standing.met += there.imported
                self._compare(talk, item, there)
                continue
            reason = _out_of_place(standing)
            if reason:
                self._quarantine(Fault(item.place, *reason, raw=item.raw))
                continue
            if new and (len(new) == BATCH_MESSAGES or size + item.checked.size > BATCH_BYTES):
                await self._append(talk, new)
                new, size = [], 0
            new.append(item)
            size += item.checked.size
        if new:
            await self._append(talk, new)

    def _compare(self, talk: Talk, item: Item, there: Known) -> None:
        """Count a message that is on record: as it is, or with other words."""
        checked = item.checked
        if there.erased:
            self._account.delete("erased")
            return
        same = (
            said(checked) == there.said if talk.own else checked.request_hash == there.request_hash
        )
        if same:
            self._account.already += 1
        else:
            detail = "This message is on record with other words, and was left as it is there."
            self._quarantine(Fault(item.place, "changed", detail, raw=item.raw))

    async def _append(self, talk: Talk, items: list[Item]) -> None:
        try:
            stored = await self._record.append(talk, items)
        except Unavailable:
            raise
        except Error as error:
            for item in items:
                self._refuse(item.place, item.raw, error)
            return
        except Exception as error:
            # What the database itself does not take, though every rule of ours does: alone each
            # shows which it is, and it does not hold up the others.  A bug of ours has no SQLSTATE.
            state = getattr(error, "sqlstate", None)
            if state is None:
                raise
            if len(items) > 1:
                for item in items:
                    await self._append(talk, [item])
                return
            detail = f"The database refuses it (SQLSTATE {state})."
            self._quarantine(Fault(items[0].place, "store-refused", detail, raw=items[0].raw))
            return
        account = self._account
        for item, new in zip(items, stored, strict=True):
            if new:
                account.mapped += 1
                account.messages += 1
                account.altered.update(item.altered)
            else:
                # Somebody else imports the same at the same time, or an answer was lost.
                account.already += 1

    def _refuse(self, place: Place, raw: Any, error: Error) -> None:
        if isinstance(error, Gone):
            # What was erased stays so; an old export must not bring it back.
            self._account.delete("erased")
            return
        reason = "changed" if isinstance(error, IdReused) else error.code
        self._quarantine(Fault(place, reason, error.detail, raw=raw))

    def _quarantine(self, fault: Fault) -> None:
        self._account.quarantine(fault.reason)
        self._on_fault(fault)


def _out_of_place(standing: Standing) -> tuple[str, str] | None:
    """Say why a new message cannot be put at the end of the record, if it cannot.

    Its place is right only when everything that earlier imports brought stands before it in the
    source too.  Otherwise it belongs in between, or the thread went on differently (an answer made
    anew, or another thread under the same id), and at the end it would tell a talk nobody had.
    """
    if standing.archived:
        return "archived", "The conversation is archived; bring it back before adding to it."
    if standing.met < standing.imported:
        return "out-of-place", OUT_OF_PLACE
    return None


class _Room:
    """Bounds what is in flight, in number and in bytes; one piece is always let in."""

    def __init__(self) -> None:
        self._pieces = 0
        self._bytes = 0
        self._left = asyncio.Event()

    async def enter(self, size: int) -> None:
        while self._pieces and (self._pieces >= IN_FLIGHT or self._bytes + size > IN_FLIGHT_BYTES):
            self._left.clear()
            await self._left.wait()
        self._pieces += 1
        self._bytes += size

    def leave(self, size: int) -> None:
        self._pieces -= 1
        self._bytes -= size
        self._left.set()


def _first(failed: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = failed
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
