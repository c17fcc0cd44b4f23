"""Those who come at once are answered from one read: each their own, as new as they asked."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest

from greffier.change import people as people_verbs
from greffier.errors import NotFound
from greffier.publish import arrivals as arrivals_module
from greffier.publish.arrivals import Arrival, Arrivals
from greffier.read.changes import changes
from greffier.store.database import Database, open_database
from live.test_feed import room, say

CROWD = [f"guest-{number}" for number in range(60)]


class Asked:
    """The queries of a database, counted by name; one may be held up."""

    def __init__(self, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: list[str] = []
        self.goes = asyncio.Event()
        self.goes.set()
        self.begun = asyncio.Event()
        read = database.read

        async def counted(name: str, *given: Any, **how: Any) -> Any:
            found = await read(name, *given, **how)
            self.names.append(name)
            self.begun.set()
            # Held up with what it has read: whoever asks now must not be told that.
            await self.goes.wait()
            return found

        monkeypatch.setattr(database, "read", counted)


def shown(arrival: Arrival) -> dict[str, Any]:
    """What somebody is told."""
    found: dict[str, Any] = msgspec.json.decode(b"".join(arrival.body))
    return found


async def all_at_once(
    arrivals: Arrivals, talk: UUID, users: Sequence[str | None], since: int | None
) -> list[Arrival]:
    """Let these come in the same moment."""
    return await asyncio.gather(*(arrivals.answer(talk, user, since) for user in users))


async def test_a_crowd_is_answered_from_one_read(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixty come back: one query; what is large in their answers exists once."""
    async with open_database(database) as record:
        talk = await room(record, *CROWD)
        await say(record, talk, "words")
        arrivals, asked = Arrivals(record), Asked(record, monkeypatch)

        back = await all_at_once(arrivals, talk, CROWD, 1)
        fresh = await all_at_once(arrivals, talk, CROWD, None)

    assert asked.names == ["arrivals", "page", "arrivals"]
    assert all(one.recovered and one.rev == 2 for one in back)
    assert {id(one.body[0]) for one in back} == {id(back[0].body[0])}
    assert {id(one.people.body) for one in (*back, *fresh)} == {id(back[0].people.body)}
    assert [one["content"] for one in shown(fresh[0])["data"]] == ["words"]


async def test_each_answer_is_what_its_reader_would_have_read_alone(database: str) -> None:
    """``me`` is everybody's own: role, mark and what waits for them; the service is nobody."""
    async with open_database(database) as record:
        talk = await room(record, "bob", "carl")
        for number in range(3):
            await say(record, talk, f"n{number}")
        await people_verbs.read_upto(record, talk, "bob", 2)
        arrivals = Arrivals(record)
        users = ["ada", "bob", "carl", None]

        found = await all_at_once(arrivals, talk, users, 1)
        alone = [await changes(record, talk, user, 1) for user in users]

    assert [shown(one) for one in found] == [msgspec.json.decode(one.body()) for one in alone]
    unread = [shown(one)["conversation"]["me"] for one in found]
    assert [me and me["unread"] for me in unread] == [3, 1, 3, None]
    assert not any(one.same_people for one in found)


async def test_no_answer_is_older_than_its_question(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who comes while others' read is under way is told of what was committed before they came."""
    async with open_database(database) as record:
        talk = await room(record, "bob", "carl")
        arrivals, asked = Arrivals(record), Asked(record, monkeypatch)
        asked.goes.clear()
        early = asyncio.create_task(arrivals.answer(talk, "bob", 1))
        await asked.begun.wait()
        await say(record, talk, "meanwhile")
        late = asyncio.create_task(arrivals.answer(talk, "carl", 1))
        await asyncio.sleep(0)
        asked.goes.set()

        first, second = await early, await late

    assert (first.rev, second.rev) == (1, 2)
    assert shown(second)["messages"][0]["content"] == "meanwhile"


async def test_a_stranger_among_a_crowd_is_told_nothing(database: str) -> None:
    """Refused as if there were no such conversation, and nobody else with them."""
    async with open_database(database) as record:
        talk = await room(record, "bob")
        arrivals = Arrivals(record)
        users = ["bob", "mallory", "ada"]

        for since in (0, None):
            found = await asyncio.gather(
                *(arrivals.answer(talk, user, since) for user in users), return_exceptions=True
            )
            assert [isinstance(one, NotFound) for one in found] == [False, True, False]
        with pytest.raises(NotFound):
            await arrivals.answer(uuid4(), "bob", None)


async def test_who_was_removed_is_told_nothing_of_it(database: str) -> None:
    """People who are remembered are not those of yesterday: a removal is seen at once."""
    async with open_database(database) as record:
        talk = await room(record, "bob", "carl")
        arrivals = Arrivals(record)
        before = await arrivals.answer(talk, "bob", 1)
        await people_verbs.remove_participant(record, talk, "bob", "ada")

        with pytest.raises(NotFound):
            await arrivals.answer(talk, "bob", before.rev)
        after = await arrivals.answer(talk, "carl", before.rev)

    assert after.people.order == ("ada", "carl")
    assert not after.same_people


async def test_who_goes_away_takes_no_answer_from_the_others(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The read goes on for those who still wait."""
    async with open_database(database) as record:
        talk = await room(record, "bob")
        arrivals, asked = Arrivals(record), Asked(record, monkeypatch)
        asked.goes.clear()
        gone = asyncio.create_task(arrivals.answer(talk, "ada", 1))
        stays = asyncio.create_task(arrivals.answer(talk, "bob", 1))
        await asked.begun.wait()
        gone.cancel()
        asked.goes.set()

        assert (await stays).rev == 1
    assert asked.names == ["arrivals"]


async def test_people_are_remembered_within_bounds(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many rooms the latest are; a room as large as the bound is, alone."""
    monkeypatch.setattr(arrivals_module, "REMEMBERED", 5)
    async with open_database(database) as record:
        arrivals = Arrivals(record)
        talks = [await room(record, "bob", "carl") for _ in range(4)]
        large = await room(record, *CROWD)
        for talk in talks:
            await arrivals.answer(talk, "ada", None)
        few = len(arrivals._people)
        await arrivals.answer(large, "ada", None)

    assert few == 1
    assert list(arrivals._people) == [large]
    assert arrivals._remembered == len(CROWD) + 1


async def test_what_cannot_be_told_as_one_change_is_a_page(database: str) -> None:
    """A rev from the future, or of another history, starts from the latest page."""
    async with open_database(database) as record:
        talk = await room(record, "bob")
        await say(record, talk, "words")

        found = await Arrivals(record).answer(talk, "bob", 99)

    assert not found.recovered
    assert [one["content"] for one in shown(found)["data"]] == ["words"]
