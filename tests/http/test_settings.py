"""Promise: a setting comes from where it was said last, and a wrong one is told with its source."""

from __future__ import annotations

from pathlib import Path

import pytest

from greffier.errors import SettingsError
from greffier.model.limits import DEFAULT
from greffier.server.app import limits
from greffier.settings import Settings, load

SECRET = "thirty-two bytes and some more of it"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_defaults_are_those_of_the_contract() -> None:
    """Loopback, port 8080, local mode, embedded; the limits are the library's."""
    found = load()

    assert (found.host, found.port, found.database_url, found.local_mode) == (
        "127.0.0.1",
        8080,
        None,
        True,
    )
    assert limits(found) == DEFAULT


def test_each_source_is_over_the_next(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Command line, environment, greffier.toml, default."""
    (folder / "greffier.toml").write_text('port = 1\nhost = "::1"\nlog_level = "error"\n')
    monkeypatch.setenv("GREFFIER_PORT", "2")
    monkeypatch.setenv("GREFFIER_HOST", "localhost")

    found = load({"port": 3, "host": None})

    assert (found.port, found.host, found.log_level) == (3, "localhost", "error")
    assert found.log_format == "auto"


def test_a_file_of_settings_may_be_elsewhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where GREFFIER_CONFIG says; then the one here is not read."""
    (folder / "greffier.toml").write_text("port = 1\n")
    (folder / "other.toml").write_text("port = 2\n")
    monkeypatch.setenv("GREFFIER_CONFIG", str(folder / "other.toml"))

    assert load().port == 2


def test_a_secret_may_be_in_a_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As containers are given them, with the end of line that editors add."""
    (folder / "secret").write_text(f"{SECRET}\n")
    monkeypatch.setenv("GREFFIER_JWT_SECRET_FILE", str(folder / "secret"))

    found = load()

    assert found.jwt_secret is not None
    assert found.jwt_secret.get_secret_value() == SECRET
    assert not found.local_mode


@pytest.mark.parametrize(
    ("said", "urls"),
    [
        ("postgresql://a/x", ["postgresql://a/x"]),
        (" postgres://a/x , postgresql://b/x,", ["postgres://a/x", "postgresql://b/x"]),
        ('["postgresql://a/x?options=1,2"]', ["postgresql://a/x?options=1,2"]),
        ("[]", []),
    ],
)
def test_standbys_are_listed_as_variables_list_things(
    monkeypatch: pytest.MonkeyPatch, said: str, urls: list[str]
) -> None:
    """Separated by commas, or as JSON where an address has one."""
    monkeypatch.setenv("GREFFIER_REPLICA_URLS", said)

    assert [url.get_secret_value() for url in load().replica_urls] == urls


@pytest.mark.parametrize(
    ("variable", "said"),
    [("REPLICA_URLS", "[s3cret"), ("REPLICA_URLS", "mysql://s3cret"), ("PROVIDERS", "s3cret")],
)
def test_what_cannot_be_read_is_a_fault_of_the_setting(
    monkeypatch: pytest.MonkeyPatch, variable: str, said: str
) -> None:
    """It is named, and what was said is not told: it may hold a password."""
    monkeypatch.setenv(f"GREFFIER_{variable}", said)

    with pytest.raises(SettingsError) as told:
        load()

    assert variable.lower() in str(told.value).lower()
    assert "s3cret" not in str(told.value)


def test_an_empty_variable_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compose file passes those that are not set as empty."""
    monkeypatch.setenv("GREFFIER_JWT_SECRET", "")
    monkeypatch.setenv("GREFFIER_PORT", "")

    assert (load().jwt_secret, load().port) == (None, 8080)


def test_sizes_are_bytes_or_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """2MiB is 2097152."""
    monkeypatch.setenv("GREFFIER_LIMIT_BODY", "2MiB")

    assert (load().limit_body, load({"limit_cut": 100}).limit_cut) == (2 << 20, 100)


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("PORT", "http", "PORT (from GREFFIER_PORT): "),
        ("PORT", "70000", "PORT (from GREFFIER_PORT): "),
        ("LOG_LEVEL", "loud", "LOG_LEVEL (from GREFFIER_LOG_LEVEL): "),
        (
            "JWT_SECRET",
            "short and sweet",
            "JWT_SECRET (from GREFFIER_JWT_SECRET): it needs 32 bytes",
        ),
        (
            "DATABASE_URL",
            "mysql://me:pass@x/y",
            "DATABASE_URL (from GREFFIER_DATABASE_URL): it starts",
        ),
        ("LIMIT_BATCH_MESSAGES", "251", "LIMIT_BATCH_MESSAGES"),
        ("CONFIG", "missing.toml", "there is no file missing.toml"),
        ("JWT_SECRET_FILE", "missing", "GREFFIER_JWT_SECRET_FILE: missing cannot be read"),
    ],
)
def test_a_wrong_value_is_told_with_its_source(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, told: str
) -> None:
    """In words for whoever set it; a secret is not repeated."""
    monkeypatch.setenv(f"GREFFIER_{variable}", value)

    with pytest.raises(SettingsError) as refusal:
        load()

    assert told in refusal.value.detail
    assert "pass" not in refusal.value.detail
    assert "short and sweet" not in refusal.value.detail


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("prot = 1", "prot (from greffier.toml): there is no such setting. Is port meant?"),
        ("port = 'x'", "PORT (from greffier.toml): "),
        ("port =", "greffier.toml is no TOML"),
        ("port = 1.5", "PORT (from greffier.toml): "),
    ],
)
def test_a_wrong_file_is_told(folder: Path, text: str, told: str) -> None:
    """Also a name that does not exist, which would else be silently without effect."""
    (folder / "greffier.toml").write_text(text)

    with pytest.raises(SettingsError) as refusal:
        load()

    assert told in refusal.value.detail


def test_every_fault_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line for each."""
    monkeypatch.setenv("GREFFIER_PORT", "x")

    with pytest.raises(SettingsError) as refusal:
        load({"log_format": "xml"})

    assert len(refusal.value.detail.splitlines()) == 2
    assert "LOG_FORMAT (from the command line): " in refusal.value.detail


def test_a_secret_said_twice_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which of the two was meant nobody knows."""
    (folder / "secret").write_text(SECRET)
    monkeypatch.setenv("GREFFIER_JWT_SECRET", SECRET)
    monkeypatch.setenv("GREFFIER_JWT_SECRET_FILE", str(folder / "secret"))

    with pytest.raises(SettingsError, match="one is enough"):
        load()


def test_shown_settings_show_no_secret() -> None:
    """Neither the JWT secret nor the password in a database's URL."""
    text = repr(load({"jwt_secret": SECRET, "database_url": "postgresql://me:hidden@x/y"}))

    assert SECRET not in text
    assert "hidden" not in text


def test_every_setting_is_documented() -> None:
    """The reference is made of these words."""
    for name, field in Settings.model_fields.items():
        assert field.description, name
