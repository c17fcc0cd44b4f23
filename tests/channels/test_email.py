"""Promise: a mail is readable, threaded and safe, and its outcome is what really happened to it."""

from __future__ import annotations

import asyncio
import email
import email.policy
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from email.message import EmailMessage
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio
from aiosmtpd.smtp import SMTP, AuthResult, Envelope
from hypothesis import given
from hypothesis import strategies as some

from greffier.deliver.channels import Result, Target
from greffier.deliver.channels.email import Email
from greffier.deliver.channels.mail import compose, read_address, read_sender
from greffier.errors import SettingsError
from helpers.authority import Authority
from helpers.outgoing import TALK, outgoing
from helpers.receivers import Line, free_port, serving

FROM = "Greffier <bot@example.org>"
TO = "ada@example.net"
LONG = 20.0
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Mailbox:
    """Takes what comes, as aiosmtpd's handler; ``refuse`` says no to the steps it names."""

    def __init__(self) -> None:
        self.envelopes: list[Envelope] = []
        self.refuse: dict[str, str] = {}

    async def handle_MAIL(  # noqa: N802 - aiosmtpd's interface
        self, _server: Any, _session: Any, envelope: Any, address: str, _options: Any
    ) -> str:
        """Answer to MAIL."""
        if "MAIL" not in self.refuse:
            envelope.mail_from = address
        return self.refuse.get("MAIL", "250 OK")

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's interface
        self, _server: Any, _session: Any, envelope: Any, address: str, _options: Any
    ) -> str:
        """Answer to RCPT."""
        if "RCPT" not in self.refuse:
            envelope.rcpt_tos.append(address)
        return self.refuse.get("RCPT", "250 OK")

    async def handle_DATA(  # noqa: N802
        self, _server: Any, _session: Any, envelope: Envelope
    ) -> str:
        """Take a mail."""
        self.envelopes.append(envelope)
        return self.refuse.get("DATA", "250 OK")

    @property
    def mails(self) -> list[EmailMessage]:
        """What was taken, as a reader's program reads it."""
        return [parsed(bytes(one.original_content or b"")) for one in self.envelopes]


def parsed(content: bytes) -> EmailMessage:
    """A mail as a reader's program reads it."""
    return email.message_from_bytes(content, policy=email.policy.default)


@pytest_asyncio.fixture
async def server() -> AsyncIterator[SimpleNamespace]:
    """A real SMTP server at a free port of this machine."""
    mailbox = Mailbox()
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(
        lambda: SMTP(mailbox, hostname="mx.example.net", loop=loop), "127.0.0.1", 0
    )
    port = listening.sockets[0].getsockname()[1]
    yield SimpleNamespace(mailbox=mailbox, url=f"smtp://127.0.0.1:{port}")
    listening.close()
    await listening.wait_closed()


def to(address: str = TO) -> Target:
    """A mailbox."""
    return Target("email", address)


async def sent(url: str, seconds: float = LONG, **message: Any) -> Result:
    """What becomes of one mail."""
    return await Email(url, FROM, clock=lambda: NOW).send(
        to(), outgoing(**message), timeout=seconds
    )


# -- what a person reads ---------------------------------------------------------------------------


async def test_a_mail_is_text_and_the_same_as_html(server: SimpleNamespace) -> None:
    """French as it was written; from us, to the mailbox, under the conversation's title."""
    words = "Voilà : l'été à Œuilly, « ça » coûte 3 €.\n.\nFin."
    result = await sent(server.url, content=words, title="Été à Œuilly")

    (mail,) = server.mailbox.mails
    (envelope,) = server.mailbox.envelopes
    assert (envelope.mail_from, envelope.rcpt_tos) == ("bot@example.org", [TO])
    assert (mail["From"], mail["To"], mail["Subject"]) == (FROM, TO, "Été à Œuilly")
    assert mail["Date"].datetime == NOW
    assert mail["Auto-Submitted"] == "auto-generated"
    plain, html = mail.get_body(("plain",)), mail.get_body(("html",))
    assert plain is not None
    assert html is not None
    assert plain.get_content().splitlines() == words.splitlines()
    assert "Œuilly, « ça » coûte 3 €.<br>" in html.get_content()
    assert (result.outcome, result.external_id) == ("accepted", mail["Message-ID"])


async def test_a_mail_has_nothing_active(server: SimpleNamespace) -> None:
    """Markup is shown as the characters it is, and nothing is loaded."""
    await sent(server.url, content='<script>alert(1)</script> <img src="https://x.example/p.gif">')

    (mail,) = server.mailbox.mails
    html = mail.get_body(("html",))
    assert html is not None
    assert "<script" not in html.get_content()
    assert "<img" not in html.get_content()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html.get_content()


async def test_who_said_it_stands_before_what_a_person_said(server: SimpleNamespace) -> None:
    """In a room of several; pictures are addresses."""
    picture = {"type": "image_url", "image_url": {"url": "https://x.example/p.png"}}
    await sent(server.url, content="Salut", role="user", author_name="Zoé", parts=[picture])

    plain = server.mailbox.mails[0].get_body(("plain",))
    lines = ["Zoé:", "Salut", "", "[image_url: https://x.example/p.png]"]
    assert plain.get_content().splitlines() == lines


async def test_mails_of_a_conversation_are_one_thread(server: SimpleNamespace) -> None:
    """Each names the one before and the first; the very first refers to the conversation."""
    ids: list[str] = []
    for seq in range(1, 10):
        result = await sent(server.url, seq=seq, previous=tuple(ids))
        ids.append(str(result.external_id))

    root = f"<{TALK}@example.org>"
    first, *_, last = server.mailbox.mails
    assert first["In-Reply-To"] is None
    assert first["References"].split() == [root]
    assert last["In-Reply-To"] == ids[7]
    assert last["References"].split() == [root, ids[0], *ids[3:8]]
    assert len(set(ids)) == 9


def test_every_try_of_a_message_is_the_same_mail() -> None:
    """The id is stable, so that a mailbox can show two as one; another endpoint's is another."""
    channel = [compose_one(fence=fence)["Message-ID"] for fence in (1, 2)]
    other = compose_one(endpoint="elsewhere")["Message-ID"]

    assert channel[0] == channel[1] != other
    assert channel[0].startswith(f"<7.{TALK}.")


def compose_one(**message: Any) -> EmailMessage:
    """One mail, without a server."""
    sender, recipient = read_sender(FROM), read_sender(TO)
    assert sender is not None
    assert recipient is not None
    return parsed(compose(outgoing(**message), sender, recipient, NOW))


# -- injection -------------------------------------------------------------------------------------


def test_a_title_cannot_become_a_header() -> None:
    """Line breaks of any kind are blanks, and what would turn the line around is left out."""
    mail = compose_one(title="Plans\r\nBcc: eve@example.com\r\n\r\nHello\u2028x\u202egpj\x00")

    assert mail["Subject"] == "Plans Bcc: eve@example.com Hello xgpj"
    assert mail["Bcc"] is None


def test_a_former_id_cannot_become_a_header() -> None:
    """What is no id is left out of the thread."""
    mail = compose_one(previous=("<a@b>\r\nBcc: eve@example.com", "x", "<ok@example.org>"))

    assert mail["References"].split()[1:] == ["<ok@example.org>"]
    assert mail["Bcc"] is None


@given(title=some.text(max_size=300), content=some.text(some.characters(codec="utf-8"), min_size=1))
def test_whatever_is_said_a_mail_has_the_same_headers(title: str, content: str) -> None:
    """Of ASCII, in lines that every server takes, and the text comes out as it went in."""
    mail = compose_one(title=title, content=content, previous=("<x@example.org>",))
    sender, recipient = read_sender(FROM), read_sender(TO)
    assert sender is not None
    assert recipient is not None
    written = compose(outgoing(content, title=title), sender, recipient, NOW)

    assert written.isascii()
    assert b"\n" not in written.replace(b"\r\n", b"")
    assert b"\r" not in written.replace(b"\r\n", b"")
    assert max(map(len, written.split(b"\r\n"))) <= 998
    assert sorted(mail.keys()) == sorted(
        (
            "Message-ID",
            "In-Reply-To",
            "References",
            "From",
            "To",
            "Subject",
            "Date",
            "Auto-Submitted",
            "MIME-Version",
            "Content-Type",
        )
    )
    plain = mail.get_body(("plain",))
    assert plain is not None
    assert plain.get_content().split() == content.split()


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("ada@example.net", ("ada", "example.net")),
        ("a.b+c_d@EXAMPLE.net", ("a.b+c_d", "example.net")),
        ("ada@bücher.example", ("ada", "xn--bcher-kva.example")),
        ("ada@localhost", ("ada", "localhost")),
        ("Ada <ada@example.net>", None),
        ("ada@example.net, eve@example.com", None),
        ("ada@example.net\r\nRCPT TO:<eve@example.com>", None),
        ("ada@example.net\n", None),
        ("ada @example.net", None),
        ('"a b"@example.net', None),
        ("adä@example.net", None),
        ("ada@[127.0.0.1]", None),
        ("ada@-example.net", None),
        ("ada@example..net", None),
        (".ada@example.net", None),
        ("@example.net", None),
        ("ada", None),
        ("", None),
        ("a" * 65 + "@example.net", None),
        ("a@" + ".".join(["b" * 60] * 5), None),
        ("ada@" + "é" * 300 + ".example", None),
        ("-froot@example.net", ("-froot", "example.net")),
    ],
)
async def test_an_address_is_one_address(text: str, read: tuple[str, str] | None) -> None:
    """Not two, no name, no line break, nothing quoted."""
    assert read_address(text) == read
    problems = Email("smtp://localhost", FROM).check_target(to(text))
    assert [problem.pointer for problem in problems] == ([] if read else ["/target"])
    if problems:
        result = await Email("smtp://localhost", FROM).send(to(text), outgoing(), timeout=LONG)
        assert (result.outcome, result.retryable) == ("not_sent", False)


# -- outcomes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["MAIL", "RCPT", "DATA"])
@pytest.mark.parametrize(("code", "retryable"), [(451, True), (421, True), (550, False)])
async def test_a_server_that_says_no_rejects_for_now_or_for_good(
    server: SimpleNamespace, step: str, code: int, retryable: bool
) -> None:
    """4yz is tried again, 5yz is not; what it said is kept."""
    server.mailbox.refuse = {step: f"{code} 4.7.1 Greylisted"}
    result = await sent(server.url)

    assert (result.outcome, result.status, result.retryable) == ("rejected", code, retryable)
    assert "Greylisted" in result.detail


async def test_a_server_that_is_not_there_was_sent_nothing() -> None:
    """Refused, unknown or silent: it may be there later."""
    for url in (f"smtp://127.0.0.1:{free_port()}", "smtp://mx.invalid"):
        result = await sent(url)
        assert (result.outcome, result.retryable) == ("not_sent", True)


def dialogue(until: bytes, end: Callable[[Line], None] | None, *, reply: bytes = b"") -> Any:
    """A server that talks properly until somebody says something, and then ends or is silent."""

    async def behave(line: Line) -> None:
        await line.say(b"220 mx.example.net\r\n")
        data = False
        while True:
            said = await line.reader.readline()
            if said == b"":
                return
            if said.startswith(until):
                await line.say(reply)
                if end is None:
                    await asyncio.Event().wait()
                    return
                end(line)
                return
            if data:
                data = said != b".\r\n"
                await line.say(b"" if data else b"250 taken\r\n")
            else:
                data = said == b"DATA\r\n"
                await line.say(b"354 go on\r\n" if data else b"250 yes\r\n")

    return behave


@pytest.mark.parametrize("end", [Line.hang_up, Line.reset, None])
@pytest.mark.parametrize(
    ("until", "outcome"),
    [
        (b"EHLO", "not_sent"),
        (b"MAIL", "not_sent"),
        (b"RCPT", "not_sent"),
        (b"DATA", "not_sent"),
        (b".\r\n", "uncertain"),
    ],
)
async def test_a_connection_that_is_lost_is_uncertain_only_after_the_content(
    until: bytes, outcome: str, end: Callable[[Line], None] | None
) -> None:
    """Before it the server has nothing it could deliver, and that is said."""
    async with serving(dialogue(until, end)) as server:
        result = await sent(f"smtp://{server.host}", LONG if end else 0.3)

    assert (result.outcome, result.retryable) == (outcome, True)


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        (b"250 OK\r\n", "accepted"),
        (b"250-OK\r\n250 queued\r\n", "accepted"),
        (b"451 later\r\n", "rejected"),
        (b"554 never\r\n", "rejected"),
        (b"299 hm\r\n", "uncertain"),
        (b"hello\r\n", "uncertain"),
        (b"\xff\xfe\r\n", "uncertain"),
        (b"25", "uncertain"),
        (b"x" * 40000 + b"\r\n", "uncertain"),
    ],
)
async def test_only_the_servers_own_word_after_the_content_counts(
    reply: bytes, outcome: str
) -> None:
    """250 is yes, 4yz and 5yz are no, anything else says nothing."""
    async with serving(dialogue(b".\r\n", Line.hang_up, reply=reply)) as server:
        assert (await sent(f"smtp://{server.host}")).outcome == outcome


@pytest.mark.parametrize("greeting", [b"554 no\r\n", b"421 busy\r\n", b"HTTP/1.1 400\r\n"])
async def test_a_greeting_that_is_none_concerns_us_and_not_the_mail(greeting: bytes) -> None:
    """Whoever runs this can mend it, and the mail waits."""

    async def rude(line: Line) -> None:
        await line.say(greeting)
        line.hang_up()

    async with serving(rude) as server:
        result = await sent(f"smtp://{server.host}")

    assert (result.outcome, result.retryable) == ("not_sent", True)


# -- TLS and login ---------------------------------------------------------------------------------


def _login(_server: Any, _session: Any, _envelope: Any, _kind: str, login: Any) -> AuthResult:
    good = (login.login, login.password) == (b"bot", b"p@ss")
    return AuthResult(success=good, handled=False)


# TLS is there from the start, which the server's library does not see.
@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")
@pytest.mark.parametrize(
    ("password", "trusted", "outcome"),
    [("p%40ss", True, "accepted"), ("wrong", True, "not_sent"), ("p%40ss", False, "not_sent")],
)
async def test_a_password_goes_over_tls_to_who_is_trusted(
    authority: Authority, password: str, trusted: bool, outcome: str
) -> None:
    """smtps://, the certificate verified, user and password of the URL; none is ever told."""
    mailbox = Mailbox()
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(
        lambda: SMTP(mailbox, hostname="mx.example.net", loop=loop, authenticator=_login,
                     auth_required=True, auth_require_tls=False),
        "127.0.0.1", 0, ssl=authority.server("127.0.0.1"),
    )  # fmt: skip
    port = listening.sockets[0].getsockname()[1]
    trust = authority.trusted() if trusted else None
    channel = Email(f"smtps://bot:{password}@127.0.0.1:{port}", FROM, tls=trust)
    result = await channel.send(to(), outgoing(), timeout=LONG)
    listening.close()
    await listening.wait_closed()

    assert (result.outcome, result.retryable) == (outcome, True), result
    assert len(mailbox.mails) == (outcome == "accepted")
    assert "p@ss" not in repr(result) + repr(channel._relay)


@pytest.mark.parametrize(
    ("url", "start_tls"),
    [
        ("smtp://mx.example.net", None),
        ("smtp://bot:x@mx.example.net", True),
        ("smtps://bot:x@mx.example.net", False),
        ("smtp://bot:x@localhost", False),
        ("smtp://127.0.0.1:1025", False),
    ],
)
def test_a_password_needs_tls_and_without_one_tls_is_used_where_it_is_offered(
    url: str, start_tls: bool | None
) -> None:
    """But for a server on this machine, where nobody is in between."""
    relay = Email(url, FROM)._relay
    assert relay is not None
    assert relay.start_tls is start_tls


@pytest.mark.parametrize(
    ("login", "name", "outcome"),
    [
        ("bot:p%40ss@", "127.1", "accepted"),
        ("", "127.1", "accepted"),
        ("bot:p%40ss@", "mx.example.net", "not_sent"),
        ("", "mx.example.net", "not_sent"),
    ],
)
async def test_tls_that_is_offered_is_used_and_verified(
    authority: Authority, login: str, name: str, outcome: str
) -> None:
    """STARTTLS, before a password and before the mail; a certificate of another name ends it."""
    mailbox = Mailbox()
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(
        lambda: SMTP(
            mailbox,
            hostname="mx.example.net",
            loop=loop,
            tls_context=authority.server(name),
            require_starttls=True,
            authenticator=_login,
            auth_required=bool(login),
        ),
        "127.0.0.1",
        0,
    )
    port = listening.sockets[0].getsockname()[1]
    # A spelling of this machine that is not taken for it.
    channel = Email(f"smtp://{login}127.1:{port}", FROM, tls=authority.trusted())
    result = await channel.send(to(), outgoing(), timeout=LONG)
    listening.close()
    await listening.wait_closed()

    assert result.outcome == outcome, result
    assert len(mailbox.mails) == (outcome == "accepted")


async def test_a_password_is_not_sent_in_clear() -> None:
    """A server that offers no TLS, or who stands before it, gets no login."""
    heard: list[bytes] = []

    async def plain(line: Line) -> None:
        await line.say(b"220 mx\r\n")
        while said := await line.reader.readline():
            heard.append(said)
            await line.say(b"250-mx\r\n250 AUTH PLAIN LOGIN\r\n")

    async with serving(plain) as server:
        # A spelling of this machine that is not taken for it.
        channel = Email(f"smtp://bot:secret@127.1:{server.port}", FROM)
        result = await channel.send(to(), outgoing(), timeout=LONG)

    assert (result.outcome, result.retryable) == ("not_sent", True)
    assert heard
    assert not any(b"AUTH" in said for said in heard)


@pytest.mark.parametrize(
    ("url", "sender"),
    [
        ("http://mx.example.net", FROM),
        ("smtp://", FROM),
        ("smtp://mx.example.net:99999", FROM),
        ("smtp://mx.example.net/path", FROM),
        ("mx.example.net", FROM),
        ("smtp://mx.example.net", "nobody"),
        ("smtp://mx.example.net", "A\r\nBcc: eve@example.com <bot@example.org>"),
    ],
)
def test_settings_that_cannot_work_are_told_at_the_start(url: str, sender: str) -> None:
    """Not at the first mail; and no password with them."""
    with pytest.raises(SettingsError, match=r"SMTP_(URL|FROM)"):
        Email(url, sender)


async def test_without_a_server_nothing_is_sent_and_that_is_said() -> None:
    """Nobody can make such an endpoint; one that was made before says why it waits."""
    channel = Email(None, None)
    result = await channel.send(to(), outgoing(), timeout=LONG)

    assert [problem.code for problem in channel.check_target(to())] == ["not-configured"]
    assert result.outcome == "not_sent"
    assert "SMTP_URL" in result.detail
