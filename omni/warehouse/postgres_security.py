"""Row security, rights and dependent views in PostgreSQL.

Every stored table forces a policy, on its owner too: rows show only to a session that says whose they are
(`SET omni.tenant`). Views ask with the rights of who reads them. PostgreSQL has no default for policies, so
each table gets its own when it is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from omni.errors import ConfigError

if TYPE_CHECKING:
    import psycopg

POLICY = "omni_tenant"
SETTING = "omni.tenant"

_DEPENDENTS = b"""
WITH RECURSIVE above AS (
    SELECT c.oid, 0 AS depth FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = $1 AND c.relname = $2
  UNION ALL
    SELECT r.ev_class, a.depth + 1 FROM above AS a
    JOIN pg_depend AS d ON d.refobjid = a.oid AND d.refclassid = 'pg_class'::regclass
        AND d.classid = 'pg_rewrite'::regclass AND d.deptype = 'n'
    JOIN pg_rewrite AS r ON r.oid = d.objid AND r.ev_class <> a.oid
    WHERE a.depth < 50
)
SELECT n.nspname, c.relname, pg_get_viewdef(c.oid), obj_description(c.oid, 'pg_class')
FROM (SELECT oid, max(depth) AS depth FROM above WHERE depth > 0 GROUP BY oid) AS a
JOIN pg_class AS c ON c.oid = a.oid JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind = 'v' AND c.relpersistence <> 't' ORDER BY a.depth
"""
_OPEN = b"""
SELECT n.nspname, c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = ANY($1) AND c.relkind IN ('r', 'p') AND NOT (c.relrowsecurity AND c.relforcerowsecurity)
"""
_ROLE = b"""
SELECT rolname, rolsuper, rolbypassrls, current_setting('server_version_num')::int,
    current_setting('server_version'), has_database_privilege(current_database(), 'CREATE'),
    (SELECT datcollate FROM pg_database WHERE datname = current_database())
FROM pg_roles WHERE rolname = current_user
"""
OLDEST = 150000
"""PostgreSQL 15 is the first whose views can ask with the reader's rights."""


@dataclass(frozen=True)
class View:
    """A view that goes with the table it reads, to be made again."""

    schema: str
    name: str
    definition: str
    source: str | None


@dataclass(frozen=True)
class Role:
    """Who we are at the server, and what the server is."""

    name: str
    superuser: bool
    bypasses: bool
    version: int
    release: str
    may_create: bool
    collation: str

    def refuse_unsafe(self) -> None:
        """Row security must bind this role.

        Raises:
            ConfigError: the role is above row security, or the server too old for views that respect it.
        """
        if self.version < OLDEST:
            raise ConfigError(
                f"The warehouse is PostgreSQL {self.release}; 15 or newer is needed, for views that respect "
                "row security."
            )
        if self.superuser or self.bypasses:
            what = "a superuser" if self.superuser else "allowed to bypass row security"
            raise ConfigError(
                f"The role {self.name} of OMNI_WAREHOUSE_URL is {what}: tenants would not be kept apart. "
                "Make one that is not: CREATE ROLE omni_app LOGIN NOSUPERUSER NOBYPASSRLS; "
                "CREATE DATABASE warehouse OWNER omni_app."
            )

    @property
    def sorts_by_code_point(self) -> bool:
        """Whether text sorts as in DuckDB."""
        return self.collation in ("C", "POSIX", "C.UTF-8", "C.UTF8")


def role(session: psycopg.Connection[Any]) -> Role:
    """Look up who a session is."""
    (row,) = _rows(session, _ROLE, [])
    return Role(*row)


def protect(session: psycopg.Connection[Any], schema: str, table: str, tenant: str) -> None:
    """Force a table's policy, unless it has one."""
    from psycopg import sql

    if not _rows(session, _OPEN + b" AND c.relname = $2", [[schema], table]):
        return
    place = sql.Identifier(schema, table)
    mine = sql.SQL("current_setting({}, true) = {}").format(sql.Literal(SETTING), sql.Literal(tenant))
    for statement in (
        sql.SQL("ALTER TABLE {} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY").format(place),
        sql.SQL("DROP POLICY IF EXISTS {} ON {}").format(sql.Identifier(POLICY), place),
        sql.SQL("CREATE POLICY {} ON {} USING ({mine}) WITH CHECK ({mine})").format(
            sql.Identifier(POLICY), place, mine=mine
        ),
    ):
        session.execute(statement)


def protect_all(session: psycopg.Connection[Any], schemas: Sequence[str], tenant: str) -> None:
    """Force the policy of every table in the tenant's schemas that lacks it, whoever made it."""
    for schema, table in unprotected(session, schemas):
        protect(session, schema, table, tenant)


def unprotected(session: psycopg.Connection[Any], schemas: Sequence[str]) -> list[tuple[str, str]]:
    """Tables of some schemas whose rows are not bound to the tenant, as (schema, name)."""
    return [(schema, table) for schema, table in _rows(session, _OPEN, [list(schemas)])]


def grant_readers(session: psycopg.Connection[Any], schemas: Sequence[str], reader: str) -> None:
    """Let a role read the tables and views of some schemas, those made later too."""
    from psycopg import sql

    if not _rows(session, b"SELECT 1 FROM pg_roles WHERE rolname = $1", [reader]):
        return
    who = sql.Identifier(reader)
    for schema in map(sql.Identifier, schemas):
        session.execute(sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(schema, who))
        session.execute(sql.SQL("GRANT SELECT ON ALL TABLES IN SCHEMA {} TO {}").format(schema, who))
        session.execute(
            sql.SQL("ALTER DEFAULT PRIVILEGES IN SCHEMA {} GRANT SELECT ON TABLES TO {}").format(schema, who)
        )


def remember_source(session: psycopg.Connection[Any], schema: str, view: str, source: str) -> None:
    """Keep a view's SELECT as it was written, so that it can be published."""
    from psycopg import sql

    session.execute(
        sql.SQL("COMMENT ON VIEW {} IS {}").format(sql.Identifier(schema, view), sql.Literal(source))
    )


def take_dependents(session: psycopg.Connection[Any], schema: str, name: str) -> list[View]:
    """Drop the views that read a table or view; returns them, those that others read first."""
    from psycopg import sql

    views = [View(*row) for row in _rows(session, _DEPENDENTS, [schema, name])]
    for view in reversed(views):
        session.execute(sql.SQL("DROP VIEW {}").format(sql.Identifier(view.schema, view.name)))
    return views


def restore(session: psycopg.Connection[Any], views: Sequence[View]) -> None:
    """Make dropped views again; one whose columns are gone stays away, and its model makes it anew."""
    import psycopg
    from psycopg import sql

    for view in views:
        place = sql.Identifier(view.schema, view.name)
        try:
            with session.transaction():
                session.execute(
                    sql.SQL("CREATE VIEW {} WITH (security_invoker = true) AS {}").format(
                        place, sql.SQL(view.definition)
                    )
                )
                remember_source(session, view.schema, view.name, view.source or "")
        except (
            psycopg.errors.UndefinedTable,
            psycopg.errors.UndefinedColumn,
            psycopg.errors.DuplicateTable,
            psycopg.errors.DatatypeMismatch,
        ):
            continue


def _rows(session: psycopg.Connection[Any], query: bytes, parameters: list[Any]) -> list[tuple[Any, ...]]:
    import psycopg

    with psycopg.RawCursor(session) as cursor:
        cursor.execute(query, parameters or None)
        return cursor.fetchall()
