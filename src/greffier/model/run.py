"""A run, as the API shows it."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

import msgspec


class RunUsage(msgspec.Struct, frozen=True):
    """Tokens as the provider counted them, and their cost in the server's currency."""

    input_tokens: int
    output_tokens: int
    cached_tokens: int
    cost: float


class RunError(msgspec.Struct, frozen=True):
    """Why a run failed: a stable code, and words for people."""

    code: str
    detail: str | None


class Run(msgspec.Struct, frozen=True):
    """An agent's answer, from the request to its message (``message_seq``, once there is one)."""

    id: UUID
    conversation_id: UUID
    agent_id: UUID
    status: Literal["queued", "running", "completed", "interrupted", "cancelled", "failed"]
    message_seq: int | None
    usage: RunUsage
    error: RunError | None
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
