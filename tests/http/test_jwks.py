"""Promise: a token of the identity provider's is taken as long as its key is published."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import OKPAlgorithm

from greffier.access import Principal
from greffier.cli.token import _sign
from greffier.errors import SettingsError, Unauthenticated, Unavailable
from greffier.server import create_app
from greffier.server.auth import Claims, issue
from greffier.server.logs import make_logger
from greffier.server.provider import FRESH, PAUSE, STALE, KeySet, ProviderTokens, read_keys
from greffier.settings import load
from greffier.store.database import Database, open_database
from helpers.api import SECRET, Served, expect, refused, settings
from helpers.provider import Provider, Signer, ec_signer, ed_signer, provider, rsa_signer


class Clock:
    """A time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Say what time it is."""
        return self.now


class Tokens:
    """The tokens of a provider, and the time in which its keys age."""

    def __init__(self, url: str, **claims: Any) -> None:
        self.clock = Clock()
        self.failures: list[str] = []
        self.keys = KeySet(url, clock=self.clock, failed=self.failures.append)
        self._tokens = ProviderTokens(self.keys, Claims(**claims))

    async def who(self, token: str) -> str | None:
        """Whom a token names."""
        return (await self._tokens.identify(token)).user_id

    async def identify(self, token: str) -> Principal:
        """Who bears a token."""
        return await self._tokens.identify(token)

    async def fetched(self) -> None:
        """Wait for the fetch that is under way behind everybody's back."""
        assert self.keys._fetch is not None
        await self.keys._fetch

    async def refuses(self, token: str) -> None:
        """Hold that a token is not valid."""
        with pytest.raises(Unauthenticated):
            await self.who(token)


@pytest.fixture
def signer() -> Signer:
    """A signer of the usual kind."""
    return rsa_signer()


@pytest.fixture
def idp(signer: Signer) -> Iterator[Provider]:
    """A provider with this one key."""
    with provider(signer) as here:
        yield here


# -- which keys ------------------------------------------------------------------------------------

SIGNERS: list[Callable[[], Signer]] = [
    lambda: rsa_signer(algorithm="RS256"),
    lambda: rsa_signer(algorithm="RS512", alg="RS512"),
    lambda: rsa_signer(algorithm="PS256"),
    lambda: ec_signer(algorithm="ES256", use="sig"),
    lambda: ec_signer(algorithm="ES384", key_ops=["verify"]),
    ed_signer,
]


@pytest.mark.parametrize("make", SIGNERS)
async def test_each_kind_of_key_verifies_its_own(make: Callable[[], Signer]) -> None:
    """RSA, both curves and Ed25519, among keys of other kinds."""
    signer = make()
    with provider(ec_signer("another"), signer, rsa_signer("third")) as here:
        assert await Tokens(here.url).who(signer.token()) == "ada"


async def test_a_public_key_is_no_secret(idp: Provider, signer: Signer) -> None:
    """HS256 with the published key as the secret, in any form, is refused; so is no signature."""
    tokens = Tokens(idp.url)
    public = signer.private.public_key()
    forms = [
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        json.dumps(signer.jwk).encode(),
        signer.jwk["n"].encode(),
    ]
    for secret in forms:
        await tokens.refuses(_hs256(secret, kid="rsa"))
    await tokens.refuses(jwt.encode(_claims(), "", algorithm="none", headers={"kid": "rsa"}))


async def test_a_key_is_used_for_what_it_is_made_for_alone(signer: Signer) -> None:
    """Not under another algorithm than it is published for, nor of another kind."""
    with provider(rsa_signer(alg="RS256")) as here:
        tokens = Tokens(here.url)
        assert await tokens.who(signer.token()) == "ada"
        await tokens.refuses(signer.token(algorithm="RS384"))
        await tokens.refuses(signer.token(algorithm="PS256"))
        await tokens.refuses(ec_signer("rsa").token())
        await tokens.refuses(ed_signer("rsa").token())


@pytest.mark.parametrize(
    "published",
    [
        {"use": "enc"},
        {"key_ops": ["encrypt"]},
        {"kty": "oct", "k": "c2VjcmV0"},
        {"alg": "RSA-OAEP"},
        {"alg": "HS256"},
        {"alg": ["RS256"]},
        {"kid": 7},
        {"d": "AQAB"},
        {"n": "AQAB"},
        {"e": None},
    ],
)
async def test_a_key_that_is_not_to_sign_with_verifies_nothing(published: dict[str, Any]) -> None:
    """To encrypt, symmetric, of a kind we do not know, private, short or broken: passed over."""
    other = ec_signer("other")
    with provider(rsa_signer(**published), other) as here:
        tokens = Tokens(here.url)
        await tokens.refuses(rsa_signer().token())
        assert await tokens.who(other.token()) == "ada"


async def test_a_key_that_everybody_can_sign_with_verifies_nothing() -> None:
    """A provider that publishes its private keys has none that are worth anything."""
    signer, other = ed_signer("open"), ec_signer("other")
    with provider(other) as here:
        private = {**OKPAlgorithm.to_jwk(signer.private, as_dict=True), **signer.jwk}
        here.document["keys"].append({**private, "key_ops": ["sign", "verify"]})
        tokens = Tokens(here.url)
        await tokens.refuses(signer.token())
        assert await tokens.who(other.token()) == "ada"


async def test_a_short_key_verifies_nothing() -> None:
    """RSA has 2048 bits at least (RFC 7518, 3.3)."""
    short = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    with pytest.raises(ValueError, match="no key"):
        read_keys(json.dumps({"keys": [Signer(short, "RS256", "short").jwk]}).encode())


async def test_a_token_without_a_key_s_name_has_the_only_one() -> None:
    """Of its kind; with two of them nobody guesses."""
    one, another = ec_signer("one"), ec_signer("two")
    with provider(one, rsa_signer()) as here:
        assert await Tokens(here.url).who(one.token(kid=None)) == "ada"
        here.publish(one, another)
        await Tokens(here.url).refuses(one.token(kid=None))


async def test_a_key_without_a_name_serves_tokens_without_one() -> None:
    """As small providers have it."""
    signer = ed_signer(None)
    with provider(signer) as here:
        assert await Tokens(here.url).who(signer.token()) == "ada"


async def test_nothing_in_a_token_says_where_keys_are(idp: Provider) -> None:
    """Neither its address nor the key itself is taken from it."""
    forger = ec_signer("mine")
    with provider(forger) as theirs:
        tokens = Tokens(idp.url)
        for header in ({"jku": theirs.url}, {"jwk": forger.jwk}, {"x5u": theirs.url}):
            token = jwt.encode(
                _claims(), forger.private, algorithm="ES256", headers={"kid": "mine", **header}
            )
            await tokens.refuses(token)
        assert theirs.asked == 0


async def test_claims_are_held_to_as_those_of_the_secret_are(idp: Provider, signer: Signer) -> None:
    """Expiry, audience, issuer and role."""
    tokens = Tokens(idp.url, audience="greffier", issuer="https://id.example", role_claim="a.b")
    right = {"aud": "greffier", "iss": "https://id.example"}

    assert (await tokens.identify(signer.token(**right))).role == "user"
    assert (await tokens.identify(signer.token(**right, a={"b": ["admin"]}))).role == "admin"
    everything_wrong: list[dict[str, Any]] = [
        {"aud": "other"},
        {"aud": None},
        {"iss": "other"},
        {"iss": None},
        {"exp": 1},
    ]
    for wrong in everything_wrong:
        await tokens.refuses(signer.token(**{**right, **wrong}))


@pytest.mark.parametrize("token", ["", "a.b.c", "x" * 9000, "e30.e30.e30", "[.[.["])
async def test_what_is_no_token_is_refused_without_asking(idp: Provider, token: str) -> None:
    """The provider is not troubled for it."""
    await Tokens(idp.url).refuses(token)

    assert idp.asked == 0


# -- when keys are fetched -------------------------------------------------------------------------


async def test_keys_are_fetched_once_for_all_who_come_at_once(
    idp: Provider, signer: Signer
) -> None:
    """However many wait for them; afterwards nobody does."""
    tokens = Tokens(idp.url)
    found = await asyncio.gather(*(tokens.who(signer.token(n=number)) for number in range(20)))

    assert found == ["ada"] * 20
    assert await tokens.who(signer.token()) == "ada"
    assert idp.asked == 1


async def test_a_new_key_is_found_when_it_is_first_used(idp: Provider, signer: Signer) -> None:
    """And the one it replaces opens nothing any more, also for tokens that were taken before."""
    tokens = Tokens(idp.url)
    old, replacement = signer.token(), ec_signer("new")
    assert await tokens.who(old) == "ada"
    idp.publish(replacement)

    assert await tokens.who(replacement.token()) == "ada"
    await tokens.refuses(old)


async def test_unknown_keys_are_asked_about_with_a_pause(idp: Provider, signer: Signer) -> None:
    """Anybody can name a key that is not there; the provider is asked once in ten seconds."""
    tokens = Tokens(idp.url)
    assert await tokens.who(signer.token()) == "ada"
    for number in range(5):
        await tokens.refuses(ec_signer(f"unknown {number}").token())
    assert idp.asked == 2
    tokens.clock.now += PAUSE
    await tokens.refuses(ec_signer("unknown").token())

    assert idp.asked == 3


async def test_old_keys_are_looked_at_again_while_they_serve(idp: Provider, signer: Signer) -> None:
    """Nobody waits for it; a key taken back is noticed without a token that names another."""
    tokens = Tokens(idp.url)
    token = signer.token()
    assert await tokens.who(token) == "ada"
    tokens.clock.now += FRESH
    idp.publish(ec_signer("new"))
    idp.hold = threading.Event()
    idp.was_asked.clear()

    assert await tokens.who(token) == "ada"
    await asyncio.to_thread(idp.was_asked.wait)
    idp.hold.set()
    await tokens.fetched()
    await tokens.refuses(token)


async def test_keys_serve_on_while_the_provider_is_away(idp: Provider, signer: Signer) -> None:
    """For a day; then nobody can tell any more whether they are still good."""
    tokens = Tokens(idp.url)
    assert await tokens.who(signer.token()) == "ada"
    idp.status = 500
    tokens.clock.now += STALE - 1
    assert await tokens.who(signer.token(n=1)) == "ada"
    await tokens.fetched()
    tokens.clock.now += 2

    with pytest.raises(Unavailable) as refusal:
        await tokens.who(signer.token(n=1))
    assert refusal.value.retry_after is not None
    assert refusal.value.retry_after > 0
    tokens.clock.now += PAUSE
    idp.status = 200
    assert await tokens.who(signer.token(n=1)) == "ada"


@pytest.mark.parametrize(
    ("status", "document", "why"),
    [
        (404, {}, "answers 404"),
        (302, {}, "answers 302"),
        (200, b"<html>", "no key set"),
        (200, b"[" * 100_000, "no key set"),
        (200, {"keys": "none"}, "no key that"),
        (200, {"keys": []}, "no key that"),
        (200, {"keys": [7, None, {}]}, "no key that"),
        (200, b" " * ((1 << 20) + 1), "more than"),
    ],
)
async def test_a_provider_without_keys_keeps_its_people_out_for_now(
    idp: Provider, signer: Signer, status: int, document: Any, why: str
) -> None:
    """503, not 401: it is not their fault; and why is known to who looks after the service."""
    idp.status, idp.document = status, document
    # Nothing leads us elsewhere, least of all to a file.
    idp.headers = {"location": "file:///etc/passwd"}
    tokens = Tokens(idp.url)
    with pytest.raises(Unavailable):
        await tokens.who(signer.token())
    with pytest.raises(Unavailable):
        await tokens.who(signer.token())

    assert idp.asked == 1
    assert why in tokens.failures[0]
    assert why in (await tokens.keys.why_not_ready() or "")


async def test_whoever_stops_waiting_does_not_stop_the_others(
    idp: Provider, signer: Signer
) -> None:
    """The fetch is everybody's."""
    tokens = Tokens(idp.url)
    idp.hold = threading.Event()
    first = asyncio.create_task(tokens.who(signer.token()))
    second = asyncio.create_task(tokens.who(signer.token()))
    await asyncio.to_thread(idp.was_asked.wait)
    first.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await first
    idp.hold.set()

    assert await second == "ada"
    assert idp.asked == 1


# -- the server ------------------------------------------------------------------------------------


@pytest.fixture
async def database_open(database: str) -> AsyncIterator[Database]:
    """A database."""
    async with open_database(database) as found:
        yield found


def _served(database: Database, **more: Any) -> Served:
    log = io.BytesIO()
    app = create_app(
        database, load({"rate_limit": "off", **more}), log=make_logger("info", "json", log)
    )
    return Served(app, database, log)


async def test_people_come_in_by_the_provider_s_tokens(
    database_open: Database, idp: Provider, signer: Signer
) -> None:
    """Without a secret; what the secret would sign opens nothing."""
    served = _served(database_open, jwks_url=idp.url)
    async with served.anonymous() as http:
        me = await http.get("/v1/me", headers=_bearer(signer.token(name="Ada")))
        forged = await http.get("/v1/me", headers=_bearer(_hs256(SECRET.encode())))

    assert expect(me, 200)["name"] == "Ada"
    refused(forged, 401, "unauthenticated")


async def test_both_kinds_of_tokens_may_be_taken(
    database_open: Database, idp: Provider, signer: Signer
) -> None:
    """Each with its own key: the algorithm says which, and mixes nothing."""
    app = create_app(database_open, settings(jwks_url=idp.url), log=make_logger("error", "json"))
    served = Served(app, database_open, io.BytesIO())
    pem = signer.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    async with served.anonymous() as http:
        for token, status in (
            (issue(SECRET.encode(), "ada", lifetime=60), 200),
            (signer.token(), 200),
            (_hs256(pem, kid="rsa"), 401),
            (_hs256(SECRET.encode(), algorithm="HS384"), 401),
            ("a.b.c", 401),
            ("x", 401),
        ):
            answer = await http.get("/v1/me", headers=_bearer(token))
            assert answer.status_code == status, token


async def test_a_provider_that_is_away_at_the_start_is_waited_for(
    database_open: Database, idp: Provider, signer: Signer
) -> None:
    """The server runs, is not ready, says so and logs why, and lets people in once it is there."""
    idp.status = 503
    served = _served(database_open, jwks_url=idp.url)
    provider_keys = served.app.service.readiness._provider
    assert provider_keys is not None
    clock = provider_keys._clock = Clock()
    async with served.anonymous() as http:
        refusal = refused(
            await http.get("/v1/me", headers=_bearer(signer.token())), 503, "unavailable"
        )
        not_ready = refused(await http.get("/readyz"), 503, "unavailable")
        idp.status = 200
        clock.now += PAUSE
        me = await http.get("/v1/me", headers=_bearer(signer.token()))

    assert "identity provider" in refusal["detail"]
    assert "answers 503" in not_ready["detail"]
    assert expect(me, 200)["id"] == "ada"
    logged = [line for line in served.lines() if line["event"] == "identity_provider"]
    assert logged[0]["why"] == "it answers 503"


async def test_without_secret_and_provider_there_is_no_server(database_open: Database) -> None:
    """Nobody could be told apart."""
    with pytest.raises(SettingsError, match="JWKS_URL"):
        create_app(database_open, load({}))


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://id.example/keys", "id.example"])
def test_keys_come_over_the_web(url: str) -> None:
    """Not from a file, nor from wherever else an address may lead."""
    with pytest.raises(SettingsError, match="JWKS_URL"):
        load({"jwks_url": url})


def test_with_a_provider_it_is_no_local_mode() -> None:
    """People can be told apart, so others may come in; and tokens are the provider's to make."""
    found = load({"jwks_url": "https://id.example/keys"})

    assert not found.local_mode
    with pytest.raises(SettingsError, match="JWKS_URL"):
        _sign(found, "ada", timedelta(days=1), name=None, email=None, admin=False)


def _claims(**more: Any) -> dict[str, Any]:
    return {"sub": "ada", "exp": int(time.time()) + 600, **more}


def _hs256(secret: bytes, *, kid: str | None = None, algorithm: str = "HS256") -> str:
    """Sign as a forger would: PyJWT itself refuses a public key as a secret."""
    import base64
    import hmac

    def part(value: Any) -> str:
        raw = value if isinstance(value, bytes) else json.dumps(value).encode()
        return base64.urlsafe_b64encode(raw).decode().rstrip("=")

    header = {"alg": algorithm, "typ": "JWT", **({"kid": kid} if kid else {})}
    signed = f"{part(header)}.{part(_claims())}"
    digest = hmac.digest(secret, signed.encode(), f"sha{algorithm[2:]}")
    return f"{signed}.{part(digest)}"


def _bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}
