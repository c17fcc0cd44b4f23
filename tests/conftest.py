"""PostgreSQL for the tests: one server for the session, a database of its own for each test.

Nothing is started until a test asks for it, and the server flushes to disk as in production.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from greffier.store import schema
from helpers.postgres import new_database


@pytest_asyncio.fixture(scope="session")
async def postgres(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """URL of a superuser: GREFFIER_TEST_DATABASE_URL, else a private server for the session."""
    url = os.environ.get("GREFFIER_TEST_DATABASE_URL")
    if url:
        yield url
        return
    # Late, so that tests of everything else run where there are no programs of PostgreSQL.
    from greffier.embedded import open_cluster

    async with open_cluster(tmp_path_factory.mktemp("postgres")) as cluster:
        yield cluster.dsn


@pytest_asyncio.fixture(scope="session")
async def template(postgres: str) -> AsyncIterator[str]:
    """Name of a database that holds the schema and nothing else; nobody may be connected to it."""
    async with new_database(postgres, "encoding 'UTF8' template template0") as dsn:
        await schema.migrate(dsn)
        yield urlsplit(dsn).path.removeprefix("/")


@pytest_asyncio.fixture
async def database(postgres: str, template: str) -> AsyncIterator[str]:
    """URL of a new database with the schema, dropped after the test."""
    # A copy takes 25 ms, making the schema three times that.
    async with new_database(postgres, f"template {template}") as dsn:
        yield dsn


@pytest_asyncio.fixture
async def empty_database(postgres: str) -> AsyncIterator[str]:
    """URL of a new database without anything in it, dropped after the test."""
    async with new_database(postgres, "encoding 'UTF8' template template0") as dsn:
        yield dsn
