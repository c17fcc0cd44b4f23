"""The pages on direct access are true: what their sessions show is what comes of it."""

from __future__ import annotations

import itertools
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

import asyncpg
import pytest
import pytest_asyncio

from greffier.store.connection import Connection
from helpers.direct import Login
from helpers.postgres import connected

DOCS = Path(__file__).parents[2] / "docs"
ENGLISH = DOCS / "en" / "howto" / "direct-database-access.md"
FRENCH = DOCS / "fr" / "howto" / "acces-direct-base.md"


class Typed(NamedTuple):
    """A statement of a session, by whom, and what the page says comes of it."""

    who: str
    statement: str
    output: list[str]


def sessions(page: Path) -> Iterator[Typed]:
    """Every statement that a page shows in psql, in order."""
    text = page.read_text(encoding="utf-8")
    for block in re.findall(r"^```console\n\$ psql (.*?)^```$", text, re.MULTILINE | re.DOTALL):
        url, _, lines = block.partition("\n")
        found = re.match(r"postgresql://(\w+)@", url)
        for typed in re.split(r"^greffier=[>#] ", lines, flags=re.MULTILINE)[1:]:
            statement, _, output = typed.partition("\n")
            yield Typed(found[1] if found else "operator", statement, output.splitlines())


def shown(output: list[str]) -> list[tuple[str, ...]]:
    """The rows of a table as psql prints it."""
    table = itertools.takewhile(lambda line: not line.startswith("("), output[2:])
    return [tuple(cell.strip() for cell in line.split("|")) for line in table]


def printed(value: object) -> str:
    """A value as psql prints it."""
    if isinstance(value, bool):
        return "t" if value else "f"
    return "" if value is None else str(value)


@pytest_asyncio.fixture
async def people(
    logins: Mapping[str, Login], database: str
) -> AsyncIterator[dict[str, Connection]]:
    """Connections of the page's people: under its names in its statements, under others here."""
    async with AsyncExitStack() as stack:
        found = {"operator": await stack.enter_async_context(connected(database))}
        await found["operator"].execute("select admit_role_v1($1, 'bob')", logins["bob"].role)
        for name in ("ada", "bob"):
            live = await stack.enter_async_context(connected(logins[name].url(database)))
            await live.execute("set search_path = greffier_me")
            found[name] = live
        yield found


async def test_a_session_shows_what_comes_of_it(
    people: dict[str, Connection], logins: Mapping[str, Login]
) -> None:
    """Each statement in the order of the page, as who it says; ids are other ones each time."""
    role = logins["ada"].role
    for who, typed, output in sessions(ENGLISH):
        if typed.startswith(("\\", "create role", "drop role", "alter role")):
            continue  # psql's own; and our roles are there already, and serve other tests
        statement = typed.replace("admit_role_v1('ada'", f"admit_role_v1('{role}'")
        statement = statement.replace("dismiss_role_v1('ada'", f"dismiss_role_v1('{role}'")
        if output[0].startswith("ERROR:"):
            with pytest.raises(asyncpg.PostgresError) as refused:
                await people[who].fetch(statement)
            assert output[0] == f"ERROR:  {refused.value.args[0]}", typed
            continue
        rows = await people[who].fetch(statement)
        came = [tuple(map(printed, row.values())) for row in rows]
        for row, expected in zip(came, shown(output), strict=True):
            for cell, there in zip(row, expected, strict=True):
                assert cell in (there, role) or re.fullmatch(r"[0-9a-f-]{36}", there), typed


@pytest.mark.parametrize("page", [ENGLISH, FRENCH])
def test_the_pages_name_what_there_is(page: Path) -> None:
    """Both languages show the same sessions."""
    assert [typed[:2] for typed in sessions(page)] == [typed[:2] for typed in sessions(ENGLISH)]


async def test_every_view_and_function_is_on_the_pages(database: str) -> None:
    """And whatever a person can read or call stands on them."""
    async with connected(database) as connection:
        names = await connection.fetch(
            "select relname from pg_class where relnamespace = 'greffier_me'::regnamespace "
            "and relkind = 'v' union "
            "select proname from pg_proc where pronamespace = 'greffier_me'::regnamespace"
        )
    for page in (ENGLISH, FRENCH):
        text = page.read_text(encoding="utf-8")
        assert {row[0] for row in names if not re.search(rf"\b{row[0]}\b", text)} == set()
