"""The library: conversations in your own process, on an embedded PostgreSQL or on yours.

    async with greffier.open() as g:
        talk = await g.conversations.create(owner="ada", title="Plans")
        said = await g.messages.append(talk.id, role="user", content="Bonjour")

Calls on behalf of a user take ``actor=``; without it the caller is the service.
"""

from greffier.library.agents import Agents
from greffier.library.conversations import Conversations
from greffier.library.messages import Messages
from greffier.library.record import Greffier, closing, open  # noqa: A004

__all__ = ["Agents", "Conversations", "Greffier", "Messages", "closing", "open"]
