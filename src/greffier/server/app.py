"""Put the application together."""

from __future__ import annotations

from pathlib import Path

import msgspec
from structlog.typing import FilteringBoundLogger

from greffier.access import Users
from greffier.agents.follow import FollowedRuns
from greffier.agents.providers.script import check_script
from greffier.agents.work import from_settings
from greffier.deliver.channels import open_channels
from greffier.deliver.targets import ChannelTargets
from greffier.errors import SettingsError
from greffier.model.agent import Rules
from greffier.model.limits import Limits
from greffier.publish.bus import Bus
from greffier.publish.feed import Feed
from greffier.publish.own import OwnFeeds
from greffier.publish.signals import Signals
from greffier.server import asyncapi
from greffier.server.allowance import open_buckets
from greffier.server.auth import Bearers, Claims, SharedSecret
from greffier.server.backlog import Backlog
from greffier.server.edge import Edge
from greffier.server.keyring import KeyRing
from greffier.server.local import Local
from greffier.server.logs import make_logger
from greffier.server.metrics import Metrics
from greffier.server.openapi import document
from greffier.server.origins import ANY, Origins
from greffier.server.provider import KeySet, ProviderTokens
from greffier.server.ratelimit import Rate
from greffier.server.routes import ROUTES
from greffier.server.routes.web import SIGN_IN
from greffier.server.service import Readiness, Service
from greffier.server.table import resources
from greffier.settings import BUILTIN_PROVIDERS, Settings
from greffier.store.database import Database


def create_app(
    database: Database,
    settings: Settings,
    *,
    local: Local | None = None,
    authenticator: SharedSecret | None = None,
    log: FilteringBoundLogger | None = None,
    bus: Bus | None = None,
    folder: Path | None = None,
    signals: Signals | None = None,
) -> Edge:
    """Make the ASGI application that serves a database.

    It has no life of its own: whoever opened the database closes it, after the last request.

    Args:
        database: An open database.
        settings: What it does.
        local: In local mode, the person and their link.
        authenticator: Tells who bears a signed token; by default by the secret of the settings.
        log: Where to log; by default to standard error, as the settings say.
        bus: Tells the service's other processes of commits; alone when not given.
        folder: The data folder, when the service has one.
        signals: Who is online and who types, there too.

    Raises:
        SettingsError: There is no way to tell who calls, or a setting cannot be.
    """
    log = log or make_logger(settings.log_level, settings.log_format)
    if authenticator is None and settings.jwt_secret is not None:
        authenticator = SharedSecret(
            settings.jwt_secret.get_secret_value().encode(),
            audience=settings.jwt_audience,
            issuer=settings.jwt_issuer,
            role_claim=settings.role_claim,
        )
    provider = _provider(settings, log)
    if authenticator is None and provider is None:
        raise SettingsError("JWT_SECRET or JWKS_URL is needed, or local mode.")
    keys = KeyRing(database)
    routes = ROUTES if local is None else (*ROUTES, SIGN_IN)
    feed = Feed(database, bus, limits=limits(settings))
    runs = FollowedRuns(database, feed.say, limits=limits(settings))
    feed.listen_for_work(runs.heard)
    working = from_settings(database, settings, feed, runs, log=log) if settings.work else None
    service = Service(
        database=database,
        limits=limits(settings),
        client_seconds=settings.client_seconds,
        authenticator=Bearers(keys=keys, secret=authenticator, provider=provider),
        keys=keys,
        buckets=open_buckets(Rate.parse(settings.rate_limit), database.dsn, folder),
        local=local,
        metrics=Metrics(database.writer.pressure, Backlog(database), working),
        users=Users(database),
        readiness=Readiness(database, provider.keys if provider else None),
        feed=feed,
        own=OwnFeeds(database, feed),
        signals=signals or Signals(None),
        runs=runs,
        work=working,
        agents=rules(settings),
        targets=ChannelTargets(open_channels(settings)),
        currency=settings.currency,
        max_attempts=settings.max_attempts,
        documents={
            "openapi": msgspec.json.encode(document(routes)),
            "asyncapi": msgspec.json.encode(asyncapi.document()),
        },
    )
    return Edge(service, resources(routes), log, origins(settings, local))


def _provider(settings: Settings, log: FilteringBoundLogger) -> ProviderTokens | None:
    if settings.jwks_url is None:
        return None

    def failed(why: str) -> None:
        log.warning("identity_provider", url=settings.jwks_url, why=why)

    claims = Claims(settings.jwt_audience, settings.jwt_issuer, settings.role_claim)
    return ProviderTokens(KeySet(settings.jwks_url, failed=failed), claims)


def origins(settings: Settings, local: Local | None) -> Origins | None:
    """Give whose pages may call under these settings, besides our own.

    Raises:
        SettingsError: In local mode every page of the web may.
    """
    if local is not None and ANY in settings.allowed_origins:
        raise SettingsError(
            "ALLOWED_ORIGINS is *, and in local mode every page of the web could ask this machine: "
            "name the origins that may, such as http://localhost:5173."
        )
    return Origins(settings.allowed_origins) if settings.allowed_origins else None


def rules(settings: Settings) -> Rules:
    """Give what agents are held to under these settings."""
    return Rules(
        providers=frozenset((*settings.providers, *BUILTIN_PROVIDERS)),
        script=check_script,
        plain_urls=settings.allow_private_targets,
    )


def limits(settings: Settings) -> Limits:
    """Give the bounds these settings say."""
    return Limits(
        head=settings.limit_head,
        body=settings.limit_body,
        content=settings.limit_content,
        metadata=settings.limit_metadata,
        batch_messages=settings.limit_batch_messages,
        page_messages=settings.limit_page_messages,
        page_bytes=settings.limit_page_bytes,
        cut=settings.limit_cut,
    )
