"""What two who bring messages, send them or look after endpoints at once may count on."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from greffier.change.source import receive
from greffier.model.ids import uuid7
from greffier.model.source import Incoming
from greffier.store.database import open_database
from helpers.lanes import Claim, Hand
from helpers.postgres import wait_for_lock
from helpers.sessions import Session
from races.test_lanes import told

PATIENCE = timedelta(days=5)


class Desk(Hand):
    """Whoever brings messages, and looks after endpoints, with one connection."""

    async def source(self, **more: Any) -> UUID:
        """Make a source."""
        made = uuid7()
        await self.call(
            "create_source_v1", made, made.bytes, "form", "ada", more.get("agent"),
            more.get("endpoint"), None, ["secret"], timedelta(0), "root",
        )  # fmt: skip
        return made

    async def receive(self, source: UUID, contact: str, external: str) -> Any:
        """Bring a message."""
        (row,) = await self.rows(
            "receive_v1", source, external, contact, contact, contact, None, "hello", "{}", None,
            uuid7(), b"h", uuid7(), uuid7(),
        )  # fmt: skip
        return row

    async def endpoint(self, *, paused: bool = False, concurrency: int | None = None) -> UUID:
        """Make an endpoint for all conversations."""
        made = uuid7()
        await self.call(
            "create_endpoint_v1", made, made.bytes, None, None, True, "webhook", "https://x.org",
            ["secret"], "{}", None, "strict", None, None, concurrency, None, paused, "root", 10,
        )  # fmt: skip
        return made

    async def pause_endpoint(self, endpoint: UUID, paused: bool = False) -> int:
        """Pause it, or resume it."""
        version = await self.live.fetchval("select version from endpoints where id = $1", endpoint)
        answer: int = await self.call(
            "patch_endpoint_v1", endpoint, version, "https://x.org", "{}", None, "strict", None,
            None, None, None, paused, False,
        )  # fmt: skip
        return answer

    async def defer(self, claim: Claim, wait: float | None = None) -> bool:
        """Let a lane go until its endpoint goes on."""
        answer: bool = await self.call(
            "defer_v1", *claim.lane, claim.token,
            None if wait is None else timedelta(seconds=wait),
        )  # fmt: skip
        return answer


def desks(rivals: list[Session]) -> list[Desk]:
    """What the sessions do."""
    return [Desk(session.live) for session in rivals]


# -- Coming in


async def test_two_first_messages_of_a_contact_make_one_conversation(
    rivals: list[Session],
) -> None:
    """The second waits for the contact, and stands behind the first."""
    first, second, _ = rivals
    one, other, _ = desks(rivals)
    source = await one.source()
    async with first.open():
        a = await one.receive(source, "ada", "1")
        waiting = await second.waits(other.receive(source, "ada", "2"))
    b = await waiting
    assert a["conversation_id"] == b["conversation_id"]
    assert (a["seq"], b["seq"], a["created"], b["created"]) == (1, 2, True, False)


async def test_the_same_message_at_once_is_one(rivals: list[Session]) -> None:
    """The second finds it, whoever brings it."""
    first, second, _ = rivals
    one, other, _ = desks(rivals)
    source = await one.source()
    async with first.open():
        a = await one.receive(source, "ada", "1")
        waiting = await second.waits(other.receive(source, "ada", "1"))
    b = await waiting
    assert (b["outcome"], b["conversation_id"], b["seq"]) == (
        "replayed", a["conversation_id"], a["seq"]
    )  # fmt: skip


async def test_one_id_from_two_contacts_at_once_is_kept_for_one(rivals: list[Session]) -> None:
    """The other is refused, and finds it when it asks again."""
    first, second, _ = rivals
    one, other, _ = desks(rivals)
    source = await one.source()
    async with first.open():
        await one.receive(source, "ada", "1")
        waiting = await second.waits(told(other.receive(source, "bob", "1")))
    assert await waiting == "GR409"
    assert (await other.receive(source, "bob", "1"))["outcome"] == "replayed"
    assert await other.live.fetchval("select count(*) from source_contacts") == 1


async def test_who_brings_it_is_told_that_it_was_brought(
    rivals: list[Session], database: str
) -> None:
    """The same external id changes nothing, from whomever it comes and however soon."""
    first, _, _ = rivals
    one, looks, _ = desks(rivals)
    source = await one.source()
    async with open_database(database) as opened:
        incoming = Incoming(external_id="1", contact="bob", content="hello")
        async with first.open():
            was = await one.receive(source, "ada", "1")
            bringing = asyncio.create_task(receive(opened, source, incoming))
            await wait_for_lock(looks.live, "%receive_v1%")
        received = await bringing
    assert (received.conversation_id, received.seq) == (was["conversation_id"], 1)
    assert received.replayed


@pytest.mark.parametrize("erased_first", [True, False])
async def test_who_writes_while_it_is_erased_begins_anew_or_is_erased_too(
    rivals: list[Session], erased_first: bool
) -> None:
    """In either order, without a deadlock: both take the contact first."""
    first, second, _ = rivals
    one, other, _ = desks(rivals)
    source = await one.source()
    talk = (await one.receive(source, "ada", "1"))["conversation_id"]
    async with first.open():
        if erased_first:
            await one.call("erase_conversation_v1", talk, None)
            waiting = await second.waits(other.receive(source, "ada", "2"))
        else:
            await one.receive(source, "ada", "2")
            waiting = await second.waits(other.call("erase_conversation_v1", talk, None))
    answer = await waiting
    assert await one.live.fetchval("select count(*) from erased where conversation_id = $1", talk)
    if erased_first:
        assert answer["conversation_id"] != talk
    assert await one.live.fetchval("select count(*) from conversations") == int(erased_first)


async def test_who_writes_to_a_source_that_goes_finds_none(rivals: list[Session]) -> None:
    """Nothing of it is left."""
    first, second, _ = rivals
    one, other, _ = desks(rivals)
    source = await one.source()
    async with first.open():
        await one.call("delete_source_v1", source)
        waiting = await second.waits(other.receive(source, "ada", "1"))
    assert (await waiting)["outcome"] == "gone"
    assert await one.live.fetchval("select count(*) from source_contacts") == 0


async def test_a_conversation_has_no_endpoint_that_went_as_it_was_begun(
    rivals: list[Session],
) -> None:
    """Its messages would be work for nobody, each of them."""
    first, second, _ = rivals
    one, other, _ = desks(rivals)
    endpoint = await one.endpoint()
    source = await one.source(endpoint=endpoint)
    async with first.open():
        assert await one.call("delete_endpoint_v1", endpoint, None, True)
        waiting = await second.waits(other.receive(source, "ada", "1"))
    assert (await waiting)["outcome"] == "stored"
    assert await one.live.fetchval("select count(*) from conversation_endpoints") == 0


# -- Going out


async def test_who_lets_go_while_it_is_resumed_does_not_wait(rivals: list[Session]) -> None:
    """It was paused when they asked; it is not when they let go."""
    first, second, _ = rivals
    keeper, works, _ = desks(rivals)
    endpoint = await keeper.endpoint(paused=True)
    talk = await works.talk()
    await works.say(talk)
    claim = await works.claim_one()
    async with first.open():
        await keeper.pause_endpoint(endpoint)
        waiting = await second.waits(works.defer(claim))
    assert await waiting is True
    assert await works.state(claim.lane) == "due"


async def test_who_resumes_while_one_lets_go_wakes_it(rivals: list[Session]) -> None:
    """The other order: resuming waits, and finds the lane."""
    first, second, _ = rivals
    works, keeper, _ = desks(rivals)
    endpoint = await keeper.endpoint(paused=True)
    talk = await works.talk()
    await works.say(talk)
    claim = await works.claim_one()
    async with first.open():
        await works.defer(claim)
        waiting = await second.waits(keeper.pause_endpoint(endpoint))
    await waiting
    assert await works.state(claim.lane) == "due"


async def test_what_is_said_while_it_is_resumed_is_due(rivals: list[Session]) -> None:
    """Resuming does not wait for who speaks; what they say makes the lane due."""
    first, _, _ = rivals
    speaks, keeper, _ = desks(rivals)
    endpoint = await keeper.endpoint(paused=True)
    talk = await speaks.talk()
    await speaks.say(talk)
    claim = await keeper.claim_one()
    await keeper.defer(claim)
    async with first.open():
        await speaks.say(talk)
        await keeper.pause_endpoint(endpoint)
    assert await speaks.state(claim.lane) == "due"


async def test_what_is_said_while_an_endpoint_goes_waits_for_nobody(
    rivals: list[Session],
) -> None:
    """Its lane is dropped by who claims it."""
    first, _, _ = rivals
    speaks, keeper, _ = desks(rivals)
    endpoint = await keeper.endpoint()
    talk = await speaks.talk()
    async with first.open():
        await speaks.say(talk)
        assert await keeper.call("delete_endpoint_v1", endpoint, None, True)
    claim = await keeper.claim_one()
    assert await keeper.call("abandon_v1", *claim.lane, claim.token) is True
    assert await keeper.look(claim.lane) is None


async def test_a_lane_of_an_endpoint_that_is_there_is_not_dropped(rivals: list[Session]) -> None:
    """Whoever asks for it."""
    _, works, _ = desks(rivals)
    await works.endpoint()
    talk = await works.talk()
    await works.say(talk)
    claim = await works.claim_one()
    assert await works.call("abandon_v1", *claim.lane, claim.token) is False
    assert await works.release(claim)


async def test_two_ask_for_the_last_place_and_one_gets_it(rivals: list[Session]) -> None:
    """Neither waits for the other; who has it may ask again."""
    first, _, _ = rivals
    one, other, _ = desks(rivals)
    endpoint = await one.endpoint(concurrency=1)
    a, b, hold = uuid7(), uuid7(), timedelta(minutes=1)
    async with first.open():
        ((mine, _, _),) = await one.rows("admit_v1", endpoint, a, hold)
        ((theirs, _, why),) = await other.rows("admit_v1", endpoint, b, hold)
    assert (mine, theirs, why) == ("go", "wait", "busy")
    ((again, _, _),) = await one.rows("admit_v1", endpoint, a, hold)
    assert again == "go"
    await one.call("report_v1", endpoint, a, None, None, PATIENCE)
    ((theirs, _, _),) = await other.rows("admit_v1", endpoint, b, hold)
    assert theirs == "go"
    # Whoever died with it has it no longer than so.
    await one.shift(1)
    ((mine, _, _),) = await one.rows("admit_v1", endpoint, a, hold)
    assert mine == "go"


async def test_those_who_wait_for_their_turn_are_told_a_time_each(rivals: list[Session]) -> None:
    """Of a rate: so that a thousand do not come back for every place; none waits too long."""
    one, _, _ = desks(rivals)
    endpoint = await one.endpoint()
    await one.live.execute("update endpoints set per_minute = 6")
    hold = timedelta(minutes=1)
    ((answer, _, _),) = await one.rows("admit_v1", endpoint, uuid7(), hold)
    assert answer == "go"
    waits = []
    for _ in range(100):
        ((answer, wait, why),) = await one.rows("admit_v1", endpoint, uuid7(), hold)
        assert (answer, why) == ("wait", "rate")
        waits.append(wait.total_seconds())
    assert [round(wait, -1) for wait in waits[:4]] == [10, 20, 30, 40]
    assert max(waits) == 600
    await one.shift(1)
    ((answer, _, _),) = await one.rows("admit_v1", endpoint, uuid7(), hold)
    assert answer == "go"


async def test_of_those_who_wait_for_a_failing_endpoint_one_tries(rivals: list[Session]) -> None:
    """The others wait for what comes of it; a success lets all go."""
    first, second, _ = rivals
    one, other, _ = desks(rivals)
    endpoint = await one.endpoint()
    a, b, hold = uuid7(), uuid7(), timedelta(minutes=1)
    for _ in range(5):
        await one.call("report_v1", endpoint, a, False, None, PATIENCE)
    ((answer, _, why),) = await one.rows("admit_v1", endpoint, a, hold)
    assert (answer, why) == ("wait", "failing")
    await one.shift(1)
    async with first.open():
        ((mine, _, _),) = await one.rows("admit_v1", endpoint, a, hold)
        waiting = await second.waits(other.rows("admit_v1", endpoint, b, hold))
    ((theirs, _, why),) = await waiting
    assert (mine, theirs, why) == ("go", "wait", "failing")
    await one.call("report_v1", endpoint, a, True, None, PATIENCE)
    ((theirs, _, _),) = await other.rows("admit_v1", endpoint, b, hold)
    assert theirs == "go"


async def test_those_who_fail_together_are_one_outage(rivals: list[Session]) -> None:
    """Forty on their way when an endpoint went down put it off by 10 seconds, not by minutes."""
    one, _, _ = desks(rivals)
    endpoint = await one.endpoint()
    hold = timedelta(minutes=1)
    on_their_way = [uuid7() for _ in range(40)]
    for holder in on_their_way:
        ((answer, _, _),) = await one.rows("admit_v1", endpoint, holder, hold)
        assert answer == "go"

    async def left_alone() -> tuple[int, int]:
        row = await one.live.fetchrow(
            "select failures, extract(epoch from held_until - lane_clock()) as rest from endpoints"
        )
        assert row is not None
        return row["failures"], round(row["rest"], -1)

    for holder in on_their_way[:-1]:
        await one.call("report_v1", endpoint, holder, False, None, PATIENCE)
    assert await left_alone() == (5, 10)

    # Who tries next counts, also when one that was on its way fails behind it.
    await one.shift(1)
    tries = uuid7()
    ((answer, _, _),) = await one.rows("admit_v1", endpoint, tries, hold)
    assert answer == "go"
    await one.call("report_v1", endpoint, on_their_way[-1], False, None, PATIENCE)
    assert await left_alone() == (5, 60)
    await one.call("report_v1", endpoint, tries, False, None, PATIENCE)
    assert await left_alone() == (6, 20)


async def test_a_message_that_breaks_its_receiver_is_not_hurried_by_the_others(
    rivals: list[Session],
) -> None:
    """It keeps the time it was told while they succeed; after an outage all go at once."""
    one, _, _ = desks(rivals)
    endpoint = await one.endpoint()
    await one.say(await one.talk())
    holder = uuid7()

    async def waits_after(failures: int) -> bool:
        await one.live.execute("update lanes set due_at = lane_clock() + '1 hour'")
        for _ in range(failures):
            await one.call("report_v1", endpoint, holder, False, None, PATIENCE)
        await one.call("report_v1", endpoint, holder, True, None, PATIENCE)
        waits: bool = await one.live.fetchval("select due_at > lane_clock() from lanes")
        return waits

    assert await waits_after(4)
    assert not await waits_after(5)
