"""greffier queue: from stuck to well, as a person would go there."""

from __future__ import annotations

import re
import shlex
import signal
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx2
import pytest
import pytest_asyncio

from cli.conftest import start
from greffier.deliver.roster import Doing, Roster
from greffier.read.audit import audit
from greffier.store.database import open_database
from helpers.documents import ROOT, blocks, shows, steps
from helpers.lanes import ENDPOINT, Hand, Lane
from helpers.postgres import connected

if TYPE_CHECKING:
    from cli.conftest import Cli

#: What somebody said, and where it goes: nothing of either is ever shown.
WORDS, TARGET = "message 1", "https://secret.example/hook"
MINUTES = 1 / 60


@pytest_asyncio.fixture
async def hand(on_database: str) -> AsyncIterator[Hand]:
    """A hand on the database that the commands use; it audits clean afterwards."""
    # Who opens a database first says whose it is, and what its clock says.
    async with open_database(on_database), connected(on_database) as live:
        yield Hand(live)
        await live.execute("update identity set clock_shift = '0'")
    async with open_database(on_database) as database:
        report = await audit(database)
        assert report.clean, report.findings


async def endpoint(hand: Hand, disabled: str | None = None) -> None:
    """Make the endpoint of the lanes; disabled, with a reason."""
    await hand.live.execute(
        "insert into endpoints (id, everywhere, channel, target, secrets, ordering, request_hash,"
        " created_by, created_at, disabled_at, disabled_reason) values ($1, false, 'webhook', $2,"
        " '{}', 'strict', '', 'root', now(), case when $3::text is not null then now() end, $3)",
        ENDPOINT,
        TARGET,
        disabled,
    )


async def left_by_a_dead_worker(hand: Hand) -> Lane:
    """A lane whose worker fell silent with a message on its way."""
    database = hand.live
    lane = await hand.lane()
    claim = await hand.claim_one(owner="node-3:4711", lease=600)
    await hand.intend(claim, 1)
    await database.execute(
        "select worker_lives_v1('node-3:4711', 'node-3', 4711, '0', '{run,out}', '1 h', 1, 9, 0, 0,"
        " 0, null)"
    )
    return lane


async def poisoned(hand: Hand) -> Lane:
    """A lane whose message lost its worker three times."""
    lane = await hand.lane()
    for _ in range(4):
        await hand.claim(lease=-1)
    return lane


async def waiting_for_its_endpoint(hand: Hand) -> Lane:
    """A lane whose endpoint is disabled."""
    await endpoint(hand, "Answered 410. It wants no more.")
    lane = await hand.lane()
    claim = await hand.claim_one()
    await hand.call("defer_v1", *claim.lane, claim.token, None)
    return lane


def codes(found: Any, *, person: bool) -> set[str]:
    """What is advised, by code."""
    return {one["code"] for one in found["advice"] if one["person"] is person}


async def test_from_stuck_to_well(cli: Cli, hand: Hand, on_database: str) -> None:
    """A dead worker's lane, a poisoned one and one whose endpoint is down, all named in words.

    What unlock --dry-run shows is what --execute then does, and the conversations go on.
    """
    poison = await poisoned(hand)
    down = await waiting_for_its_endpoint(hand)
    dead = await left_by_a_dead_worker(hand)
    # An hour later somebody looks, and another worker is at work by then.
    await hand.shift(1)
    async with open_database(on_database) as database:
        await Roster(database, "node-4:1", 1, ["run", "out"], lambda: Doing(0, 0, 0, 0, 0)).say()

    said = await cli("queue", "diagnose", "--json")
    assert (said.code, said.err) == (3, "")
    found = said.json()
    assert not found["well"]
    assert codes(found, person=True) == {
        *("oldest-due", "processing-long", "parked", "endpoint-disabled"),
    }
    assert codes(found, person=False) == {"dead-worker", "expired-lease"}
    assert {one["code"] for one in found["alerts"]} == {
        *("oldest-due", "processing-long", "endpoint-disabled"),
    }
    words = (await cli("queue", "diagnose")).out
    told = " ".join(words.split())
    assert "Worker node-3:4711 has said nothing for 60 min and holds 1 lane" in told
    assert "its worker was lost 3 times" in told
    assert "is disabled, 2 lanes waiting: Answered 410." in told
    assert told.endswith("Something needs a person.")
    assert WORDS not in words
    assert TARGET not in words

    # What is parked has used up its tries: that takes force.
    dry = await cli("queue", "unlock", "--dry-run", "--json")
    assert dry.code == 0
    assert [(one["was"], one["lane"]["id"]) for one in dry.json()["data"]] == [
        ("expired", str(dead.id))
    ]
    dry = await cli("queue", "unlock", "--dry-run", "--force", "--json")
    assert "2 lane(s) would be unlocked" in dry.err
    before = [await hand.look(lane) for lane in (dead, poison, down)]
    assert before == [await hand.look(lane) for lane in (dead, poison, down)]
    done = await cli("queue", "unlock", "--execute", "--force", "--json")
    assert done.code == 0
    assert done.json() == {**dry.json(), "executed": True}
    for lane in (dead, poison):
        row = await hand.look(lane)
        assert (await hand.state(lane), row["tries"]) == ("due", 0)
    assert dict(await hand.look(down)) == dict(before[2])

    # The endpoint is mended: what waited for it is due.
    await hand.live.execute("update endpoints set disabled_at = null, disabled_reason = null")
    assert await hand.call("wake_endpoint_v1", ENDPOINT) == 1
    for _ in range(3):
        for claim in await hand.claim():
            for seq in range(claim.head, claim.tail + 1):
                assert await hand.intend(claim, seq) == "go"
                assert await hand.done(claim, seq, keep=30)
    said = await cli("queue", "diagnose")
    assert said.code == 0
    assert said.out.endswith("All is well.\n")
    # The first of the dead worker's may have arrived before, and this is on record.
    assert "note doubles: 1 message of the last day may have arrived twice" in said.out


async def test_unlock_is_asked_for_in_so_many_words(cli: Cli, hand: Hand) -> None:
    """Without --execute it shows what it would do; with both that and --dry-run it does nothing."""
    await poisoned(hand)
    both = await cli("queue", "unlock", "--force", "--dry-run", "--execute")
    assert (both.code, both.out) == (2, "")
    assert "one of --dry-run and --execute" in both.err
    neither = await cli("queue", "unlock", "--force", "--json")
    assert neither.json() == (await cli("queue", "unlock", "--force", "--dry-run", "--json")).json()
    assert (neither.json()["executed"], len(neither.json()["data"])) == (False, 1)
    assert (await cli("queue", "unlock", "--execute", "here")).code == 2


async def test_what_lives_is_stolen_only_when_asked_for(cli: Cli, hand: Hand) -> None:
    """And then whatever its holder writes is refused."""
    lane = await hand.lane()
    claim = await hand.claim_one()
    assert (await cli("queue", "unlock", "--execute", "--force", "--json")).json()["data"] == []
    said = (await cli("queue", "unlock", "--execute", "--steal", lane.id, "--json")).json()
    assert [one["was"] for one in said["data"]] == ["stolen"]
    assert not await hand.done(claim, 1)
    assert await hand.refused(lane) == 1


async def test_who_names_a_lane_is_told_that_it_is_left_as_it_is(cli: Cli, hand: Hand) -> None:
    """With the exit code of a refusal, before and after; one that is not there is told as such."""
    lane = await hand.lane()
    claim = await hand.claim_one()
    for how in ((), ("--execute",)):
        said = await cli("queue", "unlock", *how, lane.id, "--json")
        assert (said.code, said.json()["data"]) == (4, [])
        assert f"Lane {lane.id} is left as it is: it is leased." in said.err
    unknown = await cli("queue", "unlock", lane.id, ENDPOINT, "--steal", "--execute")
    assert (unknown.code, "[not-found]" in unknown.err) == (1, True)
    assert await hand.done(claim, 1)


async def test_unlock_can_be_for_some_alone(cli: Cli, hand: Hand) -> None:
    """By lane, by kind, by endpoint; an endpoint's own limit says when tries are used up."""
    await endpoint(hand)
    await hand.live.execute("update endpoints set max_attempts = 10")
    lanes = [await hand.lane(messages=1) for _ in range(2)]
    for claim in await hand.claim():
        await hand.intend(claim, 1)
        await hand.fail(claim, 1, reason="answered 400")
    await hand.live.execute("update lanes set tries = 5")

    async def ids(*how: object) -> set[str]:
        said = await cli("queue", "unlock", "--dry-run", "--json", *how)
        return {one["lane"]["id"] for one in said.json()["data"]}

    both = {str(lane.id) for lane in lanes}
    assert await ids() == both
    assert await ids(lanes[0].id) == {str(lanes[0].id)}
    assert await ids("--kind", "run") == set()
    assert await ids("--endpoint", ENDPOINT) == both
    assert await ids("--endpoint", lanes[0].id) == set()


async def test_the_message_at_the_head_is_given_up_when_asked_for(cli: Cli, hand: Hand) -> None:
    """Shown first; then the lane goes on behind it, and the journal says who did it."""
    lane = await poisoned(hand)
    said = await cli("queue", "skip", lane.id, "--json")
    assert (said.code, said.json()["executed"]) == (0, False)
    assert [one["skipped_seq"] for one in said.json()["data"]] == [1]
    assert await hand.state(lane) == "parked"

    said = await cli("queue", "skip", lane.id, "--execute", "--json")
    assert [one["skipped_seq"] for one in said.json()["data"]] == [1]
    assert said.json()["data"][0]["lane"]["head_seq"] == 2
    assert await hand.state(lane) == "due"
    shown = (await cli("queue", "list", lane.id, "--json")).json()
    assert (shown["head_seq"], shown["next_cursor"]) == (2, None)
    (tried,) = shown["attempts"]
    assert (tried["seq"], tried["outcome"]) == (1, "skipped")
    assert re.fullmatch("skipped by .* on the command line", tried["detail"])

    claim = await hand.claim_one()
    said = await cli("queue", "skip", claim.lane.id, "--execute")
    assert said.code == 4
    assert f"Lane {lane.id} was left as it is: it is leased." in said.err


async def test_lanes_are_paused_resumed_and_tried_again(cli: Cli, hand: Hand) -> None:
    """Each says what it did; where it did nothing the exit code is 4."""
    lane = await hand.lane()
    claim = await hand.claim_one()
    await hand.intend(claim, 1)
    assert (await cli("queue", "retry", lane.id)).code == 4
    await hand.fail(claim, 1, retry_in=3600)
    for command, state, code in (
        ("retry", "due", 0),
        ("pause", "paused", 0),
        ("pause", "paused", 4),
        ("resume", "due", 0),
        ("resume", "due", 4),
    ):
        said = await cli("queue", command, lane.id, "--json")
        assert (said.code, await hand.state(lane)) == (code, state)
        (one,) = said.json()["data"]
        assert (one["changed"], one["lane"]["state"]) == (code == 0, state)
        assert str(lane.id) in said.err


async def test_lanes_are_listed_page_by_page(cli: Cli, hand: Hand) -> None:
    """As a table and as JSON, with where to go on; a lane that is not there is named."""
    await hand.lane()
    await hand.lane()
    said = await cli("queue", "list", "--state", "due", "--limit", "1", "--json")
    first = said.json()
    rest = (
        await cli(
            *("queue", "list", "--state", "due", "--cursor", first["next_cursor"], "--json"),
        )
    ).json()
    assert rest["next_cursor"] is None
    assert len({one["id"] for one in first["data"] + rest["data"]}) == 2
    said = await cli("queue", "list")
    assert said.out.count("due") == 3  # the head of a column, and two lanes
    assert WORDS not in said.out
    assert (await cli("queue", "list", "--state", "parked")).err == "There is no such lane.\n"
    unknown = await cli("queue", "retry", ENDPOINT)
    assert (unknown.code, "[not-found]" in unknown.err) == (1, True)


async def test_a_worker_that_is_stopped_leaves_and_one_that_is_killed_is_missed(
    cli: Cli, hand: Hand
) -> None:
    """The first says so itself; of the second it is seen that it has fallen silent."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        process = await start("worker")
        assert process.stderr is not None
        while not (name := re.search("works as (.+)", (await process.stderr.readline()).decode())):
            assert process.returncode is None
        found = (await cli("queue", "diagnose", "--json")).json()
        while not found["workers"]:
            found = (await cli("queue", "diagnose", "--json")).json()
        (one,) = found["workers"]
        assert (one["id"], one["alive"], one["kinds"]) == (name[1], True, ["run", "out"])
        process.send_signal(how)
        await process.wait()
        found = (await cli("queue", "diagnose", "--json")).json()
        if how == signal.SIGTERM:
            assert found["workers"] == []
    await hand.shift(1 * MINUTES)
    (one,) = (await cli("queue", "diagnose", "--json")).json()["workers"]
    assert not one["alive"]


async def test_a_worker_tells_what_it_measures_where_it_is_told_to(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own deliveries and claims are counted nowhere else; nothing but that is served there."""
    await cli("db", "status")
    monkeypatch.setenv("GREFFIER_METRICS_PORT", "0")
    process = await start("worker")
    assert process.stderr is not None
    line = (await process.stderr.readline()).decode()
    found = re.search(r"works as .+ \(metrics: (http://127\.0\.0\.1:[0-9]+)/metrics\)", line)
    assert found, line
    async with httpx2.AsyncClient(base_url=found[1]) as http:
        told = await http.get("/metrics")
        assert (told.status_code, told.headers["content-type"][:10]) == (200, "text/plain")
        for name in ("greffier_up 1.0", "greffier_lanes_claimed_total 0.0", "greffier_workers "):
            assert f"\n{name}" in told.text
        assert (await http.get("/healthz")).json() == {"status": "alive"}
        assert (await http.head("/metrics")).content == b""
        assert (await http.get("/v1/ops/queue")).status_code == 404
    process.terminate()
    assert await process.wait() == 0


# -- the how-to page -------------------------------------------------------------------------------

PAGE = ROOT / "docs/en/howto/operate-the-queue.md"


def known(number: int) -> UUID:
    """An id that a page can show."""
    return UUID(f"0197f0c8-7a70-7bbb-8f6e-{number:012x}")


async def lane_of(hand: Hand, number: int, *, messages: int = 2) -> Lane:
    """A conversation of some messages, all of them for an endpoint of its own."""
    talk, endpoint = known(number), known(0xE0 + number)
    await hand.call(
        "create_conversation_v1", talk, talk, "assistant", "", None, None, "ada", 30, "{}", [], []
    )
    for _ in range(messages):
        await hand.say(talk)
    await hand.live.execute(
        "insert into endpoints (id, everywhere, channel, target, secrets, ordering, request_hash,"
        " created_by, created_at) values ($1, false, 'webhook', $2, '{}', 'strict', '', 'root',"
        " now())",
        endpoint,
        TARGET,
    )
    due = await hand.clock()
    return Lane(talk, await hand.call("enqueue_v1", talk, "out", endpoint, 1, messages, due))


async def stuck_as_on_the_page(hand: Hand) -> None:
    """A message that kills its workers, an endpoint that is down, a worker that died just now."""
    await lane_of(hand, 1)
    for time in range(4):
        await hand.shift(2 * time * MINUTES)
        for claim in await hand.claim(owner=f"node-{time + 1}:4711", lease=60):
            if not claim.parked:
                await hand.intend(claim, 1)
    down = await lane_of(hand, 2)
    claim = await hand.claim_one()
    await hand.live.execute(
        "update endpoints set disabled_at = lane_clock(), disabled_reason = $2 where id = $1",
        known(0xE2),
        "Answered 410. It wants no more.",
    )
    await hand.call("defer_v1", *down, claim.token, None)
    await lane_of(hand, 3)
    claim = await hand.claim_one(owner="node-3:4711", lease=600)
    await hand.intend(claim, 1)
    await lives(hand, "node-3:4711", 1)
    await hand.shift(10 * MINUTES)
    await lives(hand, "node-4:4711", 0)


async def lives(hand: Hand, worker: str, busy: int) -> None:
    """A worker says that it lives."""
    host, _, pid = worker.partition(":")
    await hand.call(
        "worker_lives_v1", worker, host, int(pid), "0", ["run", "out"], timedelta(hours=1), busy,
        9, 0, 0, 0, None,
    )  # fmt: skip


async def goes_on(hand: Hand) -> None:
    """The endpoint is enabled, and a worker sends what is due."""
    await hand.live.execute("update endpoints set disabled_at = null, disabled_reason = null")
    await hand.call("wake_endpoint_v1", known(0xE2))
    for claim in await hand.claim():
        for seq in range(claim.head, claim.tail + 1):
            assert await hand.intend(claim, seq) == "go"
            assert await hand.done(claim, seq, keep=30)


async def test_the_page_shows_what_comes_of_each_command(
    cli: Cli, hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Typed as it stands, in order; before its last block the endpoint is mended."""
    monkeypatch.setenv("COLUMNS", "100")
    await stuck_as_on_the_page(hand)
    told = []
    found = [one for one in blocks(PAGE) if one.tour]
    assert [one.tour for one in found] == ["queue", "queue", "queue", "well"]
    for block in found:
        if block.tour == "well":
            await goes_on(hand)
        for step in steps(block.text):
            name, *arguments = shlex.split(step.command)
            assert name == "greffier"
            said = await cli(*arguments)
            if not shows(step.output, said.out + said.err):
                told.append((step.command, step.output, said.out + said.err))
    assert told == []
