"""How long a text is once it is written: in UTF-8, with the escapes of JSON."""

from pydantic_core import to_json

_LONGEST = 6  # bytes of a character: \u0000


def size(text: str) -> int:
    """Bytes that it takes."""
    return len(to_json(text)) - 2


def fits(text: str, most: int) -> bool:
    """Whether it takes at most so many bytes."""
    return len(text) * _LONGEST <= most or size(text) <= most


def cut(text: str, most: int) -> str:
    """The text, or as much of its beginning as fits, with an ellipsis."""
    if fits(text, most):
        return text
    enough, too_long = 0, len(text)
    while too_long - enough > 1:
        length = (enough + too_long) // 2
        if fits(text[:length] + "…", most):
            enough = length
        else:
            too_long = length
    return text[:enough] + "…" if fits("…", most) else ""
