"""Which history of the database this is, and whether its server keeps what it acknowledges."""

from __future__ import annotations

import secrets

import asyncpg

from greffier.errors import SchemaError
from greffier.store.connection import Connection


async def identity(connection: Connection) -> str:
    """Give the epoch: the name of this history of the database, 12 lower-case hex digits.

    A new one is made at the first call, and when the server is not the one that was recorded or has
    left its timeline (a restore, a promotion).  Servers that find out at once agree on one.  Delete
    the row of ``greffier.identity`` to begin a new epoch by hand.

    Raises:
        SchemaError: On a standby whose primary has none yet.
    """
    row = await connection.fetchrow(
        "select epoch, system_identifier, timeline from greffier.identity"
    )
    if await connection.fetchval("select pg_is_in_recovery()"):
        if row is None:
            raise SchemaError("This is a standby, and no server has been started on its primary.")
        return str(row["epoch"])
    here = await _history(connection)
    if row is not None and here in (None, (row["system_identifier"], row["timeline"])):
        return str(row["epoch"])
    # Whoever comes second waits for the row, finds it true already, and takes what the first wrote;
    # the lanes are new to them, too, or they could send under a fence that was used before.
    async with connection.transaction():
        done = await connection.execute(
            """
            insert into greffier.identity as i (epoch, system_identifier, timeline)
            values ($1, $2, $3)
            on conflict (one) do update set
                epoch = excluded.epoch, system_identifier = excluded.system_identifier,
                timeline = excluded.timeline, since = excluded.since
            where excluded.timeline <> 0 and (i.system_identifier, i.timeline)
                is distinct from (excluded.system_identifier, excluded.timeline)
            """,
            secrets.token_hex(6),
            *(here or (0, 0)),
        )
        if row is not None and done != "INSERT 0 0":
            # A history that was left may have had claims which this one knows nothing of.
            await connection.fetchval("select greffier.refence_lanes_v1()")
    return str(await connection.fetchval("select epoch from greffier.identity"))


async def fsync_on(connection: Connection) -> bool:
    """Whether the server flushes what it acknowledges; without it, a promise of ours is void."""
    return bool(await connection.fetchval("select current_setting('fsync') = 'on'"))


async def _history(connection: Connection) -> tuple[int, int] | None:
    """Which cluster this is and on which timeline; None where the provider forbids to ask.

    On such a database (a managed one, mostly) nothing tells of a restore: the epoch stays as it is
    recorded, with the pair (0, 0), until somebody begins a new one.
    """
    try:
        # A savepoint, should the caller be in a transaction: the refusal must not end it.
        async with connection.transaction():
            # Not pg_control_checkpoint(): after a promotion it tells the old timeline until the
            # first checkpoint is through, which can take minutes.
            row = await connection.fetchrow(
                """
                select system_identifier,
                    ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::integer
                from pg_control_system()
                """
            )
    except (
        asyncpg.exceptions.InsufficientPrivilegeError,
        asyncpg.exceptions.FeatureNotSupportedError,
        asyncpg.exceptions.UndefinedFunctionError,
    ):
        return None
    assert row is not None
    return row[0], row[1]
