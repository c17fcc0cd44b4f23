"""Greffier keeps conversations: what was said, in order, never lost, never doubled.

The way of a message is the layout of this package: ``change`` (a verb checks its draft) → ``store``
(one SQL function in one transaction) → ``publish`` → ``deliver``; ``read`` is the way back, and
``model`` holds the values and rules that know no input or output.
"""

from greffier._version import __version__
from greffier.agents.asking import RunEvent, Runs
from greffier.agents.tools import ToolFailed, ToolRun
from greffier.deliver.keeping import Endpoints, Sources
from greffier.errors import (
    AgentFixed,
    Archived,
    EmbeddedError,
    Error,
    Forbidden,
    Gone,
    IdReused,
    Invalid,
    NotFound,
    PayloadTooLarge,
    Problem,
    QuotaExceeded,
    RateLimited,
    RunActive,
    SchemaError,
    SettingsError,
    Stale,
    SubjectTaken,
    Unauthenticated,
    Unavailable,
    UnsupportedMediaType,
)
from greffier.library import Agents, Conversations, Greffier, Messages, open  # noqa: A004
from greffier.model.agent import Agent, AgentList, Tool, ToolFunction
from greffier.model.conversation import Conversation, LastMessage, Membership
from greffier.model.endpoint import Endpoint, EndpointList, MadeEndpoint
from greffier.model.message import Draft, Function, Message, ToolCall
from greffier.model.page import Author, Context, ConversationList, Omitted, Page
from greffier.model.run import Run, RunError, RunUsage
from greffier.model.source import Incoming, MadeSource, Receipt, Received, Source, SourceList
from greffier.model.tokens import TokenCounter, estimate
from greffier.model.usage import AgentUsage, Quota, Spent, Usage
from greffier.publish.told import Change
from greffier.read.stats import Stats
from greffier.sync import open_sync

__all__ = [
    "Agent",
    "AgentFixed",
    "AgentList",
    "AgentUsage",
    "Agents",
    "Archived",
    "Author",
    "Change",
    "Context",
    "Conversation",
    "ConversationList",
    "Conversations",
    "Draft",
    "EmbeddedError",
    "Endpoint",
    "EndpointList",
    "Endpoints",
    "Error",
    "Forbidden",
    "Function",
    "Gone",
    "Greffier",
    "IdReused",
    "Incoming",
    "Invalid",
    "LastMessage",
    "MadeEndpoint",
    "MadeSource",
    "Membership",
    "Message",
    "Messages",
    "NotFound",
    "Omitted",
    "Page",
    "PayloadTooLarge",
    "Problem",
    "Quota",
    "QuotaExceeded",
    "RateLimited",
    "Receipt",
    "Received",
    "Run",
    "RunActive",
    "RunError",
    "RunEvent",
    "RunUsage",
    "Runs",
    "SchemaError",
    "SettingsError",
    "Source",
    "SourceList",
    "Sources",
    "Spent",
    "Stale",
    "Stats",
    "SubjectTaken",
    "TokenCounter",
    "Tool",
    "ToolCall",
    "ToolFailed",
    "ToolFunction",
    "ToolRun",
    "Unauthenticated",
    "Unavailable",
    "UnsupportedMediaType",
    "Usage",
    "__version__",
    "estimate",
    "open",
    "open_sync",
]
