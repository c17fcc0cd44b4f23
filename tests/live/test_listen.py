"""LISTEN and NOTIFY between processes, on connections that die without a word."""

from __future__ import annotations

import asyncio

import pytest

from greffier.store import listen
from greffier.store.listen import Channel
from helpers.patience import PATIENCE
from helpers.proxy import proxied


async def test_a_connection_that_went_silently_is_replaced(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A firewall forgets it and tells neither end: the listener asks, and listens on a new one."""
    monkeypatch.setattr(listen, "PROBE", 0.05)
    monkeypatch.setattr(listen, "PATIENCE", 1.0)
    heard: asyncio.Queue[str | None] = asyncio.Queue()
    async with proxied(database) as proxy, asyncio.timeout(PATIENCE):
        here, there = Channel(proxy.dsn, "greffier_test"), Channel(database, "greffier_test")
        listening = asyncio.create_task(here.listen(heard.put_nowait))
        assert await heard.get() is None
        proxy.stall()
        # Some may have been lost: it listens again.
        assert await heard.get() is None
        word = None
        while word is None:
            # On a slow machine it may begin anew once more.
            await there.notify(["word"])
            word = await heard.get()
        listening.cancel()
        await asyncio.wait({listening})
        there.close()

    assert word == "word"


async def test_whoever_speaks_into_nothing_speaks_again(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A word into a dead connection is lost, which costs a poll; the next one is said."""
    monkeypatch.setattr(listen, "PATIENCE", 1.0)
    heard: asyncio.Queue[str | None] = asyncio.Queue()
    async with proxied(database) as proxy, asyncio.timeout(PATIENCE):
        here, there = Channel(proxy.dsn, "greffier_test"), Channel(database, "greffier_test")
        listening = asyncio.create_task(there.listen(heard.put_nowait))
        assert await heard.get() is None
        await here.notify(["one"])
        assert await heard.get() == "one"
        proxy.stall()
        await here.notify(["two"])
        word = None
        while word != "three":
            await here.notify(["three"])
            word = await heard.get()
            assert word != "two"
        listening.cancel()
        await asyncio.wait({listening})
        here.close()

    assert word == "three"
