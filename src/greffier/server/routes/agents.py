"""Agents: read by everybody who is signed in, written by admins."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from greffier import access
from greffier.change import agent as verbs
from greffier.errors import (
    Forbidden,
    Gone,
    IdReused,
    NotFound,
    PayloadTooLarge,
    Stale,
    UnsupportedMediaType,
)
from greffier.model.agent import Agent, AgentList, AgentPatch, NewAgent
from greffier.read import agents as reads
from greffier.server.answers import Answer, Header, etag, matched_rev, no_content, tagged
from greffier.server.call import Call
from greffier.server.table import Route

_encode = msgspec.json.Encoder().encode


async def create_agent(call: Call) -> Answer:
    """Create an agent, as an admin.

    The id is the idempotency key: the same request under the same id again is answered with the
    agent as it is now and the status 200. A tool with a url is asked there when the model calls
    it; of the others the calls are answered by the server's own program, or by the client.
    """
    access.administrator(call.principal)
    new: NewAgent = call.body
    if new.id is None and (made := call.idempotency_key()) is not None:
        new = msgspec.structs.replace(new, id=made)
    service = call.service
    found, created = await verbs.create(call.database, new, service.agents, limits=service.limits)
    call.params["agent_id"] = found
    answer = await _show(call, (b"location", f"/v1/agents/{found}".encode()))
    answer.status = 201 if created else 200
    return answer


class AgentsQuery(msgspec.Struct, frozen=True):
    """How many; go on with the ``next_cursor`` of the answer."""

    limit: Annotated[int, Meta(extra_json_schema={"minimum": 1, "maximum": 100})] = 20
    cursor: str | None = None


async def list_agents(call: Call) -> Answer:
    """List the agents, the oldest first."""
    access.reader(call.principal)
    asked: AgentsQuery = call.query
    bodies, following = await reads.listing(call.database, limit=asked.limit, cursor=asked.cursor)
    body = b'{"data":[%b],"next_cursor":%b}' % (b",".join(bodies), _encode(following))
    tag = etag(body, call.database.epoch, None)
    return tagged(body, tag, call.headers.get(b"if-none-match"))


async def get_agent(call: Call) -> Answer:
    """Read one agent."""
    access.reader(call.principal)
    return await _show(call, heed=True)


async def update_agent(call: Call) -> Answer:
    """Change an agent, as an admin; what is left out stays as it is.

    Runs that were asked for keep the agent as it was. Nothing changes when it is so already.
    """
    access.administrator(call.principal)
    change: AgentPatch = call.body
    service = call.service
    await verbs.patch(
        call.database,
        call.params["agent_id"],
        change,
        service.agents,
        if_version=matched_rev(call.headers.get(b"if-match"), call.database.epoch),
        limits=service.limits,
    )
    return await _show(call)


async def delete_agent(call: Call) -> Answer:
    """Let an agent begin no more runs, as an admin.

    Its conversations stay, and what it said in them; nobody answers there any more.
    """
    access.administrator(call.principal)
    await verbs.delete(call.database, call.params["agent_id"])
    return no_content()


async def _show(call: Call, *more: Header, heed: bool = False) -> Answer:
    """Answer with the agent and its ETag; ``heed`` If-None-Match."""
    body, version = await reads.get(call.database, call.params["agent_id"])
    tag = etag(body, call.database.epoch, version)
    known = call.headers.get(b"if-none-match") if heed else None
    return tagged(body, tag, known, more=more)


_ALL = "/v1/agents"
_ONE = "/v1/agents/{agent_id}"
_CONDITIONAL = {"If-None-Match": "An ETag; 304 when nothing changed since."}

ROUTES = (
    Route(
        method="GET",
        path=_ALL,
        handler=list_agents,
        query=AgentsQuery,
        response=AgentList,
        errors=(Forbidden,),
        tagged=True,
        request_headers=_CONDITIONAL,
    ),
    Route(
        method="POST",
        path=_ALL,
        handler=create_agent,
        request=NewAgent,
        response=Agent,
        status=201,
        also={200: "It was there, made by the same request."},
        errors=(Forbidden, Gone, IdReused, PayloadTooLarge, UnsupportedMediaType),
        writes=True,
        tagged=True,
        request_headers={
            "Idempotency-Key": "Any text; makes the id when the body has none. Sent again by the "
            "same user it is the same agent."
        },
    ),
    Route(
        method="GET",
        path=_ONE,
        handler=get_agent,
        response=Agent,
        errors=(NotFound,),
        tagged=True,
        request_headers=_CONDITIONAL,
    ),
    Route(
        method="PATCH",
        path=_ONE,
        handler=update_agent,
        request=AgentPatch,
        response=Agent,
        errors=(Forbidden, NotFound, Stale, PayloadTooLarge, UnsupportedMediaType),
        writes=True,
        tagged=True,
        request_headers={
            "If-Match": "The ETag the change was made for; 412 when the agent has changed."
        },
    ),
    Route(
        method="DELETE",
        path=_ONE,
        handler=delete_agent,
        status=204,
        errors=(Forbidden, NotFound),
        writes=True,
    ),
)
