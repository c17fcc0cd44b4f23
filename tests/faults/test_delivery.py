"""Messages arrive whoever is killed: real workers and receivers, the journal afterwards (P8)."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from signal import SIGCONT, SIGSTOP
from uuid import UUID

import pytest
import pytest_asyncio

from helpers.hooks import Arrival, Gate, hooked, slowly
from helpers.receivers import response
from helpers.workers import Workers, delivered_by_workers, holds

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
#: Seconds of the leases of workers that are not to lose one for the slowness of the machine.
LONG = "600"

#: Time enough that many are killed while there is work, and little enough to wait for.
KILLS = 8


@pytest_asyncio.fixture
async def workers(database: str) -> AsyncIterator[Workers]:
    """A record; it audits clean afterwards."""
    async with delivered_by_workers(database) as made:
        yield made


async def test_two_thousand_messages_while_workers_are_killed(workers: Workers) -> None:
    """Fifty conversations, each with a receiver of its own, and one that refuses everything.

    Every second one of four workers is killed; every message arrives, first deliveries in order,
    and what a receiver saw twice the journal explains.
    """
    many, rounds = 50, 40
    async with hooked() as hook, hooked() as poison:
        poison.usual = response(500)
        hook.usual = slowly
        talks: dict[str, UUID] = {}
        for n in range(many):
            talk = await workers.g.conversations.create(owner="ada")
            target = f"http://127.0.0.1:{hook.port}/{n}"
            await workers.g.endpoints.create(channel="webhook", target=target, conversation=talk.id)
            talks[f"/{n}"] = talk.id
        stuck = await workers.g.conversations.create(owner="ada")
        await workers.g.endpoints.create(
            channel="webhook", target=poison.url, conversation=stuck.id, max_attempts=1
        )
        await workers.start(4)

        async def say() -> None:
            await workers.g.messages.append(stuck.id, content="poison")
            for round_ in range(rounds):
                await asyncio.gather(
                    *(
                        workers.g.messages.append(talk, content=f"message {round_ + 1}")
                        for talk in talks.values()
                    )
                )

        async def kill() -> None:
            for _ in range(KILLS):
                await asyncio.sleep(1)
                await workers.kill()
                await workers.start()

        await asyncio.gather(say(), kill())
        await workers.settled()

        arrivals: dict[str, list[Arrival]] = defaultdict(list)
        for one in hook.arrivals:
            arrivals[one.path].append(one)
        doubles = await holds(workers, arrivals, talks, rounds)
        assert len(hook.arrivals) == many * rounds + doubles
        # Otherwise nobody was killed in the middle of anything, and all this shows little.
        assert doubles > 0
        assert len(poison.arrivals) >= 1
        assert await workers.live.fetchval(
            "select park_reason from lanes where conversation_id = $1", stuck.id
        )


async def test_who_slept_past_its_lease_writes_nothing(workers: Workers) -> None:
    """A stopped worker's lane goes on with another; what it says when it wakes is refused."""
    async with hooked() as hook:
        gate = Gate(response(200))
        hook.answers.append(gate)
        talk = await workers.g.conversations.create(owner="ada")
        await workers.g.endpoints.create(channel="webhook", target=hook.url, conversation=talk.id)
        await workers.start(LEASE_SECONDS=LONG)
        (sleeper,) = workers.running
        for n in range(1, 4):
            await workers.g.messages.append(talk.id, content=f"message {n}")
        await gate.reached.wait()
        sleeper.process.send_signal(SIGSTOP)
        gate.open()
        await workers.live.execute("update identity set clock_shift = '1 hour'")
        await workers.start(LEASE_SECONDS=LONG)
        await hook.until(4)
        await workers.settled()

        sleeper.process.send_signal(SIGCONT)
        await workers.g.messages.append(talk.id, content="message 4")
        await hook.until(5)
        await workers.settled()

        assert [one.seq for one in hook.arrivals] == [1, 1, 2, 3, 4]
        assert await holds(workers, {"/hook": hook.arrivals}, {"/hook": talk.id}, 4) == 1
        while not any("lane lost" in line for line in sleeper.said):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        assert sleeper.process.poll() is None


async def test_what_kills_its_workers_is_parked(workers: Workers) -> None:
    """After three lost leases, with the reason; a person may let it go on."""
    async with hooked() as hook:
        gate = Gate(response(200))
        hook.answers.extend([gate] * 3)
        talk = await workers.g.conversations.create(owner="ada")
        await workers.g.endpoints.create(channel="webhook", target=hook.url, conversation=talk.id)
        await workers.g.messages.append(talk.id, content="message 1")
        for n in range(3):
            await workers.start(MAX_ATTEMPTS="3", LEASE_SECONDS=LONG)
            await hook.until(n + 1)
            await workers.kill()
            # A jump of the clock for everybody, so that nobody has to wait for the lease to end.
            await workers.live.execute(
                "update identity set clock_shift = coalesce(clock_shift, '0') + '1 hour'"
            )
        await workers.start(MAX_ATTEMPTS="3", LEASE_SECONDS=LONG)
        reason = await workers.until("select park_reason from lanes")
        assert reason == "its worker was lost 3 times"
        gate.open()
        assert (
            await workers.live.fetchval(
                "select unlock_v1(conversation_id, id, 3, true, false) from lanes"
            )
            == "parked"
        )
        await hook.until(4)
        await workers.settled()
        assert len({one.fence for one in hook.arrivals}) == 4


async def test_where_a_double_is_worse_nothing_is_sent_twice(workers: Workers) -> None:
    """I8: killed while it was on its way, the message waits for a person, and is sent no more."""
    async with hooked() as hook:
        gate = Gate(response(200))
        hook.answers.append(gate)
        talk = await workers.g.conversations.create(owner="ada")
        await workers.g.endpoints.create(
            channel="webhook", target=hook.url, conversation=talk.id, on_uncertain="park"
        )
        for n in range(1, 3):
            await workers.g.messages.append(talk.id, content=f"message {n}")
        await workers.start(LEASE_SECONDS=LONG)
        await gate.reached.wait()
        await workers.kill()
        gate.open()
        await workers.live.execute("update identity set clock_shift = '1 hour'")
        await workers.start(LEASE_SECONDS=LONG)
        reason = await workers.until("select park_reason from lanes")
        assert reason == "uncertain: an earlier try may have arrived"
        assert [one.seq for one in hook.arrivals] == [1]

        # A person has looked, and says that it is not there.
        assert await workers.live.fetchval("select retry_v1(conversation_id, id) from lanes")
        await hook.until(3)
        await workers.settled()
        assert [one.seq for one in hook.arrivals] == [1, 1, 2]
