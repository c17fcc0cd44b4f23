"""What somebody may count on as root, as nobody in particular, and as a uid without a name."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedded.conftest import Hold
from helpers.holders import alive, gone, words

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else"),
]


@pytest.fixture
def no_unshare(tmp_path: Path) -> dict[str, str]:
    """An environment in which no user namespace can be made, as under Docker's defaults."""
    empty = tmp_path / "no-programs"
    empty.mkdir()
    return {"PATH": str(empty)}


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A directory that others can pass through, which pytest's is not."""
    place = Path(tempfile.mkdtemp(prefix="greffier-test-"))
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)


def owner(pid: int) -> int:
    """Give the uid a process runs as, seen from here."""
    return Path(f"/proc/{pid}").stat().st_uid


async def test_root_needs_no_other_account(data_dir: Path, hold: Hold) -> None:
    """Where user namespaces are allowed, all files stay root's, under directories of 0700."""
    holder = await hold(data_dir)
    said = await holder.heard()
    assert await words(said["dsn"]) == ["ok"]
    owners = {path.stat().st_uid for path in (data_dir / "pg").rglob("*")}
    assert owners == {0}
    await holder.leave()


async def test_root_without_namespaces_lends_the_data_to_an_account(
    data_dir: Path, hold: Hold, no_unshare: dict[str, str]
) -> None:
    """PostgreSQL then runs as an account without rights, inside parents it cannot pass through.

    The data change hands, once, and root goes on using them either way.
    """
    before = [(path, path.stat().st_mode) for path in data_dir.parents]
    lent = await hold(data_dir, environment=no_unshare)
    said = await lent.heard()
    assert await words(said["dsn"]) == ["ok"]
    uid = owner(said["pid"])
    assert uid != 0
    assert {path.stat().st_uid for path in (data_dir / "pg").rglob("*")} == {uid}
    assert [(path, path.stat().st_mode) for path in data_dir.parents] == before
    await lent.leave()
    assert gone(said["pid"])

    again = await hold(data_dir)
    said = await again.heard()
    assert await words(said["dsn"]) == ["ok"]
    assert owner(said["pid"]) == uid
    await again.leave()


async def test_root_without_namespaces_makes_new_data(
    tmp_path: Path, hold: Hold, no_unshare: dict[str, str]
) -> None:
    """The first start works there as well."""
    holder = await hold(tmp_path / "data", environment=no_unshare)
    assert alive((await holder.heard())["pid"])
    await holder.leave()


@pytest.mark.parametrize("uid", [65534, 54321], ids=["nobody", "without a name"])
async def test_an_ordinary_user_runs_it_as_itself(hold: Hold, open_place: Path, uid: int) -> None:
    """Also under a uid that the system has no name for, as Kubernetes and OpenShift make them up.

    And root may use the folder afterwards without spoiling it for its owner.
    """
    home = open_place / "home"
    home.mkdir(mode=0o700)
    os.chown(home, uid, uid)
    data = home / "data"
    environment = {"HOME": str(home)}
    for user in (uid, None, uid):
        holder = await hold(data, user=user, environment=environment)
        said = await holder.heard()
        assert owner(said["pid"]) == uid
        await holder.leave()


async def test_data_of_somebody_else_are_refused_in_clear_words(
    hold: Hold, open_place: Path
) -> None:
    """An ordinary user is told whose the data are, not that a file is missing."""
    data = open_place / "data"
    (data / "pg").mkdir(parents=True, mode=0o700)
    os.chown(data, 65534, 65534)
    holder = await hold(data, user=65534)
    assert "belong to root" in (await holder.heard())["error"]
