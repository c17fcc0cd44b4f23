"""The one door: who somebody is, and as whom they read and write.

What a person may see and do in a conversation is decided where it is kept: each write and each
read carries its actor into its own SQL statement.  Here it is decided which actor that is; None is
the service itself, who may do everything.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal, TypeAlias

from greffier.errors import Forbidden
from greffier.model.draft import Speaker
from greffier.store.database import Database

Role: TypeAlias = Literal["user", "admin", "service", "ops"]
Via: TypeAlias = Literal["token", "cookie"]

#: Users remembered as known to the database; beyond it the oldest are asked about again.
REMEMBERED_USERS = 10_000

SEE_USER = "select see_user_v1($1, $2, $3)"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who a request comes from, as its token said.

    Attributes:
        user_id: The user, or the one a service acts for; None for a service on its own account.
        role: ``user`` sees and writes what is theirs; ``admin`` and ``service`` everything;
            ``ops`` sees how the service does and nobody's words.
        via: How they came in: ``token``, or ``cookie`` for the person at this machine.
    """

    user_id: str | None
    name: str | None = None
    email: str | None = None
    role: Role = "user"
    via: Via = "token"


def reader(principal: Principal) -> str | None:
    """Give the actor as whom this principal reads and changes conversations.

    Raises:
        Forbidden: They have no business in conversations.
    """
    if principal.role == "user":
        # A user without an id would pass as the service.
        return _named(principal)
    if principal.role == "ops":
        raise Forbidden("This key is for operations; it sees no conversations.")
    return None


def speaker(principal: Principal) -> Speaker:
    """Give the author of what this principal says, with the actor that is checked.

    An admin may write anywhere, and what they say is theirs: author and writer are the admin.

    Raises:
        Forbidden: They have no business in conversations.
    """
    actor = reader(principal)
    if principal.user_id is None:
        return Speaker(written_by=principal.role)
    return Speaker(actor, principal.user_id, principal.name, principal.user_id)


def myself(principal: Principal) -> str:
    """Give the user whose conversations are "mine".

    Raises:
        Forbidden: They are nobody in particular.
    """
    return _named(principal)


def _named(principal: Principal) -> str:
    if principal.user_id is None:
        raise Forbidden("This needs a user; a service says for whom it acts.")
    return principal.user_id


class Users:
    """Makes users on first sight, and tells the database once about each name and e-mail."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._seen: OrderedDict[str, tuple[str | None, str | None]] = OrderedDict()

    def knows(self, principal: Principal) -> bool:
        """Say whether the database was told about this user as they are now."""
        if principal.user_id is None:
            return True
        return self._seen.get(principal.user_id) == (principal.name, principal.email)

    async def see(self, principal: Principal) -> None:
        """Let the user exist, under the name and e-mail they claim.

        Raises:
            Unavailable: The database is away.
        """
        if principal.user_id is None:
            return
        await self._database.verb(
            SEE_USER, principal.user_id, principal.name, principal.email, again=True
        )
        self._seen[principal.user_id] = (principal.name, principal.email)
        if len(self._seen) > REMEMBERED_USERS:
            self._seen.popitem(last=False)
