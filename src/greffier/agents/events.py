"""The events of a run: as they are stored, as the API shows them, and once more after its end.

While a run answers, its events are rows.  Once it is over only its tape is left, the kind of each
event and of a delta its length, and the words are cut out of the messages the run became.  So
nothing is kept twice, an erased message is nowhere else, and yet a follower may come back with any
event's id and gets the rest exactly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple
from uuid import UUID

import msgspec

from greffier.errors import NotFound
from greffier.model.limits import DEFAULT, Limits
from greffier.store.database import Database

#: How an ended run's last event is called, by its status.
ENDS: Final = {
    "completed": "run.completed",
    "cancelled": "run.cancelled",
    "interrupted": "run.interrupted",
    "failed": "run.failed",
}

# The kinds on a tape (event_mark in sql/schema/53_runs.sql); a delta's length stands above them.
_STARTED, _CONTENT, _REASONING, _CALL, _RESULT, _MESSAGE, _END = range(7)
_KIND_BITS = 4


class Event(msgspec.Struct, frozen=True, gc=False):
    """One event of a run: its number within it, its name, and its data as JSON.

    Nothing in it can lead back to it, so that the collector need not look: it went through fifty
    thousand of a long answer again and again, for 37 of 62 ms.
    """

    id: int
    name: str
    data: bytes


class Said(NamedTuple):
    """What a run has said after some event.

    Attributes:
        conversation_id: Where it answers.
        events: In order, none left out.
        last: The id of the newest event there is.
        over: Whether the run has ended, so that none will come after these.
    """

    conversation_id: UUID
    events: list[Event]
    last: int
    over: bool


class _Function(msgspec.Struct, frozen=True):
    name: str
    arguments: str


class _ToolCall(msgspec.Struct, frozen=True):
    id: str
    function: _Function


class _Message(msgspec.Struct, frozen=True):
    """A message that a run became: as it was first said, whole, and as it is shown."""

    role: str
    content: str | None
    reasoning: str | None
    tool_calls: list[_ToolCall] | None
    tool_call_id: str | None
    message: msgspec.Raw


class _Usage(msgspec.Struct, frozen=True):
    usage: msgspec.Raw


class _Row(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An event as it is stored."""

    id: int
    event: str
    body: str


_messages = msgspec.json.Decoder(list[_Message]).decode
_usage = msgspec.json.Decoder(_Usage).decode
_rows = msgspec.json.Decoder(list[_Row]).decode
_encode = msgspec.json.encode


async def said(
    database: Database,
    run_id: UUID,
    reader: str | None,
    after: int = 0,
    *,
    limits: Limits = DEFAULT,
) -> Said:
    """Read what a run has said after an event.

    Args:
        database: Where.
        run_id: Which run.
        reader: Who reads, a participant of its conversation; None is the service.
        after: The id of the last event they know.
        limits: Above which size the text of a stored message is cut.

    Raises:
        NotFound: There is no such run, or it is not theirs to see.
    """
    rows = await database.read("run_said", run_id, reader, after, limits.cut)
    if not rows:
        raise NotFound
    row = rows[0]
    conversation_id: UUID = row["conversation_id"]
    if row["tape"] is None:
        stored = [] if row["events"] is None else _rows(row["events"])
        events = [
            Event(row.id, row.event, data(row.event, row.body, run_id, conversation_id))
            for row in stored
        ]
        return Said(conversation_id, events, row["last_event"], over=False)
    messages = [] if row["messages"] is None else _messages(row["messages"])
    ending = _ending(row["status"], row["body"], row["error_code"], row["error_detail"])
    replayed = replay(row["tape"], messages, ending, run_id, conversation_id)
    events = [event for event in replayed if event.id > after]
    return Said(conversation_id, events, row["last_event"], over=True)


def data(name: str, body: str, run_id: UUID, conversation_id: UUID) -> bytes:
    """Give an event's data as the API shows it, of what is stored."""
    if name.endswith(".delta"):
        return b'{"text":%b}' % _encode(body)
    if name == "run.started":
        return b'{"run_id":"%b","conversation_id":"%b"}' % (
            str(run_id).encode(),
            str(conversation_id).encode(),
        )
    return body.encode()


def _ending(status: str, body: str, code: str | None, detail: str | None) -> tuple[str, bytes]:
    if status == "completed":
        return ENDS[status], b'{"usage":%b}' % bytes(_usage(body).usage)
    if status == "failed":
        return ENDS[status], _encode({"code": code, "detail": detail})
    return ENDS[status], b"{}"


def replay(
    tape: Sequence[int],
    messages: Sequence[_Message],
    ending: tuple[str, bytes],
    run_id: UUID,
    conversation_id: UUID,
) -> Iterator[Event]:
    """Make an ended run's events again.

    Whatever was in a message that was deleted since is left out; the others keep their numbers.
    The cost is that of the answer, whatever the number of deltas.
    """
    answers = _Answers(messages)
    stored = iter(messages)
    for number, mark in enumerate(tape, 1):
        kind, length = mark & (1 << _KIND_BITS) - 1, mark >> _KIND_BITS
        match kind:
            case 0:
                yield Event(number, "run.started", data("run.started", "", run_id, conversation_id))
            case 1 | 2:
                text = answers.delta(length, reasoning=kind == _REASONING)
                if text is not None:
                    name = "reasoning.delta" if kind == _REASONING else "content.delta"
                    yield Event(number, name, b'{"text":%b}' % _encode(text))
            case 3:
                call = answers.call()
                if call is not None:
                    yield Event(number, "tool.call", call)
            case 4:
                result = answers.result()
                if result is not None:
                    yield Event(number, "tool.result", result)
            case 5:
                message = next(stored, None)
                if message is not None:
                    yield Event(number, "message", b'{"message":%b}' % bytes(message.message))
            case _:
                yield Event(number, *ending)


class _Answers:
    """Takes an ended run's messages apart again, in the order in which they were put together."""

    def __init__(self, messages: Sequence[_Message]) -> None:
        self._answers = iter([one for one in messages if one.role == "assistant"])
        self._results = iter([one for one in messages if one.role == "tool"])
        self._now = next(self._answers, None)
        self._at = {True: 0, False: 0}
        self._called = 0
        # What the event before was, which says where an answer begins (end_run_v1).
        self._before = _STARTED

    def _event(self, kind: int) -> None:
        if kind != _RESULT and self._before == _RESULT:
            self._now = next(self._answers, None)
            self._at = {True: 0, False: 0}
            self._called = 0
        self._before = kind

    def delta(self, length: int, *, reasoning: bool) -> str | None:
        self._event(_CONTENT)
        text = None
        if self._now is not None:
            text = self._now.reasoning if reasoning else self._now.content
        start = self._at[reasoning]
        self._at[reasoning] += length
        return None if text is None else text[start : start + length]

    def call(self) -> bytes | None:
        self._event(_CALL)
        place, self._called = self._called, self._called + 1
        calls = None if self._now is None else self._now.tool_calls
        if calls is None or place >= len(calls):
            return None
        call = calls[place]
        return _encode(
            {"id": call.id, "name": call.function.name, "arguments": call.function.arguments}
        )

    def result(self) -> bytes | None:
        self._event(_RESULT)
        message = next(self._results, None)
        if message is None or message.content is None:
            return None
        return _encode({"id": message.tool_call_id, "content": message.content})
