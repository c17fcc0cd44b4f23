"""The pages on following live say what works."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from helpers.patience import PATIENCE
from live.conftest import Running

DOCS = Path(__file__).parents[2] / "docs"
PAGES = (DOCS / "en/howto/follow-live.md", DOCS / "fr/howto/suivre-en-direct.md")


def blocks(page: Path, language: str) -> list[str]:
    """The code of a page in one language."""
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


async def first_lines(
    server: Running, program: list[str], before: str, after: str
) -> tuple[str, str]:
    """Start a program that follows; give what it says of before its start, and of after."""
    async with server.http("ada") as http:
        talk = (await http.post("/v1/conversations", json={})).json()["id"]
        await http.post(f"/v1/conversations/{talk}/messages", json={"content": before})
        environment = os.environ | {
            "GREFFIER_URL": server.url,
            "GREFFIER_TOKEN": server.token("ada"),
            "CONVERSATION": talk,
        }
        process = await asyncio.create_subprocess_exec(
            *program, env=environment, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        try:
            async with asyncio.timeout(PATIENCE):
                first = await process.stdout.readuntil(b"\n")
                await http.post(f"/v1/conversations/{talk}/messages", json={"content": after})
                rest = b""
                while after.encode() not in rest:
                    rest += await process.stdout.readuntil(b"\n")
        finally:
            process.kill()
            await process.wait()
    return first.decode(), rest.decode()


@pytest.mark.parametrize("page", PAGES, ids=["en", "fr"])
async def test_the_python_example_follows(server: Running, page: Path) -> None:
    """It prints what was said before it came, and what is said while it is there."""
    program = next(one for one in blocks(page, "python") if "asyncio.run" in one)

    first, rest = await first_lines(server, [sys.executable, "-c", program], "before", "after")

    assert first == "1 before\n"
    assert rest == "2 after\n"


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here")
async def test_the_curl_example_follows(server: Running) -> None:
    """The first event says where one stands, the next what was said."""
    command = next(one for one in blocks(PAGES[0], "sh") if "curl" in one)

    first, rest = await first_lines(server, ["sh", "-c", f"exec {command}"], "before", "after")

    assert first == "event: change\n"
    assert '"since":2,"rev":3' in rest


def test_both_languages_show_the_same_code() -> None:
    """Apart from the words in comments."""
    for language in ("sh", "python", "js"):
        english, french = (
            [re.sub(r"//.*", "", one) for one in blocks(page, language)] for page in PAGES
        )
        assert english
        assert english == french
