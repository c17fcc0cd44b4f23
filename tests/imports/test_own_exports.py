"""What Greffier writes out it reads back: into another record, or the same one, once."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from greffier.library import open as open_record
from helpers.importing import Desk, jsonl
from helpers.postgres import new_database


@pytest_asyncio.fixture
async def elsewhere(postgres: str, template: str) -> AsyncIterator[Desk]:
    """A desk before another empty record."""
    async with (
        new_database(postgres, f"template {template}") as dsn,
        open_record(dsn) as record,
    ):
        yield Desk(record)


async def fill(desk: Desk) -> None:
    """Conversations with all that an export holds."""
    g = desk.record
    talk = await g.conversations.create(
        owner="ada", title="Été", subject="maths", metadata={"b": 1, "a": [None, 1.5]}
    )
    await g.messages.append(talk.id, role="system", content="be kind")
    await g.messages.append(talk.id, content="Bonjour", actor="ada", metadata={"x": {"y": 1}})
    await g.messages.append(
        talk.id,
        role="assistant",
        content="je regarde",
        reasoning="hm",
        tool_calls=[{"id": "c", "function": {"name": "look", "arguments": "{}"}}],
    )
    await g.messages.append(talk.id, role="tool", tool_call_id="c", name="look", content="")
    await g.messages.append(talk.id, parts=[{"type": "text", "text": "a"}, {"type": "file"}])
    old = await g.conversations.create(owner="ada")
    await g.messages.append(old.id, content="x")
    await g.conversations.archive(old.id)
    room = await g.conversations.create(owner="bob", kind="room", participants={"ada": "member"})
    for n in range(250):
        await g.messages.append(room.id, content=f"n{n}", actor=("ada", "bob")[n % 2])


def told(raw: bytes) -> list[dict[str, Any]]:
    """What an export tells, without what each record numbers and dates for itself."""
    theirs = {"rev", "epoch", "created_at", "updated_at", "archived_at", "said_at", "written_by"}
    theirs.add("last_message")
    lines = []
    for line in raw.splitlines():
        value = json.loads(line)
        inner = value.get("conversation", value)
        lines.append({key: one for key, one in inner.items() if key not in theirs})
    return lines


@pytest.mark.parametrize("form", ["jsonl", "json"])
async def test_an_export_is_read_back_into_another_record(
    desk: Desk, elsewhere: Desk, form: str
) -> None:
    """Same ids, order, words, people and metadata; when it was said is kept as said_at."""
    await fill(desk)
    account = await elsewhere.take(await desk.exported(form), owner=None)
    assert (account.read, account.mapped, account.conversations) == (256, 256, 3)
    assert told(await elsewhere.exported()) == told(await desk.exported())
    for conversation in await desk.conversations():
        before = await desk.messages(conversation)
        after = await elsewhere.messages(conversation)
        assert [one.said_at for one in after] == [one.said_at or one.created_at for one in before]
    archived = await elsewhere.record.conversations.list(user="ada", archived=True)
    assert len(archived.data) == 1


async def test_an_export_adds_nothing_where_it_comes_from(desk: Desk) -> None:
    """Also when conversations went on, were edited or deleted from since."""
    await fill(desk)
    export = await desk.exported()
    account = await desk.take(export, owner=None)
    assert (account.already, account.mapped, account.conversations) == (256, 0, 0)
    talk = (await desk.conversations())[0]
    await desk.record.messages.append(talk, content="later")
    await desk.record.messages.edit(talk, 2, content="Bonsoir")
    await desk.record.messages.delete(talk, 3)
    account = await desk.take(export, owner=None)
    assert (account.already, account.mapped) == (255, 0)
    assert account.reasons == {"changed": 1}
    account = await desk.take(await desk.exported(), owner=None)
    assert (account.already, account.deletions) == (256, {"deleted-in-source": 1})


async def test_a_newer_export_of_ours_continues_the_older(desk: Desk, elsewhere: Desk) -> None:
    """Moved in two goes, the record is the same as moved at once."""
    await fill(desk)
    await elsewhere.take(await desk.exported(), owner=None)
    talk = (await desk.conversations())[0]
    await desk.record.messages.append(talk, content="later", actor="ada")
    account = await elsewhere.take(await desk.exported(), owner=None)
    assert (account.already, account.mapped) == (256, 1)
    assert told(await elsewhere.exported()) == told(await desk.exported())


async def test_an_export_read_in_for_somebody_else_is_a_copy(desk: Desk) -> None:
    """It has another id, always the same, and its new owner has said what the former one said."""
    talk = await desk.record.conversations.create(owner="ada")
    await desk.record.messages.append(talk.id, content="mine", actor="ada")
    export = await desk.exported()
    assert (await desk.take(export, owner="eve")).conversations == 1
    assert (await desk.take(export, owner="eve")).already == 1
    (copy,) = await desk.conversations("eve")
    assert copy != talk.id
    assert (await desk.messages(copy))[0].author_id == "eve"


async def test_a_subject_that_is_taken_stays_with_who_has_it(desk: Desk, elsewhere: Desk) -> None:
    """The imported conversation is there, without the subject, and the account says so."""
    await elsewhere.record.conversations.create(owner="ada", subject="maths")
    await fill(desk)
    account = await elsewhere.take(await desk.exported(), owner=None)
    assert account.altered == {"subject-taken": 1}
    assert account.mapped == 256


async def test_an_archived_conversation_gives_its_subject_up(desk: Desk, elsewhere: Desk) -> None:
    """So that the active one keeps it, in whatever order they come; it is noted in metadata."""
    for n in range(3):
        talk = await desk.record.conversations.create(owner="ada", subject="maths")
        await desk.record.messages.append(talk.id, content="x")
        if n < 2:
            await desk.record.conversations.archive(talk.id)
    account = await elsewhere.take(await desk.exported(), owner=None)
    assert account.altered == {"archived-subject": 2}
    (active,) = (await elsewhere.record.conversations.list(user="ada")).data
    assert (active.id, active.subject) == (talk.id, "maths")
    archived = (await elsewhere.record.conversations.list(user="ada", archived=True)).data
    assert [one.metadata for one in archived] == [{"greffier:export": {"subject": "maths"}}] * 2


async def test_a_broken_line_of_an_export_is_set_aside_alone(desk: Desk, elsewhere: Desk) -> None:
    """A message line costs one message; a conversation's line costs those that belong to it."""
    await fill(desk)
    lines = (await desk.exported()).splitlines(keepends=True)
    heads = [n for n, line in enumerate(lines) if line.startswith(b'{"conversation":')]
    sizes = [b - a - 1 for a, b in zip(heads, [*heads[1:], len(lines)], strict=True)]
    lines[heads[2] + 1] = b'{"conversation_id": broken\n'
    lines[heads[0]] = lines[heads[0]].replace(b'"kind":"', b'"kind":"un')
    account = await elsewhere.take(b"".join(lines), owner=None)
    assert account.reasons == {"no-conversation": sizes[0] + 1, "not-json": 1}
    assert account.mapped == 256 - sizes[0] - 1
    assert account.conversations == 2


async def test_a_conversation_of_another_owner_is_not_written_to(desk: Desk) -> None:
    """An export with a known id and another owner gets nowhere."""
    talk = await desk.record.conversations.create(owner="ada")
    await desk.record.messages.append(talk.id, content="mine", actor="ada")
    forged = (await desk.exported()).replace(b'"owner_id":"ada"', b'"owner_id":"eve"')
    account = await desk.take(forged, owner=None)
    assert account.reasons == {"forbidden": 1}
    empty = jsonl([{"conversation": {"id": str(talk.id), "owner_id": "eve"}}])
    account = await desk.take(empty, owner=None)
    assert (account.read, account.reasons) == (1, {"forbidden": 1})
