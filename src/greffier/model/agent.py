"""An agent: who answers in a conversation, which model speaks for it, with what instructions."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit
from uuid import UUID

import msgspec

from greffier.errors import Invalid, PayloadTooLarge, Problem
from greffier.model import jsonb, text
from greffier.model.ids import foreign
from greffier.model.limits import DEFAULT, Limits

#: The agent that a first start makes; its id is the same everywhere.
ECHO_ID = foreign("agent", "echo")
#: Functions that OpenAI takes with one request; the others take fewer or say nothing.
MOST_TOOLS = 128
LONGEST_URL = 2048
#: What the providers take for the name of a function.
_FUNCTION = re.compile(r"[a-zA-Z0-9_-]{1,64}")


class ToolFunction(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """A function as a model is told of it; ``parameters`` is the JSON Schema of its arguments."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """A tool of an agent, as OpenAI writes it; ``url`` is who is asked when it is called.

    Without ``url`` it is a function that the server's own program registered under this name, or
    the client answers the call itself.
    """

    type: Literal["function"]
    function: ToolFunction
    url: str | None = None


class Agent(msgspec.Struct, frozen=True, kw_only=True):
    """An agent; ``version`` counts its changes, and runs keep it as it was when they were asked.

    ``provider`` is an entry of the server's settings, or ``echo`` or ``script``.
    """

    id: UUID
    name: str
    provider: str
    model: str
    instructions: str | None
    tools: list[Tool]
    params: dict[str, Any]
    version: int
    created_at: datetime
    updated_at: datetime


class AgentList(msgspec.Struct, frozen=True, kw_only=True):
    """Some of the agents, the oldest first; ``next_cursor`` is null when nothing follows."""

    data: list[Agent]
    next_cursor: str | None


class NewAgent(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An agent as a caller asks for it; ``id`` is its idempotency key.

    ``params`` go to the provider as they are (``temperature``, ``max_tokens`` …).
    """

    id: UUID | None = None
    name: str
    provider: str
    model: str
    instructions: str | None = None
    tools: list[Tool] | None = None
    params: dict[str, Any] | None = None


class AgentPatch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What may change on an agent; tools and params are replaced whole, null takes them away."""

    name: str | msgspec.UnsetType = msgspec.UNSET
    provider: str | msgspec.UnsetType = msgspec.UNSET
    model: str | msgspec.UnsetType = msgspec.UNSET
    instructions: str | msgspec.UnsetType | None = msgspec.UNSET
    tools: list[Tool] | msgspec.UnsetType | None = msgspec.UNSET
    params: dict[str, Any] | msgspec.UnsetType | None = msgspec.UNSET


@dataclass(frozen=True, slots=True)
class Rules:
    """What a process knows of who answers here, and so can hold an agent to.

    Attributes:
        providers: Every provider there is; None when this process was told of none, and then any
            name will do: a run of the agent says whether it was right.
        script: Says what is wrong with the script of an agent of provider ``script``, which stands
            at this JSON pointer; nothing if it can be played.
        plain_urls: Whether a tool may be asked without TLS.
    """

    providers: frozenset[str] | None = None
    script: Callable[[object, str], Sequence[Problem]] = lambda _script, _pointer: ()
    plain_urls: bool = False


#: Of a process that was told nothing.
ANY = Rules()


class Checked(NamedTuple):
    """An agent that may be stored: its columns as the store takes them, and the request's hash."""

    columns: tuple[str, str, str, str | None, str, str]
    request_hash: UUID


def check(new: NewAgent, rules: Rules = ANY, *, limits: Limits = DEFAULT) -> Checked:
    """Check an agent against every rule, and hash what was asked for.

    Raises:
        Invalid: With every fault that was found.
        PayloadTooLarge: Instructions, tools or params are larger than a message may be.
    """
    problems: list[Problem] = []
    for field in ("name", "provider", "model"):
        value: str = getattr(new, field)
        if fault := text.faults(value, f"/{field}"):
            problems.append(fault)
        elif not value.strip():
            problems.append(Problem(f"/{field}", "empty", "It has a character or more."))
        elif len(value.encode()) > limits.name:
            problems.append(Problem(f"/{field}", "too-long", f"At most {limits.name} bytes."))
    if rules.providers is not None and new.provider not in rules.providers:
        there = ", ".join(sorted(rules.providers))
        problems.append(Problem("/provider", "unknown-provider", f"There are here: {there}."))
    instructions = new.instructions or None
    if instructions and (fault := text.faults(instructions, "/instructions")):
        problems.append(fault)
    elif instructions and len(instructions.encode()) > limits.content:
        raise _too_large("/instructions", limits)
    problems += _tool_faults(new.tools or (), rules)
    if new.provider == "script":
        problems += rules.script((new.params or {}).get("script"), "/params/script")
    tools = _json("/tools", msgspec.to_builtins(new.tools or []), limits, problems)
    params = _json("/params", new.params or {}, limits, problems)
    if problems:
        raise Invalid(problems=tuple(problems))
    columns = (new.name, new.provider, new.model, instructions, tools, params)
    asked = (*columns[:4], new.tools or [], new.params or {})
    # As with messages, the order of an object's members does not count.
    digest = blake2b(msgspec.json.encode(asked, order="deterministic"), digest_size=16).digest()
    return Checked(columns, UUID(bytes=digest))


def merged(agent: Agent, change: AgentPatch) -> NewAgent:
    """Give an agent as it is wanted after a change."""
    given = {
        name: value
        for name, value in msgspec.structs.asdict(change).items()
        if value is not msgspec.UNSET
    }
    wanted = {name: given.get(name, getattr(agent, name)) for name in AgentPatch.__struct_fields__}
    return NewAgent(
        id=agent.id,
        **{**wanted, "instructions": wanted["instructions"] or None}
        | {"tools": wanted["tools"] or [], "params": wanted["params"] or {}},
    )


def _tool_faults(tools: Sequence[Tool], rules: Rules) -> list[Problem]:
    problems: list[Problem] = []
    if len(tools) > MOST_TOOLS:
        problems.append(Problem("/tools", "too-many", f"At most {MOST_TOOLS} tools."))
    names: set[str] = set()
    for index, tool in enumerate(tools):
        here = f"/tools/{index}"
        name = tool.function.name
        if not _FUNCTION.fullmatch(name):
            detail = "From 1 to 64 letters, digits, _ and -, without accents."
            problems.append(Problem(f"{here}/function/name", "name", detail))
        elif name in names:
            problems.append(
                Problem(f"{here}/function/name", "duplicate", "Another tool is called so.")
            )
        names.add(name)
        if tool.function.parameters is not None:
            problems += _schema_faults(tool.function.parameters, f"{here}/function/parameters")
        if tool.url is not None and (why := _url_fault(tool.url, rules)):
            problems.append(Problem(f"{here}/url", "url", why))
    return problems


def _schema_faults(schema: Mapping[str, Any], pointer: str) -> list[Problem]:
    """Look at what every provider insists on; the rest of JSON Schema they read differently."""
    problems: list[Problem] = []
    if schema and schema.get("type", "object") != "object":
        problems.append(
            Problem(f"{pointer}/type", "schema", "The arguments of a function are an object.")
        )
    properties = schema.get("properties", {})
    if not isinstance(properties, dict):
        problems.append(Problem(f"{pointer}/properties", "schema", "An object of schemas."))
    else:
        problems += [
            Problem(f"{pointer}/properties/{name}", "schema", "A schema: an object or a boolean.")
            for name, one in properties.items()
            if not isinstance(one, dict | bool)
        ]
    required = schema.get("required", [])
    if not (isinstance(required, list) and all(isinstance(name, str) for name in required)):
        problems.append(Problem(f"{pointer}/required", "schema", "A list of names."))
    return problems


def _url_fault(url: str, rules: Rules) -> str | None:
    if len(url) > LONGEST_URL or not url.isascii() or not url.isprintable() or " " in url:
        return f"At most {LONGEST_URL} characters, none of which is a blank or outside ASCII."
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "This is no URL."
    if parts.scheme != "https" and not (rules.plain_urls and parts.scheme == "http"):
        return "It starts with https://."
    if not host:
        return "It names a host."
    if parts.username or parts.password or parts.fragment:
        # They would be shown with it, and calls are signed.
        return "It has neither user nor fragment."
    return None


def _json(pointer: str, value: Any, limits: Limits, problems: list[Problem]) -> str:
    try:
        encoded = jsonb.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        problems.append(Problem(pointer, "not-json", f"This is no JSON value: {error}"))
        return ""
    if len(encoded) > limits.content:
        raise _too_large(pointer, limits)
    if b"\\u0000" in encoded and (fault := text.deep_faults(value, pointer)):
        problems.append(fault)
    return encoded.decode()


def _too_large(pointer: str, limits: Limits) -> PayloadTooLarge:
    return PayloadTooLarge(f"{pointer} is larger than {limits.content} bytes.")
