"""Run a server: listen, open the database, serve, and stop without losing anybody's answer."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import ipaddress
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

import uvicorn
from structlog.typing import FilteringBoundLogger

from greffier._version import __version__
from greffier.agents.work import Work
from greffier.change.agent import create_echo
from greffier.deliver.watch import from_settings as watch_from
from greffier.embedded import default_data_dir, open_cluster
from greffier.embedded.folder import Folder
from greffier.errors import ListenError, SettingsError
from greffier.publish.bus import PostgresBus
from greffier.publish.signals import Signals
from greffier.server.app import create_app
from greffier.server.auth import SharedSecret
from greffier.server.edge import Edge
from greffier.server.local import Local, load_secret
from greffier.server.logs import make_logger, safe_exception, take_over
from greffier.server.protocol import bounded
from greffier.server.ratelimit import Rate
from greffier.server.workers import orphaned, supervise
from greffier.settings import Settings
from greffier.store.database import Database, open_database

#: Connections the kernel holds for us until they are taken.
BACKLOG = 2048
#: Seconds an idle connection stays open: longer than proxies keep theirs, so that it is they who
#: close, and never as a request is on its way.
KEEP_ALIVE = 75


class Ready(NamedTuple):
    """That a server listens: where, and in local mode the link that signs its person in, once."""

    url: str
    sign_in: str | None
    workers: int = 1

    def lines(self) -> str:
        """Say so to the person who started it."""
        several = f" with {self.workers} workers" if self.workers > 1 else ""
        said = f"Greffier {__version__} listens on {self.url}{several} (API: {self.url}/docs)"
        return said if self.sign_in is None else f"{said}\nSign in, once: {self.sign_in}"


def tell(ready: Ready) -> None:
    """Tell the person who started it, on standard error."""
    print(ready.lines(), file=sys.stderr, flush=True)  # noqa: T201 - talk for them


def run(settings: Settings, ready: Callable[[Ready], None] = tell) -> None:
    """Serve until a signal says to stop, on a loop of its own.

    Args:
        settings: What to do.
        ready: Told when it listens.

    Raises:
        SettingsError, ListenError, SchemaError, EmbeddedError, Unavailable: It cannot start.
    """
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        if settings.workers > 1:
            runner.run(supervise(settings, _work, open_database_of, ready))
        else:
            runner.run(serve(settings, ready=ready))


def _work(settings: Settings, listener: socket.socket) -> None:
    """Serve as one of several processes, on the socket they share."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(serve(settings, ready=lambda _: None, listener=listener))


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Give the fastest event loop there is; None is Python's own."""
    if sys.platform == "win32":
        return None
    import uvloop  # noqa: PLC0415 - there is none for Windows

    return uvloop.new_event_loop


async def serve(
    settings: Settings,
    *,
    ready: Callable[[Ready], None] = tell,
    listener: socket.socket | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT.

    Then nothing new is taken, requests under way are finished and everything acknowledged is on
    record before the database is left; a second signal does not wait for the requests.

    Args:
        settings: What to do.
        ready: Told when it listens; says so on standard error by default.
        listener: Where to listen, when that is open already; the server ends with its parent then.

    Raises:
        SettingsError: Others could come in unnamed.
        ListenError: The port is taken, or not for this program.
        SchemaError, EmbeddedError, Unavailable: There is no database to serve.
    """
    log = make_logger(settings.log_level, settings.log_format)
    take_over(log, settings.log_level)
    asyncio.get_running_loop().set_exception_handler(Unhandled(log))
    Rate.parse(settings.rate_limit)
    # First of all: that the port is taken is known before a database is started for nothing.
    with listener or listen(settings) as opened:
        stop = Stop()
        # One of several ends with its parent.
        with stop.on_signals(), orphaned(stop) if listener else contextlib.nullcontext():
            async with stop.cuts_short(), open_database_of(settings) as database:
                await create_echo(database)
                stop.waits()
                app = _application(settings, opened, database, log)
                local = app.service.local
                listening = Ready(url_of(opened), local.link if local is not None else None)
                # What is loaded stays for good: to look through its 77,000 objects would halt
                # every request for some 20 ms, now and then.
                gc.collect()
                gc.freeze()
                watch = watch_from(database, settings, log)
                async with _working(app.service.work, stop), watch.watching():
                    await Server(app, opened, stop, grace=settings.shutdown_seconds).run(
                        lambda: ready(listening)
                    )
    log.info("stopped")


@contextlib.asynccontextmanager
async def _working(work: Work | None, stop: Stop) -> AsyncIterator[None]:
    """Work on lanes beside serving; should that break, the server stops."""
    if work is None:
        yield
        return
    hurry = asyncio.create_task(stop.hurry.wait())
    try:
        async with work.running() as task:
            task.add_done_callback(lambda _: None if stop.asked.is_set() else stop())
            # Who is asked twice to stop ends its runs as they are.
            hurry.add_done_callback(lambda _: task.cancel())
            yield
    finally:
        hurry.cancel()


def _application(
    settings: Settings, listener: socket.socket, database: Database, log: FilteringBoundLogger
) -> Edge:
    bus = PostgresBus(database.dsn)
    signals = Signals(database.dsn)
    folder = Folder.at(settings.data_dir or default_data_dir())
    if not settings.local_mode:
        data = folder.root if settings.database_url is None else None
        return create_app(database, settings, log=log, bus=bus, signals=signals, folder=data)
    folder.create()
    secret = load_secret(folder.root)
    host, port = listener.getsockname()[:2]
    tokens = SharedSecret(secret, role_claim=settings.role_claim)
    local = Local(secret, host, port)
    return create_app(
        database,
        settings,
        local=local,
        authenticator=tokens,
        log=log,
        bus=bus,
        signals=signals,
        folder=folder.root,
    )


# -- the port --------------------------------------------------------------------------------------


def listen(settings: Settings) -> socket.socket:
    """Listen where the settings say.

    Raises:
        SettingsError: The host is no address, or it is local mode and others could come in.
        ListenError: The port is taken, or not for this program.
    """
    host = settings.host
    if settings.local_mode and not _is_loopback(str(_find(host, settings.port)[-1][0])):
        raise SettingsError(
            f"HOST is {host}, where others can come in, and nothing tells them apart: set "
            "JWT_SECRET (32 bytes or more) or JWKS_URL, or leave HOST at 127.0.0.1 for local mode."
        )
    return listen_at(host, settings.port)


def listen_at(host: str, port: int, name: str = "PORT") -> socket.socket:
    """Listen at an address, whoever may come in there.

    Args:
        host: Where.
        port: At which port.
        name: Which setting says so, for whoever has to change it.

    Raises:
        SettingsError: The host is no address.
        ListenError: The port is taken, or not for this program.
    """
    family, kind, protocol, _, address = _find(host, port)
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        # At once, not when we are ready: two who only bound the port would both succeed so far.
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ListenError(_why_not(error, host, port, name)) from error
    return listener


def _find(host: str, port: int) -> Any:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise SettingsError(f"HOST: {host} is no address of this machine.") from error
    return found[0]


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def _why_not(error: OSError, host: str, port: int, name: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"{name} {port} on {host} is taken by another program; choose another, or 0 for any."
    if error.errno == errno.EACCES:
        return f"{name} {port} needs more rights than this program has; choose one from 1024."
    if error.errno == errno.EADDRNOTAVAIL:
        return f"HOST: {host} is no address of this machine."
    return f"HOST {host}, {name} {port}: {error.strerror}."


def url_of(listener: socket.socket) -> str:
    """Give the URL of whoever listens there."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


# -- the database ----------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def open_database_of(settings: Settings) -> AsyncIterator[Database]:
    """Open the database of these settings: the user's own, or the embedded one."""
    if settings.database_url is not None:
        async with open_database(
            settings.database_url.get_secret_value(),
            replicas=[one.get_secret_value() for one in settings.replica_urls],
        ) as database:
            yield database
        return
    folder = settings.data_dir or default_data_dir()
    async with (
        open_cluster(folder) as cluster,
        open_database(cluster.dsn, revive=cluster.ensure_running, migrate=True) as database,
    ):
        yield database


# -- serving and stopping --------------------------------------------------------------------------


class Stop:
    """That it is time to stop, and whether in a hurry."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.hurry = asyncio.Event()
        self._cut: asyncio.Task[Any] | None = None

    def __call__(self) -> None:
        """Ask to stop; asked twice, hurry."""
        (self.hurry if self.asked.is_set() else self.asked).set()
        if self._cut is not None:
            self._cut.cancel()

    @contextlib.asynccontextmanager
    async def cuts_short(self) -> AsyncIterator[None]:
        """Run a block that asking to stop cancels, until it says ``waits``.

        A database that does not open is no reason to stay.
        """
        self._cut = task = asyncio.current_task()
        try:
            yield
        except asyncio.CancelledError:
            if task is None or self._cut is None or not self.asked.is_set():
                raise
            task.uncancel()

    def waits(self) -> None:
        """From here on asking to stop cancels nothing."""
        self._cut = None

    @contextlib.contextmanager
    def on_signals(self) -> Any:
        """Take SIGTERM and SIGINT as asking, for the length of the block."""
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, self)
        try:
            yield
        finally:
            for signum in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(signum)


class _Uvicorn(uvicorn.Server):
    """Uvicorn, with signals left to us: its own would end the process under the open database."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = started

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_started()


class Server:
    """Serves an application on a listening socket until it is told to stop."""

    def __init__(self, app: Edge, listener: socket.socket, stop: Stop, *, grace: float) -> None:
        """Describe the server.

        Args:
            app: What answers.
            listener: Where it listens; closed by the end.
            stop: Says when.
            grace: Seconds that requests under way have after that.
        """
        self._app = app
        self._listener = listener
        self._stop = stop
        self._config = uvicorn.Config(
            app,
            http=bounded(app.service),
            ws="websockets-sansio",
            ws_per_message_deflate=False,
            ws_max_size=64 << 10,
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=max(1, round(grace)),
        )

    async def run(self, started: Callable[[], None]) -> None:
        """Serve; returns when the last request is answered, or time is up."""
        server = _Uvicorn(self._config, started)
        health = self._app.service
        health.metrics.up.set(1)
        watch = asyncio.create_task(self._watch(server))
        live = [asyncio.create_task(one.run()) for one in self._app.live()]
        for task in live:
            task.add_done_callback(self._ended)
        try:
            await server.serve(sockets=[self._listener])
        finally:
            watch.cancel()
            for task in live:
                task.cancel()
            health.metrics.up.set(0)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Stop when something live broke: a server that answers and tells nobody is worse."""
        if not task.cancelled() and (error := task.exception()) is not None:
            task.get_loop().call_exception_handler(
                {"message": "what is live broke; the server stops", "exception": error}
            )
            self._stop()

    async def _watch(self, server: uvicorn.Server) -> None:
        await self._stop.asked.wait()
        self._app.service.readiness.stopping = True
        # Who follows is told to come back elsewhere: an open stream would be waited for.
        await self._app.say_goodbye()
        server.should_exit = True
        await self._stop.hurry.wait()
        server.force_exit = True


class Unhandled:
    """Logs what no task was there to catch, without its words."""

    def __init__(self, log: FilteringBoundLogger) -> None:
        """Log there."""
        self._log = log

    def __call__(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Log what happened, as a loop's exception handler is told it."""
        error = context.get("exception")
        more = {"exception": safe_exception(error)} if isinstance(error, BaseException) else {}
        # The message may quote the exception; its beginning says what kind of thing happened.
        self._log.error("unhandled", what=str(context.get("message", ""))[:60], **more)
