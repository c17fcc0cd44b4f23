"""Tools: what an agent's model may call, and who answers it.

A tool is a function registered in this process, an HTTPS endpoint that the agent names, or nobody
here: then the run ends with the call, the client appends the result, and the next run goes on.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import json
import typing
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Protocol
from uuid import UUID, uuid5

import msgspec

from greffier.agents.providers.mending import mend
from greffier.errors import Invalid

#: Bytes of one result that are kept; what is longer is cut, and says so.
LARGEST_RESULT: Final = 256 << 10
#: Seconds one tool may take.
TIMEOUT: Final = 60.0
# Plain functions run on threads of their own: one that never returns keeps its thread, and those of
# the event loop, by which names are looked up, are six on a machine of two cores.
_THREADS: Final = ThreadPoolExecutor(32, "greffier-tool")


@dataclass(frozen=True, slots=True)
class ToolRun:
    """For which run a tool is called, and which of its calls this is.

    ``call_id`` is the model's own; some give the same to the calls of every answer. ``key`` is this
    call's alone.
    """

    conversation_id: UUID
    run_id: UUID
    call_id: str
    asked_by: str
    fence: int
    #: How often the model had been asked when it called.
    step: int = 1

    @property
    def key(self) -> UUID:
        """The same each time this call is made, and never another call's."""
        return uuid5(self.run_id, f"{self.step}/{self.call_id}")


class Endpoint(Protocol):
    """Calls a tool that is an HTTPS endpoint."""

    async def __call__(self, url: str, name: str, arguments: str, run: ToolRun) -> str:
        """Give what the endpoint answered.

        Raises:
            ToolFailed: It did not.
        """

    async def close(self) -> None:
        """Close what is open."""


class ToolFailed(Exception):
    """A tool did not answer; what it says is told to the model."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A function of this process that models may call."""

    name: str
    description: str
    #: JSON Schema of the arguments.
    parameters: Mapping[str, Any]
    call: Callable[..., Any]
    #: Names the parameter that is given the ToolRun, if there is one.
    wants_run: str | None

    @classmethod
    def of(cls, function: Callable[..., Any], name: str | None = None) -> Tool:
        """Describe a function by its signature and docstring.

        Each parameter is an argument, with its annotation as schema; one annotated ``ToolRun`` is
        given the run and is not the model's to fill.

        Raises:
            TypeError: A parameter has no name of its own (``*args``) or no annotation.
        """
        hints = typing.get_type_hints(function)
        fields: list[tuple[str, Any] | tuple[str, Any, Any]] = []
        wants_run = None
        for parameter in inspect.signature(function).parameters.values():
            if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                raise TypeError(f"a tool's parameters are named: {parameter}")
            if parameter.name not in hints:
                raise TypeError(f"a tool's parameters have types: {parameter}")
            hint = hints[parameter.name]
            if hint is ToolRun:
                wants_run = parameter.name
            elif parameter.default is parameter.empty:
                fields.append((parameter.name, hint))
            else:
                fields.append((parameter.name, hint, parameter.default))
        # Those without a default first, as a struct has them; a model fills them by name.
        fields.sort(key=len)
        struct = msgspec.defstruct(name or function.__name__, fields)
        _, components = msgspec.json.schema_components([struct], ref_template="#/$defs/{name}")
        schema = components.pop(struct.__name__)
        schema.pop("title", None)
        if components:
            schema["$defs"] = components
        text = inspect.cleandoc(function.__doc__ or "")
        return cls(name or function.__name__, text, schema, _Checked(struct, function), wants_run)

    @property
    def spec(self) -> dict[str, Any]:
        """The tool as an agent names it among its ``tools``."""
        function = {
            "name": self.name,
            "description": self.description,
            "parameters": dict(self.parameters),
        }
        return {"type": "function", "function": function}

    async def __call__(self, arguments: str, run: ToolRun) -> str:
        """Call it with the model's arguments; gives its result as text.

        Raises:
            ToolFailed: The arguments are not what it takes, or it failed.
        """
        try:
            result = self.call(arguments, {self.wants_run: run} if self.wants_run else {})
            if inspect.isawaitable(result):
                result = await _within(result)
            return as_text(result)
        except ToolFailed:
            raise
        except (Exception, SystemExit, asyncio.CancelledError) as error:
            # It may wait for what others cancel, and parse its arguments as a command line does:
            # neither stops a run, unless it is we who are told to stop.
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and (task is None or task.cancelling()):
                raise
            # The model is told the kind alone: a message may hold what is not its business.
            raise ToolFailed(f"{self.name} failed: {type(error).__name__}") from error


class _Checked:
    """A function behind the check of its arguments."""

    def __init__(self, struct: type[msgspec.Struct], function: Callable[..., Any]) -> None:
        self._decode = msgspec.json.Decoder(struct).decode
        self._function = function

    def __call__(self, arguments: str, extra: Mapping[str, Any]) -> Any:
        try:
            given = self._decode(arguments or "{}")
        except msgspec.DecodeError as error:
            raise ToolFailed(f"the arguments do not fit: {error}") from error
        values = {name: getattr(given, name) for name in given.__struct_fields__}
        if inspect.iscoroutinefunction(self._function):
            return self._function(**values, **extra)
        # A plain function may take its time, and others are answered meanwhile.
        call = functools.partial(self._function, **values, **extra)
        run = contextvars.copy_context().run
        return asyncio.get_running_loop().run_in_executor(_THREADS, run, call)


async def _within(result: Awaitable[Any]) -> Any:
    deadline = asyncio.timeout(TIMEOUT)
    try:
        async with deadline:
            return await result
    except TimeoutError as error:
        if not deadline.expired():
            # The tool's own, of something it waited for.
            raise
        raise ToolFailed(f"it took more than {TIMEOUT:g} seconds") from error


def as_text(result: Any) -> str:
    """Give a tool's result as the text of its message, such that it can be kept.

    Raises:
        TypeError, ValueError, RecursionError: It is nothing that JSON can say.
    """
    if isinstance(result, str):
        text = result
    else:
        try:
            text = msgspec.json.encode(result).decode()
        except (TypeError, ValueError):
            text = json.dumps(result, default=str, ensure_ascii=False)
    text = mend(text)
    raw = text.encode()
    if len(raw) <= LARGEST_RESULT:
        return text
    kept = raw[:LARGEST_RESULT].decode(errors="ignore")
    return f"{kept}\n[cut: {len(raw)} bytes, of which the first {LARGEST_RESULT} are here]"


class Tools:
    """The tools of this process, by name."""

    def __init__(self, endpoint: Endpoint | None = None) -> None:
        """Begin without any.

        Args:
            endpoint: Calls those that are an HTTPS endpoint; without it they are the client's.
        """
        self._tools: dict[str, Tool] = {}
        self._endpoint = endpoint

    @property
    def endpoint(self) -> Endpoint | None:
        """What calls those that are an HTTPS endpoint."""
        return self._endpoint

    def reach(self, endpoint: Endpoint) -> None:
        """Let tools that are an HTTPS endpoint be called by it."""
        self._endpoint = endpoint

    def register(self, tool: Tool) -> None:
        """Let agents call it by its name.

        Raises:
            Invalid: There is another tool of that name.
        """
        if tool.name in self._tools:
            raise Invalid.at("/name", "taken", f"There is a tool {tool.name} already.")
        self._tools[tool.name] = tool

    def get(self, name: str) -> Tool | None:
        """Give a tool by its name."""
        return self._tools.get(name)

    def answers(self, name: str, urls: Mapping[str, str]) -> bool:
        """Say whether this process can call a tool; ``urls`` are the agent's endpoints by name."""
        return name in self._tools or (self._endpoint is not None and name in urls)

    async def call(
        self, name: str, arguments: str, urls: Mapping[str, str], run: ToolRun
    ) -> tuple[str, bool]:
        """Call a tool; gives what the model is told, and whether the tool failed."""
        try:
            tool = self._tools.get(name)
            if tool is not None:
                return await tool(arguments, run), False
            assert self._endpoint is not None, "asked for one that is not answered here"
            answered = await _within(self._endpoint(urls[name], name, arguments, run))
            return as_text(answered), False
        except ToolFailed as error:
            return as_text(f"error: {error}"), True
