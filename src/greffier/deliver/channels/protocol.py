"""What a channel is: it sends one message once, and says truthfully what became of it.

A channel keeps no order, counts no tries and waits for nothing: the lane does.  It knows one way to
the outside and answers with one of four outcomes:

``accepted``
    The far side said that it has the message.
``rejected``
    The far side said that it has not taken it.
``not_sent``
    Nothing reached the far side that it could take for the message.
``uncertain``
    It was handed over and no answer came, or none that says; the far side may or may not have it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, TypeAlias
from uuid import UUID

from greffier.errors import Problem

Outcome: TypeAlias = Literal["accepted", "rejected", "not_sent", "uncertain"]
OnUncertain: TypeAlias = Literal["resend", "probe", "park"]

#: Characters of a result's detail that are kept.
LONGEST_DETAIL = 300


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One message on its way to one endpoint; the same for every try, but for its fence.

    Attributes:
        webhook_id: Names this message at this endpoint, for ever: what the far side can tell a
            double by.
        conversation_id: Where it was said.
        conversation_title: What the conversation is called, possibly nothing.
        message: The message as the API shows it, in JSON.
        seq: Its number in the conversation.
        fence: The fence of the claim under which it is sent: of two that come with the same
            ``seq``, the greater is the newer try.
        previous: The external ids of what this lane sent before, oldest first, as far as they are
            known; the first and the latest are enough.
    """

    webhook_id: str
    conversation_id: UUID
    conversation_title: str
    message: bytes
    seq: int
    fence: int
    previous: tuple[str, ...] = ()

    @property
    def body(self) -> bytes:
        """The event that is sent to programs, byte for byte the same for the same message."""
        return (
            b'{"type":"message.created","conversation_id":"%b","message":%b}'
            % (str(self.conversation_id).encode(), self.message)
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Target:
    """Where an endpoint points to.

    Attributes:
        channel: The name of its channel.
        address: The target as it was given: a URL, an e-mail address, the id of a chat.
        secrets: What only the two sides know, newest first; more than one while it is rotated.
        settings: What else the endpoint says, by name.
    """

    channel: str
    address: str
    secrets: tuple[str, ...] = field(default=(), repr=False)
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one try.

    Attributes:
        outcome: One of the four.
        detail: What happened, in words for a person; no secret and nothing that was said.
        status: The number the far side answered with, where it has numbers.
        retry_after: Seconds the far side asks us to wait.
        external_id: What the far side, or the protocol between us, calls the message.
        retryable: Whether the same message may fare better later.
        disable: Whether the far side asks for no further message at all.
    """

    outcome: Outcome
    detail: str
    status: int | None = None
    retry_after: float | None = None
    external_id: str | None = None
    retryable: bool = True
    disable: bool = False

    def __post_init__(self) -> None:
        # Part of it is often the far side's own words.
        object.__setattr__(self, "detail", one_line(self.detail, LONGEST_DETAIL))


class Channel(Protocol):
    """One way to the outside.

    An instance serves all endpoints of its kind, many at a time, in one event loop.

    Attributes:
        name: What endpoints call it.
        default_on_uncertain: What is done after ``uncertain`` when the endpoint says nothing.
        idempotent: Whether the far side is given what it needs to tell a double.
    """

    name: ClassVar[str]
    default_on_uncertain: ClassVar[OnUncertain]
    idempotent: ClassVar[bool]

    def check_target(self, target: Target) -> tuple[Problem, ...]:
        """Say what is wrong with a target, without reaching for it."""
        ...

    def passes_over(self, outgoing: Outgoing) -> str | None:
        """Say why there is nothing in this message for this channel, if so; it is then skipped."""
        return None

    async def send(
        self,
        target: Target,
        outgoing: Outgoing,
        *,
        timeout: float,  # noqa: ASYNC109 - the answer depends on what it interrupts
    ) -> Result:
        """Try once, within ``timeout`` seconds, whatever the far side does.

        It raises for nothing the far side can do.  When it is cancelled, nobody knows the outcome:
        the caller takes it for ``uncertain``.
        """
        ...

    async def probe(
        self,
        target: Target,
        outgoing: Outgoing,
        *,
        timeout: float,  # noqa: ASYNC109
    ) -> Result | None:
        """Ask the far side whether it has a message whose fate is uncertain.

        Returns:
            What is known now, or None where the far side cannot be asked.
        """
        return None

    async def close(self) -> None:
        """Let go of connections; nothing is sent any more."""
        ...


#: Controls that turn a line around: a title must not be read as another one.
_BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_BREAKS = frozenset(("Cc", "Cs", "Zl", "Zp"))


def one_line(text: str, longest: int) -> str:
    """Make one line of any text: no control character, no more than so many characters."""
    plain = "".join(
        " " if unicodedata.category(char) in _BREAKS else char
        for char in text[: 4 * longest]
        if char not in _BIDI
    )
    joined = " ".join(plain.split())
    return joined if len(joined) <= longest else joined[: longest - 1].rstrip() + "…"
