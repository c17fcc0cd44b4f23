"""The library: conversations in your own process, on an embedded PostgreSQL or on yours.

    async with greffier.open() as g:
        talk = await g.conversations.create(owner="ada", title="Plans")
        said = await g.messages.append(talk.id, role="user", content="Bonjour")

Calls on behalf of a user take ``actor=``; without it the caller is the service.
"""

from __future__ import annotations

import builtins
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

import msgspec

from greffier.agents.asking import Runs
from greffier.agents.follow import Runs as FollowedRuns
from greffier.agents.live import Live
from greffier.agents.providers.script import check_script
from greffier.agents.tools import Tool as ToolFunctionOfHere
from greffier.agents.tools import Tools
from greffier.change import agent as agent_verbs
from greffier.change import append as append_verb
from greffier.change import conversation as conversation_verbs
from greffier.change import feedback as feedback_verbs
from greffier.change import message as message_verbs
from greffier.change import path as path_verbs
from greffier.change import people as people_verbs
from greffier.change import quota as quota_verbs
from greffier.change import subject as subject_verbs
from greffier.change.feedback import Feedback
from greffier.change.people import Invited, Mark
from greffier.deliver.keeping import Endpoints, Sources
from greffier.embedded import default_data_dir, open_cluster
from greffier.errors import Invalid
from greffier.model.agent import Agent, AgentList, AgentPatch, NewAgent, Rules, Tool
from greffier.model.conversation import (
    Conversation,
    ConversationPatch,
    Kind,
    MemberRole,
    NewConversation,
)
from greffier.model.draft import SERVICE, Speaker
from greffier.model.ids import as_id
from greffier.model.message import Draft, Message, Role, ToolCall
from greffier.model.page import Context, ConversationList, Page
from greffier.model.source import Incoming, Received
from greffier.model.tokens import TokenCounter, estimate
from greffier.model.usage import Quota, Usage
from greffier.publish.told import Change
from greffier.read import agents as agent_reads
from greffier.read import context as context_read
from greffier.read import conversations as conversation_reads
from greffier.read import export as export_read
from greffier.read import history as history_reads
from greffier.read import pages as page_reads
from greffier.read import people as people_reads
from greffier.read import stats as stats_read
from greffier.read import usage as usage_reads
from greffier.read.history import Branch, Version
from greffier.read.people import Participant, Reader
from greffier.read.stats import Stats
from greffier.store.database import Database, open_database

_agent = msgspec.json.Decoder(Agent).decode
if TYPE_CHECKING:
    from greffier.agents.run import ProviderBook
    from greffier.settings import Settings

_conversation = msgspec.json.Decoder(Conversation).decode
_message = msgspec.json.Decoder(Message).decode
_page = msgspec.json.Decoder(Page).decode
_change = msgspec.json.Decoder(Change).decode
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])
UNSET = msgspec.UNSET
#: What agents are held to: which providers there are is in the settings of who runs them.
RULES = Rules(script=check_script)


def _converted(value: Any, kind: type[T]) -> T:
    """Make a typed value of a caller's, whose faults are refusals like any other."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise Invalid(str(error)) from error


def _speaker(actor: str | None) -> Speaker:
    return SERVICE if actor is None else Speaker(actor, actor, None, actor)


class Conversations:
    """Create, read, change, archive and erase conversations."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self,
        *,
        owner: str,
        id: UUID | str | None = None,  # noqa: A002 - the contract's name
        kind: Kind = "assistant",
        title: str | None = None,
        subject: str | None = None,
        agent: UUID | str | None = None,
        history_limit: int = 30,
        metadata: Mapping[str, Any] | None = None,
        participants: Mapping[str, str] | None = None,
    ) -> Conversation:
        """Create a conversation; the same request under the same id again finds it.

        Args:
            owner: The user it belongs to.
            id: Your own UUID for it, the idempotency key; one is made when not given.
            kind: ``assistant``, one person and a model, or ``room``.
            title: For display.
            subject: At most one active conversation per owner and subject.
            agent: Who answers here; never changes.
            history_limit: Messages a model is sent by default.
            metadata: A JSON object of yours, kept as it is.
            participants: Others from the start: user id to ``member`` or ``viewer``.

        Raises:
            Invalid, IdReused, SubjectTaken, Gone, Unavailable: See the errors.
        """
        new = _converted(
            {
                "id": None if id is None else as_id(id),
                "kind": kind,
                "title": title,
                "subject": subject,
                "agent_id": None if agent is None else as_id(agent, "/agent_id"),
                "history_limit": history_limit,
                "metadata": None if metadata is None else dict(metadata),
                "participants": None
                if participants is None
                else [{"user_id": user, "role": role} for user, role in participants.items()],
            },
            NewConversation,
        )
        made, _ = await conversation_verbs.create(self._database, new, owner)
        return await self.get(made, actor=owner)

    async def get(self, conversation_id: UUID | str, *, actor: str | None = None) -> Conversation:
        """Read one conversation as ``actor`` sees it.

        Raises:
            NotFound, Gone, Unavailable: See the errors.
        """
        body, _ = await conversation_reads.get(self._database, as_id(conversation_id), actor)
        return _conversation(body)

    async def list(
        self,
        *,
        user: str,
        limit: int = 20,
        cursor: str | None = None,
        kind: Kind | None = None,
        subject: str | None = None,
        archived: bool = False,
    ) -> ConversationList:
        """List a user's conversations, last activity first; go on with ``next_cursor``."""
        which = conversation_reads.Filter(kind, subject, archived)
        bodies, following, rev = await conversation_reads.listing(
            self._database, user, which, limit=limit, cursor=cursor
        )
        data = [_conversation(body) for body in bodies]
        return ConversationList(data=data, next_cursor=following, list_rev=rev)

    async def update(
        self,
        conversation_id: UUID | str,
        *,
        title: str | msgspec.UnsetType | None = UNSET,
        metadata: Mapping[str, Any] | msgspec.UnsetType = UNSET,
        history_limit: int | msgspec.UnsetType = UNSET,
        archived: bool | msgspec.UnsetType = UNSET,
        if_rev: int | None = None,
        actor: str | None = None,
    ) -> Conversation:
        """Change what may change, in one rev; what is not given stays.

        Raises:
            Stale: It is no longer at ``if_rev``.
            NotFound, Forbidden, Gone, SubjectTaken, Invalid, Unavailable: See the errors.
        """
        change = ConversationPatch(
            title=title,
            metadata=metadata if isinstance(metadata, msgspec.UnsetType) else dict(metadata),
            history_limit=history_limit,
            archived=archived,
        )
        found = as_id(conversation_id)
        await conversation_verbs.patch(self._database, found, change, actor, if_rev=if_rev)
        return await self.get(found, actor=actor)

    async def archive(
        self, conversation_id: UUID | str, *, actor: str | None = None
    ) -> Conversation:
        """Take it out of the active list; it is read as before and takes no new messages."""
        return await self.update(conversation_id, archived=True, actor=actor)

    async def erase(self, conversation_id: UUID | str, *, actor: str | None = None) -> None:
        """Erase it with everything in it; only its id is remembered, as gone."""
        await conversation_verbs.erase(self._database, as_id(conversation_id), actor)

    async def branches(
        self, conversation_id: UUID | str, *, actor: str | None = None
    ) -> builtins.list[Branch]:
        """List the paths that were left by rewinding, the last left first."""
        return await history_reads.branches(self._database, as_id(conversation_id), actor)

    async def activate(
        self,
        conversation_id: UUID | str,
        branch_id: UUID | str,
        *,
        actor: str | None = None,
    ) -> int:
        """Make a branch the active path; the present one becomes a branch.  Returns the rev."""
        found = as_id(conversation_id)
        return await path_verbs.activate(self._database, found, as_id(branch_id), actor)

    async def participants(
        self, conversation_id: UUID | str, *, actor: str | None = None
    ) -> builtins.list[Participant]:
        """List who is in it, in the order they came."""
        return await people_reads.participants(self._database, as_id(conversation_id), actor)

    async def join(
        self,
        conversation_id: UUID | str,
        user: str,
        *,
        role: MemberRole = "member",
        actor: str | None = None,
    ) -> int:
        """Bring somebody in or change their role; ``owner`` hands a room over.  Returns the rev."""
        found = as_id(conversation_id)
        return await people_verbs.set_participant(self._database, found, user, role, actor)

    async def leave(
        self, conversation_id: UUID | str, user: str, *, actor: str | None = None
    ) -> int:
        """Take somebody out; from this rev on they see nothing more.  Returns the rev."""
        found = as_id(conversation_id)
        return await people_verbs.remove_participant(self._database, found, user, actor)

    async def invite(
        self,
        conversation_id: UUID | str,
        *,
        role: MemberRole = "member",
        expires_in: float | None = None,
        max_uses: int | None = None,
        actor: str | None = None,
    ) -> Invited:
        """Make an invitation; its token is given this once and never stored."""
        return await people_verbs.invite(
            self._database,
            as_id(conversation_id),
            actor,
            role=role,
            expires_in=expires_in,
            max_uses=max_uses,
        )

    async def accept(self, token: str, *, user: str) -> Conversation:
        """Join by an invitation's token."""
        found = await people_verbs.accept(self._database, token, user)
        return await self.get(found, actor=user)

    async def read(self, conversation_id: UUID | str, seq: int, *, user: str) -> Mark:
        """Move a user's mark forward, never back, at most to the last message."""
        return await people_verbs.read_upto(self._database, as_id(conversation_id), user, seq)

    async def rate(
        self,
        conversation_id: UUID | str,
        rating: int,
        *,
        user: str,
        seq: int | None = None,
        comment: str | None = None,
    ) -> Feedback:
        """Give one's feedback, 1 or -1, on a message or (without ``seq``) on the conversation."""
        found = as_id(conversation_id)
        return await feedback_verbs.rate(self._database, found, seq, user, rating, comment)

    async def stats(self, conversation_id: UUID | str, *, actor: str | None = None) -> Stats:
        """Count what was said in it."""
        return await stats_read.stats(self._database, as_id(conversation_id), actor)

    async def export(
        self,
        conversation_id: UUID | str,
        format: str = "jsonl",  # noqa: A002 - the contract's name
        *,
        actor: str | None = None,
    ) -> AsyncIterator[bytes]:
        """Write it out, piece by piece, as of one moment; ``jsonl`` or ``json``."""
        async for piece in export_read.export(
            self._database, as_id(conversation_id), actor, format
        ):
            yield piece


class Messages:
    """Put messages on record, and read them in pages."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(
        self,
        conversation_id: UUID | str,
        *,
        role: Role = "user",
        content: str | None = None,
        id: UUID | str | None = None,  # noqa: A002 - the contract's name
        parts: Sequence[Mapping[str, Any]] | None = None,
        tool_calls: Sequence[ToolCall | Mapping[str, Any]] | None = None,
        tool_call_id: str | None = None,
        name: str | None = None,
        reasoning: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        said_at: datetime | None = None,
        actor: str | None = None,
    ) -> Message:
        """Append one message; it is committed to disk when this returns.

        Args:
            conversation_id: Where.
            role: ``user``, ``assistant``, ``tool`` or ``system``.
            content: What is said.
            id: Your own UUID, the idempotency key: sent again it is the same message.
            parts: OpenAI content parts, kept as given; ``content`` is then their text.
            tool_calls: Calls an assistant asks for.
            tool_call_id: Which call a tool's message answers.
            name: A name for the model.
            reasoning: What the model thought.
            metadata: A JSON object of yours.
            said_at: When it was said, if that is not now.
            actor: The user who says it; None is the service.

        Raises:
            Invalid, IdReused, NotFound, Gone, Forbidden, Archived, PayloadTooLarge, Unavailable:
                See the errors; nothing was stored, except perhaps after ``Unavailable``.
        """
        draft = Draft(
            id=None if id is None else as_id(id),
            role=role,
            content=content,
            parts=None if parts is None else [dict(part) for part in parts],
            tool_calls=None if tool_calls is None else _converted(tool_calls, list[ToolCall]),
            tool_call_id=tool_call_id,
            name=name,
            reasoning=reasoning,
            metadata=None if metadata is None else dict(metadata),
            said_at=said_at,
        )
        appended = await append_verb.append(
            self._database, as_id(conversation_id), [draft], _speaker(actor)
        )
        (message,) = appended.messages()
        return message

    async def append_many(
        self,
        conversation_id: UUID | str,
        messages: Sequence[Draft | Mapping[str, Any]],
        *,
        actor: str | None = None,
    ) -> list[Message]:
        """Append several messages, all or none, as one rev; ids already there are returned.

        Args:
            conversation_id: Where.
            messages: ``greffier.Draft`` values, or mappings with the same names.
            actor: The user who says them; None is the service.
        """
        drafts = [one if isinstance(one, Draft) else _converted(one, Draft) for one in messages]
        return await self._append(conversation_id, drafts, actor)

    async def _append(
        self, conversation_id: UUID | str, drafts: list[Draft], actor: str | None
    ) -> list[Message]:
        appended = await append_verb.append(
            self._database, as_id(conversation_id), drafts, _speaker(actor)
        )
        return appended.messages()

    async def recent(
        self, conversation_id: UUID | str, *, limit: int = 15, actor: str | None = None
    ) -> Page:
        """Read the latest page, oldest first."""
        return await self._page(conversation_id, page_reads.Where(limit), actor)

    async def before(
        self, conversation_id: UUID | str, seq: int, *, limit: int = 15, actor: str | None = None
    ) -> Page:
        """Read the page before a message."""
        return await self._page(conversation_id, page_reads.Where(limit, before=seq), actor)

    async def after(
        self, conversation_id: UUID | str, seq: int, *, limit: int = 15, actor: str | None = None
    ) -> Page:
        """Read the page after a message."""
        return await self._page(conversation_id, page_reads.Where(limit, after=seq), actor)

    async def around(
        self, conversation_id: UUID | str, seq: int, *, limit: int = 15, actor: str | None = None
    ) -> Page:
        """Read a page with a message in its middle."""
        return await self._page(conversation_id, page_reads.Where(limit, around=seq), actor)

    async def get(
        self, conversation_id: UUID | str, seq: int, *, actor: str | None = None
    ) -> Message:
        """Read one message, whole, on the active path or not."""
        body, _ = await page_reads.one(self._database, as_id(conversation_id), actor, seq)
        return _message(body)

    async def edit(
        self,
        conversation_id: UUID | str,
        seq: int,
        content: str,
        *,
        if_rev: int | None = None,
        actor: str | None = None,
    ) -> Message:
        """Give a message a new text; the earlier one stays among its versions.

        Raises:
            NotFound, Forbidden, Stale, Archived, Invalid, Unavailable: See the errors.
        """
        found = as_id(conversation_id)
        await message_verbs.edit(
            self._database, found, seq, content, _speaker(actor), if_rev=if_rev
        )
        return await self.get(found, seq, actor=actor)

    async def delete(
        self,
        conversation_id: UUID | str,
        seq: int,
        *,
        erase: bool = False,
        actor: str | None = None,
    ) -> int:
        """Delete a message, or erase it: then its content is nowhere any more.

        Returns:
            The conversation's rev afterwards.
        """
        return await message_verbs.delete(
            self._database, as_id(conversation_id), seq, actor, erase=erase
        )

    async def versions(
        self, conversation_id: UUID | str, seq: int, *, actor: str | None = None
    ) -> builtins.list[Version]:
        """List the earlier texts of an edited message, oldest first."""
        return await history_reads.versions(self._database, as_id(conversation_id), actor, seq)

    async def rewind(
        self, conversation_id: UUID | str, *, after_seq: int, actor: str | None = None
    ) -> int:
        """Take everything after a message off the active path; it stays on record as a branch.

        Returns:
            How many undeleted messages left the path.
        """
        done = await path_verbs.rewind(self._database, as_id(conversation_id), after_seq, actor)
        return done.removed

    async def readers(
        self, conversation_id: UUID | str, seq: int, *, actor: str | None = None
    ) -> builtins.list[Reader]:
        """Say who has read a message, and when; never its author."""
        return await people_reads.readers(self._database, as_id(conversation_id), actor, seq)

    async def _page(
        self, conversation_id: UUID | str, where: page_reads.Where, actor: str | None
    ) -> Page:
        found = await page_reads.page(self._database, as_id(conversation_id), actor, where)
        return _page(found.body())


class Agents:
    """Create, read, change and delete those who answer."""

    def __init__(self, database: Database, rules: Rules = RULES) -> None:
        self._database = database
        self._rules = rules

    async def create(
        self,
        *,
        name: str,
        provider: str,
        model: str,
        id: UUID | str | None = None,  # noqa: A002 - the contract's name
        instructions: str | None = None,
        tools: Sequence[Tool | Mapping[str, Any]] | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> Agent:
        """Create an agent; the same request under the same id again finds it.

        Args:
            name: For display, also beside what it says.
            provider: An entry of the settings of the server that runs it, ``echo`` or ``script``.
            model: As the provider calls it.
            id: Your own UUID for it, the idempotency key; one is made when not given.
            instructions: What the model is told before everything else.
            tools: Functions it may call, as OpenAI writes them, each with a ``url`` or without.
            params: What goes to the provider as it is (``temperature`` …).

        Raises:
            Invalid, IdReused, Gone, PayloadTooLarge, Unavailable: See the errors.
        """
        new = NewAgent(
            id=None if id is None else as_id(id),
            name=name,
            provider=provider,
            model=model,
            instructions=instructions,
            tools=_tools(tools),
            params=None if params is None else dict(params),
        )
        made, _ = await agent_verbs.create(self._database, new, self._rules)
        return await self.get(made)

    async def get(self, agent_id: UUID | str) -> Agent:
        """Read one agent.

        Raises:
            NotFound: There is none, or it was deleted.
        """
        body, _ = await agent_reads.get(self._database, as_id(agent_id))
        return _agent(body)

    async def list(self, *, limit: int = 20, cursor: str | None = None) -> AgentList:
        """List the agents, the oldest first; go on with ``next_cursor``."""
        bodies, following = await agent_reads.listing(self._database, limit=limit, cursor=cursor)
        return AgentList(data=[_agent(body) for body in bodies], next_cursor=following)

    async def update(
        self,
        agent_id: UUID | str,
        *,
        name: str | msgspec.UnsetType = UNSET,
        provider: str | msgspec.UnsetType = UNSET,
        model: str | msgspec.UnsetType = UNSET,
        instructions: str | msgspec.UnsetType | None = UNSET,
        tools: Sequence[Tool | Mapping[str, Any]] | msgspec.UnsetType | None = UNSET,
        params: Mapping[str, Any] | msgspec.UnsetType | None = UNSET,
        if_version: int | None = None,
    ) -> Agent:
        """Change what is given; runs that were asked for keep the agent as it was.

        Raises:
            Stale: It is no longer at ``if_version``.
            NotFound, Invalid, PayloadTooLarge, Unavailable: See the errors.
        """
        change = AgentPatch(
            name=name,
            provider=provider,
            model=model,
            instructions=instructions,
            tools=tools if isinstance(tools, msgspec.UnsetType) else _tools(tools),
            params=dict(params) if isinstance(params, Mapping) else params,
        )
        found = as_id(agent_id)
        await agent_verbs.patch(self._database, found, change, self._rules, if_version=if_version)
        return await self.get(found)

    async def delete(self, agent_id: UUID | str) -> None:
        """Let it begin no more runs; what it said stays.

        Raises:
            NotFound: There is none, or it was deleted before.
        """
        await agent_verbs.delete(self._database, as_id(agent_id))


def _tools(given: Sequence[Tool | Mapping[str, Any]] | None) -> list[Tool] | None:
    return None if given is None else _converted(given, list[Tool])


class Greffier:
    """An open record: its conversations, messages and agents, and what is read across them."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.conversations = Conversations(database)
        self.messages = Messages(database)
        self.agents = Agents(database)
        self.endpoints = Endpoints(database)
        self.sources = Sources(database, self._due)
        self._live: Live | None = None
        self.runs = Runs(database, self._followed, self._due)
        #: What models may call in this process; ``g.tool`` adds to it.
        self.tools = Tools()

    # -- live ----------------------------------------------------------------------------------

    async def _started(self) -> Live:
        if self._live is None:
            self._live = Live(self.database)
        return self._live

    async def _followed(self) -> FollowedRuns:
        return (await self._started()).runs

    def _due(self, conversation_id: UUID) -> None:
        if self._live is not None:
            self._live.due(conversation_id)

    async def close(self) -> None:
        """Stop following and working; ``open`` does this at its end."""
        live, self._live = self._live, None
        if live is not None:
            await live.close()

    async def follow(
        self,
        conversation_id: UUID | str,
        *,
        since: int | None = None,
        epoch: str | None = None,
        actor: str | None = None,
    ) -> AsyncIterator[Change]:
        """Follow a conversation: every change once, in order, whoever makes it.

        Each spans ``(change.since, change.rev]``; one with ``reset`` says to start from a page.

        Args:
            conversation_id: Which.
            since: The rev you have seen, of a page for instance; the present one when not given.
            epoch: The history it belongs to (``page.epoch``).
            actor: Who follows; None is the service.

        Raises:
            NotFound, Gone, Unavailable: It is not there, or may not be seen any more.
        """
        live = await self._started()
        following = live.feed.follow(as_id(conversation_id), actor, since, epoch)
        async with following as way:
            while (change := await way.next()) is not None:
                yield _change(change.body)
            if way.revoked and not live.feed.closed:
                # Why, in the words of whoever asks now.
                await conversation_reads.get(self.database, as_id(conversation_id), actor)

    async def receive(
        self,
        source_id: UUID | str,
        *,
        external_id: str,
        contact: str,
        content: str,
        contact_name: str | None = None,
        subject: str | None = None,
        said_at: datetime | None = None,
    ) -> Received:
        """Put a message from outside on record, once for its external id, and let it be answered.

        Raises:
            Invalid, PayloadTooLarge, NotFound, Unavailable: See the errors.
        """
        incoming = Incoming(
            external_id=external_id,
            contact=contact,
            content=content,
            contact_name=contact_name,
            subject=subject,
            said_at=said_at,
        )
        return await self.sources.receive(source_id, incoming)

    def tool(self, function: F) -> F:
        """Let models call a function, by its name, with its docstring and types for the model.

            @g.tool
            async def weather(city: str) -> str:
                "Say how the weather is in a city."

        An agent has to name it among its tools (``g.tools.get("weather").spec``), and it is called
        in the process that runs the answer: this one, while ``g.working()`` lasts.
        """
        self.tools.register(ToolFunctionOfHere.of(function))
        return function

    @contextlib.asynccontextmanager
    async def working(
        self, settings: Settings | None = None, *, providers: ProviderBook | None = None
    ) -> AsyncIterator[None]:
        """Answer for agents in this process, for as long as the block lasts.

        Args:
            settings: Providers and leases; those of the environment and ``greffier.toml`` when not
                given.
            providers: Who answers, instead of the settings' providers.
        """
        live = await self._started()
        async with live.working(settings, self.tools, providers):
            yield

    # ------------------------------------------------------------------------------------------

    async def usage(self, user: str, *, month: str | None = None) -> Usage:
        """Say what a user's runs took in a month (``YYYY-MM``, UTC), and what they may spend.

        Costs are in the currency of the settings of the servers that ran them.
        """
        return await usage_reads.usage(self.database, user, month)

    async def quota(self, user: str) -> Quota:
        """Say what a user may spend in a month."""
        return await usage_reads.quota(self.database, user)

    async def set_quota(
        self,
        user: str,
        *,
        tokens_per_month: int | None = None,
        cost_per_month: Decimal | float | None = None,
        actor: str | None = None,
    ) -> Quota:
        """Replace what a user may spend in a month; None is no limit.

        Args:
            user: Whose.
            tokens_per_month: Input and output together.
            cost_per_month: In the currency of the settings.
            actor: Who says so, for the admins' log; None is the service.

        Raises:
            Invalid: A value makes no sense.
        """
        # A float means the decimal it is written as: 0.1, and not what is nearest to it in binary.
        cost = None if cost_per_month is None else Decimal(str(cost_per_month))
        asked = Quota(tokens_per_month=tokens_per_month, cost_per_month=cost)
        await quota_verbs.set_quota(self.database, user, asked, actor or "service")
        return await self.quota(user)

    async def say(
        self,
        subject: str,
        content: str,
        *,
        user: str,
        id: UUID | str | None = None,  # noqa: A002 - the contract's name
        agent: UUID | str | None = None,
    ) -> Message:
        """Append words to the user's active conversation on a subject, made if there is none."""
        draft = Draft(id=None if id is None else as_id(id), content=content)
        said = await subject_verbs.say(
            self.database,
            subject,
            draft,
            user,
            _speaker(user),
            agent_id=None if agent is None else as_id(agent, "/agent_id"),
        )
        (message,) = said.appended.messages()
        return message

    async def context(
        self,
        conversation_id: UUID | str,
        *,
        max_messages: int | None = None,
        max_tokens: int | None = None,
        include_tools: bool = True,
        count: TokenCounter = estimate,
        actor: str | None = None,
    ) -> Context:
        """Choose what a language model is sent next, in the OpenAI chat format.

        See ``greffier.read.context`` for the rules and ``count`` for a tokeniser of your own.
        """
        return await context_read.context(
            self.database,
            as_id(conversation_id),
            actor,
            max_messages=max_messages,
            max_tokens=max_tokens,
            include_tools=include_tools,
            count=count,
        )


@contextlib.asynccontextmanager
async def closing(greffier: Greffier) -> AsyncIterator[Greffier]:
    """Close a record's live part at the end of a block."""
    try:
        yield greffier
    finally:
        await greffier.close()


@contextlib.asynccontextmanager
async def open(  # noqa: A001 - greffier.open, as in the contract
    url: str | None = None, *, data_dir: Path | str | None = None, migrate: bool | None = None
) -> AsyncIterator[Greffier]:
    """Open a record.

    Args:
        url: ``postgresql://…`` of your own PostgreSQL, 15 or newer.  Without it a private
            PostgreSQL is created or joined in the data folder.
        data_dir: The data folder, the user's own one by default; only without ``url``.
        migrate: Bring the schema up to date first.  By default that is done for the embedded
            database and refused, with the command to run, for yours.

    Raises:
        SchemaError: The schema is behind or newer.
        EmbeddedError: The private PostgreSQL could not be started.
        Unavailable: The database does not answer.
    """
    if url is not None:
        async with (
            open_database(url, migrate=bool(migrate)) as database,
            closing(Greffier(database)) as greffier,
        ):
            yield greffier
        return
    folder = Path(data_dir) if data_dir is not None else default_data_dir()
    async with (
        open_cluster(folder) as cluster,
        open_database(
            cluster.dsn, revive=cluster.ensure_running, migrate=migrate is not False
        ) as database,
        closing(Greffier(database)) as greffier,
    ):
        yield greffier
