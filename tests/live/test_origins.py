"""Promise: pages of the origins that are named may call, follow and connect, and no others may.

The API, its events and the sockets are of one mind.  Such a page is let in by its token alone: the
cookie that a browser sends along counts for our own pages only.
"""

from __future__ import annotations

import io
import os
from collections.abc import AsyncIterator

import httpx2
import pytest
import pytest_asyncio
import socketio
from playwright.async_api import async_playwright

from greffier.errors import SettingsError
from greffier.server import create_app
from greffier.server.app import origins
from greffier.server.auth import SharedSecret, issue
from greffier.server.local import Local
from greffier.server.logs import make_logger
from greffier.settings import load
from greffier.store.database import open_database
from live.conftest import Running, running
from live.test_browser import CHROMIUM

APP = "https://app.example"
OTHER = "https://other.example"
LOCAL = b"the secret of a data folder, made on first use"


@pytest_asyncio.fixture
async def shared(database: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Running]:
    """A server that pages of two origins may call."""
    monkeypatch.setenv("GREFFIER_ALLOWED_ORIGINS", f"{APP}, http://localhost:5173")
    async with running(database) as one:
        yield one


def page(server: Running, origin: str) -> httpx2.AsyncClient:
    """A page of an origin, as its browser calls for it."""
    headers = {"authorization": f"Bearer {server.token('ada')}", "origin": origin}
    return httpx2.AsyncClient(base_url=server.url, headers=headers)


def asking(method: str = "PATCH", headers: str = "authorization,content-type") -> dict[str, str]:
    """What a browser sends before a page's request."""
    return {
        "access-control-request-method": method,
        "access-control-request-headers": headers,
    }


async def test_a_page_of_a_named_origin_reads_its_answers(shared: Running) -> None:
    """Refusals and streams of events too, with the headers that a client of ours needs."""
    async with page(shared, APP) as http:
        made = await http.post("/v1/conversations", json={})
        events = f"/v1/conversations/{made.json()['id']}/events"
        async with http.stream("GET", events) as following:
            answers = [made, await http.get("/v1/me"), await http.get("/nowhere"), following]
            statuses = [one.status_code for one in answers]
            for one in answers:
                assert one.headers["access-control-allow-origin"] == APP
                assert "Greffier-Position" in one.headers["access-control-expose-headers"]
                assert one.headers["vary"] == "origin"
                assert "access-control-allow-credentials" not in one.headers
    assert statuses == [201, 200, 404, 200]


@pytest.mark.parametrize("path", ["/v1/conversations", "/nowhere", "/socket.io/?EIO=4"])
async def test_a_browser_that_asks_first_is_told_what_may_be_sent(
    shared: Running, path: str
) -> None:
    """Without a token, which it does not send with its question; and for two hours."""
    async with httpx2.AsyncClient(base_url=shared.url, headers={"origin": APP}) as http:
        said = await http.options(path, headers=asking(headers="authorization,if-match"))
        odd = await http.options(path, headers=asking(headers="a;b"))
    assert (said.status_code, said.content) == (204, b"")
    assert said.headers["access-control-allow-origin"] == APP
    assert "PATCH" in said.headers["access-control-allow-methods"]
    assert said.headers["access-control-allow-headers"] == "authorization,if-match"
    assert said.headers["access-control-max-age"] == "7200"
    assert odd.headers["access-control-allow-headers"] == ""


async def test_pages_of_others_are_told_nothing(shared: Running) -> None:
    """Neither is their browser's question answered, nor may they read what comes."""
    for origin in (OTHER, "null", f"{APP}.example", APP.upper(), "http://localhost:5174"):
        async with page(shared, origin) as http:
            asked = await http.options("/v1/conversations", headers=asking())
            said = await http.get("/v1/me")
        assert asked.status_code == 405
        for one in (asked, said):
            assert not [name for name in one.headers if name.startswith("access-control")]
            assert one.headers["vary"] == "origin"


async def test_sockets_are_of_the_same_mind(shared: Running) -> None:
    """A named origin's page connects, another's does not; one's own and programs always do."""

    async def connect(headers: dict[str, str]) -> None:
        client = socketio.AsyncClient(reconnection=False)
        try:
            await client.connect(
                shared.url,
                headers,
                auth={"token": shared.token("ada")},
                transports=["websocket"],
            )
        finally:
            await client.disconnect()

    for headers in ({}, {"origin": APP}, {"origin": shared.url}):
        await connect(headers)
    with pytest.raises(socketio.exceptions.ConnectionError):
        await connect({"origin": OTHER})


async def test_a_page_polls_without_a_socket(shared: Running) -> None:
    """Where a network lets no WebSocket through: its browser lets it read what the engine says."""
    async with page(shared, APP) as http, page(shared, OTHER) as other:
        opened = await http.get("/socket.io/?EIO=4&transport=polling")
        refused = await other.get("/socket.io/?EIO=4&transport=polling")
    assert (opened.status_code, refused.status_code) == (200, 400)
    assert opened.headers.get_list("access-control-allow-origin") == [APP]
    assert "access-control-allow-credentials" not in opened.headers


async def test_without_the_setting_nobody_else_may(server: Running) -> None:
    """As it is by default."""
    async with page(server, APP) as http:
        asked = await http.options("/v1/conversations", headers=asking())
        said = await http.get("/v1/me")
        polled = await http.get("/socket.io/?EIO=4&transport=polling")
    assert (asked.status_code, said.status_code, polled.status_code) == (405, 200, 400)
    assert "access-control-allow-origin" not in said.headers
    assert "vary" not in said.headers


async def test_every_page_may_where_that_is_said(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With ``*``, for an API that anybody's page may use with a token."""
    monkeypatch.setenv("GREFFIER_ALLOWED_ORIGINS", "*")
    async with running(database) as server, page(server, OTHER) as http:
        said = await http.get("/v1/me")
        polled = await http.get("/socket.io/?EIO=4&transport=polling")
    assert (said.status_code, polled.status_code) == (200, 200)
    for one in (said, polled):
        assert one.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in one.headers


# -- local mode ------------------------------------------------------------------------------------


async def test_in_local_mode_a_named_page_needs_a_token(database: str) -> None:
    """The person's cookie is for our own pages, though a browser sends it between two ports."""
    local = Local(LOCAL, "127.0.0.1", 8080, user="ada")
    origin = "http://localhost:5173"
    async with open_database(database) as opened:
        app = create_app(
            opened,
            load({"rate_limit": "off", "allowed_origins": [origin]}),
            local=local,
            authenticator=SharedSecret(LOCAL),
            log=make_logger("info", "json", io.BytesIO()),
        )
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url=local.url) as browser:
            await browser.get(local.link)
            ours = await browser.get("/v1/me")
            cookie = await browser.get("/v1/me", headers={"origin": origin})
            bearer = {"authorization": f"Bearer {issue(LOCAL, 'ada', lifetime=60)}"}
            token = await browser.get("/v1/me", headers={"origin": origin, **bearer})
            foreign = await browser.get("/v1/me", headers={"origin": OTHER, **bearer})
            rebound = await browser.get(
                "/v1/me", headers={"origin": origin, "host": "evil.example"}
            )
            sockets = [await welcomed(browser, headers) for headers in ({}, {"origin": origin})]
        await app.say_goodbye()
    assert [one.status_code for one in (ours, cookie, token, foreign, rebound)] == [
        *(200, 401, 200, 403, 403)
    ]
    assert sockets == [True, False]


async def welcomed(browser: httpx2.AsyncClient, headers: dict[str, str]) -> bool:
    """Connect a socket by polling, with nothing but the cookie; say whether it is let in."""
    where = "/socket.io/?EIO=4&transport=polling"
    opened = await browser.get(where, headers=headers)
    sid = opened.text.split('"sid":"')[1].split('"')[0]
    await browser.post(f"{where}&sid={sid}", content="40", headers=headers)
    answer = await browser.get(f"{where}&sid={sid}", headers=headers)
    assert answer.text[:2] in ("40", "44")
    return answer.text.startswith("40")


def test_in_local_mode_not_every_page_may() -> None:
    """``*`` is refused there, and what is no origin everywhere."""
    with pytest.raises(SettingsError, match="local mode"):
        origins(load({"allowed_origins": "*"}), Local(LOCAL, "127.0.0.1", 8080))
    for wrong in (
        "app.example",
        f"{APP}/",
        f"{APP}/chat",
        "HTTPS://app.example",
        "null",
        "https://*",
    ):
        with pytest.raises(SettingsError, match="an origin is like"):
            load({"allowed_origins": wrong})
    for right in (APP, "http://[::1]:5173", "capacitor://localhost", '["http://a.example"]', "*"):
        assert len(load({"allowed_origins": right}).allowed_origins) == 1


# -- a real browser --------------------------------------------------------------------------------

#: What a page does: it writes, follows over events, connects, and says what it could read.
SCRIPT = """async ([url, token]) => {
  const headers = { authorization: `Bearer ${token}`, "content-type": "application/json" };
  const made = await fetch(`${url}/v1/conversations`, { method: "POST", headers, body: "{}" });
  const talk = await made.json();
  const following = await fetch(`${url}/v1/conversations/${talk.id}/events`, { headers });
  const first = await following.body.getReader().read();
  const polled = await fetch(`${url}/socket.io/?EIO=4&transport=polling`);
  const socket = new WebSocket(`${url.replace("http", "ws")}/socket.io/?EIO=4&transport=websocket`);
  const connected = await new Promise((done) => {
    socket.onmessage = (message) => {
      if (message.data[0] === "0") socket.send(`40${JSON.stringify({ token })}`);
      else if (message.data.startsWith("4")) done(message.data.slice(0, 2));
    };
    socket.onclose = () => done("closed");
  });
  socket.close();
  return {
    status: made.status,
    position: made.headers.get("greffier-position") !== null,
    event: new TextDecoder().decode(first.value).includes("event:"),
    polled: polled.ok,
    connected,
  };
}"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
async def test_a_browser_lets_a_named_page_in_and_no_other(shared: Running) -> None:
    """It asks first, reads what came, follows and connects; another page is kept out."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM,
            chromium_sandbox=os.getuid() != 0,
            args=["--disable-features=LocalNetworkAccessChecks"],
        )
        tab = await browser.new_page()
        await tab.route("**/a-page", lambda route: route.fulfill(body="<title>page</title>"))
        await tab.goto("http://localhost:5173/a-page")
        found = await tab.evaluate(SCRIPT, [shared.url, shared.token("ada")])
        await tab.goto("http://localhost:5174/a-page")
        failed = await tab.evaluate(
            f"([url, token]) => ({SCRIPT})([url, token]).catch((error) => error.name)",
            [shared.url, shared.token("ada")],
        )
        await browser.close()
    assert found == {
        "status": 201, "position": True, "event": True, "polled": True, "connected": "40",
    }  # fmt: skip
    assert failed == "TypeError"
