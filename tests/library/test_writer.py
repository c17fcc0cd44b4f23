"""What many who append at once may count on, whatever happens to one of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from typing import Any
from uuid import UUID

import pytest

from greffier.change.append import append, append_checked
from greffier.errors import (
    Archived,
    Error,
    Forbidden,
    Gone,
    IdReused,
    NotFound,
    Unavailable,
)
from greffier.library import Greffier
from greffier.model.draft import SERVICE, Speaker, check
from greffier.model.ids import uuid7
from greffier.model.message import Draft, Message
from greffier.model.row import Row
from greffier.read.audit import audit
from greffier.store import writer as writers
from greffier.store.database import VERB_CONNECTIONS, Database, open_database
from greffier.store.writer import Writer
from helpers.proxy import Proxy, proxied
from helpers.sessions import Session, sessions, until_waiting


@pytest.fixture
def database(one_database: str) -> str:
    """One for all tests here."""
    return one_database


async def a_talk(g: Greffier, **more: Any) -> UUID:
    """A new conversation of ada's."""
    return (await g.conversations.create(owner="ada", **more)).id


@contextlib.asynccontextmanager
async def held(rival: Session, *talks: UUID) -> AsyncIterator[None]:
    """Hold conversations' rows, as a slow rewind does."""
    async with rival.open():
        for talk in talks:
            await rival.live.execute(
                "select from conversations where id = $1 for no key update", talk
            )
        yield


@contextlib.asynccontextmanager
async def stopped_at(rival: Session, word: str) -> AsyncIterator[None]:
    """Stop the call that stores this word, until the end."""
    await rival.live.execute(
        f"""
        create function stop() returns trigger language plpgsql as $$ begin
            perform pg_advisory_xact_lock(1);
            return new;
        end $$;
        create trigger stop before insert on messages
        for each row when (new.content = '{word}') execute function stop();
        select pg_advisory_lock(1);
        """
    )
    try:
        yield
    finally:
        await rival.live.execute("select pg_advisory_unlock(1); drop function stop cascade")


def say(g: Greffier, talk: UUID, contents: Iterable[str]) -> list[asyncio.Task[Message]]:
    """Append each, one after the other and without waiting for any."""
    return [asyncio.create_task(g.messages.append(talk, content=content)) for content in contents]


async def contents(g: Greffier, talk: UUID) -> list[str | None]:
    """What the conversation says."""
    found = await g.messages.recent(talk, limit=200)
    return [m.content for m in found.data]


def poison(content: str = "\x00") -> Row:
    """A message that PostgreSQL refuses; no draft becomes one."""
    return Row._make(check(Draft(content="x"), SERVICE).columns)._replace(content=content)


async def put(store: Database, talk: UUID, *rows: Row) -> list[Any]:
    """Give rows to the writer as they are."""
    return await store.writer.append(talk, None, rows, size=len(rows), fresh=True)


# -- many at once ------------------------------------------------------------------------------


@pytest.mark.parametrize(("writers", "talks"), [(1000, 1), (1000, 50)])
async def test_a_thousand_writers_lose_nothing(
    g: Greffier, store: Database, writers: int, talks: int
) -> None:
    """Every message is there once, numbered without a gap, each conversation in order."""
    places = [await a_talk(g) for _ in range(talks)]
    said = await asyncio.gather(
        *(
            g.messages.append(places[n % talks], content=str(n), id=uuid7() if n % 3 else None)
            for n in range(writers)
        )
    )

    for place in places:
        mine = [m for m in said if m.conversation_id == place]
        assert [m.seq for m in mine] == list(range(1, writers // talks + 1))
    # They went together, not one by one.
    assert store.writer.pressure.batches < writers / 10
    assert (await audit(store)).clean


async def test_large_requests_do_not_keep_others_waiting_for_ever(g: Greffier) -> None:
    """A conversation gets its turn however much is always waiting for the others."""
    busy, quiet = await a_talk(g), await a_talk(g)
    done = asyncio.Event()

    async def flood() -> None:
        while not done.is_set():
            await g.messages.append_many(busy, [Draft(content="much")] * 50)

    # Twice what one call holds, at any time.
    floods = [asyncio.create_task(flood()) for _ in range(10)]
    await g.messages.append_many(busy, [Draft(content="much")] * 50)
    said = await g.messages.append(quiet, content="a word")
    done.set()
    await asyncio.gather(*floods)

    assert said.seq == 1


async def test_half_of_many_are_told_while_the_other_half_is_stored(
    g: Greffier, rival: Session
) -> None:
    """Nobody waits for all who came with them."""
    talk = await a_talk(g)
    words = [str(number) for number in range(2 * writers.HALF)]
    async with stopped_at(rival, "stop"):
        waiting = say(g, talk, [*words, "stop"])
        told = await asyncio.gather(*waiting[: writers.HALF])
        await until_waiting(rival.watch, 1)
        assert not waiting[-2].done()
    await asyncio.gather(*waiting)

    assert [m.seq for m in told] == list(range(1, writers.HALF + 1))
    assert await contents(g, talk) == [*words, "stop"]


async def test_the_other_half_does_not_overtake_those_who_must_wait(
    g: Greffier, rival: Session
) -> None:
    """Also when their conversation is let go between the two calls."""
    talk, other = await a_talk(g), await a_talk(g)
    words = [str(number) for number in range(2 * writers.HALF)]
    async with (
        stopped_at(rival, "stop"),
        sessions(g.database.dsn, 1) as (holder,),
        held(holder, talk),
    ):
        waiting = say(g, other, ["stop"]) + say(g, talk, words)
        # The first call has passed the row over when it stops; the row is let go before the call.
        await until_waiting(rival.watch, 1)
    await asyncio.gather(*waiting)

    assert await contents(g, talk) == words


# -- rows that somebody else holds -------------------------------------------------------------


async def test_a_conversation_that_is_held_delays_only_its_own_messages(
    g: Greffier, rival: Session
) -> None:
    """Everybody else's are stored while it is still held; its own are when it is let go."""
    slow, other = await a_talk(g), await a_talk(g)
    async with held(rival, slow):
        waiting = say(g, slow, ["one", "two", "three"])
        await until_waiting(rival.watch, 1)
        for _ in range(3):
            await asyncio.gather(*say(g, other, "abcdefgh"))
        assert not any(task.done() for task in waiting)
    said = await asyncio.gather(*waiting)

    assert [m.seq for m in said] == [1, 2, 3]
    assert len(await contents(g, other)) == 24


async def test_messages_of_a_conversation_stay_in_order_when_they_must_wait(
    g: Greffier, rival: Session
) -> None:
    """Those of the call that found it held, those behind in the queue, those that come later."""
    talk, other = await a_talk(g), await a_talk(g)
    async with held(rival, talk):
        waiting = say(g, talk, ["1", "2", "3"])
        # The first are taken in two turns of the loop; what comes now goes into the queue.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        waiting += say(g, talk, ["4", "5"])
        await until_waiting(rival.watch, 1)
        waiting += say(g, talk, ["6", "7"])
        await asyncio.gather(*say(g, other, ["elsewhere"]))
    await asyncio.gather(*waiting)

    assert await contents(g, talk) == list("1234567")


async def test_more_held_conversations_than_connections_for_them_wait_in_turn(
    g: Greffier, store: Database, rival: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is forgotten: a turn at a row ends, and all are stored once they are let go."""
    monkeypatch.setattr(writers, "SIDE_LOCK_TIMEOUT", 50)
    store.writer = Writer(store.dsn)
    slow = [await a_talk(g) for _ in range(2 * writers.SIDE_CONNECTIONS + 1)]
    other = await a_talk(g)
    async with held(rival, *slow):
        waiting = [task for talk in slow for task in say(g, talk, ["one", "two"])]
        await until_waiting(rival.watch, writers.SIDE_CONNECTIONS)
        await asyncio.gather(*say(g, other, "abc"))
        assert not any(task.done() for task in waiting)
    await asyncio.gather(*waiting)

    assert [await contents(g, talk) for talk in slow] == [["one", "two"]] * len(slow)


async def test_a_conversation_held_for_too_long_is_busy(
    g: Greffier, store: Database, rival: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every append to it is refused, to be tried again, also those behind; none is stored."""
    monkeypatch.setattr(writers, "SIDE_LOCK_TIMEOUT", 20)
    monkeypatch.setattr(writers, "BATCH_MESSAGES", 2)
    store.writer = Writer(store.dsn, patience=0.2)
    talk = await a_talk(g)
    async with held(rival, talk):
        refused = await asyncio.gather(*say(g, talk, "abcdefgh"), return_exceptions=True)
    assert [type(error) for error in refused] == [Unavailable] * 8
    assert {str(error) for error in refused} == {"The conversation is busy; try again shortly."}

    await g.messages.append(talk, content="now")
    assert await contents(g, talk) == ["now"]


async def test_verbs_that_wait_leave_the_reads_alone(g: Greffier, rival: Session) -> None:
    """However many want to change a held conversation, it and all others can be read."""
    talk = await a_talk(g)
    await g.messages.append(talk, content="one")
    async with held(rival, talk):
        marks = [asyncio.create_task(g.conversations.read(talk, 1, user="ada")) for _ in range(20)]
        await until_waiting(rival.watch, VERB_CONNECTIONS)
        assert await contents(g, talk) == ["one"]
    await asyncio.gather(*marks)


async def test_a_verb_that_waits_for_too_long_is_told_so(
    database: str, g: Greffier, rival: Session
) -> None:
    """It is to be tried again, and has changed nothing."""
    talk = await a_talk(g)
    async with held(rival, talk), open_database(database, patience=0.1) as hasty:
        with pytest.raises(Unavailable, match="busy"):
            await Greffier(hasty).conversations.archive(talk)
    assert (await g.conversations.get(talk)).archived_at is None


# -- one that fails beside others --------------------------------------------------------------


async def test_a_message_that_breaks_the_call_breaks_only_its_own_request(
    g: Greffier, store: Database
) -> None:
    """Its neighbours are stored, in order, as if it had not been there."""
    talk, other = await a_talk(g), await a_talk(g)
    good = say(g, talk, "abc")
    bad = asyncio.create_task(put(store, talk, poison()))
    good += say(g, talk, "def") + say(g, other, "xyz")
    worse = asyncio.create_task(put(store, other, poison(), poison()))
    said = await asyncio.gather(*good, bad, worse, return_exceptions=True)

    assert [isinstance(one, Exception) for one in said] == [False] * 9 + [True, True]
    assert await contents(g, talk) == list("abcdef")
    assert await contents(g, other) == list("xyz")


async def test_a_message_that_breaks_the_call_keeps_the_order_of_who_must_wait(
    g: Greffier, store: Database, rival: Session
) -> None:
    """Also when their conversation is held while the culprit is looked for."""
    talk = await a_talk(g)
    async with held(rival, talk):
        good = say(g, talk, "ab")
        bad = asyncio.create_task(put(store, talk, poison()))
        good += say(g, talk, "cd")
        await until_waiting(rival.watch, 1)
    await asyncio.gather(*good)

    assert bad.exception() is not None
    assert await contents(g, talk) == list("abcd")


async def test_nobody_overtakes_who_waits_while_a_culprit_is_looked_for(
    g: Greffier, rival: Session
) -> None:
    """A conversation let go in the middle of it goes on with what came first."""
    # Whoever says "bad" fails; the second time it stops before that, until we let it go on.
    await rival.live.execute(
        """
        create sequence times;
        create function bad() returns trigger language plpgsql as $$ begin
            perform pg_advisory_xact_lock(nextval('times'));
            raise 'bad';
        end $$;
        create trigger bad before insert on messages
        for each row when (new.content = 'bad') execute function bad();
        select pg_advisory_lock(2);
        """
    )
    slow = [await a_talk(g) for _ in range(writers.SIDE_CONNECTIONS)]
    talk, other = await a_talk(g), await a_talk(g)
    async with held(rival, *slow):
        # They take every connection of those who wait, so that talk has none when it is let go.
        waiting = [task for one in slow for task in say(g, one, ["later"])]
        await until_waiting(rival.watch, len(slow))
        async with sessions(g.database.dsn, 1) as (holder,), held(holder, talk):
            waiting += say(g, talk, "ab") + say(g, other, ["bad"]) + say(g, talk, "c")
            await until_waiting(rival.watch, len(slow) + 1)
        await rival.live.execute("select pg_advisory_unlock(2)")
    await asyncio.gather(*waiting, return_exceptions=True)

    assert await contents(g, talk) == list("abc")
    await rival.live.execute("drop function bad cascade; drop sequence times")


async def test_a_refusal_is_its_own(g: Greffier, store: Database) -> None:
    """Refusals of every kind in one call are each told to whom they concern, and to nobody else."""
    talk = await a_talk(g)
    room = await a_talk(g, kind="room", participants={"bob": "member", "eve": "viewer"})
    archived = await a_talk(g)
    erased = await a_talk(g)
    taken = (await g.messages.append(talk, content="taken")).id
    kept = (await g.messages.append(archived, content="kept")).id
    await g.conversations.archive(archived)
    await g.conversations.erase(erased)
    before = store.writer.pressure.batches
    asked: list[tuple[type[Error] | None, UUID, dict[str, Any]]] = [
        (None, talk, {"content": "good"}),
        (NotFound, uuid7(), {"content": "nowhere"}),
        (None, room, {"content": "good", "actor": "ada"}),
        (Gone, erased, {"content": "too late"}),
        (None, room, {"content": "good", "actor": "bob"}),
        (Forbidden, room, {"content": "I only watch", "actor": "eve"}),
        (NotFound, room, {"content": "let me in", "actor": "zoe"}),
        (NotFound, talk, {"content": "not mine", "actor": "bob"}),
        (Forbidden, room, {"role": "assistant", "content": "for the machine", "actor": "bob"}),
        (Forbidden, room, {"role": "system", "content": "for all", "actor": "ada"}),
        (None, talk, {"role": "assistant", "content": "good", "actor": "ada"}),
        (None, room, {"role": "system", "content": "good"}),
        (Archived, archived, {"content": "more"}),
        (None, archived, {"content": "kept", "id": kept}),
        (IdReused, archived, {"content": "not the same", "id": kept}),
        (IdReused, talk, {"content": "not the same", "id": taken}),
        (None, talk, {"content": "taken", "id": taken}),
        (None, talk, {"content": "good"}),
    ]
    answers = await asyncio.gather(
        *(g.messages.append(talk, **what) for _, talk, what in asked), return_exceptions=True
    )

    assert [None if isinstance(a, Message) else type(a) for a in answers] == [
        refusal for refusal, _, _ in asked
    ]
    # The second call is for the id that was there twice.
    assert store.writer.pressure.batches - before <= 3
    assert await contents(g, talk) == ["taken", "good", "good", "good"]
    assert await contents(g, room) == ["good", "good", "good"]
    assert await contents(g, archived) == ["kept"]
    assert (await audit(store)).clean


@pytest.mark.parametrize("culprit", ["id-reused", "archived", "refused by PostgreSQL"])
async def test_a_request_of_several_messages_stands_or_falls_whole(
    g: Greffier, store: Database, culprit: str
) -> None:
    """Whatever is wrong with one of them, none is stored; and its neighbours are."""
    talk, other = await a_talk(g), await a_talk(g)
    first = await g.messages.append(talk, content="first")
    checked = [check(Draft(content=content), SERVICE) for content in ("new", "also new")]
    rows = [Row._make(one.columns) for one in checked]
    if culprit == "id-reused":
        rows.append(rows[0]._replace(id=first.id, request_hash=b"another"))
    elif culprit == "archived":
        rows.append(Row._make(check(Draft(id=first.id, content="first"), SERVICE).columns))
        await g.conversations.archive(talk)
    else:
        rows.append(poison())
    whole = asyncio.create_task(store.writer.append(talk, None, rows, size=3, fresh=False))
    beside = await asyncio.gather(*say(g, other, "ab"))

    with pytest.raises(Exception):  # noqa: B017 - each has its own
        await whole
    assert [m.seq for m in beside] == [1, 2]
    assert await contents(g, talk) == ["first"]


async def test_old_and_new_messages_of_one_request_are_told_apart(g: Greffier) -> None:
    """Those that were there are returned as they now are, the others stored behind, in one rev."""
    talk = await a_talk(g)
    drafts = [Draft(id=uuid7(), content=content) for content in "abcd"]
    old = await g.messages.append_many(talk, [drafts[1], drafts[3]])
    await g.messages.edit(talk, 1, "B")
    answer = await g.messages.append_many(talk, drafts)

    assert [m.content for m in answer] == ["a", "B", "c", "d"]
    assert [m.seq for m in answer] == [3, 1, 4, 2]
    assert answer[3] == old[1]
    assert answer[0].rev == answer[2].rev == (await g.conversations.get(talk)).rev
    assert await g.messages.append_many(talk, drafts) == answer


# -- the same message again --------------------------------------------------------------------


async def test_the_same_message_many_times_at_once_is_one(g: Greffier, store: Database) -> None:
    """Every sender is told the same; nothing is stored twice."""
    talk = await a_talk(g)
    id_ = uuid7()
    said = await asyncio.gather(
        *(g.messages.append(talk, content="once", id=id_) for _ in range(50)),
        *say(g, talk, "abc"),
    )

    assert all(one == said[0] for one in said[:50])
    assert sorted({m.seq for m in said}) == [1, 2, 3, 4]
    assert store.writer.pressure.replayed == 49


async def test_an_id_of_two_messages_at_once_is_the_first_ones(g: Greffier) -> None:
    """The second is refused and stores nothing, also when both come in one tick."""
    talk = await a_talk(g)
    id_ = uuid7()
    first, second = await asyncio.gather(
        g.messages.append(talk, content="these words", id=id_),
        g.messages.append(talk, content="others", id=id_),
        return_exceptions=True,
    )

    assert isinstance(first, Message)
    assert isinstance(second, IdReused)
    assert await contents(g, talk) == ["these words"]


async def test_the_same_message_twice_for_a_held_conversation_is_one(
    g: Greffier, rival: Session
) -> None:
    """They wait together and are still told apart from each other."""
    talk = await a_talk(g)
    id_ = uuid7()
    async with held(rival, talk):
        waiting = [
            asyncio.create_task(g.messages.append(talk, content="once", id=id_)) for _ in range(5)
        ]
        await until_waiting(rival.watch, 1)
    said = await asyncio.gather(*waiting)

    assert all(one == said[0] for one in said)
    assert await contents(g, talk) == ["once"]


async def test_the_same_id_in_two_conversations_is_two_messages(g: Greffier) -> None:
    """An id is its conversation's."""
    one, other = await a_talk(g), await a_talk(g)
    id_ = uuid7()
    said = await asyncio.gather(
        g.messages.append(one, content="here", id=id_),
        g.messages.append(other, content="there", id=id_),
    )

    assert [m.content for m in said] == ["here", "there"]


# -- callers who leave -------------------------------------------------------------------------


async def test_a_request_taken_back_before_it_was_sent_is_not_stored(g: Greffier) -> None:
    """Who is cancelled while they wait has said nothing."""
    talk = await a_talk(g)
    first, second, third = say(g, talk, "abc")
    await asyncio.sleep(0)  # they have spoken; nobody has taken it yet
    second.cancel()
    await asyncio.gather(first, third)

    assert await contents(g, talk) == ["a", "c"]


async def test_a_request_taken_back_behind_a_held_conversation_is_not_stored(
    g: Greffier, rival: Session
) -> None:
    """Also when what came before it is already under way."""
    talk = await a_talk(g)
    async with held(rival, talk):
        first = say(g, talk, "a")[0]
        await until_waiting(rival.watch, 1)
        second, third = say(g, talk, "bc")
        await asyncio.sleep(0)
        second.cancel()
    await asyncio.gather(first, third)

    assert await contents(g, talk) == ["a", "c"]


async def test_a_caller_who_leaves_under_way_leaves_the_message_on_record(
    g: Greffier, rival: Session
) -> None:
    """As after a lost answer: sending it again finds it, and nobody else is harmed."""
    talk = await a_talk(g)
    id_ = uuid7()
    async with held(rival, talk):
        left = asyncio.create_task(g.messages.append(talk, content="said", id=id_))
        await until_waiting(rival.watch, 1)
        stays = say(g, talk, ["after"])[0]
        left.cancel()
        await asyncio.sleep(0)
    assert left.cancelled()
    assert (await stays).seq == 2
    again = await g.messages.append(talk, content="said", id=id_)

    assert again.seq == 1
    assert await contents(g, talk) == ["said", "after"]


async def test_readers_who_leave_give_their_connections_back(g: Greffier) -> None:
    """Nobody's impatience costs the others: after a thousand cancelled reads all is as before."""
    talk = await a_talk(g)
    await g.messages.append(talk, content="here")
    for _ in range(20):
        readers = [asyncio.create_task(g.messages.recent(talk)) for _ in range(50)]
        # Some are in their query then, most still in the queue.
        await readers[0]
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)

    found = await asyncio.gather(*(g.messages.recent(talk) for _ in range(20)))
    assert [page.total for page in found] == [1] * 20


# -- bounds ------------------------------------------------------------------------------------


@pytest.mark.parametrize("bound", [{"queue_messages": 10}, {"queue_bytes": 10}])
async def test_when_too_much_waits_more_is_refused_until_there_is_room(
    g: Greffier, store: Database, rival: Session, bound: dict[str, Any]
) -> None:
    """What was taken is stored; what was refused is to be sent again; and then it is taken."""
    store.writer = Writer(store.dsn, **bound)
    talk = await a_talk(g)
    async with held(rival, talk):
        taken = say(g, talk, "0123456789")
        await until_waiting(rival.watch, 1)
        with pytest.raises(Unavailable, match="Too many") as refused:
            await g.messages.append(talk, content="x")
        assert refused.value.retry_after
    await asyncio.gather(*taken)
    await g.messages.append(talk, content="x")

    assert await contents(g, talk) == list("0123456789x")
    assert store.writer.pressure.messages == store.writer.pressure.size == 0


async def test_one_call_holds_so_many_bytes_and_no_more(g: Greffier, store: Database) -> None:
    """A few large messages do not make everybody wait for one long commit."""
    talk = await a_talk(g)
    drafts = [Draft(content="x" * 1000) for _ in range(12)]
    large = writers.BATCH_BYTES // 4
    rows = [Row._make(check(draft, SERVICE).columns) for draft in drafts]
    stored = await asyncio.gather(
        *(store.writer.append(talk, None, [row], size=large, fresh=True) for row in rows)
    )

    assert [one.seq for (one,) in stored] == list(range(1, 13))
    assert store.writer.pressure.batches == 3


async def test_one_request_larger_than_a_call_goes_alone(g: Greffier, store: Database) -> None:
    """What is within the limits of a message is never too large for the writer."""
    talk = await a_talk(g)
    rows = [Row._make(check(Draft(content="x"), SERVICE).columns) for _ in range(3)]
    stored = await asyncio.gather(
        *(
            store.writer.append(talk, None, [row], size=2 * writers.BATCH_BYTES, fresh=True)
            for row in rows
        )
    )

    assert [one.seq for (one,) in stored] == [1, 2, 3]
    assert store.writer.pressure.batches == 3


async def test_at_the_end_what_was_taken_is_stored_and_no_more_is_taken(
    database: str, rival: Session
) -> None:
    """Leaving the library waits for what was said, also in a held conversation."""
    opened = open_database(database)
    store = await opened.__aenter__()
    g = Greffier(store)
    slow, other = await a_talk(g), await a_talk(g)
    async with held(rival, slow):
        taken = say(g, slow, "ab")
        await until_waiting(rival.watch, 1)
        taken += say(g, other, "cd")
        await asyncio.sleep(0)
        leaving = asyncio.create_task(opened.__aexit__(None, None, None))
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="stopping"):
            await g.messages.append(other, content="more")
        assert not leaving.done()
    await leaving

    assert [task.result().seq for task in taken] == [1, 2, 1, 2]


# -- a database that goes away -----------------------------------------------------------------


@contextlib.asynccontextmanager
async def through(wire: Proxy, patience: float) -> AsyncIterator[Greffier]:
    """The library at the end of a wire."""
    async with open_database(wire.dsn, patience=patience) as store:
        yield Greffier(store)


async def test_a_database_that_is_away_for_a_while_is_only_a_delay(database: str) -> None:
    """Appends, reads and verbs wait for it, and find all that was acknowledged."""
    async with proxied(database) as wire, through(wire, 30) as g:
        talk = await a_talk(g)
        await g.messages.append(talk, content="before")
        await wire.down()
        waiting = say(g, talk, ["one", "two"])
        read = asyncio.create_task(g.messages.recent(talk))
        mark = asyncio.create_task(g.conversations.read(talk, 1, user="ada"))
        await asyncio.wait([*waiting, read, mark], timeout=0.1)
        assert not any(task.done() for task in (*waiting, read, mark))
        await wire.up()
        await asyncio.gather(*waiting, read, mark)

        assert await contents(g, talk) == ["before", "one", "two"]


async def test_a_database_that_stays_away_is_said_to_be(database: str) -> None:
    """Nobody waits for ever; the same message sent again later is stored once."""
    async with proxied(database) as wire, through(wire, 0.2) as g:
        talk = await a_talk(g)
        id_ = uuid7()
        await wire.down()
        refused = await asyncio.gather(
            g.messages.append(talk, content="said", id=id_),
            g.messages.recent(talk),
            g.conversations.archive(talk),
            return_exceptions=True,
        )
        await wire.up()

        assert [str(error) for error in refused] == ["The database is away; try again shortly."] * 3
        assert {type(error) for error in refused} == {Unavailable}
        assert (await g.messages.append(talk, content="said", id=id_)).seq == 1


async def test_a_message_whose_answer_was_lost_is_stored_once(
    database: str, rival: Session
) -> None:
    """The server was still at it when the connection was lost: the retry waits and finds it."""
    async with proxied(database) as wire, through(wire, 30) as g:
        talk, other = await a_talk(g), await a_talk(g)
        await g.messages.append(other, content="to have a connection")
        async with rival.open():
            # The first attempt has the conversation's row, and stops where it inserts.
            await rival.live.execute("lock table messages in share mode")
            waiting = say(g, talk, ["one", "two"])
            await until_waiting(rival.watch, 1)
            wire.cut()
            # The second finds the row held by the first, on the side.
            await until_waiting(rival.watch, 2)
        said = await asyncio.gather(*waiting)

        assert [m.seq for m in said] == [1, 2]
        assert await contents(g, talk) == ["one", "two"]


async def test_connections_that_are_ended_under_load_lose_and_double_nothing(
    g: Greffier, store: Database, rival: Session
) -> None:
    """An administrator who ends every session, over and over, costs a delay."""
    talks = [await a_talk(g) for _ in range(7)]
    many = 1500
    acknowledged: list[Message] = []
    one_at_a_time = asyncio.Lock()
    ended = 0

    async def client(n: int) -> None:
        for i in range(n, many, 60):
            id_ = uuid7() if i % 2 else None
            said = await g.messages.append(talks[i % 7], content=str(i), id=id_)
            acknowledged.append(said)
            if len(acknowledged) % 100 == 0:
                await blow()

    async def blow() -> None:
        nonlocal ended
        async with one_at_a_time:
            ended += await rival.live.fetchval(
                "select count(pg_terminate_backend(pid)) from pg_stat_activity "
                "where datname = current_database() and pid <> all ($1)",
                [rival.live.get_server_pid(), rival.watch.get_server_pid()],
            )

    await asyncio.gather(*(client(n) for n in range(60)))

    # Each time two are up at most, and none where they are just being made anew.
    assert ended >= many // 200
    rows = await rival.live.fetch(
        "select conversation_id, seq, id, content from messages where conversation_id = any ($1)",
        talks,
    )
    assert sorted(row["content"] for row in rows) == sorted(str(i) for i in range(many))
    assert {(r["conversation_id"], r["seq"], r["id"], r["content"]) for r in rows} == {
        (m.conversation_id, m.seq, m.id, m.content) for m in acknowledged
    }
    assert (await audit(store)).clean


async def test_who_speaks_is_part_of_what_was_asked(store: Database, g: Greffier) -> None:
    """The same words under the same id by somebody else are another message, and refused."""
    room = await a_talk(g, kind="room", participants={"bob": "member"})
    draft = Draft(id=uuid7(), content="me too")
    await append(store, room, [draft], Speaker("ada", "ada", "Ada", "ada"))
    with pytest.raises(IdReused):
        await append(store, room, [draft], Speaker("bob", "bob", "Bob", "bob"))
    again = await append_checked(
        store, room, [check(draft, Speaker("ada", "ada"))], Speaker("ada", "ada")
    )

    assert not again.created
