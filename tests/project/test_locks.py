"""Promise: what is installed is what pyproject.toml asks for, the same bytes everywhere."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]


def project() -> dict[str, Any]:
    """Return pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def group(name: str) -> list[Requirement]:
    """Return what a dependency group asks for, its included groups too."""
    asked: list[Requirement] = []
    for item in project()["dependency-groups"][name]:
        asked += [Requirement(item)] if isinstance(item, str) else group(item["include-group"])
    return asked


def text_of(lock: str) -> str:
    """Return a lock as it is written."""
    return (ROOT / "requirements" / f"{lock}.txt").read_text(encoding="utf-8")


def entries(lock: str) -> dict[str, str]:
    """Return each locked package's whole entry, hashes included, by its name."""
    blocks = re.split(r"^(?=[A-Za-z0-9])", text_of(lock), flags=re.MULTILINE)[1:]
    kept = (re.sub(r"^\s*#.*\n?", "", block, flags=re.MULTILINE) for block in blocks)
    return {canonicalize_name(re.split(r"[=\s\[]", entry)[0]): entry.strip() for entry in kept}


def pinned(entry: str) -> str:
    """Return an entry less its marker: what development needs everywhere, serving may not."""
    return re.sub(r"\s*;[^\\]*", " ", entry, count=1)


@pytest.mark.parametrize(("lock", "extra"), [("serve", "build"), ("dev", "dev")])
def test_a_lock_holds_a_fitting_version_of_all_that_is_asked_for(lock: str, extra: str) -> None:
    """Nobody changes pyproject.toml and forgets `make lock`."""
    asked = [Requirement(item) for item in project()["project"]["dependencies"]] + group(extra)
    found = entries(lock)

    missing = [
        str(wanted)
        for wanted in asked
        if (entry := found.get(canonicalize_name(wanted.name))) is None
        or not wanted.specifier.contains(re.split(r"==|[\s;]", entry)[1], prereleases=True)
    ]

    assert missing == [], "run `make lock`"


@pytest.mark.parametrize("lock", ["serve", "dev"])
def test_every_locked_package_is_held_to_one_version_and_its_hashes(lock: str) -> None:
    """A registry that hands out another file under the same name is refused."""
    loose = [
        name
        for name, entry in entries(lock).items()
        if not re.match(r"[\w.\[\]-]+==\S+", entry) or "--hash=sha256:" not in entry
    ]

    assert entries(lock)
    assert loose == []


def test_the_development_lock_repeats_the_runtime_lock() -> None:
    """What is tested is what is served: `make test` leaves .venv fit for `make serve`."""
    dev = {name: pinned(entry) for name, entry in entries("dev").items()}

    differing = [name for name, entry in entries("serve").items() if dev.get(name) != pinned(entry)]

    assert differing == []


@pytest.mark.parametrize("lock", ["serve", "dev"])
def test_a_lock_names_no_place_to_install_from(lock: str) -> None:
    """Each machine installs from its own index, by its own pip's settings."""
    assert not re.search(r"https?://|--index-url|--find-links|@ file:", text_of(lock))
