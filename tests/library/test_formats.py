"""Exports for people: text stays text, whatever it says."""

from __future__ import annotations

import csv
import io
from html.parser import HTMLParser

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from greffier.read.formats import Html, Markdown, cell, form

CONVERSATION = msgspec.json.encode(
    {
        "id": "01a21578-98c9-720f-8630-9e9f74496eca",
        "kind": "assistant",
        "title": "Plans <b>& co</b>",
        "owner_id": "ada",
        "history_limit": 30,
        "metadata": {},
        "created_at": "2026-11-26T01:00:00.000000Z",
        "updated_at": "2026-11-26T01:00:00.000000Z",
        "first_seq": 1,
        "last_seq": 1,
        "message_count": 1,
        "rev": 2,
        "epoch": "0e2794d20b97",
    }
)


def message(**fields: object) -> bytes:
    """A message as it is stored, with some fields of one's own."""
    return msgspec.json.encode(
        {
            "conversation_id": "01a21578-98c9-720f-8630-9e9f74496eca",
            "seq": 1,
            "id": "01a21578-98d6-7e48-b245-d80fd8ba8b4b",
            "role": "user",
            "author_id": "ada",
            "written_by": "ada",
            "created_at": "2026-11-26T01:00:00.123456Z",
            "rev": 2,
            **fields,
        }
    )


class Seen(HTMLParser):
    """Collects the tags and the text a browser would see."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag and its attributes."""
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        """Note what is shown."""
        self.text += data


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "  =", "\uff1d"])
def test_a_cell_cannot_become_a_formula(start: str) -> None:
    """A spreadsheet shows such a text and computes nothing."""
    assert cell(f"{start}HYPERLINK(A1)").startswith("'")


def test_a_number_of_ours_is_no_formula() -> None:
    """A seq stays a number, without an apostrophe."""
    assert cell(12) == "12"


@given(st.text())
def test_csv_gives_back_every_text(content: str) -> None:
    """Commas, quotes, newlines and accents come back as they were, but for the apostrophe."""
    writer = form("csv", CONVERSATION)
    table = (writer.head() + writer.message(message(content=content)) + writer.tail()).decode()

    (row,) = csv.DictReader(io.StringIO(table, newline=""))

    assert row["content"] == cell(content)


@given(st.text(alphabet=st.sampled_from("<>&\"'/=scriptonload javascript:é\n")))
def test_html_shows_markup_as_the_characters_it_is(content: str) -> None:
    """No text makes a tag or an attribute of its own, in any field that is shown."""
    plain, marked = Seen(), Seen()
    calls = [{"id": "c", "type": "function", "function": {"name": content, "arguments": content}}]
    fields = {"role": "assistant", "tool_calls": calls, "reasoning": "x", "author_name": "x"}
    plain.feed(Html(CONVERSATION).message(message(content="x", **fields)).decode())
    marked.feed(
        Html(CONVERSATION)
        .message(message(content=content or "x", **fields | {"reasoning": content or "x"}))
        .decode()
    )

    assert marked.tags == plain.tags
    assert marked.attributes == plain.attributes
    assert content.strip() in marked.text


def test_html_has_no_active_content_and_loads_nothing() -> None:
    """A script, an image, a frame or an address to load is nowhere on the page."""
    page = Html(CONVERSATION, "fr")
    parts = [{"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}]
    whole = page.head() + page.message(message(content="<script>x</script>", parts=parts))
    seen = Seen()

    seen.feed((whole + page.tail()).decode())

    assert not {"script", "img", "iframe", "link", "a", "object"} & set(seen.tags)
    assert not {"src", "href", "onload", "onclick"} & seen.attributes
    assert b"default-src 'none'" in whole
    assert "https://example.org/a.png" in seen.text


def test_markdown_fences_what_holds_fences() -> None:
    """A tool's result with code fences in it stays inside its own."""
    text = Markdown(CONVERSATION).message(
        message(role="tool", content="```\n# no heading\n```", tool_call_id="c")
    )

    assert b"````\n```\n# no heading\n```\n````" in text


def test_a_deleted_message_is_shown_as_deleted() -> None:
    """Its place stays, its words do not, in the reader's language."""
    body = message(deleted_at="2026-11-26T01:00:00.000000Z")

    assert "Ce message a été supprimé." in Html(CONVERSATION, "fr").message(body).decode()
