"""Two sessions that race, and an audit of what they left."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from greffier.read.audit import audit
from greffier.store.database import Database
from helpers.sessions import Session, sessions


@pytest_asyncio.fixture
async def rivals(database: str) -> AsyncIterator[list[Session]]:
    """Three sessions on a new database; whatever they did to each other, it audits clean."""
    async with sessions(database, 3) as found:
        yield found
    report = await audit(Database(database))
    assert report.clean, report.findings
