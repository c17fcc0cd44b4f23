"""Promise: the reference says what the code does, in both languages, and links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from greffier.errors import CODES
from greffier.server.routes import ROUTES
from greffier.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
LANGUAGES = ("en", "fr")
PAGES = ("access", "errors", "http", "index", "objects", "settings")


def page(language: str, name: str) -> str:
    """A page of the reference."""
    return (ROOT / "docs" / language / "reference" / f"{name}.md").read_text(encoding="utf-8")


def test_the_pages_are_what_the_code_says() -> None:
    """Who changes a route, a type, a code or a setting runs the script, or is told to."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "reference.py"), "--check"],
        check=False,
        capture_output=True,
        text=True,
    )

    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@pytest.mark.parametrize("language", LANGUAGES)
def test_nothing_is_missing(language: str) -> None:
    """Every route, every code and every setting has its place."""
    for route in ROUTES:
        assert f"### `{route.method} {route.path}`" in page(language, "http")
    for code in CODES:
        assert f'<a id="{code}"></a>' in page(language, "errors")
    for name in Settings.model_fields:
        assert f"## `{name.upper()}`" in page(language, "settings")


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", PAGES)
def test_links_within_the_reference_lead_somewhere(language: str, name: str) -> None:
    """To a page that is there, and to a place on it."""
    for target, anchor in re.findall(r"\]\((\w+)\.md(?:#([^)]+))?\)", page(language, name)):
        found = page(language, target)
        if anchor:
            assert anchor in anchors(found), f"{target}.md#{anchor}"


def anchors(text: str) -> set[str]:
    """The places on a page that can be led to, as GitHub names them."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    slugs = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return slugs | set(re.findall(r'<a id="([^"]+)">', text))
