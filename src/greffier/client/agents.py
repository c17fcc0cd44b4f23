"""Those who answer, and their answers as they are made, over HTTP with the library's names."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any
from uuid import UUID

import httpx2
import msgspec

from greffier.agents.asking import RunEvent
from greffier.agents.events import ENDS
from greffier.client.calls import path
from greffier.client.http import Wire
from greffier.client.live import SILENCE
from greffier.client.outbox import comes_again, pause
from greffier.errors import Error, Unavailable
from greffier.library.given import converted
from greffier.model.agent import Agent, AgentList, AgentPatch, NewAgent, Tool
from greffier.model.ids import as_id, uuid7
from greffier.model.message import Draft
from greffier.model.run import Run

_OVER = frozenset(ENDS.values())
UNSET = msgspec.UNSET


class Agents:
    """Read who answers here; an admin also creates, changes and deletes them."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def create(
        self,
        *,
        id: UUID | str | None = None,  # noqa: A002 - the contract's name
        name: str,
        provider: str,
        model: str,
        params: Mapping[str, Any] | None = None,
        instructions: str | None = None,
        tools: Sequence[Tool | Mapping[str, Any]] | None = None,
    ) -> Agent:
        """Create an agent; the same request under the same id again finds it."""
        new = NewAgent(
            id=uuid7() if id is None else as_id(id),
            name=name,
            provider=provider,
            model=model,
            instructions=instructions,
            tools=_tools(tools),
            params=None if params is None else dict(params),
        )
        return msgspec.json.decode(await self._wire.write("POST", "/v1/agents", new), type=Agent)

    async def get(self, agent_id: UUID | str) -> Agent:
        """Read one agent."""
        found: Agent = await self._wire.get(_agent(agent_id), Agent)
        return found

    async def list(self, *, limit: int = 20, cursor: str | None = None) -> AgentList:
        """List the agents, the oldest first; go on with ``next_cursor``."""
        found: AgentList = await self._wire.get("/v1/agents", AgentList, limit=limit, cursor=cursor)
        return found

    async def update(
        self,
        agent_id: UUID | str,
        *,
        if_version: int | None = None,
        name: str | msgspec.UnsetType = UNSET,
        provider: str | msgspec.UnsetType = UNSET,
        model: str | msgspec.UnsetType = UNSET,
        params: Mapping[str, Any] | msgspec.UnsetType | None = UNSET,
        instructions: str | msgspec.UnsetType | None = UNSET,
        tools: Sequence[Tool | Mapping[str, Any]] | msgspec.UnsetType | None = UNSET,
    ) -> Agent:
        """Change what is given; runs that were asked for keep the agent as it was.

        Raises:
            Stale: It is no longer at ``if_version``.
        """
        change = AgentPatch(
            name=name,
            provider=provider,
            model=model,
            params=dict(params) if isinstance(params, Mapping) else params,
            instructions=instructions,
            tools=tools if isinstance(tools, msgspec.UnsetType) else _tools(tools),
        )
        where = _agent(agent_id)
        unchanged = await self._wire.unchanged(where, Agent, "version", if_version)
        body = await self._wire.write("PATCH", where, change, headers=unchanged)
        return msgspec.json.decode(body, type=Agent)

    async def delete(self, agent_id: UUID | str) -> None:
        """Let it begin no more runs; what it said stays."""
        await self._wire.write("DELETE", _agent(agent_id))


class Runs:
    """Ask an agent for an answer, and read it as it is made."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def start(
        self,
        conversation_id: UUID | str,
        *,
        id: UUID | str | None = None,  # noqa: A002 - the contract's name
        actor: str | None = None,
        content: str | None = None,
        message: Draft | None = None,
        rewind_after: int | None = None,
    ) -> Run:
        """Ask the conversation's agent for an answer; what is said comes on record before it.

        After ``Unanswered`` it may have begun or not: ask again under the same id.
        """
        if content is not None:
            message = Draft(content=content)
        asked: dict[str, Any] = {"id": uuid7() if id is None else as_id(id)}
        if message is not None:
            asked["message"] = message
        if rewind_after is not None:
            asked["rewind_after"] = rewind_after
        body = await self._wire.write("POST", path(conversation_id, "runs"), asked, actor=actor)
        return msgspec.json.decode(body, type=Run)

    async def get(self, run_id: UUID | str, *, actor: str | None = None) -> Run:
        """Read a run."""
        found: Run = await self._wire.get(_path(run_id), Run, actor=actor)
        return found

    async def events(
        self, run_id: UUID | str, *, after: int = 0, actor: str | None = None
    ) -> AsyncIterator[RunEvent]:
        """Follow a run from an event on, to its end: every event once, through broken connections.

        Raises:
            NotFound: It is not there, or may not be seen any more.
        """
        where, tries, over = _path(run_id) + "/events", 0, False
        while True:
            began = after
            failed: Error = Unavailable("The stream ended before the run.")
            try:
                async with self._wire.stream(
                    where,
                    headers={"accept": "text/event-stream"},
                    actor=actor,
                    silence=SILENCE,
                    after=after,
                ) as answer:
                    async for event in httpx2.EventSource(answer):
                        if not event.id:
                            continue
                        after, tries = int(event.id), 0
                        yield RunEvent(after, event.event, msgspec.json.decode(event.data))
                        if event.event in _OVER:
                            return
                # Ended without the run's end: the server stops, or ``after`` is past it.  It was
                # over before it was asked for, and there was nothing: then nothing comes.
                if over and after == began:
                    return
                over = (await self.get(run_id, actor=actor)).ended_at is not None
            except Error as error:
                if not comes_again(error):
                    raise
                failed = error
            tries += 1
            await asyncio.sleep(pause(tries, failed, random.random()))  # noqa: S311 - jitter

    async def wait(self, run_id: UUID | str, *, actor: str | None = None) -> Run:
        """Wait until a run is over, and give it."""
        async with aclosing(self.events(run_id, actor=actor)) as events:  # type: ignore[type-var]
            async for _ in events:
                pass
        return await self.get(run_id, actor=actor)

    async def cancel(self, run_id: UUID | str, *, actor: str | None = None) -> Run:
        """End a run as cancelled, with what it had said; one that is over stays as it was."""
        body = await self._wire.write("POST", _path(run_id) + "/cancel", actor=actor)
        return msgspec.json.decode(body, type=Run)


def _agent(agent_id: UUID | str) -> str:
    return f"/v1/agents/{as_id(agent_id)}"


def _tools(given: Sequence[Tool | Mapping[str, Any]] | None) -> list[Tool] | None:
    return None if given is None else converted(given, list[Tool])


def _path(run_id: UUID | str) -> str:
    return f"/v1/runs/{as_id(run_id)}"
