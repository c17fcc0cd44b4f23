"""How the service does, for whoever looks after it."""

from __future__ import annotations

from greffier.errors import Unavailable
from greffier.server.answers import Answer, plain, problem
from greffier.server.call import Call
from greffier.server.table import Route


async def healthz(_call: Call) -> Answer:
    """Say that the process lives; the database is not asked."""
    return plain(b'{"status":"alive"}', "application/json")


async def readyz(call: Call) -> Answer:
    """Say whether words can be trusted to this process now, and if not, why."""
    reasons = await call.service.readiness.reasons()
    if reasons:
        error = Unavailable(" ".join(reasons), retry_after=1)
        return problem(error, call.request_id, reasons=reasons)
    return plain(b'{"status":"ready"}', "application/json")


async def metrics(call: Call) -> Answer:
    """Give what is measured, for Prometheus."""
    accept = call.headers.get(b"accept", b"").decode("latin-1")
    await call.service.metrics.refresh()
    body, media = call.service.metrics.exposition(accept)
    return plain(body, media)


ROUTES = (
    Route(method="GET", path="/healthz", handler=healthz, auth=False),
    Route(method="GET", path="/readyz", handler=readyz, errors=(Unavailable,), auth=False),
    Route(method="GET", path="/metrics", handler=metrics, media=("text/plain",), auth=False),
)
