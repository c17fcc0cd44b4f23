"""Promise: python3, git and make are enough, and an interrupted or doubled start does no harm.

What is fetched comes from an index served here, so nothing leaves the machine; the environments are
real ones. The project in them is a small one of the same form that needs only the standard library.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "bootstrap.py"

# A build backend that needs nothing installed: it makes an editable wheel of one .pth file.
BACKEND = """
import zipfile, os

def build_editable(folder, config_settings=None, metadata_directory=None):
    name = "sample-1.0-py3-none-any.whl"
    info = "sample-1.0.dist-info/"
    files = {
        "sample.pth": os.path.abspath("src"),
        info + "METADATA": "Metadata-Version: 2.1\\nName: sample\\nVersion: 1.0\\n",
        info + "WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
    }
    files[info + "RECORD"] = "".join(path + ",,\\n" for path in [*files, info + "RECORD"])
    with zipfile.ZipFile(os.path.join(folder, name), "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)
    return name
"""
PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "sample"
version = "1.0"
"""


@pytest.fixture
def bootstrap() -> ModuleType:
    """Load the script as a module of its own, with constants that a test may change."""
    spec = importlib.util.spec_from_file_location("bootstrap_under_test", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass
class Index:
    """A package index: what it serves, and what it was asked."""

    url: str
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str | None]] = field(default_factory=list)


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    """Serve an index on the loopback, and make it the only one that pip and bootstrap know."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """Answer a project's page, or one of its files."""
            served.asked.append((self.path, self.headers.get("Authorization")))
            name = self.path.rpartition("/")[2]
            if self.path == "/simple/pip/":
                links = [f'<a href="../../files/{file}">{file}</a>\n' for file in served.files]
                self.reply(200, "".join(links).encode(), "text/html")
            elif name in served.files:
                self.reply(200, served.files[name], "application/octet-stream")
            else:
                self.reply(404, b"", "text/plain")

        def reply(self, status: int, body: bytes, kind: str) -> None:
            """Send one whole answer."""
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served = Index(f"http://127.0.0.1:{server.server_port}/simple")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", served.url)
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    yield served
    server.shutdown()
    thread.join()
    server.server_close()


def bundled_pip() -> Path:
    """Return the wheel of pip that this Python was shipped with."""
    base = Path(sys.base_prefix) / "lib" / "python{}.{}".format(*sys.version_info)
    places = [base / "ensurepip" / "_bundled", Path("/usr/share/python-wheels")]
    found = [wheel for place in places for wheel in place.glob("pip-*.whl")]
    if not found:
        pytest.skip("this Python was shipped without a pip to serve")
    return found[0]


def know(bootstrap: Any, name: str, content: bytes) -> None:
    """Make this file the pip that the script knows by its hash."""
    bootstrap.PIP_WHEEL = name
    bootstrap.PIP_SHA256 = hashlib.sha256(content).hexdigest()


def test_an_old_python_can_read_the_script() -> None:
    """Who has only Python 3.6 hears what to do, not a SyntaxError."""
    ast.parse(SCRIPT.read_text(encoding="utf-8"), feature_version=(3, 6))


def test_a_python_that_is_too_old_is_told_so_in_words(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The message says what is needed, what is there, and where it was looked for."""
    shim = tmp_path / "python3.12"
    shim.write_text("#!/bin/sh\necho not installed >&2\nexit 127\n")
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(bootstrap.Refused, match=r"needs Python 3\.11 or newer") as refusal:
        bootstrap.newer_python()

    assert sys.executable in str(refusal.value)


def test_a_newer_python_on_the_path_is_found(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A system whose python3 is old, with a newer one beside it, needs no setting."""
    (tmp_path / "python3.11").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert bootstrap.newer_python() == str(tmp_path / "python3.11")


def test_the_index_is_the_one_pip_is_set_to(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A machine that reaches only its own index needs no second setting for us."""
    settings = tmp_path / "pip.conf"
    settings.write_text("[global]\nindex-url = https://a.example/simple\nextra-index-url = b\n c\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(settings))
    monkeypatch.delenv("PIP_INDEX_URL", raising=False)
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)

    assert bootstrap.indexes() == ["https://a.example/simple", "b", "c"]

    monkeypatch.setenv("PIP_INDEX_URL", "https://other.example/simple")

    assert bootstrap.indexes() == ["https://other.example/simple", "b", "c"]


def test_pip_is_fetched_with_the_name_and_password_of_the_index(
    bootstrap: ModuleType, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A private index in pip's settings works, its password in them included."""
    index.files[bootstrap.PIP_WHEEL] = b"a wheel"
    know(bootstrap, bootstrap.PIP_WHEEL, b"a wheel")
    monkeypatch.setenv("PIP_INDEX_URL", index.url.replace("//", "//ada:s%40cret@"))

    assert bootstrap.fetch_pip() == b"a wheel"
    assert index.asked[0] == (
        "/simple/pip/",
        "Basic " + base64.b64encode(b"ada:s@cret").decode(),
    )


def test_another_file_under_the_same_name_is_refused(bootstrap: ModuleType, index: Index) -> None:
    """What an index hands out is run only when it is byte for byte what we know."""
    index.files[bootstrap.PIP_WHEEL] = b"something else"

    with pytest.raises(bootstrap.Refused, match="is not the file we know"):
        bootstrap.fetch_pip()


def test_without_any_pip_a_person_is_told_what_to_install(
    bootstrap: ModuleType, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names the index that was asked and the package that helps, never a password."""
    monkeypatch.setenv("PIP_INDEX_URL", index.url.replace("//", "//ada:secret@"))

    with pytest.raises(bootstrap.Refused, match="apt install python3-venv") as refusal:
        bootstrap.fetch_pip()

    assert index.url in str(refusal.value)
    assert "secret" not in str(refusal.value)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["pip_by_ensurepip", "pip_by_system_pip", "pip_by_download"])
def test_each_way_brings_a_pip_that_works(
    bootstrap: ModuleType, index: Index, tmp_path: Path, way: str
) -> None:
    """Debian's bare python3, one with pip, and a complete one all end with the same thing."""
    wheel = bundled_pip()
    index.files[wheel.name] = wheel.read_bytes()
    know(bootstrap, wheel.name, index.files[wheel.name])
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True, timeout=60
    )

    if not getattr(bootstrap, way)(tmp_path / "venv"):
        pytest.skip("this Python has no pip beside it to do it with")

    version = wheel.name.split("-")[1]
    told = subprocess.check_output(
        [tmp_path / "venv" / "bin" / "python", "-m", "pip", "--version"], text=True
    )
    assert told.startswith(f"pip {version} from {tmp_path}")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Make a small project of the same form as ours."""
    folder = tmp_path / "project"
    for name in ("scripts", "requirements", "src"):
        (folder / name).mkdir(parents=True)
    shutil.copy(SCRIPT, folder / "scripts")
    for lock in ("serve", "dev"):
        (folder / "requirements" / f"{lock}.txt").write_text("# nothing is needed\n")
    (folder / "src" / "sample.py").write_text("WORDS = 'it is there'\n")
    (folder / "pyproject.toml").write_text(PYPROJECT)
    (folder / "backend.py").write_text(BACKEND)
    return folder


def start(project: Path, lock: str) -> subprocess.Popen[str]:
    """Start the project's bootstrap."""
    return subprocess.Popen(
        [sys.executable, project / "scripts" / "bootstrap.py", lock],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def prepare(project: Path, lock: str = "serve") -> str:
    """Run the project's bootstrap to its end, and return what it said on the way."""
    running = start(project, lock)
    said = running.communicate(timeout=60)[1]

    assert running.returncode == 0, said
    return said


def works(project: Path) -> bool:
    """Tell whether the environment holds the project, from this folder."""
    python = project / ".venv" / "bin" / "python"
    code = "import sample; print(sample.__file__, sample.WORDS)"
    told = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout
    return told == f"{project / 'src' / 'sample.py'} it is there\n"


@pytest.mark.slow
def test_a_second_start_does_nothing_and_a_changed_lock_is_followed(project: Path) -> None:
    """Who ran `make test` waits for nothing at `make serve`; after a pull all follows by itself."""
    prepare(project, "dev")
    assert works(project)

    assert prepare(project) == ""
    assert prepare(project, "dev") == ""

    with (project / "pyproject.toml").open("a") as file:
        file.write("[tool.ruff]\nline-length = 100\n")
    assert prepare(project) == ""

    (project / "requirements" / "serve.txt").write_text("# something else\n")
    assert "Installing" in prepare(project)


@pytest.mark.slow
def test_two_starts_at_once_make_one_environment(project: Path) -> None:
    """`make serve` in one window and `make test` in another do not spoil each other's work."""
    both = [start(project, "dev"), start(project, "serve")]
    said = [running.communicate(timeout=60)[1] for running in both]

    assert [running.returncode for running in both] == [0, 0], said
    assert "".join(said).count("Making .venv") == 1
    assert works(project)


@pytest.mark.slow
def test_what_a_killed_start_left_is_made_anew(project: Path) -> None:
    """Pulling the plug in the middle of an installation needs no clean-up by hand."""
    running = start(project, "serve")
    assert running.stderr is not None
    assert running.stderr.readline().startswith("Making .venv")
    os.killpg(running.pid, signal.SIGKILL)
    running.communicate(timeout=60)
    assert (project / ".venv" / ".unfinished").exists()
    (project / ".venv" / "left-over").touch()

    prepare(project)

    assert works(project)
    assert not (project / ".venv" / "left-over").exists()


@pytest.mark.slow
def test_a_moved_folder_gets_an_environment_of_its_own(project: Path) -> None:
    """Scripts that would still run the old folder's Python are not kept."""
    prepare(project)
    moved = project.rename(project.with_name("elsewhere"))

    assert "Making .venv" in prepare(moved)
    assert works(moved)


@pytest.mark.slow
def test_an_environment_made_by_hand_is_completed_and_kept(project: Path) -> None:
    """Nobody's own .venv is thrown away for lacking our mark, nor for lacking pip, as uv's do."""
    command = [sys.executable, "-m", "venv", "--without-pip", str(project / ".venv")]
    subprocess.run(command, check=True, timeout=60)
    (project / ".venv" / "mine").touch()

    said = prepare(project)

    assert "Making" not in said
    assert works(project)
    assert (project / ".venv" / "mine").exists()
    stamp = json.loads((project / ".venv" / "installed-serve.json").read_text())
    assert stamp["venv"] == str(project / ".venv")
