"""Promise: whoever runs Greffier takes on no licence that binds their own code."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]

# Names as SPDX writes them. MPL-2.0 binds changes to its own files only, and we change none.
ALLOWED = {
    "0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MIT-0", "MPL-2.0",
    "PostgreSQL", "PSF-2.0", "Python-2.0", "Unlicense", "Zlib",
}  # fmt: skip
# What packages wrote before SPDX expressions were asked for.
SPELLINGS = {
    "apache software license": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "bsd": "BSD-3-Clause",
    "bsd license": "BSD-3-Clause",
    "isc license": "ISC",
    "isc license (iscl)": "ISC",
    "mit license": "MIT",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "python software foundation license": "PSF-2.0",
}
# Read by a person, with what was found and why it is right to depend on it. None so far.
REVIEWED: dict[str, str] = {}


def locked(name: str) -> list[Requirement]:
    """Return the requirements of a lock that this system installs, less their hashes."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    lines = re.findall(r"^([A-Za-z0-9].*?)\s*\\$", text, re.MULTILINE)
    found = [Requirement(line) for line in lines]
    return [item for item in found if item.marker is None or item.marker.evaluate()]


def first(found: metadata.PackageMetadata, field: str) -> str:
    """Return a field of a package's metadata, or nothing where it is not said."""
    return next(iter(found.get_all(field) or []), "")


def licences(package: str) -> set[str]:
    """Return every licence a package's own metadata names; a choice counts as all of them."""
    found = metadata.metadata(package)
    if expression := first(found, "License-Expression"):
        return set(re.split(r"\s+(?:AND|OR|WITH)\s+", expression.strip("() ")))
    classifiers = [
        line.rpartition(" :: ")[2]
        for line in found.get_all("Classifier") or []
        if line.startswith("License :: ") and not line.endswith(" :: OSI Approved")
    ]
    named = classifiers or [first(found, "License").strip().partition("\n")[0]]
    return {SPELLINGS.get(name.lower(), name) for name in named}


def is_allowed(names: set[str]) -> bool:
    """Tell whether these licences may come with a package people run."""
    return bool(names) and names <= ALLOWED


@pytest.mark.parametrize("requirement", locked("serve"), ids=lambda requirement: requirement.name)
def test_a_runtime_dependency_has_a_licence_that_binds_only_itself(
    requirement: Requirement,
) -> None:
    """What `make serve` installs may be run, changed and sold with no duty to publish anything."""
    names = licences(requirement.name)

    assert is_allowed(names) or requirement.name in REVIEWED, f"{requirement.name}: {names}"


@pytest.mark.parametrize(
    "names",
    [{"GPL-3.0-only"}, {"LGPL-3.0-or-later"}, {"AGPL-3.0-only", "MIT"}, {"UNKNOWN"}, {""}, set()],
    ids=str,
)
def test_copyleft_and_unknown_licences_are_refused(names: set[str]) -> None:
    """A licence that nobody here decided on stops the build, whatever it turns out to be."""
    assert not is_allowed(names)


def test_greffier_says_its_own_licence() -> None:
    """The installed package carries Apache-2.0, by name and in full."""
    own = metadata.distribution("greffier")

    assert own.metadata["License-Expression"] == "Apache-2.0"
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text
