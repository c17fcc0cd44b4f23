"""Promises of the schema's versions: what a database goes through from one release to the next."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import asyncpg
import pytest

from greffier.errors import SchemaError, Unavailable
from greffier.store import migrations, schema
from greffier.store.migrations import NO_TRANSACTION, Migration
from helpers.catalogue import catalogue, difference
from helpers.postgres import connected, new_database, undone, wait_for_lock

KNOWN = migrations.migrations()
HEAD = len(KNOWN)
HASTE = schema.Patience(lock_timeout=0.05, attempts=2)

Release = Callable[..., list[str]]


@pytest.fixture
def release(monkeypatch: pytest.MonkeyPatch) -> Release:
    """Let this release have further migrations of these texts; gives their names."""

    def add(*texts: str) -> list[str]:
        more = [
            Migration(place, f"{place:04}_added", text)
            for place, text in enumerate(texts, start=HEAD + 1)
        ]
        for module in (schema, migrations):
            monkeypatch.setattr(module, "migrations", lambda: (*KNOWN, *more))
        return [step.name for step in more]

    return add


@dataclass
class Heard:
    """A log that can be waited for."""

    lines: list[str] = field(default_factory=list)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def __call__(self, line: str) -> None:
        """Take a line."""
        self.lines.append(line)
        self._changed.set()

    async def wait_for(self, part: str) -> None:
        """Wait until a line with this in it was said."""
        while not any(part in line for line in self.lines):
            self._changed.clear()
            await self._changed.wait()


@contextlib.asynccontextmanager
async def held(dsn: str, sql: str) -> AsyncIterator[None]:
    """Keep a transaction open in which this was run."""
    async with connected(dsn) as rival, rival.transaction():
        await rival.execute(sql)
        yield


async def columns(dsn: str, table: str) -> list[str]:
    """The names of a table's columns, to see what was applied."""
    async with connected(dsn) as connection:
        rows = await connection.fetch(
            "select attname from pg_attribute where attrelid = $1::text::regclass "
            "and attnum > 0 and not attisdropped order by attnum",
            f"greffier.{table}",
        )
    return [row[0] for row in rows]


# -- Two ways to one schema


async def test_the_migrations_lead_to_the_schema_that_is_shown(
    database: str, empty_database: str
) -> None:
    """Whoever came all the way by migrations has exactly what a new database gets."""
    async with connected(empty_database) as old, connected(database) as new:
        for step in KNOWN:
            await schema.apply(old, step)

        differing = difference(
            await catalogue(new), "sql/schema", await catalogue(old), "sql/migrations"
        )

        if differing:
            pytest.fail(
                f"sql/schema and sql/migrations differ:\n{differing}\n\n"
                "Before the first release: python scripts/migration.py freeze. "
                "After it: add the migration that leads there (see sql/README.md).",
                pytrace=False,
            )


async def test_every_object_of_the_schema_is_compared(database: str) -> None:
    """A changed default, option, right, body or comment is a difference like a missing table."""
    changes = (
        "alter table conversations alter title set default 'x'",
        "alter table conversations set (fillfactor = 71)",
        "alter table users alter email set not null",
        "alter table users alter email set statistics 7",
        'alter table users add column extra text collate "C"',
        "alter table users add constraint named check (name <> 'x')",
        "grant select on conversations to public",
        "grant select (name) on users to public",
        "grant usage on schema greffier to public",
        "grant execute on function route(uuid) to public",
        "alter function route(uuid) volatile",
        "create index extra on users (name)",
        "create view extra as select 1 as one",
        "alter table users disable row level security",
        "create policy extra on users using (true)",
        "create type extra as enum ('a')",
        "create sequence extra",
        "create statistics extra on id, name from users",
        "comment on table users is 'people'",
    )
    async with connected(database) as connection:
        before = await catalogue(connection)
        for change in changes:
            async with undone(connection):
                await connection.execute(change)
                after = await catalogue(connection)

            assert difference(before, "before", after, "after"), change


# -- From nothing


async def test_a_new_database_gets_the_whole_schema(empty_database: str) -> None:
    """An empty database is brought to the present schema; a second time there is nothing to do."""
    before = await schema.status(empty_database)
    done = await schema.migrate(empty_database)
    after = await schema.status(empty_database)
    again = await schema.migrate(empty_database)

    assert before.state == "absent"
    assert "greffier db migrate" in before.detail
    assert done == [step.name for step in KNOWN] == list(before.pending)
    assert after.state == "current"
    assert [row.name for row in after.applied] == done
    assert again == []


async def test_an_empty_schema_made_by_an_administrator_is_new(empty_database: str) -> None:
    """Who may not create schemas can be given an empty one."""
    async with connected(empty_database) as connection:
        await connection.execute("create schema greffier")

    assert (await schema.status(empty_database)).state == "absent"
    assert await schema.migrate(empty_database) == [step.name for step in KNOWN]


async def test_several_at_once_on_an_empty_database_make_it_once(empty_database: str) -> None:
    """Servers that start together on a new database all start: one makes the schema."""
    heard = [Heard() for _ in range(3)]
    async with connected(empty_database) as door:
        await door.execute("select pg_advisory_lock($1)", migrations.LOCK)
        rivals = [asyncio.create_task(schema.migrate(empty_database, log=log)) for log in heard]
        for log in heard:
            await log.wait_for("Another process is migrating")
        await door.execute("select pg_advisory_unlock($1)", migrations.LOCK)
        results = await asyncio.gather(*rivals)

    assert sorted(map(len, results)) == [0, 0, HEAD]
    assert (await schema.status(empty_database)).state == "current"


async def test_what_is_not_ours_is_left_alone(empty_database: str) -> None:
    """A schema of that name without our ledger is refused in words and not touched."""
    async with connected(empty_database) as connection:
        await connection.execute("create schema greffier; create table greffier.theirs (x int)")

        assert (await schema.status(empty_database)).state == "altered"
        with pytest.raises(SchemaError, match="without our ledger"):
            await schema.migrate(empty_database)

        assert await connection.fetchval("select count(*) from greffier.theirs") == 0


async def test_a_schema_loaded_by_hand_is_refused(empty_database: str) -> None:
    """A ledger without rows says nothing about what was applied, and is not read as a new one."""
    async with connected(empty_database) as connection:
        await connection.execute(migrations.everything())
        await connection.execute("delete from greffier.schema_changes")

    with pytest.raises(SchemaError, match="empty"):
        await schema.migrate(empty_database)


async def test_a_forbidden_ledger_is_not_an_absent_one(database: str) -> None:
    """Only a missing ledger means a new database; one that may not be read is an error."""
    # A role belongs to the whole server, but goes with the transaction that made it.
    async with connected(database) as connection, undone(connection):
        await connection.execute("create role greffier_test_stranger")
        await connection.execute("set local role greffier_test_stranger")
        with pytest.raises(SchemaError, match="may not read"):
            await schema.require_current(connection)


async def test_a_database_in_another_encoding_is_refused(postgres: str) -> None:
    """What people write fits into UTF-8 only, which is said before the first word is stored."""
    latin = "encoding 'LATIN1' locale_provider libc locale 'C' template template0"
    async with new_database(postgres, latin) as dsn:
        with pytest.raises(SchemaError, match="UTF-8"):
            await schema.migrate(dsn)


def test_an_old_server_is_refused() -> None:
    """PostgreSQL 14 is told to be too old instead of failing on some statement."""
    schema.check_server(15, "UTF8")
    with pytest.raises(SchemaError, match="needs PostgreSQL 15"):
        schema.check_server(14, "UTF8")


async def test_a_database_that_is_not_there_is_told_in_words(postgres: str) -> None:
    """A wrong name is answered with PostgreSQL's own sentence, not with a traceback."""
    async with new_database(postgres) as dsn:
        pass
    with pytest.raises(Unavailable, match="does not exist"):
        await schema.status(dsn)


# -- From one release to the next


async def test_pending_migrations_are_applied_in_order(database: str, release: Release) -> None:
    """Each pending migration is applied once, after the earlier ones, and stands in the ledger."""
    names = release(
        "alter table greffier.users add column a text;",
        "alter table greffier.users rename column a to b;",
    )
    behind = await schema.status(database)
    done = await schema.migrate(database)
    after = await schema.status(database)

    assert (behind.state, list(behind.pending)) == ("behind", names)
    assert done == names
    assert after.state == "current"
    assert [row.name for row in after.applied[HEAD:]] == names
    assert "b" in await columns(database, "users")


async def test_a_server_does_not_start_on_an_older_schema(database: str, release: Release) -> None:
    """A server whose database is behind says what to run, and starts once it was run."""
    [name] = release("alter table greffier.users add column a text;")
    async with connected(database) as connection:
        with pytest.raises(SchemaError, match=f"{name}.*greffier db migrate"):
            await schema.require_current(connection)

        await schema.migrate(database)

        await schema.require_current(connection)


async def test_a_newer_database_is_refused(database: str) -> None:
    """An older release leaves a newer database alone and says which version to install."""
    async with connected(database) as connection:
        await connection.execute(
            "insert into schema_changes (id, name, checksum, applied_by) "
            "values ($1, 'later', 'x', '9.8.7')",
            HEAD + 1,
        )
        with pytest.raises(SchemaError, match=r"at least version 9\.8\.7"):
            await schema.require_current(connection)
    with pytest.raises(SchemaError, match=r"at least version 9\.8\.7"):
        await schema.migrate(database)
    assert (await schema.status(database)).state == "newer"


async def test_a_migration_that_was_changed_after_its_use_is_refused(
    database: str, release: Release
) -> None:
    """When the text is not the one that was applied, nobody knows what is there: we stop."""
    async with connected(database) as connection:
        await connection.execute("update schema_changes set checksum = 'x' where id = 1")
    release("alter table greffier.users add column a text;")

    assert (await schema.status(database)).state == "altered"
    with pytest.raises(SchemaError, match=KNOWN[0].name):
        await schema.migrate(database)
    assert "a" not in await columns(database, "users")


async def test_a_hole_in_the_ledger_is_refused(database: str, release: Release) -> None:
    """Migrations are applied in order; a missing one in between was lost by hand."""
    release("select 1;", "select 2;")
    await schema.migrate(database)
    async with connected(database) as connection:
        await connection.execute("delete from schema_changes where id = $1", HEAD + 1)

    with pytest.raises(SchemaError, match=f"no row {HEAD + 1}"):
        await schema.migrate(database)


async def test_a_migration_that_fails_leaves_nothing_of_itself(
    database: str, release: Release
) -> None:
    """What succeeded before it stays, what failed is undone whole, and it can be run again."""
    names = release(
        "alter table greffier.users add column a text;",
        "alter table greffier.users add column b text; "
        "alter table greffier.users alter name set not null;",
    )
    async with connected(database) as connection:
        await connection.execute("insert into users (id) values ('ada')")
        with pytest.raises(SchemaError, match=f"{names[1]} failed and changed nothing"):
            await schema.migrate(database)
        found = await columns(database, "users")
        await connection.execute("update users set name = 'Ada'")
        done = await schema.migrate(database)

    assert "a" in found
    assert "b" not in found
    assert done == names[1:]


async def test_two_at_once_apply_a_migration_once(database: str, release: Release) -> None:
    """While one server migrates the other waits, then finds it done and goes on."""
    names = release(
        "select pg_advisory_xact_lock(42); alter table greffier.users add column a text;"
    )
    heard = Heard()
    async with connected(database) as door:
        await door.execute("select pg_advisory_lock(42)")
        first = asyncio.create_task(schema.migrate(database))
        await wait_for_lock(door, "pg_advisory_xact_lock(42)")
        second = asyncio.create_task(schema.migrate(database, log=heard))
        await heard.wait_for("Another process is migrating")
        await door.execute("select pg_advisory_unlock(42)")

        assert await first == names
        assert await second == []


async def test_who_waits_does_not_stop_an_index_from_being_built(
    database: str, release: Release
) -> None:
    """CREATE INDEX CONCURRENTLY waits for every snapshot; a waiting server must hold none."""
    names = release(
        f"{NO_TRANSACTION}\n"
        "select pg_advisory_lock(42);\n"
        "create index concurrently extra on greffier.users (email);\n"
    )
    heard = Heard()
    async with connected(database) as door:
        await door.execute("select pg_advisory_lock(42)")
        first = asyncio.create_task(schema.migrate(database))
        await wait_for_lock(door, "pg_advisory_lock(42)")
        second = asyncio.create_task(schema.migrate(database, log=heard))
        await heard.wait_for("Another process is migrating")
        await door.execute("select pg_advisory_unlock(42)")

        assert await first == names
        assert await second == []


async def test_a_killed_migration_leaves_nothing_to_clean_up(
    database: str, release: Release
) -> None:
    """A server that dies while it migrates has changed nothing, and the next one just does it."""
    names = release(
        "alter table greffier.users add column a text; select pg_advisory_xact_lock(42);"
    )
    async with connected(database) as door:
        await door.execute("select pg_advisory_lock(42)")
        victim = asyncio.create_task(schema.migrate(database))
        pid = await wait_for_lock(door, "pg_advisory_xact_lock(42)")
        await door.execute("select pg_terminate_backend($1)", pid)
        with pytest.raises(Unavailable):
            await victim
        found = await columns(database, "users")
        await door.execute("select pg_advisory_unlock(42)")

        assert "a" not in found
        assert await schema.migrate(database) == names


async def test_a_cancelled_migration_leaves_nothing_to_clean_up(
    database: str, release: Release
) -> None:
    """Ctrl-C at any moment is harmless, and the lock is free at once for the next."""
    names = release("alter table greffier.users add column a text; select pg_sleep(3600);")
    async with connected(database) as door:
        victim = asyncio.create_task(schema.migrate(database))
        while not await door.fetchval(
            "select exists (select from pg_locks where mode = 'AccessExclusiveLock' "
            "and granted and relation = 'users'::regclass)"
        ):
            pass
        victim.cancel()
        with pytest.raises(asyncio.CancelledError):
            await victim

    assert "a" not in await columns(database, "users")
    assert (await schema.status(database)).pending == tuple(names)


# -- Beside those who work


async def test_a_long_transaction_delays_a_migration_and_nobody_else(
    database: str, release: Release
) -> None:
    """A migration that cannot have its table steps back, so that readers pass, and tries again."""
    names = release("alter table greffier.users add column a text;")
    heard = Heard()
    patience = schema.Patience(lock_timeout=0.05, attempts=1000)
    async with held(database, "select from users"):
        task = asyncio.create_task(schema.migrate(database, log=heard, patience=patience))
        await heard.wait_for("waits for tables that are in use (oldest transaction: process")
        # Would queue for ever behind a migration that waits for ever.
        assert "a" not in await columns(database, "users")
        async with connected(database) as reader:
            await reader.fetch("select from users")

    assert await task == names


async def test_a_migration_gives_up_at_last(database: str, release: Release) -> None:
    """When its tables stay in use it says so, has changed nothing, and can be run again."""
    [name] = release("alter table greffier.users add column a text;")
    async with held(database, "select from users"):
        with pytest.raises(SchemaError, match=f"{name} could not get its tables in 2 attempts"):
            await schema.migrate(database, patience=HASTE)

    assert "a" not in await columns(database, "users")
    assert await schema.migrate(database, patience=HASTE) == [name]


async def test_a_file_outside_of_a_transaction_is_run_again_when_it_stopped(
    database: str, release: Release
) -> None:
    """An index that could not be built whole is built when the migration is run again."""
    [name] = release(
        f"{NO_TRANSACTION}\n"
        "drop index concurrently if exists greffier.extra;\n"
        "create unique index concurrently extra on greffier.users (email);\n"
    )
    async with connected(database) as connection:
        await connection.execute("insert into users (id, email) values ('a', 'x'), ('b', 'x')")
        with pytest.raises(SchemaError, match=f"{name} stopped half-way") as refusal:
            await schema.migrate(database)
        await connection.execute("update users set email = id")
        done = await schema.migrate(database)
        valid = await connection.fetchval(
            "select indisvalid from pg_index where indexrelid = 'extra'::regclass"
        )

    assert "(x)" not in refusal.value.detail  # what is in a row is nobody's business
    assert done == [name]
    assert valid


# -- By hand


async def test_the_script_does_the_same_from_nothing(empty_database: str, database: str) -> None:
    """Who applies SQL only by hand gets the same schema, and Greffier starts on it."""
    async with connected(empty_database) as by_hand, connected(database) as by_us:
        await by_hand.execute(schema.script(0))

        assert not difference(
            await catalogue(by_us), "by us", await catalogue(by_hand), "by the script"
        )
        await schema.require_current(by_hand)


async def test_the_script_does_the_same_from_one_release_to_the_next(
    database: str, release: Release
) -> None:
    """The script of the pending migrations leaves a database that is current."""
    release(
        "alter table greffier.users add column a text;",
        f"{NO_TRANSACTION}\ncreate index concurrently extra on greffier.users (a);\n",
    )
    async with connected(database) as by_hand:
        # psql sends one statement at a time.
        for statement in migrations.statements(schema.script(HEAD)):
            await by_hand.execute(statement)

        await schema.require_current(by_hand)


async def test_the_script_refuses_a_database_it_was_not_made_for(
    database: str, release: Release
) -> None:
    """A script changes nothing where an earlier step is missing, nor the second time."""
    release(
        "alter table greffier.users add column a text;",
        "alter table greffier.users add column b text;",
    )
    async with connected(database) as by_hand:
        with pytest.raises(asyncpg.RaiseError, match=f"after migration {HEAD + 1}"):
            await by_hand.execute(schema.script(HEAD + 1))
        await by_hand.execute("rollback")
        assert "b" not in await columns(database, "users")

        await by_hand.execute(schema.script(HEAD))
        with pytest.raises(asyncpg.RaiseError, match=f"after migration {HEAD}"):
            await by_hand.execute(schema.script(HEAD))


def test_the_script_knows_its_limits() -> None:
    """A step that does not exist is refused; at the newest there is nothing to do."""
    with pytest.raises(SchemaError, match="no migration 999"):
        schema.script(999)
    assert migrations.statements(schema.script(HEAD)) == []


# -- The files


def test_the_files_of_migrations_are_in_order() -> None:
    """Their numbers are 1, 2, 3 …, so that two branches cannot both bring a number unnoticed."""
    assert [step.id for step in KNOWN] == list(range(1, HEAD + 1))
    assert all(step.name.startswith(f"{step.id:04}_") for step in KNOWN)


def test_statements_are_split_where_postgresql_would() -> None:
    """A semicolon in a text, a name, a comment or a body ends nothing."""
    text = """
        -- first; really
        select ';', '''; ' as "a;b"; /* not; this */
        do $$ begin perform 1; end $$;
        create function f() returns text language sql as $body$ select '$$;' $body$;
        -- the end; of it
    """
    first, second, third = migrations.statements(text)
    assert first.endswith('as "a;b"')
    assert second.startswith("/* not; this */")
    assert second.endswith("end $$")
    assert third.endswith("$body$")
