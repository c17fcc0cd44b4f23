"""Promise: whatever speaks OpenAI's chat completions answers piece by piece, or fails as told.

A scripted server on this machine, over real HTTP, and the official SDK on our side.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

import openai  # noqa: F401 - here and not within a test, some of which count seconds
import pytest

from greffier.agents.providers.openai import OpenAIProvider
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
from helpers.openai_server import (
    OpenAIServer,
    Raw,
    Step,
    call,
    chunk,
    delta,
    done,
    event,
    finish,
    hang_up,
    openai_server,
    pause,
    saying,
    think,
    usage,
)

KEY = "sk-test-4f9c2b7a1e6d8f3c5b0a"
ASK = Ask("test", "Be brief.", [{"role": "user", "content": "Bonjour"}])
WEATHER = ToolSpec("weather", "The weather of a city.", {"type": "object", "properties": {}})
USED = Used(11, 7)


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    """A service that says what it is told to."""
    with openai_server() as running:
        yield running


class Pauses:
    """Waits that are noted instead of waited for."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        """Note one."""
        self.seconds.append(seconds)


@pytest.fixture
def pauses() -> Pauses:
    """The waits between tries."""
    return Pauses()


@pytest.fixture
async def provider(server: OpenAIServer, pauses: Pauses) -> AsyncIterator[OpenAIProvider]:
    """The provider that is tested."""
    made = OpenAIProvider(base_url=server.url, key=KEY, sleep=pauses)
    yield made
    await made.close()


async def pieces(provider: OpenAIProvider, ask: Ask = ASK) -> list[Piece]:
    """A whole answer."""
    return [piece async for piece in provider.answer(ask)]


async def failure(provider: OpenAIProvider, ask: Ask = ASK) -> tuple[list[Piece], ProviderError]:
    """What was said before it failed, and how it did."""
    said: list[Piece] = []
    try:
        async for piece in provider.answer(ask):
            said.append(piece)  # noqa: PERF401 - it counts when it fails
    except ProviderError as error:
        return said, error
    raise AssertionError(f"it did not fail, and said {said}")


# -- what is said ----------------------------------------------------------------------------------


async def test_an_answer_comes_word_by_word(server: OpenAIServer, provider: OpenAIProvider) -> None:
    """As the model says it, then what it used and how it ended."""
    server.say("Bon", "jour", " !")

    assert await pieces(provider) == [
        Content("Bon"),
        Content("jour"),
        Content(" !"),
        USED,
        Finished("stop"),
    ]


async def test_the_request_says_what_the_agent_is(
    server: OpenAIServer, provider: OpenAIProvider
) -> None:
    """Instructions first, its parameters beside ours and never in their place, and the key."""
    server.say("ok")
    params = {"temperature": 0.2, "seed": 7, "stream": False, "model": "other", "n": 3}

    await pieces(provider, Ask("test", "Be brief.", ASK.messages, [WEATHER], params))

    (request,) = server.requests
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.body == {
        "temperature": 0.2,
        "seed": 7,
        "model": "test",
        "messages": [{"role": "system", "content": "Be brief."}, *ASK.messages],
        "stream": True,
        "stream_options": {"include_usage": True},
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "weather",
                    "description": "The weather of a city.",
                    "parameters": {"type": "object", "properties": {}},
                },
            }
        ],
    }


async def test_a_choice_of_tools_is_not_sent_without_tools(
    server: OpenAIServer, provider: OpenAIProvider
) -> None:
    """A service would refuse it, and an agent's last step has none."""
    server.say("ok")

    await pieces(provider, Ask("test", None, ASK.messages, (), {"tool_choice": "required"}))

    assert "tool_choice" not in server.requests[0].body


async def test_a_server_that_asks_for_nothing_is_sent_nothing(
    server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment's key and names for OpenAI stay here when another server is asked."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-somebody-else")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-somebody-else")
    server.say("ok")
    provider = OpenAIProvider(base_url=server.url)

    await pieces(provider)
    await provider.close()

    assert "authorization" not in server.requests[0].headers
    assert "somebody" not in str(server.requests[0].headers)


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
async def test_reasoning_is_told_apart(
    server: OpenAIServer, provider: OpenAIProvider, name: str
) -> None:
    """DeepSeek and xAI call it one thing, vLLM and Ollama another, and some send both."""
    server.say(
        delta(**{name: "Hm"}),
        delta(reasoning="m.", reasoning_content="m."),
        delta(reasoning={"its": "own"}),
        "Oui",
    )

    assert (await pieces(provider))[:3] == [Reasoning("Hm"), Reasoning("m."), Content("Oui")]


async def test_reasoning_in_parts_of_the_content(
    server: OpenAIServer, provider: OpenAIProvider
) -> None:
    """As Mistral writes it."""
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}
    server.say(delta(content=[thinking, {"type": "text", "text": "Oui"}]), ".")

    assert (await pieces(provider))[:3] == [Reasoning("Hm"), Content("Oui"), Content(".")]


async def test_a_refusal_is_said_and_ends_as_one(
    server: OpenAIServer, provider: OpenAIProvider
) -> None:
    """The person reads why; whoever counts sees that it was filtered."""
    server.say(delta(refusal="I can't"), delta(refusal=" help."), reason="stop")

    assert await pieces(provider) == [
        Content("I can't"),
        Content(" help."),
        USED,
        Finished("content_filter"),
    ]


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("model_length", "length"),
        ("content_filter", "content_filter"),
        ("eos_token", "stop"),
        ("tool_calls", "stop"),
    ],
)
async def test_every_end_has_a_reason(
    server: OpenAIServer, provider: OpenAIProvider, said: str, meant: str
) -> None:
    """One of four, whatever a server calls it; no tool is waited for that nobody called."""
    server.say("ok", reason=said)

    assert (await pieces(provider))[-1] == Finished(meant)  # type: ignore[arg-type]


# -- tools -----------------------------------------------------------------------------------------


def part(index: int | None = None, **fields: Any) -> dict[str, Any]:
    """A piece of a tool call; what is not given is not there."""
    function = {key: fields.pop(key) for key in ("name", "arguments") if key in fields}
    return {**({} if index is None else {"index": index}), **fields, "function": function}


def deltas(*pieces: dict[str, Any]) -> list[Raw]:
    """A chunk for each piece."""
    return [delta(tool_calls=[piece]) for piece in pieces]


ONE = ToolCall("c1", "weather", '{"city": "Lyon"}')
TWO = ToolCall("c2", "weather", '{"city": "Nice"}')


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param(
            deltas(
                part(0, id="c1", type="function", name="weather", arguments=""),
                part(0, arguments='{"city"'),
                part(0, arguments=': "Lyon"}'),
                part(1, id="c2", type="function", name="weather", arguments=""),
                part(1, arguments='{"city": "Nice"}'),
            ),
            id="by the rules",
        ),
        pytest.param(
            deltas(
                part(0, id="c1", name="weather"),
                part(1, id="c2", name="weather"),
                part(1, arguments='{"city": '),
                part(0, arguments='{"city": "Ly'),
                part(1, arguments='"Nice"}'),
                part(0, arguments='on"}'),
            ),
            id="in turns",
        ),
        pytest.param(
            [
                delta(
                    tool_calls=[
                        part(0, id="c1", name="weather", arguments='{"city": "Lyon"}'),
                        part(1, id="c2", name="weather", arguments='{"city": "Nice"}'),
                    ]
                )
            ],
            id="in one chunk",
        ),
        pytest.param(
            deltas(
                part(0, id="c1", name="weather", arguments='{"city": "Lyon"}'),
                part(0, id="c2", name="weather", arguments='{"city": "Nice"}'),
            ),
            id="all numbered 0",
        ),
        pytest.param(
            deltas(
                part(None, id="c1", name="weather", arguments='{"city": '),
                part(None, arguments='"Lyon"}'),
                part(None, id="c2", name="weather", arguments='{"city": "Nice"}'),
            ),
            id="not numbered",
        ),
        pytest.param(
            deltas(
                part(0, id="c1", name="weather", arguments='{"city": '),
                part(0, id="c1", name="weather", arguments='"Lyon"}'),
                part(1, id="c2", name="weather", arguments='{"city": "Nice"}'),
            ),
            id="id and name again",
        ),
        pytest.param(
            deltas(
                part(0, id="c1", name="weather", arguments={"city": "Lyon"}),
                part(1, id="c2", name="weather", arguments={"city": "Nice"}),
            ),
            id="as objects",
        ),
    ],
)
async def test_parallel_calls_come_whole_and_in_order(
    server: OpenAIServer, provider: OpenAIProvider, steps: list[Raw]
) -> None:
    """However a server cuts and numbers them."""
    server.say("One moment.", *steps)

    assert await pieces(provider, Ask("test", None, ASK.messages, [WEATHER])) == [
        Content("One moment."),
        USED,
        ONE,
        TWO,
        Finished("tool_calls"),
    ]


async def test_arguments_may_be_cut_anywhere(
    server: OpenAIServer, provider: OpenAIProvider
) -> None:
    """Also in the middle of an escape, and between the halves of an emoji's."""
    arguments = json.dumps({"say": 'a"\\\n😀', "n": [1, 2]})
    first, rest = arguments[0], arguments[1:]
    server.say(*deltas(part(0, id="c1", name="t", arguments=first)),
               *deltas(*(part(0, arguments=char) for char in rest)))  # fmt: skip

    (called,) = [one for one in await pieces(provider) if isinstance(one, ToolCall)]

    assert called == ToolCall("c1", "t", arguments)


async def test_calls_without_ids_get_their_own(
    server: OpenAIServer, provider: OpenAIProvider
) -> None:
    """So that each result finds its call; ids given twice are told apart."""
    server.say(
        *deltas(
            part(0, name="weather", arguments='{"city": "Lyon"}'),
            part(0, name="weather", arguments='{"city": "Nice"}'),
            part(1, id="x", name="time", arguments=""),
            part(2, id="x", name="time", arguments=""),
        )
    )

    calls = [one for one in await pieces(provider) if isinstance(one, ToolCall)]

    assert [(one.name, one.arguments) for one in calls] == [
        ("weather", '{"city": "Lyon"}'),
        ("weather", '{"city": "Nice"}'),
        ("time", "{}"),
        ("time", "{}"),
    ]
    assert all(one.id for one in calls)
    assert len({one.id for one in calls}) == 4


async def test_an_id_that_no_result_could_name_is_shortened(
    server: OpenAIServer, provider: OpenAIProvider
) -> None:
    """Some services put what they want to remember into it; two stay two."""
    server.say(*(call("é" * 200 + str(n), "weather", "{}", index=n) for n in range(2)))

    first, second = [one.id for one in await pieces(provider) if isinstance(one, ToolCall)]

    assert first != second
    assert max(len(first), len(second)) < 200


async def test_calls_cut_by_the_length_are_not_given(
    server: OpenAIServer, provider: OpenAIProvider
) -> None:
    """Half the arguments would call something else than was meant."""
    server.say(
        call("c1", "weather", '{"city": "Lyon"}'),
        call("c2", "weather", '{"city": "Ni', index=1),
        reason="length",
    )

    assert (await pieces(provider))[1:] == [ONE, Finished("length")]


async def test_a_stop_with_calls_is_a_call(server: OpenAIServer, provider: OpenAIProvider) -> None:
    """Some servers say stop when they mean tool_calls."""
    server.say(call("c1", "weather", '{"city": "Lyon"}'), reason="stop")

    assert (await pieces(provider))[-2:] == [ONE, Finished("tool_calls")]


async def test_calls_without_end_are_refused(
    server: OpenAIServer, provider: OpenAIProvider
) -> None:
    """What is held in memory has a bound."""
    server.play(
        delta(tool_calls=[part(0, id="c1", name="t", arguments="{")]),
        *[delta(tool_calls=[part(0, arguments="x" * (1 << 18))]) for _ in range(5)],
    )

    said, error = await failure(provider)

    assert (said, error.code) == ([], "answer-too-long")


# -- text that can be kept -------------------------------------------------------------------------


async def test_an_emoji_cut_between_two_chunks_is_whole(
    server: OpenAIServer, provider: OpenAIProvider
) -> None:
    """A server may escape its halves and send them apart."""
    high, low = "\ud83d", "\ude00"
    server.say(f"a{high}", f"{low}b", think(high), think(low))

    said = await pieces(provider)

    assert "".join(one.text for one in said if isinstance(one, Content)) == "a😀b"
    assert "".join(one.text for one in said if isinstance(one, Reasoning)) == "😀"


async def test_what_cannot_be_kept_is_replaced(
    server: OpenAIServer, provider: OpenAIProvider
) -> None:
    """PostgreSQL holds neither a NUL nor half a pair; the place is seen."""
    server.say("a\x00b\udc00c\ud83d", call("c\x001", "t", "{}\ud83d"))

    said = await pieces(provider)

    assert "".join(one.text for one in said if isinstance(one, Content)) == "a�b�c�"
    assert [one for one in said if isinstance(one, ToolCall)] == [ToolCall("c�1", "t", "{}�")]


# -- usage -----------------------------------------------------------------------------------------

COUNTED = {"prompt_tokens": 10, "completion_tokens": 2}


@pytest.mark.parametrize(
    ("steps", "used"),
    [
        pytest.param(
            ["ok", finish(), usage(prompt_tokens_details={"cached_tokens": 4}), done()],
            [Used(11, 7, 4)],
            id="in a chunk of its own",
        ),
        pytest.param(["ok", finish(usage=COUNTED), done()], [Used(10, 2)], id="in the last chunk"),
        pytest.param(
            [
                chunk({"index": 0, "delta": {"content": "ok"}}, usage={**COUNTED}),
                finish(usage={**COUNTED, "completion_tokens": 3}),
                usage(**COUNTED, completion_tokens_details=None),
                done(),
            ],
            [Used(10, 2), Used(10, 3), Used(10, 2)],
            id="in every chunk",
        ),
        pytest.param(
            ["ok", chunk({"index": 0, "delta": {}, "finish_reason": "stop", "usage": COUNTED}),
             done()],
            [Used(10, 2)],
            id="in the choice",
        ),
        pytest.param(["ok", finish(x_groq={"usage": COUNTED}), done()], [Used(10, 2)], id="x_groq"),
        pytest.param(
            ["ok", finish(usage={**COUNTED, "prompt_cache_hit_tokens": 8}), done()],
            [Used(10, 2, 8)],
            id="the cache as DeepSeek tells it",
        ),
        pytest.param(["ok", finish(), done()], [], id="never"),
        pytest.param(["ok", finish(usage=None), done()], [], id="null"),
        pytest.param(["ok", finish(), hang_up()], [], id="cut before it"),
    ],
)  # fmt: skip
async def test_usage_is_what_the_provider_says(
    server: OpenAIServer, provider: OpenAIProvider, steps: list[Any], used: list[Used]
) -> None:
    """Wherever it says it; without its word there is none, and the answer is whole all the same."""
    server.play(*steps)

    said = await pieces(provider)

    assert [one for one in said if isinstance(one, Used)] == used
    assert [one for one in said if not isinstance(one, Used)] == [Content("ok"), Finished("stop")]


async def test_a_server_that_will_not_be_asked_for_usage_is_not(
    server: OpenAIServer, provider: OpenAIProvider, pauses: Pauses
) -> None:
    """It is asked again at once, and from then on without."""
    server.fail(422, body={"detail": [{"type": "extra_forbidden", "loc": ["body", "stream_options"],
                                       "msg": "Extra inputs are not permitted"}]})  # fmt: skip
    server.say("ok")
    server.say("ok")

    await pieces(provider)
    await pieces(provider)

    assert ["stream_options" in one.body for one in server.requests] == [True, False, False]
    assert pauses.seconds == []


# -- trying again ----------------------------------------------------------------------------------


async def test_it_waits_as_long_as_it_is_asked_to(
    server: OpenAIServer, provider: OpenAIProvider, pauses: Pauses
) -> None:
    """429 with Retry-After, then the answer."""
    server.fail(429, "slow down", headers={"retry-after": "3"})
    server.say("ok")

    assert (await pieces(provider))[0] == Content("ok")
    (waited,) = pauses.seconds
    assert 3 <= waited < 4


async def test_a_limit_that_stays_is_told(
    server: OpenAIServer, provider: OpenAIProvider, pauses: Pauses
) -> None:
    """After as many tries as the settings allow, with the wait that was asked for last."""
    for seconds in ("1", "1", "7"):
        server.fail(429, "slow down", headers={"retry-after": seconds})

    said, error = await failure(provider)

    assert (said, error.code, error.retry_after, error.retryable) == (
        [],
        "provider-rate-limited",
        7,
        True,
    )
    assert len(server.requests) == 3
    assert len(pauses.seconds) == 2


async def test_a_wait_that_is_too_long_is_not_waited(
    server: OpenAIServer, provider: OpenAIProvider, pauses: Pauses
) -> None:
    """Nor asked into: whoever started the run may come back."""
    server.fail(429, "slow down", headers={"retry-after": "3600"})

    _, error = await failure(provider)

    assert (error.retry_after, pauses.seconds) == (3600, [])


@pytest.mark.parametrize(
    "told",
    [
        {"message": "Limit reached", "code": "rate_limit_exceeded", "type": "tokens"},
        {"message": "Quota exceeded, check your plan and billing details", "code": 429},
    ],
)
async def test_a_limit_may_be_told_within_the_stream(
    server: OpenAIServer, provider: OpenAIProvider, told: dict[str, Any]
) -> None:
    """Before the first word it is waited for like any other."""
    server.play(event({"error": told}))
    server.say("ok")

    assert (await pieces(provider))[0] == Content("ok")


async def test_an_empty_account_is_not_asked_again(
    server: OpenAIServer, provider: OpenAIProvider
) -> None:
    """OpenAI says it with the status of a limit."""
    server.fail(429, "You exceeded your current quota", code="insufficient_quota")

    _, error = await failure(provider)

    assert (error.code, error.retryable) == ("provider-refused", False)


@pytest.mark.parametrize("status", [500, 502, 503, 408, 409])
async def test_a_server_in_trouble_is_asked_again(
    server: OpenAIServer, provider: OpenAIProvider, pauses: Pauses, status: int
) -> None:
    """As long as it has said nothing; each wait is longer, and no two are the same."""
    server.fail(status, "oh")
    server.fail(status, body="<html>Bad gateway</html>")
    server.say("ok")

    assert (await pieces(provider))[0] == Content("ok")
    first, second = pauses.seconds
    assert 0.25 <= first <= 0.5 <= second <= 1


async def test_what_breaks_before_the_first_word_is_asked_again(
    server: OpenAIServer, provider: OpenAIProvider
) -> None:
    """Also in the middle of a tool call, of which nobody has seen anything."""
    server.play(delta(role="assistant", content=""), hang_up())
    server.play(delta(tool_calls=[part(0, id="c1", name="t", arguments="{")]), hang_up())
    server.say("ok")

    assert (await pieces(provider))[0] == Content("ok")


async def test_nothing_is_asked_again_after_a_word(
    server: OpenAIServer, provider: OpenAIProvider
) -> None:
    """Somebody has read it: another beginning would be another answer."""
    server.play("Bon", hang_up())

    said, error = await failure(provider)

    assert (said, error.code) == ([Content("Bon")], "provider-unavailable")
    assert len(server.requests) == 1


async def test_usage_of_failed_tries_is_counted(
    server: OpenAIServer, provider: OpenAIProvider
) -> None:
    """It was paid for."""
    server.play(chunk(usage=COUNTED), hang_up())
    server.say("ok")

    assert [one for one in await pieces(provider) if isinstance(one, Used)] == [
        Used(10, 2),
        Used(21, 9),
    ]


async def test_a_server_that_is_not_there(pauses: Pauses) -> None:
    """Nothing listens: unavailable, after all tries."""
    with openai_server() as gone:
        url = gone.url
    provider = OpenAIProvider(base_url=url, key=KEY, sleep=pauses)

    said, error = await failure(provider)
    await provider.close()

    assert (said, error.code, error.retryable) == ([], "provider-unavailable", True)
    assert len(pauses.seconds) == 2


# -- failing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([event('{"choices": [{"delta": {"con')], id="half an object"),
        pytest.param([event('["chunk"]')], id="no object"),
        pytest.param([event('{"choices": {"delta": 1}}')], id="choices that are no list"),
        pytest.param([event('{"choices": [7]}')], id="a choice that is none"),
        pytest.param([delta(content=7)], id="a number as text"),
        pytest.param([delta(tool_calls=[7])], id="a call that is none"),
        pytest.param([delta(tool_calls=[{"index": 0, "id": "c"}]), finish()], id="a call of none"),
        pytest.param([Raw(b"data: \xff\xfe\n\n")], id="no UTF-8"),
        pytest.param([event("[" * 100_000)], id="nested without end"),
        pytest.param([done()], id="the end without an end"),
        pytest.param([chunk({"index": 0, "delta": {}, "finish_reason": "error"})], id="an error"),
        pytest.param([event({"error": {"message": "CUDA error", "code": 500}})], id="told inside"),
        pytest.param([event({"error": "boom"})], id="told in a word"),
    ],
)
async def test_what_makes_no_sense_is_unavailable(
    server: OpenAIServer, provider: OpenAIProvider, steps: list[Any]
) -> None:
    """Before the first word it is asked again, after it what was said stays."""
    server.play(*steps)
    server.play("Bon", *steps)

    said, error = await failure(provider)

    assert (said, error.code, error.retryable) == ([Content("Bon")], "provider-unavailable", True)
    assert len(server.requests) == 2
    assert "CUDA" not in error.detail


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, {"error": {"message": "This model's maximum context length is 8192 tokens. However, "
                         "your messages resulted in 9001 tokens.", "type": "invalid_request_error",
                         "param": "messages", "code": "context_length_exceeded"}}),
        (400, {"object": "error", "message": "This model's maximum context length is 4096 tokens. "
               "However, you requested 5000 tokens", "type": "BadRequestError", "code": 400}),
        (400, {"error": "prompt too long; exceeded max context length by 17 tokens (ref: 1)"}),
        (400, {"error": {"code": 400, "type": "exceed_context_size_error", "message": "request "
                         "(9412 tokens) exceeds the available context size (8192 tokens)"}}),
        (400, {"code": "invalid-argument", "error": "This model's maximum prompt length is 131072 "
               "but the request contains 537812 tokens."}),
        (400, {"object": "error", "message": "Prompt contains 40000 tokens and 0 draft tokens, too "
               "large for model with 32768 maximum context length", "code": "3051"}),
        (500, {"error": {"message": "the input length exceeds the context length"}}),
        (413, "too large"),
    ],
    ids=["openai", "vllm", "ollama", "llama.cpp", "xai", "mistral", "ollama 500", "413"],
)  # fmt: skip
async def test_a_conversation_that_is_too_long_is_told_as_such(
    server: OpenAIServer, provider: OpenAIProvider, status: int, body: Any
) -> None:
    """Each server says it in its own words; asking again would change nothing."""
    server.fail(status, body=body)

    _, error = await failure(provider)

    assert (error.code, error.retryable) == ("context-too-long", False)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (401, "The provider does not accept the key."),
        (403, "The provider forbids this: to the key, or to everybody."),
    ],
)
async def test_a_key_that_is_not_accepted(
    server: OpenAIServer, provider: OpenAIProvider, status: int, told: str
) -> None:
    """Refused, without the provider's words: they hold pieces of the key."""
    server.fail(status, f"Incorrect API key provided: {KEY[:8]}***. Find yours at …")

    _, error = await failure(provider)

    assert (error.code, error.detail, error.retryable) == ("provider-refused", told, False)


async def test_other_refusals_say_what_to_mend(
    server: OpenAIServer, provider: OpenAIProvider
) -> None:
    """One short line of the provider's words, without what looks like a secret."""
    server.fail(404, f"The model `gpt-9`\x1b[31m does\nnot exist for org-Ab12Cd34Ef, key {KEY}")
    server.fail(400, "x " * 10_000)
    server.fail(307, "elsewhere", headers={"location": "http://127.0.0.1:9/"})

    _, error = await failure(provider)
    _, long = await failure(provider)
    _, moved = await failure(provider)

    assert (error.code, error.retryable) == ("provider-refused", False)
    assert error.detail.startswith("The provider answered 404: The model `gpt-9` [31m does not")
    assert "org-" not in error.detail
    assert KEY not in error.detail
    assert len(long.detail) < 260
    assert moved.code == "provider-refused"


# -- time ------------------------------------------------------------------------------------------


async def test_a_server_that_does_not_begin_is_left(server: OpenAIServer, pauses: Pauses) -> None:
    """After first_token_timeout, whatever it sends that is no word; and is asked again."""
    server.play(delta(role="assistant", content=""), pause())
    server.play(pause())
    provider = OpenAIProvider(
        base_url=server.url, patience=Patience(first=1, tries=2), sleep=pauses
    )

    said, error = await failure(provider)
    await provider.close()

    assert (said, error.code) == ([], "provider-unavailable")
    assert error.detail == "The provider did not begin to answer for 1 s."
    assert [await one.left() for one in server.requests] == [True, True]


async def test_a_server_that_falls_silent_is_left(server: OpenAIServer) -> None:
    """After silence_timeout, with what it had said."""
    server.play("Bon", pause())
    provider = OpenAIProvider(base_url=server.url, patience=Patience(silence=1))

    said, error = await failure(provider)
    await provider.close()

    assert (said, error.code) == ([Content("Bon")], "provider-unavailable")
    assert error.detail == "The provider stopped in the middle for 1 s."
    assert await server.requests[0].left()


async def test_an_answer_without_end_is_left(server: OpenAIServer) -> None:
    """After timeout, however busily it talks."""
    steps: list[Step] = ["word ", pause(0.02)]
    server.play(*steps * 1000)
    provider = OpenAIProvider(base_url=server.url, patience=Patience(whole=2))

    said, error = await failure(provider)
    await provider.close()

    assert said
    assert (error.code, error.detail) == (
        "provider-unavailable",
        "The answer was not whole after 2 s.",
    )


async def test_a_whole_answer_is_not_held_up_by_what_may_follow(server: OpenAIServer) -> None:
    """A server that keeps its connection open after the end takes nothing from the answer."""
    server.play("ok", finish(), pause())
    provider = OpenAIProvider(base_url=server.url, patience=Patience(silence=1))

    assert await pieces(provider) == [Content("ok"), Finished("stop")]
    await provider.close()


# -- leaving ---------------------------------------------------------------------------------------


async def test_closing_an_answer_closes_the_connection(
    server: OpenAIServer, provider: OpenAIProvider
) -> None:
    """Nobody pays for words that nobody hears."""
    server.play("Bon", pause())

    async with aclosing(provider.answer(ASK)) as answer:
        assert await anext(answer) == Content("Bon")

    assert await server.requests[0].left()


async def test_cancelling_whoever_reads_closes_the_connection(
    server: OpenAIServer, provider: OpenAIProvider
) -> None:
    """Also while nothing has come yet."""
    server.play(pause())
    task = asyncio.create_task(pieces(provider))
    request = await server.asked()

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert await request.left()


async def test_many_answers_at_once(server: OpenAIServer, provider: OpenAIProvider) -> None:
    """Each gets its own."""
    server.always(lambda body: saying(*body["messages"][-1]["content"]))

    async def ask(number: int) -> str:
        said = await pieces(
            provider, Ask("test", None, [{"role": "user", "content": f"{number}!"}])
        )
        return "".join(one.text for one in said if isinstance(one, Content))

    assert await asyncio.gather(*map(ask, range(30))) == [f"{n}!" for n in range(30)]


# -- secrets ---------------------------------------------------------------------------------------


async def test_the_key_is_never_shown(
    server: OpenAIServer, provider: OpenAIProvider, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither by a log at its most talkative, nor by an error, nor by what is printed."""
    caplog.set_level(logging.DEBUG)
    server.fail(400, f"Bearer {KEY} is not a header of {KEY}")
    server.play(
        "Bon", event({"error": {"message": f"lost {KEY}", "type": "invalid_request_error"}})
    )
    server.say("ok")

    _, refused = await failure(provider)
    _, broken = await failure(provider)
    await pieces(provider)

    shown = f"{caplog.text}{refused!r}{refused}{broken!r}{broken}{provider!r}{provider}"
    assert KEY not in shown
    assert broken.code == "provider-refused"
    assert refused.__cause__ is None
