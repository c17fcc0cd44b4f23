"""What may be counted on when a conversation is rewound, and goes on from there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import msgspec
import pytest
import pytest_asyncio

from greffier.change.path import rewind
from greffier.errors import Archived, Forbidden, Invalid, NotFound
from greffier.library import Greffier
from greffier.model.ids import uuid7
from greffier.read.pages import Where, page
from greffier.store.connection import Connection
from greffier.store.database import Database
from greffier.store.queries import queries
from helpers.long import lengthen
from helpers.postgres import connected, undone


async def a_talk(g: Greffier, many: int) -> UUID:
    """A conversation of ada's with so many messages, each saying its number."""
    talk = await g.conversations.create(owner="ada")
    if many:
        await g.messages.append_many(
            talk.id, [{"content": f"{number}"} for number in range(1, many + 1)], actor="ada"
        )
    return talk.id


async def shown(g: Greffier, talk: UUID) -> list[int]:
    """The seqs on the active path."""
    return [message.seq for message in (await g.messages.recent(talk, limit=200)).data]


# -- Rewinding


async def test_everything_after_a_message_leaves_the_path(g: Greffier) -> None:
    """A page ends with that message, and so do count, last message and context."""
    talk = await a_talk(g, 5)

    assert await g.messages.rewind(talk, after_seq=3, actor="ada") == 2

    found = await g.messages.recent(talk)
    assert [message.seq for message in found.data] == [1, 2, 3]
    assert (found.total, found.has_after, found.rev) == (3, False, 3)
    conversation = await g.conversations.get(talk)
    assert (conversation.message_count, conversation.last_seq) == (3, 5)
    assert conversation.last_message is not None
    assert conversation.last_message.seq == 3
    context = await g.context(talk)
    assert [line["content"] for line in context.messages] == ["1", "2", "3"]
    assert context.omitted.messages == 0


async def test_what_left_the_path_stays_on_record(g: Greffier) -> None:
    """It is read one by one and in the whole record, and listed as a branch."""
    talk = await a_talk(g, 5)
    await g.messages.rewind(talk, after_seq=3)

    assert (await g.messages.get(talk, 5, actor="ada")).content == "5"
    whole = await page(g.database, talk, "ada", Where(superseded=True))
    assert [one["seq"] for one in msgspec.json.decode(b"[%b]" % whole.data)] == [1, 2, 3, 4, 5]
    (branch,) = await g.conversations.branches(talk, actor="ada")
    assert (branch.path, branch.last_seq, branch.left_at_rev) == ([(1, 5)], 5, 3)
    assert branch.preview == "5"


async def test_only_undeleted_messages_count_as_removed(g: Greffier) -> None:
    """The number that is told is of messages somebody could still see."""
    talk = await a_talk(g, 6)
    await g.messages.delete(talk, 4)
    await g.messages.delete(talk, 5, erase=True)
    await g.messages.delete(talk, 1)

    assert await g.messages.rewind(talk, after_seq=2) == 2
    assert (await g.messages.recent(talk)).total == 1


async def test_a_conversation_is_rewound_to_its_beginning(g: Greffier) -> None:
    """After 0 everything is off the path; what comes next has no message before it."""
    talk = await a_talk(g, 3)

    assert await g.messages.rewind(talk, after_seq=0) == 3

    found = await g.messages.recent(talk)
    assert (found.data, found.total, found.has_before, found.has_after) == ([], 0, False, False)
    assert (await g.conversations.get(talk)).last_message is None
    again = await g.messages.append(talk, content="again")
    assert (again.seq, again.parent_seq) == (4, None)
    assert await shown(g, talk) == [4]


async def test_nothing_to_remove_is_no_change(g: Greffier) -> None:
    """Rewinding to where one is removes 0, leaves no branch and costs no rev."""
    talk, empty = await a_talk(g, 3), await a_talk(g, 0)

    for where, after in ((talk, 3), (empty, 0)):
        before = await g.conversations.get(where)
        assert await g.messages.rewind(where, after_seq=after) == 0
        assert await g.conversations.get(where) == before
        assert await g.conversations.branches(where) == []


async def test_one_rewinds_to_a_message_of_the_active_path(g: Greffier) -> None:
    """Neither to one that is off it, nor to one that was never said."""
    talk = await a_talk(g, 5)
    await g.messages.rewind(talk, after_seq=2)
    await g.messages.append(talk, content="6")

    for after in (3, 5, 7, -1, 1 << 60):
        with pytest.raises(Invalid):
            await g.messages.rewind(talk, after_seq=after)
    assert await g.messages.rewind(talk, after_seq=6) == 0
    assert await shown(g, talk) == [1, 2, 6]


async def test_the_conversation_goes_on_from_where_it_was_rewound(g: Greffier) -> None:
    """The next message takes the next number, and its parent is the message rewound to."""
    talk = await a_talk(g, 5)
    await g.messages.rewind(talk, after_seq=2)

    first, second = await g.messages.append_many(talk, [{"content": "6"}, {"content": "7"}])

    assert [(one.seq, one.parent_seq) for one in (first, second)] == [(6, 2), (7, 6)]
    assert await shown(g, talk) == [1, 2, 6, 7]
    assert [one.seq for one in (await g.messages.before(talk, 7, limit=2)).data] == [2, 6]
    assert [one.seq for one in (await g.messages.before(talk, 5, limit=1)).data] == [2]
    assert [one.seq for one in (await g.messages.after(talk, 1, limit=2)).data] == [2, 6]
    assert [one.seq for one in (await g.messages.after(talk, 3, limit=1)).data] == [6]
    assert [one.seq for one in (await g.messages.around(talk, 4, limit=3)).data] == [1, 2, 6]
    assert [one.seq for one in (await g.messages.around(talk, 6, limit=3)).data] == [2, 6, 7]


async def test_the_owner_alone_chooses_the_path(g: Greffier) -> None:
    """Members and strangers do not, and in an archived conversation nobody."""
    room = await g.conversations.create(owner="ada", kind="room", participants={"bob": "member"})
    await g.messages.append_many(room.id, [{"content": "1"}, {"content": "2"}])
    await g.messages.rewind(room.id, after_seq=1, actor="ada")
    (branch,) = await g.conversations.branches(room.id)

    for actor, refusal in (("bob", Forbidden), ("eve", NotFound)):
        with pytest.raises(refusal):
            await g.messages.rewind(room.id, after_seq=0, actor=actor)
        with pytest.raises(refusal):
            await g.conversations.activate(room.id, branch.id, actor=actor)
    await g.conversations.archive(room.id)
    with pytest.raises(Archived):
        await g.messages.rewind(room.id, after_seq=0)
    with pytest.raises(Archived):
        await g.conversations.activate(room.id, branch.id)
    assert await g.messages.rewind(room.id, after_seq=1) == 0


async def test_a_message_that_left_the_path_is_not_brought_back_by_sending_it_again(
    g: Greffier,
) -> None:
    """Its id names it for ever: the answer is that message, and the path stays as it is."""
    talk = await a_talk(g, 1)
    message_id = uuid7()
    await g.messages.append(talk, content="again?", id=message_id)
    await g.messages.rewind(talk, after_seq=1)

    assert (await g.messages.append(talk, content="again?", id=message_id)).seq == 2
    assert await shown(g, talk) == [1]


# -- Branches


async def test_a_branch_is_taken_up_again_and_the_other_path_kept(g: Greffier) -> None:
    """Activating swaps the two, there and back again, and loses nothing of either."""
    talk = await a_talk(g, 4)
    await g.messages.rewind(talk, after_seq=2)
    await g.messages.append(talk, content="5")
    (first,) = await g.conversations.branches(talk)

    assert await g.conversations.activate(talk, first.id, actor="ada") == 5
    assert await shown(g, talk) == [1, 2, 3, 4]
    (second,) = await g.conversations.branches(talk)
    assert (second.path, second.last_seq, second.preview) == ([(1, 2), (5, 5)], 5, "5")

    await g.conversations.activate(talk, second.id)
    assert await shown(g, talk) == [1, 2, 5]
    (third,) = await g.conversations.branches(talk)
    assert (third.path, third.left_at_rev) == ([(1, 4)], 6)
    with pytest.raises(NotFound):
        await g.conversations.activate(talk, first.id)


async def test_a_path_taken_up_goes_on(g: Greffier) -> None:
    """Its end is open: what comes next belongs to it, and its parent is its last message."""
    talk = await a_talk(g, 4)
    await g.messages.rewind(talk, after_seq=2)
    await g.messages.append(talk, content="5")
    (branch,) = await g.conversations.branches(talk)
    await g.conversations.activate(talk, branch.id)

    said = await g.messages.append(talk, content="6")

    assert (said.seq, said.parent_seq) == (6, 4)
    assert await shown(g, talk) == [1, 2, 3, 4, 6]
    assert (await g.messages.recent(talk)).total == 5


async def test_every_answer_that_was_given_is_kept(g: Greffier) -> None:
    """An answer made again three times is three branches, the last left first, each to be had."""
    talk = await a_talk(g, 1)
    for answer in ("a", "b", "c", "d"):
        await g.messages.rewind(talk, after_seq=1)
        await g.messages.append(talk, role="assistant", content=answer)

    branches = await g.conversations.branches(talk)

    assert [branch.preview for branch in branches] == ["c", "b", "a"]
    assert [branch.path for branch in branches] == [
        [(1, 1), (4, 4)],
        [(1, 1), (3, 3)],
        [(1, 2)],
    ]
    await g.conversations.activate(talk, branches[2].id)
    assert [message.content for message in (await g.messages.recent(talk)).data] == ["1", "a"]


async def test_leaving_an_empty_path_leaves_no_branch(g: Greffier) -> None:
    """Who went back to the beginning and takes the old path up again is where they were."""
    talk = await a_talk(g, 2)
    await g.messages.rewind(talk, after_seq=0)
    (branch,) = await g.conversations.branches(talk)

    await g.conversations.activate(talk, branch.id)

    assert await shown(g, talk) == [1, 2]
    assert await g.conversations.branches(talk) == []


async def test_what_changes_off_the_path_is_changed_when_it_comes_back(g: Greffier) -> None:
    """An edit or a deletion reaches every path its message is on, and the counts of each."""
    talk = await a_talk(g, 5)
    await g.messages.rewind(talk, after_seq=2)
    await g.messages.edit(talk, 3, "three")
    await g.messages.delete(talk, 4)
    await g.messages.delete(talk, 1)
    assert (await g.messages.recent(talk)).total == 1
    (branch,) = await g.conversations.branches(talk)

    await g.conversations.activate(talk, branch.id)

    found = await g.messages.recent(talk)
    assert [message.content for message in found.data] == [None, "2", "three", None, "5"]
    assert found.total == 3
    assert await g.messages.rewind(talk, after_seq=2) == 2


async def test_a_branch_is_described_by_what_is_left_of_it(g: Greffier) -> None:
    """Its preview is its last message that was not deleted, or nothing."""
    talk = await a_talk(g, 3)
    await g.messages.rewind(talk, after_seq=1)
    for seq, preview in ((3, "2"), (2, "1"), (1, None)):
        await g.messages.delete(talk, seq)
        (branch,) = await g.conversations.branches(talk)
        assert branch.preview == preview


# -- What it costs, however long the conversation is (P4)

LONG = 200_000


@pytest_asyncio.fixture
async def long(g: Greffier, database: str) -> AsyncIterator[tuple[Connection, UUID]]:
    """A conversation of 200,000 messages, and a connection that looks at what things cost."""
    talk = await a_talk(g, 0)
    async with connected(database) as connection:
        await lengthen(connection, talk, LONG)
        await connection.execute("analyze messages, conversations, branches, path_changes")
        yield connection, talk


async def buffers(connection: Connection, talk: UUID, where: Where) -> int:
    """How many of PostgreSQL's pages a page of messages touches."""
    anchor, upto, above = where.window()
    arguments = (talk, "ada", anchor, upto, above, where.superseded, 16_384, 1 << 20)
    # What is looked up in the catalogue on first use is no cost of a page.
    for _ in range(2):
        plan = await connection.fetchval(
            f"explain (analyze, buffers, timing off, format json) {queries()['page']}", *arguments
        )
    top: dict[str, Any] = msgspec.json.decode(plan)[0]["Plan"]
    return int(top["Shared Hit Blocks"] + top["Shared Read Blocks"])


async def test_a_page_costs_the_same_however_much_was_rewound(
    store: Database, long: tuple[Connection, UUID]
) -> None:
    """With one message off the path, or nearly all of 200,000, a page touches as much as before."""
    connection, talk = long
    latest = Where(15)
    before = await buffers(connection, talk, latest)
    await rewind(store, talk, LONG - 1, None)
    one = await buffers(connection, talk, latest)
    middle = await buffers(connection, talk, Where(15, before=LONG // 2))
    await rewind(store, talk, 20, None)
    nearly_all = await buffers(connection, talk, latest)

    # Messages and index entries may lie across the edge of one page more or less.
    assert max(before, one, middle, nearly_all) - min(before, one, middle, nearly_all) <= 2
    assert nearly_all <= 20


async def test_rewinding_changes_three_rows_however_long_the_tail_is(
    database: str, long: tuple[Connection, UUID]
) -> None:
    """The conversation, one branch and one change of path: not one message is touched."""
    _, talk = long
    # A session of its own: what an earlier transaction did counts here until it is reported.
    async with connected(database) as connection, undone(connection):
        await connection.execute("select rewind_v1($1, null, 20, gen_random_uuid())", talk)
        rows = await connection.fetch(
            """
            select relname, n_tup_ins + n_tup_del as made, n_tup_upd > 0 as changed
            from pg_stat_xact_user_tables
            where schemaname = 'greffier' and n_tup_ins + n_tup_upd + n_tup_del > 0
            """
        )
        mine = await connection.fetchval(
            "select count(*) from conversations where xmin = pg_current_xact_id()::xid"
        )
        read = await connection.fetchval(
            "select seq_scan + idx_tup_fetch from pg_stat_xact_user_tables"
            " where relname = 'messages'"
        )

    assert {row["relname"]: (row["made"], row["changed"]) for row in rows} == {
        "conversations": (0, True),
        "branches": (1, False),
        "path_changes": (1, False),
    }
    assert (mine, read) == (1, 0)
