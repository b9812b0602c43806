"""Converts pydantic's validation errors into instructions for people. Values are quoted as `excerpt` returns them."""

import re

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from notifier.model.errors import InputIssue
from notifier.model.printable import excerpt


def kind_of(value: object) -> str:
    """Return the type of a JSON value, in JSON's terms."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"


def to_issues(error: ValidationError, path: str = "", *, most: int = 100) -> list[InputIssue]:
    """Return the first `most` mistakes of a JSON document. `path`: the prefix of their paths."""
    return [
        InputIssue(path + excerpt(".".join(map(str, detail["loc"])), 100), _describe(detail))
        for detail in error.errors(include_url=False)[:most]
    ]


def reword(detail: ErrorDetails) -> str:
    """Return pydantic's own text as an instruction: `must be a valid integer`."""
    if detail["type"] == "bool_parsing":
        return "must be true or false"
    text = re.sub(r"^(Input|Value|Datetime|String|List) should ", "must ", detail["msg"])
    return text.replace("input was not a", "must be a")


def _describe(detail: ErrorDetails) -> str:
    match detail["type"]:
        case "missing":
            return "is required"
        case "extra_forbidden":
            return "there is no such member"
        case "string_type":
            return f"must be a string, not {kind_of(detail['input'])}"
        case "bool_type":
            return f"must be true or false, not {kind_of(detail['input'])}"
        case "string_too_short":
            return "must not be empty"
        case "string_too_long":
            return f"must have at most {detail['ctx']['max_length']} characters"
        case "string_pattern_mismatch":
            return "must not contain control characters"
        case _:
            return excerpt(reword(detail), 400)
