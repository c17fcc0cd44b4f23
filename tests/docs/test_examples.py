"""The examples run, and do what they say."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.documents import ROOT, Served, served
from helpers.receivers import free_port

EXAMPLES = ROOT / "examples"
ID = "0197f0c8-7a70-7bbb-8f6e-000000000001"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server whose data folder the examples share."""
    with served(tmp_path_factory.mktemp("examples")) as running:
        yield running


def test_the_assistant_goes_on_where_it_was(server: Served) -> None:
    """A second run has the first one's words in its context, until they are left out."""

    def run(*lines: str) -> list[str]:
        command = [sys.executable, str(EXAMPLES / "assistant.py"), *lines]
        done = subprocess.run(
            command, env=server.environment, check=True, capture_output=True, text=True
        )
        return done.stdout.splitlines()

    assert run("Bonjour", "Encore") == [
        "1 ada: Bonjour",
        "2 assistant: You said 'Bonjour'; the first thing I know of is 'Bonjour'.",
        "  (the model got 1 messages, 0 were left out)",
        "3 ada: Encore",
        "4 assistant: You said 'Encore'; the first thing I know of is 'Bonjour'.",
        "  (the model got 3 messages, 0 were left out)",
    ]
    assert run("Fin")[-1] == "  (the model got 4 messages, 1 were left out)"


def test_follow_prints_every_change_as_it_happens(server: Served) -> None:
    """The first line says where it stands; each commit after that is one line, in order."""
    *_, token = server.types([".venv/bin/greffier token --user ada"])
    environment = server.environment | {"TOKEN": token.strip()}
    api = (
        'api() { curl -sS -o /dev/null -H "Authorization: Bearer $TOKEN" '
        '-H "Content-Type: application/json" "http://127.0.0.1:8080/v1$@"; }'
    )
    typed = Served(server.address, environment, server.folder)
    typed.types([api, f"""api /conversations -d '{{"id": "{ID}"}}'"""])
    follow = subprocess.Popen(
        ["bash", str(EXAMPLES / "follow.sh"), ID, f"http://{server.address}"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    try:
        assert follow.stdout is not None
        first = json.loads(follow.stdout.readline())
        assert (first["since"], first["rev"]) == (1, 1)

        typed.types([api, f"""api /conversations/{ID}/messages -d '{{"content": "Un"}}'"""])

        change = json.loads(follow.stdout.readline())
        assert (change["since"], change["rev"]) == (1, 2)
        assert [one["content"] for one in change["messages"]] == ["Un"]

        typed.types([api, f"api /conversations/{ID} -X DELETE"])
        assert follow.wait() == 1
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(follow.pid, signal.SIGKILL)  # curl too, when it did not end by itself
        follow.communicate()


def test_every_example_is_run_here() -> None:
    """None that only looks as if it ran; the browser's is opened by tests/live/test_browser.py."""
    here = Path(__file__)
    sources = [here, here.parent.parent / "live" / "test_browser.py"]
    text = "".join(source.read_text(encoding="utf-8") for source in sources)
    for example in EXAMPLES.iterdir():
        assert example.name in text


def test_the_receiver_verifies_and_prints_what_is_said_once(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Signed with the secret that the endpoint was made with; the pages show the same program."""
    program = EXAMPLES / "receiver.py"
    shown = program.read_text(encoding="utf-8").partition("import sys\n")[2]
    for language in ("en", "fr"):
        page = ROOT / "docs" / language / "howto" / "webhooks.md"
        assert shown.strip() in page.read_text(encoding="utf-8")
    api = (
        'api() { curl -sS -H "Authorization: Bearer $(.venv/bin/greffier token $WHO)" '
        '-H "Content-Type: application/json" "http://127.0.0.1:8080/v1$@"; }'
    )
    port = free_port()
    hook = json.dumps({"channel": "webhook", "target": f"http://127.0.0.1:{port}/"})
    with served(
        tmp_path_factory.mktemp("receiver"), GREFFIER_ALLOW_PRIVATE_TARGETS="true"
    ) as server:
        made = f"api /endpoints -d '{hook}' | grep -o 'whsec_[^\"]*'"
        *_, secret = server.types([api, "WHO='--user root --admin'", made])
        with subprocess.Popen(
            [sys.executable, str(program), secret.strip(), str(port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as receiver:
            try:
                server.types(
                    [
                        api,
                        "WHO='--user ada'",
                        f"""api /conversations -d '{{"id": "{ID}"}}'""",
                        f"""api /conversations/{ID}/messages -d '{{"content": "Bonjour"}}'""",
                        f"""api /conversations/{ID}/messages -d '{{"content": "Encore"}}'""",
                    ]
                )
                assert receiver.stdout is not None
                said = [receiver.stdout.readline() for _ in range(2)]
                assert said == ["1 Bonjour\n", "2 Encore\n"]
            finally:
                receiver.kill()
