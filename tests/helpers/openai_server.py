"""A server that speaks OpenAI's chat completions over real HTTP, and says what it is told to.

    with openai_server() as server:
        server.say("Bon", "jour")                          # an answer in two deltas, then the end
        server.say(think("Hm."), call("c1", "weather", '{"city": "Lyon"}'))
        server.fail(429, "slow down", headers={"retry-after": "1"})
        server.play(delta(content="Bon"), hang_up())       # exactly this, with no end of its own
        ...  # base_url is server.url
    server.requests[0].body["messages"]

One answer is used for each request, in the order of their arrival; when none is left, the one that
``always`` was given is made for the request.  Every request is checked as a strict service would;
what is wrong with one fails the test at the end of the ``with``, and is answered 400.

It runs on a thread of its own, so that tests that block and processes of their own can use it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from helpers.openai_validator import InvalidChatError, validate

USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}


# -- steps of an answer ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Raw:
    """Bytes of the body, as they are."""

    data: bytes


@dataclass(frozen=True)
class Pause:
    """Nothing is said for so many seconds; None is until ``server.go_on()``, or they hang up."""

    seconds: float | None


@dataclass(frozen=True)
class HangUp:
    """The connection is cut."""


Step: TypeAlias = Raw | Pause | HangUp | Mapping[str, Any] | str


def event(data: Any) -> Raw:
    """An event whose data is this JSON, or this text."""
    text = data if isinstance(data, str) else json.dumps(data)
    return Raw(f"data: {text}\n\n".encode())


def chunk(choice: Mapping[str, Any] | None = None, **more: Any) -> Raw:
    """A chunk with this choice, or with none."""
    return event(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1_700_000_000,
            "model": "test",
            "choices": [] if choice is None else [choice],
            **more,
        }
    )


def delta(**fields: Any) -> Raw:
    """A chunk with this delta."""
    return chunk({"index": 0, "delta": fields, "finish_reason": None})


def finish(reason: str = "stop", **more: Any) -> Raw:
    """The chunk that ends the answer."""
    return chunk({"index": 0, "delta": {}, "finish_reason": reason}, **more)


def usage(**numbers: Any) -> Raw:
    """The chunk of usage."""
    return chunk(usage={**USAGE, **numbers})


def done() -> Raw:
    """The end of the stream."""
    return event("[DONE]")


def think(text: str) -> Raw:
    """A delta of reasoning, as DeepSeek writes it."""
    return delta(reasoning_content=text)


def call(call_id: str, name: str, arguments: str, index: int = 0) -> Raw:
    """A whole tool call in one delta."""
    function = {"name": name, "arguments": arguments}
    return delta(
        tool_calls=[{"index": index, "id": call_id, "type": "function", "function": function}]
    )


def pause(seconds: float | None = None) -> Pause:
    """Nothing, for so long; without a number until ``server.go_on()``."""
    return Pause(seconds)


def hang_up() -> HangUp:
    """The connection is cut here."""
    return HangUp()


# -- answers ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reply:
    """A whole answer: its head, and the steps of its body."""

    steps: tuple[Step, ...]
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


def saying(*steps: Step, reason: str | None = None, used: Mapping[str, Any] | None = None) -> Reply:
    """An answer with a beginning and an end; a text is a delta of content."""
    called = any(isinstance(step, Raw) and b'"tool_calls": [' in step.data for step in steps)
    return Reply(
        (
            delta(role="assistant", content=""),
            *steps,
            finish(reason or ("tool_calls" if called else "stop")),
            chunk(usage=dict(used or USAGE)),
            done(),
        )
    )


def failing(status: int, message: str = "no", *, code: str | None = None, kind: str | None = None,
            headers: Mapping[str, str] | None = None, body: Any = None) -> Reply:  # fmt: skip
    """A refusal in OpenAI's form, or with a body of its own: JSON or, a text, as it is."""
    told = body
    if told is None:
        told = {"error": {"message": message, "type": kind or "error", "param": None, "code": code}}
    text = told if isinstance(told, str) else json.dumps(told)
    return Reply(
        (Raw(text.encode()),), status, {"content-type": "application/json", **(headers or {})}
    )


@dataclass
class Request:
    """A request as it came."""

    body: dict[str, Any]
    headers: dict[str, str]
    path: str
    #: Set when they hung up before the answer was whole.
    hung_up: threading.Event = field(default_factory=threading.Event)
    #: Set when the answer was sent whole.
    answered: threading.Event = field(default_factory=threading.Event)

    async def left(self, patience: float = 60) -> bool:
        """Wait until they hang up."""
        return await asyncio.to_thread(self.hung_up.wait, patience)


class ScriptedServer:
    """What both of our scripted services have in common: HTTP, and a queue of answers."""

    #: What follows the address in ``url``, and the path that is served under it.
    root = ""
    path = "/"

    def __init__(self) -> None:
        self.url = ""
        #: What came, in the order of arrival.
        self.requests: list[Request] = []
        #: What was wrong with it.
        self.faults: list[str] = []
        self._replies: deque[Reply] = deque()
        self._always: Callable[[dict[str, Any]], Reply] | None = None
        self._changed = threading.Condition()
        self._go_on: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def put(self, *replies: Reply) -> None:
        """Answer the next requests by these."""
        self._replies.extend(replies)

    def play(self, *steps: Step, status: int = 200, **headers: str) -> None:
        """Answer the next request by exactly these steps."""
        self.put(Reply(steps, status, headers))

    def always(self, make: Callable[[dict[str, Any]], Reply]) -> None:
        """When no answer is left, make one of the request's body."""
        self._always = make

    def go_on(self) -> None:
        """Let everybody who is in a pause without a number go on, now and later."""
        assert self._loop is not None
        assert self._go_on is not None
        self._loop.call_soon_threadsafe(self._go_on.set)

    async def asked(self, number: int = 1, patience: float = 60) -> Request:
        """Wait for the n-th request."""
        return await asyncio.to_thread(self.wait_asked, number, patience)

    def wait_asked(self, number: int = 1, patience: float = 60) -> Request:
        """The same, for tests that block."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.requests) >= number, patience), (
                f"{len(self.requests)} requests came, not {number}"
            )
            return self.requests[number - 1]

    def check(self, request: Request) -> None:
        """Judge a request.

        Raises:
            InvalidChatError: A service would refuse it.
        """
        raise NotImplementedError

    def write(self, step: Step) -> bytes:
        """The bytes of a step that is said."""
        raise NotImplementedError

    # -- the HTTP of it --

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            line, *lines = head.decode("latin-1").split("\r\n")
            method, path, _ = line.split(" ", 2)
            headers = {
                name.strip().lower(): value.strip()
                for name, _, value in (one.partition(":") for one in lines if one)
            }
            data = await reader.readexactly(int(headers.get("content-length", 0)))
            request = Request(json.loads(data or b"{}"), headers, path)
            reply = self._reply(method, request)
            leaving = asyncio.ensure_future(reader.read(1))
            try:
                if await self._answer(writer, reply, leaving):
                    request.answered.set()
            except ConnectionError:
                request.hung_up.set()
            finally:
                leaving.cancel()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # they left before they had asked
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    def _reply(self, method: str, request: Request) -> Reply:
        with self._changed:
            self.requests.append(request)
            self._changed.notify_all()
        fault = f"nothing is at {method} {request.path}"
        if (method, request.path) == ("POST", self.root + self.path):
            fault = self._fault(request)
        if fault:
            self.faults.append(fault)
            return failing(400, fault)
        if self._replies:
            return self._replies.popleft()
        if self._always is not None:
            return self._always(request.body)
        self.faults.append("nothing is left to be said")
        return failing(400, "nothing is left to be said")

    def _fault(self, request: Request) -> str:
        try:
            self.check(request)
        except InvalidChatError as error:
            return str(error)
        return ""

    async def _answer(
        self, writer: asyncio.StreamWriter, reply: Reply, leaving: asyncio.Future[bytes]
    ) -> bool:
        """Send an answer, and say whether to its end; ConnectionError when they leave meanwhile."""
        headers = {
            "content-type": "text/event-stream",
            "transfer-encoding": "chunked",
            "connection": "close",
            **reply.headers,
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        writer.write(f"HTTP/1.1 {reply.status} Said\r\n{head}\r\n".encode())
        for step in reply.steps:
            if isinstance(step, HangUp):
                await writer.drain()
                return False
            if isinstance(step, Pause):
                await writer.drain()
                await self._paused(step, leaving)
                continue
            data = self.write(step)
            writer.write(b"%x\r\n%b\r\n" % (len(data), data))
            await writer.drain()
            if leaving.done():
                raise ConnectionResetError
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True

    async def _paused(self, step: Pause, leaving: asyncio.Future[bytes]) -> None:
        assert self._go_on is not None
        ends: Awaitable[object] = (
            self._go_on.wait() if step.seconds is None else asyncio.sleep(step.seconds)
        )
        ending: asyncio.Future[Any] = asyncio.ensure_future(ends)
        waiting: set[asyncio.Future[Any]] = {ending, leaving}
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if not ending.done():
                raise ConnectionResetError
        finally:
            ending.cancel()

    @contextlib.contextmanager
    def running(self, port: int = 0) -> Iterator[None]:
        """Serve on a thread of its own, until the end of the ``with``."""
        ready = threading.Event()
        ended: asyncio.Event | None = None

        async def serve() -> None:
            nonlocal ended
            ended, self._go_on = asyncio.Event(), asyncio.Event()
            self._loop = asyncio.get_running_loop()
            server = await asyncio.start_server(self._serve, "127.0.0.1", port, limit=1 << 20)
            number = server.sockets[0].getsockname()[1]
            self.url = f"http://127.0.0.1:{number}{self.root}"
            ready.set()
            await ended.wait()
            # Not waited for: who is in a pause without end is cancelled with the loop.
            server.close()

        thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
        thread.start()
        assert ready.wait(60)
        try:
            yield
        finally:
            assert self._loop is not None
            assert ended is not None
            self._loop.call_soon_threadsafe(ended.set)
            thread.join()


class OpenAIServer(ScriptedServer):
    """A scripted service in the manner of OpenAI."""

    root = "/v1"
    path = "/chat/completions"

    def say(self, *steps: Step, reason: str | None = None, **used: Any) -> None:
        """Answer the next request by these deltas, with usage and an end; a text is content."""
        self.put(saying(*steps, reason=reason, used={**USAGE, **used}))

    def fail(self, status: int, message: str = "no", **more: Any) -> None:
        """Refuse the next request; see ``failing``."""
        self.put(failing(status, message, **more))

    def write(self, step: Step) -> bytes:
        """A text is a delta of content, a mapping a chunk."""
        if isinstance(step, str):
            step = delta(content=step)
        elif isinstance(step, Mapping):
            step = event(step)
        assert isinstance(step, Raw)
        return step.data

    def check(self, request: Request) -> None:
        """Judge a request as the strictest service would."""
        body = request.body
        if not (isinstance(body.get("model"), str) and body["model"]):
            raise InvalidChatError("there is no model")
        if body.get("stream") is not True:
            raise InvalidChatError("it does not ask for a stream")
        if not body.get("messages"):
            raise InvalidChatError("there are no messages")
        validate(body["messages"])
        for index, tool in enumerate(body.get("tools", ())):
            function = tool.get("function", {})
            if tool.get("type") != "function" or set(function) - {
                "name",
                "description",
                "parameters",
                "strict",
            }:
                raise InvalidChatError(f"tools[{index}] is no function")
            if function.get("parameters", {}).get("type") != "object":
                raise InvalidChatError(f"tools[{index}] takes no object")
        if body.get("tools") == [] or ("tool_choice" in body and "tools" not in body):
            raise InvalidChatError("tools are spoken of, and there are none")


@contextlib.contextmanager
def openai_server(port: int = 0) -> Iterator[OpenAIServer]:
    """Run a scripted service on a free port; at the end, every request it got was right."""
    server = OpenAIServer()
    with server.running(port):
        yield server
    assert server.faults == []


def slowly(*words: str, seconds: float) -> Reply:
    """An answer that takes so long between two words, for those who measure."""
    steps: list[Step] = []
    for word in words:
        steps += (word, Pause(seconds))
    return saying(*steps)
