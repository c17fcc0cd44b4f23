"""Promise: a key opens what its scope says, to whom it says, for as long as it is not revoked."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from greffier.access import SEE_USER
from greffier.model.key import key_hash
from greffier.server.keyring import KeyRing
from greffier.server.routes import ROUTES
from helpers.api import Person, Served, expect, path, pointers, refused
from helpers.keys import Program, make_key
from helpers.postgres import connected


@pytest_asyncio.fixture
async def service(served: Served, root: Person) -> AsyncIterator[Program]:
    """A service."""
    program = await make_key(served, root, "service", name="the bot")
    async with program.http:
        yield program


@pytest_asyncio.fixture
async def own(served: Served, ada: Person) -> AsyncIterator[Program]:
    """A program of Ada's."""
    program = await make_key(served, ada, "user", name="my script")
    async with program.http:
        yield program


# -- making, listing, revoking ---------------------------------------------------------------------


async def test_a_key_is_shown_once(served: Served, ada: Person) -> None:
    """The answer that made it holds it; no list does, and the database keeps its hash alone."""
    asked = {"scope": "user", "name": "my script", "expires_at": "2099-01-01T00:00:00Z"}
    made = expect(await ada.http.post("/v1/keys", json=asked), 201)
    (listed,) = expect(await ada.http.get("/v1/keys"), 200)["data"]
    async with connected(served.database.dsn) as connection:
        row = await connection.fetchrow(
            "select k.*, to_json(k)::text as everything from greffier.api_keys k where id = $1",
            uuid.UUID(made["id"]),
        )

    key = made.pop("key")
    assert key.startswith("grf_")
    assert listed == made
    assert made["user_id"] == made["created_by"] == ada.id
    assert made["expires_at"] == "2099-01-01T00:00:00.000000Z"
    assert row is not None
    assert row["key_hash"] == key_hash(key)
    assert key not in row["everything"]


async def test_a_key_acts_as_its_user(ada: Person, own: Program) -> None:
    """It sees what they see, and what it says is theirs."""
    made = await ada.create(title="Plans")
    said = expect(await own.http.post(f"{path(made)}/messages", json={"content": "hello"}), 201)

    assert expect(await own.http.get("/v1/me"), 200) == {
        "id": ada.id,
        "name": "Ada",
        "email": None,
        "role": "user",
        "key": "my script",
    }
    message = said["message"]
    assert (message["author_id"], message["author_name"]) == (ada.id, "Ada")
    assert message["written_by"] == ada.id
    listed = expect(await own.http.get("/v1/conversations"), 200)["data"]
    assert [one["id"] for one in listed] == [made["id"]]


async def test_a_key_makes_no_keys(own: Program) -> None:
    """A key that leaked cannot make others that outlive its revocation."""
    answer = await own.http.post("/v1/keys", json={"scope": "user", "name": "another"})

    refused(answer, 403, "forbidden")


async def test_everybody_makes_keys_for_themself_alone(ada: Person, bob: Person) -> None:
    """Neither for somebody else, nor of a scope that sees more."""
    for asked in (
        {"scope": "user", "user_id": bob.id, "name": "x"},
        {"scope": "service", "name": "x"},
        {"scope": "ops", "name": "x"},
    ):
        refused(await ada.http.post("/v1/keys", json=asked), 403, "forbidden")
    asked = {"scope": "user", "user_id": ada.id, "name": "x"}
    assert expect(await ada.http.post("/v1/keys", json=asked), 201)["user_id"] == ada.id
    assert expect(await bob.http.get("/v1/keys"), 200)["data"] == []


async def test_admins_make_keys_for_anybody(served: Served, root: Person) -> None:
    """Also for a user nobody has seen yet, who exists from the key's first use on."""
    newcomer = f"eve-{uuid.uuid4()}"
    program = await make_key(served, root, "user", user_id=newcomer)
    async with program.http:
        conversation = expect(await program.http.post("/v1/conversations", json={}), 201)
        me = expect(await program.http.get("/v1/me"), 200)

    assert conversation["owner_id"] == me["id"] == newcomer
    assert me["role"] == "user"


async def test_an_admin_s_own_key_is_no_admin(served: Served, ada: Person, root: Person) -> None:
    """No key is ever admin."""
    made = await ada.create()
    program = await make_key(served, root, "user")
    async with program.http:
        refused(await program.http.get(path(made)), 404, "not-found")
        assert expect(await program.http.get("/v1/me"), 200)["role"] == "user"


@pytest.mark.parametrize(
    ("asked", "faults"),
    [
        ({"scope": "user"}, [("/name", "missing")]),
        ({"scope": "user", "name": ""}, [("/name", "length")]),
        ({"scope": "user", "name": "é" * 129}, [("/name", "length")]),
        ({"scope": "user", "name": "a\x00"}, [("/name", "nul-character")]),
        ({"scope": "admin", "name": "x"}, [("/scope", "choice")]),
        ({"scope": "user", "name": "x", "user_id": ""}, [("/user_id", "length")]),
        ({"scope": "user", "name": "x", "user_id": "a" * 257}, [("/user_id", "length")]),
        ({"scope": "user", "name": "x", "user_id": "service"}, [("/user_id", "reserved")]),
        ({"scope": "user", "name": "x", "user_id": "service:bot"}, [("/user_id", "reserved")]),
        # The author of what somebody outside wrote to a source.
        ({"scope": "user", "name": "x", "user_id": "contact:42"}, [("/user_id", "reserved")]),
        ({"scope": "service", "name": "x", "user_id": "ada"}, [("/user_id", "scope")]),
        ({"scope": "ops", "name": "x", "user_id": "ada"}, [("/user_id", "scope")]),
        ({"scope": "ops", "name": "x", "expires_at": "2001-01-01T00:00:00Z"},
         [("/expires_at", "past")]),
        ({"scope": "ops", "name": "x", "expires_at": "2099-01-01T00:00:00"},
         [("/expires_at", "no-time-zone")]),
        ({"scope": "ops", "name": "x", "expires_at": "9999-12-31T23:59:59-12:00"},
         [("/expires_at", "range")]),
        ({"scope": "ops", "name": "x", "key": "grf_mine"}, [("/key", "unknown-field")]),
    ],
)  # fmt: skip
async def test_what_makes_no_sense_is_refused(
    root: Person, asked: dict[str, Any], faults: list[tuple[str, str]]
) -> None:
    """With the place that is wrong."""
    problem = refused(await root.http.post("/v1/keys", json=asked), 422, "validation")

    assert pointers(problem) == faults


async def test_the_list_goes_on_where_it_ended(ada: Person) -> None:
    """Newest first, a page at a time, each key once."""
    names = [f"key {number}" for number in range(5)]
    for name in names:
        expect(await ada.http.post("/v1/keys", json={"scope": "user", "name": name}), 201)
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        where = f"/v1/keys?limit=2&cursor={cursor}" if cursor else "/v1/keys?limit=2"
        page = expect(await ada.http.get(where), 200)
        seen += [one["name"] for one in page["data"]]
        cursor = page["next_cursor"]

    assert seen == names[::-1]
    for wrong in ("limit=0", "limit=101", "cursor=x", "cursor="):
        refused(await ada.http.get(f"/v1/keys?{wrong}"), 422, "validation")


async def test_admins_see_and_revoke_everybody_s(root: Person, own: Program) -> None:
    """To stop a program whose person is away."""
    listed = expect(await root.http.get("/v1/keys?limit=100"), 200)["data"]
    revoked = await root.http.delete(f"/v1/keys/{own.id}")

    assert own.id in {one["id"] for one in listed}
    assert revoked.status_code == 204
    refused(await own.http.get("/v1/me"), 401, "unauthenticated")


async def test_a_revoked_key_opens_nothing_from_then_on(ada: Person, own: Program) -> None:
    """At once in this process, however lately it was used; and a key may retire itself."""
    expect(await own.http.get("/v1/me"), 200)
    gone = await own.http.delete(f"/v1/keys/{own.id}")

    assert gone.status_code == 204
    assert "greffier-position" in gone.headers
    refused(await own.http.get("/v1/me"), 401, "unauthenticated")
    refused(await ada.http.delete(f"/v1/keys/{own.id}"), 404, "not-found")


async def test_another_s_key_is_not_there(bob: Person, own: Program) -> None:
    """Nobody revokes, or learns of, what is not theirs."""
    refused(await bob.http.delete(f"/v1/keys/{own.id}"), 404, "not-found")
    refused(await bob.http.delete(f"/v1/keys/{uuid.uuid4()}"), 404, "not-found")
    expect(await own.http.get("/v1/me"), 200)


async def test_a_look_under_way_does_not_keep_a_revoked_key(served: Served, ada: Person) -> None:
    """Found before the revocation and answered after it: it is not remembered."""
    made = expect(await ada.http.post("/v1/keys", json={"scope": "user", "name": "x"}), 201)
    ring = KeyRing(served.database)
    # Begun, and not yet answered, when the key is revoked.
    look = asyncio.create_task(ring.identify(made["key"]))
    await asyncio.sleep(0)
    ring.forget(uuid.UUID(made["id"]))
    await asyncio.wait([look])
    revoked = await ada.http.delete(f"/v1/keys/{made['id']}")

    assert revoked.status_code == 204
    with pytest.raises(Exception, match="not valid, or not any more"):
        await ring.identify(made["key"])


async def test_an_expired_key_is_refused(served: Served, ada: Person) -> None:
    """Its time is the database's."""
    made = expect(
        await ada.http.post(
            "/v1/keys",
            json={
                "scope": "user",
                "name": "x",
                "expires_at": (datetime.now(UTC) + timedelta(hours=1)).isoformat(),
            },
        ),
        201,
    )
    async with served.anonymous(authorization=f"Bearer {made['key']}") as program:
        async with connected(served.database.dsn) as connection:
            await connection.execute(
                "update greffier.api_keys set expires_at = now() - interval '1 s' where id = $1",
                uuid.UUID(made["id"]),
            )
        refused(await program.get("/v1/me"), 401, "unauthenticated")


@pytest.mark.parametrize("key", ["grf_", "grf_x", "grf_" + "a" * 43, "grf_" + "é" * 43])
async def test_what_is_no_key_of_ours_is_refused(served: Served, key: str) -> None:
    """Whatever follows the beginning of one."""
    async with served.anonymous() as program:
        header = [(b"authorization", f"Bearer {key}".encode())]
        refused(await program.get("/v1/me", headers=header), 401, "unauthenticated")


# -- service ---------------------------------------------------------------------------------------


async def test_a_service_says_for_whom_it_acts(service: Program, ada: Person) -> None:
    """Without it, what belongs to a user is refused with the header's name."""
    made = await ada.create()
    for method, where, body in (
        ("GET", "/v1/conversations", None),
        ("POST", "/v1/conversations", {}),
        ("GET", "/v1/me/stats", None),
        ("GET", "/v1/me/export", None),
        ("POST", "/v1/subjects/maths/messages", {"content": "x"}),
        ("PUT", f"{path(made)}/read", {"seq": 0}),
        ("PUT", f"{path(made)}/feedback", {"rating": 1}),
        ("POST", "/v1/invitations/accept", {"token": "gri_x"}),
    ):
        problem = refused(await service.http.request(method, where, json=body), 403, "forbidden")
        assert "Greffier-Act-As" in problem["detail"], (method, where)


async def test_a_service_writes_anywhere(service: Program, ada: Person) -> None:
    """Any role in any conversation, marked as brought by it."""
    made = await ada.create(kind="room")
    said = expect(
        await service.http.post(
            f"{path(made)}/messages", json={"role": "assistant", "content": "at your service"}
        ),
        201,
    )["message"]

    assert (said["author_id"], said["written_by"]) == (None, "service:the bot")
    assert expect(await service.http.get(path(made)), 200)["me"] is None
    assert expect(await service.http.get("/v1/me"), 200) == {
        "id": None,
        "name": None,
        "email": None,
        "role": "service",
        "key": "the bot",
    }


async def test_acting_for_a_user_is_being_them(service: Program, ada: Person) -> None:
    """What is theirs is listed, read and written; what they say is theirs, under their name."""
    acting = service.acting(ada.id)
    expect(await ada.http.get("/v1/me"), 200)
    made = expect(await service.http.post("/v1/conversations", json={}, headers=acting), 201)
    said = [
        expect(
            await service.http.post(
                f"{path(made)}/messages", json={"role": role, "content": "x"}, headers=acting
            ),
            201,
        )["message"]
        for role in ("user", "assistant")
    ]
    marked = expect(
        await service.http.put(f"{path(made)}/read", json={"seq": 2}, headers=acting), 200
    )

    assert made["owner_id"] == ada.id
    assert [one["author_id"] for one in said] == [ada.id, None]
    assert [one["author_name"] for one in said] == ["Ada", None]
    assert [one["written_by"] for one in said] == ["service:the bot"] * 2
    assert marked["last_read_seq"] == 2
    seen = expect(await ada.http.get(path(made)), 200)
    assert seen["me"] == {"role": "owner", "last_read_seq": 2, "unread": 0}


async def test_acting_for_a_user_is_to_see_no_more_than_they(
    service: Program, ada: Person, bob: Person
) -> None:
    """A service that says for whom it acts cannot give them what is another's by mistake."""
    made = await ada.talk(1)
    acting = service.acting(bob.id)

    expect(await service.http.get(path(made)), 200)
    for method, where, body in (
        ("GET", path(made), None),
        ("GET", f"{path(made)}/messages", None),
        ("POST", f"{path(made)}/messages", {"role": "assistant", "content": "x"}),
        ("DELETE", path(made), None),
    ):
        answer = await service.http.request(method, where, json=body, headers=acting)
        refused(answer, 404, "not-found")


async def test_in_a_room_a_service_answers_for_a_member_and_not_for_a_viewer(
    service: Program, ada: Person, bob: Person
) -> None:
    """What a member may not say themself, a service that acts for them may: the answer."""
    people = [{"user_id": bob.id, "role": "member"}, {"user_id": "vera", "role": "viewer"}]
    room = await ada.create(kind="room", participants=people)
    batch = {
        "messages": [{"content": "ask"}, {"role": "assistant", "content": "answer"}],
    }
    where = f"{path(room)}/messages"

    refused(await bob.http.post(where, json=batch), 403, "forbidden")
    said = expect(await service.http.post(where, json=batch, headers=service.acting(bob.id)), 201)[
        "messages"
    ]
    refused(
        await service.http.post(where, json=batch, headers=service.acting("vera")),
        403,
        "forbidden",
    )
    assert [one["author_id"] for one in said] == [bob.id, None]


async def test_whom_a_service_acts_for_exists_from_then_on(
    served: Served, service: Program
) -> None:
    """As whoever comes with a token does."""
    newcomer = f"zoé {uuid.uuid4()}"
    header = [(b"greffier-act-as", newcomer.encode())]
    me = expect(await service.http.get("/v1/me", headers=header), 200)
    async with connected(served.database.dsn) as connection:
        found = await connection.fetchval("select 1 from greffier.users where id = $1", newcomer)

    assert me["id"] == newcomer
    assert found == 1


async def test_nobody_else_acts_for_others(ada: Person, root: Person, own: Program) -> None:
    """Neither users nor admins nor keys of users, not even for themself: 403, in clear words."""
    for caller in (ada.http, root.http, own.http):
        problem = refused(
            await caller.get("/v1/me", headers={"greffier-act-as": ada.id}), 403, "forbidden"
        )
        assert "service" in problem["detail"]


@pytest.mark.parametrize(
    "values",
    [[b""], [b"a" * 257], [b"\xff"], [b"service"], [b"service:bot"], [b"ada", b"bob"]],
)
async def test_an_act_as_that_names_nobody_is_refused(
    service: Program, values: list[bytes]
) -> None:
    """Empty, too long, no UTF-8, the service itself, or two at once."""
    headers = [(b"greffier-act-as", value) for value in values]

    problem = refused(await service.http.get("/v1/me", headers=headers), 422, "validation")

    assert pointers(problem) == [("", "act-as")]


async def test_a_service_looks_after_no_keys(service: Program, ada: Person, own: Program) -> None:
    """On its own account or for somebody."""
    for headers in ({}, service.acting(ada.id)):
        for method, where, body in (
            ("GET", "/v1/keys", None),
            ("POST", "/v1/keys", {"scope": "user", "name": "x"}),
            ("DELETE", f"/v1/keys/{own.id}", None),
        ):
            answer = await service.http.request(method, where, json=body, headers=headers)
            refused(answer, 403, "forbidden")
    expect(await own.http.get("/v1/me"), 200)


async def test_an_idempotency_key_is_the_user_s_whoever_brings_it(
    service: Program, ada: Person
) -> None:
    """Sent once by the service for them and once by themself, it is one conversation."""
    header = {"idempotency-key": "the same"}
    first = await service.http.post(
        "/v1/conversations", json={}, headers={**header, **service.acting(ada.id)}
    )
    second = await ada.http.post("/v1/conversations", json={}, headers=header)

    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json()["id"] == second.json()["id"]


# -- ops -------------------------------------------------------------------------------------------


async def test_a_key_for_operations_sees_nobody_s_words(
    served: Served, root: Person, ada: Person
) -> None:
    """Of everything under /v1 it is answered who it is, and nothing else."""
    made = await ada.talk(1)
    program = await make_key(served, root, "ops")
    async with program.http:
        assert expect(await program.http.get("/v1/me"), 200)["role"] == "ops"
        for method, where in (
            ("GET", "/v1/conversations"),
            ("GET", path(made)),
            ("GET", f"{path(made)}/messages"),
            ("GET", "/v1/me/export"),
            ("GET", "/v1/keys"),
            ("DELETE", path(made)),
        ):
            refused(await program.http.request(method, where), 403, "forbidden")
        answer = await program.http.get("/v1/me", headers={"greffier-act-as": ada.id})
        refused(answer, 403, "forbidden")


async def test_a_key_for_operations_is_refused_before_anything_else_is_looked_at(
    served: Served, root: Person
) -> None:
    """On every route that is not marked for it, whatever it sends."""
    program = await make_key(served, root, "ops")
    async with program.http:
        for route in ROUTES:
            if route.auth and not route.operations:
                where = re.sub(r"{\w+}", "x", route.path)
                answer = await program.http.request(route.method, f"{where}?none=such", json=7)
                assert answer.status_code == 403, (route.method, where)


# -- who is told what ------------------------------------------------------------------------------


async def test_the_log_names_the_key_and_never_holds_it(served: Served, service: Program) -> None:
    """So that what a program did can be found."""
    expect(await service.http.get("/v1/me"), 200)

    last = served.lines()[-1]
    assert last["key"] == "the bot"
    assert service.key not in served.log.getvalue().decode()


async def test_a_key_s_user_is_called_as_the_database_says(served: Served, ada: Person) -> None:
    """A key claims no name, and takes none away."""
    program = await make_key(served, ada, "user")
    await served.database.verb(SEE_USER, ada.id, "Ada L.", "ada@example.org", again=True)
    async with program.http:
        seen = [expect(await program.http.get("/v1/me"), 200) for _ in range(2)]

    assert [(me["name"], me["email"]) for me in seen] == [("Ada L.", "ada@example.org")] * 2
