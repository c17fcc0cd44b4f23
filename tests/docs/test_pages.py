"""The documentation is true: it names what there is, shows what comes of it, in both languages."""

from __future__ import annotations

import importlib
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from greffier import errors
from greffier.cli.app import app
from greffier.server.routes import ROUTES
from greffier.server.routes.web import SIGN_IN
from greffier.settings import PREFIX, ProviderSettings, Settings, is_secret
from helpers.documents import ROOT, Served, blocks, pages, prose, served, steps

ENGLISH, FRENCH = pages("en"), pages("fr")
PAGES = [*ENGLISH, *FRENCH, ROOT / "README.md"]
#: Pages whose French name is another one.
TWINS = {
    "howto/direct-database-access.md": "howto/acces-direct-base.md",
    "howto/follow-live.md": "howto/suivre-en-direct.md",
}
#: Variables that are no settings: the file of settings, a traceback, the programs of PostgreSQL.
VARIABLES = {"GREFFIER_CONFIG", "GREFFIER_DEBUG", "GREFFIER_PG_BIN"} | {
    # of the examples of following live
    "GREFFIER_TOKEN",
    "GREFFIER_URL",
}

#: Words with a hyphen that others gave their things.
FOREIGN = {"ratelimit-headers"}

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_INLINE = re.compile(r"`([^`\n]+)`")
_COMMAND = re.compile(r"(?<![\w.-])greffier((?: +[^\s|;&>)`]+)+)")
_ROUTE = re.compile(r"\b(GET|POST|PUT|PATCH|DELETE) (…?/[^\s`?'\"]*)")


def name_of(page: Path) -> str:
    """What a page is called in the output of a test."""
    return str(page.relative_to(ROOT))


def code_of(page: Path) -> str:
    """All that a page sets as code."""
    return "\n".join(
        [block.text for block in blocks(page)] + _INLINE.findall(prose(page).replace("\\|", "|"))
    )


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as they are made where the pages are shown."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE):
        plain = re.sub(r"[`*]", "", _LINK.sub("", heading)).strip().lower()
        found.add(re.sub(r"[^\w\- ]", "", plain).replace(" ", "-"))
    found.update(re.findall(r'<a id="([^"]+)">', page.read_text(encoding="utf-8")))
    return found


# -- two languages ---------------------------------------------------------------------------------


def test_every_page_is_there_in_english_and_in_french() -> None:
    """Who reads French finds what there is in English, at the same place."""
    english = {str(page.relative_to(ROOT / "docs/en")) for page in ENGLISH}
    french = {str(page.relative_to(ROOT / "docs/fr")) for page in FRENCH}

    assert {TWINS.get(name, name) for name in english} == french


@pytest.mark.parametrize("page", ENGLISH, ids=name_of)
def test_both_languages_show_the_same_code(page: Path) -> None:
    """So that what was run for one is true of the other; what is not run may be translated."""
    name = str(page.relative_to(ROOT / "docs/en"))
    here = blocks(page)
    there = blocks(ROOT / "docs/fr" / TWINS.get(name, name))

    assert [(one.tour, one.language) for one in there] == [(one.tour, one.language) for one in here]
    for one, other in zip(here, there, strict=True):
        if one.tour or one.text.startswith("# runs"):
            assert other.text == one.text


# -- links -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_within_the_project_leads_somewhere(page: Path) -> None:
    """To a file that is there, and to a heading that it has."""
    for target in _LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        goal = (page.parent / file).resolve() if file else page
        assert goal.exists(), target
        if anchor:
            assert anchor in anchors(goal), target


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_that_are_named_exist(page: Path) -> None:
    """Tests, examples and programs of the project."""
    for path in _INLINE.findall(prose(page)):
        if re.fullmatch(r"(?:tests|examples|scripts|bench|docs|src)/[\w./-]+", path):
            assert (ROOT / path).exists(), path


def test_every_page_is_reached_from_the_first_one() -> None:
    """No page that only its author knows."""
    for language, first in (("en", ENGLISH), ("fr", FRENCH)):
        found = {ROOT / "docs" / language / "index.md"}
        todo = list(found)
        while todo:
            page = todo.pop()
            for target in _LINK.findall(prose(page)):
                goal = (page.parent / target.partition("#")[0]).resolve()
                if goal.suffix == ".md" and goal in first and goal not in found:
                    found.add(goal)
                    todo.append(goal)
        assert set(first) <= found


# -- what is named exists --------------------------------------------------------------------------


def commands() -> dict[str, set[str]]:
    """Every command by its path, with its options."""
    found: dict[str, set[str]] = {}

    def walk(command: Any, path: str) -> None:
        found[path] = {
            option for one in command.params for option in (*one.opts, *one.secondary_opts)
        } | {"--help"}
        for name, inner in getattr(command, "commands", {}).items():
            walk(inner, f"{path} {name}".strip())

    walk(typer.main.get_command(app), "")
    bench = typer.main.get_command(importlib.import_module("greffier.cli.bench").app)
    found["bench"] |= {option for one in bench.params for option in one.opts}
    return found


def mentioned_commands(text: str) -> Iterator[tuple[str, set[str]]]:
    """The commands a text names, each with the options it is given."""
    known = commands()
    for found in _COMMAND.finditer(text):
        words = found[1].split()
        path = ""
        while words and f"{path} {words[0]}".strip() in known:
            path = f"{path} {words.pop(0)}".strip()
        if not path and words and not re.fullmatch(r"-?-?[a-z-]+", words[0]):
            continue
        options = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        yield path or (words[0] if words[0][0] != "-" else ""), options


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_that_are_named_exist(page: Path) -> None:
    """With each of the options they are given."""
    known = commands()
    for path, options in mentioned_commands(code_of(page)):
        assert path in known, path
        assert options <= known[path], f"greffier {path}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_settings_that_are_named_exist(page: Path) -> None:
    """As variables, and in files of settings."""
    secret = {f"{PREFIX}{name.upper()}_FILE" for name, one in Settings.model_fields.items()
              if is_secret(one)}  # fmt: skip
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields} | secret | VARIABLES

    named = set(re.findall(r"\bGREFFIER_[A-Z][A-Z_]*", page.read_text(encoding="utf-8")))
    tables = {one for one in named if one.startswith(f"{PREFIX}PROVIDERS__")}
    assert named - tables <= known
    assert {one.split("__")[-1].lower() for one in tables} <= set(ProviderSettings.model_fields)
    for block in blocks(page):
        if block.language == "toml":
            said = tomllib.loads(block.text)
            assert set(said) <= set(Settings.model_fields)
            for table in said.get("providers", {}).values():
                ProviderSettings(**{"kind": "openai", "key": "of-a-variable", **table})


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_routes_that_are_named_exist(page: Path) -> None:
    """Method and path; what follows an ellipsis is the end of a path."""
    known = [
        (route.method, route.path, re.sub(r"\\{\w+\\}", "[^/]+", re.escape(route.path)))
        for route in (*ROUTES, SIGN_IN)
    ]
    for method, path in _ROUTE.findall(code_of(page)):
        ending = path.startswith("…")
        assert any(
            method == one and (there.endswith(path[1:]) if ending else re.fullmatch(form, path))
            for one, there, form in known
        ), f"{method} {path}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_codes_that_are_named_exist(page: Path) -> None:
    """Words with a hyphen that are set as code are words of the code: errors, reasons, policies."""
    source = "\n".join(one.read_text(encoding="utf-8") for one in (ROOT / "src").rglob("*.py"))
    codes = {kind.code for kind in vars(errors).values() if isinstance(kind, type)
             and issubclass(kind, errors.Error)}  # fmt: skip
    known = codes | FOREIGN | set(re.findall(r"[\"'`]([a-z]+(?:-[a-z0-9]+)+)[\"'`]", source))
    for word in _INLINE.findall(prose(page)):
        if re.fullmatch(r"[a-z]+(-[a-z0-9]+)+", word):
            assert word in known, word
        elif found := re.fullmatch(r"\[([a-z-]+)\]", word):
            assert found[1] in codes, word


# -- and nothing is left out -----------------------------------------------------------------------


def test_every_setting_error_and_command_is_documented() -> None:
    """What a person can set, meet or run stands somewhere in the pages."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in ENGLISH)
    code = "\n".join(map(code_of, ENGLISH))

    settings = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    assert {one for one in settings if not re.search(rf"\b{one}\b", text)} == set()
    assert {
        one for one in errors.CODES if not re.search(rf"(?<![\w-]){one}(?![\w-])", code)
    } == set()
    named = {path for path, _ in mentioned_commands(code)}
    assert {path for path in commands() if path not in {"", "db"} | named} == set()


def test_every_reason_of_quarantine_is_documented() -> None:
    """Who finds a row set aside can read why."""
    page = code_of(ROOT / "docs/en/howto/import-and-export.md")
    reasons: set[str] = set()
    for file in (ROOT / "src/greffier/imports").glob("*.py"):
        source = file.read_text(encoding="utf-8")
        reasons |= set(
            re.findall(r"(?:UnfitError|Fault)\((?:[^()\"]|\([^()]*\))*\"([a-z0-9-]+)\"", source)
        )
        reasons |= set(re.findall(r"return \"([a-z-]+)\", [\"O]", source))

    assert {"not-json", "archived", "out-of-place", "store-refused"} <= reasons
    assert {one for one in reasons if not re.search(rf"(?<![\w-]){one}(?![\w-])", page)} == set()


# -- what is shown happens -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server for all pages: each has ids of its own, and together they say more than one may."""
    with served(tmp_path_factory.mktemp("pages"), GREFFIER_RATE_LIMIT="off") as running:
        setup = [
            step.command
            for block in blocks(ROOT / "docs/en/tutorial/first-conversation.md")
            if block.tour == "setup"
            for step in steps(block.text)
        ]
        yield running.after(setup)


@pytest.mark.parametrize(
    "page", [page for page in ENGLISH if any(one.tour for one in blocks(page))], ids=name_of
)
def test_what_a_page_shows_is_what_comes_of_it(page: Path, server: Served) -> None:
    """Each command as printed, in order, in one shell."""
    assert server.tour(page) == []


@pytest.mark.parametrize(
    ("page", "line"),
    [
        pytest.param(page, one.line, id=f"{name_of(page)}:{one.line}")
        for page in ENGLISH
        for one in blocks(page)
        if one.language == "python" and one.text.startswith("# runs")
    ],
)
def test_programs_that_are_said_to_run_do(page: Path, line: int, server: Served) -> None:
    """As they stand, against the private PostgreSQL; what a page says they print, they print."""
    (program,) = [one for one in blocks(page) if one.line == line]
    printed = server.runs(program.text, check=True)
    promised = re.search(
        r"```\n\nIt prints `([^`]+)`", page.read_text(encoding="utf-8").split(program.text)[1]
    )
    if promised and program.text in page.read_text(encoding="utf-8"):
        assert promised[1] in printed
