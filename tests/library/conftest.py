"""The library on a new database, and a rival that holds what it wants."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from greffier.library import Greffier
from greffier.store.database import Database, open_database
from helpers.postgres import new_database
from helpers.sessions import Session, sessions


@pytest_asyncio.fixture(scope="module")
async def one_database(postgres: str, template: str) -> AsyncIterator[str]:
    """One database for a file whose tests keep to conversations of their own."""
    async with new_database(postgres, f"template {template}") as dsn:
        yield dsn


@pytest_asyncio.fixture
async def store(database: str) -> AsyncIterator[Database]:
    """A new database, opened."""
    async with open_database(database) as opened:
        yield opened


@pytest_asyncio.fixture
async def g(store: Database) -> Greffier:
    """The library on it."""
    return Greffier(store)


@pytest_asyncio.fixture
async def rival(database: str) -> AsyncIterator[Session]:
    """A session of somebody else's on it."""
    async with sessions(database, 1) as (session,):
        yield session
