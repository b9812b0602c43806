"""Compile and evaluate the expressions of sources: JMESPath with additional functions (`expression_functions`).

The library checks names and arguments of functions only when it calls them. `Expression` therefore checks them when it
compiles. Each exception of an evaluation becomes an EvaluationError, since a document must not stop a worker. Error
texts quote the expression and not the document, which may name a user.

Three quoted names are available anywhere in an expression: `"$headers"`, `"$properties"`, `"$envelope"`.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

import jmespath
from jmespath import exceptions
from jmespath.lexer import Lexer
from jmespath.visitor import Options, TreeInterpreter

from notifier.features.sources.expression_functions import FUNCTIONS, normalize_names
from notifier.model.errors import NotifierError
from notifier.model.nearest import suggest
from notifier.model.printable import excerpt

MAX_DEPTH = 100  # each level takes several frames of Python's stack
MAX_EXPRESSION_CHARACTERS = 4096
MAX_QUOTED_CHARACTERS = 60  # of an expression in an error text
MAX_CACHED_TEXTS = 4  # parsed JSON texts of one message
_MAX_QUOTED_WORD_CHARACTERS = 40  # of a name in an error text
_COMPARISONS = ("eq", "ne")
_TEXT_FUNCTIONS = ("contains", "ends_with", "split", "starts_with")
_CONTINUATIONS = ("dot", "lbracket", "flatten", "filter")  # tokens after a name that is not the whole operand
_RAW_NAMES = ("$headers", "$properties")  # the names of their members are not normalized


class EvaluationError(NotifierError):
    """The evaluation of an expression failed. The text gives the reason and quotes the expression."""


class ExpressionError(NotifierError):
    """A text is not a usable expression. The error's text gives the reason."""


_OPTIONS = Options(custom_functions=FUNCTIONS)
_NO_NAMES: Mapping[str, object] = {}


class Expression:
    """A compiled expression. `fields`: the names of members in it. `parsed`: its syntax tree.

    `needs_object`: the expression only names members, so that the document must be an object.
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
            error_text = _find_misuse(node) if node["type"] == "function_expression" else None
            if error_text is not None:
                raise ExpressionError(error_text)
        error_text = find_pitfall(text, nodes)
        if error_text is not None:
            raise ExpressionError(error_text)
        self.needs_object = bool(self.fields) and not any(node["type"] in ("current", "identity") for node in nodes)

    def __eq__(self, other: object) -> bool:
        """Return whether the texts are equal."""
        return isinstance(other, Expression) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"Expression({self.text!r})"


class ExpressionReader(TreeInterpreter):
    """Evaluates expressions on one document. `names`: the values of `$headers` and the like.

    `ignore_case`: the names in the document are already normalized, and those in JSON texts in it are when `from_json`
    parses them. `texts`: a cache of parsed JSON texts for all documents of a message, since each of 200 events may
    parse the same 128 KiB.
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
        """Return the value of the expression; None if it matches nothing. Raises EvaluationError."""
        try:
            return cast("object", self.visit(cast("Any", expression.parsed), self._document))
        except Exception as error:  # noqa: BLE001  see the module
            quoted = excerpt(expression.text, MAX_QUOTED_CHARACTERS)
            raise EvaluationError(f"`{quoted}` fails: {_explain_failure(error)}") from None

    def visit_function_expression(self, node: Any, value: Any) -> Any:
        """Return the result of a function. The results of `from_json` are cached."""
        if node["value"] != "from_json":
            return super().visit_function_expression(node, value)
        text = self.visit(node["children"][0], value)
        if isinstance(text, str) and text in self._parsed_texts:
            return self._parsed_texts[text]
        result = FUNCTIONS.call_function("from_json", [text])
        if self._ignore_case:
            result = normalize_names(result)
        if isinstance(text, str):
            if len(self._parsed_texts) >= MAX_CACHED_TEXTS:
                del self._parsed_texts[next(iter(self._parsed_texts))]
            self._parsed_texts[text] = result
        return result

    def visit_field(self, node: Any, value: Any) -> Any:
        """Return the member of an object, or the value in `names`."""
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
        yield from level
        level = [child for node in level for child in node.get("children", ()) if isinstance(child, dict)]
        if not level:
            return
    raise ExpressionError(f"is nested too deeply; {MAX_DEPTH} levels at most")


def _find_misuse(call: dict[str, Any]) -> str | None:
    """Return the error if a call has an unknown function or a wrong number of arguments; None otherwise."""
    name, argument_count = str(call["value"]), len(call["children"])
    functions: Mapping[str, Any] = FUNCTIONS.FUNCTION_TABLE
    if name not in functions:
        return f"there is no function {excerpt(name, 40)}(); {suggest(name.lower(), sorted(functions))}"
    parameters = functions[name]["signature"]
    is_variadic = bool(parameters and parameters[-1].get("variadic"))
    has_enough = argument_count >= len(parameters)
    if argument_count == len(parameters) or (is_variadic and has_enough):
        return None
    prefix, suffix = "at least " if is_variadic else "", "" if len(parameters) == 1 else "s"
    types = ", ".join(" or ".join(parameter["types"]) or "anything" for parameter in parameters)
    return f"{name}() takes {prefix}{len(parameters)} argument{suffix} ({types}), not {argument_count}"


def _explain_compile_error(error: Exception) -> str:
    """Return the error of the library, shortened to its first line without repetitions."""
    lines = str(error).splitlines() or [type(error).__name__]
    reason = lines[0].partition(", for expression")[0]
    reason = reason.replace("Invalid jmespath expression: ", "").replace("Bad jmespath expression: ", "").rstrip(": ")
    return f"is not a JMESPath expression: {excerpt(reason)}"


def _explain_failure(error: Exception) -> str:
    """Return why the evaluation of an expression failed, without values of the document."""
    match error:
        case exceptions.JMESPathTypeError():
            expected = " or ".join(map(str, error.expected_types))
            return f"{error.function_name}() takes {expected}, not {error.actual_type}"
        case RecursionError():
            return "it is nested too deeply"
        case ValueError() if error.args and not isinstance(error, exceptions.JMESPathError):
            return excerpt(str(error))  # raised by a function of `expression_functions`
        case ValueError():
            return "no value"
        case TypeError():
            return "it compares or counts values of types that do not fit"
        case _:
            return type(error).__name__


def find_pitfall(text: str, nodes: Iterable[Mapping[str, Any]]) -> str | None:
    """Return a probable error in an expression that compiles, with the remedy; None if there is none."""
    for node in nodes:
        children = (
            child for child in node.get("children", ()) if isinstance(child, dict)
        )  # those of a slice are numbers
        first_child = next(children, {"type": ""})["type"]
        if node["type"] == "subexpression" and first_child == "not_expression":
            return "`!a.b` means `(!a).b`, which is never true; write `!(a.b)`"
        if node["type"] == "comparator":
            for child in node["children"]:
                if child["type"] == "field" and child["value"] in ("true", "false"):
                    name = child["value"]
                    return f"{name} is the name of a member here; write it in backticks: `{name}`"
    return _find_quoted_text(text)


def _find_quoted_text(text: str) -> str | None:
    """Return an error if a name in double quotes is probably meant as a text, as in `a == "b"`; None otherwise.

    The same holds for the last argument of a function, as in `contains(a, "b")`. `@."b"` is always a name.
    """
    tokens = cast("list[Mapping[str, Any]]", list(cast("Any", Lexer()).tokenize(text)))
    open_calls: list[str] = []  # the functions around the token, the innermost last
    for before, token, after in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if token["type"] == "lparen":
            open_calls.append(str(before["value"]))
        elif token["type"] == "rparen" and open_calls:
            open_calls.pop()
        is_quoted_name = token["type"] == "quoted_identifier" and not str(token["value"]).startswith("$")
        is_compared = before["type"] in _COMPARISONS and after["type"] not in _CONTINUATIONS
        is_last_argument = before["type"] == "comma" and after["type"] == "rparen"
        is_text_argument = is_last_argument and bool(open_calls) and open_calls[-1] in _TEXT_FUNCTIONS
        if is_quoted_name and (is_compared or is_text_argument):
            word = excerpt(str(token["value"]), _MAX_QUOTED_WORD_CHARACTERS)
            return f"\"{word}\" in double quotes is the name of a member; if the text is meant, write it as '{word}'"
    return None


def find_unmatchable_name(parsed: Mapping[str, Any]) -> str | None:
    """Return a name in an expression that can match no member with `ignore_case`; None if there is none.

    With `ignore_case`, all names of members are in lower case and without `_`, except below _RAW_NAMES.
    """
    if parsed["type"] == "field":
        field = str(parsed["value"])
        is_matchable = field.startswith("$") or field == field.lower().replace("_", "")
        return None if is_matchable else field
    children = [child for child in parsed.get("children", ()) if isinstance(child, dict)]
    if parsed["type"] == "subexpression" and children[0].get("value") in _RAW_NAMES:
        return None
    names = (find_unmatchable_name(child) for child in children)
    return next((name for name in names if name is not None), None)
