"""Measures texts as a JSON document holds them: in UTF-8, with JSON's escapes."""

from collections.abc import Callable, Iterable
from typing import TypeVar

from pydantic_core import to_json

T = TypeVar("T")
MAX_CHARACTER_BYTES = 6  # for example \u0000


def size(text: str) -> int:
    """Return the bytes that the text takes in JSON."""
    return len(to_json(text)) - 2


def fits(text: str, max_bytes: int) -> bool:
    """Return True if the text takes at most `max_bytes` bytes in JSON."""
    return len(text) * MAX_CHARACTER_BYTES <= max_bytes or size(text) <= max_bytes


def take_fitting(values: Iterable[T], max_bytes: int) -> list[T]:
    """Return as many of the first values as take at most `max_bytes` bytes in JSON together."""
    fitting = list[T]()
    for value in values:
        max_bytes -= len(to_json(value)) + 1
        if max_bytes < 0:
            break
        fitting.append(value)
    return fitting


def cut(text: str, max_bytes: int) -> str:
    """Return the text, or as much of its beginning as fits into `max_bytes` bytes of JSON, with an ellipsis."""
    return _cut(text, max_bytes, lambda length: text[:length] + "…")


def cut_inside(text: str, max_bytes: int) -> str:
    """Return the text, or as much of its beginning and end as fits into `max_bytes` bytes of JSON, with an ellipsis."""
    return _cut(text, max_bytes, lambda length: text[: length // 2] + "…" + text[len(text) - length // 2 :])


def _cut(text: str, max_bytes: int, shorten: Callable[[int], str]) -> str:
    """Return the text, or `shorten` of the greatest length that fits, found by bisection."""
    if fits(text, max_bytes):
        return text
    fitting, too_long = 0, len(text)
    while too_long - fitting > 1:
        length = (fitting + too_long) // 2
        if fits(shorten(length), max_bytes):
            fitting = length
        else:
            too_long = length
    return shorten(fitting) if fits("…", max_bytes) else ""
