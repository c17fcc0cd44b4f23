"""Speaking: one run's model is asked, its tools are called, and it is asked again.

What it says goes to the run's voice as it comes; nothing here decides what of it is on record.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Protocol

import msgspec

from greffier.agents.providers.protocol import (
    Ask,
    Content,
    Finished,
    Provider,
    ProviderError,
    Reasoning,
    ToolCall,
    ToolResult,
    ToolSpec,
    Used,
)
from greffier.agents.tools import ToolRun
from greffier.agents.voice import Voice

#: Questions put to the model in one run: tools that call for tools end here.
MOST_STEPS = 16
#: Calls of one answer.
MOST_CALLS = 64
#: Characters of one run, reasoning and tools included.
MOST_TEXT = 4 << 20
#: Tokens of one question: who counts more has miscounted, and a sum of them would be none.
MOST_TOKENS = 10**12


class _Function(msgspec.Struct, frozen=True):
    name: str
    description: str = ""
    parameters: dict[str, Any] = msgspec.field(default_factory=dict)


class _Tool(msgspec.Struct, frozen=True):
    function: _Function
    url: str | None = None


class Agent(msgspec.Struct, frozen=True):
    """What of an agent a run needs, as it was when the run was asked for."""

    provider: str
    model: str
    instructions: str | None = None
    tools: list[_Tool] = msgspec.field(default_factory=list)
    params: dict[str, Any] = msgspec.field(default_factory=dict)


_encode = msgspec.json.Encoder(decimal_format="number").encode


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run is over."""

    status: str
    code: str | None = None
    detail: str | None = None


@dataclass(slots=True)
class _Answer:
    """What the model said to one question."""

    content: list[str] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    results: dict[str, str] = field(default_factory=dict)


class Means(Protocol):
    """What a run that speaks asks of the process it runs in."""

    def provider(self, name: str) -> Provider:
        """Give a provider."""

    def cost(self, agent: Agent, used: Used) -> Decimal:
        """Give what a call costs."""

    def answers(self, name: str, urls: Mapping[str, str]) -> bool:
        """Say whether a tool is called here, and not by the client."""

    async def call_tool(
        self, voice: Voice, step: int, call: ToolCall, urls: Mapping[str, str], run: ToolRun
    ) -> str:
        """Call a tool, with the intent on record before."""


class Speaking:
    """One run, from the first question to the last word."""

    def __init__(self, means: Means, voice: Voice, agent: Agent, asked_by: str) -> None:
        self._means = means
        self._voice = voice
        self._agent = agent
        self._asked_by = asked_by
        self._text = 0
        # What it took in all: of the questions that are answered, and then of the present one too.
        self._asked = 0
        self._spent, self._cost = Used(0, 0, 0), Decimal(0)
        self._used: Used | None = None
        # A model may name what it was never offered; that is nobody's to call but the client's.
        self._offered = frozenset(tool.function.name for tool in agent.tools)
        self._urls = {tool.function.name: tool.url for tool in agent.tools if tool.url}
        self._specs = [
            ToolSpec(tool.function.name, tool.function.description, tool.function.parameters)
            for tool in agent.tools
        ]

    async def answer(self, messages: list[dict[str, Any]]) -> Ended:
        """Ask, call the tools, and ask again, until the model has said its last word.

        Args:
            messages: The conversation, as the model is sent it.

        Raises:
            ProviderError: It failed.
            Lost: The run is no longer ours.
        """
        provider = self._means.provider(self._agent.provider)
        for step in range(1, MOST_STEPS + 1):
            said = await self._ask(provider, messages)
            open_calls = [call for call in said.calls if call.id not in said.results]
            ours = [call for call in open_calls if self._ours(call)]
            if not ours:
                break
            results = await self._call(step, ours)
            if len(ours) < len(open_calls):
                # The client has the rest; the next run goes on.
                break
            messages += _as_messages(said, results)
        else:
            raise ProviderError(
                "too-many-steps", f"The model called for tools {MOST_STEPS} times in a row."
            )
        return Ended("completed")

    async def _ask(self, provider: Provider, messages: Sequence[dict[str, Any]]) -> _Answer:
        voice = self._voice
        said = _Answer()
        self._close()
        self._asked += 1
        voice.took(self._account, told=False)
        ask = Ask(
            self._agent.model, self._agent.instructions, messages, self._specs, self._agent.params
        )
        async with aclosing(provider.answer(ask)) as pieces:
            async for piece in pieces:
                match piece:
                    case Content(text):
                        said.content.append(text)
                        self._say("content.delta", text)
                    case Reasoning(text):
                        self._say("reasoning.delta", text)
                    case ToolCall():
                        said.calls.append(piece)
                        if len(said.calls) > MOST_CALLS:
                            raise ProviderError(
                                "answer-too-long", f"It called more than {MOST_CALLS} tools."
                            )
                        self._say("tool.call", _encoded_call(piece))
                    case ToolResult(call_id, content):
                        said.results[call_id] = content
                        self._say("tool.result", _encoded_result(call_id, content))
                    case Used():
                        # As it comes: what is cut short is paid for too, as far as was told.
                        self._used = piece
                        voice.took(self._account, told=True)
                    case Finished():
                        # Nothing comes after it; why it ended decides nothing here.
                        pass
                if voice.crowded or voice.refused:
                    await voice.room()
        return said

    def _close(self) -> None:
        """Add what the question before took to what all took."""
        if self._used is not None:
            self._spent += _believable(self._used)
            self._cost += self._means.cost(self._agent, _believable(self._used))
            self._used = None

    def _account(self) -> str:
        """Give what the run took by now."""
        used = _believable(self._used or Used(0, 0, 0))
        spent = self._spent + used
        account = {
            "calls": self._asked,
            "input_tokens": spent.input_tokens,
            "output_tokens": spent.output_tokens,
            "cached_tokens": spent.cached_tokens,
            "cost": self._cost + self._means.cost(self._agent, used),
        }
        return _encode(account).decode()

    def _ours(self, call: ToolCall) -> bool:
        return call.name in self._offered and self._means.answers(call.name, self._urls)

    def _say(self, event: str, body: str) -> None:
        if not body:
            return
        self._text += len(body)
        if self._text > MOST_TEXT:
            raise ProviderError(
                "answer-too-long", f"The answer is longer than {MOST_TEXT} characters."
            )
        self._voice.say(event, body)

    async def _call(self, step: int, calls: Sequence[ToolCall]) -> dict[str, str]:
        """Call tools side by side; their results are told in the order of the calls."""
        claim = self._voice.held.claim
        # What a tool does is done for words that are on record.
        await self._voice.drained()
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(
                        self._means.call_tool(
                            self._voice, step, call, self._urls,
                            ToolRun(
                                claim.conversation_id, self._voice.run_id, call.id,
                                self._asked_by, claim.fence, step,
                            ),
                        )
                    )
                    for call in calls
                ]  # fmt: skip
        except ExceptionGroup as group:
            # Not except*, which would wrap it again.
            raise group.exceptions[0] from None
        results = {call.id: task.result() for call, task in zip(calls, tasks, strict=True)}
        for call_id, result in results.items():
            self._say("tool.result", _encoded_result(call_id, result))
        return results


def _encoded_call(call: ToolCall) -> str:
    return _encode({"id": call.id, "name": call.name, "arguments": call.arguments}).decode()


def _encoded_result(call_id: str, content: str) -> str:
    return _encode({"id": call_id, "content": content}).decode()


def _believable(used: Used) -> Used:
    """Give counts that can be summed up, whatever a provider says."""
    return Used(
        min(used.input_tokens, MOST_TOKENS),
        min(used.output_tokens, MOST_TOKENS),
        min(used.cached_tokens, MOST_TOKENS),
    )


def _as_messages(said: _Answer, results: Mapping[str, str]) -> list[dict[str, Any]]:
    """Give an answer and its tools' results as the next question repeats them."""
    everything = {**said.results, **results}
    return [
        {
            "role": "assistant",
            "content": "".join(said.content) or None,
            "tool_calls": [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                for call in said.calls
            ],
        },
        *(
            {"role": "tool", "tool_call_id": call.id, "content": everything[call.id]}
            for call in said.calls
        ),
    ]
