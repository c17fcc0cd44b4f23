"""API keys, for programs: made, listed and revoked by people."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

import msgspec
from msgspec import Meta

from greffier import access
from greffier.change import keys as verbs
from greffier.errors import Forbidden, NotFound, UnsupportedMediaType
from greffier.model.key import ApiKey, MadeKey, NewKey
from greffier.model.wire import rfc3339
from greffier.read import keys as reads
from greffier.server.answers import Answer, encoded, no_content
from greffier.server.call import Call
from greffier.server.routes.lists import Listed
from greffier.server.table import Route


async def create_key(call: Call) -> Answer:
    """Make an API key: the answer shows it this once, and only its hash is kept.

    Scope ``user`` acts as one user: everybody makes those for themself, admins for anybody. Scopes
    ``service`` and ``ops`` are made by admins. No key makes keys. Sent again it is another key: of
    one whose answer was lost, revoke what the list shows.
    """
    asked: NewKey = call.body
    who = call.principal
    user = access.key_user(who, asked.scope, asked.user_id)
    made, key = await verbs.make(
        call.database,
        scope=asked.scope,
        user=user,
        name=asked.name,
        created_by=access.myself(who),
        expires_at=asked.expires_at,
    )
    answer = encoded({**_shown(made), "key": key})
    answer.status = 201
    return answer


class KeysQuery(msgspec.Struct, frozen=True):
    """How many; go on with the ``next_cursor`` of the answer."""

    limit: Annotated[int, Meta(extra_json_schema={"minimum": 1, "maximum": 100})] = 20
    cursor: str | None = None


async def list_keys(call: Call) -> Answer:
    """List one's own keys, newest first; admins see everybody's."""
    asked: KeysQuery = call.query
    found, following = await reads.listing(
        call.database,
        access.key_reader(call.principal),
        limit=asked.limit,
        cursor=asked.cursor,
    )
    return encoded({"data": [_shown(one) for one in found], "next_cursor": following})


async def revoke_key(call: Call) -> Answer:
    """Let a key open nothing any more: here from now on, on other machines within a second.

    One's own; admins anybody's.
    """
    key_id: UUID = call.params["key_id"]
    await verbs.revoke(call.database, key_id, access.key_reader(call.principal))
    call.service.keys.forget(key_id)
    return no_content()


def _shown(key: ApiKey) -> dict[str, Any]:
    document = msgspec.structs.asdict(key)
    for name in ("created_at", "expires_at"):
        # msgspec leaves out the microseconds of a full second; our times are all of one length.
        document[name] = document[name] and rfc3339(document[name])
    return document


ROUTES = (
    Route(
        method="POST",
        path="/v1/keys",
        handler=create_key,
        request=NewKey,
        response=MadeKey,
        status=201,
        errors=(Forbidden, UnsupportedMediaType),
        writes=True,
    ),
    Route(
        method="GET",
        path="/v1/keys",
        handler=list_keys,
        query=KeysQuery,
        response=Listed[ApiKey],
        errors=(Forbidden,),
    ),
    Route(
        method="DELETE",
        path="/v1/keys/{key_id}",
        handler=revoke_key,
        status=204,
        errors=(Forbidden, NotFound),
        writes=True,
    ),
)
