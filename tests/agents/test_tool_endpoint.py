"""Promises of tools that are HTTPS endpoints: signed, bounded, and honest about failures."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from uuid import uuid4

import pytest
from standardwebhooks import Webhook

from greffier.agents.tool_endpoint import EndpointTools
from greffier.agents.tools import LARGEST_RESULT, ToolFailed, ToolRun, Tools
from greffier.deliver.channels.signatures import new_secret

RUN = ToolRun(uuid4(), uuid4(), "call_1", "ada", 3)


@contextmanager
def endpoint(status: int, body: bytes) -> Iterator[tuple[str, list[tuple[dict[str, str], bytes]]]]:
    """Serve one answer to everybody; gives where, and what was asked."""
    asked: list[tuple[dict[str, str], bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["content-length"])
            said = {name.lower(): value for name, value in self.headers.items()}
            asked.append((said, self.rfile.read(length)))
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/weather", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def call(tools: EndpointTools, url: str, run: ToolRun = RUN) -> tuple[str, bool]:
    """Call it as a run does."""
    try:
        return await Tools(tools).call("weather", '{"city": "Lyon"}', {"weather": url}, run)
    finally:
        await tools.close()


async def test_the_endpoint_can_tell_that_it_is_us_and_answers_the_model() -> None:
    """The official package verifies the call; what is answered is the result, as it is."""
    secret = new_secret()
    with endpoint(200, "Il fait beau à Lyon".encode()) as (url, asked):
        result, failed = await call(EndpointTools(secret, allow_private=True), url)

    assert (result, failed) == ("Il fait beau à Lyon", False)
    ((headers, body),) = asked
    Webhook(secret).verify(body, headers)
    assert json.loads(body) == {
        "type": "tool.call",
        "conversation_id": str(RUN.conversation_id),
        "run_id": str(RUN.run_id),
        "call_id": "call_1",
        "name": "weather",
        "arguments": '{"city": "Lyon"}',
        "asked_by": "ada",
    }
    assert headers["greffier-fence"] == "3"


async def test_each_call_is_told_apart_whatever_its_model_calls_it() -> None:
    """Some models give each answer's calls the same id, or one that no header may hold."""
    ids = [("call_0", 1), ("call_0", 2), ("é\r\nX-Evil: 1", 3), ("call_0", 1)]
    with endpoint(200, b"beau") as (url, asked):
        for call_id, step in ids:
            tools = EndpointTools(new_secret(), allow_private=True)
            _, failed = await call(tools, url, replace(RUN, call_id=call_id, step=step))
            assert not failed

    first, second, third, again = [headers["webhook-id"] for headers, _ in asked]
    assert first == again
    assert len({first, second, third}) == 3
    assert all("x-evil" not in headers for headers, _ in asked)
    assert [json.loads(body)["call_id"] for _, body in asked] == [one for one, _ in ids]


@pytest.mark.parametrize("status", [302, 404, 500])
async def test_a_refusal_is_told_to_the_model(status: int) -> None:
    """Its words are not: what an endpoint says in trouble is for its owner."""
    with endpoint(status, b"secret stack") as (url, _):
        found = await call(EndpointTools(new_secret(), allow_private=True), url)

    assert found == (f"error: weather answered {status}", True)


async def test_a_long_answer_is_cut_and_says_so() -> None:
    """A result has a bound, whatever the endpoint sends."""
    with endpoint(200, b"x" * (LARGEST_RESULT * 2)) as (url, _):
        result, failed = await call(EndpointTools(new_secret(), allow_private=True), url)

    assert not failed
    assert result.startswith("xxx")
    assert "[cut:" in result
    assert len(result) < LARGEST_RESULT + 200


async def test_nothing_is_asked_of_our_own_network() -> None:
    """An agent's tool may not reach what only this server reaches."""
    with endpoint(200, b"passwords") as (url, asked):
        result, failed = await call(EndpointTools(new_secret()), url)

    assert failed
    assert "private address" in result
    assert asked == []


async def test_no_call_leaves_unsigned() -> None:
    """Without a secret an endpoint could not tell us from anybody."""
    with pytest.raises(ToolFailed, match="TOOL_SECRET"):
        await EndpointTools(None)("https://example.org/", "weather", "{}", RUN)
