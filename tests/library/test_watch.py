"""Promise: what somebody should know is told as it begins and as it ends, once."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from standardwebhooks import Webhook

from greffier.deliver.channels.signatures import new_secret
from greffier.deliver.watch import AlertWebhook, Watch, alert_webhook
from greffier.errors import SettingsError
from greffier.read import queue
from greffier.server.logs import make_logger
from greffier.settings import load
from greffier.store.database import Database, open_database
from helpers.lanes import Hand, Lane
from helpers.postgres import connected
from helpers.receivers import Web, response, serving

SECRET = new_secret()


@pytest_asyncio.fixture
async def db(database: str) -> AsyncIterator[Database]:
    """A database of the test's own."""
    async with open_database(database) as opened:
        yield opened


@pytest_asyncio.fixture
async def hand(database: str) -> AsyncIterator[Hand]:
    """A hand on it."""
    async with connected(database) as live:
        yield Hand(live)


def watch(db: Database, webhook: AlertWebhook | None = None) -> tuple[Watch, io.BytesIO]:
    """A watch, and what it logs."""
    log = io.BytesIO()
    return Watch(db, log=make_logger("info", "json", log), webhook=webhook), log


def logged(log: io.BytesIO) -> list[tuple[str, str]]:
    """What was logged: which event of which alert."""
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    return [(line["event"], line["code"]) for line in lines]


async def stuck(hand: Hand) -> Lane:
    """A lane that has been due for a minute, and nobody works."""
    lane = await hand.lane(messages=1)
    await hand.live.execute("update lanes set due_at = due_at - interval '1 min'")
    return lane


async def mended(hand: Hand) -> None:
    """Nothing is due any more."""
    for claim in await hand.claim():
        await hand.intend(claim, 1)
        await hand.done(claim, 1)


async def test_an_alert_is_logged_as_it_begins_and_as_it_ends(hand: Hand, db: Database) -> None:
    """Once each, however often somebody looks; in between it stands, since when it began."""
    one, log = watch(db)
    assert await one.look(mine=True)
    assert logged(log) == []
    await stuck(hand)
    for _ in range(3):
        await one.look(mine=True)
    assert logged(log) == [("alert began", "no-worker")]
    (alert,) = await queue.alerts(db)
    assert (alert.code, alert.until) == ("no-worker", None)
    assert alert.since is not None
    await mended(hand)
    for _ in range(2):
        await one.look(mine=True)
    assert logged(log) == [("alert began", "no-worker"), ("alert ended", "no-worker")]
    (over,) = await queue.alerts(db)
    assert over.until is not None
    await stuck(hand)
    await one.look(mine=True)
    assert len(logged(log)) == 3


async def test_of_all_processes_one_looks(hand: Hand, db: Database) -> None:
    """And of those that look at once, one tells."""
    await stuck(hand)
    watches = [watch(db) for _ in range(5)]
    looked = await asyncio.gather(*(one.look() for one, _ in watches))
    assert sorted(looked) == [False] * 4 + [True]
    await mended(hand)
    await asyncio.gather(*(one.look(mine=True) for one, _ in watches))
    told = [line for _, log in watches for line in logged(log)]
    assert sorted(told) == [("alert began", "no-worker"), ("alert ended", "no-worker")]


async def test_the_webhook_is_told_until_it_takes_it(hand: Hand, db: Database) -> None:
    """Signed, under the same id, in order; a receiver of the official package verifies it."""
    web = Web(response(503), response(503), response(204))
    async with serving(web) as server:
        webhook = AlertWebhook(f"http://{server.host}/alerts", SECRET)
        one, log = watch(db, webhook)
        await stuck(hand)
        await one.look(mine=True)
        await mended(hand)
        await one.look(mine=True)
        # The log does not wait for the webhook.
        assert [event for event, _ in logged(log) if event != "alert not told"] == [
            "alert began",
            "alert ended",
        ]
        await one.look(mine=True)
        assert await one.look(mine=True)
        await webhook.close()

    events = [_verified(request) for request in web.requests]
    assert [(id_ == events[0][0], event["type"]) for id_, event in events] == [
        *([(True, "alert.began")] * 3),
        (False, "alert.ended"),
    ]
    began, ended = events[2][1]["alert"], events[3][1]["alert"]
    assert (began["code"], began["count"]) == ("no-worker", 1)
    assert ended["since"] == began["since"]
    assert ended["until"] > ended["since"]


def _verified(request: Any) -> tuple[str, dict[str, Any]]:
    """A request's id and event, as the official package verifies them."""
    event: dict[str, Any] = Webhook(SECRET).verify(request.body, request.headers)
    return request.headers["webhook-id"], event


async def test_a_watch_goes_on_when_the_database_does_not_answer(
    hand: Hand, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What breaks in one look is said, and the next one finds what there is."""
    await stuck(hand)
    log = io.BytesIO()
    one = Watch(db, log=make_logger("info", "json", log), first=0, every=0)
    looks, look = 0, one.look
    found = asyncio.Event()

    async def breaks() -> bool:
        nonlocal looks
        looks += 1
        if looks == 1:
            raise RuntimeError
        done = await look(mine=True)
        found.set()
        return done

    monkeypatch.setattr(one, "look", breaks)
    async with one.watching():
        await found.wait()
    events = [json.loads(line)["event"] for line in log.getvalue().splitlines()]
    assert events[:2] == ["watch broke", "alert began"]


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"alert_webhook": "https://ops.example/x"}, "go together"),
        ({"alert_webhook_secret": SECRET}, "go together"),
        ({"alert_webhook": "gopher://x", "alert_webhook_secret": SECRET}, "ALERT_WEBHOOK: "),
        ({"alert_webhook": "https://x.example", "alert_webhook_secret": "x"}, "_SECRET: "),
    ],
)
def test_where_alerts_go_is_checked_at_the_start(said: dict[str, str], words: str) -> None:
    """A webhook that could not be told is no setting to start with."""
    with pytest.raises(SettingsError, match=words):
        alert_webhook(load(said))
    assert alert_webhook(load({})) is None
