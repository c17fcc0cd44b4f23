"""The feed: a follower gets every change once, in order, whatever happens to the signals."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import msgspec
import pytest

from greffier.change import append as append_verb
from greffier.change import conversation as conversations
from greffier.change import message as message_verbs
from greffier.change import path as path_verbs
from greffier.change import people as people_verbs
from greffier.errors import NotFound
from greffier.model.conversation import NewConversation, NewParticipant
from greffier.model.draft import SERVICE
from greffier.model.limits import Limits
from greffier.model.message import Draft
from greffier.publish import feed as feed_module
from greffier.publish import own as own_module
from greffier.publish.bus import Bus, PostgresBus
from greffier.publish.change import Change
from greffier.publish.feed import Feed, Following
from greffier.publish.own import OwnFeeds, OwnFollower
from greffier.publish.stream import QUEUE_CHANGES
from greffier.store.database import Database, open_database
from helpers.bad_bus import BadHub
from helpers.patience import PATIENCE


@contextlib.asynccontextmanager
async def serving(
    dsn: str, bus: Bus | None = None, *, limits: Limits | None = None
) -> AsyncIterator[tuple[Database, Feed, OwnFeeds]]:
    """One process of a service, as far as following goes."""
    async with open_database(dsn) as database:
        feed = Feed(database, bus, limits=limits or Limits())
        own = OwnFeeds(database, feed)
        tasks = [asyncio.create_task(one.run()) for one in (feed, own)]
        # A turn of the loop, so that they listen before anything is committed.
        await asyncio.sleep(0)
        try:
            yield database, feed, own
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def room(database: Database, *members: str) -> UUID:
    """A room of ada's."""
    people = [NewParticipant(member) for member in members]
    made, _ = await conversations.create(
        database, NewConversation(kind="room", participants=people), "ada"
    )
    return made


async def say(database: Database, conversation_id: UUID, content: str) -> None:
    """Put words on record."""
    await append_verb.append(database, conversation_id, [Draft(content=content)], SERVICE)


async def until(following: Following, rev: int) -> list[Change]:
    """Take changes until a rev is reached."""
    taken: list[Change] = []
    async with asyncio.timeout(PATIENCE):
        while following.rev < rev:
            change = await following.next()
            assert change is not None
            taken.append(change)
    return taken


def said(changes: list[Change]) -> list[str]:
    """What was said in these changes, in the order it came."""
    found: list[str] = []
    for change in changes:
        body: dict[str, Any] = msgspec.json.decode(change.body)
        found += [one["content"] for one in body["messages"]]
    return found


async def test_a_follower_gets_every_change_once_and_in_order(database: str) -> None:
    """Twenty writers at once: what is heard is what was said, each change from where one stood."""
    async with serving(database) as (record, feed, _):
        talk = await room(record)
        async with feed.follow(talk, "ada", 1) as following:
            await asyncio.gather(*(say(record, talk, f"n{number}") for number in range(200)))
            taken = await until(following, 201)

    assert sorted(said(taken)) == sorted(f"n{number}" for number in range(200))
    assert [change.since for change in taken[1:]] == [change.rev for change in taken[:-1]]


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_signals_that_are_lost_doubled_and_late_lose_nothing(
    database: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes and a bus that loses a third: the poll finds what was not heard."""
    monkeypatch.setattr(feed_module, "POLL", 0.2)
    hub = BadHub(seed)
    async with (
        serving(database, hub.bus()) as (here, _, _),
        serving(database, hub.bus()) as (_, feed, _),
    ):
        talk = await room(here)
        async with feed.follow(talk, "ada", 1) as following:
            for number in range(60):
                await say(here, talk, f"n{number}")
            taken = await until(following, 61)

    assert said(taken) == [f"n{number}" for number in range(60)]


async def test_another_process_is_heard_over_the_database(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LISTEN and NOTIFY carry the wake-up; the poll is not needed."""
    monkeypatch.setattr(feed_module, "POLL", 3600)
    async with (
        serving(database, PostgresBus(database)) as (here, _, _),
        serving(database, PostgresBus(database)) as (_, feed, _),
    ):
        talk = await room(here)
        async with feed.follow(talk, "ada", 1) as following:
            await say(here, talk, "across")
            taken = await until(following, 2)

    assert said(taken) == ["across"]


async def test_who_comes_back_gets_what_they_missed(database: str) -> None:
    """From any rev, from memory or from the record, and nothing twice."""
    async with serving(database) as (record, feed, _):
        talk = await room(record)
        for number in range(5):
            await say(record, talk, f"n{number}")
        async with feed.follow(talk, "ada", 3) as following:
            first = await until(following, 6)
            async with feed.follow(talk, "ada", 6) as second:
                await say(record, talk, "n5")
                again = await until(second, 7)

    assert said(first) == ["n2", "n3", "n4"]
    assert said(again) == ["n5"]


async def test_a_rev_of_another_history_is_a_reset(database: str) -> None:
    """Who brings another epoch is told to start from a page, even if the rev looks like ours."""
    async with serving(database) as (record, feed, _):
        talk = await room(record)
        await say(record, talk, "words")
        async with feed.follow(talk, "ada", 2, "0000deadbeef") as following:
            change = await following.next()

    assert change is not None
    assert change.reset


async def test_a_slow_follower_delays_nobody_and_misses_nothing(database: str) -> None:
    """Beyond its queue it reads from its own position, while the quick one is long done."""
    many = QUEUE_CHANGES + 40
    async with serving(database) as (record, feed, _):
        talk = await room(record)
        async with feed.follow(talk, "ada", 1) as slow, feed.follow(talk, "ada", 1) as quick:
            for number in range(many):
                await say(record, talk, f"n{number}")
            await until(quick, many + 1)
            taken = await until(slow, many + 1)

    assert said(taken) == [f"n{number}" for number in range(many)]


async def test_nothing_is_seen_after_removal(database: str) -> None:
    """From the rev of the removal on nothing reaches who was removed, not even what waits."""
    async with serving(database) as (record, feed, _):
        talk = await room(record, "bob")
        async with feed.follow(talk, "bob", None) as following:
            await say(record, talk, "before")
            await until(following, 2)
            await people_verbs.remove_participant(record, talk, "bob", "ada")
            await say(record, talk, "secret")
            async with asyncio.timeout(PATIENCE):
                change = await following.next()
            assert change is None
            assert following.revoked
        with pytest.raises(NotFound):
            async with feed.follow(talk, "bob", 1):
                pass


async def test_an_erased_conversation_ends_its_streams(database: str) -> None:
    """Who followed it is told that there is nothing more."""
    async with serving(database) as (record, feed, _):
        talk = await room(record)
        async with feed.follow(talk, "ada", None) as following:
            await conversations.erase(record, talk, "ada")
            async with asyncio.timeout(PATIENCE):
                assert await following.next() is None


async def test_no_content_in_the_change_that_deletes(database: str) -> None:
    """A deletion is told without the words it deletes."""
    async with serving(database) as (record, feed, _):
        talk = await room(record)
        await say(record, talk, "unsayable")
        async with feed.follow(talk, "ada", 2) as following:
            await message_verbs.delete(record, talk, 1, "ada")
            (change,) = await until(following, 3)

    assert b"unsayable" not in change.body


async def taken_back(record: Database, talk: UUID, how: str, quick: Following) -> None:
    """Say something and take it back, each of which somebody quick hears as a change of its own."""
    await say(record, talk, "harmless")
    await until(quick, 2)
    await say(record, talk, "unsayable")
    await until(quick, 3)
    if how == "after a rewind":
        # Off the path: the change that erases it does not even name it.
        await path_verbs.rewind(record, talk, 1, "ada")
        await until(quick, 4)
    await message_verbs.delete(record, talk, 2, "ada", erase=how != "deleted")
    await until(quick, quick.rev + 1)


@pytest.mark.parametrize("how", ["deleted", "erased", "after a rewind"])
async def test_what_was_taken_back_is_told_to_nobody_who_comes_back(
    database: str, how: str
) -> None:
    """Not from memory either, where it was kept for those whose connection broke."""
    async with serving(database) as (record, feed, _):
        talk = await room(record)
        async with feed.follow(talk, "ada", 1) as following:
            await taken_back(record, talk, how, following)
            async with feed.follow(talk, "ada", 1) as back:
                taken = await until(back, following.rev)

    assert "unsayable" not in str(said(taken))
    assert "harmless" in said(taken)
    assert not any(b"unsayable" in change.body for change in taken)


@pytest.mark.parametrize("how", ["deleted", "erased", "after a rewind"])
async def test_what_was_taken_back_does_not_wait_for_the_slow(database: str, how: str) -> None:
    """It leaves their queue; they read what is left when they come to it."""
    async with serving(database) as (record, feed, _):
        talk = await room(record)
        async with (
            feed.follow(talk, "ada", 1) as slow,
            feed.follow(talk, "ada", 1) as quick,
        ):
            await taken_back(record, talk, how, quick)
            assert not slow._follower._queue
            taken = await until(slow, quick.rev)

    assert not any(b"unsayable" in change.body for change in taken)
    assert "harmless" in said(taken)


async def test_what_only_adds_is_kept_for_those_who_come_back(database: str) -> None:
    """Messages, edits and read marks: a crowd that comes back is answered from memory."""
    async with serving(database) as (record, feed, _):
        talk = await room(record, "bob")
        async with feed.follow(talk, "ada", 1) as following:
            await say(record, talk, "one")
            await until(following, 2)
            await message_verbs.edit(record, talk, 1, "won", SERVICE)
            await until(following, 3)
            await people_verbs.read_upto(record, talk, "bob", 1)
            await until(following, 4)
            kept = following._stream.since(1)

    assert kept is not None
    assert [change.rev for change in kept] == [2, 3, 4]


async def test_a_rewind_names_what_left_the_path(database: str) -> None:
    """The change says which stretch is superseded."""
    async with serving(database) as (record, feed, _):
        talk = await room(record)
        for number in range(3):
            await say(record, talk, f"n{number}")
        async with feed.follow(talk, "ada", 4) as following:
            await path_verbs.rewind(record, talk, 1, "ada")
            (change,) = await until(following, 5)

    assert msgspec.json.decode(change.body)["superseded"] == [[2, 3]]


async def test_a_database_that_restarts_is_only_a_delay(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every connection is cut, the listening one too: what is committed afterwards is heard."""
    monkeypatch.setattr(feed_module, "POLL", 3600)
    async with (
        serving(database, PostgresBus(database)) as (here, _, _),
        serving(database, PostgresBus(database)) as (_, feed, _),
    ):
        talk = await room(here)
        async with feed.follow(talk, "ada", 1) as following:
            await say(here, talk, "before")
            await until(following, 2)
            await here.verb(
                "select count(pg_terminate_backend(pid)) from pg_stat_activity"
                " where datname = current_database() and pid <> pg_backend_pid()",
                again=True,
            )
            await say(here, talk, "after")
            # The listener comes back and looks everywhere: what was said meanwhile is found.
            taken = await until(following, 3)

    assert said(taken) == ["after"]


async def take(follower: OwnFollower, name: str, count: int = 1) -> list[dict[str, Any]]:
    """Take events of one name."""
    found: list[dict[str, Any]] = []
    async with asyncio.timeout(PATIENCE):
        while len(found) < count:
            event = await follower.next()
            assert event is not None
            if event.name == name:
                found.append(msgspec.json.decode(event.body))
    return found


async def test_a_user_hears_of_a_conversation_they_come_to_and_leave(database: str) -> None:
    """The list says what joined and what left, in the order of list_rev."""
    async with serving(database) as (record, _, own), own.follow("bob") as follower:
        (start,) = await take(follower, "list")
        talk = await room(record, "bob")
        (joined,) = await take(follower, "list")
        await people_verbs.remove_participant(record, talk, "bob", "ada")
        (left,) = await take(follower, "list")

    assert start["list_rev"] == 0
    assert [one["id"] for one in joined["conversations"]] == [str(talk)]
    assert left == {"since": 1, "list_rev": 2, "conversations": [], "removed": [str(talk)]}


async def test_a_user_hears_what_moves_and_how_many_wait(database: str) -> None:
    """An activity has the conversation's rev, its last message, and their own unread count."""
    async with serving(database) as (record, _, own):
        talk = await room(record, "bob")
        async with own.follow("bob") as follower:
            await take(follower, "list")
            for number in range(3):
                await say(record, talk, f"n{number}")
            seen = 0
            while seen < 3:
                (activity,) = await take(follower, "activity")
                seen = activity["unread"]

    assert activity["conversation_id"] == str(talk)
    assert activity["last_message"]["preview"] == "n2"


async def test_who_comes_to_a_known_conversation_unheard_hears_of_it_after_a_poll(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who takes part is remembered; that somebody came is found without any signal, too."""
    monkeypatch.setattr(own_module, "POLL", 0.2)
    async with (
        open_database(database) as elsewhere,
        serving(database) as (record, _, own),
        own.follow("ada") as ada,
        own.follow("bob") as bob,
    ):
        talk = await room(record)
        await take(ada, "activity")
        await take(bob, "list")
        await people_verbs.set_participant(elsewhere, talk, "bob", "member", "ada")
        await take(bob, "list")
        await say(elsewhere, talk, "words")
        found: dict[str, Any] = {}
        while not found.get("last_message") or found["last_message"]["preview"] != "words":
            (found,) = await take(bob, "activity")

    assert found["conversation_id"] == str(talk)


async def test_of_an_activity_only_the_newest_waits(database: str) -> None:
    """What was said and deleted meanwhile is not shown to who is slow, nor what was erased."""
    async with serving(database) as (record, _, own):
        talk = await room(record, "bob")
        async with own.follow("bob") as slow, own.follow("bob") as quick:
            await take(slow, "list")
            await say(record, talk, "unsayable")
            await take(quick, "activity")
            assert any(b"unsayable" in one.body for one in slow._queue)
            await message_verbs.delete(record, talk, 1, "ada", erase=True)
            await take(quick, "activity")
            waits = list(slow._queue)
            await conversations.erase(record, talk, "ada")
            await take(quick, "list")
            assert not any(one.name == "activity" for one in slow._queue)

    assert not any(b"unsayable" in one.body for one in waits)
    assert [one.name for one in waits] == ["activity"]


async def test_a_lost_wake_up_of_a_list_costs_a_poll(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process's new conversation is found without any signal."""
    monkeypatch.setattr(own_module, "POLL", 0.2)
    async with (
        open_database(database) as elsewhere,
        serving(database) as (_, _, own),
        own.follow("bob") as follower,
    ):
        await take(follower, "list")
        talk = await room(elsewhere, "bob")
        (joined,) = await take(follower, "list")
        await say(elsewhere, talk, "words")
        (activity,) = await take(follower, "activity")

    assert [one["id"] for one in joined["conversations"]] == [str(talk)]
    assert activity["conversation_id"] == str(talk)
