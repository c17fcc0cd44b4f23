"""Promises to people who share a database: each sees what is theirs, and is nobody else.

All of it runs as real roles on connections of their own, as psql would be.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio

from greffier.change.forget import forget_user
from greffier.store import schema
from greffier.store.migrations import statements
from greffier.store.queries import queries
from helpers.direct import Login, Person, Town, new_login
from helpers.postgres import connected, new_database, undone

SECRET = "amaryllis"

#: Every view with rows of conversations, and the column that names the conversation.
VIEWS = {
    "conversations": "id",
    "messages": "conversation_id",
    "record": "conversation_id",
    "path": "conversation_id",
    "versions": "conversation_id",
    "branches": "conversation_id",
    "participants": "conversation_id",
    "invitations": "conversation_id",
    "feedback": "conversation_id",
    "read_marks": "conversation_id",
}


async def live_through(town: Town, owner: str, other: str, words: str) -> UUID:
    """Give somebody a room in which everything there can be has happened; returns its id."""
    talks, messages = town.service.conversations, town.service.messages
    room = await talks.create(owner=owner, kind="room", title=words, participants={other: "member"})
    for number in range(6):
        await messages.append(room.id, content=f"{words} {number}", actor=owner)
    await messages.edit(room.id, 2, content=f"{words} edited", actor=owner)
    await messages.delete(room.id, 3, actor=owner)
    await messages.rewind(room.id, after_seq=4, actor=owner)
    await messages.append(room.id, content=f"{words} again", actor=other)
    await talks.rate(room.id, 1, user=owner, seq=2, comment=words)
    await talks.rate(room.id, -1, user=other, comment=words)
    for user in (owner, other):
        await talks.read(room.id, 5, user=user)
    await talks.invite(room.id, actor=owner)
    await talks.invite(room.id, actor=other)
    return room.id


@dataclass(frozen=True)
class Siege:
    """A database in which bob wants to know what ada keeps to herself."""

    town: Town
    private: UUID
    shared: UUID


@pytest_asyncio.fixture(scope="module")
async def siege(besieged: Town) -> AsyncIterator[Siege]:
    """Ada has a room with zoe that bob must not see, and one with bob."""
    private = await live_through(besieged, "ada", "zoe", SECRET)
    shared = await live_through(besieged, "ada", "bob", "hello")
    before = await besieged.service.conversations.get(private)
    # What a careless operator may have allowed: room for objects of his own.
    async with besieged.operator() as operator:
        await operator.execute(
            f"create schema lair authorization {besieged.logins['bob'].role};"
            "grant create on schema public to public; analyze"
        )
    yield Siege(besieged, private, shared)
    assert await besieged.service.conversations.get(private) == before


@contextlib.asynccontextmanager
async def only_bob(siege: Siege) -> AsyncIterator[Person]:
    """Let bob try something; afterwards he is still bob, and has seen nothing of ada's."""
    async with siege.town.person("bob") as bob:
        yield bob
        if bob.live.is_in_transaction():
            await bob.live.execute("rollback")
        # Off, it hides nothing and refuses everything.
        await bob.live.execute("reset row_security")
        assert await bob.one("select greffier_me.whoami()") == "bob"
        await seen(bob, "select r::text from greffier_me.record r")
        assert await bob.refusal(f"select greffier_me.append('{siege.private}', 'x')") == "GR404"
        seq = await bob.one(f"select greffier_me.append('{siege.shared}', 'still me')")
        message = await siege.town.service.messages.get(siege.shared, seq)
        assert (message.author_id, message.written_by) == ("bob", "bob")


async def seen(bob: Person, sql: str) -> str:
    """Run a statement, come what may; what it says in any way must not be ada's."""
    try:
        said = str(await bob.live.fetch(sql))
    except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        said = f"{error} {getattr(error, 'detail', '')} {getattr(error, 'context', '')}"
    assert SECRET not in said, sql
    assert not [line for line in bob.heard if SECRET in line], sql
    return said


# -- What one sees


async def test_one_sees_the_rows_of_one_s_own_conversations_and_no_other(town: Town) -> None:
    """In every view: all that is theirs, nothing that is not."""
    ada, bob, both = (
        await live_through(town, "ada", "zoe", "a"),
        await live_through(town, "bob", "zoe", "b"),
        await live_through(town, "ada", "bob", "c"),
    )
    for name, mine in (("ada", {ada, both}), ("bob", {bob, both})):
        async with town.person(name) as person:
            for view, column in VIEWS.items():
                found = {row[0] for row in await person.rows(f"select {column} from {view}")}
                assert found == mine, (name, view)
            assert await person.rows("select user_id, name from me") == [(name, name.title())]


async def test_a_message_reads_as_over_the_api(town: Town) -> None:
    """Each field has the value that HTTP gives it, also when edited, deleted or superseded."""
    room = await live_through(town, "ada", "bob", "x")
    await town.service.messages.append(
        room, parts=[{"type": "text", "text": "y"}], metadata={"k": 1}, actor="ada"
    )
    async with town.person("ada") as ada:
        for seq, text in await ada.rows("select seq, to_json(r)::text from record r"):
            row = json.loads(str(text))
            active = row.pop("active")
            async with town.operator() as operator:
                body = await operator.fetchval(
                    "select message_json(m, null) from messages m "
                    "where conversation_id = $1 and seq = $2",
                    room,
                    seq,
                )
                message = json.loads(body)
                same_time = await operator.fetchval(
                    "select bool_and(a.value::timestamptz = b.value::timestamptz) "
                    "from json_each_text($1) a join json_each_text($2) b using (key) "
                    "where key ~ '_at$' and a.value is not null",
                    text,
                    body,
                )
            assert same_time
            assert row.keys() == message.keys()
            assert {k: v for k, v in row.items() if not k.endswith("_at")} == {
                k: v for k, v in message.items() if not k.endswith("_at")
            }
            assert active == (seq not in (5, 6))
        shown = await ada.rows("select seq, content from messages order by seq")
    assert shown == [(1, "x 0"), (2, "x edited"), (3, None), (4, "x 3"), (7, "x again"), (8, "y")]


async def test_a_page_is_the_one_of_the_api(town: Town) -> None:
    """The newest, and what came before, over a path that was cut in many places."""
    room = (await town.service.conversations.create(owner="ada")).id
    for back in (2, 5, 3, 4):
        for _ in range(4):
            await town.service.messages.append(room, content="x", actor="ada")
        active = (await town.service.messages.recent(room, limit=50)).data
        await town.service.messages.rewind(room, after_seq=active[-back].seq, actor="ada")
        await town.service.messages.append(room, content="y", actor="ada")
    async with town.person("ada") as ada:
        for limit in (1, 2, 3, 5, 50):
            page = await town.service.messages.recent(room, limit=limit)
            found = await ada.rows("select seq from page($1, null, $2)", room, limit)
            assert [message.seq for message in page.data] == [row[0] for row in found]
            for before in range(1, 22, 4):
                page = await town.service.messages.before(room, before, limit=limit)
                found = await ada.rows("select seq from page($1, $2, $3)", room, before, limit)
                assert [message.seq for message in page.data] == [row[0] for row in found]


async def test_what_was_deleted_or_erased_is_read_nowhere(town: Town) -> None:
    """A deleted text is in no view, nor are its earlier ones; an erased one is in no table."""
    room = (await town.service.conversations.create(owner="ada")).id
    async with town.person("ada") as ada, town.operator() as operator:
        for text in (SECRET, f"{SECRET} too"):
            seq = await ada.one("select append($1, $2)", room, text)
            await ada.rows("select edit($1, $2, $3)", room, seq, f"{text} as edited")
            await ada.rows("select delete_message($1, $2)", room, seq)
        for view in VIEWS:
            assert SECRET not in str(await ada.rows(f"select v::text from {view} v")), view
        for seq in (1, 2):
            await ada.rows("select delete_message($1, $2, erase => true)", room, seq)
        for table in ("messages", "message_versions"):
            assert SECRET not in str(await operator.fetch(f"select t::text from {table} t"))


async def test_who_is_removed_sees_nothing_from_then_on(town: Town) -> None:
    """The next statement, on a connection that was open all the time, finds nothing."""
    room = await live_through(town, "ada", "bob", "x")
    async with town.person("bob") as bob:
        assert await bob.one("select count(*) from record")
        await town.service.conversations.leave(room, "bob", actor="ada")
        for view in VIEWS:
            assert await bob.rows(f"select * from {view}") == []
        assert await bob.refusal("select append($1, 'x')", room) == "GR404"
        await town.service.conversations.join(room, "bob", actor="ada")
        assert await bob.one("select count(*) from record") == 9


async def test_who_was_not_admitted_is_nobody(town: Town, logins: Mapping[str, Login]) -> None:
    """Without admission the schema is closed; with a mere GRANT it is empty and takes nothing."""
    room = await live_through(town, "ada", "bob", "x")
    async with town.person("eve") as eve, town.operator() as operator:
        assert await eve.refusal("select * from greffier_me.record") == "42501"
        assert await eve.refusal("select greffier_me.append($1, 'x')", room) == "42501"
        await operator.execute(f"grant usage on schema greffier_me to {logins['eve'].role}")
        assert await eve.one("select whoami()") is None
        for view in VIEWS:
            assert await eve.rows(f"select * from {view}") == []
        # Nobody in particular would be the service.
        assert await eve.refusal("select append($1, 'x')", room) == "GR403"
        assert await eve.refusal("select create_conversation()") == "GR403"


# -- Who one is


ATTACKS = dict(
    re.findall(
        r"^-- attack: ([^\n]+)\n(.+?)(?=^-- attack: |\Z)",
        Path(__file__).with_name("attacks.sql").read_text(encoding="utf-8"),
        re.DOTALL | re.MULTILINE,
    )
)


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
async def test_nobody_becomes_somebody_else_or_sees_more(siege: Siege, attack: str) -> None:
    """By whatever a client can say: afterwards bob is bob, and knows nothing of ada's."""
    known = {name: login.role for name, login in siege.town.logins.items()}
    known |= {"private": str(siege.private), "shared": str(siege.shared)}
    sql = re.sub(r":(ada|bob|private|shared)\b", lambda m: known[m[1]], attack)
    async with only_bob(siege) as bob:
        for statement in statements(sql):
            await seen(bob, statement)


async def test_a_role_set_as_a_role_s_default_makes_nobody_else(siege: Siege) -> None:
    """ALTER ROLE … SET, which one may do to oneself, holds at the next connection for nothing."""
    ada, bob = (siege.town.logins[name].role for name in ("ada", "bob"))
    async with siege.town.person("bob") as live:
        await seen(live, f"alter role {bob} set role = '{ada}'")
        await seen(live, f"alter role {bob} set session_authorization = '{ada}'")
        await seen(live, f"alter role {bob} set search_path = lair, greffier_me")
    try:
        async with only_bob(siege):
            pass
    finally:
        async with siege.town.operator() as operator:
            await operator.execute(f"alter role {bob} reset all")


async def test_a_cheap_function_in_a_condition_sees_no_other_rows(siege: Siege) -> None:
    """A function that tells what it is shown is not shown what is not the caller's."""
    async with only_bob(siege) as bob:
        await bob.rows(
            "create function lair.leak(text) returns boolean language plpgsql"
            " cost 0.0000001 as $$ begin raise notice 'saw %', $1; return true; end $$"
        )
        for view in VIEWS:
            bob.heard.clear()
            whole = await bob.rows(f"select v::text from {view} v")
            told = await bob.rows(f"select from {view} v where lair.leak(v::text)")
            assert len(told) == len(whole) == len(bob.heard) > 0
            # The same in what changes something, where it is allowed at all; undone again.
            async with undone(bob.live):
                await seen(bob, f"delete from {view} v where lair.leak(v::text) and false")
            assert not [line for line in bob.heard if SECRET in line]


async def test_a_function_is_who_defined_it(town: Town) -> None:
    """A SECURITY DEFINER function speaks as its owner, for whoever may call it; others do not."""
    room = await live_through(town, "ada", "zoe", "x")
    async with town.operator() as operator, town.person("ada") as ada, town.person("bob") as bob:
        await operator.execute("grant create on schema public to public")
        for kind in ("definer", "invoker"):
            await ada.rows(
                f"create function public.as_{kind}(p_id uuid, out who text, out seq bigint)"
                f" language plpgsql security {kind} as $$ begin"
                " who := greffier_me.whoami(); seq := greffier_me.append(p_id, 'hello'); end $$"
            )
        assert await bob.rows("select * from public.as_definer($1)", room) == [("ada", 8)]
        assert await bob.refusal("select * from public.as_invoker($1)", room) == "GR404"
    message = await town.service.messages.get(room, 8)
    assert (message.author_id, message.written_by) == ("ada", "ada")


async def test_set_role_makes_one_whom_one_was_given(town: Town) -> None:
    """A role that was granted to somebody is theirs to take: then, and only then, they are it.

    Prepared statements and open cursors ask again who reads them.
    """
    ada, bob, eve = (town.logins[name].role for name in ("ada", "bob", "eve"))
    room = await live_through(town, "ada", "zoe", "x")
    async with town.operator() as operator, town.person("bob") as pooler:
        assert await pooler.refusal(f"set role {ada}") == "42501"
        await operator.execute(f"grant {ada} to {bob}")
        try:
            await pooler.live.execute("prepare p as select count(*) from record")
            assert await pooler.rows("execute p") == [(0,)]
            await pooler.live.execute(f"set role {ada}")
            assert await pooler.one("select whoami()") == "ada"
            assert await pooler.rows("execute p") == [(7,)]
            assert await pooler.one("select append($1, 'x')", room)
            assert await pooler.refusal(f"set role {eve}") == "42501"
            await pooler.live.execute("reset role")
            assert await pooler.rows("execute p") == [(0,)]
            assert await pooler.refusal("select append($1, 'x')", room) == "GR404"
        finally:
            await operator.execute(f"revoke {ada} from {bob}")


async def test_too_many_grants_show_and_change_nothing(town: Town) -> None:
    """With the tables and functions granted by mistake, row-level security still holds him."""
    private = await live_through(town, "ada", "zoe", SECRET)
    shared = await live_through(town, "ada", "bob", "hello")
    before = await town.service.conversations.get(private)
    ada, bob = (town.logins[name].role for name in ("ada", "bob"))
    async with town.operator() as operator:
        await operator.execute(f"""
            grant usage on schema greffier to {bob};
            grant select, insert, update, delete, references, trigger
                on all tables in schema greffier, greffier_me to {bob};
            grant execute on all functions in schema greffier to {bob};
            create schema lair authorization {bob};
        """)
        held = [
            row[0]
            for row in await operator.fetch(
                "select relname from pg_class where relnamespace = 'greffier'::regnamespace "
                "and relkind = 'r' and relrowsecurity order by relname"
            )
        ]
    own = {"users", "database_roles", "participants", "listings", "feedback", "read_marks"}
    async with only_bob(Siege(town, private, shared)) as mallory:
        for table in held:
            rows = await mallory.rows(f"select * from greffier.{table}")
            assert bool(rows) == (table in own), table
            if table in own:
                whose = "id" if table == "users" else "user_id"
                assert await mallory.rows(f"select distinct {whose} from greffier.{table}") == [
                    ("bob",)
                ]
            assert SECRET not in await seen(mallory, f"select t::text from greffier.{table} t")
            assert await mallory.live.execute(f"delete from greffier.{table}") == "DELETE 0"
        assert await mallory.one("select count(*) from greffier.mine") == 1
        tries = f"""
            insert into greffier.database_roles values ('{bob}x', 'ada');
            update greffier.database_roles set user_id = 'ada' where role_name = '{bob}';
            select greffier.admit_role_v1('{bob}', 'ada');
            select greffier.dismiss_role_v1('{bob}');
            select greffier.direct_append_v1('ada', '{private}', '[{{"content": "x"}}]');
            select greffier.edit_message_v1('{private}', null, 1, 'x', null, 'bob');
            select greffier.erase_conversation_v1('{private}', null);
            select greffier.forget_user_v1('ada');
            select greffier.direct_create_v1('ada', '{{}}');

            -- the door's function elsewhere than in its place, with a caller of his choice
            create table lair.door (caller name, verb text, arguments json, answer json);
            insert into lair.door values ('{ada}');
            create trigger serve before update on lair.door
                for each row execute function greffier.serve_request_v1();
            update lair.door set verb = 'create', arguments = '{{}}';

            -- and a trigger of his in front of the door
            create function lair.forge() returns trigger language plpgsql as $$ begin
                old.caller := '{ada}'; new.caller := '{ada}'; return new; end $$;
            create trigger a instead of update on greffier_me.request
                for each row execute function lair.forge();
        """
        for statement in statements(tries):
            await seen(mallory, statement)
        assert await mallory.rows("table lair.door") == [(ada, None, None, None)]
        assert await mallory.rows("select tgname from pg_trigger where tgname = 'a'")
    assert await town.service.conversations.get(private) == before
    async with town.operator() as operator:
        await operator.execute("drop trigger if exists a on greffier_me.request")


async def test_rights_to_all_data_reach_one_s_own_rows_only(town: Town) -> None:
    """Given to somebody after their admission, they open no conversation."""
    await live_through(town, "ada", "zoe", SECRET)
    bob = town.logins["bob"].role
    async with town.operator() as operator, town.person("bob") as live:
        await operator.execute(f"grant pg_read_all_data, pg_write_all_data to {bob}")
        try:
            for table in ("conversations", "messages", "participants", "listings", "users"):
                await seen(live, f"select t::text from greffier.{table} t")
                await seen(live, f"delete from greffier.{table}")
            await seen(live, "update greffier.database_roles set user_id = 'ada'")
            assert await live.one("select whoami()") == "bob"
            assert await live.rows("select * from record") == []
        finally:
            await operator.execute(f"revoke pg_read_all_data, pg_write_all_data from {bob}")
    assert len((await town.service.conversations.list(user="ada")).data) == 1


# -- What else could tell or disturb


# A few thousand conversations of as many people, so that an index pays; numbered as appends would.
MANY = """
    insert into users (id, list_rev) select 'user' || n, 1 from generate_series(1, 2000) n;
    insert into conversations (
        id, kind, owner_id, request_hash, created_at, updated_at, listed_at, last_seq, rev,
        message_count, said_total)
    select md5(id)::uuid, 'room', id, md5(id)::uuid, now(), now(), now(), 5, 6, 5, 5
    from users where list_rev = 1;
    insert into participants (conversation_id, user_id, role, joined_at, rev)
    select id, owner_id, 'owner', now(), 1 from conversations;
    insert into listings (user_id, conversation_id, listed_at, kind, list_rev)
    select owner_id, id, now(), 'room', 1 from conversations;
    insert into messages (
        conversation_id, seq, id, role, written_by, content, created_at, rev, said_no, tool_no)
    select id, n, gen_random_uuid(), 'user', owner_id, 'x', now(), n + 1, n, 0
    from conversations, generate_series(1, 5) n;
    analyze;
"""


async def test_a_plan_does_not_count_other_people_s_messages(town: Town) -> None:
    """EXPLAIN ANALYZE with another's conversation id never gets as far as what is in it."""
    async with town.operator() as operator, town.person("bob") as bob:
        await operator.execute(MANY)
        other = await operator.fetchval("select md5('user7')::uuid")
        for view in ("record", "messages", "path", "participants", "branches", "versions"):
            [(text,)] = await bob.rows(
                f"explain (analyze, format json) select * from {view}"
                f" where conversation_id = '{other}'"
            )
            for node in nodes(json.loads(text)[0]["Plan"]):
                table = node.get("Relation Name")
                if table in ("conversations", "messages", "participants", "users"):
                    assert node["Actual Loops"] == 0, (view, table)


def nodes(plan: dict[str, object]) -> list[dict[str, object]]:
    """All nodes of a plan."""
    below = plan.get("Plans", [])
    assert isinstance(below, list)
    return [plan, *(node for child in below for node in nodes(child))]


async def test_statistics_hold_no_words(siege: Siege) -> None:
    """ANALYZE copies no text into the catalogue, where it would outlive its erasure."""
    async with siege.town.operator() as operator, siege.town.person("bob") as bob:
        told = await operator.fetchval(
            "select string_agg(concat(most_common_vals, histogram_bounds), ' ') from pg_stats "
            "where schemaname = 'greffier'"
        )
        assert str(siege.shared) in told
        assert SECRET not in told
        assert (
            await bob.rows("select tablename from pg_stats where schemaname like 'greffier%'") == []
        )


async def test_nobody_stops_the_service_by_a_lock(siege: Siege) -> None:
    """LOCK TABLE and FOR UPDATE do not reach through the views to what others need."""
    async with siege.town.person("bob") as bob, siege.town.operator() as operator:
        for view in [*VIEWS, "request"]:
            for mode in ("row exclusive", "share", "exclusive", "access exclusive"):
                transaction = bob.live.transaction()
                await transaction.start()
                assert await bob.refusal(f"lock table {view} in {mode} mode nowait") == "42501"
                await transaction.rollback()
            if view != "request":
                assert await bob.refusal(f"select * from {view} for no key update") == "42501"
                assert await bob.refusal(f"select * from {view} for key share") == "42501"
        assert (
            await operator.fetchval(
                "select count(*) from pg_locks where pid = $1 and mode <> 'AccessShareLock'"
                " and locktype = 'relation'",
                bob.live.get_server_pid(),
            )
            == 0
        )


async def test_nothing_is_open_that_was_not_opened(database: str) -> None:
    """No function or table of the record is anybody's; all that is read directly has a barrier."""
    questions = {
        "functions for everybody": """
            select proname from pg_proc where pronamespace = 'greffier'::regnamespace
            and has_function_privilege('public', oid, 'execute')""",
        # One function has the owner's rights, and names cannot mislead it.
        "owner's rights": """
            select proname || ' ' || proconfig[1] from pg_proc where prosecdef
            and pronamespace in ('greffier'::regnamespace, 'greffier_me'::regnamespace)
            and (proname, proconfig[1]) <> ('serve_request_v1', 'search_path=greffier, pg_temp')""",
        "tables without row-level security": """
            select relname from pg_class where relnamespace = 'greffier'::regnamespace
            and relkind in ('r', 'p') and not relrowsecurity
            and relname not in ('identity', 'schema_changes')""",
        "views without a barrier": """
            select relname from pg_class where relnamespace = 'greffier_me'::regnamespace
            and relkind = 'v' and reloptions @> '{security_barrier=true}' is not true""",
        "policies that read": """
            select polname from pg_policy where pg_get_expr(polqual, polrelid) ~* 'select'""",
        "schemas for everybody": """
            select nspname from pg_namespace where nspname in ('greffier', 'greffier_me')
            and has_schema_privilege('public', oid, 'usage')""",
    }
    async with connected(database) as connection:
        for what, question in questions.items():
            assert [row[0] for row in await connection.fetch(question)] == [], what


# -- The operator, and the service


async def test_an_admission_is_the_operator_s_alone_and_can_be_said_again(
    town: Town, logins: Mapping[str, Login]
) -> None:
    """It can be repeated, changed, taken back, and done again for all after a restore."""
    eve = logins["eve"].role
    room = await live_through(town, "ada", "bob", "x")
    async with town.operator() as operator, town.person("eve") as live:
        for user in ("ada", "ada", "bob", "ada"):
            await operator.execute("select admit_role_v1($1, $2)", eve, user)
            assert await live.one("select whoami()") == user
            assert await live.one("select count(*) from record where conversation_id = $1", room)
        # As after a restore into a cluster in which the roles were made anew.
        await operator.execute(f"revoke usage on schema greffier_me from {eve}")
        assert await live.refusal("select greffier_me.whoami()") == "42501"
        await operator.execute("select admit_role_v1(role_name, user_id) from database_roles")
        assert await live.one("select whoami()") == "ada"
        await operator.execute("select dismiss_role_v1($1)", eve)
        assert await live.refusal("select greffier_me.whoami()") == "42501"
        assert await operator.fetchval("select count(*) from database_roles") == 2
        await operator.execute("select dismiss_role_v1('never_was_there')")


async def test_a_role_that_nothing_would_hold_is_not_admitted(postgres: str, database: str) -> None:
    """Who sees past row-level security anyway, or is the service, is refused and not trusted."""
    async with connected(database) as operator:

        async def refusal(role: str, user: str = "ada") -> str | None:
            with pytest.raises(asyncpg.PostgresError) as refused:
                await operator.execute("select admit_role_v1($1, $2)", role, user)
            return refused.value.sqlstate

        for options in (
            "superuser",
            "bypassrls",
            "createrole",
            "in role pg_read_all_data",
            "in role pg_monitor",
        ):
            async with new_login(postgres, options) as login:
                assert await refusal(login.role) == "GR422", options
        assert await refusal(await operator.fetchval("select current_user")) == "GR422"
        assert await refusal("greffier_test_nobody") == "GR404"
        async with new_login(postgres) as login:
            for user in ("service", "service:key", "", "x" * 257):
                assert await refusal(login.role, user) == "GR422", user


async def test_a_service_without_superuser_admits_people_and_pays_nothing(
    postgres: str, logins: Mapping[str, Login]
) -> None:
    """An owner with no rights in the cluster will do; its plans are those without row security."""
    ada = logins["ada"]
    async with (
        new_login(postgres) as owner,
        new_database(postgres, f"encoding 'UTF8' template template0 owner {owner.role}") as dsn,
    ):
        own = owner.url(dsn)
        await schema.migrate(own)
        async with connected(own) as service:
            await service.execute("select admit_role_v1($1, 'ada')", ada.role)
            live = await asyncpg.connect(
                ada.url(dsn), server_settings={"search_path": "greffier_me"}
            )
            try:
                room = await live.fetchval("select create_conversation()")
                assert await live.fetchval("select append($1, 'hello')", room) == 1
                assert await live.fetchval("select content from page($1)", room) == "hello"
                assert await live.fetchval("select user_id from me") == "ada"
            finally:
                await live.close()
            with_security = await plans(service)
            tables = await service.fetch(
                "select oid::regclass::text from pg_class where relrowsecurity"
            )
            for (table,) in tables:
                await service.execute(f"alter table {table} disable row level security")
            assert await plans(service) == with_security


async def plans(service: asyncpg.Connection[asyncpg.Record]) -> dict[str, str]:
    """How each named query of the service would run."""
    found: dict[str, str] = {}
    for name, sql in queries().items():
        await service.execute(f"prepare {name} as {sql}")
        many = await service.fetchval(
            "select cardinality(parameter_types) from pg_prepared_statements where name = $1", name
        )
        given = f"({', '.join(['null'] * many)})" if many else ""
        rows = await service.fetch(f"explain (costs off) execute {name}{given}")
        await service.execute(f"deallocate {name}")
        found[name] = "\n".join(row[0] for row in rows)
    assert "path_window" in found["page"]
    return found


async def test_who_and_what_is_erased_is_gone_here_too(town: Town) -> None:
    """A conversation for all who were in it; and the role of a forgotten person is nobody."""
    room = await live_through(town, "ada", "bob", "x")
    async with town.person("ada") as ada, town.person("bob") as bob:
        await town.service.conversations.erase(room, actor="ada")
        for view in VIEWS:
            assert await bob.rows(f"select * from {view}") == []
        assert await bob.refusal("select append($1, 'x')", room) == "GR410"

        await forget_user(town.service.database, "ada")
        assert await ada.one("select whoami()") is None
        assert await ada.refusal("select create_conversation()") == "GR403"
        assert await bob.one("select whoami()") == "bob"
