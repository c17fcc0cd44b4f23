"""Promise: the settings name the providers; they cost nothing until asked, and hide their keys."""

from __future__ import annotations

import re
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from greffier.agents.providers import protocol
from greffier.agents.providers.anthropic import AnthropicProvider
from greffier.agents.providers.echo import Echo
from greffier.agents.providers.openai import OpenAIProvider
from greffier.agents.providers.protocol import ProviderError, Used
from greffier.agents.providers.registry import Providers, cost
from greffier.agents.providers.script import Script
from greffier.agents.providers.trying import Patience
from greffier.errors import SettingsError
from greffier.settings import Price, load

KEY = "sk-test-4f9c2b7a1e6d8f3c5b0a"
FILE = f"""
currency = "USD"

[providers.openai]
kind = "openai"
key = "{KEY}"

[providers.openai.prices."gpt-4.1"]
input = 2
output = 8
cached = 0.5

[providers.local]
kind = "openai"
base_url = "http://127.0.0.1:11434/v1"
timeout = 60
connect_timeout = 1
first_token_timeout = 30
silence_timeout = 20
tries = 1

[providers.claude]
kind = "anthropic"
key = "{KEY}"
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def providers(folder: Path) -> Providers:
    """Those of the file."""
    (folder / "greffier.toml").write_text(FILE)
    return Providers(load())


# -- finding them ----------------------------------------------------------------------------------


async def test_a_provider_is_found_by_its_name(providers: Providers) -> None:
    """Those of the settings and the built-in ones; the same one each time."""
    openai, local, claude = map(providers.get, ("openai", "local", "claude"))

    assert providers.known() == ("echo", "script", "claude", "local", "openai")
    assert isinstance(openai, OpenAIProvider)
    assert isinstance(local, OpenAIProvider)
    assert isinstance(claude, AnthropicProvider)
    assert isinstance(providers.get("echo"), Echo)
    assert isinstance(providers.get("script"), Script)
    assert providers.get("openai") is openai
    assert (openai.base_url, local.base_url, claude.base_url) == (
        "https://api.openai.com/v1",
        "http://127.0.0.1:11434/v1",
        "https://api.anthropic.com",
    )
    assert local.patience == Patience(whole=60, connect=1, first=30, silence=20, tries=1)
    await providers.close()


def test_a_provider_that_is_not_there_is_told(providers: Providers) -> None:
    """An agent may name one that was taken out of the settings since."""
    with pytest.raises(ProviderError) as failed:
        providers.get("gone")

    assert (failed.value.code, failed.value.retryable) == ("provider-not-configured", False)


def test_without_settings_there_are_the_built_in_ones() -> None:
    """Which is enough for a first start."""
    assert Providers(load()).known() == ("echo", "script")


def test_what_a_model_costs(providers: Providers) -> None:
    """To the last digit; a model without a price has none, which is not the same as nothing."""
    price = providers.price("openai", "gpt-4.1")

    assert price is not None
    assert cost(Used(1000, 100, 400), price) == Decimal("0.0022")
    assert cost(Used(1, 0), Price(input=Decimal("0.1"), output=Decimal(0))) == Decimal("1E-7")
    assert cost(Used(10, 0, 10), Price(input=Decimal(1), output=Decimal(1))) == Decimal("0.00001")
    assert providers.price("openai", "other") is None
    assert providers.price("echo", "gpt-4.1") is None
    assert load().currency == "USD"


def test_an_sdk_is_imported_when_it_is_asked_and_not_before() -> None:
    """Neither by the library nor by a server that starts: each takes most of a second."""
    program = (
        "import sys, greffier, greffier.cli.app, greffier.server.app\n"
        "from greffier.agents.providers.registry import Providers\n"
        "from greffier.settings import load\n"
        "one = {'kind': 'openai', 'key': 'k'}\n"
        "two = {'kind': 'anthropic', 'key': 'k'}\n"
        "found = Providers(load({'providers': {'one': one, 'two': two}}))\n"
        "found.get('one'), found.get('two')\n"
        "print(sorted({'openai', 'anthropic'} & sys.modules.keys()))\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )

    assert done.stdout == "[]\n"


def test_every_way_to_fail_is_documented() -> None:
    """The reference is made of these words; a script alone has codes of its own."""
    source = Path(protocol.__file__).parents[1]
    raised = {
        code
        for file in source.rglob("*.py")
        for code in re.findall(r"ProviderError\(\s*\"([a-z-]+)\"", file.read_text("utf-8"))
    }

    assert raised == set(protocol.FAILURES)


# -- settings --------------------------------------------------------------------------------------


def test_a_key_may_come_from_the_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the table of the file, which then holds no secret; or all of it."""
    (folder / "greffier.toml").write_text('[providers.openai]\nkind = "openai"\ntries = 2\n')
    monkeypatch.setenv("GREFFIER_PROVIDERS__OPENAI__KEY", KEY)
    monkeypatch.setenv("GREFFIER_PROVIDERS__MY_OWN__KIND", "openai")
    monkeypatch.setenv("GREFFIER_PROVIDERS__MY_OWN__BASE_URL", "http://127.0.0.1:8000/v1")

    found = load().providers

    assert found["openai"].key is not None
    assert (found["openai"].key.get_secret_value(), found["openai"].tries) == (KEY, 2)
    assert (found["my_own"].key, found["my_own"].base_url) == (None, "http://127.0.0.1:8000/v1")


@pytest.mark.parametrize("variable", [False, True], ids=["greffier.toml", "environment"])
def test_a_key_may_be_in_a_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch, variable: bool
) -> None:
    """As containers are given them, with the end of line that editors add."""
    (folder / "secret").write_text(f"{KEY}\n")
    table = '[providers.openai]\nkind = "openai"\n'
    if variable:
        monkeypatch.setenv("GREFFIER_PROVIDERS__OPENAI__KEY_FILE", str(folder / "secret"))
    else:
        table += f'key_file = "{folder / "secret"}"\n'
    (folder / "greffier.toml").write_text(table)

    key = load().providers["openai"].key

    assert key is not None
    assert key.get_secret_value() == KEY


HERE = '[providers.openai]\nkind = "openai"\n'


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (HERE, "PROVIDERS.openai (from greffier.toml): it needs a key."),
        (f'{HERE}key = ""', "PROVIDERS.openai (from greffier.toml): the key is empty"),
        (f'{HERE}key = "{KEY}\\n"', "the key is empty, or has characters that no header can hold"),
        (f'{HERE}key = "{KEY}"\nkey_file = "x"', "both key and key_file are set; one is enough."),
        (f'{HERE}key_file = "missing"', "key_file: missing cannot be read: No such file"),
        (f'{HERE}key = "{KEY}"\nkyy = 1', "providers.openai.kyy (from greffier.toml): "),
        (f'{HERE}key = "{KEY}"\nkyy = 1', "there is no such setting. Is key meant?"),
        (f'{HERE}key = "{KEY}"\ntries = 0', "PROVIDERS.openai.tries (from greffier.toml): "),
        (f'{HERE}key = ["{KEY}"]', "PROVIDERS.openai.key (from greffier.toml): "),
        (f'{HERE}key = "{KEY}"\nbase_url = "ftp://x"', "it starts with https:// or http://"),
        (f'{HERE}base_url = "https://me:{KEY}@x/v1"', "it has no user, query or fragment"),
        (f'{HERE}base_url = "https://x/v1?key={KEY}"', "it has no user, query or fragment"),
        (f'[providers.x]\nkey = "{KEY}"', "PROVIDERS.x.kind (from greffier.toml): "),
        (f'[providers.x]\nkind = "cohere"\nkey = "{KEY}"', "(it is 'cohere')"),
        (f'[providers.echo]\nkind = "openai"\nkey = "{KEY}"', "echo is built in"),
        (f'[providers."A b"]\nkind = "openai"\nkey = "{KEY}"', "a name is of small letters"),
        ('[providers.x]\nkind = "anthropic"\nbase_url = "http://x"', "it needs a key."),
        (f'{HERE}key = "{KEY}"\n[providers.openai.prices.m]\ninput = -1\noutput = 1',
         "PROVIDERS.openai.prices.m.input (from greffier.toml): "),
        (f'{HERE}key = "{KEY}"\n[providers.openai.prices.m]\ninputs = 1',
         "there is no such setting. Is input meant?"),
        (f'providers = "{KEY}"', "PROVIDERS (from greffier.toml): "),
        ('currency = "euro"', "CURRENCY (from greffier.toml): "),
    ],
)  # fmt: skip
def test_a_wrong_table_is_told_without_its_key(folder: Path, text: str, told: str) -> None:
    """In words for whoever wrote it, with the place."""
    (folder / "greffier.toml").write_text(text)

    with pytest.raises(SettingsError) as refusal:
        load()

    assert told in refusal.value.detail
    assert KEY not in refusal.value.detail


def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that was wrong, or the table it is in."""
    monkeypatch.setenv("GREFFIER_PROVIDERS__ONE__KIND", "openai")
    monkeypatch.setenv("GREFFIER_PROVIDERS__TWO__KIND", "cohere")

    with pytest.raises(SettingsError) as refusal:
        load()

    assert "PROVIDERS.one (from GREFFIER_PROVIDERS__ONE__…)" in refusal.value.detail
    assert "PROVIDERS.two.kind (from GREFFIER_PROVIDERS__TWO__KIND)" in refusal.value.detail


def test_what_is_shown_shows_no_key(providers: Providers, folder: Path) -> None:
    """Neither the settings nor what is built of them."""
    (folder / "secret").write_text(KEY)
    table: dict[str, Any] = {"x": {"kind": "openai", "key_file": str(folder / "secret")}}
    settings = load({"providers": table})

    shown = f"{load()!r}{settings!r}{settings.model_dump()}{providers.get('openai')!r}"

    assert KEY not in shown
