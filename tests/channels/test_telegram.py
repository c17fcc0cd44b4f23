"""Promise: what Telegram may have is never sent again by itself; what it surely has not, is."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from greffier.deliver.channels import Target
from greffier.deliver.channels.telegram import Telegram
from greffier.deliver.channels.text import cut, units
from helpers.outgoing import outgoing
from helpers.receivers import Line, Server, Web, free_port, read_request, response, serving

TOKEN = "123456:AAbbCCddEEffGGhhIIjjKKllMMnnOOppQQ"
LONG, MOMENT = 20.0, 0.2


def taken(number: int) -> bytes:
    """What the Bot API answers when it has taken a message."""
    chat = {"id": -100, "type": "group"}
    result = {"message_id": number, "date": 1772366400, "chat": chat, "text": "…"}
    return response(200, json.dumps({"ok": True, "result": result}).encode())


def refused(code: int, description: str, **parameters: Any) -> bytes:
    """What it answers when it has not."""
    body: dict[str, Any] = {"ok": False, "error_code": code, "description": description}
    if parameters:
        body["parameters"] = parameters
    return response(code, json.dumps(body).encode())


@contextlib.asynccontextmanager
async def telegram(server: Server) -> AsyncIterator[Telegram]:
    """The channel, with a double of the Bot API."""
    channel = Telegram(api=f"http://{server.host}")
    try:
        yield channel
    finally:
        await channel.close()


def chat(address: str = "-1001234567890", *secrets: str) -> Target:
    """A chat."""
    return Target("telegram", address, secrets or (TOKEN,))


async def test_a_message_is_sent_as_plain_text() -> None:
    """What looks like markup is shown as it was written."""
    web = Web(taken(41))
    async with serving(web) as server, telegram(server) as channel:
        result = await channel.send(chat(), outgoing("*été* <b>naïf</b> _3 €_ 👩‍💻"), timeout=LONG)

    (request,) = web.requests
    assert request.path == f"/bot{TOKEN}/sendMessage"
    assert json.loads(request.body) == {
        "chat_id": "-1001234567890",
        "text": "*été* <b>naïf</b> _3 €_ 👩‍💻",
    }
    assert (result.outcome, result.external_id) == ("accepted", "41")


@pytest.mark.parametrize(
    ("answer", "hints"),
    [
        (refused(400, "Bad Request: chat not found"), (400, None, False, False)),
        (refused(401, "Unauthorized"), (401, None, False, False)),
        (refused(403, "Forbidden: bot was blocked by the user"), (403, None, False, True)),
        (refused(429, "Too Many Requests", retry_after=7), (429, 7.0, True, False)),
        (
            refused(400, "Bad Request: group chat was upgraded", migrate_to_chat_id=-1009),
            (400, None, False, False),
        ),
    ],
)
async def test_a_refusal_is_told_with_what_to_do(answer: bytes, hints: tuple[Any, ...]) -> None:
    """429 is waited for as long as Telegram asks; who blocked the bot gets no more of it."""
    async with serving(Web(answer)) as server, telegram(server) as channel:
        result = await channel.send(chat(), outgoing(), timeout=LONG)

    assert result.outcome == "rejected"
    assert (result.status, result.retry_after, result.retryable, result.disable) == hints
    assert TOKEN not in repr(result)


@pytest.mark.parametrize(
    "answer",
    [
        refused(500, "Internal Server Error"),
        response(502, b"<html>Bad Gateway</html>"),
        response(200, b"<html>Welcome to this hotel's network</html>"),
        response(200, b'{"ok":true}'),
        response(400, b'{"ok":tr'),
        response(400, b"\xff\xfe"),
        response(302, b"", location="https://elsewhere.example/"),
    ],
)
async def test_what_is_neither_yes_nor_no_is_uncertain(answer: bytes) -> None:
    """A gateway that fails may have passed it on before; only Telegram's own word counts."""
    async with serving(Web(answer)) as server, telegram(server) as channel:
        assert (await channel.send(chat(), outgoing(), timeout=LONG)).outcome == "uncertain"


async def test_silence_after_the_request_is_uncertain_and_before_it_is_not() -> None:
    """A port that refuses has nothing; a connection that breaks may."""

    async def drops(line: Line) -> None:
        await read_request(line)
        line.reset()

    async with serving(drops) as server, telegram(server) as channel:
        assert (await channel.send(chat(), outgoing(), timeout=LONG)).outcome == "uncertain"
    nobody = Telegram(api=f"http://127.0.0.1:{free_port()}")
    result = await nobody.send(chat(), outgoing(), timeout=LONG)
    await nobody.close()
    assert (result.outcome, result.retryable) == ("not_sent", True)
    assert TOKEN not in repr(result)


async def test_the_default_after_uncertain_is_to_park() -> None:
    """Telegram can neither tell a double nor be asked."""
    assert (Telegram.default_on_uncertain, Telegram.idempotent) == ("park", False)


# -- long texts ------------------------------------------------------------------------------------


async def test_a_long_text_goes_in_order_in_several_messages() -> None:
    """Each at most as long as Telegram takes, nothing lost."""
    text = "\n\n".join(f"{number}. " + "mot " * 300 for number in range(12))
    web = Web(*(taken(number) for number in range(1, 9)))
    async with serving(web) as server, telegram(server) as channel:
        result = await channel.send(chat(), outgoing(text), timeout=LONG)

    parts = [json.loads(request.body)["text"] for request in web.requests]
    assert len(parts) > 1
    assert "".join("".join(parts).split()) == "".join(text.split())
    assert all(units(part) <= 4096 for part in parts)
    assert result.external_id == ",".join(str(number + 1) for number in range(len(parts)))


@pytest.mark.parametrize(
    ("second", "detail"),
    [
        (refused(400, "Bad Request"), "400"),
        (refused(429, "Too Many Requests", retry_after=600), "429"),
        (response(500), "500"),
    ],
)
async def test_a_text_that_was_broken_off_is_uncertain(second: bytes, detail: str) -> None:
    """Sent again, its beginning would be double; how far it came is said."""
    async with serving(Web(taken(1), second)) as server, telegram(server) as channel:
        result = await channel.send(chat(), outgoing("x" * 5000), timeout=LONG)

    assert (result.outcome, result.external_id) == ("uncertain", "1")
    assert result.detail.startswith("1 of 2 parts were taken, then: ")
    assert detail in result.detail


async def test_a_first_part_that_was_refused_is_no_beginning() -> None:
    """Nothing was taken, so it is as if it were one."""
    answer = refused(429, "Too Many Requests", retry_after=1)
    async with serving(Web(answer)) as server, telegram(server) as channel:
        result = await channel.send(chat(), outgoing("x" * 5000), timeout=LONG)

    assert (result.outcome, result.retry_after) == ("rejected", 1.0)


async def test_a_wait_between_two_parts_is_waited_when_there_is_time() -> None:
    """A person's decision is dearer than a moment."""
    pause = refused(429, "Too Many Requests", retry_after=0.01)
    web = Web(taken(1), pause, taken(2))
    async with serving(web) as server, telegram(server) as channel:
        result = await channel.send(chat(), outgoing("x" * 5000), timeout=LONG)

    assert (result.outcome, result.external_id, len(web.requests)) == ("accepted", "1,2", 3)


async def test_a_text_for_more_messages_than_a_chat_bears_is_not_begun() -> None:
    """It would break off somewhere; nothing of it is sent, and nobody is kept waiting for it."""
    web = Web(taken(1))
    async with serving(web) as server, telegram(server) as channel:
        result = await channel.send(chat(), outgoing("x" * 50_000), timeout=LONG)

    assert (result.outcome, result.retryable, web.requests) == ("not_sent", False, [])


@given(some.text(some.sampled_from("aé 👩‍💻\u0301\n"), max_size=200), some.integers(4, 40))
def test_a_text_is_cut_into_pieces_that_fit_and_loses_nothing_but_blanks(
    text: str, longest: int
) -> None:
    """Whatever it is made of; no piece is empty."""
    pieces = cut(text, longest)

    assert all(piece.strip() and units(piece) <= longest for piece in pieces)
    assert "".join("".join(pieces).split()) == "".join(text.split())


def test_a_cut_parts_nothing_that_belongs_together() -> None:
    """An accent stays with its letter, a family with its members; a line goes before a word."""
    assert cut("aaaa" + "e\u0301", 5) == ["aaaa", "e\u0301"]
    assert cut("aa👩\u200d💻", 6) == ["aa", "👩\u200d💻"]
    assert cut("alpha\nbe gamma", 10) == ["alpha", "be gamma"]


# -- what is not sent ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "secrets", "pointers"),
    [
        ("42", (TOKEN,), []),
        ("-1001234567890", (TOKEN,), []),
        ("@a_channel", (TOKEN,), []),
        ("https://t.me/x", (TOKEN,), ["/target"]),
        ("42\n", (TOKEN,), ["/target"]),
        ("42", (), ["/secret"]),
        ("42", ("123:x/../../y",), ["/secret"]),
        ("", ("whsec_AAAA",), ["/target", "/secret"]),
    ],
)
async def test_a_target_is_checked(
    address: str, secrets: tuple[str, ...], pointers: list[str]
) -> None:
    """A token cannot lead to another path of the API."""
    channel = Telegram(api=f"http://127.0.0.1:{free_port()}")
    problems = channel.check_target(Target("telegram", address, secrets))
    result = await channel.send(Target("telegram", address, secrets), outgoing(), timeout=LONG)
    await channel.close()

    assert [problem.pointer for problem in problems] == pointers
    assert result.outcome == "not_sent"
    assert result.retryable is (not pointers)


@pytest.mark.parametrize(
    ("message", "passed"),
    [
        (outgoing(None, tool_calls=[]), True),
        (outgoing("  \n"), True),
        (outgoing("42 °C", role="tool", tool_call_id="c"), True),
        (outgoing("Bonjour"), False),
        (outgoing(None, parts=[{"type": "image_url", "image_url": {"url": "https://x.example"}}]),
         False),
    ],
)  # fmt: skip
async def test_what_has_no_words_for_people_is_passed_over(message: Any, passed: bool) -> None:
    """Calls of tools and their results; a picture is an address to look at."""
    channel = Telegram()
    assert (channel.passes_over(message) is not None) is passed
    await channel.close()


async def test_several_messages_at_a_time_keep_apart() -> None:
    """One channel serves all endpoints of its kind."""
    web = Web(taken(1))
    async with serving(web) as server, telegram(server) as channel:
        results = await asyncio.gather(
            *(channel.send(chat(str(n)), outgoing(f"to {n}"), timeout=LONG) for n in range(20))
        )

    assert {result.outcome for result in results} == {"accepted"}
    assert {
        (one["chat_id"], one["text"]) for one in (json.loads(r.body) for r in web.requests)
    } == {(str(n), f"to {n}") for n in range(20)}
