"""People who reach the database with a role of their own."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg
import pytest

from greffier.library import Greffier
from greffier.store.connection import Connection
from helpers.postgres import connected


@dataclass(frozen=True)
class Login:
    """A database role that may connect."""

    role: str
    password: str = field(default_factory=lambda: secrets.token_hex(8))

    def url(self, dsn: str) -> str:
        """The URL of the same database for this role."""
        parts = urlsplit(dsn)
        host = parts.netloc.rpartition("@")[2]
        return urlunsplit(parts._replace(netloc=f"{self.role}:{quote(self.password)}@{host}"))


@contextlib.asynccontextmanager
async def new_login(server: str, options: str = "login") -> AsyncIterator[Login]:
    """Make a role of the whole server, and drop it; by then nothing may be granted to it.

    Args:
        server: A superuser's URL.
        options: What else CREATE ROLE is told.
    """
    login = Login(f"greffier_test_{secrets.token_hex(6)}")
    async with connected(server) as connection:
        await connection.execute(f"create role {login.role} {options} password '{login.password}'")
        try:
            yield login
        finally:
            await connection.execute(f"drop role {login.role}")


class Person:
    """A connection of a database role, as somebody has it in psql."""

    def __init__(self, name: str, live: Connection) -> None:
        self.name = name
        self.live = live
        self.heard: list[str] = []
        live.add_log_listener(lambda _live, message: self.heard.append(str(message)))

    async def rows(self, sql: str, *args: object) -> list[tuple[Any, ...]]:
        """Run one statement."""
        return [tuple(row.values()) for row in await self.live.fetch(sql, *args)]

    async def one(self, sql: str, *args: object) -> Any:
        """Run one statement for a single value."""
        return await self.live.fetchval(sql, *args)

    async def refusal(self, sql: str, *args: object) -> str:
        """Run one statement that is refused, for its SQLSTATE."""
        with pytest.raises(asyncpg.PostgresError) as refused:
            await self.live.fetch(sql, *args)
        return str(refused.value.sqlstate)


@dataclass(frozen=True)
class Town:
    """A database whose people have database roles: ada and bob are admitted, eve is not."""

    dsn: str
    service: Greffier
    logins: Mapping[str, Login]

    @contextlib.asynccontextmanager
    async def person(
        self, name: str, settings: Mapping[str, str] | None = None
    ) -> AsyncIterator[Person]:
        """Connect as one of them, ``greffier_me`` on the search path."""
        live = await asyncpg.connect(
            self.logins[name].url(self.dsn),
            server_settings={"search_path": "greffier_me", **(settings or {})},
            statement_cache_size=0,
        )
        try:
            yield Person(name, live)
        finally:
            await live.close()

    @contextlib.asynccontextmanager
    async def operator(self) -> AsyncIterator[Connection]:
        """Connect as the superuser who runs the database."""
        async with connected(self.dsn) as connection:
            yield connection
