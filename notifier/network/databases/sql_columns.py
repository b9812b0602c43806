"""Reads columns of a database as values of client metadata. Drivers differ in their types.

A ValueError describes the mistake in a value, and never shows it: a wrong column could be a secret one.

Anybody who may write to the database controls these values. Decoding 60 MiB of JSON takes ten seconds, in which no
other thread of the process runs. So a value, its nesting and all values of a reading have the same bounds as a response
over HTTP.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from notifier.model.client import Algorithm
from notifier.model.errors import SourceFault
from notifier.model.shared_resources import shared_cache
from notifier.network.databases.sql_connection import Deadline
from notifier.network.http.json_parts import MAX_NESTING, MAX_PART_BYTES, Bounds, format_size, is_too_deep

FETCH_ROWS = 1000  # rows at once from PostgreSQL: each fetch is a query, which takes 2 ms in C
ROWS_PER_TURN = 250  # rows, 2 to 4 ms, after which the event loop of the process may run
PAUSE_SECONDS = 0.001  # seconds

_ALGORITHMS = frozenset(Algorithm)
_TRUE = frozenset(("1", "t", "true", "y", "yes", "on"))
_FALSE = frozenset(("0", "f", "false", "n", "no", "off"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A running statement, and how to read its rows."""

    result: sa.CursorResult[Any]
    client_id: int
    """The index of the column with the client's id."""
    read: Callable[[Sequence[Any]], dict[str, Any] | None]
    """Returns the metadata of a row; None if the row is not to be listed. Raises ValueError."""


class ReadAmount:
    """Counts the amount of data of one reading."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._characters = 0
        self._values = 0

    def add(self, rows: Sequence[Sequence[Any]]) -> None:
        """Count these rows. Raises SourceFault if the amount exceeds the bounds."""
        values = [value for row in rows for value in row if value is not None]
        self._values += len(values)
        self._characters += sum(len(value) for value in values if isinstance(value, str | bytes | list | dict))
        if self._characters > self._bounds.answer or self._values > self._bounds.values:
            raise SourceFault(f"its rows are more than {format_size(self._bounds.answer)}")


def streaming_options(connection: sa.Connection) -> dict[str, Any]:
    """Return the options of a statement whose rows are fetched in parts."""
    return {"stream_results": True, "yield_per": _rows_per_fetch(connection.dialect)}


def _rows_per_fetch(dialect: sa.engine.Dialect) -> int:
    return FETCH_ROWS if dialect.name == "postgresql" else ROWS_PER_TURN


def read_parts(
    result: sa.CursorResult[Any], deadline: Deadline, amount: ReadAmount, pause: Callable[[float], None]
) -> Iterator[tuple[int, Sequence[Any]]]:
    """Fetch a result in parts, with pauses. Yield the number of each part's first row (from 1), and its rows.

    Raises SourceFault at the deadline, or if the amount exceeds the bounds.
    """
    number = 1
    # The size is given again, since SQLAlchemy 2.1 ignores `yield_per` for text statements.
    for fetched in result.partitions(_rows_per_fetch(result.dialect)):
        deadline.check()
        for start in range(0, len(fetched), ROWS_PER_TURN):
            pause(PAUSE_SECONDS)
            rows = fetched[start : start + ROWS_PER_TURN]
            amount.add(rows)
            yield number + start, rows
        number += len(fetched)


def normalize_name(name: str) -> str:
    """Return a name without case and `_`, for comparison."""
    return name.replace("_", "").lower()


def to_text(value: object) -> str | None:
    """Return a text without the blanks that pad columns of fixed width; None if it is empty. Raises ValueError."""
    if value is None:
        return None
    if isinstance(value, str | bytes | bytearray | memoryview) and len(value) > MAX_PART_BYTES:
        raise ValueError(_TOO_LONG)
    if type(value) is str:
        return value.rstrip(" ") or None
    if isinstance(value, bytes | bytearray | memoryview):
        try:
            value = bytes(value).decode()
        except UnicodeDecodeError:
            raise ValueError("is not UTF-8") from None
    elif isinstance(value, int | UUID) and not isinstance(value, bool):
        value = str(value)
    elif isinstance(value, Decimal) and value.is_finite() and value == value.to_integral_value():
        value = f"{value:.0f}"  # a key of the type NUMERIC
    if not isinstance(value, str):
        raise ValueError(f"must be a text, not {_name_kind(value)}")  # noqa: TRY004  a mistake of the row
    return value.rstrip(" ") or None


def to_lower(value: object) -> str | None:
    """Return a word in lower case: some servers write it in capitals."""
    word = to_text(value)
    return None if word is None else word.lower()


def to_bool(value: object) -> bool | None:
    """Return the boolean in any of the representations of databases; None if it is absent. Raises ValueError."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float | Decimal) and value in (0, 1):
        return value == 1
    if isinstance(value, bytes) and len(value) == 1 and value[0] < 2:  # MySQL's BIT(1)
        return value == b"\x01"
    if isinstance(value, bytes | str):
        word = (to_text(value) or "").lower()
        if not word:
            return None
        if word in _TRUE or word in _FALSE:
            return word in _TRUE
    raise ValueError("must be true or false")


def to_list(value: object) -> list[str] | None:
    """Return a list of texts from an array, JSON, or one text; None if it has none. Raises ValueError."""
    if isinstance(value, str | bytes):
        word = (to_text(value) or "").strip()
        if not word.startswith("["):
            return [word] if word else None
        value = _parse_json(word)
    if value is None:
        return None
    if not isinstance(value, list | tuple):
        raise ValueError(f"must be a list of texts as JSON, not {_name_kind(value)}")  # noqa: TRY004  likewise
    words = [to_text(member) for member in value]
    return [word for word in words if word is not None] or None


def to_mapping(value: object) -> Mapping[str, object] | None:
    """Return a JSON object; None if it is absent. Raises ValueError."""
    if isinstance(value, str | bytes):
        word = to_text(value)
        value = None if word is None else _parse_json(word)
    if value is None:
        return None
    if not isinstance(value, dict):
        raise ValueError(f"must be a JSON object, not {_name_kind(value)}")  # noqa: TRY004  likewise
    mapping: dict[str, object] = _require_shallow(value)
    return mapping


def parse_scalar(word: str) -> object:
    """Return the value of a text column: JSON if it is JSON, True and False as .NET writes them, else the text."""
    stripped = word.strip()
    if stripped in ("True", "False"):
        return stripped == "True"
    try:
        return _parse_json(stripped)
    except ValueError:
        return word


def to_algorithms(value: object) -> str | list[str] | None:
    """Return one algorithm, or a list of supported algorithms, of which the first with a signing key is used.

    None if there is none. Raises ValueError.
    """
    if isinstance(value, list | tuple):  # an array of PostgreSQL
        value = ",".join(to_list(value) or ())
    word = to_text(value)
    return None if word is None else _parse_algorithms(word)


@shared_cache(256)
def _parse_algorithms(word: str) -> str | list[str] | None:
    words = re.findall(r"[^\s,;\"\[\]]+", word)  # also a list as JSON
    known = [word for word in words if word in _ALGORITHMS]
    return known if len(known) > 1 else next(iter(known or words), None)


def _parse_json(word: str) -> Any:
    try:
        value = _JSON.decode(word)
    except (ValueError, RecursionError):
        raise ValueError("is not JSON") from None
    return _require_shallow(value)


def _require_shallow(value: Any) -> Any:
    if is_too_deep(value):
        raise ValueError(f"is nested more than {MAX_NESTING} deep")
    return value


def _refuse_constant(word: str) -> object:
    raise ValueError(f"{word} is not JSON")


_JSON = json.JSONDecoder(parse_constant=_refuse_constant)
_TOO_LONG = f"is longer than {format_size(MAX_PART_BYTES)}"


def _name_kind(value: object) -> str:
    names = {
        bool: "true or false",
        dict: "an object",
        list: "a list",
        int: "a number",
        float: "a number",
        str: "a text",
    }
    return names.get(type(value), type(value).__name__)
