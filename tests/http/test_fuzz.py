"""Promise: whatever is sent, the answer is one that the OpenAPI document says, and never a 500."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest

from greffier.server.auth import issue
from helpers.api import SECRET, expect
from helpers.serving import headers, started

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_schema_conformance,response_headers_conformance,negative_data_rejection,"
    "missing_required_header,unsupported_method,ignored_auth"
)
#: The same requests each time.  For more, and others: FUZZ_EXAMPLES=200 FUZZ_SEED=7 make test
#: ARGS="tests/http/test_fuzz.py --timeout 3600".
SEED = os.environ.get("FUZZ_SEED", "1")
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "6"))


@pytest.mark.slow
@pytest.mark.parametrize("caller", ["user", "service"])
async def test_no_request_breaks_the_service(database: str, tmp_path: Path, caller: str) -> None:
    """Schemathesis sends what fits the document and what does not, alone and in sequences.

    As a user, and as a service that acts for one.
    """
    with started(DATABASE_URL=database, JWT_SECRET=SECRET, RATE_LIMIT="off") as server:
        url = server.until(r"listens on (http://\S+) ")[1]
        server.let_it_talk()
        async with httpx2.AsyncClient(base_url=url, headers=headers()) as ada:
            document = expect(await ada.get("/openapi.json"), 200)
            position = (await ada.post("/v1/conversations", json={})).headers["greffier-position"]
            # A made-up position is refused before anything else is looked at.
            sent = {"Authorization": headers()["authorization"], "Greffier-Position": position}
            if caller == "service":
                sent |= await _service(ada)
            else:
                _leave_out(document, "Greffier-Act-As")
        file = tmp_path / "openapi.json"
        file.write_text(json.dumps(document), encoding="utf-8")
        # The long way once: a service is looked at by the same code, as the user it acts for.
        phases = "coverage,fuzzing,stateful" if caller == "user" else "fuzzing"
        command = [
            *(str(Path(sys.executable).with_name("st")), "run", str(file), "--url", url),
            *("--checks", CHECKS, "--phases", phases, "--seed", SEED),
            *("--max-examples", str(EXAMPLES), "--generation-database", "none", "--no-color"),
            *(part for name, value in sent.items() for part in ("--header", f"{name}: {value}")),
            # A stream of events has no end to wait for.
            *("--exclude-path-regex", r"/events$"),
        ]
        done = await asyncio.to_thread(_run, command, tmp_path)

    assert done.returncode == 0, done.stdout[-8000:] + done.stderr
    assert '"exception"' not in "".join(server.said)


async def _service(person: httpx2.AsyncClient) -> dict[str, str]:
    """Make a key of a service, and give what its requests carry for ada."""
    token = issue(SECRET.encode(), "root", lifetime=600, admin=True)
    made = await person.post(
        "/v1/keys",
        json={"scope": "service", "name": "the bot"},
        headers={"authorization": f"Bearer {token}"},
    )
    key = expect(made, 201)["key"]
    return {"Authorization": f"Bearer {key}", "Greffier-Act-As": "ada"}


def _leave_out(document: dict[str, Any], header: str) -> None:
    """Take out a header with which this caller is refused whatever else they say."""
    for methods in document["paths"].values():
        for operation in methods.values():
            operation["parameters"] = [
                one
                for one in operation.get("parameters", ())
                if not one.get("$ref", "").endswith(header)
            ]


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)
