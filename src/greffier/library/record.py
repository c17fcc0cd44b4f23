"""An open record: all its parts, and what is read across them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

import msgspec

from greffier.agents.asking import Runs
from greffier.agents.follow import FollowedRuns
from greffier.agents.live import Live
from greffier.agents.tools import Tool as ToolFunctionOfHere
from greffier.agents.tools import Tools
from greffier.change import quota as quota_verbs
from greffier.change import subject as subject_verbs
from greffier.change.forget import forget_user
from greffier.deliver.keeping import Endpoints, Sources
from greffier.embedded import default_data_dir, open_cluster
from greffier.library.agents import Agents
from greffier.library.conversations import Conversations
from greffier.library.given import speaker
from greffier.library.messages import Messages
from greffier.model.ids import as_id
from greffier.model.message import Draft, Message
from greffier.model.page import Context
from greffier.model.source import Incoming, Received
from greffier.model.tokens import TokenCounter, estimate
from greffier.model.usage import Quota, Usage
from greffier.publish.told import Change
from greffier.read import context as context_read
from greffier.read import conversations as conversation_reads
from greffier.read import mine
from greffier.read import usage as usage_reads
from greffier.read.mine import MyStats
from greffier.store.database import Database, open_database

if TYPE_CHECKING:
    from greffier.agents.run import ProviderBook
    from greffier.settings import Settings

_message = msgspec.json.Decoder(Message).decode
_change = msgspec.json.Decoder(Change).decode
F = TypeVar("F", bound=Callable[..., Any])


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

    async def stats(self, user: str) -> MyStats:
        """Count what is in a user's conversations; it reads them all."""
        return await mine.my_stats(self.database, user)

    async def export(self, user: str) -> AsyncIterator[bytes]:
        """Write out everything of a user's, piece by piece, as of one moment (JSON lines)."""
        async for piece in mine.export_mine(self.database, user):
            yield piece

    async def forget(self, user: str) -> None:
        """Forget a person for good: their own conversations erased, in all others nobody's name.

        Raises:
            Unavailable: Half-way, perhaps; the same call does the rest.
        """
        await forget_user(self.database, user)

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
            speaker(user),
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
