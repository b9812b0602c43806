"""The settings of the schema, written as in docs/configuration.md."""

from collections.abc import Iterator
from functools import cache
from typing import Any

from notifier.settings.config_schema import config_schema
from tests.settings.whole_settings import SETTINGS

_WORDS = {"boolean": "boolean", "integer": "number", "number": "number", "string": "text"}
_FORMATS = {"path": "file", "date-time": "time", "password": "text"}
_CLIENT = "ClientOptions"


@cache
def _schema() -> dict[str, Any]:
    return config_schema(SETTINGS)


def list_all() -> Iterator[tuple[str, str]]:
    """Return each setting of the service's file and of a client with its type."""
    yield from _settings("", _schema())
    for name, member in _schema()["$defs"]["ClientMetadata"]["properties"].items():
        if name == "notifier":
            yield from _settings("notifier.", _schema()["$defs"][_CLIENT])
        else:
            yield name, _type(member)


def _settings(below: str, section: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, member in section["properties"].items():
        path = f"{below}{name}"
        if (inner := _inner(member)) is not None:
            part, way = inner
            names = "<iss>" if part in ("IssuerSettings", "WebIssuerSettings") else "<name>"
            yield from _settings(f"{path}{way.replace('<>', names)}.", _schema()["$defs"][part])
        else:
            yield path, _type(member)


def _inner(member: dict[str, Any]) -> tuple[str, str] | None:
    """Return the section in a member and what joins it to the member: nothing, `[]` or `.<>`; None for a value."""
    for kind in (member, *member.get("anyOf", ())):
        for way, holder in (("", kind), ("[]", kind.get("items", {})), *((".<>", each) for each in _mapped(kind))):
            name = holder.get("$ref", "").removeprefix("#/$defs/")
            if name and name != _CLIENT and "properties" in _schema()["$defs"][name]:
                return name, way
    return None


def _mapped(kind: dict[str, Any]) -> list[dict[str, Any]]:
    more = kind.get("additionalProperties")
    return [*kind.get("patternProperties", {}).values(), *([more] if isinstance(more, dict) else [])]


def _type(member: dict[str, Any]) -> str:
    kinds = [kind for kind in member.get("anyOf", [member]) if kind.get("type") != "null"]
    return " or ".join(dict.fromkeys(map(_word, kinds)))


def _word(kind: dict[str, Any]) -> str:
    if "$ref" in kind:
        return _type(_schema()["$defs"][kind["$ref"].removeprefix("#/$defs/")])
    if "enum" in kind or "const" in kind:
        return "choice"
    if "ms|s|m|h|d" in kind.get("pattern", ""):
        return "duration"
    if kind.get("type") == ["string", "integer"]:
        return "size"
    if kind.get("type") == "array":
        return "list"
    if kind.get("type") == "object":
        return "mapping"
    if kind.get("pattern", "").startswith("^https?://"):
        return "URL"
    return _FORMATS.get(kind.get("format", ""), _WORDS.get(str(kind.get("type")), "value"))
