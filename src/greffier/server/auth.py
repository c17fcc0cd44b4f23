"""Who bears a token.  An authenticator knows one kind of token; all answer with a principal."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Protocol

import jwt

from greffier.access import Principal, Role, Via
from greffier.errors import Unauthenticated
from greffier.model import text

#: The one algorithm: never chosen by the token, whose bearer could then choose "none".
ALGORITHMS = ["HS256"]
#: Seconds by which the clocks of the issuer and ours may differ.
LEEWAY = 5
#: Verified tokens that are remembered: checking one costs 25 us, a third of an append's Python.
REMEMBERED_TOKENS = 4096
LONGEST_TOKEN = 8192
LONGEST_ID = 256


class Authenticator(Protocol):
    """Tells who bears a token."""

    async def identify(self, token: str) -> Principal:
        """Verify a token.

        Raises:
            Unauthenticated: It is not valid, or not any more.
        """


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
        self._audience = audience
        self._issuer = issuer
        self._role_claim = role_claim
        self._via = via
        self._known: OrderedDict[str, tuple[Principal, float]] = OrderedDict()

    async def identify(self, token: str) -> Principal:
        """Verify a token, or remember that it was; see ``Authenticator``."""
        known = self._known.get(token)
        if known is not None:
            principal, until = known
            if time.time() < until:
                self._known.move_to_end(token)
                return principal
            del self._known[token]
        principal, expires = self._verify(token)
        self._known[token] = (principal, expires + LEEWAY)
        if len(self._known) > REMEMBERED_TOKENS:
            self._known.popitem(last=False)
        return principal

    def _verify(self, token: str) -> tuple[Principal, float]:
        if len(token) > LONGEST_TOKEN:
            raise Unauthenticated("This token is too long to be one of ours.")
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                self._secret,
                algorithms=ALGORITHMS,
                audience=self._audience,
                issuer=self._issuer,
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
            raise Unauthenticated("This token is not valid.") from None
        role: Role = "admin" if _is_admin(claims, self._role_claim) else "user"
        return (
            Principal(
                user_id=_user_id(claims["sub"]),
                name=_label(claims, "name"),
                email=_label(claims, "email"),
                role=role,
                via=self._via,
            ),
            expires,
        )


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
    return jwt.encode(claims, secret, algorithm=ALGORITHMS[0])


def _user_id(sub: str) -> str:
    if not sub or text.faults(sub, "/sub") or len(sub.encode()) > LONGEST_ID:
        raise Unauthenticated(f"The claim sub names a user in 1 to {LONGEST_ID} bytes.")
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
