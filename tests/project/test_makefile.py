"""Promise: `make` alone tells what can be done here."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def targets() -> set[str]:
    """Return every target the Makefile has a rule for."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z][\w./-]*):(?!=)", text, re.MULTILINE))


def listed() -> dict[str, str]:
    """Return what `make` prints when it is asked for nothing."""
    command = ["make", "--no-print-directory", "-f", "Makefile"]
    # The make that runs these tests hands its own flags on, -n among them.
    outside = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
    done = subprocess.run(
        command, cwd=ROOT, check=True, capture_output=True, text=True, env=outside
    )
    return dict(re.findall(r"^  (\S+)\s+(\S.*)$", done.stdout, re.MULTILINE))


def test_make_lists_every_target_with_a_sentence() -> None:
    """No target is known only to who wrote it."""
    assert set(listed()) == targets()


def test_every_target_is_declared_phony() -> None:
    """A file that happens to be called `test` or `bench` does not stop the target."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.findall(r"^\.PHONY:(.*)$", text, re.MULTILINE)

    assert set(" ".join(phony).split()) == targets()
