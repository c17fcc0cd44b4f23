"""Agents: who answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import msgspec

from greffier.agents.providers.script import check_script
from greffier.change import agent as agent_verbs
from greffier.library.given import converted
from greffier.model.agent import Agent, AgentList, AgentPatch, NewAgent, Rules, Tool
from greffier.model.ids import as_id
from greffier.read import agents as agent_reads
from greffier.store.database import Database

_agent = msgspec.json.Decoder(Agent).decode
UNSET = msgspec.UNSET
#: What agents are held to: which providers there are is in the settings of who runs them.
RULES = Rules(script=check_script)


class Agents:
    """Create, read, change and delete those who answer."""

    def __init__(self, database: Database, rules: Rules = RULES) -> None:
        self._database = database
        self._rules = rules

    async def create(
        self,
        *,
        name: str,
        provider: str,
        model: str,
        id: UUID | str | None = None,  # noqa: A002 - the contract's name
        instructions: str | None = None,
        tools: Sequence[Tool | Mapping[str, Any]] | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> Agent:
        """Create an agent; the same request under the same id again finds it.

        Args:
            name: For display, also beside what it says.
            provider: An entry of the settings of the server that runs it, ``echo`` or ``script``.
            model: As the provider calls it.
            id: Your own UUID for it, the idempotency key; one is made when not given.
            instructions: What the model is told before everything else.
            tools: Functions it may call, as OpenAI writes them, each with a ``url`` or without.
            params: What goes to the provider as it is (``temperature`` …).

        Raises:
            Invalid, IdReused, Gone, PayloadTooLarge, Unavailable: See the errors.
        """
        new = NewAgent(
            id=None if id is None else as_id(id),
            name=name,
            provider=provider,
            model=model,
            instructions=instructions,
            tools=_tools(tools),
            params=None if params is None else dict(params),
        )
        made, _ = await agent_verbs.create(self._database, new, self._rules)
        return await self.get(made)

    async def get(self, agent_id: UUID | str) -> Agent:
        """Read one agent.

        Raises:
            NotFound: There is none, or it was deleted.
        """
        body, _ = await agent_reads.get(self._database, as_id(agent_id))
        return _agent(body)

    async def list(self, *, limit: int = 20, cursor: str | None = None) -> AgentList:
        """List the agents, the oldest first; go on with ``next_cursor``."""
        bodies, following = await agent_reads.listing(self._database, limit=limit, cursor=cursor)
        return AgentList(data=[_agent(body) for body in bodies], next_cursor=following)

    async def update(
        self,
        agent_id: UUID | str,
        *,
        name: str | msgspec.UnsetType = UNSET,
        provider: str | msgspec.UnsetType = UNSET,
        model: str | msgspec.UnsetType = UNSET,
        instructions: str | msgspec.UnsetType | None = UNSET,
        tools: Sequence[Tool | Mapping[str, Any]] | msgspec.UnsetType | None = UNSET,
        params: Mapping[str, Any] | msgspec.UnsetType | None = UNSET,
        if_version: int | None = None,
    ) -> Agent:
        """Change what is given; runs that were asked for keep the agent as it was.

        Raises:
            Stale: It is no longer at ``if_version``.
            NotFound, Invalid, PayloadTooLarge, Unavailable: See the errors.
        """
        change = AgentPatch(
            name=name,
            provider=provider,
            model=model,
            instructions=instructions,
            tools=tools if isinstance(tools, msgspec.UnsetType) else _tools(tools),
            params=dict(params) if isinstance(params, Mapping) else params,
        )
        found = as_id(agent_id)
        await agent_verbs.patch(self._database, found, change, self._rules, if_version=if_version)
        return await self.get(found)

    async def delete(self, agent_id: UUID | str) -> None:
        """Let it begin no more runs; what it said stays.

        Raises:
            NotFound: There is none, or it was deleted before.
        """
        await agent_verbs.delete(self._database, as_id(agent_id))


def _tools(given: Sequence[Tool | Mapping[str, Any]] | None) -> list[Tool] | None:
    return None if given is None else converted(given, list[Tool])
