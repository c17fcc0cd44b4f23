"""How many tokens a message costs: an estimate without a vocabulary, or a counter of your own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

#: Bytes of UTF-8 per token.  The rule of thumb is 4 for English.  Measured with the vocabulary
#: o200k_base on real talks: English prose 4.1 to 4.9, tool calls 3.6, French minutes 3.1, chat logs
#: 3.0, JSON from tools 2.75.  3 is near for the rest and says too many for English, which is the
#: side to err on: a budget not quite used costs less than a request that the model refuses.
BYTES_PER_TOKEN = 3

#: What a provider adds around each message (OpenAI's guide to counting says 3, and 1 for a name).
PER_MESSAGE = 4

#: A picture of 1024 by 1024 at high detail (OpenAI: 85 + 4 * 170), and any other part that is not
#: text: neither the address of a file nor its base64 says what it will cost.
PER_ATTACHMENT = 765


class TokenCounter(Protocol):
    """Says what one message in the OpenAI chat format costs; the same message, the same number."""

    def __call__(self, message: Mapping[str, Any], /) -> int:
        """Count the tokens of one message, with all that the provider adds around it."""


def estimate(message: Mapping[str, Any], /) -> int:
    """Estimate the tokens of one message in the OpenAI chat format by its bytes.

    Counts text, names, tool calls and their ids at 3 bytes of UTF-8 a token, 4 tokens for the
    message itself and 765 for each part that is not text.  Good to about a third either way, so for
    a hard limit bring a counter of your own.
    """
    size = attachments = 0
    content = message.get("content")
    if isinstance(content, str):
        size += _size(content)
    elif content:
        for part in content:
            text = part.get("text")
            if isinstance(text, str):
                size += _size(text)
            else:
                attachments += 1
    size += _size(message.get("name", "")) + _size(message.get("tool_call_id", ""))
    for call in message.get("tool_calls") or ():
        function = call["function"]
        size += _size(call["id"]) + _size(function["name"]) + _size(function["arguments"])
    return PER_MESSAGE + attachments * PER_ATTACHMENT - (-size // BYTES_PER_TOKEN)


def _size(text: str) -> int:
    # Lone surrogates cannot be stored, but a counter is no place to find that out.
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
