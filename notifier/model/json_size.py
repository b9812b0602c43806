"""Measures texts as a JSON document holds them: in UTF-8, with JSON's escapes."""

from collections.abc import Callable

from pydantic_core import to_json

_LONGEST = 6  # bytes of a character: \u0000


def size(text: str) -> int:
    """Return the bytes that the text takes in JSON."""
    return len(to_json(text)) - 2


def fits(text: str, most: int) -> bool:
    """True if the text takes at most `most` bytes in JSON."""
    return len(text) * _LONGEST <= most or size(text) <= most


def cut(text: str, most: int) -> str:
    """Return the text, or as much of its beginning as fits into `most` bytes, with an ellipsis."""
    return _cut(text, most, lambda length: text[:length] + "…")


def cut_inside(text: str, most: int) -> str:
    """Return the text, or as much of its beginning and its end as fits, with an ellipsis between."""
    return _cut(text, most, lambda length: text[: length // 2] + "…" + text[len(text) - length // 2 :])


def _cut(text: str, most: int, shorter: Callable[[int], str]) -> str:
    if fits(text, most):
        return text
    enough, too_long = 0, len(text)
    while too_long - enough > 1:
        length = (enough + too_long) // 2
        if fits(shorter(length), most):
            enough = length
        else:
            too_long = length
    return shorter(enough) if fits("…", most) else ""
