"""Keep the first migration in step with the schema until the first release.

    python scripts/migration.py freeze

Until then nobody has a database that must come along, so ``0001_record.sql`` is simply everything
in ``sql/schema``.  After it a released migration is never edited: see src/greffier/sql/README.md.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SQL = ROOT / "src" / "greffier" / "sql"
FIRST = SQL / "migrations" / "0001_record.sql"


def freeze() -> str:
    """Write ``0001_record.sql`` anew from ``sql/schema``.

    Returns:
        What was done, for a person.
    """
    released = git("tag", "--list", "v*")
    if released:
        return sys.exit(f"There are releases ({' '.join(released)}): add a migration instead.")
    if any(path != FIRST for path in FIRST.parent.glob("*.sql")):
        return sys.exit("There are migrations after 0001_record: change or add one of those.")
    before = FIRST.read_text(encoding="utf-8") if FIRST.exists() else None
    parts = [path.read_text(encoding="utf-8") for path in sorted((SQL / "schema").glob("*.sql"))]
    after = "\n".join(parts)
    if after == before:
        return f"{FIRST.name} is what sql/schema says."
    FIRST.write_text(after, encoding="utf-8")
    return f"{FIRST.name} was written anew; databases made before it are no longer ours."


def git(*arguments: str) -> list[str]:
    """Give the words a git command prints in this repository."""
    command = ["git", "-c", "safe.directory=*", "-C", str(ROOT), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("command", choices=["freeze"], help="write 0001_record.sql from sql/schema")
    parser.parse_args()
    print(freeze())


if __name__ == "__main__":
    main()
