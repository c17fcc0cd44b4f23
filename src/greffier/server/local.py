"""Local mode: one person, at this machine, without a password.

Loopback keeps other machines out.  What is left is what else runs in the person's browser, and
there every page of the web may try:

* *DNS rebinding* (a foreign name that points to 127.0.0.1): the Host header must be one of ours.
* *Cross-site requests*: the cookie is SameSite=Strict, which does not tell ports apart, so a
  foreign Origin is refused, and a write with the cookie needs ours and a header that only a page
  that can read our second cookie can set.

The person comes in through a link that works once, printed where the server was started, as
Jupyter does it; programs use a token signed with the secret in the data folder.
"""

from __future__ import annotations

import getpass
import hashlib
import hmac
import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path

from greffier.access import Principal
from greffier.errors import Forbidden, SettingsError, Unauthenticated
from greffier.server.auth import SharedSecret, issue
from greffier.server.call import SAFE_METHODS, Call

#: The secret's file in the data folder.
SECRET_FILE = "token.secret"  # noqa: S105 - its name
SESSION_SECONDS = 30 * 24 * 3600
#: Sessions are no tokens: what is in a cookie cannot be sent as a bearer, nor the reverse.
AUDIENCE = "greffier-session"
CSRF_HEADER = b"x-greffier-csrf"


def load_secret(data_dir: Path) -> bytes:
    """Read the secret of a data folder, made on first use and for its owner alone.

    Raises:
        SettingsError: It cannot be read or made, or others can read it.
    """
    path = data_dir / SECRET_FILE
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return _make_secret(path)
    except OSError as error:
        raise SettingsError(f"The secret {path} cannot be read: {error.strerror}.") from error
    with os.fdopen(descriptor, "rb") as file:
        if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
            raise SettingsError(
                f"Others can read the secret {path}. Delete it, and a new one is made; everybody "
                "signs in again."
            )
        secret = file.read().strip()
    if len(secret) < 32:
        raise SettingsError(f"The secret {path} is too short. Delete it, and a new one is made.")
    return secret


def _make_secret(path: Path) -> bytes:
    secret = secrets.token_hex(32).encode()
    # Whole or not at all, and the first of two processes wins: written aside, then linked.
    aside = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(secret)
                os.fsync(file.fileno())
            try:
                os.link(aside, path)
            except FileExistsError:
                return load_secret(path.parent)
        finally:
            aside.unlink()
    except OSError as error:
        raise SettingsError(f"The secret {path} cannot be made: {error.strerror}.") from error
    return secret


def person() -> str:
    """Name the person at this machine, who is an admin here."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # no such user, as in some containers
        return "local"


class Local:
    """The one who may come in, and how."""

    def __init__(self, secret: bytes, host: str, port: int, user: str | None = None) -> None:
        """Describe the service as its own pages see it.

        Args:
            secret: Signs sessions and tokens.
            host: The loopback address it listens on.
            port: The port it really has.
            user: The person; by default whoever runs this process.
        """
        self.user = user or person()
        self._secret = secret
        self._sessions = SharedSecret(secret, audience=AUDIENCE, via="cookie")
        self._ticket: str | None = secrets.token_urlsafe(32)
        bracketed = f"[{host}]" if ":" in host else host
        suffix = "" if port == 80 else f":{port}"
        self.url = f"http://{bracketed}{suffix}"
        names = {bracketed, "127.0.0.1", "localhost", "[::1]"}
        self._hosts = {f"{name}:{port}".encode() for name in names}
        if port == 80:
            self._hosts |= {name.encode() for name in names}
        # A cookie does not know about ports; two services of one person must not share theirs.
        self._session_cookie = f"greffier-session-{port}"
        self._csrf_cookie = f"greffier-csrf-{port}"

    @property
    def link(self) -> str:
        """The link that signs the person in, once."""
        return f"{self.url}/signin?token={self._ticket}"

    def guard(self, call: Call) -> None:
        """Refuse what comes under a foreign name, or from a foreign page.

        Raises:
            Forbidden: Either.
        """
        host = call.headers.get(b"host", b"").lower()
        if host not in self._hosts:
            raise Forbidden(f"In local mode this server is only {self.url}.")
        origin = call.headers.get(b"origin")
        if origin is not None and origin != b"http://" + host:
            raise Forbidden("In local mode only this server's own pages may call it.")

    def sign_in(self, ticket: str) -> list[str]:
        """Exchange the link's token for a session.

        Returns:
            The values of two Set-Cookie headers: the session, and what a page of ours sends as
            the header X-Greffier-CSRF with each write.

        Raises:
            Forbidden: The link was used, or is of an earlier start.
        """
        if self._ticket is None or not hmac.compare_digest(self._ticket.encode(), ticket.encode()):
            raise Forbidden("This link was used already, or is of an earlier start.")
        self._ticket = None
        session = issue(
            self._secret, self.user, lifetime=SESSION_SECONDS, admin=True, audience=AUDIENCE
        )
        rest = f"Path=/; SameSite=Strict; Max-Age={SESSION_SECONDS}"
        return [
            f"{self._session_cookie}={session}; HttpOnly; {rest}",
            f"{self._csrf_cookie}={self._csrf(session)}; {rest}",
        ]

    async def session(self, call: Call) -> Principal | None:
        """Tell who signed in, None when nobody did.

        Raises:
            Unauthenticated: The session is over.
            Forbidden: A write without the Origin and the CSRF header of our own pages.
        """
        session = _cookie(call.headers.get(b"cookie", b""), self._session_cookie)
        if session is None:
            return None
        try:
            principal = await self._sessions.identify(session)
        except Unauthenticated:
            raise Unauthenticated("You were signed out; use the link of a new start.") from None
        if call.method not in SAFE_METHODS:
            # That the Origin is ours if it is there, guard has seen.
            sent = call.headers.get(CSRF_HEADER, b"")
            right = hmac.compare_digest(self._csrf(session).encode(), sent)
            if b"origin" not in call.headers or not right:
                raise Forbidden("With a cookie, a write needs Origin and X-Greffier-CSRF.")
        return principal

    async def signed_in(self, cookies: Mapping[str, str]) -> Principal | None:
        """Tell who signed in by their cookies, for a socket: the browser sends them on its own.

        Raises:
            Unauthenticated: The session is over.
        """
        session = cookies.get(self._session_cookie)
        return None if session is None else await self._sessions.identify(session)

    def _csrf(self, session: str) -> str:
        # Bound to the session, so that a cookie planted by another port's page is of no use.
        return hmac.new(self._secret, b"csrf:" + session.encode(), hashlib.sha256).hexdigest()


def _cookie(header: bytes, name: str) -> str | None:
    for one in header.decode("latin-1").split(";"):
        key, _, value = one.strip().partition("=")
        if key == name:
            return value
    return None
