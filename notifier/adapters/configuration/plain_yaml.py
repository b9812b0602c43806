"""Reads a long list from the part of YAML that programs write: one value a line, nested by blanks alone.

libyaml makes an object of every event, with two places in the text: 1.2 s for 100,000 clients. Here a line is matched
by one pattern, and what lines have in common (`issuer: …`, `  max_concurrent: 8`) is looked at once: 0.4 s.

The rule of this module: what it does not know for certain it leaves to libyaml, the whole text and every mistake with
it. So it knows no wrong YAML, and a pattern here may be too narrow but never too wide: no value of several lines, no
anchor, no tag, no escape, no tab, no second document, nothing that is indented unlike its neighbours.
"""

import re
from collections.abc import Callable, Iterator
from typing import Final

# Never in a line: control and other characters that libyaml refuses, folds or takes for the end of a line.
_ODD = "\x00-\x1f\x7f-\xa0\u2028\u2029\ud800-\uffff"
# A scalar without quotes: it begins with no character that means something, and holds neither ": " nor " #".
_PLAIN = rf"[A-Za-z0-9_./~+(\u00a1-\u2027][^: {_ODD}]*(?:(?::+| +(?![ #]))[^: {_ODD}]+)*"
_DOUBLE, _SINGLE = rf'"(?P<double>[^"\\{_ODD}]*)"', rf"'(?P<single>[^'{_ODD}]*)'"
_LINE = re.compile(
    r"(?P<indent> *)(?P<dash>- +|-$)?(?:(?P<key>[A-Za-z_][A-Za-z0-9_-]{0,99}):(?= |$) *)?"
    rf"(?:(?P<plain>{_PLAIN})|{_DOUBLE}|{_SINGLE}|(?P<flow>[\[{{][^{_ODD}]*))?(?: +#[^{_ODD}]*| *)"
)
_NOTHING = re.compile(rf" *(?:#[^{_ODD}]*)?")
_BLOCK = 65_536  # characters that are split into lines at a time: all at once would hold the interpreter
_DIFFERENT = 10_000  # lines that are remembered: those that come again do so with the first clients

_Line = tuple[int, int, str | None, object]  # its indentation, that behind its dash or 0, its key, its value
_NONE: Final = object()  # no value in the line: it is below, or null
_END: Final[_Line] = (-1, 0, None, _NONE)


class Beyond(Exception):  # noqa: N818  no error: libyaml is asked
    """There is more in this text than is known here."""


def read_plain_list(text: str, resolve: Callable[[str], object], flow: Callable[[str], object]) -> list[object]:
    """The list that the text is. Raises Beyond, and whatever `resolve` and `flow` raise.

    `resolve` says what a plain scalar means, `flow` a value in brackets. Equal values are shared: change none of them.
    """
    if not text.startswith(("- ", "---\n", "#")):
        raise Beyond
    return _Reader(_lines(text.removeprefix("---\n"), resolve, flow)).document()


def _lines(text: str, resolve: Callable[[str], object], flow: Callable[[str], object]) -> Iterator[_Line]:
    """Each line that says something, and the end."""
    known: dict[str, _Line] = {}
    begin = 0
    while begin < len(text):
        end = text.find("\n", begin + _BLOCK) + 1 or len(text)
        for line in text[begin:end].split("\n"):
            found = known.get(line)
            if found is None:
                if _NOTHING.fullmatch(line):
                    continue
                found = _parsed(line, resolve, flow)
                if len(known) < _DIFFERENT:
                    known[line] = found
            yield found
        begin = end
    yield _END


def _parsed(line: str, resolve: Callable[[str], object], flow: Callable[[str], object]) -> _Line:
    match = _LINE.fullmatch(line)
    if match is None:
        raise Beyond
    indent, dash, key, plain, double, single, flowing = match.groups()
    value: object = _NONE
    if plain is not None:
        value = resolve(plain)
    elif flowing is not None:
        value = flow(flowing)
    elif double is not None or single is not None:
        value = single if double is None else double
    if key is not None and resolve(key) != key:
        raise Beyond
    return len(indent), 0 if dash is None else len(indent) + len(dash), key, value


class _Reader:
    """Values from lines, by their indentation. `_line` is the one that comes next.

    One that is indented like none of what is open is taken by nobody, so that the end is not reached.
    """

    def __init__(self, lines: Iterator[_Line]) -> None:
        self._lines = lines
        self._next = lines.__next__
        self._line = self._next()

    def document(self) -> list[object]:
        """All of it."""
        found = self._sequence(0)
        if not found or self._line is not _END:
            raise Beyond
        return found

    def _sequence(self, indent: int) -> list[object]:
        """The entries whose dashes stand there."""
        found: list[object] = []
        while self._line[0] == indent and self._line[1]:
            _, inner, key, value = self._line
            if key is not None:
                self._line = (inner, 0, key, value)
                found.append(self._mapping(inner))
                continue
            self._line = self._next()
            found.append(self._below(indent, indent + 1) if value is _NONE else value)
        return found

    def _mapping(self, indent: int) -> dict[str, object]:
        """The members whose keys stand there."""
        found: dict[str, object] = {}
        line = self._line
        while line[0] == indent and not line[1]:
            _, _, key, value = line
            if key is None or key in found:
                raise Beyond
            line = self._line = self._next()
            if value is _NONE:
                value = self._below(indent, indent)
                line = self._line
            found[key] = value
        return found

    def _below(self, indent: int, dashes: int) -> object:
        """The value of a line that has none itself: null, if nothing is indented more; `dashes` may stand there too."""
        at, inner, *_ = self._line
        if inner and at >= dashes:
            return self._sequence(at)
        return self._mapping(at) if at > indent else None
