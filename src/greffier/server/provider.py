"""Tokens that an identity provider signs with keys it publishes (JWKS, RFC 7517).

The keys are fetched when they are first needed, fetched again as they age or when a token names one
that we lack, and kept while the provider is away.  Nothing of a token chooses where they come from
(``jku``, ``x5u`` and ``jwk`` are not looked at), nor what kind of key is used: that must be the one
its algorithm is made for.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any

import jwt

from greffier._version import __version__
from greffier.access import Principal
from greffier.errors import Unauthenticated, Unavailable
from greffier.server.auth import NOT_VALID, Claims, Verified, header

#: Algorithm → the kind of key it is made for.  None is symmetric: the keys are public.
ALGORITHMS: Mapping[str, str] = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), "RSA"),
    "ES256": "P-256",
    "ES384": "P-384",
    "EdDSA": "Ed25519",
}
#: A shorter RSA key can be broken (RFC 7518, 3.3).
RSA_BITS = 2048
#: Seconds after which keys are looked at again, while they are still used.
FRESH = 300.0
#: Seconds for which they are used while the provider is away.
STALE = 24 * 3600.0
#: Seconds between two fetches because of unknown keys: anybody can name one.
PAUSE = 10.0
#: Seconds between two fetches that fail, at first.
RETRY = 1.0
#: Seconds and bytes that one fetch may take.
PATIENCE = 5.0
LONGEST = 1 << 20


@dataclass(frozen=True, slots=True)
class Key:
    """A public key, as the provider describes it."""

    kid: str | None
    kind: str
    algorithm: str | None
    material: Any

    def fits(self, kid: str | None, algorithm: str) -> bool:
        """Say whether a token of this header may be signed with it."""
        return (
            self.kid == kid
            and ALGORITHMS[algorithm] == self.kind
            and self.algorithm in (None, algorithm)
        )


def read_keys(document: bytes) -> tuple[Key, ...]:
    """Read a key set; keys that are not for us (to encrypt, of other kinds) are passed over.

    Raises:
        ValueError: It is no key set, or has no key that could verify a token.
    """
    try:
        found = json.loads(document)
        listed = found["keys"]
    except (ValueError, KeyError, TypeError, RecursionError):
        msg = "it answers with something that is no key set"
        raise ValueError(msg) from None
    keys = tuple(key for one in _objects(listed) if (key := _read_key(one)) is not None)
    if not keys:
        msg = "it has no key that could verify a token"
        raise ValueError(msg)
    return keys


def _objects(listed: object) -> Iterable[dict[str, Any]]:
    return (one for one in listed if isinstance(one, dict)) if isinstance(listed, list) else ()


def _read_key(one: dict[str, Any]) -> Key | None:
    kind = {"RSA": "RSA", "EC": one.get("crv"), "OKP": one.get("crv")}.get(str(one.get("kty")))
    named = one.get("alg")
    algorithm = named or next((a for a, made_for in ALGORITHMS.items() if made_for == kind), None)
    kid, uses = one.get("kid"), one.get("key_ops", ["verify"])
    if (
        not isinstance(algorithm, str)
        or kind is None
        or ALGORITHMS.get(algorithm) != kind
        or one.get("use", "sig") != "sig"
        or not isinstance(uses, list)
        or "verify" not in uses
        or not isinstance(kid, str | None)
        # A private key that everybody can read: everybody could sign.
        or "d" in one
    ):
        return None
    try:
        material = jwt.PyJWK(one, algorithm).key
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    if kind == "RSA" and material.key_size < RSA_BITS:
        return None
    return Key(kid, kind, named, material)


class KeySet:
    """The provider's keys, as they were when last seen."""

    def __init__(
        self,
        url: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        failed: Callable[[str], None] = lambda _why: None,
    ) -> None:
        """Describe the key set; nothing is fetched yet.

        Args:
            url: Where it is.
            clock: Seconds, from anywhere on.
            failed: Told why a fetch failed.
        """
        self._url = url
        self._failed = failed
        self._clock = clock
        self.keys: tuple[Key, ...] = ()
        self._seen_at = -math.inf
        # When a fetch may be made: at all, and because of an unknown key.
        self._next = self._next_unknown = -math.inf
        self._failures = 0
        self._reason = "not fetched yet"
        self._fetch: asyncio.Task[None] | None = None

    @property
    def usable(self) -> bool:
        """Whether there are keys that may still be used."""
        return self._clock() < self._seen_at + STALE

    def fitting(self, kid: str | None, algorithm: str) -> list[Key]:
        """List the keys that a token with this header may be signed with.

        A token that names no key is signed with the only one of its kind, if there is only one.
        """
        if kid is not None:
            return [key for key in self.keys if key.fits(kid, algorithm)]
        found = [key for key in self.keys if key.fits(key.kid, algorithm)]
        return found if len(found) == 1 else []

    async def look_for(self, kid: str | None, algorithm: str) -> list[Key]:
        """Find the keys for a token, asking the provider for those we lack.

        Raises:
            Unavailable: There are no keys, and the provider does not give any.
        """
        if not self.usable:
            await self._refreshed()
            if not self.usable:
                raise Unavailable(
                    "The identity provider does not give its keys.",
                    retry_after=max(1.0, self._next - self._clock()),
                )
        found = self.fitting(kid, algorithm)
        if found or self._clock() < self._next_unknown:
            return found
        self._next_unknown = self._clock() + PAUSE
        await self._refreshed()
        return self.fitting(kid, algorithm)

    def keep_fresh(self) -> None:
        """Ask the provider again when the keys are old, without waiting for its answer."""
        if self._clock() >= self._seen_at + FRESH:
            self._refresh()

    async def why_not_ready(self) -> str | None:
        """Say why nobody of the provider's can come in, or None when they can."""
        if not self.usable:
            await self._refreshed()
        return None if self.usable else f"The identity provider's keys: {self._reason}."

    def _refresh(self) -> asyncio.Task[None] | None:
        if self._fetch is None and self._clock() >= self._next:
            self._fetch = asyncio.create_task(self._load())
        return self._fetch

    async def _refreshed(self) -> None:
        fetch = self._refresh()
        if fetch is not None:
            # Who hangs up ends their own wait, not the fetch of the others.
            await asyncio.shield(fetch)

    async def _load(self) -> None:
        try:
            async with asyncio.timeout(PATIENCE + 1):
                keys = read_keys(await asyncio.to_thread(get, self._url))
        except (OSError, HTTPException, ValueError) as error:
            self._reason = _why(error)
            self._next = self._clock() + min(RETRY * 2**self._failures, PAUSE)
            self._failures = min(self._failures + 1, 10)
            self._failed(self._reason)
        else:
            if keys != self.keys:
                self.keys = keys
            self._seen_at = self._clock()
            self._next = -math.inf
            self._failures = 0
        finally:
            self._fetch = None


def get(url: str) -> bytes:
    """Fetch what is at an address, and at no other: redirections are refused.

    Raises:
        OSError, HTTPException: It does not answer, or not with success, or too slowly.
        ValueError: It is too large.
    """
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.HTTPDefaultErrorHandler,
    ):
        opener.add_handler(handler())
    agent = {"Accept": "application/json", "User-Agent": f"greffier/{__version__}"}
    until = time.monotonic() + PATIENCE
    pieces: list[bytes] = []
    size = 0
    request = urllib.request.Request(url, headers=agent)  # noqa: S310 - http or https: Settings
    with opener.open(request, timeout=PATIENCE) as answer:
        while piece := answer.read1(1 << 16):
            size += len(piece)
            pieces.append(piece)
            if size > LONGEST:
                msg = f"it answers with more than {LONGEST} bytes"
                raise ValueError(msg)
            if time.monotonic() > until:
                raise TimeoutError
    return b"".join(pieces)


def _why(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"it answers {error.code}"
    if isinstance(error, ValueError):
        return str(error)
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    return f"it does not answer ({type(reason).__name__})"


class ProviderTokens:
    """JSON web tokens signed by the identity provider."""

    def __init__(self, keys: KeySet, claims: Claims) -> None:
        """Make an authenticator.

        Args:
            keys: The provider's.
            claims: What a token must say.
        """
        self.keys = keys
        self._claims = claims
        self._verified = Verified()
        self._with: tuple[Key, ...] = ()

    async def identify(self, token: str) -> Principal:
        """Verify a token, or remember that it was; see ``Authenticator``.

        Raises:
            Unauthenticated: It is not valid.
            Unavailable: There are no keys to verify it with.
        """
        keys = self.keys
        keys.keep_fresh()
        if keys.keys is not self._with:
            # A key that was taken back opens nothing any more.
            self._verified.clear()
            self._with = keys.keys
        if keys.usable and (principal := self._verified.get(token)) is not None:
            return principal
        said = header(token)
        algorithm, kid = said.get("alg"), said.get("kid")
        if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
            raise Unauthenticated(NOT_VALID)
        fitting = await keys.look_for(kid, algorithm)
        if not fitting:
            raise Unauthenticated("This token is signed with a key that is not the provider's.")
        # Two keys of one name and kind are a provider's mistake; it is not for us to try them all.
        verified = self._claims.verify(token, fitting[0].material, algorithm)
        if keys.keys is self._with:
            self._verified.add(token, verified)
        return verified[0]
