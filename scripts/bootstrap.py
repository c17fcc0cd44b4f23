"""Make ``.venv`` and keep it as the lock says; `make serve` and `make test` run this first.

A fresh Debian with Python 3.11, git and make is enough. Its python3 comes without ensurepip and
often without pip, so pip arrives by the first of three ways that works: ensurepip, the system's own
pip, or one wheel fetched from the package index that pip is configured for, its sha256 known here.

What is there is judged by content, never by file times: a fresh clone, another branch or a moved
folder is noticed, and an environment that is as it should be costs one short Python start.

There is no ``from __future__ import annotations`` and no type that an old Python cannot read: this
file must parse under 3.6, so that who has only that hears what to do instead of a SyntaxError.
"""

import argparse
import base64
import configparser
import contextlib
import hashlib
import html
import importlib.util
import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

OLDEST = (3, 11)
# What to look for when `python3` is older: first the versions the classifiers of pyproject name.
NEWER = ("python3.13", "python3.12", "python3.11", "python3.14")

# The pip for machines without one. A newer one: change both lines together.
PIP_WHEEL = "pip-26.3-py3-none-any.whl"
PIP_SHA256 = "f3b60b20ffaadd4415ed7957212a38ac63fa4c5fa375bd0f4a797777940fad13"
# pip's own default, needed only while there is no pip to ask.
PUBLIC_INDEX = "https://pypi.org/simple"

# Each lock and those it contains; tests/project holds that dev.txt repeats every line of serve.txt.
LOCKS = {"serve": ("serve",), "dev": ("dev", "serve")}


class Refused(Exception):
    """Something a person has to settle first; the message says what."""


def main() -> int:
    """Bring the environment to what the chosen lock says.

    Returns:
        The exit code: 0 when it is as it should be, 1 with the reason on stderr.
    """
    parser = argparse.ArgumentParser(description="Make .venv and install a lock and Greffier in it")
    parser.add_argument("lock", choices=sorted(LOCKS), help="serve: to run it; dev: to work on it")
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="another folder")
    parser.add_argument("--bare", action="store_true", help="what the lock names, not Greffier")
    arguments = parser.parse_args()
    try:
        if sys.version_info < OLDEST:
            newer = newer_python()
            os.execv(newer, [newer, os.path.abspath(__file__), *sys.argv[1:]])  # noqa: PTH100
        folder = arguments.venv.parent.resolve() / arguments.venv.name
        ensure(folder, arguments.lock, bare=arguments.bare)
    except Refused as refusal:
        print(f"bootstrap: {refusal}", file=sys.stderr)
        return 1
    return 0


def newer_python() -> str:
    """Find a Python that is new enough on the PATH.

    A name alone proves nothing: a version manager's shim is there and answers with an error.

    Raises:
        Refused: There is none.
    """
    for name in NEWER:
        path = shutil.which(name)
        if path and runs(path, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"):
            return path
    raise Refused(
        f"Greffier needs Python 3.11 or newer. {sys.executable} is {sys.version.split()[0]}, and "
        f"none of {', '.join(NEWER)} is on the PATH. Install one; if it has another name, say it: "
        "make serve PYTHON=its-name"
    )


def ensure(venv: Path, lock: str, *, bare: bool) -> None:
    """Leave ``venv`` holding what ``lock`` names; do nothing when it already does.

    Safe to run twice at once, and after a run that was killed at any moment.
    """
    wanted = {name: fingerprint(venv, name, bare=bare) for name in LOCKS[lock]}
    if is_current(venv, lock, wanted[lock]):
        return
    venv.mkdir(parents=True, exist_ok=True)
    with alone(venv):
        if is_current(venv, lock, wanted[lock]):
            return  # the other one did it while we waited
        # The mark stands from before the first change until after the last: whoever finds it, alone
        # here, finds what a killed run left. pip takes a half-unpacked package for an installed
        # one, so nothing of it is worth keeping. A folder made by hand has no mark and stays.
        unfinished = venv / ".unfinished"
        if unfinished.exists() or was_moved(venv) or not is_usable(venv):
            empty(venv)
        unfinished.touch()
        if not is_usable(venv):
            create(venv)
        bring_pip(venv)
        install(venv, lock, bare=bare)
        for name, facts in wanted.items():
            stamp(venv, name).write_text(facts, encoding="utf-8")
        unfinished.unlink()


# What should be there, and what is


def fingerprint(venv: Path, lock: str, *, bare: bool) -> str:
    """Return everything that decides what gets installed, as one comparable text.

    Of pyproject.toml only what the installation reads: a change to a linter's rules reinstalls
    nothing. The folders belong to it, since scripts and editable installs carry their full path.
    """
    import tomllib  # noqa: PLC0415 - not in a Python that only has to hear that it is too old

    project = None
    if not bare:
        text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        tables = tomllib.loads(text)
        hatch = tables.get("tool", {}).get("hatch", {})
        version = hatch.get("version", {}).get("path")
        project = [
            str(ROOT),
            digest(json.dumps([tables["project"], tables["build-system"], hatch]).encode()),
            digest((ROOT / version).read_bytes()) if version else None,
        ]
    locked = digest(lock_file(lock).read_bytes())
    return json.dumps({"venv": str(venv), "lock": locked, "project": project})


def is_current(venv: Path, lock: str, wanted: str) -> bool:
    """Tell whether a finished run left exactly ``wanted`` here and its Python still works."""
    try:
        found = stamp(venv, lock).read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
    return found == wanted and not (venv / ".unfinished").exists() and is_usable(venv)


def was_moved(venv: Path) -> bool:
    """Tell whether this environment was made under another path, which its scripts still name."""
    made = [stamp(venv, lock) for lock in LOCKS if stamp(venv, lock).exists()]
    return any(json.loads(path.read_text(encoding="utf-8"))["venv"] != str(venv) for path in made)


def is_usable(venv: Path) -> bool:
    """Tell whether the Python in ``venv`` runs, is new enough, and is the one it was made with.

    The last by its folder: after the system's 3.11 became 3.12 the link runs, but finds nothing.
    """
    return runs(
        str(python_of(venv)),
        "-ISc",
        "import os, sys; version = sys.version_info[:2];"
        "place = os.path.join(sys.argv[1], 'lib', 'python%d.%d' % version, 'site-packages');"
        "sys.exit(version < (3, 11) or not os.path.isdir(place))",
        str(venv),  # without site, which costs half the time, sys.prefix is not the environment's
    )


def lock_file(lock: str) -> Path:
    """Return where the lock of this name is kept."""
    return ROOT / "requirements" / (lock + ".txt")


def stamp(venv: Path, lock: str) -> Path:
    """Return the file that says what a finished run installed."""
    return venv / ("installed-" + lock + ".json")


def python_of(venv: Path) -> Path:
    """Return the environment's Python."""
    return venv / "bin" / "python"


def digest(content: bytes) -> str:
    """Return a short name for some content."""
    return hashlib.sha256(content).hexdigest()


# Changing it


@contextlib.contextmanager
def alone(venv: Path) -> "Iterator[None]":
    """Let one process at a time change this environment; the others wait.

    The system gives the lock back when its holder dies, however it dies.
    """
    import fcntl  # noqa: PLC0415 - absent on Windows, where `--help` should still answer

    with (venv / ".lock").open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"Waiting for another make that is preparing {venv.name}")
            fcntl.flock(held, fcntl.LOCK_EX)
        yield


def empty(venv: Path) -> None:
    """Remove everything but the lock that we hold."""
    for child in venv.iterdir():
        if child.name == ".lock":
            continue
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child)
        else:
            child.unlink()


def create(venv: Path) -> None:
    """Make an environment with nothing in it."""
    import venv as builder  # noqa: PLC0415 - Debian may split it off too: say so in words

    say(f"Making {venv.name} with Python {sys.version.split()[0]}")
    builder.EnvBuilder(symlinks=True, with_pip=False).create(str(venv))


def bring_pip(venv: Path) -> None:
    """Put a pip into the environment; one made by hand, or by uv, may have its own or none."""
    if runs(str(python_of(venv)), "-I", "-m", "pip", "--version"):
        return
    # The order is that of what can go wrong: nothing is fetched by the first, and the second knows
    # every setting of pip's, the third only the common ones.
    for way in (pip_by_ensurepip, pip_by_system_pip, pip_by_download):
        if way(venv):
            return


def install(venv: Path, lock: str, *, bare: bool) -> None:
    """Install what the lock names, hash by hash, then Greffier itself in place.

    Wheels only: building from source would fetch build tools that no hash of ours covers, and a
    fresh Debian has no compiler.
    """
    pip = [str(python_of(venv)), "-I", "-m", "pip", "install"]
    if not sys.stderr.isatty():
        pip += ["--quiet", "--quiet"]
    say(f"Installing what requirements/{lock}.txt names")
    locked = ["--require-hashes", "--only-binary=:all:", "--requirement", str(lock_file(lock))]
    if not call([*pip, *locked]):
        raise Refused(
            f"pip could not install requirements/{lock}.txt; its reason is above. Once that is "
            "settled run the same command again."
        )
    if not bare and not call([*pip, "--no-deps", "--no-build-isolation", "--editable", str(ROOT)]):
        raise Refused("pip could not install Greffier itself; its reason is above.")


# Three ways to a pip


def pip_by_ensurepip(venv: Path) -> bool:
    """Unpack the pip that Python brings along; Debian keeps it back for python3-venv."""
    if importlib.util.find_spec("ensurepip") is None:
        return False
    return call([str(python_of(venv)), "-I", "-m", "ensurepip", "--default-pip"], quiet=True)


def pip_by_system_pip(venv: Path) -> bool:
    """Have the pip beside the Python that runs this install the one we know by its hash."""
    base = getattr(sys, "_base_executable", sys.executable)
    if not runs(base, "-m", "pip", "--version"):
        return False
    name, version = PIP_WHEEL.split("-")[:2]
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder) / "pip.txt"
        wanted.write_text(f"{name}=={version} --hash=sha256:{PIP_SHA256}\n")
        options = ["--quiet", "--require-hashes", "--no-deps", "--requirement", str(wanted)]
        return call([base, "-m", "pip", "--python", str(python_of(venv)), "install", *options])


def pip_by_download(venv: Path) -> bool:
    """Fetch the wheel of pip from the configured index and let it install itself.

    Raises:
        Refused: It cannot be had, or is not the one we know.
    """
    with tempfile.TemporaryDirectory() as folder:
        wheel = Path(folder) / PIP_WHEEL
        wheel.write_bytes(fetch_pip())
        # A wheel is a zip that Python can run from.
        itself = [str(python_of(venv)), "-I", str(wheel / "pip"), "install", "--quiet"]
        if not call([*itself, "--no-index", "--no-deps", str(wheel)]):
            raise Refused("pip could not install itself; its reason is above.")
    return True


def fetch_pip() -> bytes:
    """Return the wheel of pip, from the first index that has it.

    Raises:
        Refused: No index has it, or one has another file under its name.
    """
    faults = []
    for index in indexes():
        try:
            page, address = fetch(index.rstrip("/") + "/pip/")
            link = re.search('href="([^"]*/)?' + re.escape(PIP_WHEEL) + '[^"]*"', page.decode())
            if link is None:
                faults.append(f"{bare_url(index)} does not list {PIP_WHEEL}")
                continue
            target = html.unescape(link.group(0)[len('href="') : -1])
            wheel, address = fetch(urllib.parse.urljoin(address, target))
        except (OSError, ValueError) as fault:
            faults.append(f"{bare_url(index)}: {fault}")
            continue
        if digest(wheel) != PIP_SHA256:
            raise Refused(
                f"What {bare_url(address)} gives as {PIP_WHEEL} is not the file we know: its "
                f"sha256 is {digest(wheel)}. Nothing of it was run."
            )
        return wheel
    raise Refused(
        f"This Python has no pip, and none could be fetched ({'; '.join(faults)}). Debian and "
        "Ubuntu: apt install python3-venv. Elsewhere: set PIP_INDEX_URL, or install pip."
    )


def indexes() -> "list[str]":
    """Return the package indexes pip would ask, in its order."""
    return [setting("index-url") or PUBLIC_INDEX, *(setting("extra-index-url") or "").split()]


def setting(name: str) -> "str | None":
    """Return a setting of pip's as pip would find it: its environment, then its files.

    Only while there is no pip to ask: `pip config` reads more (its [install] section, say).
    """
    value = os.environ.get("PIP_" + name.upper().replace("-", "_"))
    if value:
        return value
    files = configparser.RawConfigParser()
    # In pip's order, the later the stronger.
    files.read(
        [
            *(
                os.path.join(folder, "pip", "pip.conf")  # noqa: PTH118 - may be empty
                for folder in os.environ.get("XDG_CONFIG_DIRS", "/etc/xdg").split(":")
            ),
            "/etc/pip.conf",
            os.path.expanduser("~/.pip/pip.conf"),  # noqa: PTH111 - keeps quiet without a home
            os.path.join(  # noqa: PTH118
                os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config"),  # noqa: PTH111
                "pip",
                "pip.conf",
            ),
            os.environ.get("PIP_CONFIG_FILE", os.devnull),
        ],
        encoding="utf-8",
    )
    return files.get("global", name, fallback=None)


def fetch(url: str) -> "tuple[bytes, str]":
    """Return what is at ``url``, and where it was at last found.

    Raises:
        OSError: It cannot be had.
    """
    parts = urllib.parse.urlsplit(url)
    # JSON is the other form an index speaks; the HTML one is spoken by all.
    request = urllib.request.Request(bare_url(url), headers={"Accept": "text/html, */*"})
    if parts.username is not None:
        login = "{}:{}".format(parts.username, parts.password or "")
        secret = base64.b64encode(urllib.parse.unquote(login).encode()).decode()
        request.add_header("Authorization", "Basic " + secret)
    handlers: list[Any] = [
        urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=setting("cert")))
    ]
    proxy = setting("proxy")
    if proxy:
        handlers.append(urllib.request.ProxyHandler({"http": proxy, "https": proxy}))
    with urllib.request.build_opener(*handlers).open(request, timeout=60) as answer:
        return answer.read(), answer.geturl()


def bare_url(url: str) -> str:
    """Return ``url`` without a name and password, fit to be shown."""
    parts = urllib.parse.urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


# Other programs


def environment() -> "dict[str, str]":
    """Return our environment less what would send an installation elsewhere."""
    elsewhere = {"PYTHONHOME", "PYTHONPATH", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_PYTHON"}
    kept = {name: value for name, value in os.environ.items() if name not in elsewhere}
    # As root in a container there is nobody to warn; --user and a general --require-hashes (which
    # no editable install can meet) are undone here, since they may also stand in a file.
    return {
        **kept,
        "PIP_USER": "0",
        "PIP_REQUIRE_HASHES": "0",
        "PIP_NO_INPUT": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
    }


def call(command: "list[str]", *, quiet: bool = False) -> bool:
    """Run a program where its words can be read, and tell whether it went well."""
    output = subprocess.DEVNULL if quiet else None
    done = subprocess.run(
        command,
        check=False,
        env=environment(),
        cwd=str(ROOT),
        stdin=subprocess.DEVNULL,
        stdout=output,
    )
    return done.returncode == 0


def runs(*command: str) -> bool:
    """Tell whether a program is there and ends well, without a word of its own."""
    try:
        done = subprocess.run(
            command,
            check=False,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except OSError:
        return False
    return done.returncode == 0


def say(words: str) -> None:
    """Tell the person who waits what is going on."""
    print(words, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
