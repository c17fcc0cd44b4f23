"""Promise: a person makes, finds, changes, archives and erases conversations over HTTP."""

from __future__ import annotations

import uuid

from helpers.api import Person, expect, path, pointers, refused


async def test_a_new_conversation_is_shown_whole(ada: Person) -> None:
    """Creating answers 201 with every field of the contract, and says where it is."""
    answer = await ada.http.post("/v1/conversations", json={"title": "Plans", "metadata": {"a": 1}})

    made = expect(answer, 201)
    assert answer.headers["location"] == path(made)
    assert uuid.UUID(made["id"]).version == 7
    assert {name: made[name] for name in ("kind", "title", "owner_id", "metadata", "rev")} == {
        "kind": "assistant",
        "title": "Plans",
        "owner_id": ada.id,
        "metadata": {"a": 1},
        "rev": 1,
    }
    assert (made["first_seq"], made["last_seq"], made["message_count"]) == (1, 0, 0)
    assert made["me"] == {"role": "owner", "last_read_seq": 0, "unread": 0}
    assert made["last_message"] is made["archived_at"] is made["active_run_id"] is None
    assert expect(await ada.http.get(path(made)), 200) == made


async def test_the_same_id_and_request_is_the_same_conversation(ada: Person) -> None:
    """Sent again it answers 200; with another content the id is taken."""
    body = {"id": str(uuid.uuid4()), "title": "Plans"}

    first = expect(await ada.http.post("/v1/conversations", json=body), 201)
    again = expect(await ada.http.post("/v1/conversations", json=body), 200)
    other = await ada.http.post("/v1/conversations", json={**body, "title": "Other"})

    assert again == first
    assert first["id"] == body["id"]
    refused(other, 409, "id-reused")


async def test_the_agent_is_one_that_is_there(ada: Person, root: Person) -> None:
    """It cannot be changed later, so a wrong one is told at once; a deleted one answers nobody."""
    agent = expect(
        await root.http.post(
            "/v1/agents", json={"name": "Guide", "provider": "echo", "model": "echo"}
        ),
        201,
    )
    body = {"id": str(uuid.uuid4()), "agent_id": agent["id"]}
    made = expect(await ada.http.post("/v1/conversations", json=body), 201)
    assert made["agent_id"] == agent["id"]
    assert (await root.http.delete(f"/v1/agents/{agent['id']}")).status_code == 204

    for agent_id in (agent["id"], str(uuid.uuid4())):
        answer = await ada.http.post("/v1/conversations", json={"agent_id": agent_id})
        found = refused(answer, 422, "validation")
        assert pointers(found) == [("/agent_id", "unknown-agent")]
    # Sent again it is what it was.
    assert expect(await ada.http.post("/v1/conversations", json=body), 200) == made


async def test_who_takes_part_is_somebody(ada: Person) -> None:
    """Each once, and nobody who has the service's own names."""
    named = [
        {"user_id": "bob", "role": "member"},
        {"user_id": "bob", "role": "viewer"},
        {"user_id": "service:mine", "role": "member"},
        {"user_id": "", "role": "member"},
    ]
    answer = await ada.http.post("/v1/conversations", json={"kind": "room", "participants": named})

    assert pointers(refused(answer, 422, "validation")) == [
        ("/participants/1/user_id", "duplicate"),
        ("/participants/2/user_id", "reserved"),
        ("/participants/3/user_id", "empty"),
    ]
    room = await ada.create(kind="room")
    answer = await ada.http.post(
        f"{path(room)}/participants", json={"user_id": "service", "role": "member"}
    )
    assert pointers(refused(answer, 422, "validation")) == [("/user_id", "reserved")]


async def test_an_idempotency_key_stands_for_an_id(ada: Person, bob: Person) -> None:
    """The same key of the same user is the same conversation; another user's is another."""
    header = {b"idempotency-key": "any text, même accentué".encode("latin-1")}

    first = expect(await ada.http.post("/v1/conversations", json={}, headers=header), 201)
    again = expect(await ada.http.post("/v1/conversations", json={}, headers=header), 200)
    theirs = expect(await bob.http.post("/v1/conversations", json={}, headers=header), 201)

    assert first["id"] == again["id"] != theirs["id"]


async def test_an_empty_idempotency_key_is_refused(ada: Person) -> None:
    """A key that says nothing would make everything the same."""
    answer = await ada.http.post("/v1/conversations", json={}, headers={"idempotency-key": " "})

    refused(answer, 422, "validation")


async def test_a_subject_has_one_active_conversation(ada: Person) -> None:
    """A second one is refused until the first is archived, and then the first cannot come back."""
    first = await ada.create(subject="maths")

    refused(
        await ada.http.post("/v1/conversations", json={"subject": "maths"}), 409, "subject-taken"
    )
    expect(await ada.http.patch(path(first), json={"archived": True}), 200)
    await ada.create(subject="maths")
    back = await ada.http.patch(path(first), json={"archived": False})

    refused(back, 409, "subject-taken")


async def test_a_change_is_one_rev_and_leaves_the_rest(ada: Person) -> None:
    """PATCH changes what it names; saying what already stands changes no rev."""
    made = await ada.create(title="Plans", metadata={"a": 1})

    body = {"title": "Other", "history_limit": 5}
    changed = expect(await ada.http.patch(path(made), json=body), 200)
    same = expect(await ada.http.patch(path(made), json=body), 200)
    nothing = expect(await ada.http.patch(path(made), json={}), 200)

    assert (changed["title"], changed["history_limit"], changed["rev"]) == ("Other", 5, 2)
    assert changed["metadata"] == {"a": 1}
    assert same == nothing == changed


async def test_an_agent_is_never_changed(ada: Person) -> None:
    """Not even to none."""
    made = await ada.create()

    for agent in (str(uuid.uuid4()), None):
        refused(await ada.http.patch(path(made), json={"agent_id": agent}), 409, "agent-fixed")


async def test_an_archived_conversation_is_read_and_not_written(ada: Person) -> None:
    """It leaves the list for the list of the archived, and takes no message until it is back."""
    made = await ada.talk(2)

    archived = expect(await ada.http.patch(path(made), json={"archived": True}), 200)

    assert archived["archived_at"]
    active = expect(await ada.http.get("/v1/conversations"), 200)
    old = expect(await ada.http.get("/v1/conversations?archived=true"), 200)
    assert (active["data"], [one["id"] for one in old["data"]]) == ([], [made["id"]])
    assert expect(await ada.http.get(f"{path(made)}/messages"), 200)["total"] == 2
    refused(await ada.http.post(f"{path(made)}/messages", json={"content": "x"}), 409, "archived")
    expect(await ada.http.patch(path(made), json={"archived": False}), 200)
    await ada.say(made, "back")


async def test_an_erased_conversation_is_gone_for_ever(ada: Person) -> None:
    """Everything about it answers 410, and its id cannot be used again."""
    made = await ada.talk(1)

    answer = await ada.http.delete(path(made))

    assert (answer.status_code, answer.content) == (204, b"")
    for method, where, body in (
        ("GET", "", None),
        ("DELETE", "", None),
        ("PATCH", "", {}),
        ("GET", "/messages", None),
        ("GET", "/messages/1", None),
        ("POST", "/messages", {"content": "x"}),
        ("GET", "/context", None),
        ("GET", "/stats", None),
        ("GET", "/export", None),
    ):
        refused(await ada.http.request(method, path(made) + where, json=body), 410, "gone")
    again = await ada.http.post("/v1/conversations", json={"id": made["id"]})
    refused(again, 410, "gone")


async def test_the_list_is_mine_latest_first_and_paged(ada: Person, bob: Person) -> None:
    """A cursor goes on where the page ended, through everything, once."""
    made = [await ada.create(title=str(n)) for n in range(5)]
    await bob.create()
    await ada.say(made[1], "hello")
    expected = [made[n]["id"] for n in (1, 4, 3, 2, 0)]

    seen: list[str] = []
    cursor = ""
    while True:
        page = expect(await ada.http.get(f"/v1/conversations?limit=2{cursor}"), 200)
        seen += [one["id"] for one in page["data"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"

    assert seen == expected
    assert page["list_rev"] == 5


async def test_the_list_is_filtered(ada: Person) -> None:
    """By kind and by subject, also one called null."""
    room = await ada.create(kind="room")
    null = await ada.create(subject="null")

    rooms = expect(await ada.http.get("/v1/conversations?kind=room"), 200)
    subjects = expect(await ada.http.get("/v1/conversations?subject=null"), 200)

    assert [one["id"] for one in rooms["data"]] == [room["id"]]
    assert [one["id"] for one in subjects["data"]] == [null["id"]]


async def test_the_list_refuses_what_makes_no_sense(ada: Person) -> None:
    """Limits out of range, cursors of somebody else, unknown kinds and filters."""
    for query, fault in (
        ("limit=0", ("/limit", "range")),
        ("limit=101", ("/limit", "range")),
        ("limit=1e1", ("/limit", "type")),
        ("limit=", ("/limit", "type")),
        ("limit=9999999999999999999999", ("/limit", "type")),
        ("cursor=!", ("/cursor", "cursor")),
        ("cursor=AAAA", ("/cursor", "cursor")),
        ("cursor=_____________________w", ("/cursor", "cursor")),
        ("kind=group", ("/kind", "choice")),
        ("archived=yes", ("/archived", "type")),
        ("limt=3", ("/limt", "unknown-field")),
        ("limit=1&limit=2", ("/limit", "duplicate")),
        ("subject=%00", ("/subject", "nul-character")),
        ("subject=%ff", ("", "query")),
    ):
        problem = refused(await ada.http.get(f"/v1/conversations?{query}"), 422, "validation")
        assert pointers(problem) == [fault], query


async def test_stats_count_what_was_said(ada: Person) -> None:
    """By role, with times of one form; an empty conversation has none."""
    made = await ada.talk(3)
    empty = await ada.create()

    stats = expect(await ada.http.get(f"{path(made)}/stats"), 200)
    none = expect(await ada.http.get(f"{path(empty)}/stats"), 200)

    assert stats["messages"] == {"user": 2, "assistant": 1, "tool": 0, "system": 0}
    assert stats["tokens"] > 0
    assert len(stats["first_at"]) == len(stats["last_at"]) == len("2026-01-01T00:00:00.000000Z")
    assert stats["feedback"] == {"up": 0, "down": 0}
    assert none["first_at"] is none["last_at"] is None
    assert none["response_seconds"] == {"p50": None, "p95": None}


async def test_i_am_who_my_token_says(ada: Person, root: Person) -> None:
    """Id, name, e-mail and role."""
    me = expect(await ada.http.get("/v1/me"), 200)
    admin = expect(await root.http.get("/v1/me"), 200)

    assert me == {"id": ada.id, "name": "Ada", "email": None, "role": "user"}
    assert admin["role"] == "admin"
