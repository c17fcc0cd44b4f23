"""Promise: ``echo`` says the last message again, and ``script`` plays what it was given."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greffier.agents.providers.echo import Echo
from greffier.agents.providers.protocol import (
    Ask,
    Content,
    Finished,
    Piece,
    Provider,
    ProviderError,
    Reasoning,
    ToolCall,
    ToolResult,
    Used,
)
from greffier.agents.providers.script import Script, check_script
from greffier.model.tokens import estimate

USER = {"role": "user", "content": "Bonjour"}


async def pieces(provider: Provider, ask: Ask) -> list[Piece]:
    """A whole answer."""
    return [piece async for piece in provider.answer(ask)]


# -- echo ------------------------------------------------------------------------------------------


@given(text=st.text(max_size=60))
async def test_echo_says_the_last_message_again(text: str) -> None:
    """Every blank of it, word by word."""
    ask = Ask("any", "Be brief.", [USER, {"role": "user", "content": text}])

    *words, used, finished = await pieces(Echo(), ask)

    said = [one.text for one in words if isinstance(one, Content)]
    assert "".join(said) == text
    assert len(said) == max(len(text.split()), bool(text))
    assert isinstance(used, Used)
    assert finished == Finished("stop")


async def test_echo_says_what_it_would_have_used() -> None:
    """By our estimate, so that quotas can be tried without a model."""
    ask = Ask("any", None, [USER, {"role": "assistant", "content": "Oui"}])

    assert Used(
        sum(map(estimate, ask.messages)), estimate({"role": "assistant", "content": "Bonjour"})
    ) in await pieces(Echo(), ask)


async def test_echo_of_parts_is_their_text() -> None:
    """A picture is not said."""
    parts = [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "x"}}]

    said = await pieces(Echo(), Ask("any", None, [{"role": "user", "content": parts}]))

    assert said[0] == Content("a")


# -- script ----------------------------------------------------------------------------------------


def entry(event: str, after_ms: int = 0, **data: Any) -> dict[str, Any]:
    """An entry of a script."""
    return {"after_ms": after_ms, "event": event, "data": data}


CALL = entry("tool.call", id="c1", name="weather", arguments="{}")
RESULT = entry("tool.result", id="c1", content="Rain")
SAID = ToolCall("c1", "weather", "{}")
CALLED = {
    "role": "assistant",
    "content": None,
    "tool_calls": [
        {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    ],
}
ANSWERED = {"role": "tool", "tool_call_id": "c1", "content": "Sun"}


def playing(*script: dict[str, Any], chat: list[dict[str, Any]] | None = None) -> Ask:
    """An ask that plays a script."""
    return Ask("any", None, chat or [USER], (), {"script": list(script)})


async def test_a_script_plays_a_whole_run() -> None:
    """With thoughts, its tools and their results, and what it used."""
    ask = playing(
        entry("reasoning.delta", text="Hm."),
        CALL,
        RESULT,
        entry("content.delta", 1, text="Rain"),
        entry("content.delta", text="."),
        entry("usage", input_tokens=3, output_tokens=2),
    )

    assert await pieces(Script(), ask) == [
        Reasoning("Hm."),
        SAID,
        ToolResult("c1", "Rain"),
        Content("Rain"),
        Content("."),
        Used(3, 2),
        Finished("stop"),
    ]


async def test_a_script_waits_for_results_that_it_does_not_say() -> None:
    """The answer ends with the calls; with their results the next one goes on behind them."""
    script = [
        entry("content.delta", text="One moment."),
        CALL,
        entry("usage", input_tokens=1, output_tokens=1),
        entry("content.delta", text="Sun."),
        CALL,
    ]

    async def after(*chat: dict[str, Any]) -> list[Piece]:
        return await pieces(Script(), playing(*script, chat=[USER, *chat]))

    first = await after()
    second = await after(CALLED, ANSWERED)
    third = await after(CALLED, ANSWERED, CALLED, ANSWERED)
    again = await after(CALLED, ANSWERED, USER)

    assert first == [Content("One moment."), SAID, Used(1, 1), Finished("tool_calls")]
    assert second == [Content("Sun."), SAID, Finished("tool_calls")]
    assert third == [Finished("stop")]
    assert again == first


async def test_rounds_of_calls_with_results_are_told_apart() -> None:
    """A call after a result is another round, also when nothing is said between."""
    ask = playing(CALL, RESULT, CALL, entry("content.delta", text="x"))

    assert await pieces(Script(), ask) == [
        SAID,
        ToolResult("c1", "Rain"),
        SAID,
        Finished("tool_calls"),
    ]


async def test_a_script_may_fail() -> None:
    """With a code of its own."""
    ask = playing(
        entry("content.delta", text="Bon"), entry("run.failed", code="out-of-ink", detail="No ink.")
    )
    said: list[Piece] = []

    with pytest.raises(ProviderError, match="No ink") as failed:
        said += [piece async for piece in Script().answer(ask)]

    assert (failed.value.code, failed.value.retryable) == ("out-of-ink", False)


async def test_without_a_script_nothing_is_said() -> None:
    """And it ends."""
    assert await pieces(Script(), Ask("any", None, [USER])) == [Finished("stop")]


async def test_what_is_no_script_is_not_played() -> None:
    """It was checked when the agent was written; what comes in otherwise fails as a provider."""
    with pytest.raises(ProviderError) as failed:
        await pieces(Script(), playing({"event": "x"}))

    assert failed.value.code == "provider-refused"


@pytest.mark.parametrize(
    ("script", "problems"),
    [
        ([CALL, RESULT, entry("usage", input_tokens=1, output_tokens=0, cached_tokens=1)], []),
        ("x", [("", "type")]),
        ([1], [("/0", "type")]),
        ([{}], [("/0/event", "unknown")]),
        ([{"event": "x", "more": 1}], [("/0/more", "unknown"), ("/0/event", "unknown")]),
        ([{"event": "content.delta"}], [("/0/data", "type")]),
        ([entry("content.delta", -1, text="x")], [("/0/after_ms", "range")]),
        ([entry("content.delta", 3_600_001, text="x")], [("/0/after_ms", "range")]),
        ([entry("content.delta", True, text="x")], [("/0/after_ms", "range")]),
        ([entry("content.delta", text=1)], [("/0/data/text", "type")]),
        ([entry("content.delta", text="x", more=1)], [("/0/data/more", "unknown")]),
        ([entry("content.delta", text="\x00")], [("/0/data/text", "nul-character")]),
        ([entry("tool.call", id="", name="n", arguments="")], [("/0/data/id", "empty")]),
        ([CALL, entry("usage", input_tokens=-1, output_tokens=1)],
         [("/1/data/input_tokens", "range")]),
        ([entry("run.failed", code="Not A Code", detail="x")], [("/0/data/code", "format")]),
        ([CALL] * 10_001, [("", "too-long")]),
    ],
)  # fmt: skip
def test_everything_wrong_with_a_script_is_told(
    script: Any, problems: list[tuple[str, str]]
) -> None:
    """With its place, so that an admin can mend all of it at once."""
    found = check_script(script, "/params/script")

    assert [(one.pointer, one.code) for one in found] == [
        (f"/params/script{pointer}", code) for pointer, code in problems
    ]
