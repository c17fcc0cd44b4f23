"""Real conversations of an agent with tools (tau-bench) are had again, to the same transcript."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from greffier.agents.tools import Tool, ToolRun
from helpers.api import Person, expect, path
from helpers.openai_server import USAGE, Reply, call, saying
from helpers.sample_data import sample_data
from helpers.working import Working

#: Of the 75, every so many.
STEP = 5
Said = dict[str, Any]


class Transcript:
    """A conversation as it was recorded: what the model and the tools say next, by position."""

    def __init__(self, number: int, messages: list[Said]) -> None:
        self.model = f"tau-{number}"
        self.instructions = messages[0]["content"]
        # Up to the last answer in words: behind it is nothing that a run would end with.
        last = max(n for n, one in enumerate(messages) if _is_answer(one))
        self.messages = messages[1 : last + 1]
        self.results = [one for one in self.messages if one["role"] == "tool"]
        self.called = 0

    def tools(self) -> set[str]:
        """The names of what is called in it."""
        return {
            one["function"]["name"]
            for said in self.messages
            for one in said.get("tool_calls") or ()
        }

    def reply(self, body: Said) -> Reply:
        """Say what the model said then: the question holds all that was said before it."""
        asked = [one for one in body["messages"] if one["role"] != "system"]
        said = self.messages[len(asked)]
        assert said["role"] == "assistant"
        words = [said["content"]] if said["content"] else []
        calls = [
            call(one["id"], one["function"]["name"], one["function"]["arguments"], index)
            for index, one in enumerate(said.get("tool_calls") or ())
        ]
        return saying(*words, *calls)

    def result(self, arguments: str, run: ToolRun) -> str:
        """Answer as the tool did then: the same id names several calls, so by position."""
        before = [one for said in self.messages for one in said.get("tool_calls") or ()]
        made, recorded = before[self.called], self.results[self.called]
        assert (made["id"], made["function"]["arguments"]) == (run.call_id, arguments)
        self.called += 1
        result: str = recorded["content"]
        return result


def _is_answer(message: Said) -> bool:
    return message["role"] == "assistant" and not message.get("tool_calls")


def _plain(message: Said) -> tuple[Any, ...]:
    """What of a message is the same on both sides."""
    return (
        message["role"],
        message["content"] or None,
        message.get("tool_calls") or None,
        message.get("tool_call_id"),
    )


async def test_recorded_conversations_are_had_again_word_for_word(
    work: Working, eve: Person
) -> None:
    """Each answer, call and result; every question the model gets is one a service takes.

    And what they used, summed up in the ledger, is what the service reported.
    """
    lines = (sample_data("tau-bench") / "airline_openai_messages.jsonl").read_text().splitlines()
    transcripts = {
        one.model: one
        for one in (
            Transcript(number, json.loads(lines[number])["messages"])
            for number in range(0, len(lines), STEP)
        )
    }
    work.provider.always(lambda body: transcripts[body["model"]].reply(body))
    talks: dict[str, Transcript] = {}

    def answered(name: str) -> Tool:
        def result(arguments: str, extra: dict[str, ToolRun]) -> str:
            by_model = talks[str(extra["run"].conversation_id)]
            return by_model.result(arguments, extra["run"])

        return Tool(name, "", {"type": "object"}, result, "run")

    for name in sorted({name for one in transcripts.values() for name in one.tools()}):
        work.tools.register(answered(name))

    async def have(transcript: Transcript) -> None:
        agent = await work.agent(
            model=transcript.model,
            instructions=transcript.instructions,
            tools=[
                {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}
                for name in sorted(transcript.tools())
            ],
        )
        talk = await work.talk(eve, agent, history_limit=1000)
        talks[talk["id"]] = transcript
        for message in transcript.messages:
            if message["role"] == "user":
                events = await work.answer(eve, talk, {"message": {"content": message["content"]}})
                assert events[-1].name == "run.completed", events[-1]
        said: list[Said] = []
        while len(said) < len(transcript.messages):
            after = said[-1]["seq"] if said else 0
            page = await eve.http.get(f"{path(talk)}/messages?after={after}&limit=100")
            said += expect(page, 200)["data"]
        assert list(map(_plain, said)) == list(map(_plain, transcript.messages))

    await asyncio.gather(*map(have, transcripts.values()))

    asked = len(work.provider.requests)
    assert asked == sum(
        one["role"] == "assistant" for each in transcripts.values() for one in each.messages
    )
    assert await work.fetch(
        "select sum(calls), sum(input_tokens), sum(output_tokens) from greffier.usage"
    ) == [(asked, asked * USAGE["prompt_tokens"], asked * USAGE["completion_tokens"])]
