"""Finds expressions that compile and cannot be meant: JMESPath accepts them, but they never find anything.

Such a `when` is false for every document, so that the end of every session would be ignored without a word.
"""

from collections.abc import Iterable, Mapping
from typing import Any, cast

from jmespath.lexer import Lexer

from notifier.model.printable import excerpt

_SHOWN = 40  # characters of the document's words in a text
_EQUALS = ("eq", "ne")
_OF_TEXT = ("contains", "ends_with", "split", "starts_with")
_GOES_ON = ("dot", "lbracket", "flatten", "filter")
_BESIDE = ("$headers", "$properties")  # their names stay as they came


def pitfall(text: str, nodes: Iterable[Mapping[str, Any]]) -> str | None:
    """Return what is wrong with an expression that compiles, and the way out; None if nothing is."""
    for node in nodes:
        first = node["children"][0]["type"] if node.get("children") else ""
        if node["type"] == "subexpression" and first == "not_expression":
            return "`!a.b` means `(!a).b`, which is never true; write `!(a.b)`"
        if node["type"] == "comparator":
            for child in node["children"]:
                if child["type"] == "field" and child["value"] in ("true", "false"):
                    name = child["value"]
                    return f"{name} is the name of a member here; write it in backticks: `{name}`"
    return _text_as_name(text)


def _text_as_name(text: str) -> str | None:
    """Find `a == "b"` and `contains(a, "b")`, which look at two members. Whoever means the second writes `@."b"`."""
    tokens = cast("list[Mapping[str, Any]]", list(cast("Any", Lexer()).tokenize(text)))
    called: list[str] = []  # the functions around the token
    for before, token, after in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if token["type"] == "lparen":
            called.append(str(before["value"]))
        elif token["type"] == "rparen" and called:
            called.pop()
        compared = before["type"] in _EQUALS and after["type"] not in _GOES_ON
        sought = before["type"] == "comma" and after["type"] == "rparen" and called and called[-1] in _OF_TEXT
        if token["type"] == "quoted_identifier" and (compared or sought) and not str(token["value"]).startswith("$"):
            word = excerpt(str(token["value"]), _SHOWN)
            return f"\"{word}\" in double quotes is the name of a member; if the text is meant, write it as '{word}'"
    return None


def unplain_name(parsed: Mapping[str, Any]) -> str | None:
    """Return a name in the expression that no member has once `ignore_case` made them plain; None if there is none."""
    children = [child for child in parsed.get("children", ()) if isinstance(child, dict)]
    if parsed["type"] == "field":
        field = str(parsed["value"])
        return None if field.startswith("$") or field == field.lower().replace("_", "") else field
    if parsed["type"] == "subexpression" and children[0]["type"] == "field" and children[0]["value"] in _BESIDE:
        return None
    return next((name for child in children if (name := unplain_name(child)) is not None), None)
