"""What a provider's refusal means: a status, a code and words become a ``ProviderError``.

The people who talk to an agent read the detail, so a provider's words are in it only where they say
what to mend, as one short line without anything that looks like a secret.  What it says of keys,
limits of an account or its own troubles is not for them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from greffier.agents.providers.mending import mend
from greffier.agents.providers.protocol import ProviderError

#: Characters of a provider's words in a detail.
QUOTED: Final = 200

# How services say that the conversation is too long.  OpenAI, DeepSeek, vLLM and OpenRouter;
# Mistral; xAI; Ollama; llama.cpp; LM Studio; Gemini; Anthropic; vLLM's older engine.
_TOO_LONG = re.compile(
    r"context[_ ]length[_ ]exceeded|maximum context length|maximum prompt length is"
    r"|exceed(?:s|ed)? (?:the )?(?:max |maximum |model's |available |input )*context"
    r" (?:length|size|window|limit)|exceed_context_size|model_context_window_exceeded"
    r"|longer than the (?:model's )?context|greater than the context length"
    r"|input token count.*exceeds the maximum|prompt is too long|prompt \(.*\) is too long"
    r"|prompt too long|input is too long|request_too_large"
    r"|reduce the length of the (?:messages|prompt)",
    re.IGNORECASE | re.DOTALL,
)
# A limit on tokens a minute is told in similar words and has nothing to do with the window.
_RATE = re.compile(r"rate.?limit|tokens per (?:min|day)|\bTP[MD]\b", re.IGNORECASE)
_SPENT = re.compile(
    r"insufficient_quota|credit balance is too low|billing_(?:hard_limit|not_active)", re.IGNORECASE
)
_OVERLOADED = frozenset({"overloaded_error", "api_error", "server_error", "timeout_error"})
_REFUSED = frozenset({"invalid_request_error", "BadRequestError", "not_found_error"})
_KEY_REFUSED = frozenset({"authentication_error", "invalid_api_key"})
_LIMITED = frozenset({"rate_limit_error", "rate_limit_exceeded"})
_STATUS = re.compile(r"[45][0-9][0-9]")

# Keys by their usual forms, what follows Bearer, and the names of accounts.
_SECRET = re.compile(
    r"Bearer\s+\S+|\b(?:sk|pk|rk|xai|gsk|key|org|proj|acct|user)[-_][\w*.-]{6,}|\bAIza[\w-]{10,}"
    r"|\b[A-Za-z0-9_-]{32,}\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Said:
    """What can be read from a provider's refusal.

    Attributes:
        status: The HTTP status; None for an error told within the stream.
        words: Its message.
        marks: Its codes and types.
        retry_after: Seconds it asks to wait.
    """

    status: int | None
    words: str = ""
    marks: tuple[str, ...] = ()
    retry_after: float | None = None

    def mentions(self, word: str) -> bool:
        """Whether it speaks of something by name."""
        return word in self.words or word in self.marks


def read(status: int | None, body: Any, headers: Mapping[str, str] | None = None) -> Said:
    """Find words and codes in the body of a refusal, whatever its form."""
    words: list[str] = []
    marks: list[str] = []
    if isinstance(body, str) and body.lstrip().startswith("<"):
        body = None  # a page of some proxy
    for key, value in _leaves(body, 0):
        if key in ("code", "type", "param", "error_code") and isinstance(value, str | int):
            marks.append(str(value))
            if status is None and key == "code" and _STATUS.fullmatch(str(value)):
                status = int(value)
        elif isinstance(value, str):
            words.append(value)
    return Said(status, " ".join(words), tuple(marks), _retry_after(headers or {}))


def classify(said: Said, *, secret: str = "") -> ProviderError:
    """Decide what a refusal means.

    Args:
        said: The refusal.
        secret: The key it was asked with, which the detail does not repeat.
    """
    status, told = said.status, " ".join((said.words, *said.marks))
    marks = set(said.marks)
    quote = _quote(said.words, secret)
    if status == 401 or marks & _KEY_REFUSED:
        return ProviderError("provider-refused", "The provider does not accept the key.")
    if status == 403 or "permission_error" in marks:
        return ProviderError(
            "provider-refused", "The provider forbids this: to the key, or to everybody."
        )
    if status == 402 or _SPENT.search(told):
        return ProviderError("provider-refused", "The provider's account has no credit left.")
    if status == 429 or marks & _LIMITED or (status == 413 and _RATE.search(told)):
        return ProviderError(
            "provider-rate-limited",
            "The provider asks to wait.",
            said.retry_after,
            retryable=True,
        )
    if (status in (None, 400, 413, 422, 500)) and (_TOO_LONG.search(told) or status == 413):
        return ProviderError(
            "context-too-long", "The conversation is longer than the model can read."
        )
    away = status is None and not marks & _REFUSED
    if away or marks & _OVERLOADED or status in (408, 409, 425) or (status or 0) >= 500:
        answered = f"The provider answered {status}." if status else "The provider broke off."
        return ProviderError("provider-unavailable", answered, said.retry_after, retryable=True)
    answered = f"The provider answered {status}" if status else "The provider refused"
    return ProviderError("provider-refused", f"{answered}: {quote}" if quote else f"{answered}.")


def silence(seconds: float, *, begun: bool) -> ProviderError:
    """Nothing came for too long."""
    what = "stopped in the middle" if begun else "did not begin to answer"
    return ProviderError(
        "provider-unavailable", f"The provider {what} for {seconds:g} s.", retryable=True
    )


def unreachable() -> ProviderError:
    """The network failed."""
    return ProviderError(
        "provider-unavailable",
        "The provider could not be reached, or broke off.",
        retryable=True,
    )


def malformed() -> ProviderError:
    """What came makes no sense."""
    return ProviderError(
        "provider-unavailable", "The provider sent what is no answer.", retryable=True
    )


def unfinished() -> ProviderError:
    """The stream ended before the answer did."""
    return ProviderError(
        "provider-unavailable", "The provider broke off in the middle.", retryable=True
    )


def _quote(words: str, secret: str) -> str:
    """A provider's words as one short line without secrets."""
    # Not more than can matter: the patterns need not read a page of HTML.
    line = mend(words[: 4 * QUOTED])
    if secret:
        line = line.replace(secret, "…")
    line = _SECRET.sub("…", line)
    line = " ".join("".join(char if char.isprintable() else " " for char in line).split())
    return line if len(line) <= QUOTED else f"{line[: QUOTED - 1]}…"


def _leaves(value: Any, depth: int) -> Iterator[tuple[str, Any]]:
    """What stands in a body, by the nearest key; not deeper than errors are."""
    if depth > 6:
        return
    if isinstance(value, Mapping):
        for key, item in value.items():
            if isinstance(item, Mapping | list):
                yield from _leaves(item, depth + 1)
            else:
                yield str(key), item
    elif isinstance(value, list):
        for item in value[:20]:
            yield from _leaves(item, depth + 1)
    else:
        yield "", value


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait: a number, or until a date (RFC 9110, 10.2.3)."""
    with_unit = ((headers.get("retry-after-ms"), 1000), (headers.get("retry-after"), 1))
    for text, unit in with_unit:
        if text is None:
            continue
        try:
            seconds = float(text) / unit
        except ValueError:
            try:
                until = parsedate_to_datetime(text)
            except ValueError:
                continue
            if until.tzinfo is None:
                until = until.replace(tzinfo=UTC)
            seconds = (until - datetime.now(UTC)).total_seconds()
        if 0 <= seconds < float("inf"):
            return seconds
    return None
