"""Socket.IO: what is announced, to whom, and that nobody misses anything."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import msgspec
import pytest
import socketio

from greffier.publish.change import Change
from greffier.server.auth import issue
from greffier.server.packets import QUEUE, event
from helpers.api import SECRET
from helpers.patience import PATIENCE
from live.conftest import Running, running


async def room(server: Running, *members: str) -> str:
    """A room of ada's."""
    async with server.http("ada") as http:
        answer = await http.post(
            "/v1/conversations",
            json={"kind": "room", "participants": [{"user_id": one} for one in members]},
        )
        assert answer.status_code == 201, answer.text
        found: str = answer.json()["id"]
        return found


async def say(server: Running, talk: str, content: str, user: str = "ada") -> None:
    """Put words on record."""
    async with server.http(user) as http:
        answer = await http.post(f"/v1/conversations/{talk}/messages", json={"content": content})
        assert answer.status_code == 201, answer.text


def said(events: list[tuple[str, dict[str, Any]]]) -> list[str]:
    """What was said in the changes that were sent."""
    return [
        message["content"]
        for name, data in events
        if name == "change"
        for message in data["messages"]
    ]


async def test_a_member_who_joined_hears_what_is_said(server: Running) -> None:
    """The answer is the latest page; every change after it comes once, from where one stood."""
    talk = await room(server, "bob")
    await say(server, talk, "before")
    async with server.socket("bob") as bob:
        joined = await bob.call("join", conversation_id=talk)
        for number in range(5):
            await say(server, talk, f"n{number}")
        await bob.wait("change", rev=7)

    assert joined["ok"] is True
    assert joined["recovered"] is False
    assert [one["content"] for one in joined["snapshot"]["data"]] == ["before"]
    assert {one["user_id"] for one in joined["participants"]} == {"ada", "bob"}
    assert said(bob.events) == [f"n{number}" for number in range(5)]
    assert next(d["since"] for n, d in bob.events if n == "change") == joined["rev"]


async def test_who_comes_back_recovers_exactly(server: Running) -> None:
    """With epoch and rev the answer holds what was missed, and says that it is complete."""
    talk = await room(server, "bob")
    async with server.socket("bob") as bob:
        joined = await bob.call("join", conversation_id=talk)
    await say(server, talk, "missed")
    async with server.socket("bob") as again:
        back = await again.call(
            "join", conversation_id=talk, epoch=joined["epoch"], rev=joined["rev"]
        )

    assert back["recovered"] is True
    assert [one["content"] for one in back["changes"]["messages"]] == ["missed"]


async def test_a_rev_without_an_epoch_is_of_the_history_there_is(server: Running) -> None:
    """As over HTTP: it recovers."""
    talk = await room(server, "bob")
    async with server.socket("bob") as bob:
        joined = await bob.call("join", conversation_id=talk)
        await say(server, talk, "missed")
        back = await bob.call("join", conversation_id=talk, rev=joined["rev"])

    assert back["recovered"] is True
    assert [one["content"] for one in back["changes"]["messages"]] == ["missed"]


@pytest.mark.parametrize("position", [{"rev": "x"}, {"rev": -1}, {"rev": True}, {"epoch": 1}])
async def test_a_position_that_is_none_is_refused(server: Running, position: Any) -> None:
    """Rather than answered with a page, as if none had been sent."""
    talk = await room(server)
    async with server.socket("ada") as ada:
        refused = await ada.call("join", conversation_id=talk, **position)
        joined = await ada.call("join", conversation_id=talk, rev=None, epoch=None)

    assert (refused["ok"], refused["code"]) == (False, "validation")
    assert joined["ok"] is True


async def test_a_rev_of_another_history_gets_a_fresh_page(server: Running) -> None:
    """It is not recovered, and says so."""
    talk = await room(server)
    async with server.socket("ada") as ada:
        joined = await ada.call("join", conversation_id=talk, epoch="0000deadbeef", rev=1)

    assert joined["recovered"] is False
    assert "snapshot" in joined


async def test_changes_cross_servers(servers: tuple[Running, Running]) -> None:
    """Said through one server, heard through another."""
    here, there = servers
    talk = await room(here, "bob")
    async with there.socket("bob") as bob:
        await bob.call("join", conversation_id=talk)
        await say(here, talk, "across")
        await bob.wait("change", rev=2)

    assert said(bob.events) == ["across"]


async def test_strangers_and_nonsense_are_refused_with_a_code(server: Running) -> None:
    """Nothing is learnt of what is not one's own."""
    talk = await room(server)
    async with server.socket("eve") as eve:
        answers = [
            await eve.call("join", conversation_id=talk),
            await eve.call("join", conversation_id="nonsense"),
            await eve.call("join"),
            await eve.call("typing", conversation_id=talk, on=True),
            await eve.call("read", conversation_id=talk, seq=1),
            await eve.call("read", conversation_id=talk, seq="one"),
        ]

    assert [one["ok"] for one in answers] == [False] * 6
    assert [one["code"] for one in answers] == [
        "not-found",
        "validation",
        "validation",
        "not-found",
        "not-found",
        "validation",
    ]


@pytest.mark.parametrize("token", ["", "nonsense", "a.b.c"])
async def test_nobody_comes_in_without_a_token(server: Running, token: str) -> None:
    """The connection is refused."""
    client = socketio.AsyncClient(reconnection=False)
    with pytest.raises(socketio.exceptions.ConnectionError):
        await client.connect(server.url, auth={"token": token}, transports=["websocket"])
    await client.disconnect()


async def test_removal_ends_delivery_at_once(server: Running) -> None:
    """Who is removed is told so, and hears nothing that came after."""
    talk = await room(server, "bob")
    async with server.socket("bob") as bob, server.http("ada") as http:
        await bob.call("join", conversation_id=talk)
        await http.delete(f"/v1/conversations/{talk}/participants/bob")
        await say(server, talk, "secret")
        await bob.wait("revoked", conversation_id=talk)
        # One more answer of the server: whatever was sent before it has come.
        answer = await bob.call("join", conversation_id=talk)

    assert answer == {"ok": False, "code": "not-found"}
    assert "secret" not in str(bob.events)
    assert "left" not in said(bob.events)


async def test_an_expired_token_ends_the_socket(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A socket lives no longer than its token, give or take the look at it."""
    gone = asyncio.Event()
    authenticator = server.app.service.authenticator
    async with server.socket("bob") as bob:
        bob.client.on("disconnect", lambda *_: gone.set())

        async def refuse(_token: str) -> Any:
            from greffier.errors import Unauthenticated

            raise Unauthenticated

        monkeypatch.setattr(authenticator, "identify", refuse)
        async with asyncio.timeout(PATIENCE):
            await gone.wait()


async def test_what_was_deleted_does_not_wait_for_a_slow_socket(server: Running) -> None:
    """It is taken back out of the socket's queue; the client gets all the rest, and no gap."""
    talk = await room(server, "bob")
    async with server.socket("ada") as ada, server.socket("bob") as bob:
        sockets = server.app.sockets
        for one in (ada, bob):
            joined = await one.call("join", conversation_id=talk)
        (sid,) = {one.sid for one in sockets._places if one.user == "bob"}
        slow = sockets._wire.socket(sid)
        slow.protocol.pause_writing()
        for number, words in enumerate(("first", "unsayable", "third"), start=2):
            await say(server, talk, words)
            await ada.wait("change", rev=number)
        async with server.http("ada") as http:
            await http.delete(f"/v1/conversations/{talk}/messages/2?erase=true")
        await ada.wait("change", rev=5)
        assert not any("unsayable" in str(one and one.data) for one in slow.queue._queue)
        slow.protocol.resume_writing()
        await bob.wait("change", rev=5)

    changes = [data for name, data in bob.events if name == "change"]
    assert "unsayable" not in str(changes[1:])
    assert [one["since"] for one in changes] == [joined["rev"], *(x["rev"] for x in changes[:-1])]
    assert {"first", "third"} <= set(said(bob.events))


async def test_typing_reaches_the_others_and_ends(servers: tuple[Running, Running]) -> None:
    """Over both servers, to who takes part, and never to oneself."""
    here, there = servers
    talk = await room(here, "bob")
    async with here.socket("ada") as ada, there.socket("bob") as bob:
        await ada.call("join", conversation_id=talk)
        await bob.call("join", conversation_id=talk)
        refused = await ada.call("typing", conversation_id=talk, on="yes")
        assert (refused["ok"], refused["code"]) == (False, "validation")
        await ada.call("typing", conversation_id=talk, on=True)
        await bob.wait("typing", user_id="ada", on=True)
        await ada.call("typing", conversation_id=talk, on=False)
        await bob.wait("typing", user_id="ada", on=False)

    assert not [data for name, data in ada.events if name == "typing"]


async def test_presence_says_who_is_there(servers: tuple[Running, Running]) -> None:
    """Somebody who connects to another server is online here."""
    here, there = servers
    talk = await room(here, "bob")
    async with here.socket("ada") as ada:
        joined = await ada.call("join", conversation_id=talk)
        async with there.socket("bob"):
            seen = await ada.wait("presence")

    before = {one["user_id"]: one["status"] for one in joined["presence"]}
    assert before == {"ada": "online", "bob": "offline"}
    assert [(one["user_id"], one["status"]) for one in seen["users"]] == [("bob", "online")]


async def test_reading_moves_the_mark_and_is_told(server: Running) -> None:
    """Forward, at most to the last message; the others hear of it."""
    talk = await room(server, "bob")
    await say(server, talk, "words")
    async with server.socket("bob") as bob, server.socket("ada") as ada:
        await ada.call("join", conversation_id=talk)
        answer = await bob.call("read", conversation_id=talk, seq=99)
        change = await ada.wait("change", rev=3)

    marks = {one["user_id"]: one["last_read_seq"] for one in change["participants"]}
    assert answer == {"ok": True, "last_read_seq": 1, "rev": 3}
    assert marks == {"ada": 0, "bob": 1}


async def test_a_user_s_own_feed_comes_without_asking(server: Running) -> None:
    """A socket is in its user's room from the start."""
    async with server.socket("bob") as bob:
        await bob.wait("list")
        talk = await room(server, "bob")
        await say(server, talk, "words")
        await bob.wait("activity", conversation_id=talk, unread=1)

    joined = [data for name, data in bob.events if name == "list" and data["conversations"]]
    assert [one["id"] for one in joined[0]["conversations"]] == [talk]


async def test_a_socket_too_slow_for_its_room_catches_up(server: Running) -> None:
    """What does not fit into its queue it reads from its own position: once, and in order."""
    talk = await room(server, "bob")
    async with server.socket("bob") as bob:
        await bob.call("join", conversation_id=talk)
        (session,) = [one for one in server.app.sockets._sessions.values() if one.joined]
        (joined,) = session.joined.values()
        eio = server.app.sockets._wire.socket(joined.sid)
        # As if its transport were paused: what is put there stays.
        for _ in range(QUEUE):
            eio.queue.put_nowait(event("noise", msgspec.json.encode({"n": 1})))
        place = server.app.sockets._places[joined]
        late = Change(joined.conversation_id, "x", joined.rev, joined.rev + 1, b"{}")
        place.push(late)
        assert joined.heard is not None
        for number in range(3):
            await say(server, talk, f"n{number}")
        await bob.wait("change", rev=4)

    assert said(bob.events) == ["n0", "n1", "n2"]


async def test_people_are_named_again_only_when_they_changed(server: Running) -> None:
    """Who comes back is told of the people when somebody came, left or read; else it is null."""
    talk = await room(server, "bob")
    async with server.socket("bob") as bob:
        first = await bob.call("join", conversation_id=talk)
        await say(server, talk, "words")
        known = {"epoch": first["epoch"], "rev": first["rev"]}
        same = await bob.call("join", conversation_id=talk, **known)
        await bob.call("read", conversation_id=talk, seq=1)
        read = await bob.call("join", conversation_id=talk, **known)

    assert [one["user_id"] for one in first["participants"]] == ["ada", "bob"]
    assert (same["recovered"], same["participants"]) == (True, None)
    assert [one["last_read_seq"] for one in read["participants"]] == [0, 1]
    assert read["participants"] == read["changes"]["participants"]


async def test_in_a_large_room_presence_is_asked_for(server: Running) -> None:
    """With more than 200 people a join says nothing of it: null, which is not nobody."""
    talk = await room(server, *(f"guest-{number}" for number in range(99)))
    async with server.http("ada") as http, server.socket("ada") as ada:
        small = await ada.call("join", conversation_id=talk)
        for number in range(99, 200):
            answer = await http.post(
                f"/v1/conversations/{talk}/participants", json={"user_id": f"guest-{number}"}
            )
            assert answer.status_code in (200, 201), answer.text
        large = await ada.call("join", conversation_id=talk)
        asked = await http.get(f"/v1/conversations/{talk}/presence")

    assert len(small["presence"]) == 100
    assert large["presence"] is None
    assert len(large["participants"]) == 201
    online = [one["user_id"] for one in asked.json() if one["status"] == "online"]
    assert online == ["ada"]


async def test_a_server_that_stops_sends_nobody_away(database: str) -> None:
    """Its sockets end as a broken network ends them, so that clients come back by themselves."""
    reasons: list[str] = []
    ended = asyncio.Event()

    async def gone(reason: str) -> None:
        reasons.append(reason)
        ended.set()

    async with running(database) as server:
        talk = await room(server)
        ada = await server.connected("ada")
        ada.client.on("disconnect", gone)
        await ada.call("join", conversation_id=talk)
    async with asyncio.timeout(PATIENCE):
        await ended.wait()

    assert reasons == [ada.client.reason.TRANSPORT_ERROR]
    assert not [name for name, _ in ada.events if name == "revoked"]


async def service_key(server: Running) -> str:
    """A key with which a service comes in."""
    admin = issue(SECRET.encode(), "root", lifetime=600, admin=True)
    async with httpx2.AsyncClient(
        base_url=server.url, headers={"authorization": f"Bearer {admin}"}
    ) as http:
        made = await http.post("/v1/keys", json={"scope": "service", "name": "gateway"})
        assert made.status_code == 201, made.text
        key: str = made.json()["key"]
        return key


async def test_a_service_follows_in_the_place_of_a_user(server: Running) -> None:
    """It is told what that user is told, and is refused what is not theirs."""
    talk = await room(server, "bob")
    others = await room(server)
    bob = socketio.AsyncClient(reconnection=False)
    listed = asyncio.Event()
    bob.on("list", lambda _: listed.set())
    auth = {"token": await service_key(server), "act_as": "bob"}
    await bob.connect(server.url, auth=auth, transports=["websocket"])
    async with asyncio.timeout(PATIENCE):
        await listed.wait()
    mine = await bob.call("join", {"conversation_id": talk, "rev": 0})
    theirs = await bob.call("join", {"conversation_id": others})
    await bob.disconnect()

    assert mine["ok"] is True
    assert theirs == {"ok": False, "code": "not-found"}


@pytest.mark.parametrize("act_as", ["", "service", "a\x00b", 7, "x" * 257])
async def test_a_service_acts_only_for_who_may_be_a_user(server: Running, act_as: object) -> None:
    """Whoever else it names, it is refused at the door."""
    client = socketio.AsyncClient(reconnection=False)
    auth = {"token": await service_key(server), "act_as": act_as}
    with pytest.raises(socketio.exceptions.ConnectionError):
        await client.connect(server.url, auth=auth, transports=["websocket"])


async def test_a_person_acts_for_nobody_else(server: Running) -> None:
    """Only a key of scope service does."""
    client = socketio.AsyncClient(reconnection=False)
    with pytest.raises(socketio.exceptions.ConnectionError):
        await client.connect(
            server.url,
            auth={"token": server.token("ada"), "act_as": "bob"},
            transports=["websocket"],
        )
