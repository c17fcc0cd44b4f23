"""Tool calls, put together from the deltas of a stream.

By the rules a delta says by ``index`` which call it belongs to, and the first of a call brings its
id and name.  Servers in use do otherwise: they leave out the index or the id, repeat the id in each
delta, number every call 0, or give two calls one id.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final
from uuid import uuid4

from greffier.agents.providers.mending import mend
from greffier.agents.providers.protocol import ProviderError, ToolCall

#: Characters of arguments in one answer; they are held in memory until the answer ends.
ARGUMENTS: Final = 1 << 20
#: Calls in one answer.
CALLS: Final = 128
#: Bytes of an id; a longer one is given a short name.  A result may name its call in 256 bytes, and
#: some services put what they want to remember into an id.
ID: Final = 200


class MalformedError(ValueError):
    """A delta that is none."""


@dataclass(slots=True)
class _Call:
    index: int | None
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)

    def whole(self) -> bool:
        """Whether what it has are arguments that nothing can follow."""
        text = "".join(self.arguments).strip()
        return text.endswith("}") and is_json(text)


class Calls:
    """The calls of one answer, in the order in which they began."""

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self._latest: dict[int, _Call] = {}
        self._size = 0

    def __bool__(self) -> bool:
        return bool(self._calls)

    def feed(self, delta: Any) -> None:
        """Take an entry of ``delta.tool_calls``.

        Raises:
            MalformedError: It is none.
            ProviderError: There is more than is kept of an answer.
        """
        if not isinstance(delta, Mapping):
            raise MalformedError("a tool call that is no object")
        function = delta.get("function") or {}
        if not isinstance(function, Mapping):
            raise MalformedError("a tool call whose function is no object")
        index, call_id = delta.get("index"), delta.get("id") or ""
        name, arguments = function.get("name") or "", function.get("arguments")
        if not (isinstance(call_id, str) and isinstance(name, str)):
            raise MalformedError("a tool call whose id or name is no text")
        if arguments is None:
            arguments = ""
        elif not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False)
        self.add(index if isinstance(index, int) else None, call_id, name, arguments)

    def add(self, index: int | None, call_id: str, name: str, arguments: str) -> None:
        """Take a piece of a call."""
        call = self._latest.get(index) if index is not None else None
        if call is None and index is None and self._calls:
            call = self._calls[-1]
        if call is None or _begins(call, call_id, name):
            call = _Call(index)
            self._calls.append(call)
            if index is not None:
                self._latest[index] = call
        call.id = call.id or call_id
        call.name = call.name or name
        call.arguments.append(arguments)
        self._size += len(arguments)
        if self._size > ARGUMENTS or len(self._calls) > CALLS:
            raise ProviderError(
                "answer-too-long",
                f"The model's tool calls are more than {CALLS}, or larger than "
                f"{ARGUMENTS >> 20} MiB.",
            )

    def done(self, *, cut: bool = False) -> Iterator[ToolCall]:
        """Give every call; of an answer that was cut, those that are whole.

        Raises:
            MalformedError: One has no name.
        """
        ids: set[str] = set()
        for call in self._calls:
            arguments = mend("".join(call.arguments)).strip()
            if cut and not (call.name and is_json(arguments)):
                continue
            if not call.name:
                raise MalformedError("a tool call without a name")
            call_id = mend(call.id) or f"call_{uuid4().hex[:24]}"
            if len(call_id.encode()) > ID:
                call_id = f"call_{blake2b(call_id.encode(), digest_size=16).hexdigest()}"
            number = 1
            fresh = call_id
            while fresh in ids:
                number += 1
                fresh = f"{call_id}-{number}"
            ids.add(fresh)
            yield ToolCall(fresh, mend(call.name), arguments or "{}")


def _begins(call: _Call, call_id: str, name: str) -> bool:
    """Whether a delta that is numbered as this call begins another one."""
    if call_id and call.id:
        return call_id != call.id
    if not name or not call.name:
        return False
    # A name again: servers without ids say it in each delta, or number every call the same.
    return name != call.name or call.whole()


def is_json(text: str) -> bool:
    """Whether a text is whole JSON."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
