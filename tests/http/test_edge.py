"""Promise: every answer has its shape, its name and its protection, also when things go wrong."""

from __future__ import annotations

from typing import Any

import pytest

from greffier.errors import CODES, Error
from greffier.server.answers import problem
from helpers.api import Person, Served, path, refused


async def test_an_unknown_path_is_a_problem(ada: Person, served: Served) -> None:
    """With and without a token, also one that differs by a slash."""
    async with served.anonymous() as nobody:
        for url in ("/v2/me", "/v1", "/v1/me/", "/v1/conversations/", "/index.php"):
            refused(await ada.http.get(url), 404, "not-found")
            refused(await nobody.get(url), 404, "not-found")


@pytest.mark.parametrize(
    ("method", "url", "allow"),
    [
        ("PUT", "/v1/conversations", "GET, HEAD, POST"),
        ("POST", "/openapi.json", "GET, HEAD"),
        ("OPTIONS", "/healthz", "GET, HEAD"),
        ("BREW", "/healthz", "GET, HEAD"),
    ],
)
async def test_another_method_is_told_which_there_are(
    ada: Person, method: str, url: str, allow: str
) -> None:
    """405, and Allow names what the path does."""
    answer = await ada.http.request(method, url)

    refused(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == allow


async def test_a_request_may_bring_its_id(ada: Person) -> None:
    """One that is fit for a log is kept, any other replaced."""
    mine = await ada.http.get("/healthz", headers={"x-request-id": "trace:1/2_3.4"})
    ours = await ada.http.get("/healthz", headers={"x-request-id": 'x" level="error'})
    long = await ada.http.get("/healthz", headers={"x-request-id": "a" * 129})

    assert mine.headers["x-request-id"] == "trace:1/2_3.4"
    assert ours.headers["x-request-id"] not in ("", 'x" level="error')
    assert len(long.headers["x-request-id"]) < 40


async def test_every_answer_is_protected(ada: Person) -> None:
    """Nothing may be sniffed, framed or kept by others, whatever the answer is."""
    made = await ada.talk(1)

    for url in ("/v1/me", path(made), f"{path(made)}/export", "/nowhere", "/", "/docs", "/metrics"):
        headers = (await ada.http.get(url)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["cache-control"] in ("private, no-cache", "no-store", "no-cache")
        assert "access-control-allow-origin" not in headers
        assert "server" not in headers


async def test_a_body_too_long_is_refused_by_its_length(served: Served) -> None:
    """Before a byte of it is read."""
    sent = await _raw(served, [], length=b"%d" % (1 << 40))

    assert sent == (413, 0)


async def test_a_body_too_long_is_refused_as_it_comes(served: Served) -> None:
    """Without a length it is counted, and reading stops at the limit."""
    sent = await _raw(served, [b"x" * (1 << 18)] * 100, length=None)

    assert sent == (413, 5)


async def test_a_body_may_come_in_pieces(served: Served) -> None:
    """However small."""
    sent = await _raw(served, [bytes([byte]) for byte in b'{"title":"x"}'], length=b"13")

    assert sent == (201, 13)


async def test_a_caller_who_leaves_is_not_answered(served: Served) -> None:
    """A body that never comes whole is forgotten, and the log says so."""
    sent = await _raw(served, [b"{"], length=b"13", leave=True)

    assert sent == (None, 1)
    assert served.lines()[-1]["status"] == 499


async def test_what_breaks_is_told_without_details(
    served: Served, ada: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    """500 with a request id; the log has the place, and neither has the words."""
    words = "duplicate key: (secret words)"

    async def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError(words)

    monkeypatch.setattr(served.database, "read", broken)
    answer = await ada.http.get("/v1/conversations")

    text = answer.text + served.log.getvalue().decode()
    found = refused(answer, 500, "internal")
    assert "(secret" not in text
    line = served.lines()[-1]
    assert (line["level"], line["request_id"]) == ("error", found["request_id"])
    assert "builtins.RuntimeError" in line["exception"]
    assert "in broken" in line["exception"]


async def test_a_fault_of_the_service_is_unavailable(
    served: Served, ada: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a caller cannot mend, such as a private PostgreSQL that does not start, is a 503."""
    from greffier.errors import EmbeddedError

    async def broken(*_: Any, **__: Any) -> Any:
        raise EmbeddedError("/home/somebody/data is on a full disk")

    monkeypatch.setattr(served.database, "read", broken)
    answer = await ada.http.get("/v1/conversations")

    assert "somebody" not in str(refused(answer, 503, "unavailable"))
    assert int(answer.headers["retry-after"]) >= 1
    assert served.lines()[-2]["detail"] == "/home/somebody/data is on a full disk"


@pytest.mark.parametrize("kind", CODES.values(), ids=CODES)
def test_every_error_becomes_a_problem(kind: type[Error]) -> None:
    """With its own code, status and title; when to come back is said in whole seconds."""
    answer = problem(kind("why", retry_after=0.2), "r1") if kind.code != "validation" else None
    if answer is None:
        return

    headers = dict(answer.headers)
    assert answer.status == kind.status
    assert headers[b"retry-after"] == b"1"
    assert f'"code":"{kind.code}"'.encode() in answer.body


async def _raw(
    served: Served, pieces: list[bytes], *, length: bytes | None, leave: bool = False
) -> tuple[int | None, int]:
    """Send a body piece by piece; give the status and how many pieces were taken."""
    person = served.person("ada")
    headers = [
        (b"authorization", person.http.headers["authorization"].encode()),
        (b"content-type", b"application/json"),
    ]
    headers += [] if length is None else [(b"content-length", length)]
    headers += [] if length is not None else [(b"transfer-encoding", b"chunked")]
    taken = 0
    status: int | None = None

    async def receive() -> dict[str, Any]:
        nonlocal taken
        if taken == len(pieces):
            assert leave, "more was asked for than there is"
            return {"type": "http.disconnect"}
        taken += 1
        more = leave or taken < len(pieces)
        return {"type": "http.request", "body": pieces[taken - 1], "more_body": more}

    async def send(message: Any) -> None:
        nonlocal status
        status = message.get("status", status)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/conversations",
        "query_string": b"",
        "headers": headers,
    }
    await served.app(scope, receive, send)
    await person.http.aclose()
    return status, taken
