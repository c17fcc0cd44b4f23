"""Messages arrive whatever happens to the database, the clock, the history and the workers (P8).

Real workers, each scenario with conversations of which a double is worse than a wait beside the
others; after each the invariants I1 to I8 from the journal, and the audit.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from signal import SIGCONT, SIGINT, SIGSTOP, SIGTERM
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio

from greffier.embedded import open_cluster
from greffier.store import schema
from helpers.holders import kill
from helpers.hooks import Arrival, Gate, Hook, hooked, slowly
from helpers.postgres import connected, wait_for_lock
from helpers.proxy import proxied
from helpers.receivers import Line, response
from helpers.workers import Workers, delivered_by_workers, holds

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
#: Seconds of the leases of workers that are not to lose one for the slowness of the machine.
LONG = "600"

MANY = 8
ROUNDS = 10


@pytest_asyncio.fixture
async def workers(database: str) -> AsyncIterator[Workers]:
    """A record; it audits clean afterwards."""
    async with delivered_by_workers(database) as made:
        yield made


class Load:
    """Conversations, each with an endpoint of its own, and one receiver of all."""

    def __init__(self, workers: Workers, hook: Hook) -> None:
        self.workers, self.hook = workers, hook
        self.resent: dict[str, UUID] = {}
        self.once: dict[str, UUID] = {}
        self.said = 0

    async def talks(self, many: int = MANY, **endpoint: Any) -> None:
        """Make conversations whose messages leave again when nobody knows, or as it is said."""
        for _ in range(many):
            talk = await self.workers.g.conversations.create(owner="ada")
            path = f"/{len(self.resent) + len(self.once)}"
            await self.workers.g.endpoints.create(
                channel="webhook", target=f"http://127.0.0.1:{self.hook.port}{path}",
                conversation=talk.id, **endpoint,
            )  # fmt: skip
            where = self.once if endpoint.get("on_uncertain") == "park" else self.resent
            where[path] = talk.id

    async def say(self, rounds: int = ROUNDS) -> None:
        """Say something in each, so many times."""
        for _ in range(rounds):
            self.said += 1
            await asyncio.gather(
                *(
                    self.workers.g.messages.append(talk, content=f"message {self.said}")
                    for talk in (self.resent | self.once).values()
                )
            )

    async def during(self, fault: Callable[[], Awaitable[None]], times: int) -> None:
        """Let something happen so many times while messages are said and arrive."""
        for _ in range(times):
            await self.say(2)
            # A clock that went back puts off what was due: then nothing comes before the next jump.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await self.hook.until(len(self.hook.arrivals) + MANY)
            await asyncio.gather(fault(), self.say(2))

    async def check(self, **how: str) -> int:
        """Wait until all is settled, and hold the invariants; how many doubles there were.

        I6 is the journal's too: whatever was accepted was so of a holder whose fence was the
        highest of its time.
        """
        workers = self.workers
        await workers.settled()
        arrivals: dict[str, list[Arrival]] = defaultdict(list)
        for one in self.hook.arrivals:
            arrivals[one.path].append(one)
        doubles = await holds(workers, arrivals, self.resent, self.said, **how)
        for path, talk in self.once.items():
            # I8; what came stands in order, up to what a person has to look at.
            seqs = [one.seq for one in arrivals[path]]
            assert seqs == list(range(1, len(seqs) + 1)), (path, seqs)
            (lane,) = await workers.live.fetch(
                "select head_seq, tail_seq, park_reason from lanes where conversation_id = $1", talk
            )
            if lane["head_seq"] > lane["tail_seq"]:
                assert len(seqs) == self.said
            else:
                assert lane["park_reason"].startswith("uncertain: ")
                assert len(seqs) in (lane["head_seq"] - 1, lane["head_seq"])
        for talk in (self.resent | self.once).values():
            rows = await workers.live.fetch(
                "select fence from attempts where conversation_id = $1 and outcome = 'accepted'"
                " order by seq",
                talk,
            )
            fences = [row["fence"] for row in rows]
            assert fences == sorted(fences)
        # I7
        assert not await workers.live.fetchval(
            "select count(*) from lanes where kind = 'out' and (token is not null"
            " or due_at is not null or (parked_at is null and head_seq <= tail_seq))"
        )
        return doubles


async def loaded(workers: Workers, hook: Hook, **more: Any) -> Load:
    """Conversations of both sorts, to a receiver that takes its time."""
    hook.usual = slowly
    load = Load(workers, hook)
    await load.talks(**more)
    await load.talks(2, on_uncertain="park")
    return load


@pytest.mark.parametrize("written", [True, False], ids=["committed", "undone"])
async def test_killed_while_what_came_of_it_is_being_stored(
    workers: Workers, *, written: bool
) -> None:
    """It is on record and not sent again, or it is not, and arrives twice; nothing between."""
    async with hooked() as hook:
        gate = Gate(response(200))
        hook.answers.append(gate)
        load = Load(workers, hook)
        await load.talks(1)
        await load.say(3)
        await workers.start(LEASE_SECONDS=LONG)
        await gate.reached.wait()
        async with connected(workers.g.database.dsn) as other:
            async with other.transaction():
                await other.execute("select from lanes for update")
                gate.open()
                waits = await wait_for_lock(workers.live, "%done_and_next_v1%")
                await workers.kill()
                if not written:
                    await workers.live.execute("select pg_terminate_backend($1)", waits)
            await workers.until(
                "select not exists (select from pg_stat_activity where pid = $1)", waits
            )
        await workers.live.execute("update identity set clock_shift = '1 hour'")
        await workers.start(LEASE_SECONDS=LONG)
        assert await load.check() == (0 if written else 1)
        assert [one.seq for one in hook.arrivals] == ([1, 2, 3] if written else [1, 1, 2, 3])


async def test_the_database_ends_sessions_at_any_moment(workers: Workers) -> None:
    """Whatever a worker was saying is said again: nothing is sent twice for it."""
    async with hooked() as hook:
        load = await loaded(workers, hook, concurrency=2)
        await workers.start(2)

        async def end() -> None:
            await workers.live.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where datname = current_database() and pid <> pg_backend_pid()"
                " and backend_type = 'client backend' and random() < 0.7"
            )

        await load.during(end, 5)
        await load.check()
        assert all(one.process.poll() is None for one in workers.running)


async def test_who_asks_for_a_place_and_is_cut_off_asks_again(workers: Workers) -> None:
    """A session that ends there leaves no lane to its lease, and no message sent twice."""
    async with hooked() as hook:
        load = Load(workers, hook)
        await load.talks(1, per_minute=6000)
        async with (
            connected(workers.g.database.dsn) as other, other.transaction(),
        ):  # fmt: skip
            await other.execute("select from endpoints for update")
            await workers.start(LEASE_SECONDS=LONG)
            await load.say(3)
            waits = await wait_for_lock(workers.live, "%admit_v1%")
            await workers.live.execute("select pg_terminate_backend($1)", waits)
        assert await load.check() == 0


async def test_the_wire_to_the_database_breaks_under_what_is_being_stored(
    workers: Workers,
) -> None:
    """The server goes on with what it was told, and nobody hears of it; said again, it is once.

    And no lane waits for the end of its lease, whatever was being said of it.
    """
    async with hooked() as hook, proxied(workers.g.database.dsn) as proxy:
        load = await loaded(workers, hook)
        await workers.start(2, DATABASE_URL=proxy.dsn, LEASE_SECONDS=LONG)

        async def cut() -> None:
            proxy.cut()
            await asyncio.sleep(0)
            if random.random() < 0.5:
                proxy.forget()

        await load.during(cut, 5)
        assert await load.check() == 0
        assert len(hook.arrivals) == (MANY + 2) * load.said


async def test_postgresql_is_killed_under_delivery(tmp_path: Path) -> None:
    """It recovers, and the workers go on where the record says they were."""
    async with open_cluster(tmp_path / "data") as cluster:
        await schema.migrate(cluster.dsn)
        async with delivered_by_workers(cluster.dsn) as workers, hooked() as hook:
            load = await loaded(workers, hook)
            await workers.start(2)

            async def crash() -> None:
                await kill(cluster.pid)
                await cluster.ensure_running()

            await load.during(crash, 3)
            async with connected(cluster.dsn) as live:
                workers.live = live
                await load.check()


async def test_a_history_that_lost_claims_accepts_nothing_twice(workers: Workers) -> None:
    """As after the promotion of a standby that was behind: what it lacks leaves again, and says so.

    Who held a lane in the history that was left writes nothing in this one, and every fence is
    above all that receivers saw.
    """
    async with hooked() as hook:
        hook.usual = slowly
        load = Load(workers, hook)
        await load.talks()
        await load.say()
        live = workers.live
        await live.execute("create table before as select * from lanes")
        await workers.start(2, LEASE_SECONDS=LONG)
        await hook.until(3 * MANY)
        sleepers = [*workers.running]
        for one in sleepers:
            one.process.send_signal(SIGSTOP)
        async with live.transaction():
            # Nobody had claimed anything, as far as the standby heard.
            await live.execute("delete from attempts")
            await live.execute(
                "update lanes l set head_seq = b.head_seq, fence = b.fence, token = b.token,"
                " owner = b.owner, due_at = b.due_at, tries = b.tries from before b"
                " where b.conversation_id = l.conversation_id and b.id = l.id"
            )
            await live.execute("update identity set timeline = timeline + 1000")
        await live.execute("drop table before")
        # Who starts finds that this is another history.
        await workers.start(LEASE_SECONDS=LONG)
        await workers.settled()
        for one in sleepers:
            one.process.send_signal(SIGCONT)
        await workers.until("select sum(refused) > 0 from lanes")
        await load.say(1)
        await workers.settled()

        for path, talk in load.resent.items():
            got = [one for one in hook.arrivals if one.path == path]
            new = [one for one in got if one.fence > 1_000_000]
            all_ = list(range(1, load.said + 1))
            assert [one.seq for one in new] == all_
            assert list(dict.fromkeys(one.seq for one in got)) == all_
            rows = await live.fetch(
                "select seq from attempts where conversation_id = $1 and outcome = 'accepted'"
                " order by settled_at, seq",
                talk,
            )
            assert [row["seq"] for row in rows] == all_


async def test_the_clock_jumps_an_hour_under_delivery(workers: Workers) -> None:
    """Ahead, leases end early and there are doubles; back, they end late; no order breaks."""
    async with hooked() as hook:
        load = await loaded(workers, hook)
        await workers.start(2)
        jumps = iter(("1 hour", "0", "1 hour", "2 hours", "1 hour"))

        async def jump() -> None:
            await workers.live.execute(
                "update identity set clock_shift = $1::text::interval", next(jumps)
            )

        await load.during(jump, 5)
        # What an hour back has put off is due now.
        await workers.live.execute("update identity set clock_shift = '9 hours'")
        await load.check(order="fence, seq")


async def test_a_worker_that_stops_lets_what_is_on_its_way_arrive(workers: Workers) -> None:
    """One signal, and a receiver that answers within the grace: nothing is sent twice."""
    async with hooked() as hook:
        gate = Gate(response(200))
        hook.answers.append(gate)
        load = Load(workers, hook)
        await load.talks(1)
        await load.say(3)
        await workers.start(SHUTDOWN_SECONDS="60", LEASE_SECONDS=LONG)
        await gate.reached.wait()
        (stopped,) = workers.running
        stopped.process.send_signal(SIGTERM)
        gate.open()
        assert await asyncio.to_thread(stopped.ended) == 0
        await workers.start(LEASE_SECONDS=LONG)
        assert await load.check() == 0


async def test_a_worker_that_may_wait_no_longer_leaves_no_lease(workers: Workers) -> None:
    """Its grace is over, or a second signal came: another goes on long before the lease ends."""
    async with hooked() as hook:
        gates = [Gate(response(200)), Gate(response(200))]
        hook.answers.extend(gates)
        load = Load(workers, hook)
        await load.talks(1)
        await load.say(3)
        for gate, grace, signals in zip(gates, ("1", "600"), (1, 2), strict=True):
            await workers.start(SHUTDOWN_SECONDS=grace, LEASE_SECONDS=LONG)
            await gate.reached.wait()
            stopped = workers.running.pop()
            # Two of one kind that come at once would be one.
            for sent in (SIGTERM, SIGINT)[:signals]:
                stopped.process.send_signal(sent)
            assert await asyncio.to_thread(stopped.ended) == 0
            assert not await workers.live.fetchval(
                "select count(*) from lanes where token is not null"
            )
            # It waits for the next try, as what failed does.
            await workers.live.execute(
                "update identity set clock_shift = coalesce(clock_shift, '0') + '8 minutes'"
            )
        await workers.start(LEASE_SECONDS=LONG)
        assert await load.check() == 2


async def test_workers_are_replaced_one_after_the_other(workers: Workers) -> None:
    """As when a new release is rolled out: nothing arrives twice, nothing out of order."""
    async with hooked() as hook:
        load = await loaded(workers, hook)
        await workers.start(3, SHUTDOWN_SECONDS="60", LEASE_SECONDS=LONG)

        async def replace() -> None:
            old = workers.running.pop(0)
            old.process.send_signal(SIGTERM)
            assert await asyncio.to_thread(old.ended) == 0
            await workers.start(SHUTDOWN_SECONDS="60", LEASE_SECONDS=LONG)

        await load.during(replace, 3)
        assert await load.check() == 0
        assert len(hook.arrivals) == (MANY + 2) * load.said


async def test_a_thousand_that_are_due_at_once_leave_so_many_at_a_time(workers: Workers) -> None:
    """After the outage of an endpoint: never more than it has places, from however many workers."""
    many, places = 1000, 40
    async with hooked() as hook:
        made = await workers.g.endpoints.create(
            channel="webhook", target=hook.url, concurrency=places, max_attempts=20
        )
        assert made.secret is not None
        talks = await asyncio.gather(
            *(workers.g.conversations.create(owner="ada") for _ in range(many))
        )
        hook.usual = response(503)
        await workers.start(2, LEASE_SECONDS=LONG)
        await asyncio.gather(
            *(workers.g.messages.append(talk.id, content="hello") for talk in talks)
        )
        await hook.until(3)
        hook.most = 0

        async def answer(line: Line) -> None:
            await asyncio.sleep(0.02)
            await line.say(response(200))

        hook.usual = answer
        # Whatever its time was, it has come.
        await workers.live.execute("update identity set clock_shift = '1 hour'")
        await workers.settled()
        assert 1 < hook.most <= places
        rows = await workers.live.fetch(
            "select count(*) from attempts where outcome = 'accepted' group by conversation_id"
        )
        assert [row[0] for row in rows] == [1] * many
