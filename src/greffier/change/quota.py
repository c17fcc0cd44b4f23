"""Say how much somebody may spend in a month."""

from __future__ import annotations

from greffier.errors import Invalid, Problem
from greffier.model import text
from greffier.model.ids import uuid7
from greffier.model.limits import DEFAULT
from greffier.model.usage import Quota, check_quota
from greffier.store.database import Database

SET = "select set_quota_v1($1, $2, $3, $4, $5)"


async def set_quota(database: Database, user: str, quota: Quota, actor: str) -> None:
    """Replace a user's quota; the admins' log says who did it, and what stood before.

    A run that has begun is finished; the next one is refused when the month's quota is used up.

    Args:
        database: Where.
        user: Whose; somebody who was never seen has one from their first run on.
        quota: How much, from now on.
        actor: Who says so.

    Raises:
        Invalid: A value makes no sense, or nobody can be called so.
    """
    if fault := text.faults(user, "/user_id"):
        raise Invalid(problems=(fault,))
    if not 0 < len(user.encode()) <= DEFAULT.name:
        detail = f"From 1 to {DEFAULT.name} bytes."
        raise Invalid(problems=(Problem("/user_id", "length", detail),))
    check_quota(quota)
    await database.verb(
        SET,
        user,
        quota.tokens_per_month,
        quota.cost_per_month,
        actor,
        uuid7(),
        # Made twice it would stand in the log twice.
        again=False,
    )
