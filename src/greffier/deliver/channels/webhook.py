"""Webhooks: a signed POST to somebody's program (Standard Webhooks).

What can be promised: the receiver gets every message once or more often, each try under the same
``webhook-id`` and with its number, so that it can tell a double and an older try.  What is
uncertain is sent again.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from typing import ClassVar

import httpcore2

from greffier.deliver.channels import signatures
from greffier.deliver.channels.addresses import GuardedNetwork, Resolver, check_url, resolve
from greffier.deliver.channels.http import Silence, pool, post, retry_after
from greffier.deliver.channels.protocol import Channel, OnUncertain, Outgoing, Result, Target
from greffier.errors import Problem


def _now() -> datetime:
    return datetime.now(UTC)


class Webhook(Channel):
    """Sends to URLs."""

    name: ClassVar[str] = "webhook"
    default_on_uncertain: ClassVar[OnUncertain] = "resend"
    idempotent: ClassVar[bool] = True

    def __init__(
        self,
        *,
        allow_private: bool = False,
        resolver: Resolver = resolve,
        network: httpcore2.AsyncNetworkBackend | None = None,
        tls: ssl.SSLContext | None = None,
        clock: Callable[[], datetime] = _now,
    ) -> None:
        """Describe it; nothing is opened yet.

        Args:
            allow_private: Whether targets may be elsewhere than on the internet, and without TLS.
            resolver: Looks names up.
            network: Opens connections to addresses that were checked.
            tls: Whose certificates to trust.
            clock: What time it is.
        """
        self._allow_private = allow_private
        self._clock = clock
        guarded = GuardedNetwork(allow_private=allow_private, resolver=resolver, network=network)
        self._connections = pool(guarded, tls)

    def check_target(self, target: Target) -> tuple[Problem, ...]:
        """Say what is wrong with a URL, or its secrets."""
        found = list(check_url(target.address, "/target", allow_private=self._allow_private))
        if not target.secrets:
            found.append(Problem("/secret", "secret", "A webhook has a secret."))
        read = (signatures.check_secret(secret, "/secret") for secret in target.secrets)
        return (*found, *filter(None, read))

    async def send(
        self,
        target: Target,
        outgoing: Outgoing,
        *,
        timeout: float,  # noqa: ASYNC109 - a channel's interface
    ) -> Result:
        """Post the event.

        ``accepted`` is an answer of 200 to 299, ``rejected`` any other.  410 asks for no further
        message.  Redirects are not followed: where they lead was not agreed on.
        """
        if problems := self.check_target(target):
            return Result("not_sent", problems[0].detail, retryable=False)
        body = outgoing.body
        answer = await post(
            self._connections,
            target.address,
            {
                "Content-Type": "application/json",
                **signatures.sign(target.secrets, outgoing.webhook_id, self._clock(), body),
                "Greffier-Seq": str(outgoing.seq),
                "Greffier-Fence": str(outgoing.fence),
            },
            body,
            timeout=timeout,
        )
        if isinstance(answer, Silence):
            return answer.result
        status = answer.status
        if 200 <= status < 300:
            return Result(
                "accepted", f"Answered {status}.", status, external_id=outgoing.webhook_id
            )
        gone = status == 410
        words = "It wants no more." if gone else "Redirects are not followed." * (status < 400)
        return Result(
            "rejected",
            f"Answered {status}. {words}",
            status,
            retry_after=retry_after(answer.headers, self._clock()),
            retryable=not gone,
            disable=gone,
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._connections.aclose()
