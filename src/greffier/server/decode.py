"""From bytes to the declared types, with every refusal as a problem at a JSON pointer."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any, Literal, get_args, get_origin
from urllib.parse import parse_qsl

import msgspec

from greffier.errors import Invalid, Problem, UnsupportedMediaType

#: Arrays and objects within each other: nobody's metadata goes deeper, and the parsers of Python
#: and PostgreSQL each give up at a depth of their own.
MAX_DEPTH = 100
#: What is echoed of a name that we do not know.
_ECHO = 100

_AT = re.compile(r"(?s)(.*) - at `(.*)`")
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]")
_UNKNOWN = re.compile(r"(?s)Object contains unknown field `(.*)`")
_MISSING = re.compile(r"Object missing required field `(.*)`")
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|([\[{])|([\]}])', re.DOTALL)
_HALF_PAIR = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F]"
)
_CODES = (
    ("Expected", "type"),
    ("Invalid enum value", "choice"),
    ("Invalid UUID", "uuid"),
    ("Invalid RFC3339", "time"),
    ("Number out of range", "range"),
    ("Integer value out of range", "range"),
)


def json_decoder(kind: Any) -> Callable[[bytes], Any]:
    """Make a function that reads a body of this type.

    The function raises ``Invalid``, whatever the bytes are.
    """
    decode = msgspec.json.Decoder(kind).decode

    def read(body: bytes) -> Any:
        try:
            value = decode(body)
        except msgspec.ValidationError as error:
            raise Invalid(problems=(located(str(error)),)) from None
        except RecursionError:
            raise _too_deep() from None
        except ValueError as error:  # msgspec's DecodeError, and bytes that are not UTF-8
            raise Invalid(problems=(_malformed(body, error),)) from None
        if _is_too_deep(body):
            raise _too_deep()
        return value

    return read


def optional_decoder(kind: Any) -> Callable[[bytes], Any]:
    """Make a function that reads a body which may be left out: sending nothing is sending {}."""
    read = json_decoder(kind)
    return lambda body: read(body or b"{}")


def check_media(content_type: bytes | None) -> None:
    """Refuse a body that does not say it is JSON.

    A form that another site lets a browser send never does.

    Raises:
        UnsupportedMediaType: It is something else, or does not say.
    """
    if content_type == b"application/json":
        return
    media, *parameters = (content_type or b"").lower().split(b";")
    charsets = [p.strip() for p in parameters if p.strip().startswith(b"charset=")]
    if media.strip() != b"application/json" or any(
        charset not in (b"charset=utf-8", b'charset="utf-8"') for charset in charsets
    ):
        raise UnsupportedMediaType("A body is JSON in UTF-8: Content-Type: application/json.")


def located(message: str) -> Problem:
    """Turn msgspec's words into a problem: ``$.messages[0].role`` is ``/messages/0/role``."""
    match = _AT.fullmatch(message)
    said, path = (match[1], match[2]) if match else (message, "")
    # In an object with keys of the caller's own msgspec does not say which: *.
    steps = [name or ("*" if index == "..." else index) for name, index in _STEP.findall(path)]
    pointer = "".join(f"/{escape(step)}" for step in steps)
    if match := _UNKNOWN.fullmatch(said):
        name = match[1][:_ECHO]
        return Problem(f"{pointer}/{escape(name)}", "unknown-field", f"There is no field {name!r}.")
    if match := _MISSING.fullmatch(said):
        return Problem(f"{pointer}/{escape(match[1])}", "missing", "This field is needed.")
    code = next((code for start, code in _CODES if said.startswith(start)), "invalid")
    return Problem(pointer, code, said[: 2 * _ECHO].replace("`", "") + ".")


def escape(name: str) -> str:
    """Write a name as one step of a JSON pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")


def _malformed(body: bytes, error: ValueError) -> Problem:
    if not body:
        return Problem("", "empty", "There is no body; a JSON object is expected.")
    if isinstance(error, UnicodeDecodeError):
        return Problem("", "not-utf-8", "The body is not UTF-8.")
    if _HALF_PAIR.search(body):
        return Problem("", "lone-surrogate", "A text holds half a surrogate pair.")
    return Problem("", "malformed", f"The body is no JSON: {error}.")


def _too_deep() -> Invalid:
    return Invalid.at("", "too-deep", f"At most {MAX_DEPTH} arrays and objects within each other.")


def _is_too_deep(body: bytes) -> bool:
    """Measure the depth of a text that is known to be JSON: on any other this could be slow."""
    if body.count(b"{") + body.count(b"[") <= MAX_DEPTH:
        return False
    depth = 0
    for token in _TOKEN.finditer(body):
        if token.lastindex == 1:
            depth += 1
            if depth > MAX_DEPTH:
                return True
        elif token.lastindex == 2:
            depth -= 1
    return False


def check_coding(content_encoding: bytes | None) -> None:
    """Refuse a body that is packed: what it holds unpacked is bounded by nothing.

    Raises:
        UnsupportedMediaType: It says that it is.
    """
    if content_encoding is not None and content_encoding.strip().lower() not in (b"", b"identity"):
        raise UnsupportedMediaType("A body comes as it is: leave Content-Encoding out.")


# -- query strings ---------------------------------------------------------------------------------

_INTEGER = re.compile(r"-?[0-9]{1,19}")
_BOOLS = {"true": True, "false": False}


def query_decoder(kind: type[msgspec.Struct]) -> Callable[[bytes], Any]:
    """Make a function that reads a query string into a frozen struct.

    Stricter than msgspec's own lax mode, for which ``1e1`` is 10 and ``null`` is nothing.  The
    function raises ``Invalid`` with every fault found.
    """
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    wanted = {name: _kind(field.type) for name, field in fields.items()}
    needed = [name for name, field in fields.items() if field.required]

    def read(raw: bytes) -> Any:
        values: dict[str, Any] = {}
        problems: list[Problem] = []
        for name, text in _pairs(raw):
            pointer = f"/{escape(name[:_ECHO])}"
            if name not in wanted:
                detail = f"There is no parameter {name[:_ECHO]!r}."
                problems.append(Problem(pointer, "unknown-field", detail))
            elif name in values:
                problems.append(Problem(pointer, "duplicate", "This parameter stands twice."))
            elif isinstance(value := _value(wanted[name], text, pointer), Problem):
                problems.append(value)
                values[name] = None
            else:
                values[name] = value
        problems += [
            Problem(f"/{name}", "missing", "This parameter is needed.")
            for name in needed
            if name not in values
        ]
        if problems:
            raise Invalid(problems=tuple(problems))
        return kind(**values)

    # A client asks the same things over and over; what was refused is not kept.
    return functools.lru_cache(maxsize=512)(read)


def _pairs(raw: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(
            raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=50
        )
    except ValueError:
        raise Invalid.at("", "query", "The query string cannot be read.") from None


def _kind(annotation: Any) -> Any:
    """Give what a text becomes: int, bool, str, or a tuple of words."""
    options = [one for one in get_args(annotation) if one is not type(None)]
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return _kind(options[0]) if options else annotation


def _value(kind: Any, text: str, pointer: str) -> Any:
    if kind is int:
        if _INTEGER.fullmatch(text):
            return int(text)
        return Problem(pointer, "type", "A whole number is expected.")
    if kind is bool:
        if text in _BOOLS:
            return _BOOLS[text]
        return Problem(pointer, "type", "true or false is expected.")
    if "\x00" in text:
        return Problem(pointer, "nul-character", "There is no NUL character in any text of ours.")
    if kind is not str and text not in kind:
        return Problem(pointer, "choice", f"One of {', '.join(kind)}.")
    return text
