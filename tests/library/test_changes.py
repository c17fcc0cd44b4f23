"""What may be counted on when something changes after it was said, and to catch up with it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any
from uuid import UUID

import msgspec
import pytest

from greffier.change.forget import forget_user
from greffier.errors import (
    Archived,
    Forbidden,
    Gone,
    IdReused,
    Invalid,
    NotFound,
    PayloadTooLarge,
    Stale,
)
from greffier.library import Greffier
from greffier.model.ids import uuid7
from greffier.model.limits import DEFAULT
from greffier.read.changes import changes
from greffier.read.pages import Where, page
from greffier.store.database import Database
from helpers.long import lengthen
from helpers.postgres import connected
from helpers.view import NOTHING, answers, caught_up, look

PICTURE: list[dict[str, Any]] = [
    {"type": "text", "text": "see"},
    {"type": "image_url", "image_url": {"url": "u"}},
]


async def a_talk(g: Greffier, *said: str) -> UUID:
    """An assistant's conversation of ada's in which she said this."""
    talk = await g.conversations.create(owner="ada")
    for words in said:
        await g.messages.append(talk.id, content=words, actor="ada")
    return talk.id


async def a_room(g: Greffier) -> UUID:
    """A room of ada's; bob is a member and has said hello, cleo a viewer."""
    talk = await g.conversations.create(
        owner="ada", kind="room", participants={"bob": "member", "cleo": "viewer"}
    )
    await g.messages.append(talk.id, content="hello", actor="bob")
    return talk.id


async def rev(g: Greffier, talk: UUID) -> int:
    """The conversation's rev."""
    return (await g.conversations.get(talk)).rev


async def exported(g: Greffier, talk: UUID, form: str) -> bytes:
    """The conversation as a file."""
    return b"".join([piece async for piece in g.conversations.export(talk, form)])


# -- Editing


async def test_an_edited_message_keeps_its_earlier_texts(g: Greffier) -> None:
    """Everybody sees the new text and that it was edited; what it said before stays on record."""
    talk = await a_talk(g, "first")
    before = await g.messages.get(talk, 1)

    await g.messages.edit(talk, 1, "second", actor="ada")
    after = await g.messages.edit(talk, 1, "third")

    assert (after.content, after.rev) == ("third", 4)
    assert after.edited_at is not None
    kept = ("seq", "id", "role", "author_id", "created_at", "parent_seq")
    assert [getattr(after, name) for name in kept] == [getattr(before, name) for name in kept]
    first, second = await g.messages.versions(talk, 1)
    assert (first.content, first.rev, first.replaced_by) == ("first", 3, "ada")
    assert (second.content, second.rev, second.replaced_by) == ("second", 4, "service")
    assert first.written_at == before.created_at
    assert first.replaced_at == second.written_at
    assert second.replaced_at == after.edited_at


async def test_parts_are_put_aside_whole(g: Greffier) -> None:
    """An edited message is its new text alone; the picture it had is among its versions."""
    talk = await a_talk(g)
    await g.messages.append(talk, parts=PICTURE)

    edited = await g.messages.edit(talk, 1, "see")

    assert (edited.content, edited.parts) == ("see", None)
    (version,) = await g.messages.versions(talk, 1)
    assert (version.content, version.parts) == ("see", PICTURE)


async def test_an_author_edits_and_so_does_the_owner_of_an_assistants_conversation(
    g: Greffier,
) -> None:
    """In a room nobody puts words into another's mouth; an assistant's are its owner's to mend."""
    talk, room = await a_talk(g), await a_room(g)
    await g.messages.append(talk, role="assistant", content="hm")

    await g.messages.edit(talk, 1, "ah", actor="ada")
    await g.messages.edit(room, 1, "hello all", actor="bob")

    for actor, refusal in (("ada", Forbidden), ("cleo", Forbidden), ("eve", NotFound)):
        with pytest.raises(refusal):
            await g.messages.edit(room, 1, "I resign", actor=actor)
    assert (await g.messages.get(room, 1)).content == "hello all"


async def test_who_may_only_read_does_not_edit_what_they_said_before(g: Greffier) -> None:
    """A member who was made a viewer changes nothing any more, and can still take words back."""
    room = await a_room(g)
    await g.conversations.join(room, "bob", role="viewer", actor="ada")

    with pytest.raises(Forbidden):
        await g.messages.edit(room, 1, "hi", actor="bob")
    await g.messages.delete(room, 1, actor="bob")


async def test_an_edit_on_a_condition_changes_what_was_seen_or_nothing(g: Greffier) -> None:
    """Who edits what somebody has edited meanwhile is told, and the other's text stands."""
    talk = await a_talk(g, "first")
    seen = await g.messages.get(talk, 1)
    await g.messages.edit(talk, 1, "second", if_rev=seen.rev)

    with pytest.raises(Stale):
        await g.messages.edit(talk, 1, "other", if_rev=seen.rev)

    assert (await g.messages.get(talk, 1)).content == "second"
    assert len(await g.messages.versions(talk, 1)) == 1


async def test_a_message_without_words_has_none_to_edit(g: Greffier) -> None:
    """Only what says something is edited, and into something: a call stays a call."""
    talk = await a_talk(g, "look")
    call = {"id": "c1", "function": {"name": "look", "arguments": "{}"}}
    await g.messages.append(talk, role="assistant", tool_calls=[call])

    with pytest.raises(Invalid):
        await g.messages.edit(talk, 2, "I looked")
    with pytest.raises(Invalid):
        await g.messages.edit(talk, 1, "")
    with pytest.raises(Invalid):
        await g.messages.edit(talk, 1, "nul \x00")
    with pytest.raises(PayloadTooLarge):
        await g.messages.edit(talk, 1, "x" * (DEFAULT.content + 1))
    assert await rev(g, talk) == 3


async def test_an_archived_conversation_is_not_edited_but_its_words_can_be_taken_back(
    g: Greffier,
) -> None:
    """Archiving closes the record to new words, not to the right to have old ones gone."""
    talk = await a_talk(g, "first")
    await g.conversations.archive(talk)

    with pytest.raises(Archived):
        await g.messages.edit(talk, 1, "second")
    await g.messages.delete(talk, 1, erase=True)


# -- Deleting


async def test_what_was_deleted_is_seen_by_nobody_anywhere(g: Greffier) -> None:
    """Pages, the whole record, previews, lists, context, versions, exports and changes hide it."""
    talk = await a_talk(g, "stays", "goes")
    call = {"id": "c1", "function": {"name": "SECRET", "arguments": '{"SECRET": 1}'}}
    await g.messages.append(
        talk,
        role="assistant",
        parts=[{"type": "text", "text": "SECRET part"}],
        tool_calls=[call],
        reasoning="SECRET thought",
        metadata={"SECRET": "SECRET"},
    )
    await g.messages.edit(talk, 2, "SECRET", actor="ada")
    before = await rev(g, talk)
    for seq in (2, 3):
        await g.messages.delete(talk, seq, actor="ada")
    await g.messages.rewind(talk, after_seq=1)

    conversation = await g.conversations.get(talk, actor="ada")
    (branch,) = await g.conversations.branches(talk)
    whole = await page(g.database, talk, "ada", Where(200, superseded=True))
    shown = [
        conversation,
        branch,
        whole.data,
        [found.body() async for found in answers(g.database, talk, before)],
        [found.body() async for found in answers(g.database, talk, 0)],
        await g.messages.get(talk, 2),
        await g.messages.get(talk, 3),
        await g.messages.versions(talk, 2),
        await g.context(talk),
        (await g.conversations.list(user="ada")).data,
        [await exported(g, talk, form) for form in ("jsonl", "json", "md", "csv", "html")],
    ]

    assert "SECRET" not in repr(shown)
    assert branch.preview == "stays"
    assert conversation.message_count == 1
    hidden = await g.messages.get(talk, 3)
    assert hidden.deleted_at is not None
    assert (hidden.content, hidden.parts, hidden.tool_calls, hidden.metadata) == (
        (None, None, None, {})
    )


async def test_a_deleted_message_keeps_its_place(g: Greffier) -> None:
    """Its number is not used again, a page shows that something was there, counts leave it out."""
    talk = await a_talk(g, "one", "two", "three")

    assert await g.messages.delete(talk, 2, actor="ada") == 5

    found = await g.messages.recent(talk)
    assert [message.seq for message in found.data] == [1, 2, 3]
    assert found.total == 2
    said = await g.messages.append(talk, content="four")
    assert (said.seq, said.parent_seq) == (4, 3)
    stats = await g.conversations.stats(talk)
    assert stats.messages.user == 3


async def test_the_author_and_the_owner_delete(g: Greffier) -> None:
    """An owner keeps house; other members leave what others said alone."""
    room = await a_room(g)
    await g.messages.append(room, content="spam", actor="bob")
    await g.conversations.join(room, "dan", actor="ada")

    for actor, refusal in (("cleo", Forbidden), ("dan", Forbidden), ("eve", NotFound)):
        with pytest.raises(refusal):
            await g.messages.delete(room, 2, actor=actor)
    await g.messages.delete(room, 1, actor="bob")
    await g.messages.delete(room, 2, actor="ada")

    with pytest.raises(NotFound):
        await g.messages.delete(room, 99, actor="ada")
    with pytest.raises(NotFound):
        await g.messages.edit(room, 1, "back", actor="bob")


async def test_a_deleted_message_sent_again_stays_deleted(g: Greffier) -> None:
    """An old outbox gets the message as it stands, and cannot put anything else in its place."""
    talk = await a_talk(g)
    message_id = uuid7()
    await g.messages.append(talk, content="oops", id=message_id)
    await g.messages.delete(talk, 1)

    again = await g.messages.append(talk, content="oops", id=message_id)

    assert (again.seq, again.content) == (1, None)
    assert again.deleted_at is not None
    with pytest.raises(IdReused):
        await g.messages.append(talk, content="other", id=message_id)


async def test_a_list_shows_what_is_left_as_the_last_message(g: Greffier) -> None:
    """When the last message goes, the one before it is the last; when all go, there is none."""
    talk = await a_talk(g, "one", "two")

    await g.messages.delete(talk, 2)
    shown = (await g.conversations.list(user="ada")).data[0]
    assert shown.last_message is not None
    assert (shown.last_message.seq, shown.last_message.preview) == (1, "one")

    await g.messages.delete(talk, 1)
    assert (await g.conversations.list(user="ada")).data[0].last_message is None


# -- A conversation's own fields


async def test_what_is_changed_together_is_one_change(g: Greffier) -> None:
    """Title, metadata, limit and archiving come together or not at all; what is not said stays."""
    talk = await a_talk(g, "hello")
    await g.conversations.update(talk, title="Plans", metadata={"a": 1}, actor="ada")

    found = await g.conversations.update(talk, history_limit=3, archived=True, actor="ada")

    assert (found.title, found.metadata, found.history_limit) == ("Plans", {"a": 1}, 3)
    assert (found.archived_at is not None, found.rev) == (True, 4)
    for wrong in ({"title": "x" * 1001}, {"history_limit": -1}, {"metadata": {"n": "\x00"}}):
        with pytest.raises(Invalid):
            await g.conversations.update(talk, archived=False, **wrong)
    assert await g.conversations.get(talk, actor="ada") == found
    assert (await g.conversations.update(talk, title=None, metadata={})).title == ""


async def test_a_conversation_is_changed_by_its_owner_as_they_saw_it(g: Greffier) -> None:
    """Others are refused, and so is a change on a condition that no longer holds."""
    room = await a_room(g)
    for actor, refusal in (("bob", Forbidden), ("cleo", Forbidden), ("eve", NotFound)):
        with pytest.raises(refusal):
            await g.conversations.update(room, title="Mine", actor=actor)

    found = await g.conversations.update(room, title="Ours", if_rev=2, actor="ada")
    with pytest.raises(Stale):
        await g.conversations.update(room, title="Theirs", if_rev=2, actor="ada")
    assert (await g.conversations.get(room, actor="ada")) == found


async def test_an_archived_conversation_is_read_and_answers_for_what_it_has(g: Greffier) -> None:
    """It takes nothing new, alone or among others, tells old messages from new, and comes back."""
    talk = await a_talk(g)
    message_id = uuid7()
    said = await g.messages.append(talk, content="hello", id=message_id, actor="ada")
    await g.conversations.archive(talk, actor="ada")

    assert (await g.conversations.list(user="ada")).data == []
    assert len((await g.conversations.list(user="ada", archived=True)).data) == 1
    assert (await g.messages.recent(talk)).data == [said]
    assert await g.messages.append(talk, content="hello", id=message_id, actor="ada") == said
    with pytest.raises(Archived):
        await g.messages.append(talk, content="more")
    with pytest.raises(Archived):
        await g.messages.append_many(
            talk, [{"content": "hello", "id": message_id}, {"content": "more"}], actor="ada"
        )
    with pytest.raises(IdReused):
        await g.messages.append(talk, content="other", id=message_id)
    await g.conversations.update(talk, archived=False, actor="ada")
    assert (await g.messages.append(talk, content="more")).seq == 2


# -- What is no change

Idle = Callable[[Greffier, UUID], Awaitable[object]]
IDLE: dict[str, Idle] = {
    "the same text": lambda g, room: g.messages.edit(room, 1, "hello", actor="bob"),
    "deleting again": lambda g, room: g.messages.delete(room, 2),
    "erasing again": lambda g, room: g.messages.delete(room, 3, erase=True),
    "deleting what is erased": lambda g, room: g.messages.delete(room, 3),
    "rewinding at the end": lambda g, room: g.messages.rewind(room, after_seq=3),
    "reading what was read": lambda g, room: g.conversations.read(room, 1, user="bob"),
    "the same title": lambda g, room: g.conversations.update(room, title="Plans"),
    "the same metadata": lambda g, room: g.conversations.update(room, metadata={"b": 2, "a": 1}),
    "nothing at all": lambda g, room: g.conversations.update(room),
    "bringing back what is here": lambda g, room: g.conversations.update(room, archived=False),
    "the role somebody has": lambda g, room: g.conversations.join(room, "bob"),
    "the owner who is": lambda g, room: g.conversations.join(room, "ada", role="owner"),
    "a thumb": lambda g, room: g.conversations.rate(room, 1, user="bob", seq=1),
    "an invitation": lambda g, room: g.conversations.invite(room),
    "a message that is there": lambda g, room: g.messages.append(
        room, content="again", id=UUID(int=1)
    ),
}


async def test_what_already_stands_so_costs_no_rev(g: Greffier) -> None:
    """A rev is one more change: what changes nothing wakes nobody, moves nothing in a list."""
    room = await a_room(g)
    await g.messages.append(room, content="again", id=UUID(int=1))
    await g.messages.append(room, content="more")
    await g.messages.delete(room, 2)
    await g.messages.delete(room, 3, erase=True)
    await g.conversations.read(room, 3, user="bob")
    await g.conversations.update(room, title="Plans", metadata={"a": 1, "b": 2})
    before = await g.conversations.get(room)

    for what, idle in IDLE.items():
        await idle(g, room)
        assert await g.conversations.get(room) == before, what


async def test_each_change_is_one_rev(g: Greffier) -> None:
    """However much a request changes, it counts once."""
    room = await a_room(g)
    steps: list[Awaitable[object]] = [
        g.messages.append_many(room, [{"content": "a"}, {"content": "b"}, {"content": "c"}]),
        g.messages.edit(room, 2, "A"),
        g.messages.delete(room, 3),
        g.messages.delete(room, 3, erase=True),
        g.messages.rewind(room, after_seq=1),
        g.conversations.update(room, title="Plans", metadata={"a": 1}, history_limit=5),
        g.conversations.join(room, "dan"),
        g.conversations.join(room, "dan", role="viewer"),
        g.conversations.leave(room, "dan"),
        g.conversations.read(room, 4, user="bob"),
        g.conversations.archive(room),
        g.conversations.update(room, archived=False),
        g.conversations.join(room, "bob", role="owner"),
    ]
    before = await rev(g, room)
    for step, doing in enumerate(steps, start=1):
        await doing
        assert await rev(g, room) == before + step


# -- Catching up


async def test_who_was_away_is_told_each_message_once_as_it_now_is(
    g: Greffier, store: Database
) -> None:
    """What was appended, edited and deleted meanwhile comes in one answer, in its latest state."""
    talk = await a_talk(g, "one", "two", "three")
    away = await look(store, talk, "ada")
    await g.messages.edit(talk, 1, "ONE")
    await g.messages.edit(talk, 1, "One")
    await g.messages.delete(talk, 2)
    await g.messages.append_many(talk, [{"content": "four"}, {"content": "five"}])
    await g.messages.edit(talk, 4, "Four")

    (answer,) = [found async for found in answers(store, talk, away.rev, "ada")]

    messages = msgspec.json.decode(b"[%b]" % answer.messages)
    assert [(one["seq"], one["content"]) for one in messages] == [
        (1, "One"),
        (2, None),
        (4, "Four"),
        (5, "five"),
    ]
    assert (answer.rev, answer.participants) == (await rev(g, talk), b"null")
    seen = away.apply(answer.body())
    assert seen.messages == (await look(store, talk)).messages
    assert seen.conversation == msgspec.to_builtins(await g.conversations.get(talk, actor="ada"))


async def test_what_came_and_went_meanwhile_is_not_told(g: Greffier, store: Database) -> None:
    """Messages that were appended and rewound away since are nobody's business; old ones are."""
    talk = await a_talk(g, "one", "two")
    away = await look(store, talk)
    await g.messages.append_many(talk, [{"content": "three"}, {"content": "four"}])
    await g.messages.rewind(talk, after_seq=1)
    await g.messages.append(talk, content="other")

    (answer,) = [found async for found in answers(store, talk, away.rev)]

    assert [one["seq"] for one in msgspec.json.decode(b"[%b]" % answer.messages)] == [5]
    assert msgspec.json.decode(answer.superseded) == [[2, 4]]
    assert away.apply(answer.body()).messages == (await look(store, talk)).messages


async def test_what_comes_back_is_told_as_it_now_is(g: Greffier, store: Database) -> None:
    """Who saw the rewound path gets the messages of the other one, with what changed since."""
    talk = await a_talk(g, "one", "two", "three")
    await g.messages.rewind(talk, after_seq=1)
    await g.messages.append(talk, content="other")
    away = await look(store, talk)
    await g.messages.edit(talk, 3, "THREE")
    (branch,) = await g.conversations.branches(talk)
    await g.conversations.activate(talk, branch.id)

    (answer,) = [found async for found in answers(store, talk, away.rev)]

    messages = msgspec.json.decode(b"[%b]" % answer.messages)
    assert [(one["seq"], one["content"]) for one in messages] == [(2, "two"), (3, "THREE")]
    assert msgspec.json.decode(answer.superseded) == [[4, 4]]
    assert away.apply(answer.body()).messages == (await look(store, talk)).messages


async def test_answers_are_cut_between_revs_and_lead_on(g: Greffier, store: Database) -> None:
    """A small answer carries whole revs, one at least, and says from where to ask on."""
    talk = await a_talk(g)
    for number in range(5):
        await g.messages.append_many(talk, [{"content": f"{number} {n}"} for n in range(3)])
    size = len((await page(store, talk, None, Where(3))).data)

    cut = [
        (
            [one["seq"] for one in msgspec.json.decode(b"[%b]" % found.messages)],
            found.rev,
            found.more,
        )
        async for found in answers(
            store, talk, 1, limits=replace(DEFAULT, page_bytes=2 * size + 10)
        )
    ]

    assert cut == [
        ([1, 2, 3, 4, 5, 6], 3, True),
        ([7, 8, 9, 10, 11, 12], 5, True),
        ([13, 14, 15], 6, False),
    ]


async def test_an_answer_takes_as_many_as_fit(g: Greffier, store: Database) -> None:
    """However short or long they are, deleted ones too: nobody asks more often than they must."""
    talk = await a_talk(g)
    shown = ["x", "déjà vu\n" * 40, "y" * 3000]
    for number in range(120):
        await g.messages.append(talk, content=shown[number % 3])
    for seq in range(1, 120, 10):
        await g.messages.delete(talk, seq)
    limits = replace(DEFAULT, page_bytes=20_000, cut=1000)

    sizes = [
        [
            len(message) + len(b",")
            for message in msgspec.json.decode(b"[%b]" % found.messages, type=list[msgspec.Raw])
        ]
        async for found in answers(store, talk, 1, limits=limits)
    ]

    assert sum(map(len, sizes)) == 120
    for answer, following in pairwise(sizes):
        assert sum(answer) <= 20_000
        # The deleted ones come last, each as the rev that deleted it.
        assert sum(answer) + following[0] > 20_000


async def test_people_are_told_also_to_who_catches_up_in_several_answers(
    g: Greffier, store: Database
) -> None:
    """Who joined, left or read is not forgotten because an earlier answer was cut."""
    room = await a_room(g)
    away = await look(store, room)
    await g.conversations.join(room, "dan")
    for _ in range(3):
        await g.messages.append(room, content="x" * 500)

    seen = await caught_up(away, store, room, limits=replace(DEFAULT, page_bytes=1))

    assert seen.participants == (await look(store, room)).participants
    assert "dan" in {person["user_id"] for person in seen.participants}


async def test_who_is_up_to_date_gets_nothing_more(g: Greffier, store: Database) -> None:
    """An answer without news is a small one, with the conversation as it is."""
    talk = await a_talk(g, "one")

    found = await changes(store, talk, "ada", 2)

    assert (found.rev, found.reset, found.more) == (2, False, False)
    assert (found.messages, found.superseded, found.participants) == (b"", b"[]", b"null")
    assert msgspec.json.decode(found.conversation)["me"]["role"] == "owner"


async def test_a_position_that_cannot_be_continued_says_so(g: Greffier, store: Database) -> None:
    """Of another epoch or ahead of the record: the answer has no messages, start from a page."""
    talk = await a_talk(g, "one")

    for since, epoch in ((1, "000000000000"), (3, None), (1 << 62, store.epoch), (99, store.epoch)):
        found = await changes(store, talk, None, since, epoch=epoch)
        assert (found.reset, found.more, found.messages) == (True, False, b"")
        assert (found.since, found.rev, found.epoch) == (since, 2, store.epoch)

    assert not (await changes(store, talk, None, 1, epoch=store.epoch)).reset


async def test_changes_are_for_who_may_see_the_conversation(g: Greffier, store: Database) -> None:
    """A stranger learns nothing, and of what was erased everybody learns that it is gone."""
    talk = await a_talk(g, "one")

    with pytest.raises(NotFound):
        await changes(store, talk, "eve", 0)
    with pytest.raises(Invalid):
        await changes(store, talk, None, -1)
    await g.conversations.erase(talk)
    with pytest.raises(Gone):
        await changes(store, talk, "ada", 0)


async def test_a_long_absence_is_made_up_for_in_bounded_answers(
    g: Greffier, store: Database, database: str
) -> None:
    """More than fits into one answer comes in several, without a reset, and nothing is missing."""
    talk = await a_talk(g, "one")
    async with connected(database) as connection:
        await lengthen(connection, talk, 4500)

    sizes = []
    view = NOTHING
    async for found in answers(store, talk, 0):
        view = view.apply(found.body())
        sizes.append(len(msgspec.json.decode(b"[%b]" % found.messages)))

    assert max(sizes) <= 2000
    assert len(sizes) > 2
    assert list(view.messages) == list(range(1, 4502))
    assert view.rev == await rev(g, talk)


async def test_more_than_two_thousand_brought_back_at_once_are_read_from_a_page(
    g: Greffier, store: Database, database: str
) -> None:
    """A branch of 2000 is told message by message; a longer one is a reset, and never a hole."""
    talk = await a_talk(g, "one")
    async with connected(database) as connection:
        await lengthen(connection, talk, 2000)
    await g.messages.rewind(talk, after_seq=1)
    away = await look(store, talk)
    (branch,) = await g.conversations.branches(talk)
    await g.conversations.activate(talk, branch.id)

    assert (await caught_up(away, store, talk)).messages == (await look(store, talk)).messages

    async with connected(database) as connection:
        await lengthen(connection, talk, 1)
    await g.messages.rewind(talk, after_seq=1)
    away = await look(store, talk)
    (branch,) = [one for one in await g.conversations.branches(talk) if one.last_seq == 2002]
    await g.conversations.activate(talk, branch.id)

    (answer,) = [found async for found in answers(store, talk, away.rev)]
    assert (answer.reset, answer.messages, answer.rev) == (True, b"", await rev(g, talk))


async def test_more_than_two_thousand_changes_come_in_bounded_answers(
    g: Greffier, store: Database, database: str
) -> None:
    """Edits of a year, each with a rev of its own, are told like new messages, and all of them."""
    talk = await a_talk(g)
    async with connected(database) as connection:
        await lengthen(connection, talk, 3000)
        away = await look(store, talk)
        # The last message was edited first, and all but every fifth.
        await connection.execute(
            "update messages set content = content || '!', changed_rev = 6003 - seq"
            " where conversation_id = $1 and seq % 5 <> 0",
            talk,
        )
        await connection.execute("update conversations set rev = 6002 where id = $1", talk)
    fresh = await look(store, talk)

    found = [one async for one in answers(store, talk, away.rev)]

    sizes = [len(msgspec.json.decode(b"[%b]" % one.messages)) for one in found]
    assert (sum(sizes), max(sizes)) == (2400, 2000)
    for view, size in ((away, 1 << 20), (away, 50_000), (NOTHING, 1 << 20)):
        limits = replace(DEFAULT, page_bytes=size)
        assert (await caught_up(view, store, talk, limits=limits)).messages == fresh.messages


@pytest.mark.parametrize(("many", "reset"), [(2000, False), (2001, True)])
async def test_one_change_of_more_than_two_thousand_messages_is_read_from_a_page(
    g: Greffier, store: Database, database: str, many: int, reset: bool
) -> None:
    """As when somebody who wrote that much is forgotten: all of it is told, or that it is not."""
    room = await g.conversations.create(owner="ada", kind="room", participants={"bob": "member"})
    async with connected(database) as connection:
        # every other message is ada's
        await lengthen(connection, room.id, 2 * many)
    away = await look(store, room.id)
    await g.messages.append(room.id, content="before", actor="bob")
    await forget_user(store, "ada")

    found = [one async for one in answers(store, room.id, away.rev)]

    assert [one.reset for one in found] == ([False] if not reset else [False, True])
    if not reset:
        assert (await caught_up(away, store, room.id)).messages == (
            await look(store, room.id)
        ).messages
