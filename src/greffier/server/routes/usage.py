"""What models cost, and how much somebody may spend."""

from __future__ import annotations

from typing import Literal

import msgspec

from greffier import access
from greffier.change.quota import set_quota
from greffier.errors import Forbidden, Invalid, UnsupportedMediaType
from greffier.model.person import is_reserved
from greffier.model.usage import Quota, Usage
from greffier.read import usage as reads
from greffier.server.answers import Answer, Stream, encoded
from greffier.server.call import Call
from greffier.server.decode import json_decoder
from greffier.server.routes.files import file
from greffier.server.table import Route

_CSV = "text/csv; charset=utf-8"


class UsageQuery(msgspec.Struct, frozen=True):
    """Which month, ``YYYY-MM`` in UTC, by default the present one; ``csv`` is its statement."""

    month: str | None = None
    format: Literal["json", "csv"] = "json"


class MonthlyUsage(Usage, frozen=True, kw_only=True):
    """What a user's runs took in a month, in UTC, and what they may spend.

    ``by`` adds it up by agent and model, the dearest first. Costs are exact decimals in
    ``currency``, by the prices of the day; ``quota`` is null where there is none.
    """

    currency: str


class _Cost(msgspec.Struct, frozen=True):
    cost_per_month: msgspec.Raw = msgspec.Raw(b"null")


_quota = json_decoder(Quota)
_cost = msgspec.json.Decoder(_Cost).decode


def read_quota(body: bytes) -> Quota:
    """Read a quota, whose cost is a number: a decimal would be read of a text as well.

    Raises:
        Invalid: It is none.
    """
    quota: Quota = _quota(body)
    if bytes(_cost(body).cost_per_month).startswith(b'"'):
        raise Invalid.at("/cost_per_month", "type", "A cost is a number, not a text.")
    return quota


async def get_my_usage(call: Call) -> Answer | Stream:
    """Say what the caller's runs took in a month, and what they may spend.

    The form csv is a statement with a line for each run.
    """
    return await _usage(call, access.myself(call.principal))


async def get_usage(call: Call) -> Answer | Stream:
    """Say what a user's runs took in a month, and what they may spend, as an admin.

    The form csv is a statement with a line for each run.
    """
    access.administrator(call.principal)
    return await _usage(call, call.params["user_id"])


async def get_quota(call: Call) -> Answer:
    """Say what a user may spend in a month, as an admin; null is no limit."""
    access.administrator(call.principal)
    return encoded(await reads.quota(call.database, call.params["user_id"]))


async def put_quota(call: Call) -> Answer:
    """Say how much a user may spend in a month from now on, as an admin.

    What is left out has no limit. The admins' log keeps who said it and what stood before. A run
    that has begun is finished; the next is refused with quota-exceeded when the month's tokens or
    money are used up.
    """
    admin = access.administrator(call.principal)
    asked: Quota = call.body
    user: str = call.params["user_id"]
    if is_reserved(user):
        raise Invalid.at("/user_id", "reserved", "No user is called so: it is the service itself.")
    await set_quota(call.database, user, asked, admin)
    return encoded(await reads.quota(call.database, user))


async def _usage(call: Call, user: str) -> Answer | Stream:
    asked: UsageQuery = call.query
    service = call.service
    if asked.format == "csv":
        pieces = reads.statement(call.database, user, asked.month, service.currency)
        name = f"usage-{asked.month}.csv" if asked.month else "usage.csv"
        return await file(call, pieces, _CSV, name)
    found = await reads.usage(call.database, user, asked.month)
    return encoded(MonthlyUsage(**msgspec.structs.asdict(found), currency=service.currency))


_QUOTA = "/v1/users/{user_id}/quota"

ROUTES = (
    Route(
        method="GET",
        path="/v1/me/usage",
        handler=get_my_usage,
        query=UsageQuery,
        response=MonthlyUsage,
        media=("application/json", _CSV),
        errors=(Forbidden,),
    ),
    Route(
        method="GET",
        path="/v1/users/{user_id}/usage",
        handler=get_usage,
        query=UsageQuery,
        response=MonthlyUsage,
        media=("application/json", _CSV),
        errors=(Forbidden,),
    ),
    Route(
        method="GET",
        path=_QUOTA,
        handler=get_quota,
        response=Quota,
        errors=(Forbidden,),
    ),
    Route(
        method="PUT",
        path=_QUOTA,
        handler=put_quota,
        request=Quota,
        decode=read_quota,
        response=Quota,
        errors=(Forbidden, UnsupportedMediaType),
        writes=True,
    ),
)
