"""Promise: what is measured on is a record as Greffier would have written it."""

from __future__ import annotations

from greffier.bench.places import place
from greffier.bench.talks import conversation, fill, make_conversations
from greffier.read.audit import audit

#: Lengths that end at each place of the pattern by which conversations are filled.
LENGTHS = (1, 2, 3, 4, 5, 6, 7, 100)


async def test_it_passes_the_audit(postgres: str) -> None:
    """Seqs, counts, paths, lists and times are those of a record, and it can be written on."""
    async with place(postgres, talks=30, owners=4) as here:
        async with here.connection() as live:
            await make_conversations(live, 31, 5, owners=2, name="other")
            for number, length in enumerate(LENGTHS, start=1):
                await fill(live, [conversation(number)], length)
        for talk in here.talks[:10]:
            await here.greffier.messages.append(talk, content="Bonjour")
        await here.greffier.messages.rewind(here.talks[len(LENGTHS) - 1], after_seq=50)

        report = await audit(here.greffier.database)

        assert report.clean, report.findings
        assert report.conversations == 35


async def test_a_list_holds_what_belongs_to_its_user(postgres: str) -> None:
    """The conversations are dealt out among their owners, and each sees theirs."""
    async with place(postgres, talks=10, owners=3) as here:
        found = await here.greffier.conversations.list(user="bench-1")

        assert {one.title for one in found.data} == {
            f"Conversation {number}" for number in (1, 4, 7, 10)
        }
