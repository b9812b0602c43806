"""Checks whether a database's user may do more than read. The registry never writes, so it should not be able to."""

import re
from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa

_POSTGRESQL = """
SELECT quote_ident(s.nspname) || '.' || quote_ident(c.relname)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'f') AND s.nspname NOT IN ('pg_catalog', 'information_schema')
AND s.nspname NOT LIKE 'pg\\_%' AND has_table_privilege(c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE')
ORDER BY 1 LIMIT 1
"""
_SQL_SERVER = """
SELECT TOP 1 QUOTENAME(SCHEMA_NAME(schema_id)) + '.' + QUOTENAME(name) FROM sys.tables
WHERE HAS_PERMS_BY_NAME(QUOTENAME(SCHEMA_NAME(schema_id)) + '.' + QUOTENAME(name), 'OBJECT', 'INSERT') = 1
OR HAS_PERMS_BY_NAME(QUOTENAME(SCHEMA_NAME(schema_id)) + '.' + QUOTENAME(name), 'OBJECT', 'UPDATE') = 1
OR HAS_PERMS_BY_NAME(QUOTENAME(SCHEMA_NAME(schema_id)) + '.' + QUOTENAME(name), 'OBJECT', 'DELETE') = 1
ORDER BY 1
"""
_WRITING = re.compile(r"\b(ALL PRIVILEGES|INSERT|UPDATE|DELETE|DROP|ALTER|CREATE|SUPER)\b")


def may_write(connection: sa.Connection) -> list[str]:
    """Return a warning if the user may write to some table. SQLite has no users."""
    match connection.dialect.name:
        case "postgresql":
            right = _first(connection, _POSTGRESQL)
        case "mssql":
            right = _first(connection, _SQL_SERVER)
        case "mysql" | "mariadb":
            grants = [str(row[0]) for row in _rows(connection, "SHOW GRANTS")]
            right = written_by(grant for grant in grants if not _of_all(grant))
            if right is None and (right := written_by(filter(_of_all, grants))) is not None:
                return [f"every user of the database may write to {right}, by a grant to PUBLIC; revoke it there"]
        case _:
            right = None
    if right is None:
        return []
    return [f"the database's user may write, such as to {right}; give notifier one that has the right to SELECT alone"]


def _of_all(grant: str) -> bool:
    """Whether it is one of MariaDB's to everybody."""
    return grant.rpartition(" TO ")[2].strip("`'\" ").upper() == "PUBLIC"


def written_by(grants: Iterable[str]) -> str | None:
    """Return the first table, or other thing, that a grant of MySQL or MariaDB lets its user write to."""
    for grant in grants:
        rights, _, rest = grant.partition(" ON ")
        what, of_somebody, _ = rest.partition(" TO ")
        if of_somebody and _WRITING.search(rights.upper()):
            return what
    return None


def _first(connection: sa.Connection, statement: str) -> str | None:
    return next((str(row[0]) for row in _rows(connection, statement)), None)


def _rows(connection: sa.Connection, statement: str) -> list[Any]:
    return list(connection.exec_driver_sql(statement, execution_options={"no_parameters": True}))
