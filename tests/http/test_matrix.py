"""Promise: whoever calls whatever, each gets what is theirs, nobody what is another's.

One row a route, one column a caller, each cell the status.  A route without a row fails the test.
"""

from __future__ import annotations

import io
import secrets
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest
import pytest_asyncio

from greffier.server import create_app
from greffier.server.auth import issue
from greffier.server.edge import Edge
from greffier.server.logs import make_logger
from greffier.server.routes import ROUTES
from greffier.store.database import Database, open_database
from helpers.api import SECRET, settings
from helpers.asgi import Answered, ask
from helpers.postgres import connected, new_database

#: The columns.  The stranger has nothing to do with the conversation; who left was removed from it;
#: who is erased was in it and had everything of theirs erased; the key is of the owner's; the bot
#: is a service on its own account, or acts for the owner or the stranger; ops is a key for
#: operations.
CALLERS = [
    *("nobody", "stranger", "left", "erased", "viewer", "member", "owner", "key", "admin"),
    *("bot", "bot for owner", "bot for stranger", "ops"),
]

#: Who may see what was said in the conversation, and what is the owner's own.
SEE_WORDS = {"viewer", "member", "owner", "key", "admin", "bot", "bot for owner"}
SEE_OWN = {"owner", "key", "admin", "bot for owner"}

#: How each of them is answered.  ``..`` is the conversation.  Before the statuses stands what is
#: sent, if something is (SENT); with ``a:`` the conversation is an assistant's, else it is a room.
TABLE = """
                                                nob str lef era vie mem own key adm bot b+o b+s ops
GET    ..                                       401 404 404 404 200 200 200 200 200 200 200 404 403
GET    ../messages                              401 404 404 404 200 200 200 200 200 200 200 404 403
GET    ../messages                   everything 401 404 404 404 200 200 200 200 200 200 200 404 403
GET    ../messages/{owners}                     401 404 404 404 200 200 200 200 200 200 200 404 403
GET    ../messages/{owners}/versions            401 404 404 404 200 200 200 200 200 200 200 404 403
GET    ../messages/{owners}/readers             401 404 404 404 200 200 200 200 200 200 200 404 403
GET    ../context                               401 404 404 404 200 200 200 200 200 200 200 404 403
GET    ../stats                                 401 404 404 404 200 200 200 200 200 200 200 404 403
GET    ../export                                401 404 404 404 200 200 200 200 200 200 200 404 403
GET    ../export                           page 401 404 404 404 200 200 200 200 200 200 200 404 403
GET    ../branches                              401 404 404 404 200 200 200 200 200 200 200 404 403
GET    ../changes                         since 401 404 404 404 200 200 200 200 200 200 200 404 403
GET    ../events                                401 404 404 404 200 200 200 200 200 200 200 404 403
GET    ../presence                              401 404 404 404 200 200 200 200 200 200 200 404 403
GET    ../participants                          401 404 404 404 200 200 200 200 200 200 200 404 403
GET    ../invitations                           401 404 404 404 200 200 200 200 200 200 200 404 403

POST   ../messages                        words 401 404 404 404 403 201 201 201 201 201 201 404 403
POST   ../messages                       answer 401 404 404 404 403 403 403 403 201 201 201 404 403
POST   ../messages                        batch 401 404 404 404 403 403 403 403 201 201 201 404 403
POST   ../messages                      a:words 401 404 404 404 403 201 201 201 201 201 201 404 403
POST   ../messages                     a:answer 401 404 404 404 403 403 201 201 201 201 201 404 403
PATCH  ../messages/{owners}               words 401 404 404 404 403 403 200 200 200 200 200 404 403
PATCH  ../messages/{members}              words 401 404 404 404 403 200 403 403 200 200 403 404 403
PATCH  ../messages/{members}            a:words 401 404 404 404 403 200 200 200 200 200 200 404 403
DELETE ../messages/{owners}                     401 404 404 404 403 403 204 204 204 204 204 404 403
DELETE ../messages/{members}                    401 404 404 404 403 204 204 204 204 204 204 404 403
DELETE ../messages/{members}              erase 401 404 404 404 403 204 204 204 204 204 204 404 403
POST   ../rewind                          after 401 404 404 404 403 403 200 200 200 200 200 404 403
POST   ../branches/{branch_id}/activate         401 404 404 404 403 403 200 200 200 200 200 404 403
PATCH  ..                                 title 401 404 404 404 403 403 200 200 200 200 200 404 403
PATCH  ..                               archive 401 404 404 404 403 403 200 200 200 200 200 404 403
DELETE ..                                       401 404 404 404 403 403 204 204 204 204 204 404 403

POST   ../participants                 newcomer 401 404 404 404 403 403 201 201 201 201 201 404 403
PATCH  ../participants/{member}          viewer 401 404 404 404 403 403 200 200 200 200 200 404 403
PATCH  ../participants/{member}           owner 401 404 404 404 403 403 200 200 200 200 200 404 403
DELETE ../participants/{member}                 401 404 404 404 403 204 204 204 204 204 204 404 403
DELETE ../participants/{owner}                  401 404 404 404 403 403 403 403 403 403 403 404 403
POST   ../invitations                    invite 401 404 404 404 403 201 201 201 201 201 201 404 403
DELETE ../invitations/{invitation_id}           401 404 404 404 403 403 204 204 204 204 204 404 403
POST   /v1/invitations/accept             guess 401 404 404 404 404 404 404 404 404 403 404 404 403
PUT    ../read                             mark 401 404 404 404 200 200 200 200 404 403 200 404 403
GET    ../feedback                              401 404 404 404 404 404 200 200 404 403 200 404 403
PUT    ../feedback                        thumb 401 404 404 404 200 200 200 200 404 403 200 404 403
DELETE ../feedback                              401 404 404 404 204 204 204 204 404 403 204 404 403
GET    ../messages/{owners}/feedback            401 404 404 404 404 404 200 200 404 403 200 404 403
PUT    ../messages/{owners}/feedback      thumb 401 404 404 404 200 200 200 200 404 403 200 404 403
DELETE ../messages/{owners}/feedback            401 404 404 404 204 204 204 204 404 403 204 404 403

GET    /v1/conversations                        401 200 200 200 200 200 200 200 200 403 200 200 403
GET    /v1/events                               401 200 200 200 200 200 200 200 200 403 200 200 403
POST   /v1/conversations                    new 401 201 201 201 201 201 201 201 201 403 201 201 403
POST   /v1/conversations                  taken 401 409 409 409 409 409 409 409 409 403 409 409 403
POST   /v1/subjects/{subject}/messages    hello 401 201 201 201 201 201 201 201 201 403 201 201 403
GET    /v1/me                                   401 200 200 200 200 200 200 200 200 200 200 200 200
GET    /v1/me/stats                             401 200 200 200 200 200 200 200 200 403 200 200 403
GET    /v1/me/export                            401 200 200 200 200 200 200 200 200 403 200 200 403
DELETE /v1/me                                   401 204 204 204 204 204 204 204 204 403 204 204 403
GET    /v1/keys                                 401 200 200 200 200 200 200 200 200 403 403 403 403
POST   /v1/keys                             key 401 201 201 201 201 201 201 403 201 403 403 403 403
POST   /v1/keys                       owner-key 401 403 403 403 403 403 201 403 201 403 403 403 403
POST   /v1/keys                     service-key 401 403 403 403 403 403 403 403 201 403 403 403 403
POST   /v1/keys                         ops-key 401 403 403 403 403 403 403 403 201 403 403 403 403
DELETE /v1/keys/{key_id}                        401 404 404 404 404 404 204 204 204 403 403 403 403

GET    /v1/agents                               401 200 200 200 200 200 200 200 200 200 200 200 403
POST   /v1/agents                         agent 401 403 403 403 403 403 403 403 201 403 403 403 403
GET    /v1/agents/{agent_id}                    401 200 200 200 200 200 200 200 200 200 200 200 403
PATCH  /v1/agents/{agent_id}               name 401 403 403 403 403 403 403 403 200 403 403 403 403
DELETE /v1/agents/{agent_id}                    401 403 403 403 403 403 403 403 204 403 403 403 403
POST   ../runs                              run 401 404 404 404 403 202 202 202 202 202 202 404 403
GET    /v1/runs/{run_id}                        401 404 404 404 200 200 200 200 200 200 200 404 403
GET    /v1/runs/{run_id}/events                 401 404 404 404 200 200 200 200 200 200 200 404 403
POST   /v1/runs/{run_id}/cancel                 401 404 404 404 403 200 200 200 200 200 200 404 403
GET    /v1/endpoints                            401 200 200 200 200 200 200 200 200 200 200 200 403
POST   /v1/endpoints                       hook 401 404 404 404 403 403 201 201 201 201 201 404 403
POST   /v1/endpoints                  every-hook 401 403 403 403 403 403 403 403 201 403 403 403 403
GET    /v1/endpoints/{endpoint_id}              401 404 404 404 404 404 200 200 200 200 200 404 403
PATCH  /v1/endpoints/{endpoint_id}        pause 401 404 404 404 404 404 200 200 200 200 200 404 403
POST   /v1/endpoints/{endpoint_id}/rotate empty 401 404 404 404 404 404 200 200 200 200 200 404 403
DELETE /v1/endpoints/{endpoint_id}              401 404 404 404 404 404 204 204 204 204 204 404 403
GET    /v1/sources                              401 403 403 403 403 403 403 403 200 403 403 403 403
POST   /v1/sources                       source 401 403 403 403 403 403 403 403 201 403 403 403 403
GET    /v1/sources/{source_id}                  401 403 403 403 403 403 403 403 200 403 403 403 403
PATCH  /v1/sources/{source_id}             name 401 403 403 403 403 403 403 403 200 403 403 403 403
POST   /v1/sources/{source_id}/rotate     empty 401 403 403 403 403 403 403 403 200 403 403 403 403
DELETE /v1/sources/{source_id}                  401 403 403 403 403 403 403 403 204 403 403 403 403
POST   /v1/inbox/{source_id}           incoming 401 401 401 401 401 401 401 401 401 401 401 401 401
POST   /v1/inbox/{source_id}/status      report 401 401 401 401 401 401 401 401 401 401 401 401 401

GET    /v1/me/usage                             401 200 200 200 200 200 200 200 200 403 200 200 403
GET    /v1/users/{owner}/usage                  401 403 403 403 403 403 403 403 200 403 403 403 403
GET    /v1/users/{owner}/usage        statement 401 403 403 403 403 403 403 403 200 403 403 403 403
GET    /v1/users/{owner}/quota                  401 403 403 403 403 403 403 403 200 403 403 403 403
PUT    /v1/users/{owner}/quota            quota 401 403 403 403 403 403 403 403 200 403 403 403 403

GET    /v1/ops/queue                            401 403 403 403 403 403 403 403 200 403 403 403 200
GET    /v1/ops/lanes                            401 403 403 403 403 403 403 403 200 403 403 403 200
GET    /v1/ops/lanes/{lane_id}                  401 403 403 403 403 403 403 403 200 403 403 403 200
POST   /v1/ops/lanes/{lane_id}/unlock     steal 401 403 403 403 403 403 403 403 200 403 403 403 200
POST   /v1/ops/lanes/{lane_id}/retry            401 403 403 403 403 403 403 403 200 403 403 403 200
POST   /v1/ops/lanes/{lane_id}/skip             401 403 403 403 403 403 403 403 200 403 403 403 200
POST   /v1/ops/lanes/{lane_id}/pause            401 403 403 403 403 403 403 403 200 403 403 403 200
POST   /v1/ops/lanes/{lane_id}/resume           401 403 403 403 403 403 403 403 200 403 403 403 200
GET    /v1/ops/attempts                    lane 401 403 403 403 403 403 403 403 200 403 403 403 200
GET    /v1/ops/alerts                           401 403 403 403 403 403 403 403 200 403 403 403 200

GET    /healthz                                 200 200 200 200 200 200 200 200 200 200 200 200 200
GET    /readyz                                  200 200 200 200 200 200 200 200 200 200 200 200 200
GET    /metrics                                 200 200 200 200 200 200 200 200 200 200 200 200 200
GET    /asyncapi.json                           200 200 200 200 200 200 200 200 200 200 200 200 200
GET    /openapi.json                            200 200 200 200 200 200 200 200 200 200 200 200 200
GET    /schemas/{schema}.json                   200 200 200 200 200 200 200 200 200 200 200 200 200
GET    /docs                                    200 200 200 200 200 200 200 200 200 200 200 200 200
GET    /                                        200 200 200 200 200 200 200 200 200 200 200 200 200
"""


class Sent(NamedTuple):
    """What a request brings."""

    body: Any = None
    query: str = ""


#: Nothing is ever said to leave for it.
HOOK = {"channel": "webhook", "target": "https://example.org/"}

SENT = {
    "": Sent(),
    "everything": Sent(query="?include=superseded,read_by"),
    "page": Sent(query="?format=html"),
    "since": Sent(query="?since=0"),
    "erase": Sent(query="?erase=true"),
    "words": Sent({"content": "new {word}"}),
    "answer": Sent({"content": "new {word}", "role": "assistant"}),
    "batch": Sent({"messages": [{"content": "{word}"}, {"content": "{word}", "role": "system"}]}),
    "after": Sent({"after_seq": 1}),
    "title": Sent({"title": "new {word}"}),
    "archive": Sent({"archived": True}),
    "newcomer": Sent({"user_id": "{newcomer}"}),
    "viewer": Sent({"role": "viewer"}),
    "owner": Sent({"role": "owner"}),
    "invite": Sent({}),
    "guess": Sent({"token": "gri_guessed"}),
    "mark": Sent({"seq": 1}),
    "thumb": Sent({"rating": 1}),
    "hello": Sent({"content": "hello"}),
    "new": Sent({}),
    # Somebody else's id says nothing of theirs.
    "taken": Sent({"id": "{conversation_id}"}),
    "key": Sent({"scope": "user", "name": "x"}),
    "owner-key": Sent({"scope": "user", "name": "x", "user_id": "{owner}"}),
    "service-key": Sent({"scope": "service", "name": "x"}),
    "ops-key": Sent({"scope": "ops", "name": "x"}),
    "agent": Sent({"name": "x", "provider": "echo", "model": "echo"}),
    "name": Sent({"name": "another"}),
    "run": Sent({"message": {"content": "new {word}"}}),
    "hook": Sent({**HOOK, "conversation_id": "{conversation_id}"}),
    "every-hook": Sent({**HOOK, "everywhere": False}),
    "pause": Sent({"paused": True}),
    "empty": Sent({}),
    "source": Sent({"name": "x", "owner_id": "{owner}"}),
    # Nobody's token signs: only who has the source's secret is let in.
    "incoming": Sent({"external_id": "1", "contact": "x", "content": "new {word}"}),
    "report": Sent({"external_id": "1", "status": "read"}),
    "statement": Sent(query="?format=csv"),
    "quota": Sent({"tokens_per_month": 1}),
    "steal": Sent({"force": True, "steal": True}),
    "lane": Sent(query="?lane_id={lane_id}"),
}


class Row(NamedTuple):
    """A route, what is sent to it, and how each caller is answered."""

    method: str
    path: str
    sent: str
    kind: str
    statuses: list[int]

    @classmethod
    def read(cls, line: str) -> Row:
        """Read a line of the table."""
        method, path, *more = line.split()
        sent, statuses = more[: -len(CALLERS)], more[-len(CALLERS) :]
        kind, _, name = "".join(sent).rpartition(":")
        path = path.replace("..", "/v1/conversations/{conversation_id}")
        return cls(method, path, name, "assistant" if kind else "room", [int(s) for s in statuses])

    @property
    def name(self) -> str:
        """What the test is called."""
        return f"{self.method} {self.path} {self.sent} {self.kind}"


ROWS = [Row.read(line) for line in TABLE.splitlines() if line[:1].strip()]


@dataclass
class Scene:
    """A conversation, those who have to do with it, and what it is made of."""

    app: Edge
    database: Database
    kind: str
    word: str = field(default_factory=lambda: f"word-{secrets.token_hex(8)}")
    own: str = field(default_factory=lambda: f"own-{secrets.token_hex(8)}")
    tag: str = field(default_factory=lambda: secrets.token_hex(4))
    values: dict[str, str] = field(default_factory=dict)
    headers: dict[str, dict[str, str]] = field(default_factory=dict)

    def user(self, name: str) -> str:
        """The id of somebody of this scene."""
        return f"{name}-{self.tag}"

    async def call(
        self, caller: str, method: str, target: str, body: Any = None, status: int | None = None
    ) -> Answered:
        """Call as somebody."""
        answer = await ask(self.app, method, target, self.headers[caller], body)
        assert status is None or answer.status == status, (caller, method, target, answer.body)
        return answer

    async def play(self, keys: dict[str, str], *, whole: bool) -> None:
        """Let everything happen; ``whole`` with somebody who left, and somebody who was erased."""
        for name in ("stranger", "left", "erased", "viewer", "member", "owner", "admin"):
            token = issue(SECRET.encode(), self.user(name), lifetime=3600, admin=name == "admin")
            self.headers[name] = {"authorization": f"Bearer {token}"}
        service = {"authorization": f"Bearer {keys['service']}"}
        self.headers |= {
            "nobody": {},
            "bot": service,
            "bot for owner": {**service, "greffier-act-as": self.user("owner")},
            "bot for stranger": {**service, "greffier-act-as": self.user("stranger")},
            "ops": {"authorization": f"Bearer {keys['ops']}"},
        }
        people = {"member": "member", "viewer": "viewer"}
        if whole:
            people |= {"left": "member", "erased": "member"}
        agent = await self.call(
            "admin",
            "POST",
            "/v1/agents",
            {"name": "Echo", "provider": "echo", "model": "echo"},
            status=201,
        )
        made = await self.call(
            "owner",
            "POST",
            "/v1/conversations",
            {
                "kind": self.kind,
                "agent_id": agent.json()["id"],
                "title": f"about {self.word}",
                "participants": [
                    {"user_id": self.user(name), "role": role} for name, role in people.items()
                ],
            },
            status=201,
        )
        here = f"/v1/conversations/{made.json()['id']}"
        for caller, body in (
            ("owner", {"content": f"first {self.word}"}),
            ("member", {"content": f"second {self.word}"}),
            ("bot", {"content": f"third {self.word}", "role": "assistant"}),
            ("bot", {"content": f"fourth {self.word}", "role": "assistant"}),
        ):
            await self.call(caller, "POST", f"{here}/messages", body, status=201)
        edited = {"content": f"first, better {self.word}"}
        await self.call("owner", "PATCH", f"{here}/messages/1", edited, status=200)
        await self.call("owner", "POST", f"{here}/rewind", {"after_seq": 3}, status=200)
        branches = await self.call("owner", "GET", f"{here}/branches")
        invited = await self.call("owner", "POST", f"{here}/invitations", {}, status=201)
        rated = {"rating": 1, "comment": self.own}
        for thumb in (f"{here}/feedback", f"{here}/messages/1/feedback"):
            await self.call("owner", "PUT", thumb, rated, status=200)
        key = await self.call(
            "owner", "POST", "/v1/keys", {"scope": "user", "name": self.own}, status=201
        )
        # Nobody answers here: it is over before it began.
        run = await self.call("owner", "POST", f"{here}/runs", {}, status=202)
        await self.call("owner", "POST", f"/v1/runs/{run.json()['id']}/cancel", status=200)
        async with connected(self.database.dsn) as connection:
            # Messages on their way to an endpoint; one was tried.
            lane = await connection.fetchval(
                "select enqueue_v1($1, 'out', $1, 1, 4, 'infinity')",
                uuid.UUID(made.json()["id"]),
            )
            await connection.execute(
                "insert into attempts (conversation_id, lane_id, seq, fence, intended_at)"
                " values ($1, $2, 1, 0, now())",
                uuid.UUID(made.json()["id"]),
                lane,
            )
        hook = await self.call(
            "owner",
            "POST",
            "/v1/endpoints",
            {**HOOK, "conversation_id": made.json()["id"], "paused": True},
            status=201,
        )
        source = await self.call(
            "admin",
            "POST",
            "/v1/sources",
            {"name": "x", "owner_id": self.user("owner")},
            status=201,
        )
        self.headers["key"] = {"authorization": f"Bearer {key.json()['key']}"}
        if whole:
            gone = f"{here}/participants/{self.user('left')}"
            for caller in ("left", "erased"):
                await self.call(caller, "GET", f"{here}/messages", status=200)
            await self.call("owner", "DELETE", gone, status=204)
            await self.call("erased", "DELETE", "/v1/me", status=204)
        self.values = {
            "conversation_id": made.json()["id"],
            "owners": "1",
            "members": "2",
            "branch_id": branches.json()["data"][0]["id"],
            "invitation_id": invited.json()["id"],
            "key_id": key.json()["id"],
            "agent_id": agent.json()["id"],
            "endpoint_id": hook.json()["id"],
            "source_id": source.json()["id"],
            "lane_id": str(lane),
            "run_id": run.json()["id"],
            "member": self.user("member"),
            "owner": self.user("owner"),
            "newcomer": self.user("newcomer"),
            "word": self.word,
            "subject": "maths",
            "schema": "Message",
        }

    def fill(self, value: Any) -> Any:
        """Put this scene's names into a request."""
        if isinstance(value, str):
            for name, text in self.values.items():
                value = value.replace(f"{{{name}}}", text)
            return value
        if isinstance(value, dict):
            return {name: self.fill(one) for name, one in value.items()}
        return [self.fill(one) for one in value] if isinstance(value, list) else value

    async def record(self) -> dict[str, str]:
        """Everything on record of the conversation, whatever it is, a digest a table."""
        async with connected(self.database.dsn) as connection:
            tables = await connection.fetch(
                "select table_name as name, column_name as key"
                " from information_schema.columns"
                " where table_schema = 'greffier' and (column_name = 'conversation_id'"
                " or (table_name, column_name) = ('conversations', 'id'))"
                " and table_name in (select tablename from pg_tables where schemaname = 'greffier')"
            )
            return {
                table["name"]: await connection.fetchval(
                    f"select md5(coalesce(string_agg(t::text, '|' order by t::text), ''))"
                    f" from greffier.{table['name']} t where t.{table['key']} = $1",
                    uuid.UUID(self.values["conversation_id"]),
                )
                for table in tables
            }


@dataclass
class Stage:
    """An application, and where scenes are played."""

    app: Edge
    database: Database
    keys: dict[str, str] = field(default_factory=dict)
    scenes: dict[str, Scene] = field(default_factory=dict)

    async def scene(self, row: Row, caller: str, status: int) -> Scene:
        """Where a caller tries a route: a scene of its own for whoever will change it."""
        path = row.path
        inside = (
            "{conversation_id}" in path
            or "{lane_id}" in path
            or row.sent == "hook"
            or (row.method == "DELETE" and "/v1/" in path)
        )
        nobody_here = caller in ("nobody", "stranger", "erased", "bot for stranger")
        if row.method == "GET" or status >= 300 or not inside or nobody_here:
            return self.scenes[row.kind]
        scene = Scene(self.app, self.database, row.kind)
        await scene.play(self.keys, whole=caller == "left")
        return scene


@pytest_asyncio.fixture(scope="module")
async def stage(postgres: str, template: str) -> AsyncIterator[Stage]:
    """An application; a room and an assistant's conversation that everybody may try."""
    async with (
        new_database(postgres, f"template {template}") as dsn,
        open_database(dsn) as database,
    ):
        app = create_app(database, settings(), log=make_logger("error", "json", io.BytesIO()))
        found = Stage(app, database)
        root = issue(SECRET.encode(), "root", lifetime=3600, admin=True)
        for scope in ("service", "ops"):
            made = await ask(
                app,
                "POST",
                "/v1/keys",
                {"authorization": f"Bearer {root}"},
                {"scope": scope, "name": f"the {scope}"},
            )
            found.keys[scope] = made.json()["key"]
        for kind in ("room", "assistant"):
            found.scenes[kind] = Scene(app, database, kind)
            await found.scenes[kind].play(found.keys, whole=True)
        yield found


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_each_caller_is_answered_as_the_table_says(stage: Stage, row: Row) -> None:
    """With that status, and with nobody's words but those they may see.

    What is refused, and what only reads, leaves everything on record as it was.
    """
    sent = SENT[row.sent]
    everybodys = stage.scenes[row.kind]
    before = await everybodys.record()
    statuses: list[int] = []
    for caller, status in zip(CALLERS, row.statuses, strict=True):
        scene = await stage.scene(row, caller, status)
        target, body = scene.fill(row.path + sent.query), scene.fill(sent.body)
        answer = await scene.call(caller, row.method, target, body)
        statuses.append(answer.status)
        good = answer.status < 300
        assert scene.word.encode() not in answer.body or (good and caller in SEE_WORDS), caller
        assert scene.own.encode() not in answer.body or (good and caller in SEE_OWN), caller
        assert good or answer.headers["content-type"] == "application/problem+json"

    assert statuses == row.statuses
    assert await everybodys.record() == before


def test_every_route_has_its_row() -> None:
    """Who adds a route says here who may call it."""
    said = {f"{row.method} {row.path}" for row in ROWS}
    for name, part in (
        ("{owners}", "{seq}"),
        ("{members}", "{seq}"),
        ("{member}", "{user_id}"),
        ("{owner}", "{user_id}"),
    ):
        said = {route.replace(name, part) for route in said}

    assert said == {f"{route.method} {route.path}" for route in ROUTES}


async def test_whoever_may_see_does_see(stage: Stage) -> None:
    """The words that others are kept from are there, so that the table above means something."""
    for scene in stage.scenes.values():
        where = scene.fill("/v1/conversations/{conversation_id}/messages")
        for caller in SEE_WORDS:
            assert scene.word.encode() in (await scene.call(caller, "GET", where)).body
        for caller in SEE_OWN - {"admin"}:
            answer = await scene.call(caller, "GET", "/v1/me/export")
            assert scene.own.encode() in answer.body
