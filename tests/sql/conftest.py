"""People with database roles of their own, and an audit of what they left."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager

import pytest_asyncio

from greffier.library import Greffier
from greffier.read.audit import audit
from greffier.store.database import open_database
from helpers.direct import Login, Town, new_login
from helpers.postgres import connected, new_database

MakeLogin = Callable[..., AbstractAsyncContextManager[Login]]


@pytest_asyncio.fixture(scope="session")
async def logins(postgres: str) -> AsyncIterator[Mapping[str, Login]]:
    """Three roles of the server, for all tests: what is granted to them goes with the database."""
    async with (
        new_login(postgres) as ada,
        new_login(postgres) as bob,
        new_login(postgres) as eve,
    ):
        yield {"ada": ada, "bob": bob, "eve": eve}


@contextlib.asynccontextmanager
async def settled(dsn: str, logins: Mapping[str, Login]) -> AsyncIterator[Town]:
    """Admit ada and bob to a database; whatever is tried there, it audits clean."""
    async with connected(dsn) as connection:
        for name in ("ada", "bob"):
            await connection.execute("select admit_role_v1($1, $2)", logins[name].role, name)
            await connection.execute("update users set name = $2 where id = $1", name, name.title())
    async with open_database(dsn) as database:
        yield Town(dsn, Greffier(database), logins)
        report = await audit(database)
    assert report.clean, report.findings


@pytest_asyncio.fixture
async def town(logins: Mapping[str, Login], database: str) -> AsyncIterator[Town]:
    """A new database with people, for one test."""
    async with settled(database, logins) as found:
        yield found


@pytest_asyncio.fixture(scope="module")
async def besieged(
    postgres: str, template: str, logins: Mapping[str, Login]
) -> AsyncIterator[Town]:
    """A database with people that many tests attack."""
    async with (
        new_database(postgres, f"template {template}") as dsn,
        settled(dsn, logins) as found,
    ):
        yield found
