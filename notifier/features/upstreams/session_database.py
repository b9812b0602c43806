"""Read sessions from a database: from Duende's table of server-side sessions, or by the operator's query.

Duende stores a session's clients inside its encrypted ticket, so all clients of the issuer are notified.
"""

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
        """Return the matching sessions. Raises SourceFault. Blocks its thread."""
        settings = self._settings
        if settings.query is None and settings.prefix is None and upstream_session.sid is None:
            raise SourceFault("the token has no sid, and means all sessions of its sub: set resolve.sql.prefix")
        deadline = Deadline(LOOK_UP_TIMEOUT_SECONDS)
        url = database_url(settings.url, settings.url_file)
        with open_for_reading(url, deadline, row_security=settings.row_security) as connection:
            result = (
                self._run_query(connection, upstream_session)
                if settings.query
                else self._query_duende(connection, upstream_session)
            )
            if not result.returns_rows:
                raise SourceFault("query must be a SELECT: it gives no rows")
            names = [normalize_name(str(key)) for key in result.keys()]  # noqa: SIM118  not the keys of a mapping
            if wrong := set(names) - set(_RESULT_COLUMNS) or not {"sub", "sid"} & set(names):
                odd = f"there is no {', '.join(sorted(wrong))}" if isinstance(wrong, set) else "sub and sid are missing"
                raise SourceFault(f"columns of query: {odd}; they are {', '.join(_RESULT_COLUMNS)}")
            rows = result.fetchmany(MAX_SESSIONS + 1)
            deadline.check()
        sessions = merge_sessions(
            _to_session(dict(zip(names, row, strict=True)), number) for number, row in enumerate(rows, 1)
        )
        return (
            sessions
            if settings.query
            else tuple(session for session in sessions if _is_match(session, upstream_session, settings.prefix))
        )

    def _run_query(self, connection: sa.Connection, upstream_session: UpstreamSession) -> sa.CursorResult[Any]:
        """Run the operator's query with the token's values. They are typed as text: PostgreSQL needs one for null."""
        statement = sa.text((self._settings.query or "").strip().rstrip(";"))
        parameters = {"iss": upstream_session.iss, "sub": upstream_session.sub, "sid": upstream_session.sid}
        used = {name: value for name, value in parameters.items() if name in statement.compile().params}
        bound = [sa.bindparam(name, value, type_=sa.String) for name, value in used.items()]
        return connection.execute(statement.bindparams(*bound))

    def _query_duende(self, connection: sa.Connection, upstream_session: UpstreamSession) -> sa.CursorResult[Any]:
        """Find the table and the session: by `sid` if the upstream gave one, as `sub` matches all the user's sessions.

        The table has no provider of a session. So `sub` alone is only looked up with a prefix.
        """
        tables = self._settings.tables or SessionTableSettings()
        finder = TableFinder(connection, self._settings.db_schema)
        table = finder.find(tables.sessions, "sessions", explicit=self._settings.tables is not None)
        if table is None:
            raise SourceFault(finder.nothing_like(tables.sessions))
        columns = finder.columns(table, _TABLE_COLUMNS, _TABLE_COLUMNS)
        sub, sid = (columns[name] for name in _TABLE_COLUMNS)
        local_sub = f"{self._settings.prefix or ''}{upstream_session.sub}"
        matches = sub == local_sub if upstream_session.sid is None else sid == upstream_session.sid
        return connection.execute(sa.select(sub.label("sub"), sid.label("sid")).where(matches).limit(MAX_SESSIONS + 1))


def _is_match(session: LocalSession, upstream_session: UpstreamSession, prefix: str | None) -> bool:
    """Compare exactly: MySQL, MariaDB and SQL Server find `alice` for `Alice` too, which may be another user.

    With a prefix, only sessions of the upstream's users match, and only those of the token's user.
    """
    if upstream_session.sid is not None and session.sid != upstream_session.sid:
        return False
    if prefix is None:
        return True
    own = session.sub or ""
    return own.startswith(prefix) if upstream_session.sub is None else own == prefix + upstream_session.sub


def _to_session(row: dict[str, Any], number: int) -> LocalSession:
    try:
        clients = to_list(row.get("clients"))
        return read_session(
            to_text(row.get("sub")), to_text(row.get("sid")), "*" if clients in (None, ["*"]) else clients
        )
    except ValueError as error:
        raise SourceFault(f"row {number} {error}") from None
