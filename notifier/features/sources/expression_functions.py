"""The functions in expressions of sources: those of JMESPath, and further ones for times, JSON, texts and tables."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import cast

from jmespath import functions
from pydantic_core import from_json

from notifier.model.moment import parse_moment
from notifier.model.shared_resources import shared_cache
from notifier.model.validation import kind_of

MAX_JSON_CHARACTERS = 256 * 1024  # the limit of SNS for a message; parsed within 10 ms
MAX_CACHED_NAME_CHARACTERS = 64  # longer names do not occupy the cache
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?")


class _ExpressionFunctions(functions.Functions):
    """The functions of JMESPath, and those below. The library finds them by the prefix `_func_`."""

    @functions.signature({"types": ["number", "string", "null"]})
    def _func_from_s(self, seconds: object) -> str | None:
        return _format_epoch(seconds, 1, "from_s() takes seconds since 1970, in the years 1 to 9999")

    @functions.signature({"types": ["number", "string", "null"]})
    def _func_from_ms(self, milliseconds: object) -> str | None:
        return _format_epoch(milliseconds, 1_000, "from_ms() takes milliseconds since 1970, in the years 1 to 9999")

    @functions.signature({"types": ["number", "string", "null"]})
    def _func_from_us(self, microseconds: object) -> str | None:
        return _format_epoch(microseconds, 1_000_000, "from_us() takes microseconds since 1970, in the years 1 to 9999")

    @functions.signature({"types": ["number", "string", "null"]})
    def _func_to_time(self, time: object) -> str | None:
        expected = "to_time() takes ISO 8601 with an offset, or seconds since 1970"
        if isinstance(time, str) and _NUMBER.fullmatch(time) is None:
            return _format_iso(time, expected)
        return _format_epoch(time, 1, expected)

    @functions.signature({"types": ["string", "null"]})
    def _func_from_json(self, text: str | None) -> object:
        return None if text is None else _parse_json(text)

    @functions.signature({"types": ["string", "null"]})
    def _func_lower(self, text: str | None) -> str | None:
        return None if text is None else text.lower()

    @functions.signature({"types": ["string", "null"]}, {"types": ["string"]})
    def _func_split(self, text: str | None, separator: str) -> list[str] | None:
        if not separator:
            raise ValueError("split() needs a separator that is not empty")
        return None if text is None else [part.strip() for part in text.split(separator) if part.strip()]

    @functions.signature({"types": []}, {"types": []})
    def _func_default(self, value: object, otherwise: object) -> object:
        return otherwise if value is None else value

    @functions.signature({"types": []}, {"types": ["object"]})
    def _func_look_up(self, value: object, table: Mapping[str, object]) -> object:
        if value is None or isinstance(value, (bool, list, dict)):
            return None
        return table.get(normalize_name(str(value)))


FUNCTIONS = _ExpressionFunctions()


def normalize_name(name: str) -> str:
    """Return a name in lower case and without `_`, as sources with `ignore_case` compare names."""
    return _normalize_cached(name) if len(name) <= MAX_CACHED_NAME_CHARACTERS else name.lower().replace("_", "")


@shared_cache(2048)
def _normalize_cached(name: str) -> str:
    return name.lower().replace("_", "")


def normalize_names(value: object) -> object:
    """Return a JSON value with normalized names at all levels. Of equal names, the first that is not null counts."""
    if isinstance(value, dict):
        members: dict[str, object] = {}
        for name, member in value.items():
            normalized = normalize_name(name)
            if members.get(normalized) is None:
                members[normalized] = normalize_names(member) if isinstance(member, (dict, list)) else member
        return members
    if isinstance(value, list):
        return [normalize_names(item) if isinstance(item, (dict, list)) else item for item in value]
    return value


def _format_epoch(value: object, units_per_second: int, expected: str) -> str | None:
    """Return an epoch time as RFC 3339; None for null. Raises ValueError with `expected`, without the value."""
    if value is None:
        return None
    try:
        return datetime.fromtimestamp(float(cast("float", value)) / units_per_second, UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"{expected}, not {kind_of(value)} like this") from None


def _format_iso(text: str, expected: str) -> str:
    """Return a time of ISO 8601 with an offset as RFC 3339. Raises ValueError with the text `expected`."""
    try:
        try:
            return datetime.fromtimestamp(parse_moment(text), UTC).isoformat()
        except ValueError:  # a form of ISO 8601 that RFC 3339 does not have
            moment = datetime.fromisoformat(text)
            if moment.tzinfo is None:  # the time would be ambiguous
                raise
            return moment.astimezone(UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"{expected}, not a string like this") from None


def _parse_json(text: str) -> object:
    """Return the value of a JSON text. Raises ValueError with the position of the error, without the text."""
    if len(text) > MAX_JSON_CHARACTERS:
        raise ValueError(f"from_json() takes at most {MAX_JSON_CHARACTERS:,} characters, not {len(text):,}")
    try:
        return cast("object", from_json(text, allow_inf_nan=False, cache_strings="keys"))
    except ValueError as error:
        is_too_deep = "recursion limit" in str(error)
        reason = "nested too deeply; 200 levels at most" if is_too_deep else str(error)
        raise ValueError(f"from_json() takes a string that is JSON: {reason}") from None
