"""Promise: an agent that is accepted can be put to its model; what is wrong is said, and where."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from greffier.agents.providers.script import check_script
from greffier.errors import Invalid, PayloadTooLarge
from greffier.model.agent import Agent, AgentPatch, NewAgent, Rules, check, merged
from greffier.model.limits import Limits

RULES = Rules(providers=frozenset({"echo", "script", "mistral"}), script=check_script)


def asked(**more: Any) -> NewAgent:
    """An agent as it is asked for."""
    return msgspec.convert({"name": "A", "provider": "echo", "model": "m", **more}, NewAgent)


def tool(name: str = "look", url: str | None = None, **more: Any) -> dict[str, Any]:
    """A tool as OpenAI writes it."""
    found: dict[str, Any] = {"type": "function", "function": {"name": name, **more}}
    return found if url is None else {**found, "url": url}


def faults(new: NewAgent, rules: Rules = RULES) -> list[tuple[str, str]]:
    """Where and which the faults of an agent are."""
    with pytest.raises(Invalid) as refused:
        check(new, rules)
    return [(one.pointer, one.code) for one in refused.value.problems]


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        ({"name": ""}, [("/name", "empty")]),
        ({"name": " "}, [("/name", "empty")]),
        ({"name": "é" * 129}, [("/name", "too-long")]),
        ({"name": "a\x00"}, [("/name", "nul-character")]),
        ({"model": ""}, [("/model", "empty")]),
        ({"provider": "openia"}, [("/provider", "unknown-provider")]),
        ({"instructions": "a\x00"}, [("/instructions", "nul-character")]),
        ({"params": {"a": ["\x00"]}}, [("/params/a/0", "nul-character")]),
        ({"tools": [tool(""), tool("a b"), tool("é"), tool("a" * 65)]},
         [(f"/tools/{n}/function/name", "name") for n in range(4)]),
        ({"tools": [tool("a"), tool("b"), tool("a")]}, [("/tools/2/function/name", "duplicate")]),
        ({"tools": [tool(f"t{n}") for n in range(129)]}, [("/tools", "too-many")]),
        ({"tools": [tool(parameters={"type": "string"})]},
         [("/tools/0/function/parameters/type", "schema")]),
        ({"tools": [tool(parameters={"type": "object", "properties": ["a"], "required": "a"})]},
         [("/tools/0/function/parameters/properties", "schema"),
          ("/tools/0/function/parameters/required", "schema")]),
        ({"tools": [tool(parameters={"properties": {"a": "string"}})]},
         [("/tools/0/function/parameters/properties/a", "schema")]),
        ({"tools": [tool(description="a\x00")]},
         [("/tools/0/function/description", "nul-character")]),
        ({"provider": "script"}, [("/params/script", "type")]),
        ({"provider": "script", "params": {"script": [{"event": "sing", "data": {}}]}},
         [("/params/script/0/event", "unknown")]),
        # Everything that is wrong, at once.
        ({"name": "", "model": "", "provider": "x"},
         [("/name", "empty"), ("/model", "empty"), ("/provider", "unknown-provider")]),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(
    wrong: dict[str, Any], found: list[tuple[str, str]]
) -> None:
    """With the place that is wrong."""
    assert faults(asked(**wrong)) == found


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/look",
        "ftp://example.org",
        "https://",
        "https:///look",
        "https://ada:secret@example.org",
        "https://example.org/#part",
        "https://example.org:port/",
        "https://[::1",
        "https://example.org/a b",
        "https://exämple.org",
        "example.org",
        "https://example.org/" + "a" * 2048,
    ],
)
def test_a_tool_is_asked_over_https_at_a_plain_address(url: str) -> None:
    """What would show a password, or read differently to two programs, is none."""
    assert faults(asked(tools=[tool(url=url)])) == [("/tools/0/url", "url")]


def test_a_tool_may_be_asked_without_tls_where_the_server_allows_private_targets() -> None:
    """For what runs on the same machine."""
    new = asked(tools=[tool(url="http://127.0.0.1:9000/look")])

    check(new, Rules(plain_urls=True))
    assert faults(new, Rules()) == [("/tools/0/url", "url")]


def test_a_program_that_was_told_of_no_provider_takes_any_name() -> None:
    """The settings of the server that runs the agent say which there are."""
    assert check(asked(provider="somewhere")).columns[1] == "somewhere"


@pytest.mark.parametrize("field", ["instructions", "tools", "params"])
def test_what_is_too_large_is_refused_as_such(field: str) -> None:
    """The bound is that of a message."""
    large: dict[str, Any] = {
        "instructions": "a" * 101,
        "tools": [tool(description="a" * 101)],
        "params": {"stop": "a" * 101},
    }
    limits = Limits(content=100)

    with pytest.raises(PayloadTooLarge, match=f"/{field}"):
        check(asked(**{field: large[field]}), RULES, limits=limits)


def test_the_same_request_has_the_same_hash_and_another_has_another() -> None:
    """Also where nothing and an empty thing mean the same."""
    empty: list[dict[str, Any]] = [{}, {"tools": []}, {"params": {}}]
    same = {check(asked(**more)).request_hash for more in empty}
    others = {
        check(asked(**more)).request_hash
        for more in (
            {},
            {"name": "B"},
            {"model": "n"},
            {"provider": "script"},
            {"instructions": "be kind"},
            {"tools": [tool()]},
            {"tools": [tool(url="https://example.org")]},
            {"params": {"temperature": 0}},
            {"params": {"temperature": 1}},
        )
    }

    assert (len(same), len(others)) == (1, 9)


def test_a_change_is_laid_over_the_agent() -> None:
    """What is not given stays; null takes away."""
    agent = msgspec.convert(
        {
            "id": "0197f0c8-7a50-7bbb-8f6e-000000000001",
            "name": "A",
            "provider": "echo",
            "model": "m",
            "instructions": "be kind",
            "tools": [tool()],
            "params": {"temperature": 1},
            "version": 3,
            **dict.fromkeys(("created_at", "updated_at"), "2026-01-01T00:00:00Z"),
        },
        Agent,
    )

    same = merged(agent, AgentPatch())
    assert same.tools == agent.tools
    renamed = merged(agent, AgentPatch(name="B"))
    assert (renamed.name, renamed.instructions) == ("B", "be kind")
    bare = merged(agent, AgentPatch(instructions=None, tools=None, params=None))
    assert (bare.instructions, bare.tools, bare.params) == (None, [], {})
