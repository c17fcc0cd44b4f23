"""From values to pieces: finds the conversations in a file; no I/O but reading it.

What a value holds is told for each by itself, because real files mix: threads in the OpenAI format
(an object with ``messages``, or a bare list of them), lists of those, Greffier's own exports, and
entries that are no conversation at all.

A message that cannot be kept is set aside alone.  Its neighbours pass, and so that the record does
not lie about what was said there, the next one that passes says in its metadata (``GAP``) how many
are missing before it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from greffier.imports import own
from greffier.imports.account import Fault
from greffier.imports.exported import Exported
from greffier.imports.piece import Options, Piece
from greffier.imports.scrub import UnfitError
from greffier.imports.seen import Seen
from greffier.imports.thread import thread
from greffier.imports.values import Source, Value, parse, values

#: Where a document keeps its list of threads.
LISTS: Final = ("conversations", "threads", "data")


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
        self._open: Exported | None = None

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
            given = value.get("messages")
            rows: list[Any] = given if isinstance(given, list) and given else [None]
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
        self._open = Exported(head, self._options.owner, found.place)
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
