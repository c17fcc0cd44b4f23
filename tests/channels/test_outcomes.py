"""Promise: whatever a far side does, a channel answers with one of four outcomes, and in time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from greffier.deliver.channels import Channel, Channels, Result, Target
from greffier.deliver.channels.email import Email
from greffier.deliver.channels.signatures import new_secret
from greffier.deliver.channels.telegram import Telegram
from greffier.deliver.channels.webhook import Webhook
from helpers.outgoing import outgoing
from helpers.receivers import Line, serving

OUTCOMES = {"accepted", "rejected", "not_sent", "uncertain"}
SECONDS = 0.1

_lines = some.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 204\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\n\r\n",
        b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 999 \xe9\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"Content-Length: 5\r\n\r\n",
        b"Content-Length: -1\r\n\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n",
        b"Content-Encoding: gzip\r\n",
        b"Retry-After: Wed, 99 Foo 2026 99:99:99 GMT\r\n",
        b"ffffffffffffffff\r\n",
        b"\r\n",
        b'{"ok":true,"result":{"message_id":1}}',
        b'{"ok":false,"parameters":{"retry_after":-1e308}}',
        b"220 hello\r\n",
        b"250-OK\r\n",
        b"250 OK\r\n",
        b"250 SIZE STARTTLS 8BITMIME AUTH\r\n",
        b"354 go on\r\n",
        b"421 bye\r\n",
        b"550 no\r\n",
        b"-1 x\r\n",
    ]
)
#: What one far side says, each piece after something was said to it, and how it ends.
_pieces = some.lists(some.one_of(_lines, some.binary(max_size=200)), max_size=7)
_ends = some.sampled_from([Line.hang_up, Line.reset, None])


def channels(port: int) -> list[tuple[Channel, Target]]:
    """Each of ours, with a target at a port of this machine."""
    return [
        (Webhook(allow_private=True),
         Target("webhook", f"http://127.0.0.1:{port}/", (new_secret(),))),
        (Telegram(api=f"http://127.0.0.1:{port}"),
         Target("telegram", "42", ("123456:" + "x" * 30,))),
        (Email(f"smtp://127.0.0.1:{port}", "bot@example.org"), Target("email", "a@example.net")),
    ]  # fmt: skip


@pytest.mark.parametrize("which", [0, 1, 2], ids=["webhook", "telegram", "email"])
@given(pieces=_pieces, end=_ends, first=some.booleans())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
async def test_a_far_side_can_cause_nothing_but_an_outcome(
    which: int, pieces: list[bytes], end: Callable[[Line], None] | None, first: bool
) -> None:
    """No failure of ours, whatever it says, whether spoken to or not, and however it ends."""
    rest = list(pieces)

    async def behave(line: Line) -> None:
        if first and rest:
            await line.say(rest.pop(0))
        while rest:
            if await line.reader.read(1 << 16) == b"":
                return
            await line.say(rest.pop(0))
        if end is None:
            await asyncio.Event().wait()
        else:
            end(line)

    async with serving(behave) as server:
        made = channels(server.port)
        channel, target = made[which]
        async with asyncio.timeout(30):
            result = await channel.send(target, outgoing(), timeout=SECONDS)
        await Channels(one for one, _ in made).close()

    assert result.outcome in OUTCOMES
    assert result.detail.isprintable()
    assert result.retry_after is None or 0 <= result.retry_after < 1e8
    # Nobody says yes by accident.
    assert result.outcome != "accepted" or any(b"2" in piece for piece in pieces)


@given(some.text())
def test_what_a_far_side_says_of_itself_is_one_short_line(text: str) -> None:
    """It ends in logs, on terminals and in pages."""
    detail = Result("rejected", text * 3).detail

    assert "\n" not in detail
    assert "\x1b" not in detail
    assert len(detail) <= 300


async def test_a_cancelled_try_is_cancelled() -> None:
    """A worker that is told to stop is not held up; what became of the message nobody knows."""
    reached = asyncio.Event()

    async def mute(_line: Line) -> None:
        reached.set()
        await asyncio.Event().wait()

    async with serving(mute) as server:
        made = channels(server.port)
        for channel, target in made:
            reached.clear()
            task = asyncio.create_task(channel.send(target, outgoing(), timeout=20))
            await reached.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await Channels(one for one, _ in made).close()
