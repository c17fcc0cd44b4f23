"""P11 for what comes in and goes out: where it was sent, who wrote, what the far side called it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio

from greffier.change.forget import forget_user
from greffier.deliver.channels import Channels
from greffier.deliver.channels.webhook import Webhook
from greffier.deliver.keeping import Endpoints
from greffier.deliver.targets import ChannelTargets
from greffier.errors import Gone, NotFound
from greffier.library import Greffier
from greffier.read.audit import audit
from greffier.store.database import Database
from helpers.dump import Words, dump, sampled
from helpers.lanes import Hand
from helpers.postgres import connected


@pytest_asyncio.fixture
async def hand(database: str) -> AsyncIterator[Hand]:
    """Somebody who works on lanes."""
    async with connected(database) as live:
        yield Hand(live)


@pytest.fixture
def known(g: Greffier) -> Greffier:
    """The library, with a channel that takes any target here."""
    channels = Channels([Webhook(allow_private=True)])
    g.endpoints = Endpoints(g.database, ChannelTargets(channels))
    return g


async def receive(g: Greffier, source: UUID, words: Words) -> UUID:
    """Let somebody write: every field holds words."""
    received = await g.receive(
        source,
        external_id=words("external"),
        contact=words("contact"),
        contact_name=words("name"),
        content=words("said"),
        subject=words("subject"),
    )
    return received.conversation_id


async def deliver(hand: Hand, talk: UUID, words: Words) -> None:
    """Let each lane of a conversation send one message and fail with what follows, for good."""
    for claim in await hand.claim():
        if claim.lane.talk != talk:
            await hand.release(claim)
            continue
        assert await hand.intend(claim, claim.head) == "go"
        endpoint = (await hand.look(claim.lane))["endpoint_id"]
        answer = await hand.call(
            "done_and_next_v1", *claim.lane, claim.token, claim.head, "accepted", words("detail"),
            words("far"), endpoint, None, None, None,
        )  # fmt: skip
        assert answer == "done"
    for claim in await hand.claim():
        if claim.lane.talk != talk:
            await hand.release(claim)
            continue
        assert await hand.intend(claim, claim.head) == "go"
        await hand.call(
            "fail_v1", *claim.lane, claim.token, claim.head, "rejected", words("detail"), None,
            None, words("reason"),
        )  # fmt: skip
        endpoint = (await hand.look(claim.lane))["endpoint_id"]
        if await hand.live.fetchval(
            "select only_conversation_id is not null from endpoints where id = $1", endpoint
        ):
            # The reason of everybody's endpoint is the channel's, and stays.
            await hand.call("report_v1", endpoint, None, False, words("disabled"), None)


async def hook(g: Greffier, words: Words, **more: Any) -> UUID:
    """Make an endpoint with words in every field."""
    made = await g.endpoints.create(
        channel="webhook",
        target=f"https://{words('host')}.example/{{contact}}" if not more
        else f"https://{words('host')}.example/",
        settings={words("key"): words("value")},
        **more,
    )  # fmt: skip
    return made.id


async def test_an_erased_conversation_leaves_nothing_outside_of_its_messages(
    known: Greffier, hand: Hand, database: str
) -> None:
    """Contact, targets, receipts, journal, its own endpoint; another's are untouched."""
    g = known
    gone, kept = Words(), Words()
    endpoint = await hook(g, kept)
    source = await g.sources.create(name=kept("form"), owner="ada", endpoint=endpoint)
    talks: list[UUID] = []
    for words in (gone, kept):
        talk = await receive(g, source.id, words)
        await hook(g, words, conversation=talk)
        for _ in range(2):
            await g.messages.append(talk, content=words("answer"), role="assistant")
        await deliver(hand, talk, words)
        talks.append(talk)
    await hand.live.execute("analyze")
    assert gone.found_in(await dump(database)) == gone.made

    await g.conversations.erase(talks[0])

    left = await dump(database)
    assert gone.found_in(left) == []
    assert kept.found_in(left) == kept.made
    assert gone.found_in(await sampled(database)) == []
    for table in ("conversation_endpoints", "receipts", "source_contacts", "lanes", "attempts"):
        many = await hand.live.fetchval(
            f"select count(*) from {table} where conversation_id = $1", talks[0]
        )
        assert (table, many) == (table, 0)
    assert (await audit(g.database)).clean


async def test_what_came_in_once_does_not_come_back(known: Greffier, hand: Hand) -> None:
    """Of an erased message the external id is still known, and nobody can read it."""
    words = Words()
    source = await known.sources.create(name="form", owner="ada")
    talk = await receive(known, source.id, words)
    external = words.made[0]
    await known.conversations.erase(talk)

    again = await known.receive(source.id, external_id=external, contact="x", content="again")

    assert (again.replayed, again.conversation_id) == (True, talk)
    with pytest.raises(Gone):
        await known.conversations.get(talk)
    assert await hand.live.fetchval("select count(*) from messages") == 0


async def test_a_forgotten_person_is_named_by_no_endpoint_or_source(
    known: Greffier, store: Database, hand: Hand, database: str
) -> None:
    """Where they wanted a room's words sent goes with them; what is for everybody stays."""
    g = known
    gone, kept = Words(), Words()
    ada = gone("ada")
    room = await g.conversations.create(
        owner=ada, kind="room", participants={"bob": "member"}, title=kept("title")
    )
    mine = await hook(g, gone, conversation=room.id, actor=ada)
    general = await hook(g, kept, everywhere=False, actor=ada)
    source = await g.sources.create(name=kept("source"), owner=ada)
    other = await g.sources.create(name=kept("other"), owner="bob")
    await hand.live.execute("update sources set created_by = $1", ada)
    await receive(g, source.id, gone)
    await hand.live.execute("analyze")
    before = await dump(database)
    assert gone.found_in(before) == gone.made

    await forget_user(store, ada)

    left = await dump(database)
    assert gone.found_in(left) == []
    assert kept.found_in(left) == [word for word in kept.made if not word.startswith("source")]
    assert gone.found_in(await sampled(database)) == []
    with pytest.raises(NotFound):
        await g.endpoints.get(mine)
    assert (await g.endpoints.get(general)).created_by != ada
    assert (await g.sources.get(other.id)).created_by != ada
    assert (await audit(store)).clean
