"""Promise: a webhook is sent once a try, signed, and its outcome is what really happened."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from email.utils import format_datetime

import msgspec
import pytest
import standardwebhooks

from greffier.deliver.channels import Result, Target, http
from greffier.deliver.channels.signatures import new_secret
from greffier.deliver.channels.webhook import Webhook
from helpers.authority import Authority
from helpers.outgoing import TALK, outgoing
from helpers.receivers import Line, Server, Web, free_port, read_request, response, serving

SECRET = new_secret()
#: Long enough for everything here but what is meant not to come; that takes a moment.
LONG, MOMENT = 20.0, 0.2


@contextlib.asynccontextmanager
async def webhooks(**how: object) -> AsyncIterator[Webhook]:
    """The channel, which may speak to this machine unless something else is said."""
    channel = Webhook(**{"allow_private": True, **how})  # type: ignore[arg-type]
    try:
        yield channel
    finally:
        await channel.close()


def to(server: Server, *secrets: str, path: str = "/hook") -> Target:
    """A target at a server."""
    return Target("webhook", f"http://{server.host}{path}", secrets or (SECRET,))


async def sent(server: Server, seconds: float = LONG) -> Result:
    """What becomes of one message to a server."""
    async with webhooks() as channel:
        return await channel.send(to(server), outgoing(), timeout=seconds)


# -- what is sent ----------------------------------------------------------------------------------


async def test_the_official_package_verifies_what_we_send() -> None:
    """A receiver needs nothing of ours: it verifies, and reads the message as the API shows it."""
    web = Web()
    message = outgoing()
    async with serving(web) as server, webhooks() as channel:
        result = await channel.send(to(server, path="/a%20b?c=d"), message, timeout=LONG)

    (request,) = web.requests
    event = standardwebhooks.Webhook(SECRET).verify(request.body, request.headers)
    assert event == {
        "type": "message.created",
        "conversation_id": str(TALK),
        "message": msgspec.json.decode(message.message),
    }
    assert event["message"]["content"] == "Voilà : l'été à Œuilly, « ça » coûte 3 €."
    assert (request.method, request.path) == ("POST", "/a%20b?c=d")
    assert request.headers["host"] == server.host
    assert request.headers["content-type"] == "application/json"
    assert (request.headers["greffier-seq"], request.headers["greffier-fence"]) == ("7", "3")
    assert (result.outcome, result.status, result.external_id) == ("accepted", 200, "msg_hook_7")


async def test_each_try_has_the_same_id_and_body_and_a_time_of_its_own() -> None:
    """So that a receiver can tell a double, and refuse what was recorded and played again."""
    web = Web(response(500), response(204))
    times = [datetime(2026, 3, 1, 12, 0, second, tzinfo=UTC) for second in (0, 0, 5)]
    async with serving(web) as server, webhooks(clock=lambda: times.pop(0)) as channel:
        for fence in (3, 4):
            await channel.send(to(server), outgoing(fence=fence), timeout=LONG)

    first, second = web.requests
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == "msg_hook_7"
    assert first.body == second.body
    assert int(second.headers["webhook-timestamp"]) - int(first.headers["webhook-timestamp"]) == 5
    assert (first.headers["greffier-fence"], second.headers["greffier-fence"]) == ("3", "4")


async def test_while_a_secret_is_rotated_both_verify() -> None:
    """A receiver may change over at any moment between."""
    new, old = new_secret(), new_secret()
    web = Web()
    async with serving(web) as server, webhooks() as channel:
        await channel.send(to(server, new, old), outgoing(), timeout=LONG)

    (request,) = web.requests
    for secret in (new, old):
        assert standardwebhooks.Webhook(secret).verify(request.body, request.headers)
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(new_secret()).verify(request.body, request.headers)


async def test_a_connection_serves_the_next_message() -> None:
    """An answer's body is read, so that not every message pays for a handshake."""
    async with serving(Web(response(200, b"thank you"))) as server, webhooks() as channel:
        for seq in (1, 2, 3):
            await channel.send(to(server), outgoing(seq=seq), timeout=LONG)

        assert server.connections == 1


# -- answers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_an_answer_from_200_to_299_is_accepted(status: int) -> None:
    """Whatever its body says."""
    async with serving(Web(response(status, b"no!" if status != 204 else b""))) as server:
        assert (await sent(server)).outcome == "accepted"


@pytest.mark.parametrize("status", [400, 401, 404, 409, 413, 500, 502, 503, 504, 599])
async def test_any_other_answer_is_a_rejection_that_may_be_tried_again(status: int) -> None:
    """A receiver that is deployed wrongly for an hour loses nothing."""
    async with serving(Web(response(status))) as server:
        result = await sent(server)

    assert (result.outcome, result.status) == ("rejected", status)
    assert (result.retryable, result.disable) == (True, False)


async def test_410_asks_for_no_further_message() -> None:
    """The way for a receiver to unsubscribe."""
    async with serving(Web(response(410))) as server:
        result = await sent(server)

    assert (result.outcome, result.retryable, result.disable) == ("rejected", False, True)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("120", 120.0),
        ("0", 0.0),
        (format_datetime(datetime(2026, 3, 1, 12, 2, tzinfo=UTC), usegmt=True), 120.0),
        (format_datetime(datetime(2020, 1, 1, tzinfo=UTC), usegmt=True), 0.0),
        ("99999999999", None),
        ("-5", None),
        ("soon", None),
        ("", None),
    ],
)
async def test_how_long_to_wait_is_read_as_seconds_or_as_a_date(
    status: int, said: str, seconds: float | None
) -> None:
    """Retry-After in both its forms; what cannot be read says nothing."""
    web = Web(response(status, retry_after=said))
    async with (
        serving(web) as server,
        webhooks(clock=lambda: datetime(2026, 3, 1, 12, tzinfo=UTC)) as channel,
    ):
        result = await channel.send(to(server), outgoing(), timeout=LONG)

    assert (result.outcome, result.retry_after) == ("rejected", seconds)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(status: int) -> None:
    """Not even to a public place, and least of all to a cloud's metadata service."""
    web = Web(response(status, location="http://169.254.169.254/latest/meta-data/"))
    async with serving(web) as server:
        result = await sent(server)

    assert (result.outcome, result.status) == ("rejected", status)
    assert len(web.requests) == 1


# -- answers that harm -----------------------------------------------------------------------------


async def test_an_answer_of_ten_megabytes_is_accepted_and_not_read() -> None:
    """The status says it all; the connection is closed on the rest."""
    closed = asyncio.get_running_loop().create_future()

    async def talkative(line: Line) -> None:
        await read_request(line)
        written = 0
        try:
            await line.say(b"HTTP/1.1 200 OK\r\nContent-Length: 10485760\r\n\r\n")
            for _ in range(160):
                await line.say(bytes(65536))
                written += 65536
        finally:
            closed.set_result(written)

    async with serving(talkative) as server:
        assert (await sent(server)).outcome == "accepted"
        assert await closed < 10485760


async def test_a_body_that_drags_on_takes_nothing_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does it hold the worker until the timeout."""
    monkeypatch.setattr(http, "GRACE", MOMENT)
    over = asyncio.Event()

    async def slow(line: Line) -> None:
        await read_request(line)
        await line.say(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n.")
        await over.wait()

    async with serving(slow) as server:
        result = await sent(server)
        over.set()

    assert result.outcome == "accepted"


@pytest.mark.parametrize(
    "began",
    [b"", b"HTTP/1.1 20", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: "],
)
async def test_an_answer_that_is_not_there_in_time_leaves_it_uncertain(began: bytes) -> None:
    """The receiver has the message; what it makes of it we shall not hear."""
    over = asyncio.Event()
    read = asyncio.Event()

    async def late(line: Line) -> None:
        await read_request(line)
        read.set()
        await line.say(began)
        await over.wait()
        # Answers after all, to nobody.
        await line.say(response(200))

    async with serving(late) as server:
        seconds, result = MOMENT, await sent(server, MOMENT)
        while not read.is_set():  # a machine so busy that nothing was sent in time
            seconds *= 2
            result = await sent(server, seconds)
        over.set()

    assert (result.outcome, result.detail) == ("uncertain", f"No answer within {seconds:g} s.")


@pytest.mark.parametrize("end", [Line.hang_up, Line.reset])
async def test_a_connection_that_breaks_after_the_request_leaves_it_uncertain(
    end: Callable[[Line], None],
) -> None:
    """Closed or reset: it may have been taken before."""

    async def drops(line: Line) -> None:
        await read_request(line)
        end(line)

    async with serving(drops) as server:
        assert (await sent(server)).outcome == "uncertain"


async def test_a_connection_that_breaks_at_once_was_no_rejection() -> None:
    """Accepted by the kernel, dropped by the program: nobody answered, so nobody refused."""

    async def drops(line: Line) -> None:
        line.reset()

    async with serving(drops) as server:
        assert (await sent(server)).outcome in {"not_sent", "uncertain"}


@pytest.mark.parametrize(
    "rubbish", [b"SSH-2.0-OpenSSH_9.2\r\n", b"\x15\x03\x01\x00\x02\x02", b"\n"]
)
async def test_an_answer_that_is_no_http_leaves_it_uncertain(rubbish: bytes) -> None:
    """Something is there and read it."""

    async def other(line: Line) -> None:
        await read_request(line)
        await line.say(rubbish)
        line.hang_up()

    async with serving(other) as server:
        assert (await sent(server)).outcome == "uncertain"


# -- nothing sent ----------------------------------------------------------------------------------


async def test_a_port_that_refuses_was_sent_nothing() -> None:
    """It may be open the next time."""
    async with webhooks() as channel:
        target = Target("webhook", f"http://127.0.0.1:{free_port()}/", (SECRET,))
        result = await channel.send(target, outgoing(), timeout=LONG)

    assert (result.outcome, result.retryable) == ("not_sent", True)
    assert "refused" in result.detail


async def test_a_name_that_does_not_exist_was_sent_nothing() -> None:
    """RFC 6761 keeps .invalid for this; the system's resolver says so."""
    async with webhooks() as channel:
        target = Target("webhook", "https://receiver.invalid/hook", (SECRET,))
        result = await channel.send(target, outgoing(), timeout=LONG)

    assert (result.outcome, result.retryable) == ("not_sent", True)


async def test_a_name_server_that_does_not_answer_was_no_receiver() -> None:
    """The timeout is for the name as well, and nothing was sent."""

    async def silent(_host: str, _port: int) -> list[str]:
        await asyncio.Event().wait()
        return []

    async with webhooks(resolver=silent) as channel:
        target = Target("webhook", "https://hook.example.org/", (SECRET,))
        result = await channel.send(target, outgoing(), timeout=MOMENT)

    assert (result.outcome, result.detail) == ("not_sent", "No answer within 0.2 s.")


async def test_a_handshake_that_does_not_end_was_no_request(authority: Authority) -> None:
    """A port that accepts and says nothing, as a firewall does."""
    over = asyncio.Event()

    async def mute(_line: Line) -> None:
        await over.wait()

    async with serving(mute) as server, webhooks(tls=authority.trusted()) as channel:
        target = Target("webhook", f"https://{server.host}/", (SECRET,))
        result = await channel.send(target, outgoing(), timeout=MOMENT)
        over.set()

    assert result.outcome == "not_sent"


@pytest.mark.parametrize(
    ("names", "days", "trusted", "words"),
    [
        pytest.param(("127.0.0.1",), 1, True, "accepted", id="valid"),
        pytest.param(("127.0.0.1",), 1, False, "unable to get local issuer", id="unknown issuer"),
        pytest.param(("127.0.0.1",), -1, True, "expired", id="expired"),
        pytest.param(("hook.example.org",), 1, True, "mismatch", id="another name"),
    ],
)
async def test_a_certificate_that_is_not_valid_is_sent_nothing(
    authority: Authority, names: tuple[str, ...], days: int, trusted: bool, words: str
) -> None:
    """And why is said; a certificate is renewed, so it is tried again."""
    web = Web()
    trust = {"tls": authority.trusted()} if trusted else {}
    async with (
        serving(web, authority.server(*names, days=days)) as server,
        webhooks(**trust) as channel,
    ):
        target = Target("webhook", f"https://{server.host}/", (SECRET,))
        result = await channel.send(target, outgoing(), timeout=LONG)

    if words == "accepted":
        assert result.outcome == "accepted"
    else:
        assert (result.outcome, result.retryable, web.requests) == ("not_sent", True, [])
        assert words in result.detail


async def test_an_id_that_would_be_another_header_is_not_sent() -> None:
    """Line breaks cannot be smuggled into the request."""
    web = Web()
    async with serving(web) as server, webhooks() as channel:
        message = outgoing(endpoint="x\r\nx-evil: 1\r\n")
        result = await channel.send(to(server), message, timeout=LONG)

    assert (result.outcome, web.requests) == ("not_sent", [])


# -- targets ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "secrets", "pointers"),
    [
        ("https://hook.example.org/x", (SECRET,), []),
        ("https://hook.example.org:8443/x?y=z", (SECRET, new_secret()), []),
        ("https://bücher.example/", (SECRET,), []),
        ("https://[2606:4700::6810:85e5]/", (SECRET,), []),
        ("http://hook.example.org/", (SECRET,), ["/target"]),
        ("ftp://hook.example.org/", (SECRET,), ["/target"]),
        ("javascript:alert(1)", (SECRET,), ["/target", "/target"]),
        ("https://user:pass@hook.example.org/", (SECRET,), ["/target"]),
        ("https://hook.example.org\\@169.254.169.254/", (SECRET,), ["/target", "/target"]),
        ("https://", (SECRET,), ["/target"]),
        ("https://a b/", (SECRET,), ["/target"]),
        ("https://hook.example.org:0/", (SECRET,), ["/target"]),
        ("https://hook.example.org:65536/", (SECRET,), ["/target"]),
        ("https://hook.example.org/\r\nX: y", (SECRET,), ["/target"]),
        ("https://localhost/", (SECRET,), ["/target"]),
        ("https://db.LOCALHOST./", (SECRET,), ["/target"]),
        ("https://127.0.0.1/", (SECRET,), ["/target"]),
        ("https://[::1]/", (SECRET,), ["/target"]),
        ("https://[fe80::1%25eth0]/", (SECRET,), ["/target"]),
        ("https://hook.example.org/" + "x" * 2048, (SECRET,), ["/target"]),
        ("https://hook.example.org/", (), ["/secret"]),
        ("https://hook.example.org/", ("whsec_", SECRET), ["/secret"]),
        ("https://hook.example.org/", ("a password",), ["/secret"]),
    ],
)
async def test_a_target_is_checked_without_reaching_for_it(
    url: str, secrets: tuple[str, ...], pointers: list[str]
) -> None:
    """Everything that is wrong with it at once; no name is looked up."""

    async def nobody(host: str, _port: int) -> list[str]:
        raise AssertionError(host)

    async with webhooks(allow_private=False, resolver=nobody) as channel:
        problems = channel.check_target(Target("webhook", url, secrets))
        assert [problem.pointer for problem in problems] == pointers
        if problems:
            result = await channel.send(Target("webhook", url, secrets), outgoing(), timeout=LONG)
            assert (result.outcome, result.retryable) == ("not_sent", False)


def test_a_target_shows_no_secret() -> None:
    """Neither in a log nor in a traceback."""
    assert SECRET not in repr(Target("webhook", "https://hook.example.org/", (SECRET,)))
