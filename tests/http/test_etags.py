"""Promise: what did not change is not sent again; a change meant for another state is refused."""

from __future__ import annotations

import pytest

from helpers.api import Person, expect, path, refused


@pytest.mark.parametrize("where", ["", "/messages", "/messages/1"])
async def test_what_the_caller_has_is_not_sent_again(ada: Person, where: str) -> None:
    """304 with the ETag and no body, until something changes."""
    made = await ada.talk(1)
    url = path(made) + where

    first = await ada.http.get(url)
    tag = first.headers["etag"]
    assert tag.startswith('"')

    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        again = await ada.http.get(url, headers={"if-none-match": known})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == tag
    other = await ada.http.get(url, headers={"if-none-match": '"other"'})
    assert other.content == first.content


async def test_a_list_has_an_etag_too(ada: Person) -> None:
    """It changes with what is in the list."""
    made = await ada.create()
    tag = (await ada.http.get("/v1/conversations")).headers["etag"]

    same = await ada.http.get("/v1/conversations", headers={"if-none-match": tag})
    await ada.say(made, "hello")
    changed = await ada.http.get("/v1/conversations", headers={"if-none-match": tag})

    assert (same.status_code, changed.status_code) == (304, 200)


async def test_a_change_is_made_for_the_state_that_was_seen(ada: Person) -> None:
    """If-Match lets one of two changes through, and says so to the other."""
    made = await ada.create()
    tag = (await ada.http.get(path(made))).headers["etag"]

    first = await ada.http.patch(path(made), json={"title": "a"}, headers={"if-match": tag})
    second = await ada.http.patch(path(made), json={"title": "b"}, headers={"if-match": tag})
    third = await ada.http.patch(
        path(made), json={"title": "c"}, headers={"if-match": f"{tag}, {first.headers['etag']}"}
    )

    assert first.status_code == third.status_code == 200
    refused(second, 412, "stale")
    assert expect(await ada.http.get(path(made)), 200)["title"] == "c"


async def test_any_state_will_do_for_a_star(ada: Person) -> None:
    """If-Match: * asks only that there is a conversation."""
    made = await ada.create()

    answer = await ada.http.patch(path(made), json={"title": "a"}, headers={"if-match": "*"})
    await ada.http.delete(path(made))
    gone = await ada.http.patch(path(made), json={"title": "b"}, headers={"if-match": "*"})

    assert answer.status_code == 200
    refused(gone, 410, "gone")


async def test_a_tag_that_names_no_state_is_stale(ada: Person) -> None:
    """Garbage, a weak tag, a tag of another history, a list's tag."""
    made = await ada.create()
    tag = (await ada.http.get(path(made))).headers["etag"]
    listing = (await ada.http.get("/v1/conversations")).headers["etag"]

    for bad in (
        "",
        "1",
        '"1"',
        tag[:-1],
        f"W/{tag}",
        tag.replace(made["epoch"], "0" * 12),
        listing,
    ):
        answer = await ada.http.patch(path(made), json={"title": "x"}, headers={"if-match": bad})
        refused(answer, 412, "stale")


async def test_head_answers_like_get_without_a_body(ada: Person) -> None:
    """Same status and headers, length included."""
    made = await ada.talk(2)

    for url in (path(made), f"{path(made)}/messages", "/v1/me", "/healthz", "/"):
        get = await ada.http.get(url)
        head = await ada.http.head(url)
        assert (head.status_code, head.content) == (get.status_code, b"")
        for name in ("content-length", "etag", "content-type"):
            assert head.headers.get(name) == get.headers.get(name)
