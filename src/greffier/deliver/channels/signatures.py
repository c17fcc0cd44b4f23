"""Signatures after Standard Webhooks, ours and those of who writes to us.

The official package signs.  It is not used to verify as it is: it takes its own clock and
tolerance, and raises whatever it stumbles over in a malformed header; what is compared here is a
signature that it makes.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets as randomness
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from standardwebhooks import Webhook as Signer

from greffier.errors import Problem, Unauthenticated

PREFIX = "whsec_"
#: Bytes of a secret: what we make, and what the specification allows.
BYTES = 32
SHORTEST, LONGEST = 24, 64
#: Seconds by which a message may be older or newer than we are.
TOLERANCE = 300.0
#: Signatures of one message that are looked at; a rotation needs two.
MOST_SIGNATURES = 10


def new_secret() -> str:
    """Make a secret."""
    return PREFIX + base64.b64encode(randomness.token_bytes(BYTES)).decode()


def check_secret(secret: str, pointer: str) -> Problem | None:
    """Say what is wrong with a secret, if anything, without showing it."""
    if not secret.startswith(PREFIX):
        return Problem(pointer, "secret", f"A secret starts with {PREFIX}.")
    bare = secret.removeprefix(PREFIX).rstrip("=")
    try:
        key = base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)
    except (binascii.Error, ValueError):
        return Problem(pointer, "secret", f"After {PREFIX} a secret is base64.")
    if not SHORTEST <= len(key) <= LONGEST:
        return Problem(pointer, "secret", f"A secret has {SHORTEST} to {LONGEST} bytes.")
    return None


def sign(secrets: Iterable[str], webhook_id: str, at: datetime, body: bytes) -> dict[str, str]:
    """Make the three headers of a message.

    Args:
        secrets: All that hold at the moment, newest first; each makes a signature.
        webhook_id: The message's id, the same for all tries.
        at: When this try is made.
        body: What is sent, in UTF-8.
    """
    # The package takes the wall time it is given for UTC.
    at, text = at.astimezone(UTC), body.decode()
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(Signer(one).sign(webhook_id, at, text) for one in secrets),
    }


def verify(
    secrets: Iterable[str],
    headers: Mapping[str, str],
    body: bytes,
    *,
    now: datetime,
    tolerance: float = TOLERANCE,
) -> str:
    """Check that a message comes from who has one of the secrets, as it is and lately.

    Args:
        secrets: All that hold at the moment.
        headers: Those of the request, in any case.
        body: Its body, before anything has read it.
        now: What time it is.
        tolerance: Seconds by which it may be old, or ahead of us.

    Returns:
        The message's id: who keeps the ids it has seen for twice the tolerance takes nothing twice.

    Raises:
        Unauthenticated: It does not, or that cannot be said.
    """
    found = {name.lower(): value for name, value in headers.items()}
    webhook_id, timestamp, given = (
        found.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature")
    )
    if not (webhook_id and timestamp and given):
        raise Unauthenticated("webhook-id, webhook-timestamp and webhook-signature are needed.")
    # isdecimal is true of other scripts' digits, too.
    if not (timestamp.isascii() and timestamp.isdecimal() and len(timestamp) <= 12):
        raise Unauthenticated("webhook-timestamp is no number of seconds.")
    if abs(now.timestamp() - int(timestamp)) > tolerance:
        raise Unauthenticated("webhook-timestamp is too far from now.")
    try:
        text = body.decode()
        at = datetime.fromtimestamp(int(timestamp), UTC)
        rightful = [Signer(one).sign(webhook_id, at, text).encode() for one in secrets]
    except UnicodeError:
        raise Unauthenticated("The body is not UTF-8.") from None
    signatures = [one.encode(errors="replace") for one in given.split(" ")[:MOST_SIGNATURES]]
    # No short cut: how long it takes says nothing about which one nearly fitted.
    matches = [hmac.compare_digest(one, other) for one in rightful for other in signatures]
    if not any(matches):
        raise Unauthenticated("No signature fits.")
    return webhook_id
