"""Reads a source's documents by expressions: JMESPath, compiled at the start, with a few functions of our own.

The library checks names and arguments of functions only when it calls them, so they are checked here. Any exception of
an expression becomes `ExpressionFailed`: the document decides what an expression meets, and it must never stop a
worker. Texts of errors quote the expression and never the document, which may name a user.

Three names in quotes are at hand anywhere in an expression: `"$headers"`, `"$properties"`, `"$envelope"`.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from difflib import get_close_matches
from functools import lru_cache
from types import MappingProxyType
from typing import Any, cast

import jmespath
from jmespath import exceptions, functions
from jmespath.visitor import Options, TreeInterpreter
from pydantic_core import from_json

from notifier.features.sources.pitfalls import pitfall
from notifier.model.errors import NotifierError
from notifier.model.moment import read_moment
from notifier.model.printable import excerpt
from notifier.model.validation import kind_of

DEEPEST = 100  # levels of an expression; each takes several frames of the interpreter's stack
LONGEST = 4096  # characters of an expression
SHOWN = 60  # characters of an expression in the text of an error
LONGEST_JSON = 256 * 1024  # characters of JSON that is a text: as long as a message of SNS, and read within 10 ms
KEPT_TEXTS = 4  # of one message, and what they were read as
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?")


class ExpressionFailed(NotifierError):  # noqa: N818  the document may be at fault
    """An expression raised something while it read a document. The text says why, and quotes the expression."""


class NoExpression(NotifierError):  # noqa: N818  the configuration is at fault
    """A text is no usable expression. The text of this error says why."""


class _Functions(functions.Functions):
    """The functions of JMESPath, and ours."""

    @functions.signature({"types": ["number", "string", "null"]})
    def _func_from_s(self, seconds: object) -> str | None:
        return _moment(seconds, 1, "from_s() takes seconds since 1970, in the years 1 to 9999")

    @functions.signature({"types": ["number", "string", "null"]})
    def _func_from_ms(self, milliseconds: object) -> str | None:
        return _moment(milliseconds, 1_000, "from_ms() takes milliseconds since 1970, in the years 1 to 9999")

    @functions.signature({"types": ["number", "string", "null"]})
    def _func_from_us(self, microseconds: object) -> str | None:
        return _moment(microseconds, 1_000_000, "from_us() takes microseconds since 1970, in the years 1 to 9999")

    @functions.signature({"types": ["number", "string", "null"]})
    def _func_to_time(self, time: object) -> str | None:
        takes = "to_time() takes ISO 8601 with an offset, or seconds since 1970"
        if isinstance(time, str) and _NUMBER.fullmatch(time) is None:
            return _iso(time, takes)
        return _moment(time, 1, takes)

    @functions.signature({"types": ["string", "null"]})
    def _func_from_json(self, text: str | None) -> object:
        return None if text is None else _json(text)

    @functions.signature({"types": ["string", "null"]})
    def _func_lower(self, text: str | None) -> str | None:
        return None if text is None else text.lower()

    @functions.signature({"types": ["string", "null"]}, {"types": ["string"]})
    def _func_split(self, text: str | None, separator: str) -> list[str] | None:
        if not separator:
            raise ValueError("split() needs a separator that is not empty")
        return None if text is None else [part for piece in text.split(separator) if (part := piece.strip())]

    @functions.signature({"types": []}, {"types": []})
    def _func_default(self, value: object, otherwise: object) -> object:
        return otherwise if value is None else value

    @functions.signature({"types": []}, {"types": ["object"]})
    def _func_look_up(self, value: object, table: Mapping[str, object]) -> object:
        if value is None or isinstance(value, (bool, list, dict)):
            return None
        return table.get(plain_name(str(value)))


_FUNCTIONS = _Functions()
_OPTIONS = Options(custom_functions=_FUNCTIONS)
_NOTHING: Mapping[str, object] = MappingProxyType({})


def plain_name(name: str) -> str:
    """Return the name as `ignore_case` compares it: in lower case and without `_`."""
    return _plain(name) if len(name) <= 64 else name.lower().replace("_", "")  # a long one is not remembered


@lru_cache(maxsize=2048)
def _plain(name: str) -> str:
    return name.lower().replace("_", "")


def lowered(value: object) -> object:
    """The value with all member names in lower case and without `_`. Of two that are then alike, null gives way."""
    if isinstance(value, dict):
        members: dict[str, object] = {}
        for name, member in value.items():
            plain = plain_name(name)
            if members.get(plain) is None:
                members[plain] = lowered(member) if isinstance(member, (dict, list)) else member
        return members
    if isinstance(value, list):
        return [lowered(item) if isinstance(item, (dict, list)) else item for item in value]
    return value


class Expression:
    """A compiled expression. `fields` are the names of members that it mentions.

    `of_object`: it only names members, so it says nothing of a document that is no object.
    """

    __slots__ = ("fields", "of_object", "parsed", "text")

    def __init__(self, text: str) -> None:
        """Compile the text. Raises NoExpression."""
        self.text = text
        if len(text) > LONGEST:
            raise NoExpression(f"has {len(text)} characters; {LONGEST} at most")
        try:
            self.parsed: dict[str, Any] = cast("Any", jmespath.compile(text)).parsed
        except exceptions.EmptyExpressionError:
            raise NoExpression("must not be empty") from None
        except exceptions.JMESPathError as error:
            raise NoExpression(_why_no_expression(error)) from None
        except RecursionError:
            raise NoExpression("is nested too deeply") from None
        except Exception as error:  # noqa: BLE001  whatever the library raises, the configuration is wrong
            raise NoExpression(f"cannot be compiled ({type(error).__name__})") from None
        nodes = list(_nodes(self.parsed))
        self.fields = frozenset(str(node["value"]) for node in nodes if node["type"] == "field")
        for node in nodes:
            if node["type"] == "function_expression" and (wrong := _misuse(node)) is not None:
                raise NoExpression(wrong)
        if (wrong := pitfall(text, nodes)) is not None:
            raise NoExpression(wrong)
        self.of_object = bool(self.fields) and not any(node["type"] in ("current", "identity") for node in nodes)

    def __eq__(self, other: object) -> bool:
        """Equal if the texts are."""
        return isinstance(other, Expression) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"Expression({self.text!r})"


class ExpressionReader(TreeInterpreter):
    """Reads one document by expressions. `names` are at hand anywhere in it, such as `$headers`.

    `ignore_case`: the document's own names are plain, and those in JSON that is a text of it become so. `texts` keeps
    what such a text was read as, for all documents of a message: each of 200 events may ask for the same 128 KiB.
    """

    def __init__(
        self,
        document: object,
        names: Mapping[str, object] = _NOTHING,
        *,
        ignore_case: bool = False,
        texts: dict[str, object] | None = None,
    ) -> None:
        super().__init__(_OPTIONS)
        self._document = document
        self._ignore_case = ignore_case
        self._texts = {} if texts is None else texts
        self._names = names
        self._headers = names.get("$headers")

    def value(self, expression: Expression) -> object:
        """What the expression gives, None if nothing. Raises ExpressionFailed."""
        try:
            return cast("object", self.visit(cast("Any", expression.parsed), self._document))
        except Exception as error:  # noqa: BLE001  see the module
            raise ExpressionFailed(f"`{excerpt(expression.text, SHOWN)}` fails: {_why_failed(error)}") from None

    def visit_function_expression(self, node: Any, value: Any) -> Any:
        """Return what the function gives."""
        if node["value"] != "from_json":
            return super().visit_function_expression(node, value)
        text = self.visit(node["children"][0], value)
        if isinstance(text, str) and text in self._texts:
            return self._texts[text]
        result = _FUNCTIONS.call_function("from_json", [text])
        result = lowered(result) if self._ignore_case else result
        if isinstance(text, str):
            if len(self._texts) >= KEPT_TEXTS:
                del self._texts[next(iter(self._texts))]
            self._texts[text] = result
        return result

    def visit_field(self, node: Any, value: Any) -> Any:
        """Return the member, or what is given under this name."""
        name = node["value"]
        if name in self._names:
            return self._names[name]
        if not isinstance(value, dict):
            return None
        member = value.get(name)
        if member is None and value is self._headers:  # names of headers have no case
            return next((content for header, content in value.items() if header.lower() == name.lower()), None)
        return member


def _nodes(parsed: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All nodes of an expression. Raises NoExpression if it is nested too deeply to be read safely."""
    level = [parsed]
    for _ in range(DEEPEST):
        if not level:
            return
        yield from level
        level = [child for node in level for child in node.get("children", ()) if isinstance(child, dict)]
    raise NoExpression(f"is nested too deeply; {DEEPEST} levels at most")


def _misuse(node: dict[str, Any]) -> str | None:
    name, number = str(node["value"]), len(node["children"])
    known: Mapping[str, Any] = _FUNCTIONS.FUNCTION_TABLE
    if name not in known:
        near = get_close_matches(name.lower(), known, n=1, cutoff=0.6)
        hint = f"did you mean {near[0]}()?" if near else f"there are {', '.join(sorted(known))}"
        return f"there is no function {excerpt(name, 40)}(); {hint}"
    signature = known[name]["signature"]
    most = bool(signature and signature[-1].get("variadic"))
    if number < len(signature) if most else number != len(signature):
        count = f"{'at least ' if most else ''}{len(signature)} argument{'' if len(signature) == 1 else 's'}"
        kinds = ", ".join(" or ".join(parameter["types"]) or "anything" for parameter in signature)
        return f"{name}() takes {count} ({kinds}), not {number}"
    return None


def _why_no_expression(error: Exception) -> str:
    lines = str(error).splitlines() or [type(error).__name__]
    reason = lines[0].partition(", for expression")[0]
    reason = reason.replace("Invalid jmespath expression: ", "").replace("Bad jmespath expression: ", "").rstrip(": ")
    return f"is no JMESPath expression: {excerpt(reason)}"


def _why_failed(error: Exception) -> str:
    match error:
        case exceptions.JMESPathTypeError():
            expected = " or ".join(map(str, error.expected_types))
            return f"{error.function_name}() takes {expected}, not {error.actual_type}"
        case RecursionError():
            return "it is nested too deeply"
        case ValueError():
            return excerpt(str(error)) if error.args and not isinstance(error, exceptions.JMESPathError) else "no value"
        case TypeError():
            return "it compares or counts values of types that do not fit"
        case _:
            return type(error).__name__


def _moment(value: object, parts: int, takes: str) -> str | None:
    """RFC 3339 of a number of parts of a second since the epoch. Raises ValueError without the value."""
    if value is None:
        return None
    try:
        return datetime.fromtimestamp(float(cast("float", value)) / parts, UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"{takes}, not {kind_of(value)} like this") from None


def _iso(text: str, takes: str) -> str:
    """RFC 3339 of a time in any form of ISO 8601. Without an offset it would be one of several moments."""
    try:
        try:
            return datetime.fromtimestamp(read_moment(text), UTC).isoformat()
        except ValueError:
            moment = datetime.fromisoformat(text)
            if moment.tzinfo is None:
                raise
            return moment.astimezone(UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"{takes}, not a string like this") from None


def _json(text: str) -> object:
    """The value that the JSON means. Raises ValueError, which says where it is wrong and quotes none of it."""
    if len(text) > LONGEST_JSON:
        raise ValueError(f"from_json() takes at most {LONGEST_JSON:,} characters, not {len(text):,}")
    try:
        return cast("object", from_json(text, allow_inf_nan=False, cache_strings="keys"))
    except ValueError as error:
        deep = "recursion limit" in str(error)
        why = "nested too deeply; 200 levels at most" if deep else str(error)
        raise ValueError(f"from_json() takes a string that is JSON: {why}") from None
