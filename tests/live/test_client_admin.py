"""``greffier.client`` for those who look after a server: agents, endpoints, sources, quotas, keys.

The names and values are the library's; who may is decided by the server, in the library's errors.
"""

from __future__ import annotations

import uuid
from decimal import Decimal
from typing import Any

import pytest

import greffier
from greffier.client import Client, connect
from greffier.errors import Forbidden, Invalid, NotFound, Stale, Unauthenticated
from greffier.model.source import Incoming
from greffier.server.auth import issue
from helpers.api import SECRET
from helpers.crowd import token
from live.conftest import Running, a_name

TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


def admin(user: str | None = None) -> str:
    """A token of an admin."""
    return issue(SECRET.encode(), user or a_name("root"), admin=True, lifetime=600)


async def test_an_admin_writes_agents(server: Running) -> None:
    """Made once for an id, changed only as it was seen, deleted; for others it is forbidden."""
    async with connect(server.url, admin()) as g, connect(server.url, token(a_name("eva"))) as eva:
        own = uuid.uuid4()
        asked: dict[str, Any] = {
            "name": "Echo",
            "provider": "echo",
            "model": "echo",
            "tools": [TOOL],
            "id": own,
        }
        made = await g.agents.create(**asked)
        again = await g.agents.create(**asked)
        changed = await g.agents.update(own, name="Écho", params={"top_p": 1}, if_version=1)
        with pytest.raises(Stale):
            await g.agents.update(own, name="Late", if_version=made.version)
        unset = await g.agents.update(str(own), tools=None)
        with pytest.raises(Forbidden):
            await eva.agents.create(name="A", provider="echo", model="echo")
        with pytest.raises(Forbidden):
            await eva.agents.update(own, name="B")
        with pytest.raises(Invalid):
            await g.agents.create(name="A", provider="nobody", model="x")
        seen = await eva.agents.get(own)
        await g.agents.delete(own)
        with pytest.raises(NotFound):
            await g.agents.get(own)

    assert isinstance(made, greffier.Agent)
    assert (again, made.id, made.version) == (made, own, 1)
    assert (changed.name, changed.params, changed.tools) == ("Écho", {"top_p": 1}, made.tools)
    assert (unset.tools, seen) == ([], unset)


async def test_what_was_seen_guards_what_is_changed(server: Running) -> None:
    """``if_rev`` of a conversation and of a message: what came between is not overwritten."""
    async with connect(server.url, token(a_name("eva"))) as g:
        talk = await g.conversations.create(title="One")
        renamed = await g.conversations.update(talk.id, title="Two", if_rev=talk.rev)
        with pytest.raises(Stale):
            await g.conversations.update(talk.id, title="Three", if_rev=talk.rev)
        said = await g.messages.append(talk.id, content="one")
        edited = await g.messages.edit(talk.id, said.seq, "two", if_rev=said.rev)
        with pytest.raises(Stale):
            await g.messages.edit(talk.id, said.seq, "three", if_rev=said.rev)
        with pytest.raises(NotFound):
            await g.conversations.update(uuid.uuid4(), title="x", if_rev=1)

    assert (renamed.title, edited.content) == ("Two", "two")


async def test_endpoints_are_kept(server: Running) -> None:
    """By an admin for all, by an owner for their conversation; its secret is shown this once."""
    async with connect(server.url, admin()) as g, connect(server.url, token(a_name("eva"))) as eva:
        made = await g.endpoints.create(
            channel="webhook", target="https://example.org/", roles=["assistant"], paused=True
        )
        talk = await eva.conversations.create()
        own = await eva.endpoints.create(
            channel="webhook", target="https://example.org/mine", conversation=talk.id, paused=True
        )
        listed = await eva.endpoints.list(conversation=talk.id)
        resumed = await g.endpoints.resume(made.id)
        paused = await g.endpoints.pause(made.id)
        changed = await g.endpoints.update(made.id, ordering="skip", if_version=paused.version)
        with pytest.raises(Stale):
            await g.endpoints.update(made.id, ordering="strict", if_version=paused.version)
        with pytest.raises(Invalid):
            await g.endpoints.update(made.id, colour="red")
        rotated = await g.endpoints.rotate(made.id)
        now = await g.endpoints.get(made.id)
        with pytest.raises(Forbidden):
            await eva.endpoints.create(channel="webhook", target="https://example.org/")
        with pytest.raises(NotFound):
            await eva.endpoints.get(made.id)
        await g.endpoints.delete(made.id)
        await eva.endpoints.delete(own.id)
        with pytest.raises(NotFound):
            await g.endpoints.get(made.id)

    assert isinstance(made, greffier.MadeEndpoint)
    assert [one.id for one in listed.data] == [own.id]
    assert (made.secret or "")[:6] == (rotated.secret or "")[:6] == "whsec_"
    assert made.secret != rotated.secret
    assert (resumed.state, paused.state, changed.ordering) == ("active", "paused", "skip")
    assert now.rotated_at is not None


async def test_messages_come_in_by_a_source(server: Running) -> None:
    """Signed with its secret, each once for its external id; a wrong secret brings nothing."""
    eva = a_name("eva")
    async with connect(server.url, admin()) as g, connect(server.url, token(eva)) as owner:
        source = await g.sources.create(name="form", owner=eva, debounce=0)
        assert source.secret is not None
        said: dict[str, Any] = {"external_id": "1", "contact": "bob", "content": "Bonjour"}
        received = await owner.receive(source.id, **said, secret=source.secret)
        again = await owner.sources.receive(source.id, Incoming(**said), secret=source.secret)
        page = await owner.messages.recent(received.conversation_id)
        renamed = await g.sources.update(source.id, name="Form", if_version=source.version)
        rotated = await g.sources.rotate(source.id)
        with pytest.raises(Unauthenticated):
            await owner.receive(source.id, **said, secret="whsec_" + "A" * 40)
        with pytest.raises(Invalid) as nonsense:
            await owner.receive(source.id, **said, secret="nonsense")
        with pytest.raises(NotFound):
            await owner.sources.report(
                source.id, external_id="x", status="read", secret=source.secret
            )
        listed = await g.sources.list(limit=100)
        with pytest.raises(Forbidden):
            await owner.sources.list()
        await g.sources.delete(source.id)
        with pytest.raises(NotFound):
            await g.sources.get(source.id)

    assert (received.seq, received.replayed, again.replayed) == (1, False, True)
    assert [one.content for one in page.data] == ["Bonjour"]
    assert (renamed.name, rotated.secret != source.secret) == ("Form", True)
    assert source.id in {one.id for one in listed.data}
    assert [one.pointer for one in nonsense.value.problems] == ["/secret"]


async def test_quotas_are_said_by_admins(server: Running) -> None:
    """A cost is exact, however it was written; a user is shown their own with their usage."""
    eva = f"{a_name('eva')}/é"
    async with connect(server.url, admin()) as g, connect(server.url, token(eva)) as user:
        said = await g.set_quota(eva, tokens_per_month=1000, cost_per_month=0.1)
        read = await g.quota(eva)
        mine = await user.usage()
        with pytest.raises(Forbidden):
            await user.set_quota(eva)
        with pytest.raises(Invalid):
            await g.set_quota(eva, tokens_per_month=-1)
        none = await g.set_quota(eva)

    assert (said.tokens_per_month, said.cost_per_month) == (1000, Decimal("0.1"))
    assert (read, mine.quota) == (said, said)
    assert (none.tokens_per_month, none.cost_per_month) == (None, None)


async def test_keys_open_until_they_are_revoked(server: Running) -> None:
    """One's own, shown this once and then listed; a key that is revoked opens nothing."""
    eva = a_name("eva")
    async with connect(server.url, token(eva)) as g:
        made = await g.keys.create(scope="user", name="script")
        async with connect(server.url, made.key) as program:
            who = await program.wire.me()
            listed = await g.keys.list()
            await g.keys.revoke(made.id)
            with pytest.raises(Unauthenticated):
                await program.conversations.list()
        with pytest.raises(Forbidden):
            await g.keys.create(scope="ops", name="watch")

    assert (who, made.key[:4], made.scope) == (eva, "grf_", "user")
    assert [(one.id, one.name) for one in listed.data] == [(made.id, "script")]


async def test_the_queue_is_looked_after_from_afar(server: Running) -> None:
    """With a key of scope ops: how it does, where a lane stands, paused, resumed and skipped."""
    async with connect(server.url, admin()) as g:
        key = (await g.keys.create(scope="ops", name="watch")).key
        talk = await g.conversations.create()
        endpoint = await g.endpoints.create(
            channel="webhook",
            target="https://example.org/",
            conversation=talk.id,
            paused=True,
        )
        await g.messages.append(talk.id, content="one")
        async with connect(server.url, key) as ops:
            lane = await the_lane(ops, talk.id)
            paused = await ops.ops.pause(lane)
            resumed = await ops.ops.resume(lane)
            skipped = await ops.ops.skip(lane)
            nothing = await ops.ops.retry(lane), await ops.ops.unlock(lane, force=True)
            journal = await ops.ops.attempts(lane=lane)
            now = await ops.ops.lane(lane)
            how = await ops.ops.queue()
            alerts = await ops.ops.alerts()
            with pytest.raises(Forbidden):
                await ops.conversations.list()
        await g.endpoints.delete(endpoint.id)

    assert (paused.changed, paused.lane.state) == (True, "paused")
    assert (resumed.changed, skipped.changed, skipped.skipped_seq) == (True, True, 1)
    assert [one.changed for one in nothing] == [False, False]
    assert [one.outcome for one in journal.data] == ["skipped"]
    assert (now.head_seq, now.state) == (2, "idle")
    assert how.count("idle") > 0
    assert {one.code for one in alerts if one.until is None} == {one.code for one in how.alerts}


async def the_lane(ops: Client, conversation_id: uuid.UUID) -> uuid.UUID:
    """The lane of a conversation that has one."""
    cursor: str | None = None
    while True:
        page = await ops.ops.lanes(kind="out", limit=100, cursor=cursor)
        for lane in page.data:
            if lane.conversation_id == conversation_id:
                return lane.id
        cursor = page.next_cursor
        assert cursor is not None
