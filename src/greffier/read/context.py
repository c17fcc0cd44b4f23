"""What a language model is sent of a conversation: read from the end, as much as it takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from greffier.errors import Invalid
from greffier.model.context import Tally, build_context, enough, leading
from greffier.model.limits import DEFAULT
from greffier.model.message import Message
from greffier.model.page import Context
from greffier.model.tokens import TokenCounter, estimate
from greffier.read.pages import Found, Where, page, why_absent
from greffier.store.database import Database

_decode = msgspec.json.Decoder(list[Message]).decode

#: The first stretch read beyond the messages asked for: tool traffic comes with its calls.
_SLACK = 30
_LIMITS = replace(DEFAULT, page_messages=2000, page_bytes=8 << 20)
#: Leading system messages are looked for this many at a time.
_HEAD = 4


async def context(
    database: Database,
    conversation_id: UUID,
    reader: str | None,
    *,
    max_messages: int | None = None,
    max_tokens: int | None = None,
    include_tools: bool = True,
    count: TokenCounter = estimate,
) -> Context:
    """Choose and repair the messages for a model's next answer; the record is never touched.

    It is of one active path, also when that is rewound meanwhile, and what is said meanwhile is not
    in it.  The cost is that of the messages chosen, however long the conversation is: it is read
    backward until one more whole group would not fit, and how much was left out comes from running
    numbers.

    Args:
        database: Where.
        conversation_id: Which.
        reader: For whom; None is the service.
        max_messages: User and assistant messages with content, at most; the conversation's
            ``history_limit`` when not given.
        max_tokens: Tokens at most, counted by ``count``.
        include_tools: Whether tool calls and their results are sent.
        count: Counts the tokens of one message in the OpenAI format.

    Raises:
        Invalid: A limit is negative.
        NotFound: The conversation is not there, or not the reader's.
        Gone: It was erased.
    """
    for name, value in (("max_messages", max_messages), ("max_tokens", max_tokens)):
        if value is not None and value < 0:
            raise Invalid.at(f"/{name}", "range", "A number from 0.")
    wanted = _Wanted(max_messages, max_tokens, include_tools, count)
    return (await _settled(database, conversation_id, reader, wanted))[0]


class Question(NamedTuple):
    """What the conversation's agent is sent, and the rev that it is of, or of a later one."""

    messages: list[dict[str, Any]]
    rev: int


async def question(database: Database, conversation_id: UUID) -> Question:
    """Choose what the conversation's agent is sent.

    Raises:
        NotFound, Gone: There is no such conversation.
    """
    chosen, rev = await _settled(database, conversation_id, None, _Wanted())
    return Question(msgspec.to_builtins(chosen.messages), rev)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """How much is to be chosen (``context``)."""

    max_messages: int | None = None
    max_tokens: int | None = None
    include_tools: bool = True
    count: TokenCounter = estimate


async def _settled(
    database: Database, conversation_id: UUID, reader: str | None, wanted: _Wanted
) -> tuple[Context, int]:
    while True:
        try:
            return await _context(database, conversation_id, reader, wanted)
        except _Moved:
            # Rewound while it was read: what was read is of two paths.
            continue


class _Moved(Exception):
    """The active path is another one than when we began."""


async def _context(
    database: Database, conversation_id: UUID, reader: str | None, wanted: _Wanted
) -> tuple[Context, int]:
    counts = await database.read("stretch_counts", conversation_id, reader)
    if not counts:
        raise await why_absent(database, conversation_id)
    path_rev: int = counts[0]["path_rev"]
    most = counts[0]["history_limit"] if wanted.max_messages is None else wanted.max_messages
    max_tokens, include_tools, count = wanted.max_tokens, wanted.include_tools, wanted.count

    tail: list[Message] = []
    size = min(most + _SLACK, 1000)
    # What is said from now on was not counted.
    before: int = counts[0]["last_seq"] + 1
    complete = False
    while True:
        found = await _page(database, conversation_id, reader, Where(size, before=before), path_rev)
        tail[:0] = _decode(b"[%b]" % found.data)
        complete = not found.has_before
        if complete or enough(
            tail,
            max_messages=most,
            max_tokens=max_tokens,
            include_tools=include_tools,
            count=count,
        ):
            break
        before = tail[0].seq if tail else 1
        size = min(size * 2, 2000)
    head: Sequence[Message] = ()
    if not complete and not counts[0]["speaks_first"]:
        head = await _head(database, conversation_id, reader, path_rev)
    chosen = build_context(
        tail,
        max_messages=most,
        max_tokens=max_tokens,
        include_tools=include_tools,
        count=count,
        complete=complete,
        head=head,
        total=Tally(counts[0]["said"], counts[0]["tool"]),
    )
    return chosen, counts[0]["rev"]


async def _page(
    database: Database, conversation_id: UUID, reader: str | None, where: Where, path_rev: int
) -> Found:
    found = await page(database, conversation_id, reader, where, limits=_LIMITS, whole=True)
    if found.path_rev != path_rev:
        raise _Moved
    return found


async def _head(
    database: Database, conversation_id: UUID, reader: str | None, path_rev: int
) -> list[Message]:
    """Read the system messages a conversation begins with."""
    begun: list[Message] = []
    while True:
        after = begun[-1].seq if begun else 0
        found = await _page(database, conversation_id, reader, Where(_HEAD, after=after), path_rev)
        begun += _decode(b"[%b]" % found.data)
        head, ended = leading(begun)
        if ended or not found.has_after:
            return head
