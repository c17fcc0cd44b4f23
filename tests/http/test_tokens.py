"""Promise: a token says who calls, and only a token that is signed, valid and meant for us does."""

from __future__ import annotations

import time
from typing import Any

import jwt
import pytest

from greffier.access import Principal
from greffier.errors import Unauthenticated
from greffier.server import auth
from greffier.server.auth import LEEWAY, SharedSecret, issue
from helpers.api import SECRET, Served, refused

KEY = SECRET.encode()


def claims(**more: Any) -> dict[str, Any]:
    """Claims that are accepted, but for what is changed; None takes one out."""
    whole = {"sub": "ada", "exp": int(time.time()) + 600, **more}
    return {name: value for name, value in whole.items() if value is not None}


def signed(key: bytes | str = KEY, algorithm: str = "HS256", **more: Any) -> str:
    """A token with these claims."""
    return jwt.encode(claims(**more), key, algorithm=algorithm)


def now() -> int:
    """Seconds since 1970."""
    return int(time.time())


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Basic YWRhOmFkYQ==",
        "Bearer not.a.token",
        "Bearer ...",
        "Bearer " + "[" * 9000,
        "Token " + signed(),
        "Bearer " + signed(b"another secret of thirty-two bytes and more"),
        "Bearer " + signed(key="", algorithm="none"),
        "Bearer " + signed(algorithm="HS512", key=KEY * 2),
        "Bearer " + signed()[:-2],
        "Bearer " + signed(exp=now() - LEEWAY - 1),
        "Bearer " + signed(exp=None),
        "Bearer " + signed(exp="soon"),
        "Bearer " + signed(sub=None),
        "Bearer " + signed(sub=""),
        "Bearer " + signed(sub=7),
        "Bearer " + signed(sub="a" * 257),
        "Bearer " + signed(sub="a\x00b"),
        "Bearer " + signed(sub="a\ud800b"),
        "Bearer " + signed(name=["Ada"]),
        "Bearer " + signed(name="\x00"),
        "Bearer " + signed(nbf=now() + 3600),
        "Bearer " + signed(iat=now() + 3600),
        "Bearer " + signed(aud="somebody else"),
    ],
)
async def test_whoever_is_not_known_is_sent_away(served: Served, header: str | None) -> None:
    """401 with the scheme that is expected, and nothing of what is wrong with a signature."""
    headers = {} if header is None else {"authorization": header}
    async with served.anonymous() as nobody:
        answer = await nobody.get("/v1/me", headers=headers)

    refused(answer, 401, "unauthenticated")
    assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_every_route_of_the_api_asks_who_calls(served: Served) -> None:
    """Without a token nothing under /v1 answers; the inbox asks for a signature instead."""
    paths = (await _openapi(served))["paths"]
    async with served.anonymous() as nobody:
        for path, methods in paths.items():
            for method in methods:
                if path.startswith("/v1/") and not path.startswith("/v1/inbox/"):
                    refused(await nobody.request(method.upper(), path), 401, "unauthenticated")


async def _openapi(served: Served) -> dict[str, Any]:
    async with served.anonymous() as nobody:
        found: dict[str, Any] = (await nobody.get("/openapi.json")).json()
    return found


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_the_scheme_has_no_case(served: Served, scheme: str) -> None:
    """As RFC 9110 has it."""
    async with served.anonymous(authorization=f"{scheme} {signed()}") as ada:
        assert (await ada.get("/v1/me")).json()["id"] == "ada"


async def test_a_long_id_and_any_letters_are_a_user() -> None:
    """256 bytes of UTF-8."""
    user = "é" * 128

    assert (await SharedSecret(KEY).identify(signed(sub=user))).user_id == user


async def test_a_long_name_is_cut() -> None:
    """It is for display and keeps nobody out."""
    found = await SharedSecret(KEY).identify(signed(name="n" * 1000, email="a@example.org"))

    assert found == Principal("ada", "n" * 256, "a@example.org")


async def test_clocks_may_differ_a_little() -> None:
    """A token that has just expired, or is just not valid yet, is accepted."""
    door = SharedSecret(KEY)

    await door.identify(signed(exp=now() - LEEWAY + 2))
    await door.identify(signed(nbf=now() + LEEWAY - 2))
    await door.identify(signed(iat=now() + LEEWAY - 2))


async def test_a_verified_token_is_remembered_until_it_expires(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And not a moment longer."""
    door = SharedSecret(KEY)
    token = signed(exp=now() + 600)
    first = await door.identify(token)
    monkeypatch.setattr(jwt, "decode", None)

    assert await door.identify(token) is first

    def expired(*_: Any, **__: Any) -> Any:
        raise jwt.ExpiredSignatureError

    later = float(now() + 600 + LEEWAY)
    monkeypatch.setattr(time, "time", lambda: later)
    monkeypatch.setattr(jwt, "decode", expired)
    with pytest.raises(Unauthenticated, match="expired"):
        await door.identify(token)


async def test_remembered_tokens_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one used least lately goes first, and is verified again when it comes back."""
    verified = 0
    decode = jwt.decode

    def counted(*args: Any, **options: Any) -> Any:
        nonlocal verified
        verified += 1
        return decode(*args, **options)

    monkeypatch.setattr(auth, "REMEMBERED_TOKENS", 2)
    monkeypatch.setattr(jwt, "decode", counted)
    door = SharedSecret(KEY)
    first, second, third = (signed(sub=name) for name in ("first", "second", "third"))

    for token in (first, second, first, third, first):
        await door.identify(token)
    assert verified == 3
    await door.identify(second)
    assert verified == 4


@pytest.mark.parametrize(
    ("audience", "aud", "accepted"),
    [
        ("greffier", "greffier", True),
        ("greffier", ["other", "greffier"], True),
        ("greffier", "other", False),
        ("greffier", None, False),
        (None, "greffier", False),
    ],
)
async def test_a_token_is_for_its_audience(audience: str | None, aud: Any, accepted: bool) -> None:
    """When we have one it must name us; when we have none it must name nobody."""
    door = SharedSecret(KEY, audience=audience)
    token = signed(aud=aud)

    if accepted:
        await door.identify(token)
    else:
        with pytest.raises(Unauthenticated):
            await door.identify(token)


async def test_a_token_is_from_its_issuer() -> None:
    """When one is configured."""
    door = SharedSecret(KEY, issuer="https://id.example.org")

    await door.identify(signed(iss="https://id.example.org"))
    for issuer in ("https://id.example.net", None):
        with pytest.raises(Unauthenticated):
            await door.identify(signed(iss=issuer))


@pytest.mark.parametrize(
    ("path", "more", "role"),
    [
        ("role", {}, "user"),
        ("role", {"role": "admin"}, "admin"),
        ("role", {"role": "Admin"}, "user"),
        ("role", {"role": "authenticated"}, "user"),
        ("role", {"role": {"admin": True}}, "user"),
        ("roles", {"roles": ["user", "admin"]}, "admin"),
        ("realm_access.roles", {"realm_access": {"roles": ["admin"]}}, "admin"),
        ("realm_access.roles", {"realm_access": "admin"}, "user"),
        ("https://example.org/role", {"https://example.org/role": "admin"}, "admin"),
        ("app.role", {"role": "admin"}, "user"),
    ],
)
async def test_the_role_claim_makes_an_admin(path: str, more: dict[str, Any], role: str) -> None:
    """Only the exact word, where the settings say; everybody else is a user."""
    found = await SharedSecret(KEY, role_claim=path).identify(signed(**more))

    assert found.role == role


async def test_a_token_of_ours_is_accepted_by_the_same_settings() -> None:
    """What ``issue`` signs, with everything that can be configured."""
    door = SharedSecret(KEY, audience="a", issuer="i", role_claim="app.role")
    token = issue(
        KEY,
        "ada",
        lifetime=60,
        name="Ada",
        email="a@b.c",
        admin=True,
        audience="a",
        issuer="i",
        role_claim="app.role",
    )

    found = await door.identify(token)

    assert found == Principal("ada", "Ada", "a@b.c", "admin")
