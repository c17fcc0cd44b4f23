"""Promise: nobody who may name a target can make us reach into our own network."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import AsyncIterator, Iterable, Sequence

import httpcore2
import pytest
from hypothesis import given
from hypothesis import strategies as some

from greffier.deliver.channels import Target
from greffier.deliver.channels.addresses import resolve, special
from greffier.deliver.channels.signatures import new_secret
from greffier.deliver.channels.webhook import Webhook
from helpers.authority import Authority
from helpers.outgoing import outgoing
from helpers.receivers import Server, Web, response, serving

NAME = "hook.example.org"
PUBLIC, OTHER, SIX = "93.184.215.14", "93.184.215.15", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"
LONG = 20.0


class Internet(httpcore2.AsyncNetworkBackend):
    """Every public address of the tests' internet is a server on this machine, or silent."""

    def __init__(self, server: Server, silent: Iterable[str] = ()) -> None:
        self.reached: list[str] = []
        self._port = server.port
        self._silent = frozenset(silent)
        self._network = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's interface
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Connect to the server, whichever address it is."""
        self.reached.append(host)
        ipaddress.ip_address(host)  # nothing but addresses comes here: no name is looked up twice
        if host in self._silent:
            raise httpcore2.ConnectTimeout
        return await self._network.connect_tcp("127.0.0.1", self._port, timeout)


class Names:
    """A name server that answers as it likes, each time something else; the last is repeated."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self._answers = list(answers)
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        """Answer."""
        self.asked.append((host, port))
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


@contextlib.asynccontextmanager
async def receiver(authority: Authority, web: Web) -> AsyncIterator[Server]:
    """A receiver of this name, with a valid certificate."""
    async with serving(web, authority.server(NAME)) as server:
        yield server


def target(url: str = f"https://{NAME}/hook") -> Target:
    """A target at a name."""
    return Target("webhook", url, (new_secret(),))


# -- which addresses -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.100.100.200"),
        *("127.0.0.1", "127.255.255.254", "169.254.169.254", "172.16.0.1", "172.31.255.255"),
        *("192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1", "198.19.255.255"),
        *("198.51.100.7", "203.0.113.7", "168.63.129.16", "224.0.0.1", "239.255.255.255"),
        *("240.0.0.1", "255.255.255.255"),
        *(
            "::",
            "::1",
            "::7f00:1",
            "fe80::1",
            "fe80::1%eth0",
            "fec0::1",
            "fc00::1",
            "fd00:ec2::254",
        ),
        *("ff02::1", "100::1", "2001::1", "2001:0:7f00:1::", "2001:2::1", "2001:20::1"),
        *("2001:db8::1", "2002:7f00:1::", "2002:a9fe:a9fe::", "3fff::1", "5f00::1"),
        *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:0:127.0.0.1"),
        *("64:ff9b::10.0.0.1", "64:ff9b::169.254.169.254", "64:ff9b:1::808:808"),
    ],
)
def test_an_address_that_is_not_on_the_internet_is_known(address: str) -> None:
    """Private, of this machine, of one link, of a cloud's metadata, in whatever disguise."""
    assert special(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        *("1.1.1.1", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "172.15.0.1"),
        *("172.32.0.0", "192.167.1.1", "192.169.0.0", "198.17.0.1", "198.20.0.0", "223.255.255.1"),
        *("2001:200::1", "2606:4700::1", "2a00:1450::1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"),
    ],
)
def test_an_address_on_the_internet_is_none_of_them(address: str) -> None:
    """Neighbours of the private networks, and IPv4 as networks without it reach it."""
    assert special(ipaddress.ip_address(address)) is None


@given(some.ip_addresses())
def test_no_address_is_let_through_that_the_standard_library_knows_as_special(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    """Two lists that were made apart agree where ours says yes."""
    if special(address) is None:
        four = getattr(address, "ipv4_mapped", None)
        if four is None and address in ipaddress.ip_network("64:ff9b::/96"):
            four = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
        real = four or address
        assert real.is_global
        assert not (real.is_private)
        assert not (real.is_multicast)
        assert not (real.is_reserved)
        assert not (real.is_loopback)
        assert not (real.is_link_local)
        assert not (real.is_unspecified)


# -- names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["169.254.169.254"],
        ["::ffff:10.0.0.1"],
        [PUBLIC, "10.0.0.1"],
        ["fe80::1%eth0", PUBLIC],
    ],
)
async def test_a_name_that_leads_to_a_private_address_is_sent_nothing(
    authority: Authority, addresses: list[str]
) -> None:
    """One of many is enough; which one is not told to who may be guessing names."""
    web = Web()
    async with receiver(authority, web) as server:
        internet = Internet(server)
        channel = Webhook(resolver=Names(addresses), network=internet, tls=authority.trusted())
        result = await channel.send(target(), outgoing(), timeout=LONG)
        await channel.close()

    assert (result.outcome, result.retryable) == ("not_sent", False)
    assert (internet.reached, web.requests) == ([], [])
    assert not any(address in result.detail for address in addresses)


@pytest.mark.parametrize("host", ["127.1", "0x7f.1", "2130706433", "0177.1"])
async def test_other_spellings_of_this_machine_lead_nowhere(host: str) -> None:
    """The system's own resolver reads them as 127.0.0.1; what it says is what is checked."""
    channel = Webhook()
    result = await channel.send(target(f"https://{host}/"), outgoing(), timeout=LONG)
    await channel.close()

    assert (await resolve(host, 443), result.outcome) == (["127.0.0.1"], "not_sent")
    assert "private" in result.detail


async def test_this_machine_by_its_own_name_leads_nowhere() -> None:
    """With the real resolver, whatever the hosts file says."""
    channel = Webhook()
    found = await resolve("localhost", 443)
    result = await channel.send(target("https://localhost:443/"), outgoing(), timeout=LONG)
    await channel.close()

    assert all(special(ipaddress.ip_address(one)) for one in found)
    assert result.outcome == "not_sent"


async def test_a_name_that_changes_after_the_check_changes_nothing(authority: Authority) -> None:
    """It is asked once; the connection goes where was checked, TLS and Host speak to the name."""
    names = Names([PUBLIC], ["127.0.0.1"])
    web = Web()
    async with receiver(authority, web) as server:
        internet = Internet(server)
        channel = Webhook(resolver=names, network=internet, tls=authority.trusted())
        result = await channel.send(target(), outgoing(), timeout=LONG)
        await channel.close()

    assert result.outcome == "accepted"
    assert (names.asked, internet.reached) == ([(NAME, 443)], [PUBLIC])
    assert [request.headers["host"] for request in web.requests] == [NAME]


async def test_each_new_connection_is_checked_anew(authority: Authority) -> None:
    """A name that was good for the first message does not lead the second one home."""
    names = Names([PUBLIC], ["127.0.0.1"])
    web = Web(response(200, connection="close"))
    async with receiver(authority, web) as server:
        internet = Internet(server)
        channel = Webhook(resolver=names, network=internet, tls=authority.trusted())
        first = await channel.send(target(), outgoing(seq=1), timeout=LONG)
        second = await channel.send(target(), outgoing(seq=2), timeout=LONG)
        await channel.close()

    assert (first.outcome, second.outcome) == ("accepted", "not_sent")
    assert (internet.reached, len(web.requests)) == ([PUBLIC], 1)


async def test_names_at_one_address_share_no_connection(authority: Authority) -> None:
    """What was verified for one name carries no message for another."""
    web = Web()
    async with receiver(authority, web) as server:
        channel = Webhook(
            resolver=Names([PUBLIC]), network=Internet(server), tls=authority.trusted()
        )
        await channel.send(target(), outgoing(), timeout=LONG)
        other = await channel.send(target("https://other.example/"), outgoing(), timeout=LONG)
        await channel.close()

    assert (other.outcome, len(web.requests)) == ("not_sent", 1)
    assert "certificate" in other.detail


async def test_an_address_that_is_silent_leaves_time_for_the_next(authority: Authority) -> None:
    """As a name with IPv6 needs it where IPv6 goes nowhere."""
    async with receiver(authority, Web()) as server:
        internet = Internet(server, silent=[SIX])
        channel = Webhook(
            resolver=Names([SIX, PUBLIC, OTHER]), network=internet, tls=authority.trusted()
        )
        result = await channel.send(target(), outgoing(), timeout=LONG)
        await channel.close()

    assert (result.outcome, internet.reached) == ("accepted", [SIX, PUBLIC])


async def test_a_name_without_an_address_is_sent_nothing(authority: Authority) -> None:
    """And may have one later."""
    async with receiver(authority, Web()) as server:
        channel = Webhook(resolver=Names([]), network=Internet(server))
        result = await channel.send(target(), outgoing(), timeout=LONG)
        await channel.close()

    assert (result.outcome, result.retryable) == ("not_sent", True)


async def test_proxies_of_the_environment_are_not_used(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would look the name up again, out of our sight."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with receiver(authority, Web()) as server:
        channel = Webhook(
            resolver=Names([PUBLIC]), network=Internet(server), tls=authority.trusted()
        )
        result = await channel.send(target(), outgoing(), timeout=LONG)
        await channel.close()

    assert result.outcome == "accepted"


async def test_private_targets_can_be_allowed_and_are_pinned_all_the_same() -> None:
    """For who delivers within their own network."""
    names = Names(["127.0.0.1"], ["127.0.0.2"])
    async with serving(Web()) as server:
        channel = Webhook(allow_private=True, resolver=names)
        where = target(f"http://hook.internal:{server.port}/")
        results = await asyncio.gather(channel.send(where, outgoing(), timeout=LONG))
        await channel.close()

    assert [result.outcome for result in results] == ["accepted"]
    assert names.asked == [("hook.internal", server.port)]
