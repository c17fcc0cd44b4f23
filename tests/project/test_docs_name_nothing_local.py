"""Promise: what we hand on works elsewhere; it names no folder or registry of one machine."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# The folders in which people and machines keep their own things; those of ada, who is in all our
# examples, and of somebody are nobody's.
LOCAL_PATH = re.compile(
    r"""(?<![\w.~$}-])            # an absolute path, not the tail of a longer one or of an address
    /(?:work|tmp|root|opt/(?:wheels|pypi)|(?:home|Users)/(?!ada/|somebody/)\w+)/[\w.]""",
    re.VERBOSE,
)
OUTSIDE = re.compile(r"\.\./\.library|\bfarm-\w")
# A package index by its form: .../simple, npm's "resolved" addresses, an option that names one.
# What RFC 2606 keeps for examples is nobody's.
REGISTRY = re.compile(
    r"https?://(?!127\.0\.0\.1|[\w.-]*\bexample\b)[^\s\"'<>]+/simple\b"
    r"|\"resolved\":\s*\"https?:"
    r"|^\s*(?:--(?:extra-)?index-url|--find-links|-i)[ =]\S"
    r"|https?://[\w.-]*(?:artifactory|nexus|devpi|mirror|registry)[\w.-]*",
    re.MULTILINE,
)
# pip's own default is the same everywhere; bootstrap needs it while there is no pip to ask.
PUBLIC = {"https://" + "pypi.org/simple"}


def tracked() -> list[Path]:
    """Return the text files that git keeps, this one aside: it must name what it forbids."""
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    paths = [ROOT / name for name in names.split("\0") if name]
    return [path for path in paths if path.is_file() and path != Path(__file__).resolve()]


def text_of(path: Path) -> str:
    """Return a file's text, or nothing for a picture or a font."""
    content = path.read_bytes()
    return "" if b"\0" in content[:8192] else content.decode("utf-8", errors="replace")


@pytest.mark.parametrize(
    ("what", "pattern"),
    [
        pytest.param("a folder of one machine", LOCAL_PATH, id="paths"),
        pytest.param("something outside the repository", OUTSIDE, id="outside"),
        pytest.param("a package registry", REGISTRY, id="registries"),
    ],
)
def test_tracked_files_name_nothing_local(what: str, pattern: re.Pattern[str]) -> None:
    """A clone on any other machine finds nothing in it that only ours has."""
    found = [
        f"{path.relative_to(ROOT)}: {match[0].strip()}"
        for path in tracked()
        for match in pattern.finditer(text_of(path))
        if match[0] not in PUBLIC
    ]

    assert found == [], f"this names {what}"


@pytest.mark.parametrize(
    "text",
    ["see /work/main/README.md", "cp x /tmp/y", 'open("/home/lea/x")', "(/root/.cache)"],
)
def test_a_local_path_is_recognised(text: str) -> None:
    """The check above would notice a path of this kind."""
    assert LOCAL_PATH.search(text)


@pytest.mark.parametrize(
    "text",
    ["https://example.org/work/x", "docs/work/x", "${tmp}/work/x", "~/work/x", "/home/ada/x"],
)
def test_an_address_or_a_relative_path_is_not_taken_for_one(text: str) -> None:
    """Nobody has to reword a sentence for a check that cannot read."""
    assert not LOCAL_PATH.search(text)
