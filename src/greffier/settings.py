"""Every setting, with its default and its reason.

The command line comes first, then the environment (``GREFFIER_PORT``; for a secret also
``GREFFIER_JWT_SECRET_FILE``, the path of a file that holds it), then ``greffier.toml`` in the
current folder or where ``GREFFIER_CONFIG`` says, then the default.  A table such as ``[providers]``
is put together from all of them, field by field.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from collections.abc import Mapping
from contextvars import ContextVar
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ByteSize,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings import SettingsError as UnreadableError

from greffier.errors import SettingsError

PREFIX = "GREFFIER_"
#: A shorter key can be guessed from one token (RFC 7518, 3.2).
SECRET_BYTES = 32
#: Providers that are always there, and are not set.
BUILTIN_PROVIDERS = ("echo", "script")
#: What a variable can name, as well as a table of a file.
_PROVIDER_NAME = re.compile(r"[a-z0-9]+(?:[_-][a-z0-9]+)*")
#: An origin as browsers write it.
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]{1,5})?")

_TABLE = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Price(BaseModel):
    """What a million tokens of a model cost, in ``CURRENCY``."""

    model_config = _TABLE

    input: Decimal = Field(ge=0)
    """Of what is sent."""

    output: Decimal = Field(ge=0)
    """Of what is answered, reasoning included."""

    cached: Decimal | None = Field(default=None, ge=0)
    """Of what is sent and was in the provider's cache; without it, as ``input``."""


class ProviderSettings(BaseModel):
    """A provider of models: where it is, what it is told to be let in, how long it may take."""

    model_config = _TABLE

    kind: Literal["openai", "anthropic"]
    """What it speaks: ``openai`` is the chat completions of OpenAI, which most servers of models
    offer; ``anthropic`` needs ``greffier[anthropic]``."""

    base_url: str | None = None
    """Its address; without it that of OpenAI or Anthropic themselves."""

    key: SecretStr | None = None
    """What it lets us in by; a server of your own may need none. Neither stored nor logged."""

    key_file: Path | None = None
    """A file that holds the key, instead."""

    timeout: float = Field(default=900, gt=0)
    """Seconds for one answer in all, with what is tried again."""

    connect_timeout: float = Field(default=10, gt=0)
    """Seconds until it is reached."""

    first_token_timeout: float = Field(default=120, gt=0)
    """Seconds until it says its first word, tool call or thought."""

    silence_timeout: float = Field(default=60, gt=0)
    """Seconds between two pieces of an answer."""

    tries: int = Field(default=3, ge=1, le=10)
    """How often it is asked, as long as it has said nothing: when it is away or asks to wait."""

    prices: dict[str, Price] = Field(default={})
    """What its models cost, by the name of the model; what is not here has no cost."""

    @model_validator(mode="before")
    @classmethod
    def _read_key(cls, said: Any) -> Any:
        # Pydantic's messages quote what was said, so these name the file and never what is in it.
        if not isinstance(said, Mapping) or not said.get("key_file"):
            return said
        if said.get("key"):
            raise ValueError("both key and key_file are set; one is enough")
        path = said["key_file"]
        try:
            key = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError, TypeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no text"
            raise ValueError(f"key_file: {path} cannot be read: {reason}") from None
        return {**said, "key": key}

    @field_validator("base_url")
    @classmethod
    def _is_plain(cls, value: str | None) -> str | None:
        if value is None:
            return None
        # A password in the address would be shown with it.
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("it starts with https:// or http://, and names a host")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("it has no user, query or fragment; what lets us in is the key")
        return value

    @model_validator(mode="after")
    def _can_enter(self) -> ProviderSettings:
        key = None if self.key is None else self.key.get_secret_value()
        if key is not None and not re.fullmatch(r"[!-~]+", key):
            raise ValueError("the key is empty, or has characters that no header can hold")
        if key is None and (self.base_url is None or self.kind == "anthropic"):
            raise ValueError("it needs a key")
        return self


class Settings(BaseSettings):
    """What this server does, said once at its start."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        # An empty variable is how a compose file says that there is none.
        env_ignore_empty=True,
        # GREFFIER_PROVIDERS__NAME__KEY is the key of [providers.NAME].
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
    )

    database_url: SecretStr | None = None
    """``postgresql://…`` of your own PostgreSQL, 15 or newer. Without it a private PostgreSQL is
    kept in the data folder."""

    replica_urls: Annotated[list[SecretStr], NoDecode] = Field(default=[])
    """Standbys of ``DATABASE_URL``: a list of URLs, in a variable separated by commas or as JSON.
    A reader who sends back the ``Greffier-Position`` of their last write may be answered by one
    that has reached it."""

    data_dir: Path | None = None
    """The data folder: the private PostgreSQL, and in local mode the secret that signs tokens. By
    default the user's own, ``~/.local/share/greffier``."""

    host: str = "127.0.0.1"
    """The address to listen on. Anything but loopback needs ``JWT_SECRET`` or ``JWKS_URL``."""

    port: int = Field(default=8080, ge=0, le=65535)
    """The port to listen on; 0 takes a free one and says which."""

    workers: int = Field(default=1, ge=1, le=64)
    """Server processes on one port; they behave as one. Local mode needs no more than one."""

    jwt_secret: SecretStr | None = None
    """The secret, of 32 bytes or more, that signs the tokens (JWT, HS256) of the people who come
    in. Without it the server runs in local mode, for the person at this machine alone."""

    jwks_url: str | None = None
    """Where your identity provider publishes the keys that sign its tokens (JWT with RS, PS, ES or
    EdDSA). Together with ``JWT_SECRET`` both kinds of tokens are taken, each with its own key."""

    jwt_audience: str | None = None
    """The audience (``aud``) a token must be for; without it a token that names one is refused."""

    jwt_issuer: str | None = None
    """The issuer (``iss``) a token must come from."""

    role_claim: str = Field(default="role", min_length=1)
    """The claim that makes an admin: its value is ``admin``, or a list with it. Dots lead into
    nested claims (``realm_access.roles``)."""

    allowed_origins: Annotated[list[str], NoDecode] = Field(default=[])
    """Origins whose pages may call the API and connect sockets from a browser, with a token of
    their own: ``https://app.example``, several separated by commas or as JSON; or ``*``. The
    server's own pages always may."""

    rate_limit: str = "10/60s:20"
    """How many messages of role ``user`` one user may send: ten in 60 seconds in the long run, and
    twenty at once; or ``off``. The processes of a machine share it. Admins, services and messages
    sent again are not limited."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least important line that is logged; at ``info`` there is one line for each request."""

    log_format: Literal["auto", "json", "console"] = "auto"
    """JSON for machines or lines for people; ``auto`` is ``console`` on a terminal."""

    providers: dict[str, ProviderSettings] = Field(default={})
    """Who answers for agents: a table ``[providers.NAME]`` for each, or variables such as
    ``GREFFIER_PROVIDERS__NAME__KEY``. The names ``echo`` and ``script`` are built in."""

    currency: str = Field(default="EUR", pattern=r"^[A-Z]{3}$")
    """In which the ``prices`` of providers are said, and so costs and quotas; three letters.
    Nothing is converted."""

    work: bool = True
    """Whether ``serve`` also answers for agents and delivers; else ``greffier worker`` does."""

    metrics_port: int | None = Field(default=None, ge=0, le=65535)
    """The port at ``HOST`` where ``greffier worker`` tells ``/metrics`` and ``/healthz``; 0 takes a
    free one and says which, without it nobody is told. ``serve`` does so on its own."""

    lease_seconds: float = Field(default=600, ge=5)
    """Seconds after which what a silent worker was delivering is somebody else's."""

    max_attempts: int = Field(default=3, ge=1, le=100)
    """How often a message is tried at an endpoint that says nothing else, and how often a lane's
    worker may be lost, before a person has to look."""

    batch_size: int = Field(default=10, ge=1, le=1000)
    """Messages of one conversation that leave under one claim."""

    run_lease_seconds: float = Field(default=30, ge=1)
    """Seconds after which a run whose worker is silent is ended as interrupted."""

    run_concurrency: int = Field(default=256, ge=1)
    """Runs that answer at the same time in one process."""

    shutdown_seconds: float = Field(default=30, ge=0)
    """How long a stopping server waits for requests under way."""

    tool_secret: SecretStr | None = None
    """What calls of tools that are HTTPS endpoints are signed with, after Standard Webhooks:
    ``whsec_`` and 24 to 64 bytes in base64. Without it no such tool is called."""

    alert_webhook: str | None = None
    """The URL that is sent what somebody should know (``/v1/ops/alerts``), as it begins and as it
    ends; it may be in a private network. Needs ``ALERT_WEBHOOK_SECRET``."""

    alert_webhook_secret: SecretStr | None = None
    """What alerts are signed with, after Standard Webhooks: ``whsec_`` and 24 to 64 bytes in
    base64."""

    smtp_url: SecretStr | None = None
    """The mail server that endpoints of channel ``email`` send through, as
    ``smtps://user:password@host:465`` or ``smtp://host:587``, where STARTTLS is used if it is
    offered, and insisted on where there is a password."""

    smtp_from: str | None = None
    """Whom such mails come from: ``bot@example.org`` or ``A name <bot@example.org>``."""

    allow_private_targets: bool = False
    """Let webhooks point into private networks and to this machine, also without TLS. Whoever may
    make an endpoint can then reach whatever this server reaches."""

    client_seconds: float = Field(default=60, gt=0)
    """Seconds a client may take to send a request, from its first byte to its last, and seconds
    for which it may take nothing of an answer; then the connection is closed."""

    limit_head: ByteSize = Field(default=ByteSize(32 << 10), ge=1024, le=1 << 20)
    """Bytes of a request's first line and its headers."""

    limit_body: ByteSize = Field(default=ByteSize(1 << 20), ge=1024)
    """Bytes of a request's body."""

    limit_content: ByteSize = Field(default=ByteSize(256 << 10), ge=1, le=64 << 20)
    """Bytes of a message's content, and of each of its parts, tool calls and reasoning."""

    limit_metadata: ByteSize = Field(default=ByteSize(16 << 10), ge=2, le=1 << 20)
    """Bytes of the metadata of a message or a conversation, as JSON."""

    limit_batch_messages: int = Field(default=100, ge=1, le=250)
    """Messages in one request; they are stored by one statement, which takes 250."""

    limit_page_messages: int = Field(default=200, ge=1, le=2000)
    """Messages in one page."""

    limit_page_bytes: ByteSize = Field(default=ByteSize(1 << 20), ge=1024)
    """Bytes of messages in one page; a page has at least one message."""

    limit_cut: ByteSize = Field(default=ByteSize(16 << 10), ge=64)
    """Bytes from which a content is cut in pages; the single message is whole."""

    @field_validator("providers")
    @classmethod
    def _are_named(cls, value: dict[str, ProviderSettings]) -> dict[str, ProviderSettings]:
        for name in value:
            if name in BUILTIN_PROVIDERS:
                raise ValueError(f"{name} is built in; choose another name")
            if not _PROVIDER_NAME.fullmatch(name):
                raise ValueError("a name is of small letters and digits, joined by _ or -")
        return value

    @field_validator("replica_urls", "allowed_origins", mode="before")
    @classmethod
    def _are_listed(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if not value.lstrip().startswith("["):
            return [one.strip() for one in value.split(",") if one.strip()]
        try:
            return json.loads(value)
        except ValueError:
            raise ValueError("it is no JSON list") from None

    @field_validator("replica_urls")
    @classmethod
    def _are_postgresql(cls, value: list[SecretStr]) -> list[SecretStr]:
        for url in value:
            cls._is_postgresql(url)
        return value

    @field_validator("allowed_origins")
    @classmethod
    def _are_origins(cls, value: list[str]) -> list[str]:
        for one in value:
            if one != "*" and not _ORIGIN.fullmatch(one):
                raise ValueError("an origin is like https://app.example: small letters, no path")
        return value

    @field_validator("database_url")
    @classmethod
    def _is_postgresql(cls, value: SecretStr | None) -> SecretStr | None:
        # The value itself stays unsaid: it may hold a password.
        if value and not value.get_secret_value().startswith(("postgresql://", "postgres://")):
            msg = "it starts with postgresql://"
            raise ValueError(msg)
        return value

    @field_validator("jwt_secret")
    @classmethod
    def _is_long(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value().encode()) < SECRET_BYTES:
            msg = (
                f"it needs {SECRET_BYTES} bytes or more, for example from: openssl rand -base64 48"
            )
            raise ValueError(msg)
        return value

    @field_validator("jwks_url")
    @classmethod
    def _is_web(cls, value: str | None) -> str | None:
        # Nothing but the web: urllib would read file:///etc/passwd as well.
        if value is not None and not value.startswith(("https://", "http://")):
            msg = "it starts with https:// (or http://, where nobody else can answer)"
            raise ValueError(msg)
        return value

    @property
    def local_mode(self) -> bool:
        """Whether only the person at this machine may come in: nobody else could be told apart."""
        return self.jwt_secret is None and self.jwks_url is None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic's interface
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Put the sources in the order this module promises."""
        return (
            init_settings,
            env_settings,
            InitSettingsSource(settings_cls, _secret_files()),
            InitSettingsSource(settings_cls, _config_file()),
        )


def load(command_line: Mapping[str, Any] | None = None, *, config: Path | None = None) -> Settings:
    """Read the settings from everywhere.

    Args:
        command_line: What was said there, by the names of ``Settings``; None is not said.
        config: The file to read instead of ``greffier.toml``; it comes before GREFFIER_CONFIG.

    Raises:
        SettingsError: With every setting that cannot be, and where it came from.
    """
    said = {name: value for name, value in (command_line or {}).items() if value is not None}
    chosen = _config.set(config)
    try:
        return Settings(**said)
    except ValidationError as error:
        lines = [_complaint(dict(one), said) for one in error.errors(include_url=False)]
        raise SettingsError("\n".join(lines)) from None
    except UnreadableError as error:
        # A table in a variable; pydantic names the setting and, in its cause, what was said.
        raise SettingsError(f"{str(error)[:1].upper()}{str(error)[1:]}: it is no JSON.") from None
    finally:
        _config.reset(chosen)


#: The file that the command line names, while settings are read.
_config: ContextVar[Path | None] = ContextVar("config", default=None)


def is_secret(field: FieldInfo) -> bool:
    """Say whether a setting is a secret, and may come from a file of its own."""
    return SecretStr in (field.annotation, *get_args(field.annotation))


def _secret_files() -> dict[str, str]:
    found: dict[str, str] = {}
    for name, field in Settings.model_fields.items():
        variable = f"{PREFIX}{name.upper()}"
        path = os.environ.get(f"{variable}_FILE")
        if not path or not is_secret(field):
            continue
        if os.environ.get(variable):
            raise SettingsError(f"Both {variable} and {variable}_FILE are set; one is enough.")
        try:
            found[name] = Path(path).read_text(encoding="utf-8").strip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise SettingsError(f"{variable}_FILE: {path} cannot be read: {reason}.") from error
    return found


def _config_path() -> Path:
    named = _config.get() or os.environ.get(f"{PREFIX}CONFIG")
    return Path(named or "greffier.toml")


def _config_file() -> dict[str, Any]:
    path = _config_path()
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if _config.get() or os.environ.get(f"{PREFIX}CONFIG"):
            raise SettingsError(f"{PREFIX}CONFIG: there is no file {path}.") from error
        return {}
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}.") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path} is no TOML: {error}") from error


def _complaint(error: dict[str, Any], said: Mapping[str, Any]) -> str:
    """Say which setting is wrong, where it was said, and what would be right."""
    path = [str(step) for step in error["loc"]]
    where = _source(path, said)
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(path[-1], _beside(path), 1)
        hint = f" Is {near[0]} meant?" if near else ""
        return f"{'.'.join(path)} ({where}): there is no such setting.{hint}"
    reason = str(error["ctx"]["error"]) if "error" in error.get("ctx", {}) else error["msg"]
    shown = f" (it is {error['input']!r})" if _may_be_shown(path, error["input"]) else ""
    return f"{'.'.join([path[0].upper(), *path[1:]])} ({where}): {reason}{shown}."


def _beside(path: list[str]) -> list[str]:
    """The names that could stand at the end of a path."""
    tables: dict[int, type[BaseModel]] = {1: Settings, 3: ProviderSettings, 5: Price}
    return list(tables[len(path)].model_fields) if len(path) in tables else []


def _may_be_shown(path: list[str], value: Any) -> bool:
    if len(path) == 1 and path[0] != "providers":
        return not is_secret(Settings.model_fields[path[0]])
    # A table may hold a key, and so may an address.
    hidden = len(path) == 1 or not {"key", "base_url"}.isdisjoint(path)
    return isinstance(value, str | int | float) and not hidden


def _source(path: list[str], said: Mapping[str, Any]) -> str:
    if path[0] in said:
        return "from the command line"
    # Of a table, the variable of the field, or of any table around it.
    for length in range(len(path), 0, -1):
        variable = f"{PREFIX}{'__'.join(path[:length]).upper()}"
        if os.environ.get(variable):
            return f"from {variable}"
        if os.environ.get(f"{variable}_FILE"):
            return f"from {variable}_FILE"
        if length > 1 and any(one.upper().startswith(f"{variable}__") for one in os.environ):
            return f"from {variable}__…"
    return f"from {_config_path()}"
