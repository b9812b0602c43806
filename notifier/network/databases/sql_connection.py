"""Connects to a database for one reading: driver, time limits, read only, and errors in words for operators.

An error is explained by the server's text in one line, and the remedy if it is known. Neither the SQL nor its values
nor a password is shown.

| | a statement ends by | a server that hangs ends by | read only by |
|---|---|---|---|
| PostgreSQL | `statement_timeout` | `connect_timeout`, then a timer that shuts the socket | `BEGIN READ ONLY` |
| MariaDB | `max_statement_time` | the driver's `read_timeout` | `START TRANSACTION READ ONLY` |
| MySQL | `max_execution_time` | the same | the same |
| SQL Server | the driver's `timeout` | `login_timeout`, `timeout` | the rights of its user alone |
| SQLite | a progress handler | – | `query_only` |

Limits are set within the transaction, not by options of the connection: PgBouncer refuses those. Read only is a
safeguard against mistakes: the user should only have the right to SELECT.
"""

import json
import math
import re
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import sqlalchemy as sa
from pydantic import SecretStr

from notifier.model.errors import ConfigurationError, SourceFault
from notifier.model.shared_resources import shared_timer
from notifier.network.databases.database_url import find_url_issue
from notifier.network.http.json_parts import MAX_PART_BYTES
from notifier.network.http.pem_files import set_verify_flags
from notifier.settings.secret_text import read_secret

_MAX_TEXT_CHARACTERS = 300  # characters of a server's text
_SELECT = "give notifier's user the right to SELECT from it"
_READ_ONLY = "query must only read: it runs in a transaction that is read only"
_ONE_SELECT = "query must be one SELECT"
_USER = "check user and password in its URL"
_DATABASE = "check the database in its URL"
_POLICY = (
    "notifier's user would miss rows: give it BYPASSRLS, "
    "or set sql.row_security: on if it is to see what the policy shows"
)
_TLS = "check the CA and the host's name in its URL"
_LATE = "it took longer than the source's `timeout`"
# SQLSTATE of PostgreSQL, error numbers of MySQL, MariaDB and SQL Server
_REMEDIES = {
    "28000": _USER, "28P01": _USER, 1045: _USER, 1698: _USER, 18456: _USER,
    "3D000": _DATABASE, 1049: _DATABASE, 4060: _DATABASE,
    "42501": _SELECT, 1044: _SELECT, 1142: _SELECT, 1143: _SELECT, 229: _SELECT, 230: _SELECT,
    "42601": _ONE_SELECT, 1064: _ONE_SELECT,
    "25006": _READ_ONLY, 1792: _READ_ONLY,
    "57014": _LATE, 1969: _LATE, 3024: _LATE,
}  # fmt: skip
_REMEDIES_BY_TEXT = (
    ("password authentication failed", _USER),
    ("no pg_hba.conf entry", "the server does not let this user in from here, or not without TLS: see its pg_hba.conf"),
    ("certificate", _TLS),
    ("SSL error", _TLS),
    ("readonly database", _READ_ONLY),
    ("unable to open database file", "check the path and the rights of its folder"),
    ("invalid response to SSL negotiation", "this port is not one of PostgreSQL"),
)
_CONNECT_TIMEOUT_SECONDS = 10.0  # seconds to connect; a working server takes milliseconds
_STEPS_PER_CHECK = 10_000  # SQLite's virtual-machine steps between two checks of the time: about 0.1 ms


def to_source_fault_text(error: BaseException, secret: str) -> str:
    """Return the error of a database in one line, with the remedy if it is known. The `secret` is removed."""
    cause = error.orig if isinstance(error, sa.exc.DBAPIError) and error.orig is not None else error
    code, text = _code_and_text(cause)
    if not text:
        text = type(cause).__name__
    text = " ".join(text.partition("\tIs the server running")[0].split())
    text = "".join(character if character.isprintable() else "?" for character in text)
    if len(secret) > 3:  # a shorter secret may be part of any word
        text = text.replace(secret, "***")
    if len(text) > _MAX_TEXT_CHARACTERS:
        text = text[:_MAX_TEXT_CHARACTERS] + " …"
    if not isinstance(error, sa.exc.SQLAlchemyError | OSError):
        return f"the database answered nonsense ({type(error).__name__}: {text})"
    remedy = _REMEDIES.get(code) if code is not None else None
    if "affected by row-level security" in text:  # the error has the code of a missing permission
        remedy = _POLICY
    if remedy is None:
        remedy = next((remedy for part, remedy in _REMEDIES_BY_TEXT if part in text), None)
    return f"{text}; {remedy}" if remedy else text


def _code_and_text(cause: BaseException) -> tuple[str | int | None, str]:
    """Return the error number (or SQLSTATE) and the text of a driver's exception. Each driver has another form."""
    diagnosis = getattr(cause, "diag", None)  # psycopg
    if diagnosis is not None and diagnosis.message_primary:
        return getattr(cause, "sqlstate", None), str(diagnosis.message_primary)
    arguments = cause.args
    if len(arguments) == 2 and isinstance(arguments[0], int):  # PyMySQL, pymssql
        code, text = arguments
        return code, text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
    if arguments and isinstance(arguments[0], tuple):  # pymssql nests number and text while it connects
        return _code_and_text(Exception(*arguments[0]))
    without_details = re.sub(r"\n(LINE|DETAIL|HINT|CONTEXT)\b.*", "", str(cause), flags=re.DOTALL)
    return getattr(cause, "sqlstate", None), without_details


_DRIVERS = {
    "postgresql": "postgresql+psycopg",
    "postgres": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
    "mssql": "mssql+pymssql",
    "sqlite": "sqlite+pysqlite",
}
_EXTRAS = {"postgresql": "postgresql", "postgres": "postgresql", "mysql": "mysql", "mariadb": "mysql", "mssql": "mssql"}
# Exceptions of drivers after an invalid response of a server: they parse lengths, codes and texts without checks.
_DRIVER_BUGS = (ArithmeticError, AssertionError, AttributeError, LookupError, OSError, TypeError, ValueError)


class _HasSocket(Protocol):
    def fileno(self) -> int: ...


class Deadline:
    """The end of one reading."""

    def __init__(self, within: float) -> None:
        self.within = within
        self._end = time.monotonic() + within

    @property
    def left(self) -> float:
        """The remaining seconds."""
        return self._end - time.monotonic()

    def check(self) -> None:
        """Raise SourceFault after the deadline."""
        if self.left <= 0:
            raise self.fault()

    def fault(self) -> SourceFault:
        """Return the error for a passed deadline."""
        return SourceFault(f"not read within {self.within:g} s (the source's `timeout`)")


def database_url(url: SecretStr | None, file: Path | None) -> str:
    """Return the URL, or the content of the file that holds it. Raises SourceFault."""
    if url is not None:
        return url.get_secret_value()
    assert file is not None, "the settings ask for one of the two"
    try:
        text = read_secret(file).strip()
    except ConfigurationError as error:
        raise SourceFault(f"url_file {file} {error.mistakes[0].text}") from None
    if (wrong := find_url_issue(text)) is not None:
        raise SourceFault(f"url_file {file} {wrong}")
    return text


@contextmanager
def open_for_reading(url: str, deadline: Deadline, *, row_security: bool) -> Iterator[sa.Connection]:
    """Open a read-only transaction for one reading. Raises SourceFault for any failure within.

    `row_security`: whether PostgreSQL may hide rows. If False, a hidden row is an error.
    """
    engine = _build_engine(url, deadline)
    secret = engine.url.password or ""
    try:
        connection = engine.connect()
        raw = _driver(connection)
        with _guard_time(connection, deadline), connection:  # its end is guarded too, since it rolls back
            try:
                _limit_time(connection, deadline)
                if connection.dialect.name == "postgresql":
                    connection.exec_driver_sql(f"SET LOCAL row_security = {'on' if row_security else 'off'}")
                yield connection
            except BaseException:
                _discard_unread(raw)
                connection.invalidate()
                raise
    except SourceFault:
        raise
    except (sa.exc.SQLAlchemyError, *_DRIVER_BUGS) as error:
        if deadline.left < 0.05 * deadline.within:  # limits of servers and drivers end it slightly earlier
            raise deadline.fault() from None
        raise SourceFault(to_source_fault_text(error, str(secret))) from None
    finally:
        engine.dispose()


def _build_engine(url: str, deadline: Deadline) -> sa.Engine:
    scheme, _, rest = url.partition("://")
    name = _DRIVERS.get(scheme, scheme)
    database = scheme.partition("+")[0]
    try:
        parsed = sa.make_url(f"{name}://{rest}")
        if database == "sqlite":
            parsed = _require_file(parsed)
        options = _connect_options(database, deadline.within)
        more = {"json_deserializer": _bounded_json} if parsed.get_backend_name() == "postgresql" else {}
        engine = sa.create_engine(parsed, poolclass=sa.NullPool, hide_parameters=True, connect_args=options, **more)
    except (ImportError, sa.exc.NoSuchModuleError):
        extra = _EXTRAS.get(database, "sql")
        text = f"the driver for {scheme}:// is not installed: pip install 'logout-notifier[{extra}]' (the image has it)"
        if scheme not in (*_DRIVERS, *_DRIVERS.values()):
            text = f"{scheme}:// asks for a driver that notifier does not use; write {database}://"
        raise SourceFault(text) from None
    except (sa.exc.SQLAlchemyError, ValueError, TypeError):  # their texts may show the URL
        raise SourceFault("url cannot be read as the URL of a database") from None
    sa.event.listen(engine, "do_connect", _set_verify_flags)
    return engine


def _set_verify_flags(dialect: sa.Dialect, _record: object, _words: object, options: dict[str, Any]) -> None:
    """Set the verification flags of PyMySQL's context. The other drivers do not use Python's TLS."""
    if dialect.driver == "pymysql" and isinstance(options.get("ssl"), dict):
        assert dialect.dbapi is not None
        options["ssl"] = dialect.dbapi.connect(defer_connect=True, ssl=options["ssl"]).ctx
        set_verify_flags(options["ssl"])


def _bounded_json(value: str | bytes) -> Any:
    """Decode a value of the type JSON. A value that is too long stays encoded: the reader of the column refuses it."""
    return value if len(value) > MAX_PART_BYTES else json.loads(value)


def _require_file(url: sa.URL) -> sa.URL:
    """Return the URL of the existing file: SQLite would create a missing one."""
    if (url.database or "").startswith("file:"):
        return url
    path = (url.database or "").replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    return url.set(database=f"file:{path}").update_query_dict({"mode": "rw", "uri": "true"})


def _connect_options(database: str, within: float) -> Mapping[str, Any]:
    """Return the options of the driver. Limits in whole seconds are at least 1."""
    whole, connecting = math.ceil(within), math.ceil(min(_CONNECT_TIMEOUT_SECONDS, within))
    if database in ("postgresql", "postgres"):
        return {"connect_timeout": connecting}
    if database in ("mysql", "mariadb"):
        return {"connect_timeout": connecting, "read_timeout": within, "write_timeout": within}
    if database == "mssql":
        return {"login_timeout": math.ceil(connecting / 4), "timeout": whole}  # it tries several protocols
    return {"timeout": min(5.0, within)}  # SQLite's wait for a writer


def _limit_time(connection: sa.Connection, deadline: Deadline) -> None:
    """Begin a read-only transaction whose statements end in time."""
    dialect, left = connection.dialect, max(deadline.left, 0.001)
    match dialect.name:
        case "postgresql":
            connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            connection.exec_driver_sql(f"SET LOCAL statement_timeout = {math.ceil(left * 1000)}")
        case "mysql" | "mariadb":
            limit = f"max_statement_time = {left:.3f}"
            if not getattr(dialect, "is_mariadb", False):
                limit = f"max_execution_time = {math.ceil(left * 1000)}"
            connection.exec_driver_sql(f"SET SESSION {limit}")
            connection.exec_driver_sql("START TRANSACTION READ ONLY")
        case "sqlite":
            raw = _driver(connection)
            raw.set_progress_handler(lambda: deadline.left <= 0, _STEPS_PER_CHECK)
            connection.exec_driver_sql("PRAGMA query_only = ON")
            connection.exec_driver_sql("BEGIN")


@contextmanager
def _guard_time(connection: sa.Connection, deadline: Deadline) -> Iterator[None]:
    """Shut down the socket at the deadline: psycopg waits forever for a server that does not respond."""
    if connection.dialect.name != "postgresql":
        yield
        return
    raw: _HasSocket = _driver(connection)
    with socket.fromfd(raw.fileno(), socket.AF_INET, socket.SOCK_STREAM) as own:
        timer = shared_timer("end of a query", max(deadline.left, 0.0), partial(_shut_down, own))
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()


def _shut_down(own: socket.socket) -> None:
    with suppress(OSError):  # the server closed it first
        own.shutdown(socket.SHUT_RDWR)


def _discard_unread(raw: Any) -> None:
    """Discard unread rows. PyMySQL would read the rest of a long response on close, and fail if there is none."""
    unread = getattr(raw, "_result", None)
    if unread is not None:
        unread.unbuffered_active = False


def _driver(connection: sa.Connection) -> Any:
    return connection.connection.driver_connection
