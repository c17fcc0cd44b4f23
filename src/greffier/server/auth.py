"""Who bears a token.  An authenticator knows one kind of token; all answer with a principal."""

from __future__ import annotations

import base64
import functools
import json
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import jwt

from greffier.access import Principal, Via
from greffier.errors import Unauthenticated
from greffier.model import text
from greffier.model.key import PREFIX as KEY_PREFIX
from greffier.model.person import is_reserved

#: The one algorithm of a shared secret.
HS256 = "HS256"
#: Seconds by which the clocks of the issuer and ours may differ.
LEEWAY = 5
#: Verified tokens that are remembered: checking one costs 25 us, a third of an append's Python.
REMEMBERED_TOKENS = 4096
LONGEST_TOKEN = 8192
LONGEST_HEADER = 2048
LONGEST_ID = 256
NOT_VALID = "This token is not valid."


class Authenticator(Protocol):
    """Tells who bears a token."""

    async def identify(self, token: str) -> Principal:
        """Verify a token.

        Raises:
            Unauthenticated: It is not valid, or not any more.
        """


@dataclass(frozen=True, slots=True)
class Claims:
    """What a JSON web token must say, whoever signed it, and what is read from it.

    Attributes:
        audience: Whom a token must be for; without it a token that names somebody is refused.
        issuer: Who must have issued it.
        role_claim: The claim that makes an admin.
        via: How its principals come in.
    """

    audience: str | None = None
    issuer: str | None = None
    role_claim: str = "role"
    via: Via = "token"

    def verify(self, token: str, key: Any, algorithm: str) -> tuple[Principal, float]:
        """Verify a token's signature and claims.

        Args:
            token: The token.
            key: The key it must be signed with.
            algorithm: The one algorithm: never the token's choice alone, whose bearer could then
                choose "none", or take a public key for a secret.

        Returns:
            Who bears it, and until when (Unix seconds).

        Raises:
            Unauthenticated: It is not valid.
        """
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=self.audience,
                issuer=self.issuer,
                leeway=LEEWAY,
                options={"require": ["exp", "sub"]},
            )
            expires = float(claims["exp"])
        except jwt.ExpiredSignatureError:
            raise Unauthenticated("This token has expired.") from None
        except jwt.MissingRequiredClaimError as error:
            raise Unauthenticated(f"This token lacks the claim {error.claim}.") from None
        except jwt.InvalidAudienceError:
            raise Unauthenticated("This token is for another audience.") from None
        except jwt.InvalidIssuerError:
            raise Unauthenticated("This token is from another issuer.") from None
        except jwt.ImmatureSignatureError:
            raise Unauthenticated("This token is not valid yet.") from None
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
            # What exactly is wrong helps nobody but a forger.
            raise Unauthenticated(NOT_VALID) from None
        principal = Principal(
            user_id=_user_id(claims["sub"]),
            name=_label(claims, "name"),
            email=_label(claims, "email"),
            role="admin" if _is_admin(claims, self.role_claim) else "user",
            via=self.via,
        )
        return principal, expires


class Verified:
    """The tokens that were verified, until they expire."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, tuple[Principal, float]] = OrderedDict()

    def get(self, token: str) -> Principal | None:
        """Give who bears a token, when it was verified and has not expired since."""
        known = self._known.get(token)
        if known is None:
            return None
        if time.time() < known[1]:
            self._known.move_to_end(token)
            return known[0]
        del self._known[token]
        return None

    def add(self, token: str, found: tuple[Principal, float]) -> Principal:
        """Remember a token that was verified; gives who bears it."""
        principal, expires = found
        self._known[token] = (principal, expires + LEEWAY)
        if len(self._known) > REMEMBERED_TOKENS:
            self._known.popitem(last=False)
        return principal

    def clear(self) -> None:
        """Verify every token anew."""
        self._known.clear()


class SharedSecret:
    """JSON web tokens signed with a secret that the issuer and we share (HS256)."""

    def __init__(
        self,
        secret: bytes,
        *,
        audience: str | None = None,
        issuer: str | None = None,
        role_claim: str = "role",
        via: Via = "token",
    ) -> None:
        """Make an authenticator.

        Args:
            secret: The key, of 32 bytes or more.
            audience: Whom a token must be for; without it a token that names somebody is refused.
            issuer: Who must have issued it.
            role_claim: The claim that makes an admin.
            via: How its principals come in.
        """
        self._secret = secret
        self._claims = Claims(audience, issuer, role_claim, via)
        self._verified = Verified()

    async def identify(self, token: str) -> Principal:
        """Verify a token, or remember that it was; see ``Authenticator``."""
        principal = self._verified.get(token)
        if principal is not None:
            return principal
        check_length(token)
        return self._verified.add(token, self._claims.verify(token, self._secret, HS256))


class Bearers:
    """All the tokens a caller may bring, each to the authenticator of its kind.

    Signed with our secret or by the identity provider is told by the algorithm the token names, and
    each then allows its own alone: a public key is never taken for a secret.
    """

    def __init__(
        self,
        *,
        keys: Authenticator,
        secret: Authenticator | None = None,
        provider: Authenticator | None = None,
    ) -> None:
        """Gather the authenticators.

        Args:
            keys: Of API keys.
            secret: Of tokens signed with the secret.
            provider: Of tokens signed by the identity provider.
        """
        self._keys = keys
        self._secret = secret
        self._provider = provider
        self._only = None if secret and provider else secret or provider or _Nobody()

    async def identify(self, token: str) -> Principal:
        """Verify a token of any kind; see ``Authenticator``."""
        if token.startswith(KEY_PREFIX):
            return await self._keys.identify(token)
        if self._only is not None:
            return await self._only.identify(token)
        kind = self._secret if is_symmetric(token) else self._provider
        assert kind is not None
        return await kind.identify(token)


class _Nobody:
    """Knows no token: only keys open this server."""

    async def identify(self, token: str) -> Principal:
        """Refuse it; see ``Authenticator``."""
        raise Unauthenticated(NOT_VALID)


def check_length(token: str) -> None:
    """Refuse a token before anything is computed over it.

    Raises:
        Unauthenticated: No token of ours is that long.
    """
    if len(token) > LONGEST_TOKEN:
        raise Unauthenticated("This token is too long to be one of ours.")


def header(token: str) -> dict[str, Any]:
    """Read what a token says of its signature, which nobody has verified yet.

    Raises:
        Unauthenticated: It is no JSON web token.
    """
    check_length(token)
    try:
        return jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise Unauthenticated(NOT_VALID) from None


def is_symmetric(token: str) -> bool:
    """Say whether a token claims to be signed with a secret."""
    return _is_symmetric(token.partition(".")[0][:LONGEST_HEADER])


# By the header alone, which all tokens of one signer share.
@functools.lru_cache(maxsize=64)
def _is_symmetric(first: str) -> bool:
    try:
        found = json.loads(base64.urlsafe_b64decode(first + "=" * (-len(first) % 4)))
        return str(found["alg"]).startswith("HS")
    except (ValueError, TypeError, KeyError, RecursionError):
        # Whoever looks at it next refuses it.
        return True


def issue(
    secret: bytes,
    user_id: str,
    *,
    lifetime: float,
    name: str | None = None,
    email: str | None = None,
    admin: bool = False,
    audience: str | None = None,
    issuer: str | None = None,
    role_claim: str = "role",
) -> str:
    """Sign a token that ``SharedSecret`` with the same arguments accepts.

    Args:
        secret: The key.
        user_id: Whom it names.
        lifetime: Seconds until it expires.
        name: For display.
        email: Of the user.
        admin: Whether they may do everything.
        audience: Whom it is for.
        issuer: Who issues it.
        role_claim: Where the role stands; dots lead into nested claims.
    """
    now = int(time.time())
    claims: dict[str, Any] = {
        "sub": user_id,
        "iat": now,
        "exp": now + int(lifetime),
        "name": name,
        "email": email,
        "aud": audience,
        "iss": issuer,
    }
    claims = {claim: value for claim, value in claims.items() if value is not None}
    if admin:
        *outer, last = role_claim.split(".")
        inner = claims
        for step in outer:
            inner = inner.setdefault(step, {})
        inner[last] = "admin"
    return jwt.encode(claims, secret, algorithm=HS256)


def _user_id(sub: str) -> str:
    if not sub or text.faults(sub, "/sub") or len(sub.encode()) > LONGEST_ID:
        raise Unauthenticated(f"The claim sub names a user in 1 to {LONGEST_ID} bytes.")
    if is_reserved(sub):
        raise Unauthenticated(f"No user is called {sub!r}: that is the service itself.")
    return sub


def _label(claims: Mapping[str, Any], claim: str) -> str | None:
    """Take a name for display; one that is too long is cut, it keeps nobody out."""
    value = claims.get(claim)
    if value is None:
        return None
    if not isinstance(value, str) or text.faults(value, f"/{claim}"):
        raise Unauthenticated(f"The claim {claim} is not a text that can be kept.")
    return value[:LONGEST_ID]


def _is_admin(claims: Mapping[str, Any], path: str) -> bool:
    """Read the role; whatever is not exactly admin (Supabase says ``authenticated``) is a user."""
    value: Any = claims.get(path)
    if value is None:
        value = claims
        for step in path.split("."):
            value = value.get(step) if isinstance(value, Mapping) else None
    return value == "admin" or (isinstance(value, list) and "admin" in value)
