"""Promise: whatever is sent, the answer is one that the OpenAPI document says, and never a 500."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from helpers.api import SECRET
from helpers.serving import headers, started

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_schema_conformance,response_headers_conformance,negative_data_rejection,"
    "missing_required_header,unsupported_method,ignored_auth"
)


@pytest.mark.slow
async def test_no_request_breaks_the_service(database: str, tmp_path: Path) -> None:
    """Schemathesis sends what fits the document and what does not, alone and in sequences."""
    with started(DATABASE_URL=database, JWT_SECRET=SECRET, RATE_LIMIT="off") as server:
        url = server.until(r"listens on (http://\S+) ")[1]
        server.let_it_talk()
        async with httpx2.AsyncClient(base_url=url, headers=headers()) as ada:
            position = (await ada.post("/v1/conversations", json={})).headers["greffier-position"]
        command = [
            *(str(Path(sys.executable).with_name("st")), "run", f"{url}/openapi.json"),
            *("--checks", CHECKS, "--max-examples", "10", "--generation-database", "none"),
            *("--header", f"Authorization: {headers()['authorization']}"),
            # A made-up one is refused before anything else is looked at.
            *("--header", f"Greffier-Position: {position}"),
            # A stream of events has no end to wait for.
            *("--exclude-path-regex", r"/events$", "--no-color"),
        ]
        done = await asyncio.to_thread(_run, command, tmp_path)

    assert done.returncode == 0, done.stdout[-8000:] + done.stderr
    assert '"exception"' not in "".join(server.said)


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)
