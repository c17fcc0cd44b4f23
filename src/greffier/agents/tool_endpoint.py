"""Tools that are HTTPS endpoints: asked by a signed POST, whose answer's body is the result."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import httpcore2
import msgspec

from greffier.agents.tools import LARGEST_RESULT, ToolFailed, ToolRun
from greffier.deliver.channels import signatures
from greffier.deliver.channels.addresses import GuardedNetwork, Resolver, resolve
from greffier.deliver.channels.http import Silence, pool, post

#: Seconds an endpoint may take.
TIMEOUT: Final = 30.0


def _now() -> datetime:
    return datetime.now(UTC)


class EndpointTools:
    """Calls tools over HTTPS (``tools.Endpoint``).

    The body is ``{"type": "tool.call", "conversation_id", "run_id", "call_id", "name",
    "arguments", "asked_by"}``, signed after Standard Webhooks; ``webhook-id`` is the same each time
    a call is made.
    An answer of 200 to 299 is the result as it is; any other is told to the model as a failure.
    """

    def __init__(
        self,
        secret: str | None,
        *,
        allow_private: bool = False,
        resolver: Resolver = resolve,
        tls: ssl.SSLContext | None = None,
        clock: Callable[[], datetime] = _now,
    ) -> None:
        """Describe it; nothing is opened yet.

        Args:
            secret: What calls are signed with; without it none is made.
            allow_private: Whether endpoints may be elsewhere than on the internet.
            resolver: Looks names up.
            tls: Whose certificates to trust.
            clock: What time it is.
        """
        self._secret = secret
        self._clock = clock
        self._resolver, self._tls, self._private = resolver, tls, allow_private
        self._connections: httpcore2.AsyncConnectionPool | None = None

    async def __call__(self, url: str, name: str, arguments: str, run: ToolRun) -> str:
        """Ask an endpoint.

        Raises:
            ToolFailed: It did not answer, or refused.
        """
        if self._secret is None:
            raise ToolFailed("this server has no secret to sign the call with (TOOL_SECRET)")
        body = msgspec.json.encode(
            {
                "type": "tool.call",
                "conversation_id": run.conversation_id,
                "run_id": run.run_id,
                "call_id": run.call_id,
                "name": name,
                "arguments": arguments,
                "asked_by": run.asked_by,
            }
        )
        if self._connections is None:
            network = GuardedNetwork(allow_private=self._private, resolver=self._resolver)
            self._connections = pool(network, self._tls)
        answer = await post(
            self._connections,
            url,
            {
                "Content-Type": "application/json",
                # What the model calls it may be no text for a header, and another call's too.
                **signatures.sign((self._secret,), f"call_{run.key.hex}", self._clock(), body),
                "Greffier-Fence": str(run.fence),
            },
            body,
            timeout=TIMEOUT,
            wanted=LARGEST_RESULT + 1,
        )
        if isinstance(answer, Silence):
            raise ToolFailed(f"{name} did not answer: {answer.detail}")
        if not 200 <= answer.status < 300:
            raise ToolFailed(f"{name} answered {answer.status}")
        return answer.body.decode(errors="replace")

    async def close(self) -> None:
        """Close all connections."""
        if self._connections is not None:
            await self._connections.aclose()
