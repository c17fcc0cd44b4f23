"""Texts that PostgreSQL cannot hold: kept, told, and given back where that can be."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greffier.imports.scrub import Notes, UnfitError, restore, storable
from greffier.imports.values import parse
from greffier.model import text

#: Any text, halves of surrogate pairs, NULs and our own escape characters among it.
texts = st.text(
    st.characters()
    | st.sampled_from("\x00\ue000\ue001\ud83d\ude00")
    | st.characters(categories=["Cs"])
)
documents = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


def has_halves(value: str) -> bool:
    """Whether a text has halves of surrogate pairs that no other half completes."""
    return "\ufffd" in value.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace(
        "\ufffd", "", value.count("\ufffd")
    )


@given(texts)
def test_an_escaped_text_can_be_stored_and_read_back(value: str) -> None:
    """NULs come back exactly; only half a pair is lost, and then that is said."""
    safe, nuls, halves = text.escape(value)
    assert text.faults(safe, "") is None
    assert nuls == value.count("\x00")
    assert bool(halves) == has_halves(value)
    if not halves:
        whole = value.encode("utf-16", "surrogatepass").decode("utf-16")
        assert (text.unescape(safe) if nuls else safe) == whole
    else:
        assert safe.count("\ufffd") == value.count("\ufffd") + halves


@given(documents)
def test_any_value_can_be_made_storable_and_restored(value: Any) -> None:
    """In keys and values, however deep; what was altered is told by its pointer."""
    value = json.loads(json.dumps(value))  # halves that meet are one character, as in any parser
    notes = Notes()
    try:
        safe = storable(value, notes)
    except UnfitError:  # two keys became one; the only reason, as the last test here says
        return
    assert text.deep_faults(safe, "") is None
    json.dumps(safe, ensure_ascii=False).encode()
    if "surrogate-replaced" not in notes.names():
        assert restore(safe, notes.places) == value
    if not notes.places:
        assert safe == value


def test_what_was_done_is_noted_where_it_was_done() -> None:
    """A JSON pointer for each place, by what was done there."""
    notes = Notes()
    value = parse('{"a": ["x\\u0000y", "\\ud800"], "b/c": {"n\\u0000": 1e999}, "ok": "\ue000"}')
    assert storable(value, notes) == {
        "a": ["x\ue000\ue001y", "\ufffd"],
        "b/c": {"n\ue000\ue001": "1e999"},
        "ok": "\ue000",
    }
    assert notes.places == {
        "nul-escaped": ["/a/0"],
        "surrogate-replaced": ["/a/1"],
        "nul-escaped-key": ["/b~1c/n\ue000\ue001"],
        "number-as-text": ["/b~1c/n\ue000\ue001"],
    }
    assert notes.names() == {"nul-escaped", "surrogate-replaced", "number-as-text"}


@pytest.mark.parametrize("document", ['{"a": 1, "a": 2}', '[{"x": {"a": 1, "a": 1}}]'])
def test_a_key_that_stands_twice_is_not_stored(document: str) -> None:
    """PostgreSQL would keep the last in silence."""
    with pytest.raises(UnfitError) as caught:
        storable(parse(document), Notes())
    assert caught.value.reason == "duplicate-key"


def test_keys_that_would_become_one_are_not_stored() -> None:
    """Two different halves both become U+FFFD."""
    with pytest.raises(UnfitError) as caught:
        storable(parse('{"\\ud800": 1, "\\ud801": 2}'), Notes())
    assert caught.value.reason == "duplicate-key"
