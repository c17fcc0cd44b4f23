"""Greffier from far away: the library's names over HTTP, and views that cannot flicker.

    async with greffier.client.connect("https://chat.example.org", token) as g:
        talk = await g.conversations.create(title="Plans")
        page = await g.messages.recent(talk.id)
        async for change in g.follow(talk.id, since=page.rev, epoch=page.epoch):
            ...

It needs the extra ``greffier[client]``.
"""

from greffier.client.board import Board
from greffier.client.connection import Client, connect
from greffier.client.http import Unanswered
from greffier.client.listing import Listing
from greffier.client.outbox import Failed, Outbox
from greffier.client.state import AskChanges, AskPage, State
from greffier.client.view import View
from greffier.client.wire import Activity, Change, ListChange

__all__ = [
    "Activity",
    "AskChanges",
    "AskPage",
    "Board",
    "Change",
    "Client",
    "Failed",
    "ListChange",
    "Listing",
    "Outbox",
    "State",
    "Unanswered",
    "View",
    "connect",
]
