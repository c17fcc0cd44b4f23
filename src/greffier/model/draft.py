"""From a draft to a row: every rule a message must keep before it may be stored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, NamedTuple, get_args
from uuid import UUID

import msgspec

from greffier.errors import Invalid, PayloadTooLarge, Problem
from greffier.model import jsonb, text
from greffier.model.ids import uuid7
from greffier.model.limits import DEFAULT, Limits
from greffier.model.message import Draft, Role

_ROLES: tuple[Role, ...] = get_args(Role)

_encode = msgspec.json.Encoder().encode
#: For hashes: a JSON object says the same in whatever order it is written.
_ordered = msgspec.json.Encoder(order="deterministic").encode


@dataclass(frozen=True, slots=True)
class Speaker:
    """Who writes: the author of messages of role user, and whoever brought them.

    ``actor`` is checked against the conversation; None is the service, which may write anywhere.
    """

    actor: str | None = None
    author_id: str | None = None
    author_name: str | None = None
    written_by: str = "service"


SERVICE = Speaker()


class Checked(NamedTuple):
    """A draft that may be stored: its columns as the store takes them, and their size in bytes."""

    id: UUID
    fresh: bool
    request_hash: bytes
    columns: tuple[Any, ...]
    size: int


def check(
    draft: Draft,
    speaker: Speaker,
    *,
    limits: Limits = DEFAULT,
    pointer: str = "",
    lenient: bool = False,
) -> Checked:
    """Check a draft against every rule, and hash what was asked for.

    The hash covers all that the caller said and the author, so that the same id with anything else
    is told apart; it is BLAKE2b of their JSON, 16 bytes, in which the order of an object's members
    does not count.

    Args:
        draft: What is to be said.
        speaker: By whom.
        limits: How large it may be.
        pointer: Where it stands in the request, for the problems.
        lenient: An import keeps what was said elsewhere, also an empty message.

    Raises:
        Invalid: With every fault that was found.
        PayloadTooLarge: The content is larger than the limit.
    """
    if (
        draft.content
        and draft.role in ("user", "assistant", "system")
        and not (draft.parts or draft.tool_calls or draft.metadata)
        and draft.said_at is None
        and draft.tool_call_id is draft.name is draft.reasoning is None
    ):
        return _check_words(draft, draft.content, speaker, limits, pointer)
    content = draft.content
    parts = _json(draft.parts, f"{pointer}/parts") if draft.parts else None
    calls = _json(draft.tool_calls, f"{pointer}/tool_calls") if draft.tool_calls else None
    metadata = (
        _json(draft.metadata, f"{pointer}/metadata", jsonb.encode) if draft.metadata else None
    )
    problems = _rule_problems(draft, pointer, lenient=lenient)
    if draft.parts:
        said = parts_text(draft.parts)
        if content is None:
            content = said or None
        elif content != said:
            problems.append(
                Problem(
                    f"{pointer}/content", "content-mismatch", "With parts, content is their text."
                )
            )
    size = _measure(
        draft,
        content,
        {"parts": parts, "tool_calls": calls, "metadata": metadata},
        limits,
        pointer,
        problems,
    )
    if problems:
        raise Invalid(problems=tuple(problems))
    author_id = speaker.author_id if draft.role == "user" else None
    said_at = draft.said_at.isoformat() if draft.said_at else None
    digest = blake2b(
        _encode(
            (
                draft.role,
                content,
                draft.tool_call_id,
                draft.name,
                draft.reasoning,
                author_id,
                said_at,
            )
        ),
        digest_size=16,
    )
    for given in (draft.parts, draft.tool_calls, draft.metadata):
        # A mark between them, so that an absent one is told from an empty one.
        digest.update(_ordered(given) if given else b"\xff")
        digest.update(b"\xfe")
    request_hash = digest.digest()
    id_ = draft.id or uuid7()
    return Checked(
        id_,
        draft.id is None,
        request_hash,
        (
            id_,
            request_hash,
            draft.role,
            author_id,
            speaker.author_name if author_id else None,
            speaker.written_by,
            content,
            _text(parts),
            _text(calls),
            draft.tool_call_id,
            draft.name,
            draft.reasoning,
            _text(metadata),
            draft.said_at,
        ),
        size,
    )


def _check_words(
    draft: Draft, content: str, speaker: Speaker, limits: Limits, pointer: str
) -> Checked:
    """Check a message that is words and nothing else, as most are: a third of the time."""
    size = len(content)
    if not content.isascii() or "\x00" in content:
        problem = text.faults(content, f"{pointer}/content")
        if problem:
            raise Invalid(problems=(problem,))
        size = len(content.encode())
    if size > limits.content:
        _limit(size, limits.content, f"{pointer}/content")
    author_id = speaker.author_id if draft.role == "user" else None
    asked = _encode((draft.role, content, author_id))
    request_hash = blake2b(asked, digest_size=16).digest()
    id_ = draft.id or uuid7()
    columns = (
        id_,
        request_hash,
        draft.role,
        author_id,
        speaker.author_name if author_id else None,
        speaker.written_by,
        content,
    )
    return Checked(id_, draft.id is None, request_hash, columns + _NO_MORE, size)


#: The columns of a message that is words alone, from parts to said_at.
_NO_MORE = (None,) * 7


def check_all(
    drafts: list[Draft], speaker: Speaker, *, limits: Limits = DEFAULT, lenient: bool = False
) -> list[Checked]:
    """Check several drafts that are to be stored together.

    Raises:
        Invalid: None, too many, one id twice, or faults in one of them.
    """
    if not drafts:
        raise Invalid.at("/messages", "empty", "There is no message.")
    if len(drafts) > limits.batch_messages:
        raise Invalid.at("/messages", "too-many", f"At most {limits.batch_messages} at once.")
    seen: set[UUID] = set()
    for index, draft in enumerate(drafts):
        if draft.id is not None:
            if draft.id in seen:
                raise Invalid.at(f"/messages/{index}/id", "duplicate", "This id stands twice.")
            seen.add(draft.id)
    return [
        check(draft, speaker, limits=limits, pointer=f"/messages/{index}", lenient=lenient)
        for index, draft in enumerate(drafts)
    ]


def parts_text(parts: list[dict[str, Any]]) -> str:
    """The text of content parts, one part a line; parts without text add nothing."""
    return "\n".join(part["text"] for part in parts if isinstance(part.get("text"), str))


def _measure(
    draft: Draft,
    content: str | None,
    documents: dict[str, bytes | None],
    limits: Limits,
    pointer: str,
    problems: list[Problem],
) -> int:
    """Add up the bytes of a draft, hold each field to its limit, and note texts that cannot be."""
    size = 0
    for field in ("content", "reasoning", "name", "tool_call_id"):
        value = content if field == "content" else getattr(draft, field)
        if value is None:
            continue
        problem = text.faults(value, f"{pointer}/{field}")
        if problem:
            problems.append(problem)
            continue
        length = len(value) if value.isascii() else len(value.encode())
        size += length
        if field in ("content", "reasoning"):
            _limit(length, limits.content, f"{pointer}/{field}")
        elif length > limits.name:
            problems.append(
                Problem(f"{pointer}/{field}", "too-long", f"At most {limits.name} bytes.")
            )
    for field, encoded in documents.items():
        if encoded is None:
            continue
        size += len(encoded)
        bound = limits.metadata if field == "metadata" else limits.content
        _limit(len(encoded), bound, f"{pointer}/{field}")
        # Encoded, a NUL is \u0000; only then is it worth looking where.
        if b"\\u0000" in encoded:
            problem = text.deep_faults(
                msgspec.to_builtins(getattr(draft, field)), f"{pointer}/{field}"
            )
            if problem:
                problems.append(problem)
    return size


def _rule_problems(draft: Draft, pointer: str, *, lenient: bool) -> list[Problem]:
    problems: list[Problem] = []

    def say(field: str, code: str, detail: str) -> None:
        problems.append(Problem(f"{pointer}/{field}", code, detail))

    if draft.role not in _ROLES:
        say("role", "choice", f"One of {', '.join(_ROLES)}.")
    if draft.role == "user" and not draft.content and not draft.parts and not lenient:
        say("content", "empty", "A message of role user needs content or parts.")
    if draft.role in ("tool", "system") and draft.content is None and not draft.parts:
        say("content", "missing", f"A message of role {draft.role} needs content.")
    if draft.role == "tool" and not draft.tool_call_id and not lenient:
        say("tool_call_id", "missing", "A tool's result names the call it answers.")
    if draft.role != "tool" and draft.tool_call_id is not None:
        say("tool_call_id", "misplaced", "Only a message of role tool answers a call.")
    if draft.role != "assistant" and draft.tool_calls:
        say("tool_calls", "misplaced", "Only a message of role assistant calls tools.")
    if draft.role != "assistant" and draft.reasoning is not None:
        say("reasoning", "misplaced", "Only a message of role assistant has reasoning.")
    for index, part in enumerate(draft.parts or ()):
        if not isinstance(part.get("type"), str):
            say(f"parts/{index}/type", "missing", "A content part has a type.")
        elif part["type"] == "text" and not isinstance(part.get("text"), str):
            say(f"parts/{index}/text", "missing", "A text part has a text.")
    if draft.said_at is not None and draft.said_at.tzinfo is None:
        say("said_at", "no-time-zone", "A time names its offset from UTC.")
    elif draft.said_at is not None and not 1 < draft.said_at.year < 9999:
        # The first and the last moment of all are infinite to the driver, and an offset may lead
        # out of what Python can hold.
        say("said_at", "range", "A time between the years 2 and 9998.")
    return problems


def _json(value: Any, pointer: str, encode: Callable[[Any], bytes] = _encode) -> bytes | None:
    if value is None:
        return None
    try:
        encoded = encode(value)
        jsonb.check_numbers(value, encoded)
        return encoded
    except UnicodeEncodeError:
        problem = text.deep_faults(msgspec.to_builtins(value), pointer)
        raise Invalid(problems=(problem,) if problem else ()) from None
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise Invalid.at(pointer, "not-json", f"This is no JSON value: {error}") from error


def _text(encoded: bytes | None) -> str | None:
    return None if encoded is None else encoded.decode()


def _limit(length: int, limit: int, pointer: str) -> None:
    if length > limit:
        raise PayloadTooLarge(f"{pointer} has {length} bytes; at most {limit} are accepted.")
