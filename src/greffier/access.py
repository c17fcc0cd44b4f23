"""The one door: who somebody is, and as whom they read and write.

What a person may see and do in a conversation is decided where it is kept: each write and each
read carries its actor into its own SQL statement.  Here it is decided which actor that is; None is
the service itself, who may do everything.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from greffier.errors import Forbidden, Invalid
from greffier.model.draft import Speaker
from greffier.model.key import Scope
from greffier.model.person import is_reserved
from greffier.store.database import Database

Role: TypeAlias = Literal["user", "admin", "service", "ops"]
Via: TypeAlias = Literal["token", "cookie", "key"]

#: Users remembered as known to the database; beyond it the oldest are asked about again.
REMEMBERED_USERS = 10_000
#: Seconds for which a name that was read is taken for today's.
NAME_KEPT = 30.0

SEE_USER = "select see_user_v1($1, $2, $3)"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who a request comes from, as its token or key said.

    Attributes:
        user_id: The user, or the one a service acts for; None for a service on its own account.
        role: ``user`` sees and writes what is theirs, ``admin`` everything; ``service`` everything
            on its own account, and what is the user's when it acts for one; ``ops`` sees how the
            service does and nobody's words.
        via: How they came in: ``token``, ``key``, or ``cookie`` for the person at this machine.
        key: The name of the key they came with.
    """

    user_id: str | None
    name: str | None = None
    email: str | None = None
    role: Role = "user"
    via: Via = "token"
    key: str | None = None


def reader(principal: Principal) -> str | None:
    """Give the actor as whom this principal reads and changes conversations.

    A service that acts for a user sees what that user sees and changes what they may change.

    Raises:
        Forbidden: They have no business in conversations.
    """
    if principal.role == "user":
        # A user without an id would pass as the service.
        return myself(principal)
    if principal.role == "ops":
        raise Forbidden(OPERATIONS_ONLY)
    return principal.user_id if principal.role == "service" else None


def speaker(principal: Principal) -> Speaker:
    """Give the author of what this principal says, with the actor that is checked.

    An admin may write anywhere, and what they say is theirs: author and writer are the admin.  What
    a service brings is marked as brought by it; the user it acts for is the author.

    Raises:
        Forbidden: They have no business in conversations.
    """
    actor = reader(principal)
    if principal.role == "service":
        written_by = f"service:{principal.key}" if principal.key else "service"
        return Speaker(actor, principal.user_id, principal.name, written_by)
    user = myself(principal)
    return Speaker(actor, user, principal.name, user)


def myself(principal: Principal) -> str:
    """Give the user whose conversations are "mine".

    Raises:
        Forbidden: They are nobody in particular.
    """
    if principal.user_id is None:
        raise Forbidden(OPERATIONS_ONLY if principal.role == "ops" else NEEDS_USER)
    return principal.user_id


def is_service_for_user(principal: Principal) -> bool:
    """Say whether a service acts for a user."""
    return principal.role == "service" and principal.user_id is not None


def is_admin(principal: Principal) -> bool:
    """Say whether they look after everything here: never a key, whoever made it."""
    return principal.role == "admin"


def administrator(principal: Principal) -> str:
    """Give the user of an admin, for what only admins see and do.

    Raises:
        Forbidden: They are none.
    """
    if not is_admin(principal):
        raise Forbidden("This is for admins.")
    return myself(principal)


def operator(principal: Principal) -> str:
    """Give the name of who looks after the service: an admin, or a key for operations.

    Raises:
        Forbidden: They are neither.
    """
    if principal.role == "ops":
        return f"ops:{principal.key}" if principal.key else "ops"
    if not is_admin(principal):
        raise Forbidden("This is for admins, and keys of scope ops.")
    return myself(principal)


def key_user(principal: Principal, scope: Scope, user: str | None) -> str | None:
    """Give the user of a key that this principal wants to make; none, for what belongs to nobody.

    Raises:
        Forbidden: It is not theirs to make.
        Invalid: Nobody may be called so.
    """
    if principal.via == "key":
        # It would outlive its own revocation.
        raise Forbidden("A key makes no keys: come with a token of your own.")
    if user is not None and is_reserved(user):
        raise Invalid.at("/user_id", "reserved", "No user is called so: it is the service itself.")
    if is_admin(principal):
        return principal.user_id if scope == "user" and user is None else user
    if scope != "user":
        raise Forbidden("Keys of this scope are made by admins.")
    if user not in (None, principal.user_id):
        raise Forbidden("You make keys for yourself; admins make them for others.")
    return myself(principal)


def key_reader(principal: Principal) -> str | None:
    """Give whose keys this principal sees and revokes: None is everybody's.

    Raises:
        Forbidden: Keys are none of its business.
    """
    if principal.role == "service":
        raise Forbidden("Keys are looked after by people, not by services.")
    return None if is_admin(principal) else myself(principal)


def acting_for(principal: Principal, user: str) -> Principal:
    """Give a service in the place of a user.

    Raises:
        Forbidden: Only a service acts for others.
    """
    if principal.role != "service":
        raise Forbidden("Only a key of scope service acts for others: leave Greffier-Act-As out.")
    return replace(principal, user_id=user)


OPERATIONS_ONLY = "This key is for operations; it sees nothing of users and conversations."
NEEDS_USER = "This belongs to a user: say for whom with the header Greffier-Act-As: <user id>."


class Users:
    """Makes users on first sight, and tells the database once about each name and e-mail."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._seen: OrderedDict[str, tuple[str | None, str | None]] = OrderedDict()
        self._names: OrderedDict[str, tuple[str | None, float]] = OrderedDict()

    def knows(self, principal: Principal) -> bool:
        """Say whether the database was told about this user as they are now."""
        if principal.user_id is None:
            return True
        seen = self._seen.get(principal.user_id)
        # What is not claimed changes nothing: a service that acts for somebody claims no name.
        return (
            seen is not None
            and principal.name in (None, seen[0])
            and principal.email in (None, seen[1])
        )

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
        name, email = self._seen.get(principal.user_id, (None, None))
        self._seen[principal.user_id] = (
            name if principal.name is None else principal.name,
            email if principal.email is None else principal.email,
        )
        if len(self._seen) > REMEMBERED_USERS:
            self._seen.popitem(last=False)

    async def name(self, user: str) -> str | None:
        """Give a user's name for display, as it was within the last half minute.

        Raises:
            Unavailable: The database is away.
        """
        name, until = self._names.get(user, (None, 0.0))
        if time.monotonic() < until:
            return name
        rows = await self._database.read("user_name", user)
        name = rows[0]["name"] if rows else None
        self._names[user] = (name, time.monotonic() + NAME_KEPT)
        if len(self._names) > REMEMBERED_USERS:
            self._names.popitem(last=False)
        return name

    def forget(self, user: str) -> None:
        """Know nothing of a user any more: whoever comes under this id is somebody new."""
        self._seen.pop(user, None)
        self._names.pop(user, None)
