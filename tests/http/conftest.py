"""An application on a real database, and people who call it."""

from __future__ import annotations

import io
import os
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from greffier.server import create_app
from greffier.server.logs import make_logger
from greffier.store.database import open_database
from helpers.api import Person, Served, settings
from helpers.postgres import new_database
from helpers.working import Working, working


@pytest_asyncio.fixture(scope="module")
async def served(postgres: str, template: str) -> AsyncIterator[Served]:
    """An application with a database that the tests of a file share, each with users of its own."""
    log = io.BytesIO()
    async with (
        new_database(postgres, f"template {template}") as dsn,
        open_database(dsn) as database,
    ):
        app = create_app(database, settings(), log=make_logger("info", "json", log))
        yield Served(app, database, log)


@pytest_asyncio.fixture
async def ada(served: Served) -> AsyncIterator[Person]:
    """A user."""
    person = served.person("ada")
    async with person.http:
        yield person


@pytest_asyncio.fixture
async def bob(served: Served) -> AsyncIterator[Person]:
    """Another user."""
    person = served.person("bob")
    async with person.http:
        yield person


@pytest_asyncio.fixture
async def root(served: Served) -> AsyncIterator[Person]:
    """An admin."""
    person = served.person("root", admin=True)
    async with person.http:
        yield person


@pytest_asyncio.fixture
async def work(postgres: str, template: str) -> AsyncIterator[Working]:
    """An application of a test's own that answers for agents; it audits clean afterwards."""
    async with working(postgres, template) as found:
        yield found


@pytest_asyncio.fixture
async def eve(work: Working) -> AsyncIterator[Person]:
    """A user of that application."""
    person = work.person("eve")
    async with person.http:
        yield person


@pytest.fixture(autouse=True)
def no_settings_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this machine has set for Greffier is none of a test's business."""
    for name in [name for name in os.environ if name.startswith("GREFFIER_")]:
        if name != "GREFFIER_TEST_DATABASE_URL":
            monkeypatch.delenv(name)
