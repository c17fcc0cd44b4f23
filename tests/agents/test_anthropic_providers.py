"""Promise: Anthropic's models answer as any other, by the official SDK and a scripted server."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from greffier.agents.providers.anthropic import AnthropicProvider
from greffier.agents.providers.anthropic_messages import BEGINNING, conversation, request
from greffier.agents.providers.protocol import (
    Ask,
    Content,
    Finished,
    Piece,
    ProviderError,
    Reasoning,
    ToolCall,
    ToolSpec,
    Used,
)
from greffier.agents.providers.trying import Patience
from helpers.anthropic_server import (
    AnthropicServer,
    anthropic_server,
    block,
    delta,
    ending,
    error,
    named,
    start,
    text,
    thinking,
    tool_use,
)
from helpers.openai_server import Raw, event, hang_up, pause

KEY = "sk-ant-test-4f9c2b7a1e6d8f3c5b0a"
USER = {"role": "user", "content": "Bonjour"}
ASK = Ask("test", "Be brief.", [USER])
WEATHER = ToolSpec("weather", "The weather of a city.", {"type": "object", "properties": {}})


@pytest.fixture
def server() -> Iterator[AnthropicServer]:
    """A service that says what it is told to."""
    with anthropic_server() as running:
        yield running


@pytest.fixture
def waited() -> list[float]:
    """The waits between tries."""
    return []


@pytest.fixture
async def provider(
    server: AnthropicServer, waited: list[float]
) -> AsyncIterator[AnthropicProvider]:
    """The provider that is tested."""

    async def note(seconds: float) -> None:
        waited.append(seconds)

    made = AnthropicProvider(base_url=server.url, key=KEY, sleep=note)
    yield made
    await made.close()


async def pieces(provider: AnthropicProvider, ask: Ask = ASK) -> list[Piece]:
    """A whole answer."""
    return [piece async for piece in provider.answer(ask)]


async def failure(provider: AnthropicProvider) -> tuple[list[Piece], ProviderError]:
    """What was said, usage aside, before it failed, and how it did."""
    said: list[Piece] = []
    try:
        async for piece in provider.answer(ASK):
            if not isinstance(piece, Used):
                said.append(piece)  # noqa: PERF401 - it counts when it fails
    except ProviderError as failed:
        return said, failed
    raise AssertionError(f"it did not fail, and said {said}")


def calls(*ids: str, content: str | None = None, arguments: str = "{}") -> dict[str, Any]:
    """What an assistant says that calls tools."""
    function = {"name": "weather", "arguments": arguments}
    return {
        "role": "assistant",
        "content": content,
        "tool_calls": [{"id": one, "type": "function", "function": function} for one in ids],
    }


def result(call_id: str, content: str = "Rain") -> dict[str, Any]:
    """What a tool answers."""
    return {"role": "tool", "tool_call_id": call_id, "content": content}


# -- what is said ----------------------------------------------------------------------------------


async def test_an_answer_comes_word_by_word(
    server: AnthropicServer, provider: AnthropicProvider
) -> None:
    """Thoughts first, then words; usage as it grows, with what was cached in the input."""
    server.say(
        block(0, type="thinking", thinking="", signature=""),
        thinking("Hm."),
        delta(0, type="signature_delta", signature="c2ln"),
        block(1, type="text", text=""),
        "Bon",
        "jour",
        cache_read_input_tokens=30,
        cache_creation_input_tokens=5,
    )

    assert await pieces(provider) == [
        Used(46, 1, 30),
        Reasoning("Hm."),
        Content("Bon"),
        Content("jour"),
        Used(46, 7, 30),
        Finished("stop"),
    ]
    (request,) = server.requests
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.body == {
        "model": "test",
        "max_tokens": 8192,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Bonjour"}]}],
        "stream": True,
        "system": "Be brief.",
    }


async def test_parallel_calls_come_whole_and_in_order(
    server: AnthropicServer, provider: AnthropicProvider
) -> None:
    """Also one without arguments, for which nothing is sent."""
    server.say(
        "One moment.",
        *tool_use(1, "toolu_1", "weather", '{"city": ', '"Lyon"}'),
        *tool_use(2, "toolu_2", "time", ""),
        reason="tool_use",
    )

    said = await pieces(provider, Ask("test", None, [USER], [WEATHER]))

    assert said[-3:] == [
        ToolCall("toolu_1", "weather", '{"city": "Lyon"}'),
        ToolCall("toolu_2", "time", "{}"),
        Finished("tool_calls"),
    ]


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("refusal", "content_filter"),
        ("pause_turn", "stop"),
    ],
)
async def test_every_end_has_a_reason(
    server: AnthropicServer, provider: AnthropicProvider, said: str, meant: str
) -> None:
    """One of four."""
    server.say("ok", reason=said)

    assert (await pieces(provider))[-1] == Finished(meant)  # type: ignore[arg-type]


# -- what is asked ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "chat",
    [
        pytest.param([USER], id="one"),
        pytest.param([USER, USER, {"role": "assistant", "content": "Oui"}, USER], id="neighbours"),
        pytest.param([{"role": "assistant", "content": "Oui"}, USER], id="an assistant first"),
        pytest.param([USER, calls("a", "b"), result("a"), result("b"), USER], id="calls"),
        pytest.param(
            [USER, calls("a"), result("a"), calls("a"), result("a", ""), USER], id="ids again"
        ),
        pytest.param([USER, calls("a b/é"), result("a b/é")], id="ids of another form"),
        pytest.param([USER, calls("a", arguments='{"ci'), result("a")], id="half arguments"),
        pytest.param([USER, calls("a", arguments="[1]"), result("a")], id="arguments of no object"),
        pytest.param(
            [USER, {"role": "assistant", "content": "\n"}, {"role": "user", "content": "Encore"}],
            id="blank",
        ),
        pytest.param(
            [
                {"role": "system", "content": "One."},
                USER,
                {"role": "system", "content": [{"type": "text", "text": "Two."}]},
                {"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "odd"}]},
            ],
            id="systems",
        ),
    ],
)
async def test_every_conversation_is_one_there(
    server: AnthropicServer, provider: AnthropicProvider, chat: list[dict[str, Any]]
) -> None:
    """The scripted service refuses what Anthropic refuses: order, ids, blanks, missing tools."""
    server.say("ok")
    server.say("ok")

    assert Content("ok") in await pieces(provider, Ask("test", None, chat))
    assert Content("ok") in await pieces(provider, Ask("test", None, chat, [WEATHER]))


def test_calls_and_results_are_blocks() -> None:
    """Each result with its call, though ids come back."""
    written = conversation([USER, calls("a", content="So"), result("a"), calls("a"), result("a")])

    assert written[1:] == [
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "So"},
                {"type": "tool_use", "id": "a", "name": "weather", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "a", "content": "Rain"}],
        },
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "a-2", "name": "weather", "input": {}}],
        },
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "a-2", "content": "Rain"}],
        },
    ]


def test_pictures_and_documents_go_by_address_or_as_they_are() -> None:
    """What Anthropic cannot read is named, so that the model knows of it."""
    parts = [
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png", "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
        {"type": "file", "file": {"url": "https://example.org/a.pdf"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,aGk="}},
        {"type": "input_audio", "input_audio": {"data": "aGk=", "format": "wav"}},
    ]

    (message,) = conversation([{"role": "user", "content": parts}])

    base64 = {"type": "base64", "data": "aGk="}
    assert message["content"] == [
        {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}},
        {"type": "image", "source": {**base64, "media_type": "image/png"}},
        {"type": "document", "source": {"type": "url", "url": "https://example.org/a.pdf"}},
        {"type": "document", "source": {**base64, "media_type": "application/pdf"}},
        {"type": "text", "text": "[input_audio]"},
    ]


def test_who_speaks_is_told_where_several_do() -> None:
    """There is no name in a message there."""
    ada = {"role": "user", "name": "ada", "content": "Oui"}
    ben = {"role": "user", "name": "ben", "content": "Non"}

    (alone,) = conversation([ada])
    (both,) = conversation([ada, ben])

    assert [one["text"] for one in alone["content"]] == ["Oui"]
    assert [one["text"] for one in both["content"]] == ["ada:", "Oui", "ben:", "Non"]


def test_a_conversation_without_its_beginning_says_so() -> None:
    """Whose first message there has to be a user's."""
    first, *_ = conversation([{"role": "assistant", "content": "Oui"}])

    assert first == {"role": "user", "content": [{"type": "text", "text": BEGINNING}]}


@pytest.mark.parametrize(
    ("params", "written"),
    [
        ({"max_tokens": 5}, {"max_tokens": 5}),
        ({"max_completion_tokens": 6}, {"max_tokens": 6}),
        ({"stop": "END"}, {"stop_sequences": ["END"]}),
        ({"stop": ["A", "B"]}, {"stop_sequences": ["A", "B"]}),
        ({"temperature": 0.5, "top_k": 3}, {"temperature": 0.5, "top_k": 3}),
        ({"tool_choice": "required"}, {"tool_choice": {"type": "any"}}),
        ({"tool_choice": {"type": "tool", "name": "weather"}},
         {"tool_choice": {"type": "tool", "name": "weather"}}),
        ({"tool_choice": {"type": "function", "function": {"name": "weather"}}},
         {"tool_choice": {"type": "tool", "name": "weather"}}),
        ({"parallel_tool_calls": False},
         {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}}),
        ({"stream": False, "model": "other", "n": 2, "system": "x"}, {"stream": True}),
    ],
    ids=str,
)  # fmt: skip
def test_parameters_are_written_as_they_are_called_there(
    params: dict[str, Any], written: dict[str, Any]
) -> None:
    """So that an agent can change its provider and keep them."""
    body = request(Ask("test", None, [USER], [WEATHER], params))

    assert body.items() >= written.items()
    assert set(body) <= {*written, "model", "max_tokens", "messages", "stream", "tools"}
    assert body["model"] == "test"


def test_an_answer_that_goes_on_after_tools_does_so_without_thinking() -> None:
    """Its thoughts would have to be sent back signed, and they are not kept."""
    params = {"thinking": {"type": "enabled", "budget_tokens": 1024}}

    first = request(Ask("test", None, [USER], [WEATHER], params))
    second = request(Ask("test", None, [USER, calls("a"), result("a")], [WEATHER], params))

    assert ("thinking" in first, "thinking" in second) == (True, False)


# -- failing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind", "message", "code"),
    [
        (400, "invalid_request_error", "prompt is too long: 208310 tokens > 200000 maximum",
         "context-too-long"),
        (413, "request_too_large", "Request exceeds the maximum size", "context-too-long"),
        (400, "invalid_request_error", "input length and `max_tokens` exceed context limit: 1 + 2",
         "context-too-long"),
        (400, "invalid_request_error", "temperature: range", "provider-refused"),
        (400, "invalid_request_error", "Your credit balance is too low", "provider-refused"),
        (401, "authentication_error", f"invalid x-api-key {KEY}", "provider-refused"),
        (404, "not_found_error", "model: test", "provider-refused"),
    ],
)  # fmt: skip
async def test_a_refusal_is_not_asked_again(
    server: AnthropicServer,
    provider: AnthropicProvider,
    status: int,
    kind: str,
    message: str,
    code: str,
) -> None:
    """It would be refused again."""
    server.fail(status, kind, message)

    _, failed = await failure(provider)

    assert (failed.code, failed.retryable) == (code, False)
    assert KEY not in failed.detail
    assert len(server.requests) == 1


async def test_it_waits_as_long_as_it_is_asked_to(
    server: AnthropicServer, provider: AnthropicProvider, waited: list[float]
) -> None:
    """A limit, an overload, then the answer."""
    server.fail(429, "rate_limit_error", "slow down", **{"retry-after": "2"})
    server.fail(529, "overloaded_error", "Overloaded")
    server.say("ok")

    assert Content("ok") in await pieces(provider)
    assert 2 <= waited[0] < 3
    assert len(waited) == 2


@pytest.mark.parametrize(
    ("kind", "code", "retryable"),
    [
        ("overloaded_error", "provider-unavailable", True),
        ("api_error", "provider-unavailable", True),
        ("rate_limit_error", "provider-rate-limited", True),
        ("invalid_request_error", "provider-refused", False),
    ],
)
async def test_an_error_within_the_stream_is_told_as_one(
    server: AnthropicServer, provider: AnthropicProvider, kind: str, code: str, retryable: bool
) -> None:
    """After a word it is final."""
    server.play(start(), text("Bon"), named(error(kind)))

    said, failed = await failure(provider)

    assert (said, failed.code, failed.retryable) == ([Content("Bon")], code, retryable)


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([hang_up()], id="cut"),
        pytest.param([], id="no end"),
        pytest.param([Raw(b"event: message_delta\ndata: {\n\n")], id="half an object"),
        pytest.param([Raw(b"event: x\n"), event([1])], id="no object"),
        pytest.param([delta(0, type="text_delta", text=7)], id="a number as text"),
        pytest.param([*tool_use(1, "a", ""), *ending("tool_use")], id="a call of none"),
    ],
)
async def test_what_breaks_is_unavailable(
    server: AnthropicServer, provider: AnthropicProvider, steps: list[Raw]
) -> None:
    """With what was said before."""
    server.play(start(), text("Bon"), *steps)

    said, failed = await failure(provider)

    assert (said, failed.code) == ([Content("Bon")], "provider-unavailable")


async def test_a_server_that_falls_silent_is_left(server: AnthropicServer) -> None:
    """After silence_timeout, and the connection is closed."""
    server.play(start(), text("Bon"), pause())
    provider = AnthropicProvider(base_url=server.url, key=KEY, patience=Patience(silence=1))

    said, failed = await failure(provider)
    await provider.close()

    assert (said, failed.code) == ([Content("Bon")], "provider-unavailable")
    assert await server.requests[0].left()


async def test_cancelling_whoever_reads_closes_the_connection(
    server: AnthropicServer, provider: AnthropicProvider
) -> None:
    """Also while nothing has come yet."""
    server.play(pause())
    task = asyncio.create_task(pieces(provider))
    request = await server.asked()

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert await request.left()


async def test_the_key_is_never_shown(
    server: AnthropicServer, provider: AnthropicProvider, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither by a log at its most talkative, nor by an error, nor by what is printed."""
    caplog.set_level(logging.DEBUG)
    server.fail(400, "invalid_request_error", f"no {KEY}")
    server.say("ok")

    _, failed = await failure(provider)
    await pieces(provider)

    assert KEY not in f"{caplog.text}{failed!r}{failed}{provider!r}{provider}"


async def test_without_the_package_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The SDK is an extra, and missed only when it is needed."""
    for name in [one for one in sys.modules if one.split(".")[0] == "anthropic"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Hidden(), *sys.meta_path])

    _, failed = await failure(AnthropicProvider(key=KEY))

    assert failed.code == "provider-not-configured"
    assert "greffier[anthropic]" in failed.detail


class Hidden:
    """Finds no anthropic, as if it was not installed."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Refuse it; leave the rest to the others."""
        if name == "anthropic":
            raise ModuleNotFoundError(name, name=name)
