"""Far sides, and whom to trust."""

from __future__ import annotations

import pytest

from helpers.authority import Authority


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Issues the certificates of the servers here."""
    return Authority(tmp_path_factory.mktemp("authority"))
