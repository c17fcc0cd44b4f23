"""The README's tour is true: what it shows is what comes of it."""

from __future__ import annotations

from pathlib import Path

from helpers.documents import ROOT, blocks, served, steps

README = ROOT / "README.md"


def test_the_tour_of_the_readme_prints_what_the_readme_shows(tmp_path: Path) -> None:
    """Each command as printed, in order, in one shell, against a server started as printed."""
    with served(tmp_path) as server:
        assert server.tour(README) == []


def test_the_readme_shows_a_tour_in_the_shell_and_in_python() -> None:
    """So that the test above does not pass over a page whose marks were lost."""
    tour = [block for block in blocks(README) if block.tour]
    assert [block.tour for block in tour] == ["shell", "shell", "shell", "python", "output"]
    assert sum(len(steps(block.text)) for block in tour if block.tour == "shell") >= 10
