"""What was just said looks as it will whenever it is read."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from greffier.change.append import append
from greffier.errors import Invalid
from greffier.library import Greffier
from greffier.model.draft import Speaker
from greffier.model.message import Draft, Message
from greffier.read.pages import Where, page
from helpers.drafts import drafts, objects

ADA = Speaker("ada", "ada", 'Ada "the Countess" Lovelace\u2028', "ada")

_decode = msgspec.json.Decoder(Message).decode


@pytest.fixture
def database(one_database: str) -> str:
    """One for all tests here."""
    return one_database


# One database for all examples: each makes a conversation of its own.
examples = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@examples
@given(said=st.lists(drafts(), min_size=1, max_size=6))
async def test_an_answer_is_what_a_later_read_gives(g: Greffier, said: list[Draft]) -> None:
    """Field by field and in the same order, as JSON and as a value, for every kind of message.

    The answer to an append is made here, without reading it back; PostgreSQL makes all others.
    """
    talk = (await g.conversations.create(owner="ada")).id
    appended = await append(g.database, talk, said, ADA)
    found = await page(g.database, talk, None, Where(), whole=True)

    for body, read in zip(appended.bodies(), json.loads(b"[%b]" % found.data), strict=True):
        assert list(json.loads(body).items()) == list(read.items())
    assert appended.messages() == [_decode(body) for body in appended.bodies()]
    assert appended.rev == found.rev


@examples
@given(said=st.lists(drafts(), min_size=1, max_size=6))
async def test_a_message_says_what_its_draft_said(g: Greffier, said: list[Draft]) -> None:
    """Nothing is lost, added or put into another form on the way."""
    talk = (await g.conversations.create(owner="ada")).id
    for draft, answer in zip(said, await g.messages.append_many(talk, said), strict=True):
        kept = {field: getattr(answer, field) for field in Draft.__struct_fields__}
        given = {field: getattr(draft, field) for field in Draft.__struct_fields__}
        # Made when it is not given, or made of the parts.
        if draft.id is None:
            del kept["id"], given["id"]
        if draft.parts:
            del kept["content"], given["content"]

        assert kept == {**given, "metadata": draft.metadata or {}}


@settings(examples, max_examples=30)
@given(metadata=objects)
async def test_a_conversation_keeps_its_metadata_as_they_are(
    g: Greffier, metadata: dict[str, object]
) -> None:
    """Whatever JSON holds comes back as the same value."""
    made = await g.conversations.create(owner="ada", metadata=metadata)

    assert made.metadata == metadata


@pytest.mark.parametrize("year", [1, 9999])
async def test_a_time_at_the_ends_of_the_calendar_is_refused(g: Greffier, year: int) -> None:
    """It is nobody's, and no answer fails after the message was stored."""
    talk = (await g.conversations.create(owner="ada")).id
    with pytest.raises(Invalid):
        await g.messages.append(talk, content="x", said_at=datetime(year, 6, 1, tzinfo=UTC))

    assert (await g.messages.recent(talk)).data == []
