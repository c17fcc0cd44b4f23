"""Who is asking, and what is theirs."""

from __future__ import annotations

import msgspec

from greffier import access
from greffier.access import Role
from greffier.change.forget import forget_user
from greffier.errors import Forbidden
from greffier.model.wire import rfc3339
from greffier.read.export import FORMATS
from greffier.read.mine import MyStats, export_mine, my_stats
from greffier.server.answers import Answer, Stream, encoded, no_content
from greffier.server.call import Call
from greffier.server.routes.files import file
from greffier.server.table import Route


class Me(msgspec.Struct, frozen=True):
    """The caller, as their token or key says.

    ``id`` is null for a key that belongs to no user, and whom it acts for when it says so; ``key``
    is there for who comes with a key: its name.
    """

    id: str | None
    name: str | None
    email: str | None
    role: Role
    key: str | msgspec.UnsetType = msgspec.UNSET


async def get_me(call: Call) -> Answer:
    """Say who the caller is."""
    who = call.principal
    key = msgspec.UNSET if who.key is None else who.key
    return encoded(Me(who.user_id, who.name, who.email, who.role, key))


async def get_my_stats(call: Call) -> Answer:
    """Count what is in the caller's conversations."""
    found = await my_stats(call.database, access.myself(call.principal))
    document = msgspec.structs.asdict(found)
    for name in ("first_at", "last_at"):
        # msgspec leaves out the microseconds of a full second; our times are all of one length.
        document[name] = document[name] and rfc3339(document[name])
    return encoded(document)


async def export_me(call: Call) -> Stream:
    """Take everything of the caller's along, as of one moment: one JSON object a line.

    The first line is ``{"profile": …, "keys": […]}``. Each conversation they are in follows with
    who is in it and the caller's own feedback, read marks and invitations; then its messages, one a
    line, as in the conversation's own export; then ``{"superseded": message}`` for what was rewound
    and ``{"version": …}`` for the earlier texts of what was edited; at the end
    ``{"usage": run}`` for what each of the caller's runs took. An answer whose connection breaks
    is not whole.
    """
    pieces = export_mine(call.database, access.myself(call.principal))
    return await file(call, pieces, FORMATS["jsonl"], "greffier-export.jsonl")


async def delete_me(call: Call) -> Answer:
    """Forget the caller for good: their own conversations are erased, in others they are nobody.

    A room of theirs goes to the member who has been there longest. What they said to others stays,
    under a name that belongs to nobody and is another one in every conversation. Their keys open
    nothing any more; a token that names them later names somebody new. Unavailable half-way, ask
    again: the same call does the rest.
    """
    user = access.myself(call.principal)
    await forget_user(call.database, user)
    call.service.users.forget(user)
    call.service.keys.forget_user(user)
    return no_content()


ROUTES = (
    Route(method="GET", path="/v1/me", handler=get_me, response=Me, operations=True),
    Route(
        method="GET",
        path="/v1/me/stats",
        handler=get_my_stats,
        response=MyStats,
        errors=(Forbidden,),
    ),
    Route(
        method="GET",
        path="/v1/me/export",
        handler=export_me,
        media=(FORMATS["jsonl"],),
        errors=(Forbidden,),
    ),
    Route(
        method="DELETE",
        path="/v1/me",
        handler=delete_me,
        status=204,
        errors=(Forbidden,),
        writes=True,
    ),
)
