"""Where the real conversations are that some tests read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_DEFAULT = Path(__file__).resolve().parents[3] / "shared" / "data"


def sample_data(folder: str) -> Path:
    """Find a folder of the sample data, or skip the test with a word that says what is missing."""
    root = Path(os.environ.get("GREFFIER_SAMPLE_DATA") or _DEFAULT)
    if not (root / folder).is_dir():
        pytest.skip(f"no sample data {folder!r} in {root.name!r}: set GREFFIER_SAMPLE_DATA")
    return root / folder
