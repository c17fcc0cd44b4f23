"""A receiver, and a record whose messages leave for it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from helpers.delivering import Delivery, delivering
from helpers.hooks import Hook, hooked


@pytest_asyncio.fixture
async def hook() -> AsyncIterator[Hook]:
    """Somebody's program."""
    async with hooked() as found:
        yield found


@pytest_asyncio.fixture
async def record(database: str) -> AsyncIterator[Delivery]:
    """A record that delivers."""
    async with delivering(database) as found:
        yield found
