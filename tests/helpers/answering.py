"""Agents that answer in real processes, over real HTTP: servers, workers, and those who listen."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import httpx2

from greffier.read.audit import audit
from greffier.server.auth import issue
from greffier.store.database import Database
from helpers.api import SECRET, expect
from helpers.following import ENDS, Event, events_of, text_of, whole
from helpers.postgres import connected
from helpers.serving import Running, started

WORKER = "from greffier.server.work import run; from greffier.settings import load; run(load())"


@dataclass
class Node:
    """A process of the service."""

    running: Running
    url: str = ""

    def http(self, user: str = "ada", **claims: Any) -> httpx2.AsyncClient:
        """Call it as somebody."""
        token = issue(SECRET.encode(), user, lifetime=600, **claims)
        return httpx2.AsyncClient(
            base_url=self.url,
            headers={"authorization": f"Bearer {token}"},
            timeout=60,
            limits=httpx2.Limits(max_connections=None),
        )

    def signal(self, signum: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.running.process.pid, signum)

    async def ended(self) -> int:
        """Wait for its end, and give its exit code."""
        return await asyncio.to_thread(self.running.ended)


class Service:
    """Processes on one database; what is left of them at the end is killed."""

    def __init__(self, stack: ExitStack, dsn: str, **variables: str) -> None:
        self.dsn = dsn
        self._stack = stack
        self._variables = {"JWT_SECRET": SECRET, "LOG_FORMAT": "json", **variables}
        if dsn:
            self._variables["DATABASE_URL"] = dsn

    async def _start(self, pattern: str, program: str | None, variables: dict[str, str]) -> Node:
        running = self._stack.enter_context(
            started(program=program, **{**self._variables, **variables})
        )
        said = await asyncio.to_thread(running.until, pattern)
        running.let_it_talk()
        return Node(running, said[1])

    async def serve(self, **variables: str) -> Node:
        """Start a server."""
        return await self._start(r"listens on (http://\S+)", None, variables)

    async def worker(self, **variables: str) -> Node:
        """Start a process that works and serves nobody."""
        return await self._start(r"works as (\S+)", WORKER, variables)

    async def fetch(self, query: str, *values: Any) -> list[Any]:
        """Ask the database itself."""
        async with connected(self.dsn) as connection:
            return [tuple(row) for row in await connection.fetch(query, *values)]

    async def check(self) -> None:
        """See that the record is sound, and that nobody holds or waits for anything."""
        report = await audit(Database(self.dsn))
        assert report.clean, report.findings
        assert (
            await self.fetch(
                "select id from greffier.lanes where token is not null or due_at is not null"
                " or parked_at is not null"
            )
            == []
        )
        assert await self.fetch("select 1 from greffier.run_events") == []


async def agent(node: Node, **body: Any) -> str:
    """Make an agent."""
    async with node.http("root", admin=True) as http:
        made = await http.post("/v1/agents", json={"name": "Claire", "model": "test", **body})
    return str(expect(made, 201)["id"])


def script(words: Iterable[str], after_ms: int) -> dict[str, Any]:
    """An agent that says words, with so much time before each."""
    entries = [
        {"after_ms": after_ms, "event": "content.delta", "data": {"text": word}} for word in words
    ]
    return {"provider": "script", "params": {"script": entries}}


@dataclass
class Listener:
    """Follows one run through everything that happens, and keeps what it heard."""

    talk: str
    run: str
    seen: list[Event] = field(default_factory=list)
    #: Where it came back, each time.
    breaks: list[int] = field(default_factory=list)
    _more: asyncio.Event = field(default_factory=asyncio.Event)

    @classmethod
    async def ask(
        cls, http: httpx2.AsyncClient, agent_id: str, talk: str | None = None
    ) -> Listener:
        """Say something in a conversation, a new one if none is given, and ask for an answer."""
        if talk is None:
            body = {"agent_id": agent_id, "history_limit": 30}
            talk = expect(await http.post("/v1/conversations", json=body), 201)["id"]
        asked = {"message": {"content": "Raconte."}}
        run = expect(await http.post(f"/v1/conversations/{talk}/runs", json=asked), 202)
        return cls(talk, run["id"])

    @property
    def over(self) -> bool:
        """Whether it heard the end."""
        return bool(self.seen) and self.seen[-1].name in ENDS

    async def listen(self, http: httpx2.AsyncClient) -> None:
        """Listen until the stream ends, or breaks."""
        headers = {}
        if self.seen:
            headers["last-event-id"] = str(self.seen[-1].id)
            self.breaks.append(self.seen[-1].id)
        with contextlib.suppress(httpx2.TransportError):
            async with http.stream("GET", f"/v1/runs/{self.run}/events", headers=headers) as answer:
                if answer.status_code != 200:
                    return
                async for event in events_of(answer):
                    self.seen.append(event)
                    self._more.set()

    async def listen_out(self, http: httpx2.AsyncClient) -> None:
        """Listen, and come back where it broke, until the end was heard."""
        while not self.over:
            await self.listen(http)

    async def heard(self, many: int) -> None:
        """Wait until so many events were heard, or the end."""
        while len(self.seen) < many and not self.over:
            self._more.clear()
            await self._more.wait()

    async def check(self, http: httpx2.AsyncClient) -> str:
        """See that every event was heard once and that they are what is on record; how it ended."""
        whole(self.seen)
        run = expect(await http.get(f"/v1/runs/{self.run}"), 200)
        assert self.seen[-1].name == f"run.{run['status']}"
        again = Listener(self.talk, self.run)
        await again.listen_out(http)
        assert again.seen == self.seen
        said = text_of(self.seen)
        if run["message_seq"] is None:
            assert said == ""
        else:
            where = f"/v1/conversations/{self.talk}/messages/{run['message_seq']}"
            message = expect(await http.get(where), 200)
            assert message["content"] == said
            assert message["status"] == (
                "complete" if run["status"] == "completed" else run["status"]
            )
        return str(run["status"])


@contextlib.asynccontextmanager
async def listening(
    http: httpx2.AsyncClient, listeners: Iterable[Listener]
) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Let them all listen once beside a block, and wait until their streams have ended."""
    tasks = [asyncio.create_task(one.listen(http)) for one in listeners]
    try:
        yield tasks
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
