"""What an agent's answer may count on that begins while others write."""

from __future__ import annotations

import contextlib

from greffier.library import Greffier, closing
from greffier.settings import Settings
from greffier.store.connection import Connection
from greffier.store.database import open_database
from helpers.sessions import Session, until_waiting


async def read_for_the_model(watch: Connection) -> None:
    """Come back when a connection has read the conversation's end and waits for more to do."""
    while not await watch.fetchval(
        "select exists (select from pg_stat_activity where datname = current_database() "
        "and state = 'idle' and query like '%anchor (null: the end)%')"
    ):
        pass


async def test_a_model_is_asked_with_what_was_edited_before_its_run_began(
    database: str, rivals: list[Session]
) -> None:
    """Although the conversation is read for it while the beginning still waits to be recorded."""
    rival, _, _ = rivals
    async with open_database(database) as opened, closing(Greffier(opened)) as g:
        echo = await g.agents.create(name="Echo", provider="echo", model="x")
        talk = await g.conversations.create(owner="ada", agent=echo.id)
        run = await g.runs.start(talk.id, content="before", actor="ada")
        async with contextlib.AsyncExitStack() as until_answered:
            async with rival.open():
                await rival.messages.edit(talk.id, 1, "after", actor="ada")
                await until_answered.enter_async_context(g.working(Settings()))
                await until_waiting(rival.watch, 1)
                await read_for_the_model(rival.watch)
            await g.runs.wait(run.id)
        answer = (await g.messages.recent(talk.id)).data[-1]

    assert answer.role == "assistant"
    assert "after" in (answer.content or "")
