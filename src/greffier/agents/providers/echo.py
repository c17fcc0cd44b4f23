"""The built-in ``echo``: says the last message again, word by word."""

from __future__ import annotations

import asyncio
import re

from greffier.agents.providers.protocol import Answer, Ask, Content, Finished, Used
from greffier.model.draft import parts_text
from greffier.model.tokens import estimate

# A word with the blanks around it, so that the words together are the message.
_WORDS = re.compile(r"\s*\S+\s*|\s+")


class Echo:
    """Answers without a model; for a first try, and for tests."""

    async def answer(self, ask: Ask) -> Answer:
        """Say what the user said last; its usage is our estimate."""
        content = next(
            (one["content"] for one in reversed(ask.messages) if one["role"] == "user"), ""
        )
        text = content if isinstance(content, str) else parts_text(content or [])
        for word in _WORDS.findall(text):
            yield Content(word)
            await asyncio.sleep(0)  # a long message keeps nobody waiting
        yield Used(
            sum(map(estimate, ask.messages)), estimate({"role": "assistant", "content": text})
        )
        yield Finished("stop")

    async def close(self) -> None:
        """Close nothing."""
