"""Evaluate a source's expressions: JMESPath, compiled at the start, with a few additional functions.

The library checks names and arguments of functions only when it calls them, so they are checked at compilation here.
Every exception of an expression becomes `EvaluationError`, because a document must never stop a worker. Error texts
quote the expression and never the document, which may name a user.

Three quoted names are available anywhere in an expression: `"$headers"`, `"$properties"`, `"$envelope"`.
"""

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, cast

import jmespath
from jmespath import exceptions
from jmespath.lexer import Lexer
from jmespath.visitor import Options, TreeInterpreter

from notifier.features.sources.expression_functions import FUNCTIONS, normalize_names
from notifier.model.errors import NotifierError
from notifier.model.nearest import suggest
from notifier.model.printable import excerpt

MAX_DEPTH = 100  # each level takes several frames of the interpreter's stack
MAX_EXPRESSION_CHARACTERS = 4096
MAX_QUOTED_CHARACTERS = 60  # of an expression in an error text
MAX_CACHED_TEXTS = 4  # parsed JSON texts of one message
_MAX_QUOTED_WORD_CHARACTERS = 40  # of the document's words in an error text
_COMPARISONS = ("eq", "ne")
_TEXT_FUNCTIONS = ("contains", "ends_with", "split", "starts_with")
_CONTINUATIONS = ("dot", "lbracket", "flatten", "filter")
_RAW_NAMES = ("$headers", "$properties")  # their names are not normalized


class EvaluationError(NotifierError):
    """The evaluation of an expression failed. The text gives the reason and quotes the expression."""


class ExpressionError(NotifierError):
    """A text is not a usable expression. The error's text gives the reason."""


_OPTIONS = Options(custom_functions=FUNCTIONS)
_NO_NAMES: Mapping[str, object] = MappingProxyType({})


class Expression:
    """A compiled expression. `fields` has the names of the members in it.

    `needs_object`: it only names members, so it is meaningless for a document that is not an object.
    """

    __slots__ = ("fields", "needs_object", "parsed", "text")

    def __init__(self, text: str) -> None:
        """Compile the text. Raises ExpressionError."""
        self.text = text
        if len(text) > MAX_EXPRESSION_CHARACTERS:
            raise ExpressionError(f"has {len(text)} characters; {MAX_EXPRESSION_CHARACTERS} at most")
        try:
            self.parsed: dict[str, Any] = cast("Any", jmespath.compile(text)).parsed
        except exceptions.EmptyExpressionError:
            raise ExpressionError("must not be empty") from None
        except exceptions.JMESPathError as error:
            raise ExpressionError(_explain_compile_error(error)) from None
        except RecursionError:
            raise ExpressionError("is nested too deeply") from None
        except Exception as error:  # noqa: BLE001  whatever the library raises, the configuration is wrong
            raise ExpressionError(f"cannot be compiled ({type(error).__name__})") from None
        nodes = list(_walk_nodes(self.parsed))
        self.fields = frozenset(str(node["value"]) for node in nodes if node["type"] == "field")
        for node in nodes:
            if node["type"] == "function_expression" and (wrong := _find_misuse(node)) is not None:
                raise ExpressionError(wrong)
        if (wrong := find_pitfall(text, nodes)) is not None:
            raise ExpressionError(wrong)
        self.needs_object = bool(self.fields) and not any(node["type"] in ("current", "identity") for node in nodes)

    def __eq__(self, other: object) -> bool:
        """Equal if the texts are."""
        return isinstance(other, Expression) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"Expression({self.text!r})"


class ExpressionReader(TreeInterpreter):
    """Evaluates expressions on one document. `names`, such as `$headers`, are available anywhere in it.

    `ignore_case`: the document's names are normalized already; names in JSON texts within it are normalized on reading.
    `texts` caches parsed JSON texts for all documents of a message: each of 200 events may read the same 128 KiB.
    """

    def __init__(
        self,
        document: object,
        names: Mapping[str, object] = _NO_NAMES,
        *,
        ignore_case: bool = False,
        texts: dict[str, object] | None = None,
    ) -> None:
        super().__init__(_OPTIONS)
        self._document = document
        self._ignore_case = ignore_case
        self._parsed_texts = {} if texts is None else texts
        self._names = names
        self._headers = names.get("$headers")

    def evaluate(self, expression: Expression) -> object:
        """Return the value of the expression, None if it has none. Raises EvaluationError."""
        try:
            return cast("object", self.visit(cast("Any", expression.parsed), self._document))
        except Exception as error:  # noqa: BLE001  see the module
            raise EvaluationError(
                f"`{excerpt(expression.text, MAX_QUOTED_CHARACTERS)}` fails: {_explain_failure(error)}"
            ) from None

    def visit_function_expression(self, node: Any, value: Any) -> Any:
        """Return the function's result."""
        if node["value"] != "from_json":
            return super().visit_function_expression(node, value)
        text = self.visit(node["children"][0], value)
        if isinstance(text, str) and text in self._parsed_texts:
            return self._parsed_texts[text]
        result = FUNCTIONS.call_function("from_json", [text])
        result = normalize_names(result) if self._ignore_case else result
        if isinstance(text, str):
            if len(self._parsed_texts) >= MAX_CACHED_TEXTS:
                del self._parsed_texts[next(iter(self._parsed_texts))]
            self._parsed_texts[text] = result
        return result

    def visit_field(self, node: Any, value: Any) -> Any:
        """Return the member, or the value in `names`."""
        name = node["value"]
        if name in self._names:
            return self._names[name]
        if not isinstance(value, dict):
            return None
        member = value.get(name)
        if member is None and value is self._headers:  # header names are case-insensitive
            return next((content for header, content in value.items() if header.lower() == name.lower()), None)
        return member


def _walk_nodes(parsed: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield all nodes of an expression. Raises ExpressionError if it is nested too deeply to be evaluated safely."""
    level = [parsed]
    for _ in range(MAX_DEPTH):
        if not level:
            return
        yield from level
        level = [child for node in level for child in node.get("children", ()) if isinstance(child, dict)]
    raise ExpressionError(f"is nested too deeply; {MAX_DEPTH} levels at most")


def _find_misuse(node: dict[str, Any]) -> str | None:
    name, number = str(node["value"]), len(node["children"])
    known: Mapping[str, Any] = FUNCTIONS.FUNCTION_TABLE
    if name not in known:
        return f"there is no function {excerpt(name, 40)}(); {suggest(name.lower(), sorted(known))}"
    signature = known[name]["signature"]
    most = bool(signature and signature[-1].get("variadic"))
    if number < len(signature) if most else number != len(signature):
        count = f"{'at least ' if most else ''}{len(signature)} argument{'' if len(signature) == 1 else 's'}"
        kinds = ", ".join(" or ".join(parameter["types"]) or "anything" for parameter in signature)
        return f"{name}() takes {count} ({kinds}), not {number}"
    return None


def _explain_compile_error(error: Exception) -> str:
    lines = str(error).splitlines() or [type(error).__name__]
    reason = lines[0].partition(", for expression")[0]
    reason = reason.replace("Invalid jmespath expression: ", "").replace("Bad jmespath expression: ", "").rstrip(": ")
    return f"is not a JMESPath expression: {excerpt(reason)}"


def _explain_failure(error: Exception) -> str:
    """Return why an expression fails on a document. No reason quotes a value of the document."""
    match error:
        case exceptions.JMESPathTypeError():
            expected = " or ".join(map(str, error.expected_types))
            return f"{error.function_name}() takes {expected}, not {error.actual_type}"
        case RecursionError():
            return "it is nested too deeply"
        case ValueError() if error.args and not isinstance(error, exceptions.JMESPathError):
            return excerpt(str(error))  # from notifier's functions
        case ValueError():
            return "no value"
        case TypeError():
            return "it compares or counts values of types that do not fit"
        case _:
            return type(error).__name__


def find_pitfall(text: str, nodes: Iterable[Mapping[str, Any]]) -> str | None:
    """Return the probable error in an expression that compiles, with the remedy; None if there is none."""
    for node in nodes:
        first = node["children"][0]["type"] if node.get("children") else ""
        if node["type"] == "subexpression" and first == "not_expression":
            return "`!a.b` means `(!a).b`, which is never true; write `!(a.b)`"
        if node["type"] == "comparator":
            for child in node["children"]:
                if child["type"] == "field" and child["value"] in ("true", "false"):
                    name = child["value"]
                    return f"{name} is the name of a member here; write it in backticks: `{name}`"
    return _find_quoted_text(text)


def _find_quoted_text(text: str) -> str | None:
    """Return an error for `a == "b"` and `contains(a, "b")`, which compare two members; `@."b"` avoids the error."""
    tokens = cast("list[Mapping[str, Any]]", list(cast("Any", Lexer()).tokenize(text)))
    called: list[str] = []  # the functions around the token
    for before, token, after in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if token["type"] == "lparen":
            called.append(str(before["value"]))
        elif token["type"] == "rparen" and called:
            called.pop()
        compared = before["type"] in _COMPARISONS and after["type"] not in _CONTINUATIONS
        sought = before["type"] == "comma" and after["type"] == "rparen" and called and called[-1] in _TEXT_FUNCTIONS
        if token["type"] == "quoted_identifier" and (compared or sought) and not str(token["value"]).startswith("$"):
            word = excerpt(str(token["value"]), _MAX_QUOTED_WORD_CHARACTERS)
            return f"\"{word}\" in double quotes is the name of a member; if the text is meant, write it as '{word}'"
    return None


def find_unmatchable_name(parsed: Mapping[str, Any]) -> str | None:
    """Return a name in the expression that matches no member with `ignore_case`; None if there is none."""
    children = [child for child in parsed.get("children", ()) if isinstance(child, dict)]
    if parsed["type"] == "field":
        field = str(parsed["value"])
        return None if field.startswith("$") or field == field.lower().replace("_", "") else field
    if parsed["type"] == "subexpression" and children[0]["type"] == "field" and children[0]["value"] in _RAW_NAMES:
        return None
    return next((name for child in children if (name := find_unmatchable_name(child)) is not None), None)
