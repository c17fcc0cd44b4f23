"""Forget a person: their own conversations are erased, and in all others nothing names them."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from greffier.store.database import Database

FORGET_IN = "select forget_user_in_v1($1, $2, $3)"
FORGET = "select forget_user_v1($1, $2)"


@dataclass(frozen=True, slots=True)
class ForgottenAccount:
    """What became of the conversations that named a person, as far as it was left to this call.

    Attributes:
        user: Who was forgotten.
        erased: Conversations of theirs that are gone with everything in them.
        anonymous: Conversations of others, in which what they said stays under nobody's name.
    """

    user: str
    erased: int
    anonymous: int


async def forget_user(database: Database, user: str) -> ForgottenAccount:
    """Forget a person for good.

    Assistants' conversations of theirs are erased; a room of theirs goes to the member who has been
    there longest, and is erased when there is none.  Wherever else they wrote, their words stay
    under a name that belongs to nobody and is another one in every conversation.

    Each conversation is a transaction of its own, so that nobody waits long.  After a crash, or
    when it is unavailable half-way, the same call does the rest; what was done stays done.  Tokens
    that name the person are not ours to end: one used later names somebody new.

    Raises:
        Unavailable: The database is away.
    """
    erased = anonymous = 0
    while True:
        for (conversation_id,) in await database.read("conversations_naming", user):
            (found,) = await database.verb(
                FORGET_IN,
                conversation_id,
                user,
                _nobody(),
                again=True,
                touches=conversation_id,
                people=True,
            )
            erased += found[0] is True
            anonymous += found[0] is False
        # Somebody may have brought them into a conversation meanwhile.
        if (await database.verb(FORGET, user, _nobody(), again=True))[0][0]:
            break
    return ForgottenAccount(user, erased, anonymous)


def _nobody() -> str:
    """Make a name that nobody has and that says nothing: 72 random bits."""
    return f"nobody-{secrets.token_urlsafe(9)}"
