"""Every route, the hot ones first; a topic a file.

To add one: a handler that asks ``access``, calls its verb and answers, and its entry in the table
of its topic.
"""

from __future__ import annotations

from greffier.server.routes import (
    agents,
    changes,
    conversations,
    endpoints,
    feedback,
    inbox,
    keys,
    live,
    me,
    messages,
    ops,
    people,
    runs,
    service,
    sources,
    subjects,
    usage,
    web,
)
from greffier.server.table import Route

ROUTES: tuple[Route, ...] = (
    *messages.ROUTES,
    *conversations.ROUTES,
    *runs.ROUTES,
    *changes.ROUTES,
    *people.ROUTES,
    *feedback.ROUTES,
    *live.ROUTES,
    *subjects.ROUTES,
    *me.ROUTES,
    *inbox.ROUTES,
    *agents.ROUTES,
    *endpoints.ROUTES,
    *sources.ROUTES,
    *usage.ROUTES,
    *keys.ROUTES,
    *ops.ROUTES,
    *service.ROUTES,
    *web.ROUTES,
)
