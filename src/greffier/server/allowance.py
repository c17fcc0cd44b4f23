"""What a user may still send: messages of role ``user`` are charged before they are stored.

Before, so that two requests at once cannot both take the last one; what turns out to have been
there already, or is refused, is given back.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self, TypeAlias
from urllib.parse import urlsplit
from uuid import UUID

from greffier.access import myself
from greffier.errors import Invalid, RateLimited, SettingsError, Unavailable
from greffier.server.ratelimit import Buckets, Rate, Verdict

if TYPE_CHECKING:
    from greffier.server.call import Call

#: Counts how many of some message ids are on record where the caller wants to write them.
OnRecord: TypeAlias = Callable[[Sequence[UUID]], Awaitable[int]]

#: The policy's name in the headers RateLimit and RateLimit-Policy.
POLICY = "messages"


class Drafted(Protocol):
    """A message to be stored, as far as its charge goes."""

    @property
    def id(self) -> UUID | None:
        """The caller's own id, which a message sent again has."""

    @property
    def role(self) -> str:
        """Only those of role ``user`` are limited."""


class Charge:
    """What one request costs a user."""

    __slots__ = ("_buckets", "_call", "_cost", "_short", "_user", "_verdict")

    def __init__(self, call: Call, buckets: Buckets, user: str, cost: int) -> None:
        self._call = call
        self._buckets = buckets
        self._user = user
        self._cost = cost
        self._verdict = buckets.take(user, cost)
        self._short = not self._verdict.allowed
        self._tell()

    async def settle(self, drafts: Sequence[Drafted], on_record: OnRecord) -> None:
        """Let messages that are on record pass when too little is left: they are free.

        Raises:
            RateLimited: It is too little for the others.
            Invalid: It never would be enough.
        """
        if not self._short:
            return
        ids = [one.id for one in drafts if one.role == "user" and one.id is not None]
        known = await on_record(ids) if ids else 0
        rate = self._buckets.rate
        if self._cost - known > rate.burst:
            raise Invalid.at(
                "/messages",
                "too-many",
                f"At most {rate.burst} new messages of role user at once, which is the rate limit.",
            )
        self._cost -= known
        self._verdict = self._buckets.take(self._user, self._cost)
        self._tell()
        if not self._verdict.allowed:
            raise RateLimited(
                f"You may send {rate.count} messages in {rate.period:g} seconds in the long run, "
                f"and {rate.burst} at once.",
                retry_after=self._verdict.seconds,
            )
        self._short = False

    def stored(self, count: int) -> None:
        """Say how many messages of role ``user`` are new; the others are given back."""
        self._give_back(self._cost - count)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # Of an append that nobody knows the end of, the messages may be on record.
        if kind is not None and issubclass(kind, Exception) and kind is not Unavailable:
            self._give_back(0 if self._short else self._cost)

    def _give_back(self, count: int) -> None:
        if count > 0:
            self._buckets.give_back(self._user, count)
            left, seconds = self._verdict.remaining + count, self._verdict.seconds
            seconds = max(0.0, seconds - count * self._buckets.rate.spacing)
            self._verdict = Verdict(self._verdict.allowed, left, seconds)
            self._cost -= count
            self._tell()

    def _tell(self) -> None:
        verdict = self._verdict
        line = f'"{POLICY}";r={verdict.remaining};t={-int(-verdict.seconds // 1)}'
        self._call.extra = (
            (b"ratelimit", line.encode()),
            (b"ratelimit-policy", policy(self._buckets.rate).encode()),
        )


class _Free:
    """Costs nothing: nobody is limited, or not this caller."""

    async def settle(self, drafts: Sequence[Drafted], on_record: OnRecord) -> None:
        """Let everything pass."""

    def stored(self, count: int) -> None:
        """Give nothing back."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


FREE = _Free()


def charge(call: Call, drafts: Sequence[Drafted]) -> Charge | _Free:
    """Charge a user for the messages of role ``user`` among these.

    Admins and services are not limited, nor is a service that acts for a user: it is the service
    that decides how much it lets through.
    """
    buckets = call.service.buckets
    if buckets is None or call.principal.role != "user":
        return FREE
    cost = sum(one.role == "user" for one in drafts)
    return Charge(call, buckets, myself(call.principal), cost) if cost else FREE


def policy(rate: Rate) -> str:
    """Say a rate as the header RateLimit-Policy does: so many, and the seconds they take to return.

    See draft-ietf-httpapi-ratelimit-headers; a token bucket is its burst, refilled.
    """
    return f'"{POLICY}";q={rate.burst};w={round(rate.burst * rate.spacing)}'


def open_buckets(rate: Rate | None, dsn: str, folder: Path | None) -> Buckets | None:
    """Open the buckets that the processes of this service on this machine share.

    Args:
        rate: The limit; None is none.
        dsn: The database: whose processes share them.
        folder: The data folder, when this service has one; else a place of our own among the
            temporary files, which does not outlive the machine's, and need not.

    Raises:
        SettingsError: There is no place for them that is ours alone.
    """
    if rate is None:
        return None
    if folder is not None:
        return Buckets(rate, folder / "rate-limit")
    url = urlsplit(dsn)
    # Without user and password, which processes of one service need not share.
    place = f"{url.hostname}|{url.port}|{url.path}|{url.query}"
    name = hashlib.blake2b(place.encode(), digest_size=8).hexdigest()
    return Buckets(rate, _private_folder() / f"rate-limit-{name}")


def _private_folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"greffier-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise SettingsError(f"RATE_LIMIT: {folder} cannot be made: {error.strerror}.") from error
    # Whoever made it before us could otherwise forgive everybody, or lead us to a file of ours.
    if found.st_uid != os.getuid() or found.st_mode & 0o170077 != 0o040000:
        raise SettingsError(
            f"RATE_LIMIT: {folder} is somebody else's, or open to others. Remove it, set TMPDIR to "
            "another folder, or RATE_LIMIT to off."
        )
    return folder
