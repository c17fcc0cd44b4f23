"""Answers survive kill -9, zombies, signals and a jumping clock, in real processes (P7)."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from signal import SIGCONT, SIGINT, SIGKILL, SIGSTOP, SIGTERM

import pytest

from greffier.embedded import open_cluster
from greffier.embedded.folder import Folder
from greffier.embedded.server import read_pidfile
from helpers.answering import Listener, Service, agent, listening, script
from helpers.api import SECRET, expect, refused
from helpers.following import text_of
from helpers.holders import kill
from helpers.openai_server import USAGE, OpenAIServer, openai_server, pause, saying, slowly

pytestmark = pytest.mark.slow

WORDS = [f"{n} — ça 👩‍👧 " for n in range(120)]


@pytest.fixture
def service(database: str) -> Iterator[Service]:
    """A service on a database of a test's own."""
    with ExitStack() as stack:
        yield Service(stack, database)


@pytest.fixture
def provider() -> Iterator[OpenAIServer]:
    """A scripted service of models."""
    with openai_server() as server:
        yield server


def asking(provider: OpenAIServer) -> dict[str, str]:
    """What tells a process of that service."""
    return {
        "PROVIDERS__LOCAL__KIND": "openai",
        "PROVIDERS__LOCAL__BASE_URL": provider.url,
        "PROVIDERS__LOCAL__TRIES": "1",
    }


async def test_killed_in_the_middle_of_fifty_answers(
    service: Service, provider: OpenAIServer
) -> None:
    """Every run ends, completed or interrupted, and begins with what was heard of it.

    Whoever comes back, wherever they were, hears every event once; what was counted is what the
    service of models reported.
    """
    settings = {**asking(provider), "RUN_LEASE_SECONDS": "2"}
    provider.always(lambda _: slowly(*WORDS, seconds=0.05))
    node = await service.serve(**settings)
    agents = [
        await agent(node, **script(WORDS, 50)),
        await agent(node, provider="local"),
        await agent(node, **script(WORDS[:6], 50)),
    ]
    async with node.http() as http:
        listeners = await asyncio.gather(*(Listener.ask(http, agents[n % 3]) for n in range(50)))
        async with listening(http, listeners):
            await asyncio.gather(*(one.heard(5) for one in listeners))
            node.signal(SIGKILL)
    before = [text_of(one.seen) for one in listeners]
    node = await service.serve(**settings)
    async with node.http() as http:
        # From anywhere of what they had heard.
        for one in listeners:
            if not one.over:
                del one.seen[random.randint(0, len(one.seen)) :]
        await asyncio.gather(*(one.listen_out(http) for one in listeners))

        ends = await asyncio.gather(*(one.check(http) for one in listeners))
    for one, heard in zip(listeners, before, strict=True):
        assert text_of(one.seen).startswith(heard)
    assert set(ends) == {"completed", "interrupted"}
    ledger = await service.fetch(
        "select r.status, u.calls, u.input_tokens, u.output_tokens from greffier.usage u"
        " join greffier.runs r on r.id = u.run_id where u.provider = 'local'"
    )
    assert len(ledger) == len(provider.requests)
    told = (USAGE["prompt_tokens"], USAGE["completion_tokens"])
    for status, calls, sent, said in ledger:
        # One that was killed may have been told, and have had no time to write it down.
        assert (calls, sent, said) == (1, *told) or (
            status == "interrupted" and calls in (0, 1) and (sent, said) in ((0, 0), told)
        )
    await service.check()


async def test_a_worker_that_slept_past_its_lease_writes_nothing(service: Service) -> None:
    """Another has ended its runs meanwhile; each of its late writes is refused, and counted."""
    lease = {"RUN_LEASE_SECONDS": "2", "SHUTDOWN_SECONDS": "1"}
    node = await service.serve(WORK="false")
    first = await service.worker(**lease)
    talker = await agent(node, **script(WORDS * 20, 5))
    async with node.http() as http:
        listeners = await asyncio.gather(*(Listener.ask(http, talker) for _ in range(20)))
        async with listening(http, listeners):
            await asyncio.gather(*(one.heard(4) for one in listeners))
            first.signal(SIGSTOP)
            await service.worker(**lease)
        assert {await one.check(http) for one in listeners} == {"interrupted"}
        ((before,),) = await service.fetch("select sum(refused) from greffier.lanes")
        record = await service.fetch("select m::text from greffier.messages m order by 1")
        runs = await service.fetch("select r::text from greffier.runs r order by 1")

        first.signal(SIGCONT)
        first.signal(SIGTERM)
        assert await first.ended() == 0

    assert await service.fetch("select m::text from greffier.messages m order by 1") == record
    assert await service.fetch("select r::text from greffier.runs r order by 1") == runs
    ((after,),) = await service.fetch("select sum(refused) from greffier.lanes")
    assert after > before
    await service.check()


@pytest.mark.parametrize("alone", [False, True], ids=["serve", "worker"])
async def test_stopping_ends_an_answer_within_its_grace(
    service: Service, provider: OpenAIServer, *, alone: bool
) -> None:
    """As interrupted, at once, with what was said: nobody waits for a lease to run out.

    One that ends within the grace is complete.
    """
    settings = {**asking(provider), "RUN_LEASE_SECONDS": "600"}
    provider.put(saying("Bon", pause(), "jour"))
    node = await service.serve(**settings, SHUTDOWN_SECONDS="5", WORK=str(not alone))
    stopped = await service.worker(**settings, SHUTDOWN_SECONDS="5") if alone else node
    agents = [
        await agent(node, provider="local"),
        await agent(node, **script(["Il était", " une fois."], 500)),
    ]
    async with node.http() as http:
        long, short = [await Listener.ask(http, one) for one in agents]
        async with listening(http, [long, short]):
            await asyncio.gather(long.heard(2), short.heard(2))
            stopped.signal(SIGTERM)
            assert await stopped.ended() == 0
    node = await service.serve(WORK="false")
    async with node.http() as http:
        await asyncio.gather(long.listen_out(http), short.listen_out(http))
        assert [await one.check(http) for one in (long, short)] == ["interrupted", "completed"]
    assert [text_of(one.seen) for one in (long, short)] == ["Bon", "Il était une fois."]
    assert await provider.requests[0].left()
    await service.check()


@pytest.mark.parametrize("alone", [False, True], ids=["serve", "worker"])
async def test_a_second_signal_waits_for_no_answer(
    service: Service, provider: OpenAIServer, *, alone: bool
) -> None:
    """However long the grace: what was said is kept, and the run is over when the process is."""
    settings = {**asking(provider), "RUN_LEASE_SECONDS": "600", "SHUTDOWN_SECONDS": "600"}
    provider.put(saying("Bon", pause(), "jour"))
    node = await service.serve(**settings, WORK=str(not alone))
    stopped = await service.worker(**settings) if alone else node
    talker = await agent(node, provider="local")
    async with node.http() as http:
        one = await Listener.ask(http, talker)
        async with listening(http, [one]):
            await one.heard(2)
            # Two of one kind that come at once would be one.
            stopped.signal(SIGTERM)
            stopped.signal(SIGINT)
            assert await stopped.ended() == 0
    assert await service.fetch("select status from greffier.runs") == [("interrupted",)]
    assert await service.fetch(
        "select content from greffier.messages where role = 'assistant'"
    ) == [("Bon",)]
    await service.check()


async def test_postgresql_is_killed_under_twenty_answers(tmp_path: Path) -> None:
    """Nobody's stream breaks, nothing is heard twice, and every run ends."""
    folder = tmp_path / "data"
    with ExitStack() as stack:
        service = Service(stack, "", DATA_DIR=str(folder), JWT_SECRET=SECRET)
        node = await service.serve()
        talker = await agent(node, **script(WORDS, 40))
        async with node.http() as http:
            listeners = await asyncio.gather(*(Listener.ask(http, talker) for _ in range(20)))
            async with listening(http, listeners):
                for turn in range(2):
                    await asyncio.gather(*(one.heard(5 + 5 * turn) for one in listeners))
                    found = read_pidfile(Folder.at(folder).pg)
                    assert found is not None
                    await kill(found.pid)
            assert [one.breaks for one in listeners] == [[]] * 20
            ends = {await one.check(http) for one in listeners}
            assert ends <= {"completed", "interrupted"}
        node.signal(SIGTERM)
        assert await node.ended() == 0
        async with open_cluster(folder) as cluster:
            await Service(stack, cluster.dsn).check()


async def test_a_hundred_ask_at_once_at_two_servers(
    service: Service, provider: OpenAIServer
) -> None:
    """One run; those of the same id attach, the others are refused, with nothing stored.

    It is followed at both servers, and whoever changes server in the middle misses nothing.
    """
    provider.put(saying("Bon", pause(), "jour"))
    works = await service.serve(**asking(provider))
    serves = await service.serve(**asking(provider), WORK="false")
    talker = await agent(works, provider="local")
    same = {"id": str(uuid.uuid4()), "message": {"id": str(uuid.uuid4()), "content": "la même"}}
    async with works.http() as one, serves.http() as other:
        body = {"agent_id": talker}
        talk = expect(await one.post("/v1/conversations", json=body), 201)["id"]
        answers = await asyncio.gather(
            *(
                (one if n % 4 < 2 else other).post(
                    f"/v1/conversations/{talk}/runs",
                    json=same if n % 2 else {"message": {"content": f"la {n}e"}},
                )
                for n in range(100)
            )
        )
        begun = {answer.json()["id"] for answer in answers if answer.status_code == 202}
        assert len(begun) == 1
        for answer in answers:
            if answer.status_code != 202:
                refused(answer, 409, "run-active")
        run_id = begun.pop()
        here, there = Listener(talk, run_id), Listener(talk, run_id)
        async with listening(one, [here]), listening(other, [there]):
            await here.heard(2)
            await there.heard(2)
            provider.go_on()
        for listener, http in ((here, other), (there, one)):
            assert await listener.check(http) == "completed"
            for after in range(len(listener.seen)):
                late = Listener(talk, run_id, listener.seen[:after])
                await late.listen_out(http)
                assert late.seen == listener.seen
    assert await service.fetch("select count(*) from greffier.messages") == [(2,)]
    assert len(provider.requests) == 1
    await service.check()


async def test_a_word_from_another_process_stops_a_worker(
    service: Service, provider: OpenAIServer
) -> None:
    """Cancelled or archived at a server: the worker hears of it long before its lease says so."""
    settings = {**asking(provider), "RUN_LEASE_SECONDS": "3600"}
    node = await service.serve(**settings, WORK="false")
    await service.worker(**settings)
    talker = await agent(node, provider="local")
    async with node.http() as http:
        for number, how in enumerate(("cancel", "archive"), 1):
            provider.put(saying("Bon", pause(), "jour"))
            one = await Listener.ask(http, talker)
            async with listening(http, [one]):
                await one.heard(2)
                if how == "cancel":
                    expect(await http.post(f"/v1/runs/{one.run}/cancel"), 200)
                else:
                    talk = f"/v1/conversations/{one.talk}"
                    expect(await http.patch(talk, json={"archived": True}), 200)
            assert await (await provider.asked(number)).left()
            assert await one.check(http) == "cancelled"
    await service.check()


async def test_workers_that_are_killed_at_any_moment_leave_no_run_behind(
    service: Service, provider: OpenAIServer
) -> None:
    """Between a claim and its run's beginning, before or after an end: each conversation goes on.

    Every run ends once, and the next answers behind it.
    """
    settings = {**asking(provider), "RUN_LEASE_SECONDS": "1"}
    provider.always(lambda _: saying("Bon", "jour"))
    node = await service.serve(**settings, WORK="false")
    workers = [await service.worker(**settings) for _ in range(2)]
    agents = [
        await agent(node, **script(["Il ", "était ", "une fois."], 20)),
        await agent(node, provider="local"),
    ]
    done: list[Listener] = []
    enough = asyncio.Event()

    async def talk(agent_id: str) -> None:
        where = None
        while not enough.is_set():
            one = await Listener.ask(http, agent_id, where)
            where = one.talk
            await one.listen_out(http)
            done.append(one)

    async with node.http() as http:
        talking = [asyncio.create_task(talk(agents[n % 2])) for n in range(12)]
        for turn in range(5):
            before = len(done)
            while len(done) < before + 20 and not any(task.done() for task in talking):
                await asyncio.wait(talking, timeout=random.uniform(0, 0.1))
            workers[turn % 2].signal(SIGKILL)
            workers[turn % 2] = await service.worker(**settings)
        enough.set()
        await asyncio.gather(*talking)
        ends = [await one.check(http) for one in done]

    assert set(ends) <= {"completed", "interrupted"}
    for one, end in zip(done, ends, strict=True):
        assert end == "interrupted" or text_of(one.seen) in ("Bonjour", "Il était une fois.")
    asked = "select count(*) from greffier.messages where role = 'user'"
    assert await service.fetch(asked) == [(len(done),)]
    completed = await service.fetch(
        "select u.calls, u.input_tokens, u.output_tokens from greffier.usage u"
        " join greffier.runs r on r.id = u.run_id"
        " where u.provider = 'local' and r.status = 'completed'"
    )
    assert set(completed) == {(1, USAGE["prompt_tokens"], USAGE["completion_tokens"])}
    await service.check()


async def test_the_clock_jumps_an_hour_under_load(service: Service) -> None:
    """Leases end early or late; no run has two endings, no answer two authors, no order breaks."""
    settings = {"RUN_LEASE_SECONDS": "2"}
    node = await service.serve(**settings)
    await service.worker(**settings)
    talker = await agent(node, **script(WORDS[:15], 20))
    done: list[Listener] = []

    async def talk() -> None:
        where = None
        for _ in range(5):
            one = await Listener.ask(http, talker, where)
            where = one.talk
            await one.listen_out(http)
            done.append(one)

    async with node.http() as http:
        talking = [asyncio.create_task(talk()) for _ in range(10)]
        for jump in ("1 hour", "0", "1 hour", "2 hours"):
            enough = len(done) + 8
            while len(done) < enough and not all(task.done() for task in talking):
                await asyncio.wait(talking, timeout=0.05)
            await service.fetch(f"update greffier.identity set clock_shift = '{jump}' returning 1")
        # What an hour back has put off is due now.
        await service.fetch("update greffier.identity set clock_shift = '9 hours' returning 1")
        await asyncio.gather(*talking)
        ends = {await one.check(http) for one in done}

    assert len(done) == 50
    assert ends <= {"completed", "interrupted"}
    assert await service.fetch("select count(*) from greffier.messages where role = 'user'") == [
        (50,)
    ]
    await service.check()
