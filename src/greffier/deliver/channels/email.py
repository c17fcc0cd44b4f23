"""E-mail over SMTP, through one server of one's own.

What can be promised: SMTP knows no double, but a ``Message-ID`` that is the same for all tries
(``mail.py``) lets many mailboxes show two as one; so what is uncertain is sent again, unless an
endpoint prefers to wait.  It is uncertain only between the end of the message and the server's
answer to it.  Accepted means that *our* server has taken it: what becomes of it behind is told by
mail, to the sender.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.headerregistry import Address
from typing import ClassVar, Literal, TypeAlias
from urllib.parse import unquote, urlsplit

import aiosmtplib

from greffier.deliver.channels import mail
from greffier.deliver.channels.http import system_words
from greffier.deliver.channels.protocol import Channel, OnUncertain, Outgoing, Result, Target
from greffier.deliver.channels.text import silent
from greffier.errors import Problem, SettingsError

#: How far a dialogue has come: with whom we talk, for whom it is, what it is, and after its end.
Stage: TypeAlias = Literal["connecting", "addressing", "handing over"]
#: Seconds for a farewell that changes nothing.
FAREWELL = 1.0
_START_INPUT, _TAKEN = 354, 250


@dataclass(frozen=True, slots=True)
class Relay:
    """The server that takes our mail."""

    host: str
    port: int
    tls: bool
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    @property
    def start_tls(self) -> bool | None:
        """Whether a connection without TLS is made one with it: True must, None may, False no."""
        if self.tls or _is_here(self.host):
            # On this machine there is nobody in between, and certificates are made up.
            return False
        return True if self.user else None

    @classmethod
    def read(cls, url: str) -> Relay:
        """Read ``smtp://`` or ``smtps://user:password@host:port``.

        Raises:
            SettingsError: It is something else.
        """
        wrong = SettingsError("SMTP_URL is smtp://host or smtps://user:password@host:port.")
        try:
            read = urlsplit(url)
            host, port = read.hostname, read.port
        except ValueError:
            raise wrong from None
        if read.scheme not in ("smtp", "smtps") or not host or read.path not in ("", "/"):
            raise wrong
        user = unquote(read.username) if read.username else None
        usual = 465 if read.scheme == "smtps" else 587 if user else 25
        return cls(
            host,
            usual if port is None else port,
            tls=read.scheme == "smtps",
            user=user,
            password=unquote(read.password) if read.password else None,
        )


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _now() -> datetime:
    return datetime.now(UTC)


class Email(Channel):
    """Sends to one address each."""

    name: ClassVar[str] = "email"
    default_on_uncertain: ClassVar[OnUncertain] = "resend"
    idempotent: ClassVar[bool] = False

    def __init__(
        self,
        url: str | None,
        sender: str | None,
        *,
        tls: ssl.SSLContext | None = None,
        clock: Callable[[], datetime] = _now,
    ) -> None:
        """Describe it; without a server or a sender it sends nothing and says so.

        Args:
            url: ``smtp[s]://user:password@host:port``.
            sender: Whom mails come from, as ``Name <bot@example.org>``.
            tls: Whose certificates to trust.
            clock: What time it is.

        Raises:
            SettingsError: One of them cannot be read.
        """
        self._relay = Relay.read(url) if url else None
        self._sender = mail.read_sender(sender) if sender else None
        if sender and self._sender is None:
            raise SettingsError("SMTP_FROM is an address: bot@example.org or Name <bot@…>.")
        self._tls = tls
        self._clock = clock

    def check_target(self, target: Target) -> tuple[Problem, ...]:
        """Say what is wrong with an address, or that no server is set."""
        found = []
        if self._relay is None or self._sender is None:
            words = "This server sends no e-mail: SMTP_URL and SMTP_FROM are needed."
            found.append(Problem("/channel", "not-configured", words))
        if mail.read_address(target.address) is None:
            found.append(Problem("/target", "address", "An address is name@example.org."))
        return tuple(found)

    def passes_over(self, outgoing: Outgoing) -> str | None:
        """Pass over what has no words."""
        return silent(outgoing)

    async def send(
        self,
        target: Target,
        outgoing: Outgoing,
        *,
        timeout: float,  # noqa: ASYNC109 - a channel's interface
    ) -> Result:
        """Hand one mail to the server, over a connection of its own."""
        problems, read = self.check_target(target), mail.read_address(target.address)
        if problems or read is None or self._relay is None or self._sender is None:
            return Result("not_sent", problems[0].detail, retryable=False)
        recipient = Address("", *read)
        # The longest message takes 60 ms to encode, which the loop has better uses for.
        content = await asyncio.to_thread(
            mail.compose, outgoing, self._sender, recipient, self._clock()
        )
        dialogue = _Dialogue(self._relay, self._sender, self._tls, timeout)
        refused = await dialogue.hold(recipient.addr_spec, content)
        if refused is not None:
            return refused
        known = mail.message_id(outgoing, self._sender.domain)
        return Result("accepted", "The mail server has it.", _TAKEN, external_id=known)

    async def close(self) -> None:
        """Nothing is kept open between two mails."""


class _Dialogue:
    """One mail over one connection; it knows at each moment what a loss would mean."""

    def __init__(
        self, relay: Relay, sender: Address, tls: ssl.SSLContext | None, seconds: float
    ) -> None:
        self._sender = sender
        self._seconds = seconds
        self._stage: Stage = "connecting"
        self._smtp = aiosmtplib.SMTP(
            hostname=relay.host,
            port=relay.port,
            username=relay.user,
            password=relay.password,
            use_tls=relay.tls,
            start_tls=relay.start_tls,
            tls_context=tls,
            # The library would look our own name up, which takes seconds where that is broken.
            local_hostname=sender.domain,
            # Ours is around all of it; the library's, asyncio.wait_for, can swallow a cancellation
            # before Python 3.12, and a worker that is told to stop would go on.
            timeout=None,
        )

    async def hold(self, recipient: str, content: bytes) -> Result | None:
        """Say everything, and return why the mail was not taken, or None when it was."""
        try:
            async with asyncio.timeout(self._seconds) as limit:
                refused = await self._hand_over(recipient, content)
                if refused is not None:
                    return refused
        except aiosmtplib.SMTPResponseException as error:
            return self._refused(error.code, error.message)
        except Exception as error:  # noqa: BLE001 - a server can make a parser raise anything
            late = isinstance(error, TimeoutError) and limit.expired()
            return self._lost(f"no answer within {self._seconds:g} s" if late else _why(error))
        else:
            await self._part()
            return None
        finally:
            self._smtp.close()

    async def _hand_over(self, recipient: str, content: bytes) -> Result | None:
        await self._smtp.connect()
        await self._smtp.ehlo()
        self._stage = "addressing"
        await self._smtp.mail(self._sender.addr_spec)
        await self._smtp.rcpt(recipient)
        answer = await self._smtp.execute_command(b"DATA")
        if answer.code != _START_INPUT:
            return self._refused(answer.code, answer.message)
        # Not the library's data(): it does not tell a connection that broke before the server
        # wanted the content, when nothing can have arrived, from one that broke after it.
        protocol = self._smtp.protocol
        if protocol is None:
            return self._lost("the connection was closed")
        self._stage = "handing over"
        protocol.write(re.sub(rb"(?m)^\.", b"..", content) + b".\r\n")
        answer = await protocol.read_response()
        return None if answer.code == _TAKEN else self._refused(answer.code, answer.message)

    def _refused(self, code: int, message: str) -> Result:
        """The server answered no: 4yz for now, 5yz for good (RFC 5321, 4.2.1)."""
        if not 400 <= code < 600:
            # What is said after the content and is no refusal may mean anything.
            return self._lost(f"it answered {code}")
        words = f"The mail server answered {code}: {message}"
        if self._stage == "connecting":
            # That concerns us (a greeting, a login): whoever runs this can mend it.
            return Result("not_sent", words, code)
        return Result("rejected", words, code, retryable=code < 500)

    def _lost(self, why: str) -> Result:
        if self._stage == "handing over":
            return Result("uncertain", f"Lost after the mail was handed over: {why}.")
        return Result("not_sent", f"Lost before the mail was handed over: {why}.")

    async def _part(self) -> None:
        """Say farewell; the mail is taken, whatever comes of it."""
        with contextlib.suppress(aiosmtplib.SMTPException, OSError, TimeoutError):
            async with asyncio.timeout(FAREWELL):
                await self._smtp.quit()


def _why(error: Exception) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not valid: {cause.verify_message}"
        if isinstance(cause, OSError) and (words := system_words(cause)):
            return words
        cause = cause.__cause__
    return str(error).rstrip(".") or type(error).__name__
