"""What a list of conversations shows, however their activity comes."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from greffier.errors import Invalid
from greffier.library import Greffier
from helpers.sessions import Session

#: Minutes that pass, and then who is spoken to: one conversation, or several in one call.
activity = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 1, 3, 9, 10, 11, 25, 300]),
        st.lists(st.integers(0, 8), min_size=1, max_size=3, unique=True),
    ),
    max_size=25,
)


async def pass_by(session: Session, owner: str, time: timedelta) -> None:
    """Let time pass for a user's conversations: everything in them is that much longer ago."""
    async with session.open():
        await session.live.execute(
            "update conversations set created_at = created_at - $2::interval, "
            "updated_at = updated_at - $2::interval, listed_at = listed_at - $2::interval, "
            "archived_at = archived_at - $2::interval where owner_id = $1",
            owner,
            time,
        )
        await session.live.execute(
            "update listings l set listed_at = l.listed_at - $2::interval from conversations c "
            "where c.id = l.conversation_id and c.owner_id = $1",
            owner,
            time,
        )


async def by_activity(session: Session, owner: str, archived: bool = False) -> list[UUID]:
    """A user's conversations, last activity first, asked of the conversations themselves."""
    rows = await session.live.fetch(
        "select id from conversations where owner_id = $1 and (archived_at is not null) = $2 "
        "order by updated_at desc, id desc",
        owner,
        archived,
    )
    return [row["id"] for row in rows]


async def pages(g: Greffier, user: str, limit: int, **which: Any) -> list[UUID]:
    """Their list, page by page."""
    found = await g.conversations.list(user=user, limit=limit, **which)
    ids = [one.id for one in found.data]
    while found.next_cursor is not None:
        assert len(found.data) == limit
        found = await g.conversations.list(
            user=user, limit=limit, cursor=found.next_cursor, **which
        )
        ids += [one.id for one in found.data]
    return ids


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(activity=activity, limit=st.integers(1, 10), n=st.uuids())
async def test_a_list_is_in_the_order_of_the_last_activity(
    g: Greffier, rival: Session, activity: list[tuple[int, list[int]]], limit: int, n: UUID
) -> None:
    """Exactly, to the microsecond, over hours; page by page it shows each conversation once."""
    owner = str(n)  # a user of this example's
    talks = [await g.conversations.create(owner=owner) for _ in range(9)]
    await g.conversations.archive(talks[8].id)
    for minutes, spoken in activity:
        await pass_by(rival, owner, timedelta(minutes=minutes))
        for one in spoken:
            if one == 7:
                await g.conversations.update(talks[7].id, title=f"after {minutes}")
            elif one == 8:
                await g.conversations.update(talks[8].id, archived=await archived(g, talks[8].id))
        said = [one for one in spoken if one < 7]
        await asyncio.gather(*(g.messages.append(talks[one].id, content="x") for one in said))

        behind = await rival.live.fetchval(
            "select max(greatest(c.updated_at - l.listed_at, l.listed_at - c.updated_at)) "
            "from listings l join conversations c on c.id = l.conversation_id "
            "where l.user_id = $1",
            owner,
        )
        assert behind <= timedelta(minutes=10)

    assert await pages(g, owner, limit) == await by_activity(rival, owner)
    assert await pages(g, owner, limit, archived=True) == await by_activity(rival, owner, True)


async def archived(g: Greffier, talk: UUID) -> bool:
    """Whether it is not archived now, to turn it over."""
    return (await g.conversations.get(talk)).archived_at is None


async def test_a_page_begins_where_the_last_one_ended_whatever_happens_between(
    g: Greffier,
) -> None:
    """What was spoken in meanwhile is at the top, and shifts nothing that is still to come."""
    talks = [(await g.conversations.create(owner="ada")).id for _ in range(6)]
    first = await g.conversations.list(user="ada", limit=2)
    await g.messages.append(talks[0], content="to the top")
    await g.conversations.create(owner="ada")
    rest = await g.conversations.list(user="ada", limit=10, cursor=first.next_cursor)

    assert [c.id for c in first.data] == [talks[5], talks[4]]
    assert [c.id for c in rest.data] == [talks[3], talks[2], talks[1]]


async def test_conversations_of_one_moment_are_told_apart_by_their_ids(
    g: Greffier, rival: Session
) -> None:
    """Also at the very edge of the ten minutes that a list may be behind."""
    talks = sorted([(await g.conversations.create(owner="ada")).id for _ in range(9)], reverse=True)
    for hour, ids in (("12", talks[:4]), ("10", talks[4:])):
        await rival.live.execute(
            f"update conversations set updated_at = '2026-01-01 {hour}:10Z', "
            f"listed_at = '2026-01-01 {hour}:00Z' where id = any ($1)",
            ids,
        )
    await rival.live.execute(
        "update listings l set listed_at = c.listed_at from conversations c "
        "where c.id = l.conversation_id"
    )
    for limit in range(1, 10):
        assert await pages(g, "ada", limit) == talks


async def test_a_list_shows_what_was_asked_for(g: Greffier) -> None:
    """By kind, by subject, archived or not; a subject is its owner's."""
    maths = await g.conversations.create(owner="ada", subject="maths")
    room = await g.conversations.create(
        owner="ada", kind="room", subject="plans", participants={"bob": "viewer"}
    )
    old = await g.conversations.create(owner="ada", subject="physics")
    await g.conversations.archive(old.id)

    async def ids(user: str = "ada", **which: object) -> list[UUID]:
        return [c.id for c in (await g.conversations.list(user=user, **which)).data]  # type: ignore[arg-type]

    assert await ids() == [room.id, maths.id]
    assert await ids(kind="room") == [room.id]
    assert await ids(kind="assistant") == [maths.id]
    assert await ids(subject="maths") == [maths.id]
    assert await ids(subject="physics") == []
    assert await ids(archived=True) == [old.id]
    assert await ids("bob") == [room.id]
    assert await ids("bob", subject="plans") == []
    await g.conversations.leave(room.id, "bob")
    assert await ids("bob") == []


async def test_a_list_counts_changes_of_which_conversations_there_are(g: Greffier) -> None:
    """Created, archived, brought back, erased: each is one; what is said in them is none."""
    revs = []

    async def note() -> None:
        revs.append((await g.conversations.list(user="ada")).list_rev)

    await note()
    talk = (await g.conversations.create(owner="ada")).id
    await note()
    await g.messages.append(talk, content="x")
    await g.conversations.update(talk, title="x")
    await note()
    await g.conversations.archive(talk)
    await note()
    await g.conversations.update(talk, archived=False)
    await note()
    await g.conversations.erase(talk)
    await note()

    assert revs == [0, 1, 1, 2, 3, 4]


@pytest.mark.parametrize("cursor", ["x", "AAAA", "é", "A" * 32, "-" * 31, "=" * 8])
async def test_a_cursor_that_is_none_of_ours_is_refused_or_harmless(
    g: Greffier, cursor: str
) -> None:
    """It is opaque, and whatever somebody makes of it breaks nothing."""
    try:
        found = await g.conversations.list(user="ada", cursor=cursor)
    except Invalid:
        return
    assert found.data == []
