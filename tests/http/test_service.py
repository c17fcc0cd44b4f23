"""Promise: whoever looks after the service sees how it does, and people see what runs here."""

from __future__ import annotations

import asyncio

import pytest

from greffier._version import __version__
from greffier.errors import Unavailable
from greffier.server.language import preferred
from greffier.server.service import Readiness
from helpers.api import Person, Served, expect, path, refused


async def test_the_process_says_that_it_lives(served: Served) -> None:
    """To anybody, with nobody's token."""
    async with served.anonymous() as nobody:
        assert expect(await nobody.get("/healthz"), 200) == {"status": "alive"}
        assert expect(await nobody.get("/readyz?verbose"), 200) == {"status": "ready"}


async def test_a_service_that_cannot_keep_words_says_why(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503 with the reasons; once the service stops it is not ready any more."""
    readiness = Readiness(served.database)
    monkeypatch.setattr(served.app.service, "readiness", readiness)
    async with served.anonymous() as nobody:

        async def off() -> str:
            return "fsync is off."

        monkeypatch.setattr(served.database, "why_not_ready", off)
        problem = refused(await nobody.get("/readyz"), 503, "unavailable")
        assert problem["reasons"] == ["fsync is off."]

        readiness.stopping = True
        problem = refused(await nobody.get("/readyz"), 503, "unavailable")
        assert problem["reasons"] == ["The service is stopping."]
        expect(await nobody.get("/healthz"), 200)


async def test_the_database_is_looked_at_once_for_many_who_ask(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Probes of many balancers cost one look; who hangs up takes it from nobody."""
    looks = 0
    look = asyncio.Event()

    async def slow() -> None:
        nonlocal looks
        looks += 1
        await look.wait()

    monkeypatch.setattr(served.database, "why_not_ready", slow)
    readiness = Readiness(served.database)
    asked = [asyncio.create_task(readiness.reasons()) for _ in range(10)]
    await asyncio.sleep(0)
    asked[0].cancel()
    look.set()

    found = await asyncio.gather(*asked, return_exceptions=True)

    assert found[1:] == [[]] * 9
    assert await readiness.reasons() == []
    assert looks == 1


async def test_what_is_measured_can_be_scraped(ada: Person) -> None:
    """Requests by route as declared, what waits to be stored, and the version."""
    made = await ada.talk(2)
    await ada.http.get(f"{path(made)}/messages")

    text = (await ada.http.get("/metrics")).text

    assert (
        'greffier_http_request_seconds_count{method="GET",'
        'route="/v1/conversations/{conversation_id}/messages",status="200"}'
    ) in text
    assert f'greffier_build_info{{version="{__version__}"}} 1.0' in text
    assert "greffier_writer_waiting_messages 0.0" in text
    for name in (
        "greffier_messages_stored_total",
        "greffier_messages_replayed_total",
        "greffier_writer_batches_total",
        "greffier_writer_set_aside_total",
        "greffier_slow_pages_total",
        "greffier_up",
    ):
        assert f"\n{name} " in text
    assert made["id"] not in text
    assert ada.id not in text


async def test_the_first_page_speaks_french_and_english(served: Served) -> None:
    """As the browser wishes; it says what runs here and leads to the documentation."""
    async with served.anonymous() as nobody:
        english = await nobody.get("/", headers={"accept-language": "de, en;q=0.5"})
        french = await nobody.get("/", headers={"accept-language": "fr-CA, en;q=0.8"})

    assert "It keeps conversations" in english.text
    assert "Il tient les conversations" in french.text
    for answer, language in ((english, "en"), (french, "fr")):
        assert answer.headers["content-language"] == language
        assert answer.headers["vary"] == "accept-language"
        assert 'href="/docs"' in answer.text
        assert __version__ in answer.text


@pytest.mark.parametrize(
    ("wish", "language"),
    [
        (None, "en"),
        (b"", "en"),
        (b"fr", "fr"),
        (b"FR-be", "fr"),
        (b"en, fr", "en"),
        (b"en;q=0.1, fr;q=0.2", "fr"),
        (b"fr;q=0, en;q=0", "en"),
        (b"fr;q=x, *", "en"),
        (b"de, ja", "en"),
    ],
)
def test_a_language_is_chosen_by_its_weight(wish: bytes | None, language: str) -> None:
    """English when nothing else is wished."""
    assert preferred(wish) == language


def test_unavailable_is_what_probes_expect() -> None:
    """The status that takes a process out of a balancer."""
    assert Unavailable.status == 503
