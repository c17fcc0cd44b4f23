"""Telegram: messages of a bot into a chat, over the Bot API.

What can be promised: Telegram takes no key by which it could tell a double, and cannot be asked
whether it has a message.  So what is uncertain is parked for a person, unless an endpoint prefers
a double to a wait.  Tried again without asking is only what it surely has not got.

A long text goes as several messages, in order.  When one of them fails after another was taken,
the whole is uncertain: to send it again would double its beginning, and the detail says how far
it came.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from typing import Any, ClassVar

import msgspec

from greffier.deliver.channels.addresses import GuardedNetwork
from greffier.deliver.channels.http import LONGEST_WAIT, Answer, Silence, pool, post
from greffier.deliver.channels.protocol import Channel, OnUncertain, Outgoing, Result, Target
from greffier.deliver.channels.text import cut, silent, units, words
from greffier.errors import Problem

API = "https://api.telegram.org"
#: UTF-16 units of one message.
LONGEST = 4096
#: Messages of one text.  A chat takes about one a second, and nobody reads more on a telephone.
MOST_PARTS = 10
#: Bytes of an answer; Telegram's have a few hundred beside the text they repeat.
ANSWER = 256 << 10

_CHAT = re.compile(r"-?[0-9]{1,20}|@[A-Za-z][A-Za-z0-9_]{3,31}")
# It becomes a part of the path: nothing in it may be another path.
_TOKEN = re.compile(r"[0-9]{3,20}:[A-Za-z0-9_-]{20,128}")
_encode = msgspec.json.Encoder().encode


class _Sent(msgspec.Struct):
    message_id: int


class _Parameters(msgspec.Struct):
    retry_after: float | None = None
    migrate_to_chat_id: int | None = None


class _Reply(msgspec.Struct):
    """What the Bot API answers, as far as it matters here."""

    ok: bool
    result: _Sent | None = None
    error_code: int | None = None
    description: str = ""
    parameters: _Parameters = msgspec.field(default_factory=_Parameters)


_reply = msgspec.json.Decoder(_Reply).decode


class Telegram(Channel):
    """Sends to chats; the bot's token is the endpoint's secret."""

    name: ClassVar[str] = "telegram"
    default_on_uncertain: ClassVar[OnUncertain] = "park"
    idempotent: ClassVar[bool] = False

    def __init__(self, *, api: str = API, tls: ssl.SSLContext | None = None) -> None:
        """Describe it; nothing is opened yet.

        Args:
            api: Where the Bot API is: Telegram's, or a server of one's own.
            tls: Whose certificates to trust.
        """
        self._api = api.rstrip("/")
        # Who runs the server named the API, so its address needs no guard.  No connection is kept:
        # one that Telegram closes just as we write makes a message uncertain, which costs a person
        # more than a handshake costs us.
        self._connections = pool(GuardedNetwork(allow_private=True), tls, idle=0)

    def check_target(self, target: Target) -> tuple[Problem, ...]:
        """Say what is wrong with a chat's id or a token."""
        found = []
        if not _CHAT.fullmatch(target.address):
            found.append(Problem("/target", "chat", "A chat is a number, or a channel's @name."))
        if not target.secrets or not _TOKEN.fullmatch(target.secrets[0]):
            found.append(Problem("/secret", "secret", "The secret is the token of a bot."))
        return tuple(found)

    def passes_over(self, outgoing: Outgoing) -> str | None:
        """Pass over what has no words: Telegram takes no empty message."""
        return silent(outgoing)

    async def send(
        self,
        target: Target,
        outgoing: Outgoing,
        *,
        timeout: float,  # noqa: ASYNC109 - a channel's interface
    ) -> Result:
        """Send the text, in as many messages as it needs, as plain text."""
        text = words(outgoing)
        if problems := self.check_target(target):
            return Result("not_sent", problems[0].detail, retryable=False)
        if not text:
            return Result("not_sent", silent(outgoing) or "", retryable=False)
        # Counted before it is cut: to cut a document takes longer than other sends should wait.
        parts = cut(text, LONGEST) if units(text) <= MOST_PARTS * LONGEST else ()
        if not 0 < len(parts) <= MOST_PARTS:
            return Result(
                "not_sent", f"The text needs more than {MOST_PARTS} messages.", retryable=False
            )
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        taken: list[str] = []
        while len(taken) < len(parts):
            result = await self._say(target, parts[len(taken)], end - loop.time())
            if result.outcome == "accepted":
                taken.append(result.external_id or "")
            elif not taken:
                return result
            elif result.status == 429 and (pause := result.retry_after or 1.0) < end - loop.time():
                # A wait between two parts saves a person's decision; the first's is the lane's.
                await asyncio.sleep(pause)
            else:
                return Result(
                    "uncertain",
                    f"{len(taken)} of {len(parts)} parts were taken, then: {result.detail}",
                    result.status,
                    external_id=",".join(taken),
                )
        return Result("accepted", "Telegram has it.", 200, external_id=",".join(taken))

    async def _say(self, target: Target, text: str, seconds: float) -> Result:
        answer = await post(
            self._connections,
            f"{self._api}/bot{target.secrets[0]}/sendMessage",
            {"Content-Type": "application/json"},
            _encode({"chat_id": target.address, "text": text}),
            timeout=seconds,
            wanted=ANSWER,
        )
        if isinstance(answer, Silence):
            return answer.result
        return _read(answer)

    async def close(self) -> None:
        """Close all connections."""
        await self._connections.aclose()


def _read(answer: Answer) -> Result:
    """Say what an answer means."""
    try:
        reply = _reply(answer.body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        reply = None
    status = answer.status
    if reply is not None and reply.ok and reply.result is not None and status == 200:
        sent = str(reply.result.message_id)
        return Result("accepted", "Telegram has it.", status, external_id=sent)
    if reply is None or reply.ok or not 400 <= status < 500:
        # A gateway may fail after the message went through, and only Telegram itself can deny.
        return Result("uncertain", f"Answered {status}, which says neither yes nor no.", status)
    hints: dict[str, Any] = {"retryable": status == 429}
    if status == 429:
        asked = reply.parameters.retry_after
        hints["retry_after"] = None if asked is None else min(max(asked, 0.0), LONGEST_WAIT)
    if status == 403:
        # Blocked, or put out of the chat: somebody there wants no more of it.
        hints["disable"] = True
    moved = reply.parameters.migrate_to_chat_id
    words = f" The chat is now {moved}." if moved is not None else ""
    return Result("rejected", f"Answered {status}: {reply.description}.{words}", status, **hints)
