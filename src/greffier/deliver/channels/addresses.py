"""Targets on the internet and nowhere else: what keeps others from sending us into our own network.

Whoever may name a target could name the database beside us, a cloud's metadata service, or a
name of their own that leads there, now or a moment later.  So a name is resolved by us, once for
each connection, *all* its addresses are checked, and the connection is made to one that was
checked: nothing looks the name up a second time.  TLS still speaks to the name and verifies its
certificate.  A connection that is kept open stays where it was checked.

Redirects are not followed (``webhook.py``), and no proxy of the environment is used, which would
resolve the name again.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeAlias

import httpcore2
import httpx2

from greffier.errors import Problem

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolver: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]

#: Characters of a URL.
LONGEST_URL = 2048
#: Addresses of one name that are tried.
MOST_ADDRESSES = 4

#: IANA's special-purpose IPv4 addresses; none is somebody's server on the internet.
_SPECIAL_4 = tuple(
    (ipaddress.IPv4Network(network), what)
    for network, what in (
        ("0.0.0.0/8", "this network"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "a provider's own (CGNAT)"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local, where clouds keep their metadata"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved for protocols"),
        ("192.0.2.0/24", "for documentation"),
        ("192.88.99.0/24", "a relay of 6to4"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "for measurements"),
        ("198.51.100.0/24", "for documentation"),
        ("203.0.113.0/24", "for documentation"),
        # Public by number, but inside Azure it is the host that the machine runs on.
        ("168.63.129.16/32", "a cloud's own"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
    )
)
#: Where an IPv6 address stands for the IPv4 address in its last 32 bits: IPv4-mapped, and NAT64,
#: by which networks without IPv4 reach every target that has nothing else.
_STANDS_FOR_4 = tuple(map(ipaddress.IPv6Network, ("::ffff:0:0/96", "64:ff9b::/96")))
#: All the global unicast there is; loopback, link-local, unique local, multicast … are outside.
_GLOBAL_6 = ipaddress.IPv6Network("2000::/3")
_SPECIAL_6 = tuple(
    (ipaddress.IPv6Network(network), what)
    for network, what in (
        ("2001::/23", "reserved for protocols (Teredo among them)"),
        ("2001:db8::/32", "for documentation"),
        ("2002::/16", "6to4, which stands for an IPv4 address"),
        ("3fff::/20", "for documentation"),
    )
)

_NAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?"
                   r"(?:\.[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?)*\.?\Z")  # fmt: skip


class ForbiddenTarget(Exception):
    """This target is not on the internet."""


def special(address: Address) -> str | None:
    """Say what an address is instead of somebody's on the internet, or None when it is that."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            return "of one link"
        if any(address in network for network in _STANDS_FOR_4):
            return special(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF))
        if address not in _GLOBAL_6:
            return "not global"
        return next((what for network, what in _SPECIAL_6 if address in network), None)
    return next((what for network, what in _SPECIAL_4 if address in network), None)


def read_address(text: str) -> Address | None:
    """Read a literal address in its usual spelling, else None."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def check_url(url: str, pointer: str, *, allow_private: bool = False) -> tuple[Problem, ...]:
    """Say what is wrong with the URL of a target, without resolving its name."""
    if len(url) > LONGEST_URL:
        return (Problem(pointer, "url", f"A URL has at most {LONGEST_URL} characters."),)
    try:
        read = httpx2.URL(url)
        host = read.raw_host.decode("ascii")
    except (httpx2.InvalidURL, ValueError):
        return (Problem(pointer, "url", "This is no URL."),)
    literal = read_address(host)
    found = []
    if read.scheme not in ("http", "https"):
        found.append(Problem(pointer, "url", "It starts with https://."))
    elif read.scheme == "http" and not allow_private:
        found.append(Problem(pointer, "url", "It starts with https://: what was said is private."))
    if read.userinfo:
        found.append(Problem(pointer, "url", "It holds no user and no password."))
    if read.port is not None and not 0 < read.port < 65536:
        found.append(Problem(pointer, "url", "A port is from 1 to 65535."))
    if literal is None and not _NAME.match(host):
        found.append(Problem(pointer, "url", "It names no host."))
    elif not allow_private and (
        (literal is not None and special(literal))
        # RFC 6761: never anybody else's.
        or host.lower().rstrip(".").rpartition(".")[2] == "localhost"
    ):
        found.append(Problem(pointer, "private-target", "It is not on the internet."))
    return tuple(found)


async def resolve(host: str, port: int) -> Sequence[str]:
    """Look a name up as the system does.

    Raises:
        OSError: It has no address, or nobody could say.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class GuardedNetwork(httpcore2.AsyncNetworkBackend):
    """Opens connections to checked addresses only; every connection of a pool is made here."""

    def __init__(
        self,
        *,
        allow_private: bool = False,
        resolver: Resolver = resolve,
        network: httpcore2.AsyncNetworkBackend | None = None,
    ) -> None:
        """Describe it.

        Args:
            allow_private: Let every address pass; what was resolved still stays.
            resolver: Looks names up.
            network: Opens a connection to an address; the system does if nothing is said.
        """
        self._allow_private = allow_private
        self._resolver = resolver
        self._network = network or httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's interface
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Resolve, check, connect.

        Raises:
            ForbiddenTarget: One of the addresses is not on the internet.
            OSError: The name has no address.
            httpcore2.ConnectError: None of the addresses answers.
            httpcore2.ConnectTimeout: The last of them did not in time.
        """
        literal = read_address(host)
        known = (str(literal),) if literal else await self._resolver(host, port)
        addresses = [ipaddress.ip_address(one) for one in known]
        # One bad address is enough: who answers with a public and a private one wants us to
        # connect to whichever it takes.
        if not self._allow_private and any(map(special, addresses)):
            raise ForbiddenTarget(f"{host} is not on the internet")
        if not addresses:
            raise OSError(f"{host} has no address")
        addresses = addresses[:MOST_ADDRESSES]
        failed: Exception | None = None
        for address in addresses:
            try:
                stream = await self._network.connect_tcp(
                    str(address),
                    port,
                    # So that the last is reached when the first is silent.
                    timeout=None if timeout is None else timeout / len(addresses),
                    local_address=local_address,
                    socket_options=socket_options,
                )
                return _Stream(stream)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failed = error
        assert failed is not None
        raise failed

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's interface
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Refuse: a socket on this machine is nobody's on the internet."""
        raise ForbiddenTarget("a socket of this machine")

    async def sleep(self, seconds: float) -> None:
        """Wait between the tries of a connection, of which our pools make one."""
        await self._network.sleep(seconds)


class _Stream(httpcore2.AsyncNetworkStream):
    """A connection that is closed when its handshake is broken off.

    The core closes it when the handshake fails, but not when the task is cancelled, as a timeout of
    ours does it: each silent server would cost a socket until it is collected.
    """

    def __init__(self, stream: httpcore2.AsyncNetworkStream) -> None:
        self._stream = stream

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's interface
    ) -> httpcore2.AsyncNetworkStream:
        try:
            return await self._stream.start_tls(ssl_context, server_hostname, timeout)
        except BaseException:
            await self._stream.aclose()
            raise

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        return await self._stream.read(max_bytes, timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
