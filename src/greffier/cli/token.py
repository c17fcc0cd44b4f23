"""greffier token."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from greffier.cli.common import Config, DataDir, Json, data_folder, load_settings
from greffier.cli.output import emit, emit_json
from greffier.errors import SettingsError
from greffier.model.person import fault as name_fault

if TYPE_CHECKING:
    from greffier.settings import Settings

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def _duration(text: str) -> timedelta:
    match = re.fullmatch(r"(\d{1,9})([smhdw])", text, re.ASCII)
    if match is None or int(match[1]) == 0:
        raise typer.BadParameter("A number and a unit: 90s, 15m, 12h, 30d or 4w.")
    return timedelta(seconds=int(match[1]) * _UNITS[match[2]])


def token(
    *,
    user: Annotated[str, typer.Option(help="The user's id.")],
    admin: Annotated[bool, typer.Option("--admin", help="May do everything.")] = False,
    name: Annotated[
        str | None, typer.Option(help="Their name, for display.", show_default=False)
    ] = None,
    email: Annotated[str | None, typer.Option(help="Their e-mail.", show_default=False)] = None,
    expires: Annotated[
        timedelta,
        typer.Option(
            help="How long it is good for: 15m, 12h, 30d.", parser=_duration, metavar="DURATION"
        ),
    ] = "30d",  # type: ignore[assignment]  # parsed
    json: Json = False,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Make a token for a user of this server.

    Signed with JWT_SECRET, or in local mode with the secret in the data folder, which is made if
    there is none yet.
    """
    settings = load_settings(None, data_dir, config)
    if problem := name_fault(user, ""):
        raise typer.BadParameter(problem.detail, param_hint="--user")
    signed = _sign(settings, user, expires, name=name, email=email, admin=admin)
    if json:
        import jwt  # noqa: PLC0415

        claims = jwt.decode(signed, options={"verify_signature": False, "verify_aud": False})
        until = datetime.fromtimestamp(claims["exp"], UTC)
        emit_json({"token": signed, "user": user, "expires_at": f"{until:%Y-%m-%dT%H:%M:%SZ}"})
    else:
        emit(f"{signed}\n")


def _sign(
    settings: Settings,
    user: str,
    lifetime: timedelta,
    *,
    name: str | None,
    email: str | None,
    admin: bool,
) -> str:
    from greffier.embedded.folder import Folder  # noqa: PLC0415
    from greffier.server.auth import issue  # noqa: PLC0415
    from greffier.server.local import load_secret  # noqa: PLC0415

    audience = issuer = None
    if settings.jwt_secret is not None:
        secret = settings.jwt_secret.get_secret_value().encode()
        audience, issuer = settings.jwt_audience, settings.jwt_issuer
    elif settings.jwks_url is not None:
        raise SettingsError(
            "The identity provider (JWKS_URL) makes the tokens; without JWT_SECRET none made here "
            "would be taken."
        )
    else:
        folder = Folder.at(data_folder(settings))
        folder.create()
        secret = load_secret(folder.root)
    return issue(
        secret,
        user,
        lifetime=lifetime.total_seconds(),
        name=name,
        email=email,
        admin=admin,
        audience=audience,
        issuer=issuer,
        role_claim=settings.role_claim,
    )
