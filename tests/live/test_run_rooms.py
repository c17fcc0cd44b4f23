"""Promises about answers told over sockets to whoever has joined the conversation."""

from __future__ import annotations

import asyncio
from typing import Any

from greffier.change import agent as agents
from greffier.model.agent import NewAgent
from live.conftest import Running, Socket

#: Says a word, then waits for somebody to take it back.
WAITING = [
    {"after_ms": 0, "event": "content.delta", "data": {"text": "Je "}},
    {"after_ms": 3_600_000, "event": "content.delta", "data": {"text": "continue"}},
]
SHORT = [
    {"after_ms": 0, "event": "content.delta", "data": {"text": "Il fait "}},
    {"after_ms": 150, "event": "content.delta", "data": {"text": "beau à Lyon."}},
]


async def talk_with(
    server: Running, script: list[dict[str, Any]], *members: str, kind: str = "room"
) -> str:
    """Make a conversation of ada's whose agent plays a script."""
    new = NewAgent(name="Script", provider="script", model="x", params={"script": script})
    agent, _ = await agents.create(server.app.service.database, new)
    async with server.http("ada") as http:
        answer = await http.post(
            "/v1/conversations",
            json={
                "kind": kind,
                "agent_id": str(agent),
                "participants": [{"user_id": one} for one in members],
            },
        )
        assert answer.status_code == 201, answer.text
        found: str = answer.json()["id"]
        return found


async def ask(server: Running, talk: str) -> str:
    """Ask the agent."""
    async with server.http("ada") as http:
        answer = await http.post(
            f"/v1/conversations/{talk}/runs", json={"message": {"content": "Quel temps ?"}}
        )
        assert answer.status_code == 202, answer.text
        found: str = answer.json()["id"]
        return found


def heard(socket: Socket) -> list[dict[str, Any]]:
    """The events of runs that a socket was sent."""
    return [data for name, data in socket.events if name == "run"]


def told(events: list[dict[str, Any]]) -> str:
    """What the deltas say together."""
    return "".join(one["data"]["text"] for one in events if one["event"] == "content.delta")


async def test_who_has_joined_hears_the_answer_through_any_server(
    servers: tuple[Running, Running],
) -> None:
    """Every event once, in order, wherever the run is worked on; and what is said is stored."""
    one, other = servers
    talk = await talk_with(one, SHORT, "bob")
    work = one.app.service.work
    assert work is not None
    async with one.socket("ada") as ada, other.socket("bob") as bob, work.running():
        for socket in (ada, bob):
            assert (await socket.call("join", conversation_id=talk))["ok"]
        run = await ask(other, talk)
        for socket in (ada, bob):
            await socket.wait("run", event="run.completed")
        await bob.wait("change", rev=3)

        for socket in (ada, bob):
            events = heard(socket)
            assert {event["run_id"] for event in events} == {run}
            assert [event["id"] for event in events] == list(range(1, len(events) + 1))
            assert told(events) == "Il fait beau à Lyon."
        async with other.http("bob") as http:
            page = (await http.get(f"/v1/conversations/{talk}/messages")).json()
        assert page["data"][-1]["content"] == "Il fait beau à Lyon."


async def test_who_is_removed_hears_no_more_of_it(server: Running) -> None:
    """The rest of an answer is for those who are still there."""
    talk = await talk_with(server, WAITING, "bob")
    work = server.app.service.work
    assert work is not None
    async with server.socket("ada") as ada, server.socket("bob") as bob, work.running():
        for socket in (ada, bob):
            await socket.call("join", conversation_id=talk)
        run = await ask(server, talk)
        await bob.wait("run", event="content.delta")
        async with server.http("ada") as http:
            await http.delete(f"/v1/conversations/{talk}/participants/bob")
            await bob.wait("revoked")
            assert (await http.post(f"/v1/runs/{run}/cancel")).status_code == 200
        await ada.wait("run", event="run.cancelled")
        # Whatever was on its way to bob has come before the answer to this.
        await bob.call("typing", conversation_id=talk, on=True)

        assert [event["event"] for event in heard(bob)] == ["run.started", "content.delta"]
        assert [event["event"] for event in heard(ada)] == [
            "run.started",
            "content.delta",
            "message",
            "run.cancelled",
        ]


async def test_who_comes_in_the_middle_sees_what_they_missed(server: Running) -> None:
    """The ids say that something is missing, and over HTTP it is there."""
    talk = await talk_with(server, WAITING, kind="assistant")
    work = server.app.service.work
    assert work is not None
    async with server.socket("ada") as first, server.socket("ada") as late, work.running():
        await first.call("join", conversation_id=talk)
        run = await ask(server, talk)
        await first.wait("run", event="content.delta")
        await late.call("join", conversation_id=talk)
        async with server.http("ada") as http:
            await http.post(f"/v1/runs/{run}/cancel")
            await late.wait("run", event="run.cancelled")
            assert heard(late)[0]["id"] > 1
            missed = await http.get(f"/v1/runs/{run}/events")

    ids = [int(line[4:]) for line in missed.text.splitlines() if line.startswith("id: ")]
    assert ids == [event["id"] for event in heard(first)]
    assert {event["id"] for event in heard(late)} < set(ids)


async def test_a_process_follows_a_run_once_however_many_have_joined(server: Running) -> None:
    """Each event is encoded once for the room; and nobody there means nobody follows."""
    talk = await talk_with(server, WAITING, kind="assistant")
    runs, work = server.app.service.runs, server.app.service.work
    assert work is not None
    async with server.socket("ada") as one, server.socket("ada") as two, work.running():
        for socket in (one, two):
            await socket.call("join", conversation_id=talk)
        run = await ask(server, talk)
        for socket in (one, two):
            await socket.wait("run", event="content.delta")

        assert runs.following() == 1
        async with server.http("ada") as http:
            await http.post(f"/v1/runs/{run}/cancel")
        await asyncio.gather(*(socket.wait("run", event="run.cancelled") for socket in (one, two)))
        assert heard(one) == heard(two)
