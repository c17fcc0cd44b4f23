"""The example page in a real browser: what people see of a conversation, through restarts too."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from playwright.async_api import Page, Route, async_playwright, expect

from helpers.patience import PATIENCE
from live.conftest import Running, running
from live.test_howto import PAGES, blocks

EXAMPLE = Path(__file__).parents[2] / "examples" / "browser"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
    pytest.mark.skipif(
        shutil.which("npm") is None, reason="no npm, which installs socket.io-client"
    ),
]


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example with what it needs, installed from its lock."""
    folder = tmp_path_factory.mktemp("browser")
    shutil.copytree(EXAMPLE, folder, dirs_exist_ok=True)
    subprocess.run(
        ["npm", "ci", "--no-audit", "--no-fund", "--prefer-offline", "--ignore-scripts"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    return folder


@pytest_asyncio.fixture
async def page(example: Path) -> AsyncIterator[Page]:
    """A tab, in which ``/example/`` of any server is the example, as behind a reverse proxy."""

    async def file(route: Route) -> None:
        await route.fulfill(
            path=example / urlsplit(route.request.url).path.removeprefix("/example/")
        )

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM,
            # Its own sandbox takes no root, which is who runs tests in containers.
            chromium_sandbox=os.getuid() != 0,
            # What a test answers for a page seems to come from the internet, and may reach nothing
            # on this machine.
            args=["--disable-features=LocalNetworkAccessChecks"],
        )
        tab = await browser.new_page()
        await tab.route("**/example/**", file)
        yield tab
        await browser.close()


async def conversation(server: Running) -> str:
    """A conversation of ada's in which something was said."""
    async with server.http("ada") as http:
        talk: str = (await http.post("/v1/conversations", json={})).json()["id"]
        await http.post(f"/v1/conversations/{talk}/messages", json={"content": "before"})
    return talk


async def opened(page: Page, server: Running, talk: str) -> None:
    """Open the example at a conversation, and wait until it follows."""
    frames: asyncio.Queue[str | bytes] = asyncio.Queue()
    page.on("websocket", lambda socket: socket.on("framereceived", frames.put_nowait))
    token = server.token("ada")
    await page.goto(f"{server.url}/example/index.html#conversation={talk}&token={token}")
    async with asyncio.timeout(PATIENCE):
        # The answer of its join.
        while not str(await frames.get()).startswith("430"):
            pass


async def lines(page: Page, *wanted: str) -> None:
    """Wait until the page shows these lines and no others."""
    await expect(page.locator("#messages li")).to_have_text(wanted, timeout=PATIENCE * 1000)


async def test_what_is_said_is_seen(server: Running, page: Page) -> None:
    """What was there, what one sends oneself, what others do: each once, in its place."""
    talk = await conversation(server)
    await opened(page, server, talk)
    await lines(page, "before")

    await page.get_by_label("Say").fill("<b>from the page</b>")
    await page.get_by_role("button", name="Send").click()
    await lines(page, "before", "<b>from the page</b>")
    async with server.http("ada") as http:
        await http.post(f"/v1/conversations/{talk}/messages", json={"content": "from elsewhere"})
        await lines(page, "before", "<b>from the page</b>", "from elsewhere")
        await http.patch(f"/v1/conversations/{talk}/messages/1", json={"content": "edited"})
        await http.delete(f"/v1/conversations/{talk}/messages/2")
        await lines(page, "edited", "(deleted)", "from elsewhere")
        await http.post(f"/v1/conversations/{talk}/rewind", json={"after_seq": 1})
        await lines(page, "edited")


async def test_a_page_lives_through_a_restart(database: str, page: Page) -> None:
    """The server ends and another takes its place: the page comes back by itself, and is whole."""
    async with running(database) as first:
        port = urlsplit(first.url).port
        assert port is not None
        talk = await conversation(first)
        await opened(page, first, talk)
        await lines(page, "before")
    async with running(database) as elsewhere, elsewhere.http("ada") as http:
        await http.post(f"/v1/conversations/{talk}/messages", json={"content": "meanwhile"})
    async with running(database, port=port) as again, again.http("ada") as http:
        await lines(page, "before", "meanwhile")
        await http.post(f"/v1/conversations/{talk}/messages", json={"content": "after"})
        await lines(page, "before", "meanwhile", "after")


def test_the_example_is_what_the_pages_show() -> None:
    """What is read in the documentation is what runs here."""
    (shown,) = blocks(PAGES[0], "js")

    assert (EXAMPLE / "follow.js").read_text(encoding="utf-8") == shown
