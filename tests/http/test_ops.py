"""Promise: who operates the service sees how the queue does and mends it, and nobody's words."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from helpers.api import Person, Served, expect, refused
from helpers.lanes import Hand
from helpers.postgres import connected

#: What somebody said in the conversations of these lanes.
WORDS = "message 1"


@pytest_asyncio.fixture
async def hand(served: Served) -> AsyncIterator[Hand]:
    """A hand on the database of the application, with no lane in it."""
    async with connected(served.database.dsn) as live:
        await live.execute("truncate lanes, attempts, alerts, endpoints")
        yield Hand(live)
        await live.execute("update identity set clock_shift = '0'")


@pytest_asyncio.fixture
async def ops(served: Served, root: Person) -> AsyncIterator[Person]:
    """A key of scope ops."""
    made = expect(await root.http.post("/v1/keys", json={"scope": "ops", "name": "on duty"}), 201)
    async with served.anonymous() as http:
        http.headers["Authorization"] = f"Bearer {made['key']}"
        yield Person("ops", http)


async def test_the_queue_is_diagnosed_for_who_operates_it(
    served: Served, hand: Hand, ops: Person, root: Person
) -> None:
    """Numbers, alerts and advice; nothing of what was said, nor where it goes."""
    await hand.lane()
    await hand.claim_one(lease=-600)
    for person in (ops, root):
        answer = await person.http.get("/v1/ops/queue")
        found = expect(answer, 200)
        assert (found["well"], found["lanes"]) == (
            False,
            [{"kind": "out", "state": "expired", "lanes": 1}],
        )
        assert {one["code"] for one in found["advice"]} >= {"no-worker", "expired-lease"}
        assert WORDS not in answer.text
    alerts = expect(await ops.http.get("/v1/ops/alerts"), 200)["data"]
    assert [(one["code"], one["count"], one["since"]) for one in alerts] == [
        ("no-worker", 1, None),
        ("oldest-due", 1, None),
    ]
    async with served.person("ada").http as ada:
        refused(await ada.get("/v1/ops/queue"), 403, "forbidden")


async def test_lanes_are_found_looked_at_and_unlocked(hand: Hand, ops: Person) -> None:
    """By state, page by page; unlocking says what it was, and again that there is nothing to do."""
    lanes = [await hand.lane() for _ in range(3)]
    for claim in await hand.claim():
        await hand.intend(claim, 1)
        await hand.fail(claim, 1, max_tries=1)
    first = expect(await ops.http.get("/v1/ops/lanes?state=parked&limit=2"), 200)
    rest = expect(
        await ops.http.get(f"/v1/ops/lanes?state=parked&cursor={first['next_cursor']}"), 200
    )
    found = first["data"] + rest["data"]
    assert [one["id"] for one in found] == sorted(str(lane.id) for lane in lanes)
    assert rest["next_cursor"] is None
    here = f"/v1/ops/lanes/{found[0]['id']}"
    assert expect(await ops.http.get(here), 200) == found[0]
    assert found[0]["park_reason"] == "tried 1 times: 503"

    done = expect(await ops.http.post(f"{here}/unlock"), 200)
    assert (done["changed"], done["was"], done["lane"]["state"]) == (True, "parked", "due")
    done = expect(await ops.http.post(f"{here}/unlock", json={"force": True}), 200)
    assert (done["changed"], done["was"]) == (False, None)


async def test_a_live_lease_is_stolen_only_when_that_is_said(hand: Hand, ops: Person) -> None:
    """The holder's next write is refused, and counted in the lane."""
    lane = await hand.lane()
    claim = await hand.claim_one()
    here = f"/v1/ops/lanes/{lane.id}"
    assert not expect(await ops.http.post(f"{here}/unlock", json={"force": True}), 200)["changed"]
    done = expect(await ops.http.post(f"{here}/unlock", json={"steal": True}), 200)
    assert (done["changed"], done["was"]) == (True, "stolen")
    assert not await hand.done(claim, 1)
    assert expect(await ops.http.get(here), 200)["refused_writes"] == 1


async def test_a_lane_is_paused_resumed_retried_and_skipped(hand: Hand, ops: Person) -> None:
    """Each once; the journal names the key that gave a message up."""
    lane = await hand.lane()
    here = f"/v1/ops/lanes/{lane.id}"
    for verb, changed, state in (
        ("pause", True, "paused"),
        ("pause", False, "paused"),
        ("resume", True, "due"),
        ("resume", False, "due"),
        ("retry", True, "due"),
    ):
        done = expect(await ops.http.post(f"{here}/{verb}"), 200)
        assert (done["changed"], done["lane"]["state"]) == (changed, state), verb
    done = expect(await ops.http.post(f"{here}/skip"), 200)
    assert (done["changed"], done["skipped_seq"], done["lane"]["head_seq"]) == (True, 1, 2)
    tried = expect(await ops.http.get(f"/v1/ops/attempts?lane_id={lane.id}"), 200)
    assert [(one["seq"], one["outcome"], one["detail"]) for one in tried["data"]] == [
        (1, "skipped", "skipped by ops:on duty")
    ]
    claim = await hand.claim_one()
    assert not expect(await ops.http.post(f"{here}/skip"), 200)["changed"]
    assert await hand.intend(claim, 2) == "go"


async def test_the_newest_attempts_of_all_lanes_are_listed_page_by_page(
    hand: Hand, ops: Person
) -> None:
    """Without a lane: each once, newest first, with the lane it is of."""
    lanes = [await hand.lane() for _ in range(3)]
    for lane in lanes:
        expect(await ops.http.post(f"/v1/ops/lanes/{lane.id}/skip"), 200)
    found, cursor = [], ""
    for _ in lanes:
        page = expect(await ops.http.get(f"/v1/ops/attempts?limit=1{cursor}"), 200)
        found += page["data"]
        cursor = f"&cursor={page['next_cursor']}"
    assert page["next_cursor"] is None
    assert [one["lane_id"] for one in found] == [str(lane.id) for lane in reversed(lanes)]
    one = expect(await ops.http.get(f"/v1/ops/attempts?lane_id={lanes[0].id}"), 200)["data"]
    assert one == found[-1:]


async def test_of_a_run_lane_the_run_is_named(hand: Hand, ops: Person) -> None:
    """Whoever looks for a stuck answer finds which it is; a run is not skipped, but cancelled."""
    claim, run = await hand.running()
    found = expect(await ops.http.get("/v1/ops/lanes?kind=run&state=leased"), 200)["data"]
    assert [(one["id"], one["run_id"]) for one in found] == [(str(claim.lane.id), str(run))]
    done = expect(await ops.http.post(f"/v1/ops/lanes/{claim.lane.id}/skip"), 200)
    assert not done["changed"]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", f"/v1/ops/lanes/{uuid.UUID(int=1)}", 404, "not-found"),
        ("POST", f"/v1/ops/lanes/{uuid.UUID(int=1)}/skip", 404, "not-found"),
        ("GET", "/v1/ops/lanes/one", 404, "not-found"),
        ("GET", "/v1/ops/lanes?state=lost", 422, "validation"),
        ("GET", "/v1/ops/lanes?limit=0", 422, "validation"),
        ("GET", "/v1/ops/lanes?state=due&cursor=AA", 422, "validation"),
        ("GET", "/v1/ops/attempts?limit=101", 422, "validation"),
        ("GET", "/v1/ops/attempts?cursor=1.1", 422, "validation"),
        ("GET", "/v1/ops/attempts?lane_id=one", 422, "validation"),
        ("GET", f"/v1/ops/attempts?lane_id={uuid.UUID(int=1)}&cursor=1", 422, "validation"),
    ],
)
async def test_what_makes_no_sense_is_refused(
    ops: Person, method: str, path: str, status: int, code: str
) -> None:
    """With the code that says why."""
    refused(await ops.http.request(method, path), status, code)
