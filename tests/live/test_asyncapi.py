"""The AsyncAPI document says what is really sent."""

from __future__ import annotations

from typing import Any

import jsonschema
import msgspec

from greffier.change.agent import create_echo
from greffier.model.agent import ECHO_ID
from greffier.server.asyncapi import SENT, TAKEN, document
from live.conftest import Running
from live.test_sockets import room, say


def validate(document: dict[str, Any], message: str, data: Any) -> None:
    """Hold what was sent against the document's schema of that message."""
    payload = document["channels"]["sockets"]["messages"][message]["payload"]
    jsonschema.Draft202012Validator({**payload, "components": document["components"]}).validate(
        data
    )


async def test_every_event_that_is_sent_is_as_described(server: Running) -> None:
    """A member's afternoon: each event and each answer fits its schema."""
    described = msgspec.json.decode(msgspec.json.encode(document()))
    await create_echo(server.app.service.database)
    async with server.http("ada") as http:
        assert (await http.get("/asyncapi.json")).json() == described
    talk = await room(server, "bob", "carol")
    async with server.socket("ada") as ada, server.socket("bob") as bob:
        await ada.call("join", conversation_id=talk)
        answers = {
            "join": [
                await bob.call("join", conversation_id=talk),
                await bob.call("join", conversation_id="nonsense"),
            ]
        }
        await say(server, talk, "words")
        await bob.wait("change", rev=2)
        answers["join"].append(
            await bob.call("join", conversation_id=talk, epoch=answers["join"][0]["epoch"], rev=1)
        )
        answers["typing"] = [await ada.call("typing", conversation_id=talk, on=True)]
        answers["read"] = [await bob.call("read", conversation_id=talk, seq=1)]
        await bob.wait("typing")
        await bob.wait("activity")
        async with server.socket("carol"), server.http("ada") as http:
            await bob.wait("presence")
            await http.delete(f"/v1/conversations/{talk}/participants/bob")
            await bob.wait("revoked")
        work = server.app.service.work
        assert work is not None
        async with server.http("ada") as http, work.running():
            chat = {"agent_id": str(ECHO_ID)}
            made = (await http.post("/v1/conversations", json=chat)).json()["id"]
            await ada.call("join", conversation_id=made)
            await http.post(f"/v1/conversations/{made}/runs", json={"message": {"content": "Oui"}})
            await ada.wait("run", event="run.completed")
        answers["leave"] = [await ada.call("leave", conversation_id=talk)]
        sent = dict([*ada.events, *bob.events])

    for name, found in answers.items():
        for answer in found:
            validate(described, f"{name}_answer", answer)
    for name, data in sent.items():
        validate(described, name, data)
    assert {"change", "run", "typing", "presence", "revoked", "list", "activity"} <= set(sent)
    assert set(answers) == set(TAKEN)


def test_the_document_names_every_event() -> None:
    """Each event has its message and its operation."""
    described = document()

    assert set(SENT) <= set(described["channels"]["sockets"]["messages"])
    assert {f"on_{name}" for name in SENT} <= set(described["operations"])
