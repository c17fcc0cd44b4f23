"""What a model is sent, read from the end, is what the whole conversation gives."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from greffier.errors import Invalid
from greffier.library import Greffier
from greffier.model.context import build_context
from greffier.model.message import Draft, Function, Message, ToolCall
from greffier.model.page import Context, Omitted
from greffier.store.database import Database
from helpers.talks import Talk

examples = settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

# Few ids, so that results find calls, also those of earlier turns or of none.
_call_ids = st.sampled_from(["a", "b", "c"])
_turn = st.one_of(
    st.builds(lambda n: Draft(content=f"question {n}"), st.integers(0, 9)),
    st.builds(lambda n: Draft(role="assistant", content="answer " * n), st.integers(1, 9)),
    st.builds(lambda n: Draft(role="system", content=f"rule {n}"), st.integers(0, 9)),
    st.builds(
        lambda ids, words: Draft(
            role="assistant",
            content=words,
            tool_calls=[ToolCall(id=one, function=Function("look", "{}")) for one in ids],
        ),
        st.lists(_call_ids, min_size=1, max_size=3),
        st.sampled_from([None, "let me see"]),
    ),
    st.builds(lambda id_: Draft(role="tool", tool_call_id=id_, content="found"), _call_ids),
)


@pytest.fixture
def database(one_database: str) -> str:
    """One for all tests here."""
    return one_database


async def whole(g: Greffier, talk: Talk) -> list[Message]:
    """Every message of the active path."""
    found: list[Message] = []
    while True:
        page = await g.messages.after(talk.id, found[-1].seq if found else 0, limit=200)
        found += page.data
        if not page.has_after:
            return found


@examples
@given(
    head=st.lists(_turn, max_size=6),
    # Long enough to be read in several stretches.
    turns=st.lists(_turn, min_size=1, max_size=12).map(lambda turns: (turns * 30)[:95]),
    deleted=st.lists(st.integers(0, 94), max_size=12),
    rewound=st.none() | st.integers(0, 94),
    max_messages=st.integers(0, 40),
    max_tokens=st.none() | st.integers(0, 400),
    include_tools=st.booleans(),
)
async def test_a_context_read_from_the_end_is_that_of_the_whole_conversation(
    g: Greffier,
    head: list[Draft],
    turns: list[Draft],
    deleted: list[int],
    rewound: int | None,
    max_messages: int,
    max_tokens: int | None,
    include_tools: bool,
) -> None:
    """With the same messages, the same repairs, and the same account of what was left out."""
    talk = await Talk.new(g)
    await talk.append_drafts(head + turns[: 100 - len(head)])
    if rewound is not None:
        await talk.rewind(talk.path[rewound % len(talk.path)])
        await talk.append_drafts(turns[:40])
    for number in deleted:
        await talk.delete(number % talk.last + 1, erase=number % 2 == 0)

    limits = {
        "max_messages": max_messages,
        "max_tokens": max_tokens,
        "include_tools": include_tools,
    }
    expected = build_context(await whole(g, talk), complete=True, **limits)  # type: ignore[arg-type]
    assert await g.context(talk.id, **limits) == expected  # type: ignore[arg-type]


async def test_without_a_limit_of_its_own_it_has_the_conversations(g: Greffier) -> None:
    """Which is 30 unless it was created or changed otherwise."""
    talk = await Talk.new(g)
    await talk.append(*(str(n) for n in range(50)))
    found = await g.context(talk.id)
    assert [line["content"] for line in found.messages] == [str(n) for n in range(20, 50)]
    assert found.omitted == Omitted(messages=20, tools=0, reason="max_messages")

    await g.conversations.update(talk.id, history_limit=2)
    assert [line["content"] for line in (await g.context(talk.id)).messages] == ["48", "49"]


class Meanwhile(Database):
    """A database in which something happens between two reads."""

    def __init__(self, inner: Database, before: str, happens: Callable[[], Awaitable[object]]):
        super().__init__(inner.dsn)
        self._inner = inner
        self._before = before
        self._happens: Callable[[], Awaitable[object]] | None = happens

    async def read(self, name: str, *args: object, **options: object) -> list[asyncpg.Record]:
        """Read, after it has happened once."""
        if name == self._before and self._happens is not None:
            happens, self._happens = self._happens, None
            await happens()
        return await self._inner.read(name, *args)


async def seen(g: Greffier, talk: Talk, meanwhile: Callable[[], Awaitable[object]]) -> Context:
    """Read a context while something happens after its first read."""
    database = Meanwhile(g.database, "page", meanwhile)
    return await Greffier(database).context(talk.id, max_messages=1000)


async def test_what_is_said_while_it_is_read_is_not_in_it(g: Greffier) -> None:
    """And not in the account either, which would else count more than there was."""
    talk = await Talk.new(g)
    await talk.append("one", "two")
    found = await seen(g, talk, lambda: talk.append("three", "four"))

    assert [line["content"] for line in found.messages] == ["one", "two"]
    assert found.omitted == Omitted(messages=0, tools=0, reason=None)


async def test_a_rewind_while_it_is_read_is_in_it_whole(g: Greffier) -> None:
    """No context is of two paths."""
    talk = await Talk.new(g)
    await talk.append("one", "two", "three")

    async def regenerate() -> None:
        await talk.rewind(1)
        await talk.append("instead")

    found = await seen(g, talk, regenerate)

    assert [line["content"] for line in found.messages] == ["one", "instead"]
    assert found.omitted == Omitted(messages=0, tools=0, reason=None)


@pytest.mark.parametrize("limits", [{"max_messages": -1}, {"max_tokens": -1}])
async def test_a_negative_limit_is_refused(g: Greffier, limits: dict[str, int]) -> None:
    """It is a fault of the caller's."""
    talk = await Talk.new(g)
    with pytest.raises(Invalid):
        await g.context(talk.id, **limits)  # type: ignore[arg-type]
