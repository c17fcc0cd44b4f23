"""Who is asking."""

from __future__ import annotations

import msgspec

from greffier.access import Role
from greffier.server.answers import Answer, encoded
from greffier.server.call import Call
from greffier.server.table import Route


class Me(msgspec.Struct, frozen=True):
    """The caller, as their token says; ``id`` is null for a service on its own account."""

    id: str | None
    name: str | None
    email: str | None
    role: Role


async def get_me(call: Call) -> Answer:
    """Say who the caller is."""
    who = call.principal
    return encoded(Me(who.user_id, who.name, who.email, who.role))


ROUTES = (Route(method="GET", path="/v1/me", handler=get_me, response=Me),)
