"""greffier token, stats, db and serve."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import stat
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING

import jwt
import pytest

from cli.conftest import start
from greffier.library import open as open_record

if TYPE_CHECKING:
    from cli.conftest import Cli

SECRET = "a secret of thirty-two bytes or more"


async def test_a_token_is_signed_with_the_server_s_secret(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the claims that were asked for, for as long as was asked, for this server's audience."""
    monkeypatch.setenv("GREFFIER_JWT_SECRET", SECRET)
    monkeypatch.setenv("GREFFIER_JWT_AUDIENCE", "greffier")
    monkeypatch.setenv("GREFFIER_ROLE_CLAIM", "realm.roles")
    said = await cli(
        *("token", "--user", "ada", "--name", "Ada", "--email", "ada@a.example"),
        *("--admin", "--expires", "2h"),
    )
    assert (said.code, said.err) == (0, "")
    claims = jwt.decode(said.out.strip(), SECRET, algorithms=["HS256"], audience="greffier")
    assert claims["exp"] - claims["iat"] == 7200
    assert (claims["sub"], claims["name"], claims["email"]) == ("ada", "Ada", "ada@a.example")
    assert claims["realm"]["roles"] == "admin"


async def test_without_a_secret_there_is_one_in_the_data_folder(cli: Cli, tmp_path: Path) -> None:
    """Made once, readable by its owner alone; an ordinary token makes nobody an admin."""
    first = (await cli("token", "--user", "ada", "--json")).json()
    (file,) = (tmp_path / "data").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    second = (await cli("token", "--user", "bob")).out.strip()
    for token in (first["token"], second):
        claims = jwt.decode(token, file.read_bytes().strip(), algorithms=["HS256"])
        assert "role" not in claims
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", first["expires_at"])


async def test_stats_count_all_a_user_s_or_one_conversation(cli: Cli, on_database: str) -> None:
    """The same numbers as a table and as JSON."""
    async with open_record(on_database) as record:
        ada = await record.conversations.create(owner="ada")
        await record.messages.append(ada.id, content="été")
        await record.messages.append(ada.id, role="assistant", content="oui")
        await record.messages.delete(ada.id, 1)
        old = await record.conversations.create(owner="bob")
        await record.conversations.archive(old.id)
    everything = (await cli("stats", "--json")).json()
    del everything["first_at"], everything["last_at"]
    assert everything == {
        "conversations": 2,
        "archived": 1,
        "messages": 2,
        "deleted": 1,
        "roles": {"user": 1, "assistant": 1, "tool": 0, "system": 0},
        "bytes": 8,
    }
    assert (await cli("stats", "--user", "bob", "--json")).json()["conversations"] == 1
    one = (await cli("stats", ada.id, "--json")).json()
    assert one["conversation_id"] == str(ada.id)
    assert one["messages"] == {"user": 0, "assistant": 1, "tool": 0, "system": 0}
    table = (await cli("stats")).out
    assert re.search(r"^conversations +2$", table, re.MULTILINE)
    assert re.search(r"^  assistant +1$", table, re.MULTILINE)


async def test_db_brings_an_empty_database_up_to_date(
    cli: Cli, empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Status says where it stands, migrate --sql what would be done, migrate does it."""
    monkeypatch.setenv("GREFFIER_DATABASE_URL", empty_database)
    status = await cli("db", "status", "--json")
    assert (status.code, status.json()["state"]) == (3, "absent")
    check = await cli("db", "check", "--json")
    assert (check.code, check.json()["ready"]) == (3, False)
    sql = await cli("db", "migrate", "--sql")
    assert sql.code == 0
    assert "create table conversations" in sql.out
    assert (await cli("db", "status")).code == 3
    done = await cli("db", "migrate", "--json")
    assert (done.code, done.json()["applied"]) == (0, status.json()["pending"])
    assert (await cli("db", "status")).code == 0
    assert (await cli("db", "check")).code == 0
    assert (await cli("db", "migrate", "--json")).json() == {"applied": []}
    assert (await cli("db", "migrate", "--sql")).out == ""
    assert (await cli("db", "url")).out == f"{empty_database}\n"


async def test_serve_serves_whom_a_token_names_until_it_is_stopped(
    cli: Cli, on_database: str
) -> None:
    """The commands belong together: one serves, the other lets somebody in."""
    del on_database
    token = (await cli("token", "--user", "ada")).out.strip()
    process = await start("serve", "--port", "0", "--log-format", "json")
    assert process.stderr is not None
    address = None
    while address is None:
        line = (await process.stderr.readline()).decode()
        assert line, "it ended"
        address = re.search(r"listens on http://([\d.:]+)", line)

    def ask() -> tuple[int, object]:
        connection = HTTPConnection(address[1])
        connection.request("GET", "/v1/conversations", headers={"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        found = answer.status, json.loads(answer.read())["data"]
        connection.close()
        return found

    assert await asyncio.to_thread(ask) == (200, [])
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == 0
