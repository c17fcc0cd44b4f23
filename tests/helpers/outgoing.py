"""Messages on their way out, as a worker hands them to a channel."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec

from greffier.deliver.channels import Outgoing
from greffier.model.message import Message

TALK = UUID("0197f0c8-7a50-7bbb-8f6e-000000000001")


def outgoing(
    content: str | None = "Voilà : l'été à Œuilly, « ça » coûte 3 €.",
    *,
    seq: int = 7,
    title: str = "Plans",
    previous: tuple[str, ...] = (),
    fence: int = 3,
    endpoint: str = "hook",
    **said: Any,
) -> Outgoing:
    """A message of Greffier's assistant, unless something else is said."""
    message = Message(
        conversation_id=TALK,
        seq=seq,
        id=UUID(int=seq),
        written_by="service",
        content=content,
        created_at=datetime(2026, 3, 1, 12, tzinfo=UTC),
        rev=seq,
        **{"role": "assistant", **said},
    )
    return Outgoing(
        webhook_id=f"msg_{endpoint}_{seq}",
        conversation_id=TALK,
        conversation_title=title,
        message=msgspec.json.encode(message),
        seq=seq,
        fence=fence,
        previous=previous,
    )
