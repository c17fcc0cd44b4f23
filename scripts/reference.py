"""Write the reference: docs/*/reference/{http,objects,errors,settings}.md, from what the code says.

    python scripts/reference.py           # writes the pages that are not current
    python scripts/reference.py --check   # names them, and fails when there are any

Headings and fixed sentences are in both languages; what comes from docstrings is English.
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args, get_origin

from pydantic import BaseModel, ByteSize
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from greffier.agents.providers.protocol import FAILURES
from greffier.errors import CODES, Error, Invalid, Unauthenticated, Unavailable
from greffier.server.openapi import document, refusals, words
from greffier.server.routes import ROUTES
from greffier.server.table import Route
from greffier.settings import PREFIX, Settings, is_secret

ROOT = Path(__file__).resolve().parents[1]
Text: TypeAlias = Mapping[str, str]

#: What any route may answer, told once.
ANYWHERE = (Unauthenticated, Invalid, Unavailable, Error)

EN = {
    "made": "Made by `python scripts/reference.py` from the code; change that, and run it again.",
    "english": "",
    "http": "HTTP API",
    "http_intro": "Every route, in the order of the route table. Tokens, keys and limits "
    "are told in [access](access.md), refusals in [errors](errors.md), types in "
    "[objects](objects.md). The same for programs: `GET /openapi.json` (OpenAPI 3.1).",
    "anywhere": "Any route under `/v1` may also refuse with {codes}.",
    "public": "Open to everybody.",
    "operations": "Also for keys of scope `ops`.",
    "limited": "Counted by the [rate limit](access.md#rate-limit).",
    "path": "path",
    "query": "query",
    "header": "header",
    "body": "body",
    "answer": "answer",
    "refusals": "refusals",
    "or": "or",
    "default": "default",
    "from": "from {minimum}",
    "upto": "at most {maximum}",
    "required": "needed",
    "list_of": "list of {what}",
    "anything": "anything",
    "map_of": "object of {what}",
    "position": "header `Greffier-Position`",
    "etag": "header `ETag`",
    "objects": "Objects",
    "objects_intro": "What is sent and answered. Each is also a JSON Schema (2020-12) of its own, "
    "at `GET /schemas/NAME.json`, with all it refers to. In an answer every field is there unless "
    "its note says otherwise; in a request, fields with a default may be left out.",
    "field": "field",
    "type": "type",
    "note": "note",
    "absent": "may be absent",
    "null": "null",
    "errors": "Errors",
    "errors_intro": "A refusal is `application/problem+json` (RFC 9457) in the form of "
    "[ProblemDocument](objects.md#problemdocument). `code` is stable and to be told apart by "
    "programs; `detail` is for people and may change. `validation` lists every fault in `errors`, "
    "each with a JSON pointer into the body, or the parameter. With `Retry-After` the same request "
    "may succeed after that many seconds. In Python each is a class of `greffier`.",
    "failures": "How a run fails",
    "failures_intro": "Where a model answers, a run may end as `run.failed` with one of these as "
    "its `code`. They are no answers to a request: by then it was accepted.",
    "code": "code",
    "status": "status",
    "class": "Python",
    "means": "means",
    "settings": "Settings",
    "settings_intro": "The command line comes first, then the environment, then `greffier.toml` in "
    "the current folder (or where `GREFFIER_CONFIG` says), then the default. A secret may also "
    "come from a file: the variable with `_FILE` at its end holds the file's path.",
    "setting": "setting",
    "none": "none",
    "off": "off",
    "secret": "a secret",
    "one_of": "one of {what}",
    "bytes": "bytes (`256 KiB`)",
    "number": "a number",
    "integer": "a whole number",
    "string": "a text",
    "folder": "a path",
    "boolean": "yes or no",
    "tables": "tables by name",
}

FR = {
    "made": "Page faite par `python scripts/reference.py` à partir du code ; c'est lui qu'il faut "
    "changer, puis relancer le script.",
    "english": "Les descriptions viennent du code et restent en anglais ; titres et tableaux sont "
    "traduits.",
    "http": "API HTTP",
    "http_intro": "Toutes les routes, dans l'ordre de leur table. Adresse de base, jetons, clés, "
    "limites et positions : voir [accès](access.md) ; refus : [erreurs](errors.md) ; types : "
    "[objets](objects.md). La même chose pour les programmes : `GET /openapi.json` (OpenAPI 3.1).",
    "anywhere": "Toute route sous `/v1` peut aussi refuser par {codes}.",
    "public": "Ouverte à tous.",
    "operations": "Aussi pour les clés de portée `ops`.",
    "limited": "Comptée par la [limite de débit](access.md#limite-de-débit).",
    "path": "chemin",
    "query": "requête",
    "header": "en-tête",
    "body": "corps",
    "answer": "réponse",
    "refusals": "refus",
    "or": "ou",
    "default": "par défaut",
    "from": "à partir de {minimum}",
    "upto": "au plus {maximum}",
    "required": "obligatoire",
    "list_of": "liste de {what}",
    "anything": "n'importe quoi",
    "map_of": "objet de {what}",
    "position": "en-tête `Greffier-Position`",
    "etag": "en-tête `ETag`",
    "objects": "Objets",
    "objects_intro": "Ce qui est envoyé et répondu. Chacun est aussi un schéma JSON (2020-12) à "
    "part entière, sous `GET /schemas/NOM.json`, avec tout ce à quoi il renvoie. Dans une réponse, "
    "chaque champ est là sauf mention contraire ; dans une demande, un champ qui a une valeur par "
    "défaut peut être omis.",
    "field": "champ",
    "type": "type",
    "note": "note",
    "absent": "peut manquer",
    "null": "null",
    "errors": "Erreurs",
    "errors_intro": "Un refus est un document `application/problem+json` (RFC 9457) de la forme "
    "[ProblemDocument](objects.md#problemdocument). `code` est stable et fait pour les "
    "programmes ; `detail` est pour les personnes et peut changer. `validation` énumère toutes les "
    "fautes dans `errors`, chacune avec un pointeur JSON dans le corps, ou le paramètre. Avec "
    "`Retry-After`, la même demande peut réussir après ce nombre de secondes. En Python, chacun "
    "est une classe de `greffier`.",
    "failures": "Comment échoue une réponse",
    "failures_intro": "Là où répond un modèle, une réponse peut se terminer par `run.failed`, avec "
    "l'un de ces `code`. Aucune demande n'est refusée ainsi : elle était déjà acceptée.",
    "code": "code",
    "status": "statut",
    "class": "Python",
    "means": "signification",
    "settings": "Réglages",
    "settings_intro": "La ligne de commande passe en premier, puis l'environnement, puis "
    "`greffier.toml` dans le dossier courant (ou là où le dit `GREFFIER_CONFIG`), puis la valeur "
    "par défaut. Un secret peut aussi venir d'un fichier : la variable terminée par `_FILE` en "
    "contient le chemin.",
    "setting": "réglage",
    "none": "aucun",
    "off": "non",
    "secret": "un secret",
    "one_of": "{what}",
    "bytes": "des octets (`256 KiB`)",
    "number": "un nombre",
    "integer": "un nombre entier",
    "string": "un texte",
    "folder": "un chemin",
    "boolean": "oui ou non",
    "tables": "des tableaux par nom",
}


def pages() -> dict[Path, str]:
    """Make every page: where it belongs → what it says."""
    kinds: dict[str, Callable[[Text], Iterator[str]]] = {
        "http": http,
        "objects": objects,
        "errors": errors,
        "settings": settings,
    }
    return {
        ROOT / "docs" / language / "reference" / f"{name}.md": _page(name, make, text)
        for language, text in (("en", EN), ("fr", FR))
        for name, make in kinds.items()
    }


def _page(name: str, make: Callable[[Text], Iterator[str]], text: Text) -> str:
    head = [f"<!-- {text['made']} -->", f"# {text[name]}", text[f"{name}_intro"]]
    if text["english"]:
        head.append(f"*{text['english']}*")
    return "\n\n".join([*head, *make(text)]) + "\n"


# -- pages -----------------------------------------------------------------------------------------


def http(text: Text) -> Iterator[str]:
    """Every route: what it does, takes, answers and refuses."""
    described = document(ROUTES)
    codes = ", ".join(_error(kind) for kind in ANYWHERE)
    yield text["anywhere"].format(codes=codes)
    topic = ""
    for route in ROUTES:
        operation = described["paths"][route.path][route.method.lower()]
        if operation["tags"][0] != topic:
            topic = operation["tags"][0]
            yield f"## {topic.capitalize()}"
        yield f"### `{route.method} {route.path}`"
        yield re.sub(r" +", " ", inspect.cleandoc(route.handler.__doc__ or "")).replace("``", "`")
        notes = (
            ("public", not route.auth),
            ("operations", route.operations),
            ("limited", route.limited),
        )
        if said := [text[name] for name, holds in notes if holds]:
            yield " ".join(said)
        yield _table(("", "", ""), _rows(route, operation, text))


def _rows(route: Route, operation: dict[str, Any], text: Text) -> Iterator[tuple[str, ...]]:
    for one in operation.get("parameters", ()):
        if "$ref" in one:
            continue
        shape = one.get("description") or _shape(one["schema"], text)
        if one.get("required") and one["in"] == "query":
            shape += f" ({text['required']})"
        yield text[one["in"]], f"`{one['name']}`", shape
    for body in operation.get("requestBody", {}).get("content", {}).values():
        yield text["body"], "", _shape(body["schema"], text)
    for status, answer in operation["responses"].items():
        if status >= "400":
            continue
        shapes = [
            _shape(one["schema"], text) if "schema" in one else f"`{media}`"
            for media, one in answer.get("content", {}).items()
        ]
        headers = answer["headers"]
        shapes += [
            text[name]
            for name, header in (("position", "Greffier-Position"), ("etag", "ETag"))
            if header in headers
        ]
        note = "" if answer["description"] == "Done." else answer["description"]
        said = ", ".join(dict.fromkeys(shapes))
        yield text["answer"], status, " ".join(filter(None, (note, said)))
    if own := [kind for kind in refusals(route) if kind not in ANYWHERE]:
        yield text["refusals"], "", ", ".join(map(_error, own))


def _error(kind: type[Error]) -> str:
    return f"[`{kind.code}`](errors.md#{kind.code}) {kind.status}"


def objects(text: Text) -> Iterator[str]:
    """Every type, with its fields."""
    for name, schema in document(ROUTES)["components"]["schemas"].items():
        yield f'<a id="{name.lower()}"></a>'
        yield f"## {schema.get('title', name)}"
        yield schema["description"]
        required = schema.get("required", ())
        yield _table(
            (text["field"], text["type"], text["note"]),
            (
                (
                    f"`{field}`",
                    _shape(one, text),
                    ""
                    if field in required
                    else f"{text['default']} `{_json(one['default'])}`"
                    if "default" in one
                    else text["absent"],
                )
                for field, one in schema.get("properties", {}).items()
            ),
        )


def errors(text: Text) -> Iterator[str]:
    """Every code."""
    yield _table(
        (text["code"], text["status"], text["class"], text["means"]),
        (
            (
                f'<a id="{code}"></a>`{code}`',
                str(kind.status),
                f"`{kind.__name__}`",
                words(kind),
            )
            for code, kind in sorted(CODES.items(), key=lambda one: (one[1].status, one[0]))
        ),
    )
    yield f"## {text['failures']}"
    yield text["failures_intro"]
    yield _table(
        (text["code"], text["means"]),
        ((f'<a id="{code}"></a>`{code}`', words) for code, words in FAILURES.items()),
    )


def settings(text: Text) -> Iterator[str]:
    """Every setting."""
    for name, field in Settings.model_fields.items():
        yield f"## `{name.upper()}`"
        variable = f"`{PREFIX}{name.upper()}`"
        if is_secret(field):
            variable += f", `{PREFIX}{name.upper()}_FILE`"
        yield f"{variable} · {_kind(field, text)} · {text['default']} {_default(field, text)}"
        yield (field.description or "").replace("``", "`")
        for table in _tables(field.annotation):
            yield _fields(table, text)


def _tables(annotation: Any) -> Iterator[type[BaseModel]]:
    """The tables that a setting is made of, and those within them."""
    for one in get_args(annotation):
        if isinstance(one, type) and issubclass(one, BaseModel):
            yield one
            for field in one.model_fields.values():
                yield from _tables(field.annotation)


def _fields(table: type[BaseModel], text: Text) -> str:
    """Every field of a table, with what it says of itself."""
    head = (f"`{table.__name__}`", text["type"], text["default"], text["note"])
    return _table(
        head,
        (
            (
                f"`{name}`",
                _kind(field, text),
                text["required"] if field.is_required() else _default(field, text),
                (field.description or "").replace("``", "`"),
            )
            for name, field in table.model_fields.items()
        ),
    )


# -- pieces ----------------------------------------------------------------------------------------


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|").strip()


def _shape(schema: dict[str, Any], text: Text) -> str:
    """Write a schema in a few words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{re.sub(r'_$', '', name).replace('_', ' ')}](objects.md#{name.lower()})"
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return f" {text['or']} ".join(_shape(one, text) for one in schema[several])
    if "enum" in schema:
        return f" {text['or']} ".join(f"`{_json(one)}`" for one in schema["enum"])
    if "prefixItems" in schema:
        return "[" + ", ".join(_shape(one, text) for one in schema["prefixItems"]) + "]"
    kind = schema.get("format") or schema.get("type")
    if kind == "array":
        return text["list_of"].format(what=_shape(schema.get("items", {}), text))
    if kind == "object" and isinstance(values := schema.get("additionalProperties"), dict):
        return text["map_of"].format(what=_shape(values, text))
    if kind is None:
        return text["anything"]
    bounds = [
        text[word].format(**schema)
        for word, key in (("from", "minimum"), ("upto", "maximum"))
        if key in schema
    ]
    if "default" in schema:
        bounds.append(f"{text['default']} `{_json(schema['default'])}`")
    return ", ".join([str(kind), *bounds])


def _json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _kind(field: FieldInfo, text: Text) -> str:
    annotation: Any = field.annotation
    options = [one for one in get_args(annotation) if one is not type(None)]
    if get_origin(annotation) is Literal:
        return text["one_of"].format(what=", ".join(f"`{one}`" for one in options))
    if get_origin(annotation) is list:
        return text["list_of"].format(what=text["secret" if is_secret(field) else "string"])
    if get_origin(annotation) is dict:
        return text["tables"]
    if is_secret(field):
        return text["secret"]
    kind = options[0] if options else annotation
    names: dict[Any, str] = {
        ByteSize: "bytes",
        bool: "boolean",
        int: "integer",
        float: "number",
        Decimal: "number",
        str: "string",
        Path: "folder",
    }
    return text[names[kind]]


def _default(field: FieldInfo, text: Text) -> str:
    value = field.default
    if value is None or value is PydanticUndefined or value in ([], {}):
        return text["none"]
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if field.annotation is ByteSize:
        return f"`{_bytes(int(value))}`"
    return f"`{value}`"


def _bytes(value: int) -> str:
    for size, unit in ((1 << 20, "MiB"), (1 << 10, "KiB")):
        if value % size == 0:
            return f"{value // size} {unit}"
    return str(value)


def main() -> int:
    """Write the pages, or say which are not current."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if one is old")
    check: bool = parser.parse_args().check
    old = [
        path
        for path, page in pages().items()
        if not path.exists() or path.read_text(encoding="utf-8") != page
    ]
    for path in old:
        if check:
            print(f"{path.relative_to(ROOT)} is not current: run python scripts/reference.py")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(pages()[path], encoding="utf-8")
            print(f"wrote {path.relative_to(ROOT)}")
    return 1 if check and old else 0


if __name__ == "__main__":
    sys.exit(main())
