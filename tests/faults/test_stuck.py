"""From stuck to well with real workers: what their deaths leave is named, mended, and goes on."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from signal import SIGKILL
from typing import Any

import pytest

from greffier.deliver.channels import Channels
from greffier.deliver.channels.webhook import Webhook
from greffier.deliver.keeping import Endpoints
from greffier.deliver.targets import ChannelTargets
from greffier.library import Greffier
from greffier.read.audit import audit
from greffier.store.database import open_database
from helpers.hooks import Gate, hooked
from helpers.lanes import Hand
from helpers.postgres import connected
from helpers.receivers import response
from helpers.serving import Running, started

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PROGRAM = "from greffier.server.work import run; from greffier.settings import load; run(load())"
MINUTES = 1 / 60


async def queue(database: str, *arguments: str) -> tuple[int | None, Any]:
    """Run ``greffier queue`` as a person would; its exit code and what it says as JSON."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "greffier", "queue", *arguments, "--json"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "GREFFIER_DATABASE_URL": database},
    )
    out, err = await process.communicate()
    assert out, err
    return process.returncode, json.loads(out)


@contextmanager
def worker(database: str) -> Iterator[Running]:
    """A worker, until the end of the block."""
    settings = {"DATABASE_URL": database, "ALLOW_PRIVATE_TARGETS": "true", "MAX_ATTEMPTS": "3"}
    with started(program=PROGRAM, **settings) as running:
        running.until(" works as ")
        running.let_it_talk()
        yield running


async def kill(one: Running) -> None:
    """End a worker as the lack of memory does."""
    one.process.send_signal(SIGKILL)
    await asyncio.to_thread(one.ended)


async def until(hand: Hand, query: str, *values: Any) -> Any:
    """Ask the database until it says so."""
    # Nobody calls, and the processors are for the workers.
    while not (found := await hand.live.fetchval(query, *values)):  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    return found


async def test_from_stuck_to_well(database: str) -> None:
    """A message that kills its workers, a receiver that is gone, and a worker killed at work.

    The command line names each, shows what it would do, does exactly that, and everything that can
    arrive arrives, in order.
    """
    channels = Channels([Webhook(allow_private=True)])
    async with (
        hooked() as poison, hooked() as gone, hooked() as slow,
        open_database(database) as store, connected(database) as live,
    ):  # fmt: skip
        g, hand = Greffier(store), Hand(live)
        g.endpoints = Endpoints(store, ChannelTargets(channels))
        talks, lanes, endpoints = {}, {}, {}
        for name, hook in (("poison", poison), ("gone", gone), ("slow", slow)):
            talk = await g.conversations.create(owner="ada")
            made = await g.endpoints.create(
                channel="webhook", target=hook.url, conversation=talk.id
            )
            assert made.secret is not None
            hook.secrets.append(made.secret)
            talks[name], endpoints[name] = talk.id, made.id

        async def say(name: str) -> None:
            for words in ("first", "second"):
                await g.messages.append(talks[name], content=f"{words} {name}")
            lanes[name] = str(
                await live.fetchval("select id from lanes where conversation_id = $1", talks[name])
            )

        with ExitStack() as stack:
            # Each of three workers dies over the same message.
            await say("poison")
            for number in range(3):
                poison.answers.append(Gate(b""))
                one = await asyncio.to_thread(stack.enter_context, worker(database))
                await poison.until(number + 1)
                await kill(one)
                await hand.shift((number + 1) * 11 * MINUTES)
            one = await asyncio.to_thread(stack.enter_context, worker(database))
            await until(hand, "select exists (select from lanes where parked_at is not null)")
            # A receiver wants no more, and a worker dies while another one has not answered.
            gone.answers.append(response(410))
            await say("gone")
            await until(hand, "select exists (select from endpoints where disabled_at is not null)")
            held = Gate(b"")
            slow.answers.append(held)
            await say("slow")
            await held.reached.wait()
            await kill(one)
            await hand.shift((33 + 4) * MINUTES)

            code, found = await queue(database, "diagnose")
            advice = {one["code"]: one["detail"] for one in found["advice"]}
            assert (code, found["well"]) == (3, False)
            assert {"parked", "endpoint-disabled", "dead-worker"} <= set(advice)
            assert "its worker was lost 3 times" in json.dumps(found["parked"])
            assert str(endpoints["gone"]) in advice["endpoint-disabled"]

            # What is used up is not among them; and the look is the deed.
            _, dry = await queue(database, "unlock", "--dry-run", "--steal")
            assert lanes["slow"] in {one["lane"]["id"] for one in dry["data"]}
            assert lanes["poison"] not in {one["lane"]["id"] for one in dry["data"]}
            _, done = await queue(database, "unlock", "--execute", "--steal")
            assert done["data"] == dry["data"]
            assert (await queue(database, "skip", lanes["poison"], "--execute"))[0] == 0
            await g.endpoints.update(endpoints["gone"], enabled=True)

            await asyncio.to_thread(stack.enter_context, worker(database))
            await until(
                hand,
                "select not exists (select from lanes where head_seq <= tail_seq)",
            )
            code, found = await queue(database, "diagnose")
            assert (code, found["well"]) == (0, True)
        assert poison.contents == [*["first poison"] * 3, "second poison"]
        assert gone.contents == [*["first gone"] * 2, "second gone"]
        assert slow.contents == [*["first slow"] * 2, "second slow"]
        report = await audit(store)
        assert report.clean, report.findings
