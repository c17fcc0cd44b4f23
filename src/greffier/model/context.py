"""The context window: stored messages as a list in the OpenAI chat format that a model accepts.

Providers refuse a history in which a tool call has no result or a result no call, and one such pair
on record would then block a conversation for good.  So the window is cut and repaired on the way
out, the same way every time, and the record stays as it is:

- A *group* is an assistant message with all results of its calls, or any other message alone;
  system messages in mid-conversation go with the group that follows them.  A group is in the window
  whole, or not at all.
- Calls and results are paired by position: ids come back within a conversation, so a result goes to
  the nearest assistant message before it that still waits for a result of that id.  Results follow
  their call at once, in the order of the calls, whatever stood between.
- A call without a result gets ``INTERRUPTED``.  A result without a call and a second result of one
  call are left out, as are messages that say nothing.
- Call ids that are empty or doubled within one message get a suffix, on call and result alike.
- System messages before anybody spoke are instructions: always there, never counted.  Those that
  tell an event to people (``EVENT_KEY`` in their metadata) are not for a model.

Nothing here reads a clock or a random number, so the beginning of a context stays the same bytes
and a provider's prompt cache keeps its worth.

Reasoning is not sent: the OpenAI chat format has no place for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from greffier.model.message import Message, ToolCall
from greffier.model.page import Context, Omitted
from greffier.model.tokens import TokenCounter, estimate

#: The metadata key of system messages that tell people an event ("Ada joined").
EVENT_KEY: Final = "greffier_event"

#: What stands for the result of a call that never got one.
INTERRUPTED: Final = "[interrupted: this tool call has no result]"

# OpenAI refuses a whole request for one name outside this.
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class Tally:
    """How many messages of a conversation speak, and how many are tool traffic.

    Attributes:
        messages: User and assistant messages with content or parts.
        tools: Tool messages, and assistant messages with tool calls and no content.
    """

    messages: int = 0
    tools: int = 0


@dataclass(slots=True)
class _Group:
    """Messages that go together: systems before, one message, its calls' results in their order."""

    before: list[Message]
    message: Message | None  # None: system messages at the end, which nothing follows yet
    calls: Sequence[ToolCall] = ()
    results: list[Message | None] = field(default_factory=list)
    chat: list[dict[str, Any]] = field(default_factory=list)
    tokens: int = 0

    def write(self, count: TokenCounter) -> None:
        """Write the group in the chat format and count it, once."""
        if not self.chat:
            self.chat = _chat(self)
            self.tokens = sum(map(count, self.chat))


def build_context(
    messages: Sequence[Message],
    *,
    max_messages: int,
    max_tokens: int | None = None,
    include_tools: bool = True,
    count: TokenCounter = estimate,
    complete: bool,
    head: Sequence[Message] = (),
    total: Tally | None = None,
) -> Context:
    """Make the list to send to a model from the end of a conversation.

    From the newest group backwards, groups are taken until ``max_messages`` user and assistant
    messages with content are in, or the next group does not fit into ``max_tokens``.  Tool traffic
    is not counted and is in wherever it stands between messages that are, or at the end.  Leading
    system messages are reserved first, and stay even if they alone exceed the budget.

    The result is valid in the OpenAI chat format and takes time linear in ``messages``; made again
    from itself it is the same.  Its content parts are the messages' own: do not write into them.

    Args:
        messages: The end of the active path, oldest first, whole (not truncated for a page).
            Deleted messages may be there; they are skipped.
        max_messages: How many user and assistant messages with content, 0 for none.
        max_tokens: The budget for everything in the list, or None.
        include_tools: Without tools, their messages and calls are left out.
        count: What one message costs.
        complete: Whether ``messages`` starts where the conversation starts.  If not, read until
            ``enough`` says so and the list is the same as from the whole conversation.
        head: Of a conversation not read whole, its ``leading`` system messages.
        total: Of a conversation not read whole, its ``tally``; ``omitted`` is what is missing to
            it.  Without it, to ``messages``.
    """
    if head and not complete:
        # What lies at or before the last leading message is in the head, or for no model.
        messages = [message for message in messages if message.seq > head[-1].seq]
    instructions, groups = _split(messages, include_tools=include_tools, complete=complete)
    first = _Group(instructions if complete else list(head), None)
    first.write(count)
    budget = None if max_tokens is None else max_tokens - first.tokens
    start, cut = _cut(groups, max_messages=max_messages, budget=budget, count=count)
    window = groups[start:]
    for group in window:
        group.write(count)
    if total is None:
        total = tally(messages)
    sent = tally(message for group in window for message in (group.message, *group.results))
    omitted = Tally(total.messages - sent.messages, total.tools - sent.tools)
    if cut is None and omitted.tools:
        # They were not asked for, or are results that belong to no call.
        cut = "tools"
    return Context(
        messages=first.chat + [line for group in window for line in group.chat],
        omitted=Omitted(messages=omitted.messages, tools=omitted.tools, reason=cut),
        tokens=first.tokens + sum(group.tokens for group in window),
    )


def enough(
    messages: Sequence[Message],
    *,
    max_messages: int,
    max_tokens: int | None = None,
    include_tools: bool = True,
    count: TokenCounter = estimate,
) -> bool:
    """Whether the end of a conversation, as read so far, decides its context.

    True when a group in it is already left out by a limit: nothing before that group can come in,
    nor change what is in.  (A result is paired with the nearest call, so what was not read takes no
    result from a call that was.)  Each call is linear; double what is read between calls and the
    whole is.
    """
    _, groups = _split(messages, include_tools=include_tools, complete=False)
    start, _ = _cut(groups, max_messages=max_messages, budget=max_tokens, count=count)
    return start > 0


def leading(messages: Iterable[Message]) -> tuple[list[Message], bool]:
    """Take the leading system messages from the beginning of a conversation.

    Returns:
        Them, and whether they end here: if not, they go on behind what was given.
    """
    found: list[Message] = []
    for message in messages:
        if _speaks(message):
            return found, True
        if _instructs(message):
            found.append(message)
    return found, False


def tally(messages: Iterable[Message | None]) -> Tally:
    """Count what speaks and what is tool traffic; deleted and empty messages are neither."""
    speaking = tools = 0
    for message in messages:
        if message is None or message.deleted_at is not None:
            continue
        if message.role == "tool":
            tools += 1
        elif message.role != "system" and _has_content(message):
            speaking += 1
        elif _calls(message):
            tools += 1
    return Tally(speaking, tools)


class _Waiting:
    """The calls that wait for a result, by id."""

    def __init__(self) -> None:
        # The nearest call last: which group, and which of its calls.
        self._calls: dict[str, list[tuple[_Group, int]]] = {}

    def expect(self, group: _Group) -> None:
        # Backwards, so that the first of two calls of one id gets the first result.
        for place in range(len(group.calls) - 1, -1, -1):
            self._calls.setdefault(group.calls[place].id, []).append((group, place))

    def answer(self, result: Message) -> None:
        """Give a result to the nearest call that waits for it; without one it is left out."""
        if calls := self._calls.get(result.tool_call_id or ""):
            group, place = calls.pop()
            group.results[place] = result


def _split(
    messages: Iterable[Message], *, include_tools: bool, complete: bool
) -> tuple[list[Message], list[_Group]]:
    """Split into leading system messages and groups, pairing each result with its call."""
    instructions: list[Message] = []
    groups: list[_Group] = []
    systems: list[Message] = []
    waiting = _Waiting()
    started = not complete
    for message in messages:
        if message.role == "tool":
            if message.deleted_at is None:
                waiting.answer(message)
        elif _instructs(message):
            systems.append(message)
        elif _speaks(message):
            if not started:
                started = True
                instructions, systems = systems, []
            calls = _calls(message) if include_tools else ()
            if calls or _has_content(message):
                group = _Group(systems, message, calls, [None] * len(calls))
                groups.append(group)
                systems = []
                waiting.expect(group)
    if not started:
        return systems, groups
    if systems:
        groups.append(_Group(systems, None))
    return instructions, groups


def _cut(
    groups: Sequence[_Group], *, max_messages: int, budget: int | None, count: TokenCounter
) -> tuple[int, str | None]:
    """Find where the window begins among the groups, and which limit cut it there."""
    taken = 0
    for index in range(len(groups) - 1, -1, -1):
        # At the limit stop at once: the window begins with a message that counts, not with the tool
        # traffic that led to it.
        if taken >= max_messages:
            return index + 1, "max_messages"
        group = groups[index]
        if budget is not None:
            group.write(count)
            budget -= group.tokens
            if budget < 0:
                return index + 1, "max_tokens"
        taken += group.message is not None and _has_content(group.message)
    return 0, None


def _speaks(message: Message) -> bool:
    """Whether a user or an assistant says or asks for something here."""
    if message.deleted_at is not None or message.role not in ("user", "assistant"):
        return False
    return _has_content(message) or bool(_calls(message))


def _instructs(message: Message) -> bool:
    """Whether this is a system message for a model, not one that tells people an event."""
    return (
        message.role == "system"
        and message.deleted_at is None
        and EVENT_KEY not in message.metadata
        and _has_content(message)
    )


def _has_content(message: Message) -> bool:
    return bool(message.content) or bool(message.parts)


def _calls(message: Message) -> Sequence[ToolCall]:
    return (message.role == "assistant" and message.tool_calls) or ()


def _chat(group: _Group) -> list[dict[str, Any]]:
    """Write a group in the chat format."""
    chat = [_line(message) for message in group.before]
    if group.message is None:
        return chat
    line = _line(group.message)
    chat.append(line)
    if not group.calls:
        return chat
    ids = _unique(group.calls)
    line["tool_calls"] = [
        {
            "id": call_id,
            "type": "function",
            "function": {"name": call.function.name, "arguments": call.function.arguments},
        }
        for call_id, call in zip(ids, group.calls, strict=True)
    ]
    chat += (
        {
            "role": "tool",
            "tool_call_id": call_id,
            "content": INTERRUPTED if result is None else _text(result),
        }
        for call_id, result in zip(ids, group.results, strict=True)
    )
    return chat


def _line(message: Message) -> dict[str, Any]:
    """Write one message that is no tool result, without its tool calls."""
    content: str | list[dict[str, Any]] | None
    if message.parts and (
        message.role == "user"
        or (message.role == "system" and all(part.get("type") == "text" for part in message.parts))
    ):
        content = list(message.parts)
    else:
        content = _text(message) or None
    line: dict[str, Any] = {"role": message.role, "content": content}
    if message.name and _NAME.fullmatch(message.name):
        line["name"] = message.name
    return line


def _text(message: Message) -> str:
    """Write content as plain text, for the roles that take no other.

    Where text alone would hide that there was a picture or a file, its type stands for it.
    """
    parts = message.parts or ()
    if message.content and all("text" in part for part in parts):
        return message.content
    if not parts:
        return ""
    return "\n".join(
        str(part.get("text") or part.get("refusal") or f"[{part.get('type')}]") for part in parts
    )


def _unique(calls: Sequence[ToolCall]) -> list[str]:
    """Give each call of one message an id of its own, changing as few as possible.

    The first call of an id keeps it, the next become ``id-2``, ``id-3`` …; an empty id is ``call``.
    """
    ids = [call.id for call in calls]
    used = set(ids)
    if len(used) == len(ids) and "" not in used:
        return ids
    kept: set[str] = set()
    numbers: dict[str, int] = {}
    for place, call_id in enumerate(ids):
        if call_id and call_id not in kept:
            kept.add(call_id)
            continue
        base = call_id or "call"
        fresh = base
        while fresh in used:
            numbers[base] = numbers.get(base, 1) + 1
            fresh = f"{base}-{numbers[base]}"
        used.add(fresh)
        ids[place] = fresh
    return ids
