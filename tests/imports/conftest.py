"""A desk to import at."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from greffier.library import open as open_record
from helpers.importing import Desk


@pytest_asyncio.fixture
async def desk(database: str) -> AsyncIterator[Desk]:
    """A desk before an empty record."""
    async with open_record(database) as record:
        yield Desk(record)
