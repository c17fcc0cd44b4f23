"""What a database's schema consists of, as lines of text that two databases can be compared by."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from greffier.store.connection import Connection

# Each gives lines ``what | which | how``, sorted by the name of what they are about.
_QUESTIONS = (
    # Everything there is, by PostgreSQL's own word for it: also kinds that nobody asks for below.
    """
    select format('%s %s', i.type, i.identity)
    from pg_depend d, pg_identify_object(d.classid, d.objid, d.objsubid) i
    where d.refclassid = 'pg_namespace'::regclass and d.refobjid = 'greffier'::regnamespace
    """,
    """
    select format('schema | grants %s', n.nspacl) from pg_namespace n where n.nspname = 'greffier'
    """,
    """
    select format('extension %s | in %s', e.extname, e.extnamespace::regnamespace)
    from pg_extension e
    """,
    """
    select format('relation %s | kind %s, %s, options %s, row security %s forced %s, grants %s, %s',
        c.relname, c.relkind, c.relpersistence, c.reloptions, c.relrowsecurity,
        c.relforcerowsecurity, c.relacl, obj_description(c.oid, 'pg_class'))
    from pg_class c where c.relnamespace = 'greffier'::regnamespace
    """,
    # The place counts: a row taken as a whole (select *, a row type) is by position.
    """
    select format('column %s.%s | place %s, %s, collation %s, not null %s, default %s, identity %s,'
            ' generated %s, storage %s, compression %s, statistics %s, options %s, grants %s',
        c.relname, a.attname, rank() over (partition by c.oid order by a.attnum),
        format_type(a.atttypid, a.atttypmod), a.attcollation::regcollation, a.attnotnull,
        pg_get_expr(d.adbin, d.adrelid), a.attidentity, a.attgenerated, a.attstorage,
        a.attcompression, a.attstattarget, a.attoptions, a.attacl)
    from pg_attribute a
    join pg_class c on c.oid = a.attrelid
    left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
    where c.relnamespace = 'greffier'::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'c')
        and a.attnum > 0 and not a.attisdropped
    """,
    """
    select format('constraint %s.%s | %s, validated %s', k.conrelid::regclass, k.conname,
        pg_get_constraintdef(k.oid), k.convalidated)
    from pg_constraint k where k.connamespace = 'greffier'::regnamespace
    """,
    """
    select format('index %s | %s, valid %s', c.relname, pg_get_indexdef(c.oid), i.indisvalid)
    from pg_index i join pg_class c on c.oid = i.indexrelid
    where c.relnamespace = 'greffier'::regnamespace
    """,
    """
    select format('function %s | grants %s, %s%s%s', p.oid::regprocedure, p.proacl,
        obj_description(p.oid, 'pg_proc'), chr(10), pg_get_functiondef(p.oid))
    from pg_proc p where p.pronamespace = 'greffier'::regnamespace and p.prokind in ('f', 'p')
    """,
    """
    select format('view %s | %s', c.relname, pg_get_viewdef(c.oid))
    from pg_class c
    where c.relnamespace = 'greffier'::regnamespace and c.relkind in ('v', 'm')
    """,
    """
    select format('policy %s.%s | %s for %s to %s using %s check %s', tablename, policyname,
        permissive, cmd, roles, qual, with_check)
    from pg_policies where schemaname = 'greffier'
    """,
    """
    select format('trigger %s | %s, enabled %s', t.tgname, pg_get_triggerdef(t.oid), t.tgenabled)
    from pg_trigger t join pg_class c on c.oid = t.tgrelid
    where c.relnamespace = 'greffier'::regnamespace and not t.tgisinternal
    """,
    """
    select format('type %s | kind %s, default %s, values %s', t.oid::regtype, t.typtype,
        t.typdefault,
        (select array_agg(e.enumlabel order by e.enumsortorder)
         from pg_enum e where e.enumtypid = t.oid))
    from pg_type t where t.typnamespace = 'greffier'::regnamespace and t.typtype in ('d', 'e', 'r')
    """,
    """
    select format('statistics | %s', pg_get_statisticsobjdef(s.oid))
    from pg_statistic_ext s where s.stxnamespace = 'greffier'::regnamespace
    """,
    """
    select format('default grants | %s %s %s', d.defaclobjtype, d.defaclrole::regrole, d.defaclacl)
    from pg_default_acl d where d.defaclnamespace = 'greffier'::regnamespace
    """,
    """
    select format('ledger | %s %s %s', s.id, s.name, s.checksum) from greffier.schema_changes s
    """,
)


async def catalogue(connection: Connection) -> list[str]:
    """Describe everything in our schemas, each time in the same order."""
    lines: list[str] = []
    # greffier_me is for people who connect with a role of their own.
    for schema in ("greffier", "greffier_me"):
        for question in _QUESTIONS:
            asked = question.replace("'greffier'", f"'{schema}'")
            found: list[str] = sorted(row[0] for row in await connection.fetch(asked))
            lines += [line for text in found for line in text.splitlines()]
    return lines


def difference(first: Sequence[str], first_name: str, second: Sequence[str], name: str) -> str:
    """Say in which lines two catalogues differ; nothing when they do not."""
    return "\n".join(difflib.unified_diff(first, second, first_name, name, lineterm="", n=2))
