"""What Python is refused, it is refused in our words: a subclass of ``greffier.Error``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from decimal import Decimal
from math import inf, nan
from typing import Any

import pytest

from greffier.errors import Invalid, NotFound, Stale
from greffier.library import Greffier


async def test_a_role_that_there_is_not_is_refused_before_the_database_sees_it(g: Greffier) -> None:
    """With words or without; a database's own complaint would tell what was said."""
    talk = await g.conversations.create(owner="ada")
    unknown: Any = "god"

    for content in ("secret", None):
        with pytest.raises(Invalid) as refused:
            await g.messages.append(talk.id, role=unknown, content=content)
        assert "/role" in [problem.pointer for problem in refused.value.problems]
        assert "secret" not in str(refused.value)

    assert (await g.conversations.get(talk.id)).last_seq == 0


@pytest.mark.parametrize(
    "wrong",
    [{"kind": "club"}, {"title": 5}, {"participants": {"bob": "god"}}, {"history_limit": "x"}],
)
async def test_a_conversation_that_cannot_be_is_refused(g: Greffier, wrong: dict[str, Any]) -> None:
    """A kind, a title, a role or a limit of another type than the signature's."""
    with pytest.raises(Invalid):
        await g.conversations.create(owner="ada", **wrong)


NOBODY = ["", "service", "service:mine", "contact:bob", "\ud800", "a\0b", "é" * 129]
NAMING: dict[str, Callable[[Greffier, Any, str], Awaitable[Any]]] = {
    "create": lambda g, _, user: g.conversations.create(owner=user),
    "with": lambda g, _, user: g.conversations.create(owner="ada", participants={user: "member"}),
    "join": lambda g, talk, user: g.conversations.join(talk, user),
    "accept": lambda g, _, user: g.conversations.accept("gri_x", user=user),
    "say": lambda g, _, user: g.say("maths", "hello", user=user),
}


@pytest.mark.parametrize("user", NOBODY)
@pytest.mark.parametrize("verb", NAMING)
async def test_nobody_is_called_what_nobody_can_be_called(
    g: Greffier, verb: str, user: str
) -> None:
    """Nothing, too much, what cannot be kept, or what the record calls the service."""
    talk = await g.conversations.create(owner="ada")

    with pytest.raises(Invalid) as refused:
        await NAMING[verb](g, talk.id, user)
    assert len(refused.value.problems) == 1


BEYOND: dict[str, Callable[[Greffier, Any, int], Awaitable[Any]]] = {
    "get": lambda g, talk, seq: g.messages.get(talk, seq),
    "edit": lambda g, talk, seq: g.messages.edit(talk, seq, "x"),
    "delete": lambda g, talk, seq: g.messages.delete(talk, seq),
    "versions": lambda g, talk, seq: g.messages.versions(talk, seq),
    "readers": lambda g, talk, seq: g.messages.readers(talk, seq),
    "feedback": lambda g, talk, seq: g.conversations.feedback(talk, user="ada", seq=seq),
    "rate": lambda g, talk, seq: g.conversations.rate(talk, 1, user="ada", seq=seq),
}


@pytest.mark.parametrize("seq", [-1, 0, 2, 1 << 53, 1 << 63, 1 << 70])
@pytest.mark.parametrize("verb", BEYOND)
async def test_a_number_that_no_message_has_is_not_found(g: Greffier, verb: str, seq: int) -> None:
    """Also one that the database has no room for, and 0, which is not the whole conversation."""
    talk = await g.conversations.create(owner="ada")
    await g.messages.append(talk.id, content="hello")

    with pytest.raises(NotFound):
        await BEYOND[verb](g, talk.id, seq)


@pytest.mark.parametrize("rev", [-1, 1 << 63])
async def test_a_rev_that_never_was_is_stale(g: Greffier, rev: int) -> None:
    """For a conversation as for a message."""
    talk = await g.conversations.create(owner="ada")
    await g.messages.append(talk.id, content="hello")

    with pytest.raises(Stale):
        await g.conversations.update(talk.id, title="x", if_rev=rev)
    with pytest.raises(Stale):
        await g.messages.edit(talk.id, 1, "x", if_rev=rev)


@pytest.mark.parametrize("number", [nan, inf, -inf, Decimal("NaN"), Decimal("Infinity")])
async def test_what_is_no_number_of_json_is_refused(g: Greffier, number: Any) -> None:
    """Rather than kept as something else; a null, and a text that looks like it, are kept."""
    kept = {"none": None, "text": "null NaN", "list": [1.5, None]}
    talk = await g.conversations.create(owner="ada", metadata=kept)
    assert talk.metadata == kept

    wrong = {"deep": [{"number": number}]}
    with pytest.raises(Invalid):
        await g.conversations.update(talk.id, metadata=wrong)
    with pytest.raises(Invalid):
        await g.messages.append(talk.id, content="hello", metadata=wrong)
    with pytest.raises(Invalid):
        await g.messages.append(talk.id, parts=[{"type": "text", "text": "x", "more": wrong}])
