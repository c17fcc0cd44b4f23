"""Promises about the SQL itself: it can be read alone, and spread over machines later.

The rules for that are ARCHITECTURE.md's; what they cost and bring was measured there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import pytest

from greffier.errors import SQLSTATES
from greffier.store.migrations import Migration, migrations, statements
from greffier.store.queries import folder, queries
from helpers.postgres import connected

SCHEMA = folder("schema")

#: Tables with a conversation_id that are found by something else, and by what.
KEYED_OTHERWISE = {
    "listings": "user_id",  # a user's list is read by user, not by conversation
    "subject_slots": "owner_id",  # one active conversation per owner and subject
    "run_ids": "run_id",  # who follows a run knows only its id
    "endpoints": "id",  # an administrator's are for no conversation
    "receipts": "endpoint_id",  # the far side knows only its own id
    "source_contacts": "source_id",  # whoever writes knows only who they are
    "inbox": "source_id",
    "usage": "user_id",  # who pays, over all conversations
    "invitation_tokens": "token_hash",  # who is invited knows only the token
}

# Another value at every row or every call: an UPDATE with one cannot be sent to where the row is.
_VOLATILE = re.compile(
    r"\b(clock_timestamp|gen_random_uuid|uuidv[47]|random|timeofday|nextval|set_config)\s*\(",
    re.IGNORECASE,
)


# From the word to the statement's end; "for update" locks and changes nothing.
_UPDATE = re.compile(r"\bupdate\s+(?!of\b|skip\b|nowait\b)[^;]*?\bset\b[^;]*", re.IGNORECASE)


class Function(NamedTuple):
    """One function of the schema, as its file has it."""

    name: str
    header: str
    text: str
    #: ``greffier_me`` is for people who connect with a role of their own.
    schema: str = "greffier"

    @property
    def changes(self) -> bool:
        """Whether it may change something: PostgreSQL's default, volatile."""
        before_body = re.split(r"\bas \$|\n\s*return\b|\$\$", self.text, maxsplit=1)[0]
        return re.search(r"\b(immutable|stable)\b", before_body) is None


def bare(sql: str) -> str:
    """SQL without its comments and without what stands in its texts."""
    return re.sub(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'", "", sql, flags=re.DOTALL)


def functions() -> Iterator[Function]:
    """Every function of ``sql/schema``."""
    for text in SCHEMA.values():
        for statement in statements(text):
            match = re.search(
                r"^create (?:or replace )?function (?:(\w+)\.)?(\w+)", statement, re.MULTILINE
            )
            if match:
                header = statement[: match.start()]
                # The comment right above it; what stands over an empty line is another's.
                yield Function(
                    match[2],
                    header.rsplit("\n\n", 1)[-1],
                    statement[match.start() :],
                    match[1] or "greffier",
                )


FUNCTIONS = list(functions())
CHANGING = [function for function in FUNCTIONS if function.changes]


def by_name(function: Function) -> str:
    """What a parametrized test is called."""
    return function.name


def test_there_is_something_to_look_at() -> None:
    """The tests below read the real files, and see in them what changes something."""
    assert {"append_batch_v1", "create_conversation_v1"} <= {f.name for f in CHANGING}
    assert "route" in {f.name for f in FUNCTIONS} - {f.name for f in CHANGING}


@pytest.mark.parametrize("function", CHANGING, ids=by_name)
def test_a_function_that_changes_something_says_what_it_promises_and_locks(
    function: Function,
) -> None:
    """Promise and lock order stand above each, so that a new one can be put beside them safely."""
    assert "-- Promise:" in function.header
    assert "-- Locks:" in function.header


@pytest.mark.parametrize("function", CHANGING, ids=by_name)
def test_a_function_that_changes_something_has_a_version(function: Function) -> None:
    """Servers of two releases share a database for a while: a new meaning gets a new name.

    What people call by hand keeps its name, and only gains parameters.
    """
    assert re.search(r"_v\d+$", function.name) or function.schema == "greffier_me"


@pytest.mark.parametrize("function", FUNCTIONS, ids=by_name)
def test_why_somebody_may_not_is_said_in_fixed_words(function: Function) -> None:
    """It is told to callers: nothing that is on record may find its way into it."""
    said = len(re.findall(r"errcode = 'GR403'", function.text))
    fixed = re.findall(r"errcode = 'GR403',\s*message = '[^'%]+'\s*[;,]", function.text)
    assert len(fixed) == said


@pytest.mark.parametrize("function", FUNCTIONS, ids=by_name)
def test_an_update_computes_nothing_volatile(function: Function) -> None:
    """Times, ids and tokens are computed into variables first."""
    text = bare(function.text)
    updates = _UPDATE.findall(text)

    assert [found[0] for update in updates for found in [_VOLATILE.search(update)] if found] == []


def test_a_volatile_update_would_be_found() -> None:
    """The rule above sees through aliases, upserts and line breaks, and leaves locks alone."""
    for wrong in (
        "update t set at = clock_timestamp() where id = 1;",
        "update t x\nset id =\n  gen_random_uuid();",
        "insert into t values (1) on conflict (id) do update set at = clock_timestamp();",
    ):
        with pytest.raises(AssertionError):
            test_an_update_computes_nothing_volatile(Function("f", "", wrong))
    test_an_update_computes_nothing_volatile(
        Function("f", "", "select 1 for update; v := clock_timestamp(); update t set at = v;")
    )


async def test_nothing_ties_a_conversation_to_one_machine(database: str) -> None:
    """No trigger, no foreign key, no counter of the whole database: rows can lie anywhere."""
    async with connected(database) as connection:
        rows = await connection.fetch(
            """
            select format('trigger %s', tgname) from pg_trigger t join pg_class c on c.oid = tgrelid
            where relnamespace = 'greffier'::regnamespace
            union all
            select format('foreign key %s', conname) from pg_constraint
            where connamespace = 'greffier'::regnamespace and contype = 'f'
            union all
            select format('sequence %s', relname) from pg_class
            where relnamespace = 'greffier'::regnamespace and relkind = 'S'
            """
        )
    assert [row[0] for row in rows] == []


async def test_the_conversation_leads_every_unique_key(database: str) -> None:
    """What must be unique can be judged where the conversation is, without asking elsewhere."""
    async with connected(database) as connection:
        rows = await connection.fetch(
            """
            select t.relname as table, i.indexrelid::regclass::text as index, (
                select attname from pg_attribute
                where attrelid = t.oid and attnum = i.indkey[0]) as leads
            from pg_index i join pg_class t on t.oid = i.indrelid
            where t.relnamespace = 'greffier'::regnamespace and i.indisunique and exists (
                select from pg_attribute where attrelid = t.oid and attname = 'conversation_id')
            """
        )
    assert {"messages", "participants"} <= {row["table"] for row in rows}
    for row in rows:
        assert row["leads"] == KEYED_OTHERWISE.get(row["table"], "conversation_id"), row["index"]


async def test_the_conversation_of_a_row_is_known_and_of_one_type(database: str) -> None:
    """A conversation_id is a uuid and never null, so that it can say where a row lies."""
    async with connected(database) as connection:
        rows = await connection.fetch(
            """
            select c.relname, format_type(a.atttypid, null) as type, a.attnotnull as required
            from pg_attribute a join pg_class c on c.oid = a.attrelid
            where c.relnamespace = 'greffier'::regnamespace and c.relkind in ('r', 'p')
                and a.attname = 'conversation_id'
            """
        )
    assert rows
    for row in rows:
        assert (row["type"], row["required"]) == ("uuid", True), row["relname"]


async def test_parameters_can_be_told_from_columns(database: str) -> None:
    """A parameter begins with p_: in a function's body a bare name is a column.

    A row that a function takes as a whole is named by one letter, as its table is in a query.
    """
    async with connected(database) as connection:
        rows = await connection.fetch(
            """
            select p.proname, a.name
            from pg_proc p
            cross join unnest(p.proargnames, coalesce(p.proargmodes, array(
                select 'i'::"char" from unnest(p.proargnames)))) as a (name, mode)
            where p.pronamespace = 'greffier'::regnamespace and a.mode in ('i', 'b', 'v')
            """
        )
    wrong = [(row[0], row[1]) for row in rows if not re.fullmatch(r"p_\w+|[a-z]", row[1])]
    assert wrong == []


def test_refusals_are_those_of_the_errors() -> None:
    """Each SQLSTATE of ours means one error, and each is raised or announced in 00_schema.sql."""
    raised = {
        code
        for text in SCHEMA.values()
        for code in re.findall(r"'(GR\d{3})'", re.sub(r"--[^\n]*", "", text))
    }
    head = SCHEMA["00_schema.sql"].partition("\ncreate ")[0]
    announced = dict(re.findall(r"\b(GR\d{3}) +([a-z-]+)", head))

    assert raised <= SQLSTATES.keys()
    assert announced == {state: error.code for state, error in SQLSTATES.items()}


def test_each_named_query_is_used() -> None:
    """A query nobody calls is gone, and no name is given twice (or it could not be loaded)."""
    package = Path(str(files("greffier")))
    code = "\n".join(path.read_text(encoding="utf-8") for path in package.rglob("*.py"))

    assert [name for name in queries() if not re.search(rf"[\"']{name}[\"']", code)] == []


@pytest.mark.parametrize("step", migrations(), ids=lambda step: step.name)
def test_a_migration_leaves_its_transaction_to_us(step: Migration) -> None:
    """Whole or not at all: no file begins or ends a transaction by itself."""
    first_words = {bare(statement).split()[0].lower() for statement in statements(step.text)}

    assert first_words.isdisjoint(
        {"begin", "start", "commit", "end", "rollback", "abort", "savepoint"}
    )
