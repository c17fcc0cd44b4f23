"""API keys: what a program brings, and what is kept of it."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Literal, TypeAlias
from uuid import UUID

import msgspec

Scope: TypeAlias = Literal["user", "service", "ops"]

#: What every key of ours begins with, so that it is told from a JWT and found by secret scanners.
PREFIX = "grf_"


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key as it is listed; the key itself was shown once, when it was made."""

    id: UUID
    scope: Scope
    user_id: str | None
    name: str
    created_by: str
    created_at: datetime
    expires_at: datetime | None


class KeyList(msgspec.Struct, frozen=True, kw_only=True):
    """Some of the keys, newest first; ``next_cursor`` is null when nothing follows."""

    data: list[ApiKey]
    next_cursor: str | None


class NewKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key as it is asked for; ``user_id`` is whom a key of scope ``user`` acts as."""

    scope: Scope
    name: str
    user_id: str | None = None
    expires_at: datetime | None = None


class MadeKey(ApiKey, frozen=True, kw_only=True):
    """A new key; ``key`` is the key itself, which is shown this once."""

    key: str


def key_hash(key: str) -> bytes:
    """What is stored of a key: SHA-256, which for 256 random bits needs no salt."""
    return hashlib.sha256(key.encode()).digest()
