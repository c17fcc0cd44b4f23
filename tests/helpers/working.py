"""An application that works on runs in this process, and agents whose model says what we want."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from greffier.agents.tools import Tools
from greffier.read.audit import audit
from greffier.server import create_app
from greffier.server.logs import make_logger
from greffier.store.database import open_database
from helpers.api import Person, Served, expect, path, settings
from helpers.following import Event, Following, following
from helpers.openai_server import OpenAIServer, openai_server
from helpers.postgres import connected, new_database
from helpers.proxy import Proxy, proxied

#: No run is lost here by time, and that one was ended is heard by word alone.
KEPT = {"run_lease_seconds": 600, "shutdown_seconds": 1}
#: Of the scripted provider: so that costs can be told from tokens, in a million.
PRICES = {"test": {"input": "3", "output": "15", "cached": "0.3"}}


@dataclass
class Working(Served):
    """An application with all that is live in it, and the service its agents ask."""

    provider: OpenAIServer
    #: To the database.
    wire: Proxy

    @property
    def tools(self) -> Tools:
        """What models may call in this process."""
        assert self.app.service.work is not None
        return self.app.service.work.tools

    def begin_nothing(self) -> None:
        """Leave what is asked for from now on waiting."""
        assert self.app.service.work is not None
        self.app.service.work.stop()

    async def agent(self, **more: Any) -> str:
        """Make an agent that asks the scripted service."""
        root = self.person("root", admin=True)
        body = {"name": "Claire", "provider": "local", "model": "test", **more}
        async with root.http:
            made = expect(await root.http.post("/v1/agents", json=body), 201)
        return str(made["id"])

    async def script(self, *entries: tuple[str, dict[str, Any]], **more: Any) -> str:
        """Make an agent that plays this."""
        script = [{"event": event, "data": data} for event, data in entries]
        return await self.agent(provider="script", params={"script": script}, **more)

    async def talk(self, person: Person, agent: str | None, **more: Any) -> dict[str, Any]:
        """Make a conversation with an agent."""
        return await person.create(agent_id=agent, **more)

    def run(
        self, person: Person, talk: Mapping[str, Any], body: Any = None, **headers: str
    ) -> AbstractAsyncContextManager[Following]:
        """Ask for an answer and follow it."""
        return following(self.app, person, f"{path(talk)}/runs", body or {}, **headers)

    def follow(
        self, person: Person, run_id: str, after: int | None = None, **headers: str
    ) -> AbstractAsyncContextManager[Following]:
        """Follow a run from an event on."""
        query = "" if after is None else f"?after={after}"
        return following(self.app, person, f"/v1/runs/{run_id}/events{query}", **headers)

    async def answer(
        self, person: Person, talk: Mapping[str, Any], body: Any = None
    ) -> list[Event]:
        """Ask, and give all events of the run."""
        async with self.run(person, talk, body) as stream:
            events = await stream.rest()
            assert stream.status == 200, stream.raw
            return events

    async def read(self, person: Person, run_id: str) -> dict[str, Any]:
        """Read a run."""
        run: dict[str, Any] = expect(await person.http.get(f"/v1/runs/{run_id}"), 200)
        return run

    def broken(self) -> list[dict[str, Any]]:
        """What was logged as broken since it was last asked."""
        lines = [line for line in self.lines() if line["level"] == "error"]
        self.log.truncate(0)
        self.log.seek(0)
        return lines

    async def fetch(self, query: str, *values: Any) -> list[Any]:
        """Ask the database itself."""
        async with connected(self.database.dsn) as connection:
            return [tuple(row) for row in await connection.fetch(query, *values)]


@contextlib.asynccontextmanager
async def working(
    postgres: str, template: str, *, patience: float = 10.0, **more: Any
) -> AsyncIterator[Working]:
    """Serve a new database; at the end it audits clean, and nothing was logged as broken.

    Args:
        postgres: A superuser's URL.
        template: What the database is a copy of.
        patience: Seconds that a call goes on trying while the database is away.
        more: Settings.
    """
    log = io.BytesIO()
    with openai_server() as provider:
        async with (
            new_database(postgres, f"template {template}") as dsn,
            proxied(dsn) as wire,
            open_database(wire.dsn, patience=patience) as database,
        ):
            entry = {"kind": "openai", "base_url": provider.url, "prices": PRICES, "tries": 1}
            app = create_app(
                database,
                settings(providers={"local": entry}, **{**KEPT, **more}),
                log=make_logger("info", "json", log),
            )
            assert app.service.work is not None
            feeding = asyncio.create_task(app.service.feed.run())
            async with app.service.work.running():
                found = Working(app, database, log, provider, wire)
                yield found
            feeding.cancel()
            await asyncio.wait({feeding})
            report = await audit(database)
            assert report.clean, report.findings
            assert found.broken() == []


async def contents(person: Person, talk: Mapping[str, Any]) -> list[tuple[str, str | None]]:
    """What was said in a conversation, by role."""
    page = expect(await person.http.get(f"{path(talk)}/messages?limit=100"), 200)
    return [(message["role"], message["content"]) for message in page["data"]]
