"""Promise: the library takes in, answers and sends in one's own process, without a server."""

from __future__ import annotations

import pytest

import greffier
from greffier.errors import Invalid, NotFound
from greffier.settings import load
from helpers.delivering import PATIENCE, Delivery, delivering
from helpers.hooks import Hook, hooked

pytestmark = pytest.mark.timeout(2 * PATIENCE)


async def test_what_is_said_here_leaves_without_waiting_for_a_look(database: str) -> None:
    """An append of this process wakes its worker, which looks by itself once in an hour here."""
    async with hooked() as hook, delivering(database, poll=3600) as record:
        await record.hook(hook)
        for n in range(1, 6):
            await record.talk(f"message {n}")
            await hook.until(n)
        await record.idle()


async def test_what_was_said_elsewhere_leaves_at_the_next_look(
    record: Delivery, hook: Hook
) -> None:
    """A wake-up that is lost costs a second."""
    await record.hook(hook)
    talk = await record.talk("first")
    await hook.until(1)
    # As a process writes that tells nobody.
    await record.hand.say(talk, "second")
    await hook.until(2)
    assert hook.contents == ["first", "second"]
    await record.idle()


async def test_a_contact_is_answered_in_one_s_own_process(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``g.receive``, ``g.working`` and an endpoint of the source."""
    monkeypatch.setenv("GREFFIER_ALLOW_PRIVATE_TARGETS", "true")
    async with hooked() as hook, greffier.open(database) as g:
        endpoint = await g.endpoints.create(
            channel="webhook",
            target=f"http://127.0.0.1:{hook.port}/{{contact}}",
            roles=["assistant"],
        )
        assert endpoint.secret
        hook.secrets.append(endpoint.secret)
        agent = await g.agents.create(name="Echo", provider="echo", model="echo")
        source = await g.sources.create(
            name="form", owner="ada", agent=agent.id, endpoint=endpoint.id, debounce=0
        )
        async with g.working(load({"database_url": database})):
            said = await g.receive(source.id, external_id="1", contact="eve", content="Bonjour")
            (arrival,) = await hook.until(1)
        assert said.answering
        assert (arrival.path, arrival.content) == ("/eve", "Bonjour")
        again = await g.receive(source.id, external_id="1", contact="eve", content="Bonjour")
        assert (again.replayed, again.seq) == (True, said.seq)
        receipt = await g.sources.report(source.id, external_id=arrival.id, status="read")
        assert receipt.status == "read"
        with pytest.raises(NotFound):
            await g.sources.report(source.id, external_id="another", status="read")


def test_the_names_are_the_same_without_await(database: str) -> None:
    """Endpoints and sources too; what cannot be is refused as over HTTP."""
    with greffier.open_sync(database) as g:
        made = g.endpoints.create(channel="webhook", target="https://example.org/", paused=True)
        source = g.sources.create(name="form", owner="ada")
        assert g.endpoints.get(made.id).state == "paused"
        assert g.endpoints.resume(made.id).state == "active"
        assert g.endpoints.rotate(made.id).secret != made.secret
        assert [one.id for one in g.endpoints.list().data] == [made.id]
        assert g.sources.update(source.id, name="Form", debounce=3).debounce == 3
        assert g.sources.rotate(source.id).secret != source.secret
        assert [one.name for one in g.sources.list().data] == ["Form"]
        with pytest.raises(Invalid):
            g.endpoints.create(channel="webhook", target="https://127.0.0.1/")
        with pytest.raises(Invalid):
            g.endpoints.update(made.id, colour="red")
        g.endpoints.delete(made.id)
        g.sources.delete(source.id)
        assert (g.endpoints.list().data, g.sources.list().data) == ([], [])
