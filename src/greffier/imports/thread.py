"""A thread in the OpenAI format as a piece: its conversation, its messages, and their ids."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from hashlib import blake2b
from typing import Any, Final
from uuid import UUID

import msgspec

from greffier.imports import openai
from greffier.imports.account import Fault
from greffier.imports.own import WRITTEN_BY
from greffier.imports.piece import Options, Piece, Talk, item
from greffier.imports.scrub import NOTE, Notes, UnfitError, storable
from greffier.imports.seen import Seen
from greffier.imports.values import Doubled, Value, parse
from greffier.model.conversation import NewConversation
from greffier.model.draft import Speaker
from greffier.model.ids import foreign
from greffier.model.limits import IMPORT

#: Where a thread has an id of its own, by which a newer export of it is known again.
IDS: Final = ("id", "conversation_id", "thread_id", "chat_id", "session_id")


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
    speaker = Speaker(None, owner, None, WRITTEN_BY)
    reader = openai.Reader(options.zone)
    times: Counter[str] = Counter()
    gap = 0
    for number, row in enumerate(rows, start=1):
        place = replace(found.place, message=number)
        try:
            draft = reader.draft(row, number)
            mine = _message_id(id_, row, number, times, counted=own_id is None)
            draft = msgspec.structs.replace(draft, id=mine)
            piece.items.append(item(draft, speaker, gap, place, row, reader.altered))
            gap = 0
        except UnfitError as error:
            gap += 1
            piece.faults.append(Fault(place, error.reason, error.detail, raw=row))
    return piece


def _new(id_: UUID, entry: dict[str, Any], altered: Counter[str]) -> NewConversation:
    if isinstance(entry, Doubled):
        raise UnfitError("duplicate-key", "A key of this entry stands twice.")
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
