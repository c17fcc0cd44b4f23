"""Programs that call the HTTP API with a key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx2

from helpers.api import Person, Served, expect


@dataclass
class Program:
    """Somebody with an API key."""

    id: str
    key: str
    http: httpx2.AsyncClient

    def acting(self, user: str) -> dict[str, str]:
        """The header by which a service acts for a user."""
        return {"greffier-act-as": user}


async def make_key(served: Served, maker: Person, scope: str, **body: Any) -> Program:
    """Have somebody make a key, and give the program that brings it; its client is to be closed."""
    asked = {"scope": scope, "name": f"{scope} key", **body}
    made = expect(await maker.http.post("/v1/keys", json=asked), 201)
    return Program(made["id"], made["key"], served.anonymous(authorization=f"Bearer {made['key']}"))
