"""Promise: nobody floods the record; sent again is free, and what is refused costs nothing."""

from __future__ import annotations

import io
import tempfile
import uuid
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from greffier.errors import SettingsError
from greffier.server import create_app
from greffier.server.logs import make_logger
from greffier.store.database import Database, open_database
from helpers.api import Person, Served, expect, path, pointers, refused, settings
from helpers.keys import make_key
from helpers.postgres import new_database

#: Three at once, and one an hour: none comes back while a test runs.
LIMIT = "1/3600s:3"


def application(database: Database, folder: Path | None, rate: str = LIMIT) -> Served:
    """An application with this limit."""
    log = io.BytesIO()
    app = create_app(
        database, settings(rate_limit=rate), log=make_logger("info", "json", log), folder=folder
    )
    return Served(app, database, log)


@pytest_asyncio.fixture(scope="module")
async def record(postgres: str, template: str) -> AsyncIterator[Database]:
    """A database."""
    async with (
        new_database(postgres, f"template {template}") as dsn,
        open_database(dsn) as database,
    ):
        yield database


@pytest_asyncio.fixture(scope="module")
async def served(
    record: Database, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Served]:
    """An application with a limit."""
    yield application(record, tmp_path_factory.mktemp("limit"))


async def send(person: Person, conversation: Mapping[str, Any], **body: Any) -> httpx2.Response:
    """Send a message, or several."""
    return await person.http.post(f"{path(conversation)}/messages", json=body or {"content": "x"})


async def spend(person: Person, conversation: Mapping[str, Any]) -> None:
    """Use up all that may be sent."""
    for _ in range(3):
        expect(await send(person, conversation), 201)


def left(answer: httpx2.Response) -> int:
    """How many messages may still be sent at once."""
    name, remaining, _seconds = answer.headers["ratelimit"].split(";")
    assert name == '"messages"'
    return int(remaining.removeprefix("r="))


async def test_a_burst_passes_and_then_it_is_too_much(ada: Person) -> None:
    """429 with the seconds to wait, in clear words, and nothing on record."""
    made = await ada.create()
    answers = [await send(ada, made) for _ in range(4)]
    problem = refused(answers[3], 429, "rate-limited")

    assert [answer.status_code for answer in answers[:3]] == [201, 201, 201]
    assert [left(answer) for answer in answers] == [2, 1, 0, 0]
    assert "1 messages in 3600 seconds" in problem["detail"]
    assert 3500 < int(answers[3].headers["retry-after"]) <= 3600
    assert answers[3].headers["ratelimit"].startswith('"messages";r=0;t=3')
    assert {answer.headers["ratelimit-policy"] for answer in answers} == {'"messages";q=3;w=10800'}
    assert expect(await ada.http.get(path(made)), 200)["last_seq"] == 3


async def test_one_who_is_out_takes_nothing_from_another(ada: Person, bob: Person) -> None:
    """The limit is each user's own."""
    await spend(ada, await ada.create())

    assert left(await send(bob, await bob.create())) == 2


async def test_what_is_sent_again_is_free(ada: Person) -> None:
    """By its id or by the header, while something is left and when nothing is."""
    made = await ada.create()
    named, headed = {"id": str(uuid.uuid4()), "content": "x"}, {"idempotency-key": "the same"}
    where = f"{path(made)}/messages"
    expect(await send(ada, made, **named), 201)
    expect(await ada.http.post(where, json={"content": "y"}, headers=headed), 201)
    for _ in range(5):
        assert left(await send(ada, made, **named)) == 1
    expect(await send(ada, made), 201)
    for _ in range(5):
        answer = await send(ada, made, **named)
        assert (answer.status_code, left(answer)) == (200, 0)
        answer = await ada.http.post(where, json={"content": "y"}, headers=headed)
        assert (answer.status_code, left(answer)) == (200, 0)
    refused(await send(ada, made, id=str(uuid.uuid4()), content="new"), 429, "rate-limited")
    reused = {**named, "content": "other"}
    refused(await send(ada, made, **reused), 409, "id-reused")


async def test_what_is_refused_costs_nothing(ada: Person, bob: Person) -> None:
    """Whatever it is refused for."""
    made, theirs = await ada.create(), await bob.create()
    archived = await ada.create()
    await ada.http.patch(path(archived), json={"archived": True})
    for conversation, body, status in (
        (made, {"content": ""}, 422),
        (made, {"content": "x", "name": "n" * 300}, 422),
        (theirs, {"content": "x"}, 404),
        (archived, {"content": "x"}, 409),
    ):
        for _ in range(4):
            answer = await send(ada, conversation, **body)
            assert (answer.status_code, left(answer)) == (status, 3)

    await spend(ada, made)


async def test_a_batch_costs_what_its_user_says(ada: Person) -> None:
    """Answers, tools and instructions are free; it passes whole or not at all."""
    made = await ada.create()
    said = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]

    assert left(await send(ada, made, messages=[*said, *said])) == 1
    refused(await send(ada, made, messages=[*said, *said]), 429, "rate-limited")
    answers = {"messages": [{"role": "assistant", "content": "z"}] * 5}
    unlimited = await send(ada, made, **answers)
    assert unlimited.status_code == 201
    assert "ratelimit" not in unlimited.headers
    assert left(await send(ada, made)) == 0


async def test_a_batch_that_never_could_pass_is_no_matter_of_waiting(ada: Person) -> None:
    """422 with the number that would pass, so that nobody tries it for ever."""
    made = await ada.create()
    four = [{"id": str(uuid.uuid4()), "content": "x"} for _ in range(4)]

    problem = refused(await send(ada, made, messages=four), 422, "validation")

    assert pointers(problem) == [("/messages", "too-many")]
    assert left(await send(ada, made, messages=four[:2])) == 1


async def test_of_a_batch_sent_again_only_what_is_new_counts(ada: Person) -> None:
    """Also when it is longer than what may be sent at once, and when nothing is left."""
    made = await ada.create()
    four = [{"id": str(uuid.uuid4()), "content": "x"} for _ in range(4)]
    expect(await send(ada, made, messages=four[:2]), 201)
    all_four = await send(ada, made, messages=four[:3])
    assert (all_four.status_code, left(all_four)) == (201, 0)
    refused(await send(ada, made, messages=four), 429, "rate-limited")
    again = await send(ada, made, messages=four[:3])

    assert (again.status_code, left(again)) == (200, 0)


async def test_subjects_are_limited_too(ada: Person) -> None:
    """They are another way to the same record, with the same bucket."""
    where = "/v1/subjects/maths/messages"
    first = {"id": str(uuid.uuid4()), "content": "x"}
    assert left(await ada.http.post(where, json=first)) == 2
    assert left(await ada.http.post(where, json=first)) == 2
    assert left(await ada.http.post(where, json={"content": "y"})) == 1
    assert left(await send(ada, await ada.create())) == 0

    refused(await ada.http.post(where, json={"content": "z"}), 429, "rate-limited")
    again = await ada.http.post(where, json=first)
    assert (again.status_code, left(again)) == (200, 0)


async def test_a_stranger_cannot_ask_for_ids_by_the_limit(ada: Person, bob: Person) -> None:
    """With nothing left, what is on record elsewhere looks like what never was."""
    theirs = await bob.create()
    said = await bob.say(theirs, "x")
    await spend(ada, await ada.create())

    for name in (said["id"], str(uuid.uuid4())):
        refused(await send(ada, theirs, id=name, content="x"), 429, "rate-limited")


async def test_a_key_of_a_user_s_is_limited_as_they_are(served: Served, ada: Person) -> None:
    """More programs are not more messages."""
    made = await ada.create()
    program = await make_key(served, ada, "user")
    async with program.http:
        assert left(await send(ada, made)) == 2
        answer = await program.http.post(f"{path(made)}/messages", json={"content": "x"})

    assert left(answer) == 1


async def test_admins_and_services_are_not_limited(
    served: Served, ada: Person, root: Person
) -> None:
    """Nor is a service that acts for a user: it is the service that decides what passes."""
    made = await ada.create()
    program = await make_key(served, root, "service")
    async with program.http:
        for http, headers in (
            (root.http, {}),
            (program.http, {}),
            (program.http, program.acting(ada.id)),
        ):
            for _ in range(5):
                answer = await http.post(
                    f"{path(made)}/messages", json={"content": "x"}, headers=headers
                )
                expect(answer, 201)
                assert "ratelimit" not in answer.headers
    await spend(ada, made)


async def test_processes_share_it(record: Database, tmp_path: Path) -> None:
    """A second process is not a second limit."""
    first, second = application(record, tmp_path), application(record, tmp_path)
    ada = first.person("ada")
    async with (
        ada.http,
        second.anonymous(authorization=ada.http.headers["authorization"]) as elsewhere,
    ):
        made = await ada.create()
        assert left(await send(ada, made)) == 2
        answer = await elsewhere.post(f"{path(made)}/messages", json={"content": "x"})

    assert left(answer) == 1


async def test_without_a_data_folder_it_is_kept_where_only_we_write(
    record: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Among the temporary files, in a folder of our own, for each database; not in another's."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    served = application(record, None)
    async with served.person("ada").http as http:
        made = expect(await http.post("/v1/conversations", json={}), 201)
        expect(await http.post(f"{path(made)}/messages", json={"content": "x"}), 201)
    (folder,) = tmp_path.glob("*")  # noqa: ASYNC240 - nothing else runs

    assert folder.stat().st_mode & 0o777 == 0o700
    assert [file.stat().st_mode & 0o777 for file in folder.glob("*")] == [0o600]
    folder.chmod(0o777)
    with pytest.raises(SettingsError, match="open to others"):
        application(record, None)


async def test_off_is_off(record: Database) -> None:
    """Then nothing is counted and nobody is told."""
    served = application(record, None, "off")
    ada = served.person("ada")
    async with ada.http:
        made = await ada.create()
        for _ in range(25):
            answer = await send(ada, made)
            assert answer.status_code == 201
            assert "ratelimit" not in answer.headers


@pytest.mark.parametrize("rate", ["ten a minute", "10/60s", "0/60s:1", "10/60:20", ""])
async def test_a_limit_that_is_none_is_no_limit_by_mistake(record: Database, rate: str) -> None:
    """A server with a wrong one does not start."""
    with pytest.raises(SettingsError, match="RATE_LIMIT"):
        application(record, None, rate)


def test_a_default_is_there() -> None:
    """Ten in a minute, twenty at once."""
    from greffier.settings import load

    assert load({}).rate_limit == "10/60s:20"
