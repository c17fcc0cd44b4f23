"""The documentation as tests read it: its pages, their code, and how what they show is run.

A block after ``<!-- tour: shell -->`` is typed into a shell line by line (``$ `` begins a command,
what follows is its output), one after ``<!-- tour: python -->`` is run as a program whose output is
the block after ``<!-- tour: output -->``.  What a block marked ``setup`` sets is there in every
shell.  In an output ``…`` stands for what is another one each time, and alone on a line for any
lines.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).parents[2]
GREFFIER = str(Path(sys.executable).with_name("greffier"))

_BLOCK = re.compile(
    r"^(?:<!-- tour: (?P<tour>\w+) -->\n)?(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^ *```$",
    re.MULTILINE | re.DOTALL,
)
#: Ends the output of a command: a byte that no output of ours has.
_END = "\x1e"


@dataclass(frozen=True)
class Block:
    """A block of code in a page."""

    line: int
    tour: str | None
    language: str
    text: str


@dataclass(frozen=True)
class Step:
    """A command as a page shows it, and what it says comes of it."""

    command: str
    output: str


def pages(language: str) -> list[Path]:
    """Every page in a language, in the order of their names."""
    return sorted((ROOT / "docs" / language).rglob("*.md"))


def blocks(page: Path) -> list[Block]:
    """The blocks of code of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            text.count("\n", 0, found.start()) + 1,
            found["tour"],
            found["language"],
            re.sub(f"^{found['indent']}", "", found["text"], flags=re.MULTILINE),
        )
        for found in _BLOCK.finditer(text)
    ]


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return _BLOCK.sub("", page.read_text(encoding="utf-8"))


def steps(console: str) -> list[Step]:
    """The commands of a block and their outputs; an open quotation goes on over lines."""
    found: list[Step] = []
    for line in console.splitlines():
        last = found[-1] if found else None
        if last is not None and not last.output and _goes_on(last.command):
            found[-1] = Step(f"{last.command}\n{line}", "")
        elif line.startswith("$ "):
            found.append(Step(line[2:], ""))
        else:
            assert last is not None, f"{line!r} is the output of nothing"
            found[-1] = Step(last.command, f"{last.output}{line}\n")
    return found


def _goes_on(command: str) -> bool:
    """Whether a command ends within a quotation, or before the end of what it is given to read."""
    if given := re.search(r"<< '(\w+)'\n?(.*)", command, re.DOTALL):
        return given[1] not in given[2].splitlines()
    try:
        shlex.split(command)
    except ValueError:
        return True
    return False


def shows(expected: str, got: str) -> bool:
    """Whether an output is the one that a page shows."""
    lines = expected.strip("\n").split("\n")
    pattern = "\n".join(
        "(?s:.*)" if line == "…" else re.escape(line).replace("…", "[^\n]*") for line in lines
    )
    return re.fullmatch(pattern, got.strip("\n")) is not None


@dataclass(frozen=True)
class Served:
    """A ``greffier serve`` that runs, and the environment it was started in."""

    address: str
    environment: dict[str, str]
    folder: Path
    #: Typed before what a page shows.
    setup: str = ""

    def after(self, commands: list[str]) -> Served:
        """The same, with what these commands set in every shell."""
        # Made once: to sign a token takes half a second each time.
        *_, made = self.types([*commands, "declare -p TOKEN; declare -f"])
        return replace(self, setup=made)

    def types(self, commands: list[str]) -> list[str]:
        """Type commands into one shell, as a page shows them; gives what each of them prints."""
        script = "".join(f"{self._here(one)}\nprintf '{_END}'\n" for one in commands)
        done = subprocess.run(
            ["bash", "-s"],
            input=f"{self.setup}\n{script}",
            env=self.environment,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return done.stdout.split(_END)[:-1]

    def runs(self, program: str, *, check: bool = False) -> str:
        """Run a Python program of a page; gives what it prints."""
        done = subprocess.run(
            [sys.executable, "-c", self._here(program)],
            env=self.environment,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0 or not check, done.stdout
        return done.stdout

    def tour(self, page: Path) -> list[str]:
        """Do all that a page shows; gives what comes out otherwise than it says."""
        found = [block for block in blocks(page) if block.tour]
        typed = [
            (block, step) for block in found if block.tour == "shell" for step in steps(block.text)
        ]
        printed = self.types([step.command for _, step in typed]) if typed else []
        told = [
            (block.line, step.command, step.output, got)
            for (block, step), got in zip(typed, printed, strict=True)
        ]
        for block, output in itertools.pairwise(found):
            if block.tour == "python":
                assert output.tour == "output", f"{page.name}:{block.line} shows no output"
                told.append((block.line, "(the program)", output.text, self.runs(block.text)))
        return [
            f"{page.name}:{line}: {command}\nshown: {shown}\ncame:  {got}"
            for line, command, shown, got in told
            if not shows(shown, got)
        ]

    def _here(self, text: str) -> str:
        return text.replace("127.0.0.1:8080", self.address).replace(".venv/bin/greffier", GREFFIER)


@contextlib.contextmanager
def served(folder: Path, **settings: str) -> Iterator[Served]:
    """Run ``greffier serve`` on a free port, its data in a folder, until the end of the block."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("GREFFIER_")
    }
    # The folder of whoever follows the page is their own, by default: so it is for all of it here.
    environment |= {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "NO_COLOR": "1"}
    environment |= {"LC_ALL": "C.UTF-8", "COLUMNS": "100"}
    process = subprocess.Popen(
        [GREFFIER, "serve", "--port", "0", "--log-level", "error"],
        env=environment | settings,
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        said = []
        for line in process.stderr:
            said.append(line)
            if match := re.search(r"listens on http://(\S+)", line):
                break
        else:
            raise AssertionError("it ended first:\n" + "".join(said))
        yield Served(match[1], environment, folder)
    finally:
        process.terminate()
        process.communicate()
