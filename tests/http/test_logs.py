"""Promise: the log tells what was asked and how it went, and never a word that somebody said."""

from __future__ import annotations

import asyncio
import io
import logging

import pytest

from greffier.server.logs import make_logger, safe_exception, take_over
from greffier.server.routes import messages
from helpers.api import Person, Served, path

WORDS = "rosebud"


async def test_one_line_tells_about_one_request(served: Served, ada: Person) -> None:
    """Method, route as declared, status, time, who, how much, and its id."""
    made = await ada.create()
    before = len(served.lines())

    answer = await ada.http.get(f"{path(made)}/messages", headers={"x-request-id": "r-1"})

    (line,) = served.lines()[before:]
    assert line.pop("ms") >= 0
    assert line.pop("at").endswith("Z")
    assert line == {
        "event": "request",
        "level": "info",
        "method": "GET",
        "route": "/v1/conversations/{conversation_id}/messages",
        "status": 200,
        "user": ada.id,
        "bytes": len(answer.content),
        "request_id": "r-1",
    }


async def test_no_line_holds_what_was_said(served: Served, ada: Person) -> None:
    """Not in contents, titles, queries, paths, tokens, refusals or ids that were refused."""
    made = await ada.create(title=WORDS, subject=WORDS, metadata={WORDS: WORDS})
    said = await ada.say(made, WORDS)
    messages_url = f"{path(made)}/messages"
    await ada.http.post(messages_url, json={"id": said["id"], "content": f"{WORDS} again"})
    await ada.http.post(messages_url, json={WORDS: WORDS})
    await ada.http.post(messages_url, content=WORDS.encode())
    await ada.http.get(f"/v1/conversations?subject={WORDS}")
    await ada.http.get(f"/v1/{WORDS}?q={WORDS}")
    await ada.http.get("/v1/me", headers={"authorization": f"Bearer {WORDS}"})
    await ada.http.get("/v1/me", headers={"x-request-id": f"{WORDS} {WORDS}"})

    log = served.log.getvalue().decode()

    assert WORDS not in log
    assert ada.http.headers["authorization"].split()[1] not in log


async def test_a_slow_page_is_a_warning_and_counted(served: Served, ada: Person) -> None:
    """Beyond 100 ms; what is slow is set here, not waited for."""
    made = await ada.create()
    page = next(route for route in messages.ROUTES if route.handler is messages.list_messages)
    assert page.alert_after == 0.1
    before = (await ada.http.get("/metrics")).text

    object.__setattr__(page, "alert_after", 0.0)
    try:
        await ada.http.get(f"{path(made)}/messages")
    finally:
        object.__setattr__(page, "alert_after", 0.1)

    line = served.lines()[-1]
    assert (line["level"], line["slow"]) == ("warning", True)
    after = (await ada.http.get("/metrics")).text
    assert _slow(after) == _slow(before) + 1


def _slow(metrics: str) -> float:
    (line,) = [one for one in metrics.splitlines() if one.startswith("greffier_slow_pages_total ")]
    return float(line.split()[1])


def test_an_exception_is_told_without_its_words() -> None:
    """Its type, its cause's and where they came from."""
    words = " ".join([WORDS] * 2)

    def fails() -> None:
        try:
            int(words)
        except ValueError as error:
            raise KeyError(words) from error

    try:
        fails()
    except KeyError as error:
        told = safe_exception(error)

    assert WORDS not in told
    assert "in fails" in told
    assert told.index("builtins.KeyError") < told.index("builtins.ValueError")


def test_other_libraries_log_the_same_way() -> None:
    """Uvicorn's and asyncio's records become lines of the same form, exceptions without words."""
    stream = io.BytesIO()
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    words = " ".join([WORDS] * 2)
    try:
        take_over(make_logger("info", "json", stream), "info")
        logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
        logging.getLogger("uvicorn.error").info("Started server process")
        try:
            int(words)
        except ValueError:
            logging.getLogger("asyncio").exception("it broke")
    finally:
        root.handlers[:] = before
        root.setLevel(level)

    first, second = stream.getvalue().decode().splitlines()
    assert '"Invalid HTTP request received."' in first
    assert '"logger":"uvicorn.error"' in first
    assert "builtins.ValueError" in second
    assert WORDS not in second


def test_lines_for_people_are_lines() -> None:
    """The console form, without colours when nobody sees them."""
    stream = io.BytesIO()

    make_logger("info", "console", stream).info("request", status=200, user="é")
    make_logger("warning", "console", stream).info("not this")

    text = stream.getvalue().decode()
    assert text.count("\n") == 1
    assert "status=200" in text
    assert "\x1b" not in text


async def test_a_request_that_is_cancelled_is_logged(served: Served, ada: Person) -> None:
    """Also when its answer was never made."""
    before = len(served.lines())
    entered = asyncio.Event()

    async def receive() -> dict[str, object]:
        entered.set()
        await asyncio.Event().wait()
        return {}

    async def send(_message: object) -> None:
        pass

    headers = [
        (b"authorization", ada.http.headers["authorization"].encode()),
        (b"content-type", b"application/json"),
        (b"content-length", b"2"),
    ]
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/conversations",
        "query_string": b"",
        "headers": headers,
    }
    task = asyncio.create_task(served.app(scope, receive, send))
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert served.lines()[before:][-1]["status"] == 499
