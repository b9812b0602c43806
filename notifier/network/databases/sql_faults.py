"""Explains a database's error to an operator: the server's own words in one line, and the way out if one is known.

Neither the SQL nor its values are shown, and no password.
"""

import re

import sqlalchemy as sa

_LONGEST = 300  # characters of a server's own words
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
_WAYS_OUT = {
    "28000": _USER, "28P01": _USER, 1045: _USER, 1698: _USER, 18456: _USER,
    "3D000": _DATABASE, 1049: _DATABASE, 4060: _DATABASE,
    "42501": _SELECT, 1044: _SELECT, 1142: _SELECT, 1143: _SELECT, 229: _SELECT, 230: _SELECT,
    "42601": _ONE_SELECT, 1064: _ONE_SELECT,
    "25006": _READ_ONLY, 1792: _READ_ONLY,
    "57014": _LATE, 1969: _LATE, 3024: _LATE,
}  # fmt: skip
_BY_WORDS = (
    ("password authentication failed", _USER),
    ("no pg_hba.conf entry", "the server does not let this user in from here, or not without TLS: see its pg_hba.conf"),
    ("certificate", _TLS),
    ("SSL error", _TLS),
    ("readonly database", _READ_ONLY),
    ("unable to open database file", "check the path and the rights of its folder"),
    ("invalid response to SSL negotiation", "this port is not one of PostgreSQL"),
)


def fault_of(error: BaseException, secret: str) -> str:
    """Return the fault in one line. `secret` is blotted out, should a driver show it."""
    cause = error.orig if isinstance(error, sa.exc.DBAPIError) and error.orig is not None else error
    code, words = _code_and_text(cause)
    if not words:
        words = type(cause).__name__
    words = " ".join(words.partition("\tIs the server running")[0].split())
    words = "".join(letter if letter.isprintable() else "?" for letter in words)
    if len(secret) > 3:
        words = words.replace(secret, "***")
    if len(words) > _LONGEST:
        words = words[:_LONGEST] + " …"
    if not isinstance(error, sa.exc.SQLAlchemyError) and not isinstance(error, OSError):
        return f"the database answered nonsense ({type(error).__name__}: {words})"
    way = _WAYS_OUT.get(code) if code is not None else None
    if "affected by row-level security" in words:  # of the code of a missing right
        way = _POLICY
    if way is None:
        way = next((way for part, way in _BY_WORDS if part in words), None)
    return f"{words}; {way}" if way else words


def _code_and_text(cause: BaseException) -> tuple[str | int | None, str]:
    """The driver's error number and its words."""
    diagnosis = getattr(cause, "diag", None)  # psycopg
    if diagnosis is not None and diagnosis.message_primary:
        return getattr(cause, "sqlstate", None), str(diagnosis.message_primary)
    arguments = cause.args
    if len(arguments) == 2 and isinstance(arguments[0], int):  # PyMySQL, pymssql
        words = arguments[1]
        return arguments[0], words.decode("utf-8", "replace") if isinstance(words, bytes) else str(words)
    if arguments and isinstance(arguments[0], tuple):  # pymssql while connecting
        return _code_and_text(Exception(*arguments[0]))
    words = re.sub(r"\n(LINE|DETAIL|HINT|CONTEXT)\b.*", "", str(cause), flags=re.DOTALL)
    return getattr(cause, "sqlstate", None), words
