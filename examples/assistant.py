"""An assistant that keeps its conversation: what you type, what it answers, and what a model gets.

    python examples/assistant.py "Bonjour" "What did I say first?"

Each argument is something you say; without one it reads lines.  Run again, it goes on where it was:
the conversation is the one that ada has on the subject "example".  In the place of ``think`` stands
your model.
"""

# ruff: noqa: INP001, T201 - a program that talks to a person
from __future__ import annotations

import asyncio
import os
import sys
import uuid
from collections.abc import Iterable
from typing import Any

import greffier

#: Your PostgreSQL; without it the private one in your data folder.
URL = os.environ.get("GREFFIER_DATABASE_URL")


def think(messages: list[dict[str, Any]]) -> str:
    """Answer as a model would, from nothing but its context."""
    said = [one["content"] for one in messages if one["role"] == "user"]
    return f"You said {said[-1]!r}; the first thing I know of is {said[0]!r}."


async def talk(lines: Iterable[str]) -> None:
    """Keep each line, ask for a context, keep the answer."""
    async with greffier.open(URL) as g:
        for line in lines:
            # Made before the first try and kept until it is acknowledged: sent again it is once.
            message_id = uuid.uuid4()
            said = await g.say("example", line.strip(), user="ada", id=message_id)
            context = await g.context(said.conversation_id, max_messages=4)
            answer = await g.messages.append(
                said.conversation_id, role="assistant", content=think(context.messages)
            )
            print(f"{said.seq} ada: {said.content}")
            print(f"{answer.seq} assistant: {answer.content}")
            left_out = context.omitted.messages
            print(f"  (the model got {len(context.messages)} messages, {left_out} were left out)")


if __name__ == "__main__":
    asyncio.run(talk(sys.argv[1:] or sys.stdin))
