"""What a person may be called: whatever their identity provider calls them, within reason."""

from __future__ import annotations

from greffier.errors import Invalid, Problem
from greffier.model import text
from greffier.model.limits import DEFAULT


def is_reserved(user: str) -> bool:
    """Say whether nobody may be called so: the record names the service so, or who writes to it."""
    return user == "service" or user.startswith(("service:", "contact:", "source:"))


def fault(user: str, pointer: str) -> Problem | None:
    """Say why nobody can be called so."""
    if not user:
        return Problem(pointer, "empty", "A person has an id.")
    if problem := text.faults(user, pointer):
        return problem
    if len(user.encode()) > DEFAULT.name:
        return Problem(pointer, "too-long", f"At most {DEFAULT.name} bytes.")
    if is_reserved(user):
        return Problem(pointer, "reserved", "No user is called so: it is the service itself.")
    return None


def check(user: str, pointer: str) -> None:
    """Refuse what nobody can be called.

    Raises:
        Invalid: With the reason.
    """
    if problem := fault(user, pointer):
        raise Invalid(problems=(problem,))
