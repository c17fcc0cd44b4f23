"""From values to pieces: the conversations of a file, their messages as checked rows, no I/O.

What a value holds is told for each by itself, because real files mix: threads in the OpenAI format
(an object with ``messages``, or a bare list of them), lists of those, Greffier's own exports, and
entries that are no conversation at all.

A message that cannot be kept is set aside alone.  Its neighbours pass, and so that the record does
not lie about what was said there, the next one that passes says in its metadata (``GAP``) how many
are missing before it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import tzinfo
from hashlib import blake2b
from typing import Any, Final
from uuid import UUID

import msgspec

from greffier.errors import Invalid, PayloadTooLarge
from greffier.imports import openai, own
from greffier.imports.account import Fault, Place
from greffier.imports.scrub import NOTE, Notes, UnfitError, storable
from greffier.imports.seen import Seen
from greffier.imports.values import Source, Value, parse, values
from greffier.model.conversation import NewConversation
from greffier.model.draft import Checked, Speaker, check
from greffier.model.ids import foreign
from greffier.model.limits import IMPORT
from greffier.model.message import Draft

#: The metadata key that tells how many messages before this one could not be kept.
GAP: Final = "greffier:gap"

#: Where a thread has an id of its own, by which a newer export of it is known again.
IDS: Final = ("id", "conversation_id", "thread_id", "chat_id", "session_id")
#: Where a document keeps its list of threads.
LISTS: Final = ("conversations", "threads", "data")

#: A piece of an own export: so many messages at most, of so many bytes.
PIECE_MESSAGES: Final = 100
PIECE_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Options:
    """How to import.

    Attributes:
        owner: Whose the conversations are; own exports keep their owner without it.
        nobody: Whose they are when neither is said.
        form: ``auto``, or the one format that is accepted: ``openai`` or ``greffier``.
        zone: What times without an offset are meant in; without it they are left out.
        origin: A name that keeps equal ids of different systems apart.
    """

    owner: str | None = None
    nobody: str = "local"
    form: str = "auto"
    zone: tzinfo | None = None
    origin: str = ""


@dataclass(slots=True)
class Talk:
    """A conversation as its source says it; shared by all of its pieces."""

    new: NewConversation
    id: UUID
    owner: str
    place: Place
    #: to be archived at its end
    archived: bool = False
    #: how an own export is compared: ids are true ones, and texts may have been edited
    own: bool = False
    #: rows of it that were stored, or not, so far
    rows: int = 0


@dataclass(frozen=True, slots=True)
class Item:
    """A message that may be stored, and where it came from."""

    checked: Checked
    place: Place
    raw: Any
    altered: frozenset[str]


@dataclass(slots=True)
class Piece:
    """Some rows of a source, in order, all of one conversation (or of none: then only faults)."""

    talk: Talk | None
    read: int = 0
    size: int = 0
    items: list[Item] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    #: rows left out by a policy
    deletions: list[str] = field(default_factory=list)
    #: what was changed of the conversation itself
    altered: Counter[str] = field(default_factory=Counter)
    #: nothing of this conversation follows
    last: bool = True


def pieces(source: Source, options: Options, seen: Seen) -> Iterator[Piece]:
    """Read a file and give its conversations, piece by piece.

    Raises:
        PayloadTooLarge: It is a document too large to be held in memory.
        OSError: It cannot be read.
    """
    seen.forget_entries()
    reader = _Reader(options, seen)
    with source.open() as stream:
        for found in values(stream, source.name):
            if isinstance(found, Fault):
                yield from reader.fault(found)
            else:
                yield from reader.value(found)
        yield from reader.end()


class _Reader:
    """Tells what each value of a file is; holds the own export it is in the middle of."""

    def __init__(self, options: Options, seen: Seen) -> None:
        self._options = options
        self._seen = seen
        self._open: _Own | None = None

    def fault(self, fault: Fault) -> Iterator[Piece]:
        """Take a row that could not be read."""
        if self._open is not None:
            yield from self._open.fault(fault)
        else:
            yield Piece(None, read=1, faults=[fault])

    def value(self, found: Value) -> Iterator[Piece]:
        """Take one value of the file."""
        value, place = found.value, found.place
        form = self._options.form
        if form != "openai" and own.is_message(value):
            yield from self._message(found)
            return
        if _is_export(value) and form != "openai":
            yield from self.end()
            yield from self._export(found)
            return
        if _is_thread(value) and form != "greffier":
            yield from self.end()
            yield self._thread(found)
            return
        listed = _entries(value)
        if listed is not None:
            size = found.size // max(len(listed), 1)
            for number, entry in enumerate(listed, start=1):
                yield from self.value(Value(replace(place, entry=number), entry, size))
            yield from self.end()
            return
        yield from self.fault(
            Fault(place, "no-conversation", "This is no conversation.", raw=value)
        )

    def end(self) -> Iterator[Piece]:
        """Close the own export that is open, if one is."""
        if self._open is not None:
            closing, self._open = self._open, None
            yield closing.take(last=True)

    def _thread(self, found: Value) -> Piece:
        try:
            return thread(found, self._options, self._seen)
        except RecursionError:
            fault = Fault(found.place, "too-deep", "It is nested too deeply.")
            return Piece(None, read=1, faults=[fault])

    def _export(self, found: Value) -> Iterator[Piece]:
        value = found.value
        try:
            head = own.OwnConversation.read(value["conversation"])
        except UnfitError as error:
            rows: list[Any] = value.get("messages") or [None]
            yield Piece(
                None,
                read=len(rows),
                faults=[
                    Fault(
                        replace(found.place, message=n) if row is not None else found.place,
                        error.reason,
                        error.detail,
                        raw=value if row is None else row,
                    )
                    for n, row in enumerate(rows, start=1)
                ],
            )
            return
        self._open = _Own(head, self._options.owner, found.place)
        messages = value.get("messages")
        if isinstance(messages, list):
            share = found.size // max(len(messages), 1)
            for number, message in enumerate(messages, start=1):
                place = replace(found.place, message=number)
                yield from self._open.message(Value(place, message, share))
            yield from self.end()

    def _message(self, found: Value) -> Iterator[Piece]:
        belongs = own.conversation_id(found.value)
        if self._open is None or belongs != self._open.head.id:
            # Its conversation's line is missing or broken, so nobody knows whose it is.
            yield from self.end()
            detail = "The line of its conversation does not stand before it."
            fault = Fault(found.place, "no-conversation", detail, raw=found.value)
            yield Piece(None, read=1, faults=[fault])
            return
        yield from self._open.message(found)


class _Own:
    """An own export being read: hands on its messages a piece at a time."""

    def __init__(self, head: own.OwnConversation, owner: str | None, place: Place) -> None:
        self.head = head
        owner = owner or head.owner_id
        self._talk = Talk(
            NewConversation(
                id=head.id_for(owner),
                kind=head.kind,
                title=head.title,
                # An archived one has given its subject back.
                subject=None if head.archived_at else head.subject,
                agent_id=head.agent_id,
                history_limit=head.history_limit,
                metadata=head.metadata,
            ),
            head.id_for(owner),
            owner,
            place,
            archived=head.archived_at is not None,
            own=True,
        )
        self._piece = Piece(self._talk, last=False)
        self._gap = 0

    def message(self, found: Value) -> Iterator[Piece]:
        piece = self._piece
        piece.read += 1
        piece.size += found.size
        try:
            made = own.draft(found.value, was_owner=self.head.owner_id, owner=self._talk.owner)
            if made is None:
                piece.deletions.append("deleted-in-source")
            else:
                draft, speaker, altered = made
                piece.items.append(
                    _item(draft, speaker, self._gap, found.place, found.value, altered)
                )
                self._gap = 0
        except UnfitError as error:
            self._gap += 1
            piece.faults.append(Fault(found.place, error.reason, error.detail, raw=found.value))
        yield from self._full()

    def fault(self, fault: Fault) -> Iterator[Piece]:
        self._piece.read += 1
        self._piece.faults.append(fault)
        self._gap += 1
        yield from self._full()

    def take(self, *, last: bool) -> Piece:
        piece, self._piece = self._piece, Piece(self._talk, last=False)
        piece.last = last
        return piece

    def _full(self) -> Iterator[Piece]:
        if self._piece.read >= PIECE_MESSAGES or self._piece.size >= PIECE_BYTES:
            yield self.take(last=False)


def thread(found: Value, options: Options, seen: Seen) -> Piece:
    """Read one thread in the OpenAI format.

    Its id, and those of its messages, are made of what identifies it: the id it has, or else what
    it says and how many equal ones stood before it in the file.  So the same file again is the same
    conversations; and of a thread with an id, a newer export is a continuation.

    Raises:
        RecursionError: It is nested too deeply.
    """
    owner = options.owner or options.nobody
    entry = found.value if isinstance(found.value, dict) else {"messages": found.value}
    rows = entry["messages"]
    altered: Counter[str] = Counter()
    if isinstance(rows, str):
        rows = parse(rows)
        altered["double-encoded"] = 1
    own_id = _own_id(entry, IDS)
    digest = _digest(entry)
    ordinal = 0 if own_id else seen.ordinal(digest)
    identity = ("id", own_id) if own_id else ("sha", digest.hex(), str(ordinal))
    id_ = foreign("openai", options.origin, owner, *identity)
    piece = Piece(None, read=len(rows), size=found.size, altered=altered)
    try:
        piece.talk = Talk(_new(id_, entry, altered), id_, owner, found.place)
    except UnfitError as error:
        piece.read = max(piece.read, 1)
        piece.faults = [
            Fault(replace(found.place, message=n), error.reason, error.detail, raw=row)
            for n, row in enumerate(rows or [entry], start=1)
        ]
        return piece
    speaker = Speaker(None, owner, None, own.WRITTEN_BY)
    reader = openai.Reader(options.zone)
    times: Counter[str] = Counter()
    gap = 0
    for number, row in enumerate(rows, start=1):
        place = replace(found.place, message=number)
        try:
            draft = reader.draft(row, number)
            mine = _message_id(id_, row, number, times, counted=own_id is None)
            draft = msgspec.structs.replace(draft, id=mine)
            piece.items.append(_item(draft, speaker, gap, place, row, reader.altered))
            gap = 0
        except UnfitError as error:
            gap += 1
            piece.faults.append(Fault(place, error.reason, error.detail, raw=row))
    return piece


def _new(id_: UUID, entry: dict[str, Any], altered: Counter[str]) -> NewConversation:
    notes = Notes()
    metadata = storable({k: v for k, v in entry.items() if k != "messages"}, notes)
    altered.update(notes.names())
    if notes.places:
        metadata[NOTE] = notes.places
    title = metadata.get("title")
    if not isinstance(title, str):
        title = None
    elif len(title.encode()) > IMPORT.title:
        title = title.encode()[: IMPORT.title].decode(errors="ignore")
        altered["title-cut"] += 1
    size = len(msgspec.json.encode(metadata))
    if size > IMPORT.metadata:
        raise UnfitError(
            "metadata-too-large",
            f"Beside its messages it has {size} bytes; at most {IMPORT.metadata} are accepted.",
        )
    return NewConversation(id=id_, title=title, metadata=metadata)


def _message_id(
    conversation: UUID, row: Any, number: int, times: Counter[str], *, counted: bool
) -> UUID:
    """Give a message its id.

    In a thread known by what it says, its place is enough.  In one that may come again, longer: its
    own id, or what it says; and how often that stood before it, for a real export has one id twice.
    """
    if counted:
        return foreign("openai", str(conversation), "place", str(number))
    mine = _own_id(row, ("id",))
    key = f"id {mine}" if mine else f"sha {_digest(row).hex()}"
    times[key] += 1
    return foreign("openai", str(conversation), key, str(times[key]))


def _item(
    draft: Draft, speaker: Speaker, gap: int, place: Place, raw: Any, altered: set[str]
) -> Item:
    if gap:
        draft = msgspec.structs.replace(draft, metadata={**(draft.metadata or {}), GAP: gap})
    try:
        checked = check(draft, speaker, limits=IMPORT, lenient=True)
        return Item(checked, place, raw, frozenset(altered))
    except Invalid as error:
        code = error.problems[0].code if error.problems else error.code
        raise UnfitError(code, error.detail) from error
    except PayloadTooLarge as error:
        raise UnfitError("too-large", error.detail) from error


def _own_id(value: dict[str, Any], keys: Iterable[str]) -> str | None:
    for key in keys:
        found = value.get(key)
        if isinstance(found, str) and found:
            return f"{key} {found}"
        if isinstance(found, int) and not isinstance(found, bool):
            return f"{key} {found}"
    return None


def _digest(value: Any) -> bytes:
    """Tell values apart by what they say, however their keys are ordered or spaced."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return blake2b(text.encode(), digest_size=16).digest()


def _is_export(value: Any) -> bool:
    head = value.get("conversation") if isinstance(value, dict) else None
    return isinstance(head, dict) and {"id", "owner_id"} <= head.keys()


def _is_thread(value: Any) -> bool:
    """An object with messages, or a bare list of them (one that has a role is enough)."""
    if isinstance(value, list):
        return any(isinstance(one, dict) and "role" in one for one in value) and not any(
            _is_thread(one) or own.is_message(one) for one in value
        )
    if not isinstance(value, dict):
        return False
    messages = value.get("messages")
    if isinstance(messages, str):
        # Encoded twice: a column of JSON holding a text of JSON.
        try:
            messages = parse(messages)
        except (json.JSONDecodeError, RecursionError):
            return False
    return isinstance(messages, list)


def _entries(value: Any) -> list[Any] | None:
    """The entries of a list of conversations, wherever the document keeps it."""
    if isinstance(value, list):
        return value
    if isinstance(value, dict):
        for key in LISTS:
            if isinstance(value.get(key), list) and "messages" not in value:
                listed: list[Any] = value[key]
                return listed
    return None
