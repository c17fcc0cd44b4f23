"""People who call the HTTP API, and how their calls are answered."""

from __future__ import annotations

import io
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx2

from greffier.server.auth import issue
from greffier.server.edge import Edge
from greffier.settings import Settings, load
from greffier.store.database import Database

SECRET = "a secret that only the tests know, of enough bytes"
URL = "http://testserver"


def settings(**more: Any) -> Settings:
    """Settings with the tests' secret, and nobody counted."""
    return load({"jwt_secret": SECRET, "rate_limit": "off", **more})


@dataclass
class Served:
    """An application, the database behind it, and what it logged."""

    app: Edge
    database: Database
    log: io.BytesIO

    def anonymous(self, **headers: str) -> httpx2.AsyncClient:
        """Call without saying who."""
        transport = httpx2.ASGITransport(app=self.app)
        return httpx2.AsyncClient(transport=transport, base_url=URL, headers=headers)

    def person(self, name: str, **claims: Any) -> Person:
        """Call as a user of their own, so that tests share a database and see nothing of others."""
        user = f"{name}-{secrets.token_hex(4)}"
        token = issue(SECRET.encode(), user, lifetime=3600, **{"name": name.capitalize(), **claims})
        return Person(user, self.anonymous(authorization=f"Bearer {token}"))

    def lines(self) -> list[dict[str, Any]]:
        """What was logged so far."""
        return [json.loads(line) for line in self.log.getvalue().splitlines()]


@dataclass
class Person:
    """Somebody with a token."""

    id: str
    http: httpx2.AsyncClient

    async def create(self, **body: Any) -> dict[str, Any]:
        """Create a conversation."""
        answer = await self.http.post("/v1/conversations", json=body)
        made: dict[str, Any] = expect(answer, 201)
        return made

    async def say(self, conversation: Mapping[str, Any], content: str, **more: Any) -> Any:
        """Append one message."""
        body = {"content": content, **more}
        answer = await self.http.post(f"{path(conversation)}/messages", json=body)
        return expect(answer, 201)["message"]

    async def talk(self, count: int, **body: Any) -> dict[str, Any]:
        """Create a conversation with this many messages, said in turns."""
        made = await self.create(**body)
        said = [
            {"role": "assistant" if index % 2 else "user", "content": f"message {index + 1}"}
            for index in range(count)
        ]
        if said:
            answer = await self.http.post(f"{path(made)}/messages", json={"messages": said})
            expect(answer, 201)
        return made


def path(conversation: Mapping[str, Any]) -> str:
    """The path of a conversation."""
    return f"/v1/conversations/{conversation['id']}"


def expect(answer: httpx2.Response, status: int) -> Any:
    """Give the body of an answer that has this status."""
    assert answer.status_code == status, (answer.status_code, answer.text)
    return answer.json()


def refused(answer: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    """Give the problem of a refusal, after a look at its shape."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    problem: dict[str, Any] = answer.json()
    assert (answer.status_code, problem["code"]) == (status, code), problem
    assert problem["status"] == status
    assert problem["type"] == f"/docs#{code}"
    assert problem["title"]
    assert problem["detail"]
    assert problem["request_id"] == answer.headers["x-request-id"]
    if code == "validation":
        faults = problem["errors"]
        assert faults
        assert all(fault.keys() == {"pointer", "code", "detail"} for fault in faults)
    return problem


def pointers(problem: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Where and which the faults are."""
    return [(one["pointer"], one["code"]) for one in problem["errors"]]
