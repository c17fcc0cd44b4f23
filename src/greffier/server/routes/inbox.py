"""The inbox: signed messages from outside, each once, answered after the commit.

Who calls is told by the source's secret over the body alone, before anything has read it, so that
what is forged, old or altered is refused whatever else it is.
"""

from __future__ import annotations

import hmac
from datetime import UTC, datetime
from uuid import UUID

from greffier.change import source as verbs
from greffier.deliver.channels import signatures
from greffier.errors import (
    IdReused,
    Invalid,
    NotFound,
    Unauthenticated,
    Unavailable,
    UnsupportedMediaType,
)
from greffier.model.source import Incoming, Receipt, Received, StatusReport, read_telegram
from greffier.read import endpoints as reads
from greffier.server.answers import Answer, encoded, no_content
from greffier.server.call import Call
from greffier.server.decode import json_decoder
from greffier.server.table import Route

_incoming = json_decoder(Incoming)
_report = json_decoder(StatusReport)
_TELEGRAM = b"x-telegram-bot-api-secret-token"


async def _open(call: Call) -> reads.Opening:
    """Let in who has one of the source's secrets.

    Raises:
        NotFound: There is no such source.
        Unauthenticated: They have none, or the signature is not of this body and this hour.
    """
    found = await reads.opening(call.service.database, call.params["source_id"])
    if found is None:
        raise NotFound
    if found.adapter == "telegram":
        given = call.headers.get(_TELEGRAM, b"")
        # No short cut, as in the signatures.
        matches = [hmac.compare_digest(given, one.encode()) for one in found.secrets]
        if not any(matches):
            raise Unauthenticated("X-Telegram-Bot-Api-Secret-Token is the secret of the source.")
    else:
        headers = {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in call.headers.items()
            if name.startswith(b"webhook-")
        }
        signatures.verify(found.secrets, headers, call.body, now=datetime.now(UTC))
    return found


async def receive_message(call: Call) -> Answer:
    """Take a message from outside, signed with the secret of its source (Standard Webhooks).

    It is committed when this answers: 202. The same ``external_id`` again changes nothing and is
    answered with 200. Each contact has one conversation, begun anew when it was archived. If the
    source has an agent, it answers, and what it says leaves by the source's endpoint; messages that
    come while it answers, or shortly before, are answered together.

    A source with the adapter ``telegram`` takes the updates of a bot's webhook as they are.
    """
    opening = await _open(call)
    incoming = read_telegram(call.body) if opening.adapter == "telegram" else _incoming(call.body)
    if incoming is None:
        return no_content()
    service = call.service
    source_id: UUID = call.params["source_id"]
    received = await verbs.receive(service.database, source_id, incoming, limits=service.limits)
    if received.answering:
        service.work_is_due(received.conversation_id)
    answer = encoded(received)
    answer.status = 200 if received.replayed else 202
    return answer


async def receive_status(call: Call) -> Answer:
    """Hear what became of a message that left by the source's endpoint, signed as a message is.

    ``sent``, ``delivered``, ``read``: it only moves forward; ``failed`` is no news of what was
    delivered.
    """
    opening = await _open(call)
    told: StatusReport = _report(call.body)
    status = await verbs.report(call.service.database, opening.endpoint_id, told)
    return encoded(Receipt(external_id=told.external_id, status=status))


def _as_it_is(body: bytes) -> bytes:
    return body


_SIGNED = {
    "webhook-id": "Names the message for who sends it, the same for all tries.",
    "webhook-timestamp": "Seconds since 1970, at most five minutes from now.",
    "webhook-signature": "v1, and the signature; several, with a blank between, while it rotates.",
    "X-Telegram-Bot-Api-Secret-Token": "Of the adapter telegram, instead of the three.",
}
_ONE = "/v1/inbox/{source_id}"

ROUTES = (
    Route(
        method="POST",
        path=_ONE,
        handler=receive_message,
        request=Incoming,
        decode=_as_it_is,
        response=Received,
        status=202,
        also={
            200: "A message of this external_id was there; nothing changed.",
            204: "There is nothing to answer in it (of the adapter telegram).",
        },
        errors=(Unauthenticated, NotFound, IdReused, Invalid, UnsupportedMediaType, Unavailable),
        auth=False,
        writes=True,
        request_headers=_SIGNED,
    ),
    Route(
        method="POST",
        path=f"{_ONE}/status",
        handler=receive_status,
        request=StatusReport,
        decode=_as_it_is,
        response=Receipt,
        errors=(Unauthenticated, NotFound, Invalid, UnsupportedMediaType, Unavailable),
        auth=False,
        writes=True,
        request_headers=_SIGNED,
    ),
)
