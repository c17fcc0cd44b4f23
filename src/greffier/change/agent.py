"""Create, change and delete agents."""

from __future__ import annotations

from uuid import UUID

import msgspec

from greffier.errors import Gone, NotFound, Stale
from greffier.model.agent import (
    ANY,
    ECHO_ID,
    Agent,
    AgentPatch,
    NewAgent,
    Rules,
    check,
    merged,
)
from greffier.model.ids import uuid7
from greffier.model.limits import DEFAULT, Limits
from greffier.store.database import Database

CREATE = "select create_agent_v1($1, $2, $3, $4, $5, $6, $7, $8)"
PATCH = "select patch_agent_v1($1, $2, $3, $4, $5, $6, $7, $8)"
DELETE = "select delete_agent_v1($1)"
LOOK = "select agent_json(a) from agents a where a.id = $1 and a.deleted_at is null"
#: A deleted agent's row stays, so that this is so once in the life of a database.
FIRST = f"{CREATE} where not exists (select from agents)"

_agent = msgspec.json.Decoder(Agent).decode


async def create(
    database: Database, new: NewAgent, rules: Rules = ANY, *, limits: Limits = DEFAULT
) -> tuple[UUID, bool]:
    """Create an agent; the same request again finds it.

    Returns:
        Its id, and whether it was made now.

    Raises:
        Invalid, PayloadTooLarge: The request breaks a rule.
        IdReused: The id names an agent made by another request.
        Gone: This agent was deleted.
    """
    checked = check(new, rules, limits=limits)
    id_ = new.id or uuid7()
    rows = await database.verb(CREATE, id_, checked.request_hash, *checked.columns, again=True)
    made = bool(rows[0][0])
    if not made and new.id is not None and not await database.verb(LOOK, id_, again=True):
        raise Gone("This agent was deleted; its id is remembered so that it cannot come back.")
    return id_, made


async def create_echo(database: Database) -> None:
    """Make the agent "Echo" in a database that never had an agent.

    Who deletes it has it deleted: the next start does not bring it back.

    Raises:
        Unavailable: The database is away.
    """
    echo = check(NewAgent(name="Echo", provider="echo", model="echo"))
    await database.verb(FIRST, ECHO_ID, echo.request_hash, *echo.columns, again=True)


async def patch(
    database: Database,
    agent_id: UUID,
    change: AgentPatch,
    rules: Rules = ANY,
    *,
    if_version: int | None = None,
    limits: Limits = DEFAULT,
) -> int:
    """Change an agent; what is not given stays.  Runs that were asked for keep what it was.

    The whole agent as it will be is checked, so that two changes which each make sense do not make
    nonsense together: it is stored only over the version that was looked at, and looked at again
    when another change came between.

    Args:
        database: Where.
        agent_id: Which.
        change: What; unset fields stay as they are.
        rules: What is known here of providers.
        if_version: Refuse when the agent is no longer at this version.
        limits: How large things may be.

    Returns:
        Its version afterwards; the same as before when nothing changed.

    Raises:
        Invalid, PayloadTooLarge: The agent would break a rule.
        NotFound: There is none.
        Stale: It is no longer at ``if_version``.
    """
    while True:
        # On the connections of verbs: a standby may be behind, and then it would be for ever.
        rows = await database.verb(LOOK, agent_id, again=True)
        if not rows:
            raise NotFound
        agent = _agent(rows[0][0])
        if if_version is not None and agent.version != if_version:
            raise Stale
        wanted = merged(agent, change)
        if wanted == merged(agent, AgentPatch()):
            return agent.version
        checked = check(wanted, rules, limits=limits)
        name, provider, model, instructions, tools, params = checked.columns
        try:
            rows = await database.verb(
                PATCH,
                agent_id,
                agent.version,
                name,
                provider,
                model,
                instructions or "",
                tools,
                params,
                # After a lost answer the second look finds what the first one did.
                again=if_version is None,
            )
        except Stale:
            if if_version is not None:
                raise
            continue
        return int(rows[0][0])


async def delete(database: Database, agent_id: UUID) -> None:
    """Let an agent begin no more runs; what it said keeps its name.

    Raises:
        NotFound: There is none, or it was deleted before.
    """
    rows = await database.verb(DELETE, agent_id, again=False)
    if not rows[0][0]:
        raise NotFound
