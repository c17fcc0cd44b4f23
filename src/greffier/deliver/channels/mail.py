"""A message as an e-mail: a value made of values, the same for every try but for its date.

Its ``Message-ID`` is a function of the message and the endpoint, so that a mailbox which knows it
already may show it once.  All mails of a conversation refer to one id that was never sent, and to
the first and latest that were: a reader's program puts them into one thread, whichever it has.
"""

from __future__ import annotations

import hashlib
import html
import re
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, parseaddr

from greffier.deliver.channels.protocol import Outgoing, one_line
from greffier.deliver.channels.text import words

#: Characters of a subject.
LONGEST_SUBJECT = 200
#: Earlier mails that are referred to, besides the first.
REFERENCES = 5

# A dot-atom of RFC 5321.  What is quoted, a literal address or of other alphabets before the @ is
# deliverable at few places and means something to a shell or a header at many.
_LOCAL = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_ADDRESS = re.compile(rf"(?P<local>{_LOCAL})@(?P<domain>{_LABEL}(?:\.{_LABEL})*)")
_MESSAGE_ID = re.compile(r"<[!-;=?-~]{1,400}@[!-;=?-~]{1,400}>")


def read_address(text: str) -> tuple[str, str] | None:
    """Read an address as its local part and domain, the domain in ASCII; None if it is none."""
    local, at, domain = text.rpartition("@")
    try:
        # Names of other alphabets have an ASCII form that every server knows.
        domain = domain if domain.isascii() else domain.encode("idna").decode("ascii")
    except UnicodeError:
        return None
    found = _ADDRESS.fullmatch(f"{local}{at}{domain}")
    if found is None or len(local) > 64 or len(found[0]) > 254:
        return None
    return found["local"], found["domain"].lower()


def read_sender(text: str) -> Address | None:
    """Read ``bot@example.org`` or ``A name <bot@example.org>``; None if it is neither."""
    if one_line(text, 320) != text:
        return None
    name, address = parseaddr(text)
    read = read_address(address)
    return Address(name, *read) if read else None


def message_id(outgoing: Outgoing, domain: str) -> str:
    """Name a mail: the same for all tries of a message to an endpoint, and for nothing else."""
    key = hashlib.sha256(outgoing.webhook_id.encode()).hexdigest()[:16]
    return f"<{outgoing.seq}.{outgoing.conversation_id}.{key}@{domain}>"


def compose(outgoing: Outgoing, sender: Address, recipient: Address, now: datetime) -> bytes:
    """Write the mail, in ASCII with CRLF: text, and the same as HTML without anything active."""
    text = words(outgoing)
    mail = EmailMessage(policy=SMTP)
    mail["From"] = sender
    mail["To"] = recipient
    mail["Subject"] = one_line(outgoing.conversation_title, LONGEST_SUBJECT) or "Conversation"
    mail["Date"] = format_datetime(now.astimezone(UTC))
    # RFC 3834: so that no robot answers.
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(text, cte="quoted-printable")
    mail.add_alternative(_page(text), subtype="html", cte="quoted-printable")
    return _threading(outgoing, sender.domain) + mail.as_bytes()


def _page(text: str) -> str:
    # Breaks as tags: some programs that show mails know no white-space rule.
    lines = html.escape(text).replace("\n", "<br>\n")
    return (
        '<!doctype html>\n<html><head><meta charset="utf-8"></head>\n'
        f'<body><div dir="auto">{lines}</div></body></html>\n'
    )


def _threading(outgoing: Outgoing, domain: str) -> bytes:
    """The lines that name this mail and those before it.

    Written by hand: the library folds ids that are longer than a line into encoded words, which no
    program takes for ids any more.
    """
    lines = [f"Message-ID: {message_id(outgoing, domain)}"]
    known = [one for one in outgoing.previous if _MESSAGE_ID.fullmatch(one)]
    if known:
        lines.append(f"In-Reply-To: {known[-1]}")
    root = f"<{outgoing.conversation_id}@{domain}>"
    references = dict.fromkeys((root, *known[:1], *known[1:][-REFERENCES:]))
    lines.append("References: " + "\r\n ".join(references))
    return "".join(f"{line}\r\n" for line in lines).encode("ascii")
