"""Read your writes: a standby that is behind never takes back what its reader wrote."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from greffier.change.conversation import create
from greffier.model.conversation import NewConversation
from greffier.read.conversations import Filter, listing
from greffier.store import schema
from greffier.store.database import open_database
from greffier.store.position import Position
from greffier.store.replicas import Replicas
from helpers.patience import PATIENCE
from helpers.standby import caught_up, primary_and_standby
from live.conftest import Running, running

#: People who write and read at the same time, and how often each does: 200 writes, and with
#: GREFFIER_TEST_ROUNDS=40 a thousand.
PEOPLE = 25
ROUNDS = int(os.environ.get("GREFFIER_TEST_ROUNDS", "8"))


async def rounds(servers: tuple[Running, Running], user: str, *, positions: bool) -> int:
    """Create, send, list and read, each through another server; count what was not seen."""
    missed = 0
    clients = [server.http(user) for server in servers]
    try:
        for number in range(ROUNDS):
            here, there = clients[number % 2], clients[(number + 1) % 2]
            made = await here.post("/v1/conversations", json={"title": str(number)})
            talk = made.json()["id"]
            sent = await there.post(
                f"/v1/conversations/{talk}/messages", json={"content": f"n{number}"}
            )
            position = sent.headers["greffier-position"]
            if not positions:
                # What a careless router does: any standby, wherever it is.
                position = str(Position(Position.parse(position).epoch))
            headers = {"greffier-position": position}
            listed = await here.get("/v1/conversations?limit=1", headers=headers)
            page = await there.get(f"/v1/conversations/{talk}/messages", headers=headers)
            seen = page.status_code == 200 and page.json()["data"][-1:]
            missed += not (
                [one["id"] for one in listed.json()["data"]] == [talk]
                and seen
                and seen[0]["content"] == f"n{number}"
            )
    finally:
        for client in clients:
            await client.aclose()
    return missed


@pytest.mark.slow
async def test_a_late_standby_never_hides_a_write(tmp_path: Path) -> None:
    """Again and again, through any server, half a second behind; careless routing fails it."""
    async with primary_and_standby(tmp_path, delay_ms=500) as (primary, standby):
        await schema.migrate(primary)
        await caught_up(standby)
        async with (
            running(primary, replicas=[standby]) as one,
            running(primary, replicas=[standby]) as other,
        ):
            servers = (one, other)
            careful = [rounds(servers, f"u{n}", positions=True) for n in range(PEOPLE)]
            assert sum(await asyncio.gather(*careful)) == 0
            late = [server.app.service.database.replicas.late for server in servers]
            assert min(late) > 0

            careless = [rounds(servers, f"v{n}", positions=False) for n in range(2)]
            assert sum(await asyncio.gather(*careless)) > 0


async def test_a_standby_that_has_caught_up_answers(tmp_path: Path) -> None:
    """A reader whose write was replayed is answered by the standby, and sees it."""
    async with (
        primary_and_standby(tmp_path, delay_ms=0) as (primary, standby),
        open_database(primary, replicas=[standby], migrate=True) as database,
    ):
        made, _ = await create(database, NewConversation(), "ada")
        replica = database.replicas
        async with asyncio.timeout(PATIENCE):
            while replica.answered == 0:
                bodies, _, _ = await listing(
                    database.at(database.position), "ada", Filter(), limit=1
                )
                assert str(made).encode() in bodies[0]


async def test_a_standby_that_is_away_is_passed_over(database: str) -> None:
    """Nobody is kept waiting for it, and nothing is lost but its help."""
    async with open_database(
        database, replicas=["postgresql://greffier@/nowhere?host=/nonexistent"]
    ) as opened:
        made, _ = await create(opened, NewConversation(), "ada")

        bodies, _, _ = await listing(opened.at(opened.position), "ada", Filter())

        assert str(made).encode() in bodies[0]
        assert isinstance(opened.replicas, Replicas)
        assert opened.replicas.answered == 0
