"""What went by in an import, kept on disk: one of any length must not grow in memory.

A temporary SQLite database without a name, which the system takes away with the process.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from uuid import UUID

_TABLES = """
create table entries (digest blob primary key, n) without rowid;
create table conversations (id blob primary key) without rowid;
create table messages (conversation blob, id blob, hash blob, said blob,
    primary key (conversation, id)) without rowid;
"""


class Seen:
    """What this import has met: equal entries, and (in a rehearsal) what it would have stored."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Use ``seen`` to make one."""
        self._connection = connection
        connection.executescript(_TABLES)

    def ordinal(self, digest: bytes) -> int:
        """How many entries with this digest went by before this one."""
        row = self._one("select n from entries where digest = ?", digest)
        n = 0 if row is None else int(row[0])
        self._connection.execute("insert or replace into entries values (?, ?)", (digest, n + 1))
        return n

    def forget_entries(self) -> None:
        """Begin to count entries anew: each file is counted for itself."""
        self._connection.execute("delete from entries")

    def plan_conversation(self, conversation: UUID) -> bool:
        """Remember a conversation that would be there; says whether it was met before."""
        key = conversation.bytes
        met = self._one("select 1 from conversations where id = ?", key) is not None
        self._connection.execute("insert or ignore into conversations values (?)", (key,))
        return met

    def plan(self, conversation: UUID, message: UUID, request_hash: bytes, said: bytes) -> bool:
        """Remember a message that would be stored; says whether it is new."""
        done = self._connection.execute(
            "insert or ignore into messages values (?, ?, ?, ?)",
            (conversation.bytes, message.bytes, request_hash, said),
        )
        return done.rowcount == 1

    def planned(self, conversation: UUID, message: UUID) -> tuple[bytes, bytes] | None:
        """Both hashes of a message that would have been stored by now, if it is one."""
        return self._one(
            "select hash, said from messages where conversation = ? and id = ?",
            conversation.bytes,
            message.bytes,
        )

    def planned_in(self, conversation: UUID) -> int:
        """How many messages of a conversation would have been stored by now."""
        row = self._one("select count(*) from messages where conversation = ?", conversation.bytes)
        assert row is not None
        return int(row[0])

    def _one(self, sql: str, *args: bytes) -> tuple[bytes, bytes] | None:
        found: tuple[bytes, bytes] | None = self._connection.execute(sql, args).fetchone()
        return found


@contextlib.contextmanager
def seen() -> Iterator[Seen]:
    """Make a memory for one import; it is gone afterwards."""
    # Made in one thread and used in another, never in two at once.
    connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)
    try:
        connection.execute("pragma journal_mode = off")
        connection.execute("pragma synchronous = off")
        connection.execute("pragma cache_size = -4096")
        yield Seen(connection)
    finally:
        connection.close()
