"""Finds tables and columns by their real names."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql import quoted_name

from notifier.model.errors import SourceFault
from notifier.network.databases.sql_columns import normalize_name

# SQLAlchemy reflects by SHOW CREATE, for which the right to SELECT is not sufficient if it is a view.
_MYSQL_COLUMNS = """
SELECT table_name, column_name FROM information_schema.columns
WHERE table_name = :table AND table_schema = COALESCE(:schema, DATABASE()) ORDER BY ordinal_position
"""


_MAX_SHOWN_NAMES = 8


class TableFinder:
    """Finds tables and columns by their real names."""

    def __init__(self, connection: sa.Connection, schema: str | None) -> None:
        self.connection = connection
        self._schema = None if schema is None else quoted_name(schema, quote=True)
        self._inspector = sa.inspect(connection)
        self._names = self._names_in(self._schema)

    def find(self, name: str, member: str, *, explicit: bool) -> str | None:
        """Return the only table of that name, regardless of case and `_`; None if there is none.

        `explicit`: the name is from the operator, so that an exact match has precedence. Raises SourceFault if several
        tables match.
        """
        hits = [hit for hit in self._names if normalize_name(hit) == normalize_name(name)] if name else []
        if explicit and name in hits:
            return name
        if len(hits) > 1:
            raise SourceFault(f"there are the tables {' and '.join(hits)}; select one of them by sql.tables.{member}")
        return hits[0] if hits else None

    def columns(
        self, table: str, wanted: Sequence[str], needed: Sequence[str], remedy: str = ""
    ) -> dict[str, sa.ColumnElement[Any]]:
        """Return the columns of a table by our names. Raises SourceFault if a column is missing or ambiguous.

        `wanted`: the columns to return, if they exist. `needed`: the columns that must exist. `remedy`: the end of the
        error text for a missing column.
        """
        columns: dict[str, list[str]] = {}
        for column in self._columns_of(table):
            columns.setdefault(normalize_name(column), []).append(column)
        missing = [name for name in needed if normalize_name(name) not in columns]
        if missing:
            lacks = " and no ".join(missing)
            raise SourceFault(f"table {table} has no column {lacks}; is it the right table?{remedy}")
        hits = {name: columns[normalize_name(name)] for name in wanted if normalize_name(name) in columns}
        twice = next((names for names in hits.values() if len(names) > 1), None)
        if twice:
            text = f"table {table} has the columns {' and '.join(twice)}; use a view with one of them, or query"
            raise SourceFault(text)
        bare: dict[str, sa.ColumnClause[Any]] = {
            name: sa.column(quoted_name(names[0], quote=True)) for name, names in hits.items()
        }
        selected = sa.table(quoted_name(table, quote=True), *bare.values(), schema=self._schema)
        return {name: selected.c[column.name] for name, column in bare.items()}

    def explain_missing_table(self, name: str) -> str:
        """Return the error text for a table that does not exist."""
        schema = self._schema or self._inspector.default_schema_name
        where = f"the schema {schema}" if schema else "the database"
        shown = ", ".join(sorted(self._names)[:_MAX_SHOWN_NAMES]) + (
            " …" if len(self._names) > _MAX_SHOWN_NAMES else ""
        )
        here = f"it shows notifier's user {shown}" if self._names else "it shows notifier's user no table"
        remedy = "set sql.schema or sql.tables, or give it the right to SELECT"
        return f"there is no table like {name} in {where} ({here}); {remedy}"

    def _columns_of(self, table: str) -> list[str]:
        if self.connection.dialect.name not in ("mysql", "mariadb"):
            columns = self._inspector.get_columns(quoted_name(table, quote=True), schema=self._schema)
            return [column["name"] for column in columns]
        rows = self.connection.execute(sa.text(_MYSQL_COLUMNS), {"table": table, "schema": self._schema})
        return [column for name, column in rows if name == table]  # the comparison of MySQL may ignore case

    def _names_in(self, schema: str | None) -> list[str]:
        names = [*self._inspector.get_table_names(schema), *self._inspector.get_view_names(schema)]
        if self.connection.dialect.name == "postgresql":
            names += self._inspector.get_materialized_view_names(schema)
        return names
