"""Look up local sessions in a database: in Duende's table of server-side sessions, or by the operator's query.

Duende stores the clients of a session in its encrypted ticket. All clients of the issuer are therefore notified.
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from notifier.features.upstreams.session_lookups import merge_sessions, read_session
from notifier.features.upstreams.upstream import LOOK_UP_TIMEOUT_SECONDS, MAX_SESSIONS, LocalSession, UpstreamSession
from notifier.features.upstreams.upstream_settings import SessionsSqlSettings, SessionTableSettings
from notifier.model.errors import SourceFault
from notifier.network.databases.sql_columns import normalize_name, to_list, to_text
from notifier.network.databases.sql_connection import Deadline, database_url, open_for_reading
from notifier.network.databases.table_finder import TableFinder

_RESULT_COLUMNS = ("sub", "sid", "clients")
_TABLE_COLUMNS = ("SubjectId", "SessionId")


class SessionDatabase:
    """Looks up sessions in a database, each time over a new connection, so that a new password takes effect at once."""

    def __init__(self, settings: SessionsSqlSettings) -> None:
        self._settings = settings

    async def find_sessions(self, upstream_session: UpstreamSession) -> tuple[LocalSession, ...]:
        """Return the local sessions that end with a session at the upstream. Blocks the thread. Raises SourceFault."""
        settings = self._settings
        if settings.query is None and settings.prefix is None and upstream_session.sid is None:
            raise SourceFault("the token has no sid, and means all sessions of its sub: set resolve.sql.prefix")
        deadline = Deadline(LOOK_UP_TIMEOUT_SECONDS)
        url = database_url(settings.url, settings.url_file)
        with open_for_reading(url, deadline, row_security=settings.row_security) as connection:
            run = self._query_duende if settings.query is None else self._run_query
            result = run(connection, upstream_session)
            if not result.returns_rows:
                raise SourceFault("query must be a SELECT: it gives no rows")
            names = [normalize_name(str(key)) for key in result.keys()]  # noqa: SIM118  SQLAlchemy's result is not a mapping
            _check_columns(names)
            rows = result.fetchmany(MAX_SESSIONS + 1)
            deadline.check()
        sessions = merge_sessions(
            _to_session(dict(zip(names, row, strict=True)), number) for number, row in enumerate(rows, 1)
        )
        if settings.query is not None:
            return sessions
        return tuple(session for session in sessions if _is_match(session, upstream_session, settings.prefix))

    def _run_query(self, connection: sa.Connection, upstream_session: UpstreamSession) -> sa.CursorResult[Any]:
        """Run the operator's query with the token's values, as texts: PostgreSQL requires a type for null."""
        statement = sa.text((self._settings.query or "").strip().rstrip(";"))
        parameters = {"iss": upstream_session.iss, "sub": upstream_session.sub, "sid": upstream_session.sid}
        used = [name for name in parameters if name in statement.compile().params]
        bound = [sa.bindparam(name, parameters[name], type_=sa.String) for name in used]
        return connection.execute(statement.bindparams(*bound))

    def _query_duende(self, connection: sa.Connection, upstream_session: UpstreamSession) -> sa.CursorResult[Any]:
        """Find sessions in Duende's table: by `sid` if the token has it, otherwise all sessions of its `sub`.

        The table does not have the provider of a session. A look-up by `sub` therefore needs a prefix.
        """
        tables = self._settings.tables or SessionTableSettings()
        finder = TableFinder(connection, self._settings.db_schema)
        table = finder.find(tables.sessions, "sessions", explicit=self._settings.tables is not None)
        if table is None:
            raise SourceFault(finder.explain_missing_table(tables.sessions))
        columns = finder.columns(table, _TABLE_COLUMNS, _TABLE_COLUMNS)
        sub, sid = (columns[name] for name in _TABLE_COLUMNS)
        local_sub = f"{self._settings.prefix or ''}{upstream_session.sub}"
        matches = sub == local_sub if upstream_session.sid is None else sid == upstream_session.sid
        return connection.execute(sa.select(sub.label("sub"), sid.label("sid")).where(matches).limit(MAX_SESSIONS + 1))


def _check_columns(names: Sequence[str]) -> None:
    """Raise SourceFault unless the columns of a query are those of sessions."""
    unknown = sorted(set(names) - set(_RESULT_COLUMNS))
    has_session = "sub" in names or "sid" in names
    if unknown or not has_session:
        error = f"there is no {', '.join(unknown)}" if unknown else "sub and sid are missing"
        raise SourceFault(f"columns of query: {error}; they are {', '.join(_RESULT_COLUMNS)}")


def _is_match(session: LocalSession, upstream_session: UpstreamSession, prefix: str | None) -> bool:
    """Return whether a session of the table belongs to the upstream's session, by exact comparison.

    MySQL, MariaDB and SQL Server find `alice` also for `Alice`, who may be another user. With a prefix, the session's
    `sub` must have it, and must be that of the token if the token has one.
    """
    if upstream_session.sid is not None and session.sid != upstream_session.sid:
        return False
    if prefix is None:
        return True
    local_sub = session.sub or ""
    if upstream_session.sub is None:
        return local_sub.startswith(prefix)
    return local_sub == prefix + upstream_session.sub


def _to_session(row: dict[str, Any], number: int) -> LocalSession:
    """Return the session in a row of the result. Raises SourceFault."""
    try:
        clients = to_list(row.get("clients"))
        if clients == ["*"]:
            clients = None
        return read_session(to_text(row.get("sub")), to_text(row.get("sid")), clients)
    except ValueError as error:
        raise SourceFault(f"row {number} {error}") from None
