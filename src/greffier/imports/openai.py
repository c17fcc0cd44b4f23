"""Messages in the OpenAI chat format: to drafts, and back to the same messages.

The way back is what makes the way in safe.  A draft keeps what our columns hold; a message is then
written back from it, and whatever differs from the source is kept in its metadata: under ``source``
the keys with another value than we would write, under ``SHAPE`` the keys we would add.  So a record
exports exactly what was imported, except for the alterations that the account names.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from datetime import tzinfo
from typing import Any, Final

import msgspec

from greffier.imports.scrub import NOTE, Notes, UnfitError, restore, storable
from greffier.imports.times import TimeError, read_time
from greffier.model.limits import IMPORT
from greffier.model.message import ROLES, Draft, Function, Message, ToolCall

#: The metadata key of a message's values that are not in our columns.
SOURCE: Final = "source"
#: The metadata key that says how a message was written where ours would be written otherwise.
SHAPE: Final = "greffier:openai"

#: Names that others have for our roles.
ALIASES: Final = {
    "developer": "system",
    "function": "tool",
    "human": "user",
    "ai": "assistant",
    "bot": "assistant",
    "model": "assistant",
}
#: Where a message says when it was said; the first that is there counts.
TIMES: Final = ("created_at", "timestamp", "create_time")
#: Where a model's thoughts are; ours is the first.
REASONING: Final = ("reasoning_content", "reasoning")


_decode = msgspec.json.Decoder(Message).decode


class Reader:
    """Turns the messages of one conversation into drafts, in order.

    ``altered`` names what was changed in the message read last; the words of a message are never
    changed except as ``scrub`` says.
    """

    def __init__(self, zone: tzinfo | None) -> None:
        """Read times without an offset in ``zone``, or leave them out."""
        self._zone = zone
        # the id we gave the last call of the old kind, which has none, and its name
        self._call: tuple[str, str] | None = None
        self.altered: set[str] = set()

    def draft(self, source: Any, place: int) -> Draft:
        """Make a draft of one message.

        Args:
            source: The message as it was parsed.
            place: Which of its conversation it is, from 1.

        Raises:
            UnfitError: It is no message, or none we can keep whole.
        """
        self.altered = set()
        if not isinstance(source, dict):
            raise UnfitError("not-a-message", "A message is a JSON object.")
        notes = Notes()
        try:
            message: dict[str, Any] = storable(source, notes)
        except RecursionError as error:
            raise UnfitError("too-deep", "It is nested too deeply.") from error
        self.altered.update(notes.names())
        draft = self._columns(message, place)
        return _with_notes(draft, message, notes)

    def _columns(self, message: Mapping[str, Any], place: int) -> Draft:
        role = self._role(message)
        content, parts = self._content(message, role)
        calls = self._calls(message, place) if role == "assistant" else None
        reasoning = None
        if role == "assistant":
            found = [message[key] for key in REASONING if isinstance(message.get(key), str)]
            reasoning = found[0] if found else None
        call_id = _short(message.get("tool_call_id")) if role == "tool" else None
        name = _short(message.get("name"))
        if message.get("role") == "function" and call_id is None and self._call:
            called, by_id = self._call
            if called == name:
                call_id, self._call = by_id, None
        said_at = None
        stamps = [message[key] for key in TIMES if message.get(key) is not None]
        try:
            said_at = read_time(stamps[0], self._zone) if stamps else None
        except TimeError as error:
            self.altered.add(error.reason)
        return Draft(
            role=role,  # type: ignore[arg-type]  # one of ROLES
            content=content,
            parts=parts,
            tool_calls=calls,
            tool_call_id=call_id,
            name=name,
            reasoning=reasoning,
            said_at=said_at,
        )

    def _role(self, message: Mapping[str, Any]) -> str:
        role = message.get("role")
        if not isinstance(role, str):
            raise UnfitError("no-role", "A message has a role.")
        if role in ROLES:
            return role
        if role not in ALIASES:
            raise UnfitError("unknown-role", f"There is no role {role[:40]!r}.")
        self.altered.add("role-alias")
        return ALIASES[role]

    def _content(
        self, message: Mapping[str, Any], role: str
    ) -> tuple[str | None, list[dict[str, Any]] | None]:
        content = message.get("content")
        if content is None or content == []:
            # Our record wants a text here; which of null, [] and nothing it was is kept aside.
            if role in ("tool", "system"):
                self.altered.add("content-filled")
                return "", None
            return None, None
        if isinstance(content, str):
            return content, None
        if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
            raise UnfitError("bad-content", "Content is a text, null, or a list of parts.")
        self.altered.add("content-parts")
        return None, content

    def _calls(self, message: Mapping[str, Any], place: int) -> list[ToolCall] | None:
        given = message.get("tool_calls")
        if given:
            if not isinstance(given, list):
                raise UnfitError("bad-tool-call", "tool_calls is a list.")
            return [self._tool_call(call) for call in given]
        old = message.get("function_call")
        if not old:
            return None
        # The format of 2023: one call, told apart by nothing, answered by the next message of its
        # name.  With an id of ours the two stay together in a context.
        call = self._tool_call({"function": old, "id": f"function_call_{place}"})
        self._call = call.function.name, call.id
        self.altered.add("function-call")
        return [call]

    def _tool_call(self, call: Any) -> ToolCall:
        function = call.get("function") if isinstance(call, dict) else None
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(function, dict) or not isinstance(name, str):
            raise UnfitError("bad-tool-call", "A tool call names a function.")
        arguments = function.get("arguments", "")
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False)
            self.altered.add("arguments-encoded")
        found = call.get("id")
        return ToolCall(
            id=found if isinstance(found, str) else "", function=Function(name, arguments)
        )


def write(message: Message | Draft) -> dict[str, Any]:
    """Write a message in the OpenAI chat format, as it was before it was imported.

    A name stands with every role that has one, and a model's thoughts as ``reasoning_content``.
    """
    line = _write(message)
    metadata = message.metadata or {}
    shape = metadata.get(SHAPE)
    if isinstance(shape, dict):
        if shape.get("reasoning") and "reasoning_content" in line:
            line[shape["reasoning"]] = line.pop("reasoning_content")
        for key in shape.get("absent", ()):
            line.pop(key, None)
        line.update(metadata.get(SOURCE) or {})
    note = metadata.get(NOTE)
    if isinstance(note, dict) and getattr(message, "edited_at", None) is None:
        restored: dict[str, Any] = restore(line, note)
        return restored
    return line


async def threads(lines: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Turn an export (``jsonl``) into threads in the OpenAI format, one a line.

    A thread has the other keys of its conversation's metadata, where an import put them.
    """
    begun = False
    separator = b""
    async for line in lines:
        if line.startswith(b'{"conversation":'):
            if begun:
                yield b"]}\n"
            begun, separator = True, b""
            metadata = json.loads(line)["conversation"]["metadata"]
            note = metadata.pop(NOTE, None)
            keys = restore(metadata, note) if isinstance(note, dict) else metadata
            keys.pop("messages", None)
            inner = _dumps(keys)[1:-1]
            yield b"{" + (inner + b", " if inner else b"") + b'"messages": ['
            continue
        message = _decode(line)
        if message.deleted_at is None:
            yield separator + _dumps(write(message))
            separator = b", "
    if begun:
        yield b"]}\n"


def _dumps(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def _write(message: Message | Draft) -> dict[str, Any]:
    line: dict[str, Any] = {"role": message.role, "content": message.parts or message.content}
    if message.tool_calls:
        line["tool_calls"] = [
            {
                "id": call.id,
                "type": call.type,
                "function": {"name": call.function.name, "arguments": call.function.arguments},
            }
            for call in message.tool_calls
        ]
    more = {
        "tool_call_id": message.tool_call_id,
        "name": message.name,
        "reasoning_content": message.reasoning,
    }
    line.update({key: value for key, value in more.items() if value is not None})
    return line


def _with_notes(draft: Draft, message: dict[str, Any], notes: Notes) -> Draft:
    """Keep with a draft what its columns do not say of the message it was made of."""
    back = _write(draft)
    shape: dict[str, Any] = {}
    key = REASONING[1]
    if draft.reasoning is not None and REASONING[0] not in message:
        back[key] = back.pop(REASONING[0])
        shape["reasoning"] = key
    absent = [key for key in back if key not in message]
    if absent:
        shape["absent"] = absent
    aside = {key: value for key, value in message.items() if key not in back or back[key] != value}
    metadata: dict[str, Any] = {}
    if aside or shape:
        metadata[SHAPE] = shape
    if aside:
        metadata[SOURCE] = aside
    if notes.places:
        metadata[NOTE] = notes.places
    if not metadata:
        return draft
    return msgspec.structs.replace(draft, metadata=metadata)


def _short(value: Any) -> str | None:
    """Take a text that fits into a column; any other value is kept aside."""
    fits = isinstance(value, str) and len(value.encode()) <= IMPORT.name
    return value if fits else None
