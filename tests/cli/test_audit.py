"""The audit finds each fault of a record where it is, and nothing else."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
import pytest_asyncio

from greffier.library import Greffier
from greffier.library import open as open_record
from greffier.read.audit import CHECKS, Report, audit
from greffier.store.queries import queries
from helpers.lanes import Hand
from helpers.postgres import connected, new_database
from helpers.work_faults import WORK_FAULTS, work

if TYPE_CHECKING:
    from cli.conftest import Cli

CALL = {"id": "c", "function": {"name": "look", "arguments": "{}"}}

#: name → the checks that must fail, and what is done to the conversation $1 (six messages).
FAULTS: dict[str, tuple[set[str], str]] = {
    "a message is missing": (
        {"seq-gap"},
        """
        delete from messages where conversation_id = $1 and seq = 3;
        update conversations set message_count = message_count - 1 where id = $1
        """,
    ),
    "the first message is missing": (
        {"seq-gap"},
        """
        delete from messages where conversation_id = $1 and seq = 1;
        update conversations set message_count = message_count - 1 where id = $1
        """,
    ),
    "the last message is missing": (
        {"seq-gap"},
        """
        delete from messages where conversation_id = $1 and seq = 6;
        update conversations set message_count = message_count - 1 where id = $1
        """,
    ),
    "every message is missing": (
        {"seq-gap"},
        """
        delete from messages where conversation_id = $1;
        update conversations set message_count = 0 where id = $1
        """,
    ),
    "a seq stands twice": (
        {"seq-double"},
        """
        insert into messages
        select (jsonb_populate_record(m, jsonb_build_object('id', gen_random_uuid()))).*
        from messages m where conversation_id = $1 and seq = 3;
        update conversations set message_count = message_count + 1 where id = $1
        """,
    ),
    "a message id stands twice": (
        {"id-double"},
        """
        update messages set id = (
            select id from messages where conversation_id = $1 and seq = 1)
        where conversation_id = $1 and seq = 2
        """,
    ),
    "a message lies after the last": (
        {"seq-outside"},
        """
        update conversations set last_seq = 5, said_total = (
            select said_no from messages where conversation_id = $1 and seq = 5)
        where id = $1
        """,
    ),
    "a message lies before the first": (
        {"seq-outside"},
        "update conversations set first_seq = 2 where id = $1",
    ),
    "the bounds are none": (
        {"seq-bounds", "seq-gap"},
        "update conversations set first_seq = 0 where id = $1",
    ),
    "the count is wrong": (
        {"message-count"},
        "update conversations set message_count = message_count + 1 where id = $1",
    ),
    "a deletion was not counted": (
        {"message-count"},
        """
        update messages set deleted_at = now(), changed_rev = rev + 1
        where conversation_id = $1 and seq = 2
        """,
    ),
    "the count of what was said is wrong": (
        {"said-no"},
        "update messages set said_no = said_no + 1 where conversation_id = $1 and seq = 3",
    ),
    "the count of tool traffic is wrong": (
        {"tool-no"},
        "update messages set tool_no = tool_no + 1 where conversation_id = $1 and seq = 4",
    ),
    "the first count is wrong": (
        {"said-no"},
        """
        update messages set said_no = said_no + 1 where conversation_id = $1;
        update conversations set said_total = said_total + 1 where id = $1
        """,
    ),
    "what was said is totalled wrong": (
        {"said-total"},
        "update conversations set said_total = said_total + 1 where id = $1",
    ),
    "tool traffic is totalled wrong": (
        {"tool-total"},
        "update conversations set tool_total = tool_total - 1 where id = $1",
    ),
    "a rev goes back": (
        {"rev-order"},
        """
        update messages set rev = 50 where conversation_id = $1 and seq = 2;
        update conversations set rev = 99 where id = $1
        """,
    ),
    "a change is older than its message": (
        {"rev-order"},
        "update messages set changed_rev = rev where conversation_id = $1 and seq = 2",
    ),
    "the conversation is behind its messages": (
        {"rev-behind"},
        "update conversations set rev = 2 where id = $1",
    ),
    "the conversation is behind its people": (
        {"rev-behind"},
        "update participants set rev = 999 where conversation_id = $1",
    ),
    "time goes back": (
        {"created-order"},
        """
        update messages set created_at = created_at + interval '1 day'
        where conversation_id = $1 and seq = 2
        """,
    ),
    "a parent comes after its child": (
        {"parent"},
        "update messages set parent_seq = 3 where conversation_id = $1 and seq = 3",
    ),
    "a parent is none": (
        {"parent"},
        "update messages set parent_seq = 0 where conversation_id = $1 and seq = 3",
    ),
    "the path begins before the record": (
        {"path"},
        "update conversations set path = '{[0,)}' where id = $1",
    ),
    "the path has an end": (
        {"path"},
        "update conversations set path = '{[1,7)}' where id = $1",
    ),
    "there is no path": (
        {"path"},
        "update conversations set path = '{}', message_count = 0 where id = $1",
    ),
    "a branch leads out of the record": (
        {"path"},
        "insert into branches values ($1, gen_random_uuid(), '{[1,9)}', 1, 8)",
    ),
    "there is no owner": (
        {"owner"},
        "update participants set role = 'member' where conversation_id = $1",
    ),
    "there are two owners": (
        {"owner"},
        """
        insert into participants values ($1, 'eve', 'owner', now(), null, 0, 1);
        insert into listings
        select 'eve', $1, listed_at, kind, subject, archived, 0 from listings
        where conversation_id = $1
        """,
    ),
    "another is the owner": (
        {"owner"},
        "update conversations set owner_id = 'eve' where id = $1",
    ),
    "somebody has read what is not there": (
        {"read-mark"},
        "update participants set last_read_seq = 7 where conversation_id = $1",
    ),
    "it is missing in the list": (
        {"listing"},
        "delete from listings where conversation_id = $1",
    ),
    "it is removed from the list": (
        {"listing"},
        "update listings set removed_at = now() where conversation_id = $1",
    ),
    "it is in a stranger's list": (
        {"listing"},
        """
        insert into listings
        select 'eve', $1, listed_at, kind, subject, archived, 0 from listings
        where conversation_id = $1
        """,
    ),
    "the list says archived": (
        {"listing"},
        "update listings set archived = true where conversation_id = $1",
    ),
    "the list says another kind": (
        {"listing"},
        "update listings set kind = 'room' where conversation_id = $1",
    ),
    "the list is ahead of the activity": (
        {"listing"},
        "update listings set listed_at = now() + interval '1 day' where conversation_id = $1",
    ),
    "the list is ahead of its number": (
        {"listing"},
        "update listings set list_rev = 99999 where conversation_id = $1",
    ),
    "its subject is not taken": (
        {"slot", "listing"},
        """
        update conversations set subject = 'maths' where id = $1;
        update listings set subject = 'latin' where conversation_id = $1
        """,
    ),
    "a subject is taken by a conversation that is on none": (
        {"slot"},
        "insert into subject_slots values ('zoe', 'greek', $1)",
    ),
    "everything but the conversation is there": (
        {"orphan"},
        "delete from conversations where id = $1",
    ),
    "an earlier text belongs to no message": (
        {"orphan"},
        "insert into message_versions values ($1, 9, 1, 'x', null, now(), now(), 'ada')",
    ),
    "an erased conversation is there": (
        {"erased"},
        "insert into erased values ($1, now())",
    ),
}


async def fill(record: Greffier) -> UUID:
    """Make a conversation of six messages, of every kind that is counted."""
    talk = await record.conversations.create(owner="ada")
    await record.messages.append_many(
        talk.id,
        [
            {"role": "system", "content": "be kind"},
            {"role": "user", "content": "look"},
            {"role": "assistant", "tool_calls": [CALL]},
        ],
    )
    await record.messages.append(talk.id, role="tool", tool_call_id="c", content="found")
    await record.messages.append(talk.id, role="assistant", content="there")
    await record.messages.append(talk.id, content="thanks")
    return talk.id


@dataclass(frozen=True)
class Spoilt:
    """A record in which each conversation has one fault, and what the audit says of it."""

    conversations: dict[str, UUID]
    report: Report


@pytest_asyncio.fixture(scope="module")
async def spoilt(postgres: str, template: str) -> AsyncIterator[Spoilt]:
    """Every fault there is, each in a conversation of its own, and one audit of them all."""
    async with (
        new_database(postgres, f"template {template}") as dsn,
        open_record(dsn) as record,
        connected(dsn) as live,
    ):
        await fill(record)
        made = await asyncio.gather(*(fill(record) for _ in FAULTS))
        conversations = dict(zip(FAULTS, made, strict=True))
        hand = Hand(live)
        await work(hand)
        conversations |= {name: await work(hand) for name in WORK_FAULTS}
        before = await audit(record.database)
        assert before.clean, before.findings
        # What PostgreSQL itself would not let us do.
        await live.execute("alter table messages drop constraint messages_pkey")
        await live.execute("alter table messages drop constraint messages_conversation_id_id_key")
        for name, (_, sql) in (FAULTS | WORK_FAULTS).items():
            for statement in sql.split(";"):
                await live.execute(statement, conversations[name])
        yield Spoilt(conversations, await audit(record.database))


@pytest.mark.parametrize("name", FAULTS | WORK_FAULTS)
def test_a_fault_is_found_where_it_is(spoilt: Spoilt, name: str) -> None:
    """Each kind of fault is reported under its own check, at its conversation, and as no other."""
    checks, _ = (FAULTS | WORK_FAULTS)[name]
    conversation = spoilt.conversations[name]
    found = [one for one in spoilt.report.findings if one.conversation_id == conversation]
    assert {one.check for one in found} == checks


def test_nothing_else_is_reported(spoilt: Spoilt) -> None:
    """The conversation that nobody spoilt is clean, and every check has a fault in this test."""
    report = spoilt.report
    known = set(spoilt.conversations.values())
    assert {one.conversation_id for one in report.findings} <= known
    assert set(report.faults) == set(CHECKS)
    assert sum(report.faults.values()) == len(report.findings)


def test_a_fault_of_a_message_names_it(spoilt: Spoilt) -> None:
    """By its seq."""
    conversation = spoilt.conversations["a message is missing"]
    (found,) = (one for one in spoilt.report.findings if one.conversation_id == conversation)
    assert (found.seq, found.detail) == (4, "nothing between 2 and 4")


async def test_a_record_with_a_past_is_clean(database: str) -> None:
    """After edits, deletions, erasures, rewinds, branches, people coming and going, archiving."""
    async with open_record(database) as record:
        talk = await fill(record)
        await record.messages.edit(talk, 2, content="look there")
        await record.messages.delete(talk, 4)
        await record.messages.delete(talk, 5, erase=True)
        await record.messages.rewind(talk, after_seq=2)
        await record.messages.append(talk, role="assistant", content="again")
        await record.messages.rewind(talk, after_seq=0)
        await record.messages.append(talk, content="anew")
        (branch, *_) = await record.conversations.branches(talk)
        await record.conversations.activate(talk, branch.id)
        await record.messages.append(talk, content="on")
        room = await record.conversations.create(
            owner="ada", kind="room", participants={"bob": "member"}
        )
        invited = await record.conversations.invite(room.id, actor="ada")
        await record.conversations.accept(invited.token, user="eve")
        await record.messages.append(room.id, content="hi", actor="eve")
        await record.conversations.read(room.id, 1, user="bob")
        await record.conversations.leave(room.id, user="bob")
        for _ in range(2):
            on_subject = await record.conversations.create(owner="ada", subject="maths")
            await record.conversations.archive(on_subject.id)
        await record.conversations.create(owner="ada", subject="maths")
        await record.conversations.erase(await fill(record))
        async with connected(database) as live:
            hand = Hand(live)
            worked = [await work(hand) for _ in range(2)]
        await record.messages.delete(worked[0], 6, erase=True)
        await record.messages.rewind(worked[0], after_seq=2)
        await record.conversations.erase(worked[1])
        report = await audit(record.database)
    assert report.findings == []
    assert (report.conversations, report.messages) == (6, 19)


async def test_an_audit_may_run_while_people_write(database: str) -> None:
    """It sees one moment, so what is under way never looks like a fault."""
    async with open_record(database) as record:
        talks = [await fill(record) for _ in range(3)]
        done = asyncio.Event()

        async def write(talk: UUID) -> None:
            while not done.is_set():
                await record.messages.append(talk, content="x")
                await record.messages.rewind(talk, after_seq=1)

        async with asyncio.TaskGroup() as group:
            for talk in talks:
                group.create_task(write(talk))
            reports = [await audit(record.database) for _ in range(5)]
            done.set()
    assert [one.findings for one in reports] == [[]] * 5
    assert reports[-1].messages > reports[0].messages


async def test_a_thousand_faults_are_counted_and_a_hundred_named(database: str) -> None:
    """What is kept in memory does not grow with what is wrong."""
    async with open_record(database) as record, connected(database) as live:
        talk = await record.conversations.create(owner="ada")
        for _ in range(10):
            await record.messages.append_many(talk.id, [{"content": "x"}] * 100)
        await live.execute("update messages set parent_seq = seq")
        report = await audit(record.database)
    assert report.faults == {"parent": 1000}
    assert [one.seq for one in report.findings] == list(range(1, 101))


async def test_the_command_says_what_is_wrong_and_exits_with_3(cli: Cli, on_database: str) -> None:
    """0 and one line when all is well; the places on stdout when not, and how many on stderr."""
    async with open_record(on_database) as record:
        talk = await fill(record)
    clean = await cli("audit")
    assert (clean.code, clean.err) == (0, "")
    assert re.fullmatch(r"Clean: 1 conversation\(s\), 6 message\(s\), \d+ checks\.\n", clean.out)
    async with connected(on_database) as live:
        await live.execute("update conversations set message_count = 7")
    wrong = await cli("audit")
    assert wrong.code == 3
    assert str(talk) in wrong.out
    assert "it says 7, there are 6" in wrong.out
    assert all(len(line) <= 80 for line in wrong.out.splitlines())
    assert wrong.err == "1 faults in 1 conversation(s), 6 message(s).\n"
    found: dict[str, Any] = (await cli("audit", "--json")).json()
    assert found == {
        "clean": False,
        "conversations": 1,
        "messages": 6,
        "faults": {"message-count": 1},
        "findings": [
            {
                "check": "message-count",
                "conversation_id": str(talk),
                "seq": None,
                "detail": "it says 7, there are 6",
            }
        ],
    }


async def test_every_table_of_a_conversation_is_looked_at(database: str) -> None:
    """A new table is not forgotten: it is looked at for orphans and for what an erasure left."""
    async with connected(database) as live:
        tables = await live.fetch(
            "select table_name from information_schema.columns "
            "join information_schema.tables using (table_schema, table_name) "
            "where table_schema = 'greffier' and column_name = 'conversation_id' "
            "and table_type = 'BASE TABLE'"
        )
    for name in ("audit_people", "audit_erased"):
        read = queries()[name] + queries()["audit_messages"]
        for (table,) in tables:
            # What was spent, and that something came in once, stays; it says nothing of the words.
            if table not in ("erased", "usage", "inbox"):
                assert re.search(rf"from {table}\b", read), f"{name} does not look at {table}"
