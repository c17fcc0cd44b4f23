"""Under which account PostgreSQL runs: it refuses to be root, and refuses a uid without a name."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from greffier.embedded.binaries import Binaries, environment
from greffier.embedded.folder import Folder
from greffier.errors import EmbeddedError


@dataclass(frozen=True, slots=True)
class Account:
    """How to start a program of PostgreSQL so that it accepts who it is."""

    #: Put before the command.
    prefix: tuple[str, ...] = ()
    #: The (uid, gid) to become, None to stay who we are.
    identity: tuple[int, int] | None = None


def check_owner(folder: Folder) -> None:
    """Refuse data that belong to somebody else, before anything stumbles over their modes.

    Raises:
        EmbeddedError: With whose they are.
    """
    uid = os.geteuid()
    owner = folder.pg.stat().st_uid if folder.pg.exists() else uid
    if uid not in {0, owner}:
        raise EmbeddedError(
            f"The data in {folder.pg} belong to {_name(owner)}, and PostgreSQL would refuse them "
            f"to {_name(uid)}. Run Greffier as {_name(owner)}, or use another data folder."
        )


def choose(folder: Folder, binaries: Binaries) -> tuple[Account, Binaries]:
    """Choose the account for a start, and programs that it can run.

    As an ordinary user: ourselves.  As root: whoever owns data that are already there; for root's
    own data a user namespace in which we bear another number, so that no other account is needed
    and all files stay root's; where namespaces are forbidden (Docker's default), an existing
    account without privileges, with a copy of the programs if it cannot reach them.

    Raises:
        EmbeddedError: There is no way here.
    """
    uid = os.geteuid()
    owner = folder.pg.stat().st_uid if folder.pg.exists() else None
    if uid != 0:
        if _known(uid) or owner is not None:
            return Account(), binaries
        # Only initdb asks for the name of its uid (Kubernetes and OpenShift invent uids).
        namespace = _namespace(binaries)
        if namespace is None:
            raise EmbeddedError(
                f"PostgreSQL cannot make its data: user id {uid} has no name on this system, and "
                f"user namespaces are not allowed. Add it to /etc/passwd: "
                f"greffier:x:{uid}:{os.getegid()}::/:/usr/sbin/nologin"
            )
        return namespace, binaries
    if owner in {None, 0}:
        namespace = _namespace(binaries)
        if namespace is not None:
            return namespace, binaries
        entry = _unprivileged()
        if entry is None:
            raise EmbeddedError(
                "PostgreSQL does not run as root, user namespaces are not allowed here, and there "
                "is no other account. Run Greffier as an ordinary user."
            )
        identity = (entry.pw_uid, entry.pw_gid)
    else:
        identity = (folder.pg.stat().st_uid, folder.pg.stat().st_gid)
    account = Account(identity=identity)
    if not _runs(account, binaries):
        binaries = _copy(binaries)
        if not _runs(account, binaries):
            raise EmbeddedError(
                "PostgreSQL does not run as root, user namespaces are not allowed here, and "
                f"{_name(identity[0])} cannot run the programs in {binaries.bin_dir}. Put them "
                "where every account can run them, or run Greffier as an ordinary user."
            )
    return account, binaries


@dataclass(frozen=True, slots=True)
class HandedOver:
    """Directories as a program under an account may name them."""

    paths: tuple[str, ...]
    #: What it must inherit for that.
    descriptors: tuple[int, ...] = ()


@contextlib.contextmanager
def handed_over(account: Account, *directories: Path) -> Iterator[HandedOver]:
    """Make directories reachable for a program that is started within the block.

    Another account cannot pass through our private parents, and opening them to everybody is not
    ours to do.  An open directory needs no path: the kernel asks about the parents only while it
    is being opened, which root does here.
    """
    if account.identity is None:
        yield HandedOver(tuple(map(str, directories)))
        return
    opened: list[int] = []
    try:
        opened.extend(os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in directories)
        yield HandedOver(tuple(f"/proc/self/fd/{number}" for number in opened), tuple(opened))
    finally:
        for number in opened:
            os.close(number)


def give(directory: Path, account: Account) -> None:
    """Hand a data directory to the account, when root no longer runs it the way it was made."""
    if account.identity is None or directory.stat().st_uid == account.identity[0]:
        return
    for path, _, files in os.walk(directory, topdown=False):
        for name in files:
            os.chown(Path(path, name), *account.identity, follow_symlinks=False)
        os.chown(path, *account.identity)  # the directory itself last: interrupted, we do it again


def _known(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user id {uid}"


def _unprivileged() -> pwd.struct_passwd | None:
    """Pick an account that has no rights: PostgreSQL's own if the system has one, else nobody."""
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return entry
    return next((entry for entry in pwd.getpwall() if entry.pw_uid != 0), None)


def _namespace(binaries: Binaries) -> Account | None:
    """Find a number to bear in a user namespace, proved by running the server's program there."""
    unshare = shutil.which("unshare")
    entry = _unprivileged()
    if unshare is None or entry is None:
        return None
    # initdb asks for the name of the number it sees, so it must be one of /etc/passwd (1000, the
    # usual choice, is missing in most images).  unshare does not fork: what it becomes by exec
    # keeps its process id, which is then the postmaster's.
    command = ("--user", f"--map-user={entry.pw_uid}", f"--map-group={entry.pw_gid}", "--")
    account = Account(prefix=(unshare, *command))
    return account if _runs(account, binaries) else None


def _runs(account: Account, binaries: Binaries) -> bool:
    uid, gid = account.identity or (None, None)
    try:
        tried = subprocess.run(  # noqa: S603 — programs we found, and no shell
            [*account.prefix, binaries.program("postgres"), "--version"],
            capture_output=True,
            check=False,
            cwd="/",
            env=environment(),
            timeout=30,
            user=uid,
            group=gid,
            extra_groups=None if uid is None else [],
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return tried.returncode == 0


def _copy(binaries: Binaries) -> Binaries:
    """Copy the programs to where every account can run them; measured: 0.15 s for 41 MiB.

    The alternative, opening the directories above them to everybody, would open a home to all.
    """
    if not binaries.trees:
        return binaries
    base = binaries.trees[0].parent
    stamp = binaries.program("postgres").stat()
    key = f"{binaries.bin_dir}:{stamp.st_mtime_ns}:{stamp.st_size}"
    name = f"postgresql-{binaries.version}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    for shelf in _shelves():
        target = shelf / name
        if not target.exists():
            try:
                unfinished = Path(tempfile.mkdtemp(prefix="greffier-", dir=shelf))
            except OSError:
                continue
            try:
                for tree in binaries.trees:
                    shutil.copytree(tree, unfinished / tree.name, symlinks=True)
                _open_to_all(unfinished)
                unfinished.rename(target)
            except OSError:
                shutil.rmtree(unfinished, ignore_errors=True)  # full, or another was faster
        if _trusted(target):
            return replace(
                binaries,
                bin_dir=target / binaries.bin_dir.relative_to(base),
                library_dir=target / binaries.library_dir.relative_to(base),
            )
    return binaries


def _shelves() -> Iterator[Path]:
    """Give root's own cache, then the directory for temporary files."""
    cache = Path("/var/cache/greffier")
    try:
        cache.mkdir(mode=0o755, exist_ok=True)
    except OSError:
        pass
    else:
        if _trusted(cache):
            yield cache
    yield Path(tempfile.gettempdir())


def _trusted(directory: Path) -> bool:
    """Say whether only root can have put there what lies in it: root is about to run it."""
    try:
        found = directory.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == 0 and not found.st_mode & 0o022


def _open_to_all(directory: Path) -> None:
    """Let everybody read and run a copy, also of files installed under a strict umask."""
    for path, _, files in os.walk(directory):
        Path(path).chmod(0o755)
        for name in files:
            file = Path(path, name)
            if not file.is_symlink():
                file.chmod(0o755 if file.stat().st_mode & 0o100 else 0o644)
