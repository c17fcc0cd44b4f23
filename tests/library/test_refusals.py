"""What Python is refused, it is refused in our words: a subclass of ``greffier.Error``."""

from __future__ import annotations

from typing import Any

import pytest

from greffier.errors import Invalid
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
