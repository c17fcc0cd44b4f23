"""Promise: in local mode the person at this machine comes in by a link, and nobody else does."""

from __future__ import annotations

import io
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
import pytest_asyncio

from greffier.errors import SettingsError
from greffier.server import create_app
from greffier.server.auth import SharedSecret, issue
from greffier.server.local import Local, load_secret
from greffier.server.logs import make_logger
from greffier.settings import load
from helpers.api import Served, expect, refused

URL = "http://127.0.0.1:8080"
SECRET = b"the secret of a data folder, made on first use"


@pytest.fixture
def local() -> Local:
    """Local mode on port 8080."""
    return Local(SECRET, "127.0.0.1", 8080, user="ada")


@pytest_asyncio.fixture
async def browser(served: Served, local: Local) -> AsyncIterator[httpx2.AsyncClient]:
    """A browser without a cookie yet."""
    app = create_app(
        served.database,
        load({"rate_limit": "off"}),
        local=local,
        authenticator=SharedSecret(SECRET),
        log=make_logger("info", "json", io.BytesIO()),
    )
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url=URL) as client:
        yield client


async def sign_in(browser: httpx2.AsyncClient, local: Local) -> dict[str, str]:
    """Follow the link; give the headers that our own pages send with a write."""
    answer = await browser.get(local.link)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    return {"origin": URL, "x-greffier-csrf": browser.cookies["greffier-csrf-8080"]}


async def test_the_link_signs_the_person_in(browser: httpx2.AsyncClient, local: Local) -> None:
    """As an admin of their own machine, with cookies that no other site can use or read."""
    refused(await browser.get("/v1/me"), 401, "unauthenticated")

    answer = await browser.get(local.link)

    session, csrf = answer.headers.get_list("set-cookie")
    assert session.startswith("greffier-session-8080=")
    assert "HttpOnly" in session
    assert "HttpOnly" not in csrf
    for cookie in (session, csrf):
        assert "SameSite=Strict" in cookie
        assert "Path=/" in cookie
    assert answer.headers["cache-control"] == "no-store"
    me = expect(await browser.get("/v1/me"), 200)
    assert (me["id"], me["role"]) == ("ada", "admin")


async def test_the_link_works_once(browser: httpx2.AsyncClient, local: Local) -> None:
    """Looking at it does not use it up; a second use is refused in words for a person."""
    link = local.link
    wrong = await browser.get("/signin?token=guess")
    await browser.head(link)
    await sign_in(browser, local)
    again = await browser.get(link)

    for answer in (wrong, again):
        assert answer.status_code == 403
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert "set-cookie" not in answer.headers


async def test_a_page_of_ours_may_write(browser: httpx2.AsyncClient, local: Local) -> None:
    """With its Origin and the header that repeats its second cookie."""
    ours = await sign_in(browser, local)

    made = expect(await browser.post("/v1/conversations", json={}, headers=ours), 201)

    assert made["owner_id"] == "ada"
    assert made["me"]["role"] == "owner"


@pytest.mark.parametrize("without", ["origin", "x-greffier-csrf"])
async def test_a_write_by_cookie_needs_both_proofs(
    browser: httpx2.AsyncClient, local: Local, without: str
) -> None:
    """One alone is refused."""
    ours = await sign_in(browser, local)
    del ours[without]

    refused(await browser.post("/v1/conversations", json={}, headers=ours), 403, "forbidden")
    expect(await browser.get("/v1/conversations"), 200)


async def test_a_cookie_planted_by_another_port_is_no_proof(
    browser: httpx2.AsyncClient, local: Local
) -> None:
    """The header must be that of this very session, not just equal to a cookie."""
    ours = await sign_in(browser, local)
    browser.cookies.delete("greffier-csrf-8080")
    browser.cookies.set("greffier-csrf-8080", "planted")

    answer = await browser.post(
        "/v1/conversations", json={}, headers={**ours, "x-greffier-csrf": "planted"}
    )

    refused(answer, 403, "forbidden")


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "http://127.0.0.1:9999", "https://127.0.0.1:8080", "null"]
)
async def test_a_foreign_page_may_not_call(
    browser: httpx2.AsyncClient, local: Local, origin: str
) -> None:
    """Neither read nor write, whether with the cookie or with a token."""
    ours = {**await sign_in(browser, local), "origin": origin}
    bearer = f"Bearer {issue(SECRET, 'ada', lifetime=60)}"

    for headers in (ours, {"origin": origin, "authorization": bearer}):
        refused(await browser.get("/v1/me", headers=headers), 403, "forbidden")
        refused(await browser.post("/v1/conversations", json={}, headers=headers), 403, "forbidden")


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8080", "127.0.0.1:9999", "", "127.0.0.1"]
)
async def test_a_foreign_name_leads_nowhere(browser: httpx2.AsyncClient, host: str) -> None:
    """A name that somebody pointed to 127.0.0.1 (DNS rebinding) is refused, pages too."""
    for url in ("/", "/healthz", "/v1/me", "/docs"):
        refused(await browser.get(url, headers={"host": host}), 403, "forbidden")


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8080", "localhost:8080", "[::1]:8080", "LOCALHOST:8080"]
)
async def test_the_names_of_this_machine_are_ours(browser: httpx2.AsyncClient, host: str) -> None:
    """Whichever of them is used."""
    assert (await browser.get("/healthz", headers={"host": host})).status_code == 200


async def test_a_program_uses_a_token(browser: httpx2.AsyncClient) -> None:
    """Signed with the secret of the data folder; no cookie, no proofs."""
    token = issue(SECRET, "bob", lifetime=60)
    headers = {"authorization": f"Bearer {token}"}

    expect(await browser.post("/v1/conversations", json={}, headers=headers), 201)
    assert expect(await browser.get("/v1/me", headers=headers), 200)["role"] == "user"


async def test_a_session_is_no_token_and_a_token_no_session(
    browser: httpx2.AsyncClient, local: Local
) -> None:
    """What is in a cookie cannot be sent as a bearer, nor the reverse."""
    await sign_in(browser, local)
    session = browser.cookies["greffier-session-8080"]
    browser.cookies.clear()

    as_bearer = await browser.get("/v1/me", headers={"authorization": f"Bearer {session}"})
    browser.cookies.set("greffier-session-8080", issue(SECRET, "bob", lifetime=60))
    as_cookie = await browser.get("/v1/me")

    refused(as_bearer, 401, "unauthenticated")
    refused(as_cookie, 401, "unauthenticated")


async def test_with_a_jwt_secret_no_cookie_counts(
    served: Served, browser: httpx2.AsyncClient, local: Local
) -> None:
    """And there is no way to sign in by a link."""
    await sign_in(browser, local)
    cookies = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())

    async with served.anonymous(cookie=cookies) as nobody:
        refused(await nobody.get("/v1/me"), 401, "unauthenticated")
        refused(await nobody.get("/signin?token=x"), 404, "not-found")


async def test_sessions_outlive_a_restart(browser: httpx2.AsyncClient, local: Local) -> None:
    """The secret stays in the data folder; only the link is new."""
    await sign_in(browser, local)

    again = Local(SECRET, "127.0.0.1", 8080, user="ada")

    assert again.link != local.link
    assert (
        again._csrf(browser.cookies["greffier-session-8080"])
        == browser.cookies["greffier-csrf-8080"]
    )


def test_the_secret_is_made_once_and_for_its_owner(tmp_path: Path) -> None:
    """Of 32 random bytes or more, in a file that nobody else can read."""
    first = load_secret(tmp_path)

    assert load_secret(tmp_path) == first
    assert len(first) >= 32
    (file,) = tmp_path.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert load_secret(_folder(tmp_path / "other")) != first


def test_a_secret_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """With what to do about it; the same for one that is too short."""
    load_secret(tmp_path)
    (file,) = tmp_path.iterdir()
    file.chmod(0o640)
    with pytest.raises(SettingsError, match="Others can read"):
        load_secret(tmp_path)

    file.chmod(0o600)
    file.write_bytes(b"short")
    with pytest.raises(SettingsError, match="too short"):
        load_secret(tmp_path)


def test_a_secret_is_no_link_to_elsewhere(tmp_path: Path) -> None:
    """A symbolic link at its place is not followed."""
    load_secret(_folder(tmp_path / "a"))
    link = _folder(tmp_path / "b") / "token.secret"
    link.symlink_to(tmp_path / "a" / "token.secret")

    with pytest.raises(SettingsError, match="cannot be read"):
        load_secret(tmp_path / "b")


def _folder(path: Path) -> Path:
    path.mkdir()
    return path
