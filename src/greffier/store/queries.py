"""The named reads of ``sql/queries`` and the text of the schema, loaded from the package."""

from __future__ import annotations

import functools
import re
from importlib.resources import files
from typing import LiteralString, cast

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


def folder(name: str) -> dict[str, str]:
    """Read every SQL file of a folder of ``greffier/sql``: file name → text, in order."""
    root = files("greffier") / "sql" / name
    found = {item.name: item for item in root.iterdir() if item.name.endswith(".sql")}
    return {key: found[key].read_text(encoding="utf-8") for key in sorted(found)}


@functools.cache
def queries() -> dict[str, LiteralString]:
    """Every named query: name → one statement without its semicolon.

    A name is a line ``-- name: page``; the comment under it says what the query answers.
    """
    found: dict[str, LiteralString] = {}
    for file, text in folder("queries").items():
        pieces = _NAME.split(text)
        for name, body in zip(pieces[1::2], pieces[2::2], strict=True):
            if name in found:
                msg = f"two queries are called {name} (the second in {file})"
                raise ValueError(msg)
            found[name] = cast("LiteralString", body.strip().rstrip(";"))
    return found
