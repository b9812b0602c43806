"""Reads JSON that somebody else wrote, within bounds and in parts, so that an event loop of this process gets its turn.

One call of `json.loads` keeps the interpreter for itself: 100 MiB of `[],[],…` take it for ten seconds, and 2.8 GB. So
a list, or a list in an object, is read member by member from windows of its text, each as long as a member may be. If a
member of a list breaks a bound, that member alone is lost: an `OutOfBounds` stands for it.
"""

import asyncio
import json
import re
from dataclasses import dataclass
from typing import Any

from notifier.model.frozen import frozen

MAX_PART_CHARACTERS = 256 * 1024  # characters, read within about 5 ms
MAX_MEMBERS = 1000  # of a list or object, read within about 3 ms: each takes a call of the decoder
MAX_NESTING = (
    32  # lists and objects within one another in a member; deeper ones exhaust the stack of whoever looks at them
)
MAX_SKIPPED_CHARACTERS = 16 * 1024 * 1024  # characters of members that are left out, at up to 1 µs for each
PAUSE_SECONDS = 0.001  # seconds
_NUMBER_CUT = 2  # signs of a number that its reader leaves where the text ends too early: `1.5e+`
_BLANKS = re.compile(r"[ \t\r\n]*")
_MARKS = re.compile(r'\\.|["\[\]{}]', re.DOTALL)
_DECODER = json.JSONDecoder()


@frozen
class Bounds:
    """How much one answer may hold: bytes in all, and characters in one member of a list or of the outermost object."""

    answer: int
    member: int = MAX_PART_CHARACTERS

    @property
    def values(self) -> int:
        """Texts, numbers, lists and objects, by the signs before them. `{"a":1},` takes 200 bytes of memory."""
        return self.answer // 16


@dataclass(frozen=True, slots=True)
class OutOfBounds:
    """Replaces a member that exceeds a limit. `text`: the reason."""

    text: str


class NotJson(ValueError):  # noqa: N818  what it is
    """The text is not valid JSON."""


async def read_json(body: bytes, bounds: Bounds) -> Any:
    """The value that the document means; None if it is empty. Raises NotJson, or ValueError if it is too much."""
    try:
        text = body.decode().removeprefix("\ufeff")
        return await _PartReader(text, bounds).document() if text.strip() else None
    except _BoundsError:
        raise
    except ValueError:
        raise NotJson("is not JSON") from None


class _BoundsError(ValueError):
    """It may be JSON, and is too much."""


class _PartReader:
    """A text, how far it is read, and the window that is read from."""

    def __init__(self, text: str, bounds: Bounds) -> None:
        self._text = text
        self._bounds = bounds
        self._may_pass = MAX_SKIPPED_CHARACTERS
        self._at = 0
        self._begins = 0
        self._window = ""

    async def document(self) -> Any:
        if sum(map(self._text.count, "[{,")) > self._bounds.values:
            raise _BoundsError(f"has more than {self._bounds.values} values")
        sign = self._sign()
        value = await (self._object() if sign == "{" else self._value())
        if self._sign():
            raise ValueError("a second document")
        return value

    def _sign(self) -> str:
        """Return the next character that is not white space; empty at the end."""
        blanks = _BLANKS.match(self._text, self._at)
        self._at = blanks.end() if blanks is not None else self._at
        return self._text[self._at : self._at + 1]

    def _take(self, expected: str) -> str:
        sign = self._sign()
        if not sign or sign not in expected:
            raise ValueError(f"{expected!r} is missing")
        self._at += 1
        return sign

    async def _value(self) -> Any:
        return await self._list() if self._sign() == "[" else _values_in(await self._whole())

    async def _list(self) -> list[Any]:
        values: list[Any] = []
        sign = self._take("[")
        if self._sign() == "]":
            sign = self._take("]")
        while sign != "]":
            values.append(await self._whole())
            await self._rest(len(values))
            sign = self._take(",]")
        return values

    async def _object(self) -> dict[str, Any]:
        members: dict[str, Any] = {}
        read = 0
        sign = self._take("{")
        if self._sign() == "}":
            sign = self._take("}")
        while sign != "}":
            if self._sign() != '"':
                raise ValueError("a name is missing")
            name = _values_in(await self._whole())
            self._take(":")
            members[name] = await self._value()
            read += 1
            await self._rest(read)
            sign = self._take(",}")
        return members

    async def _rest(self, read: int) -> None:
        """Pause after some members: a window holds very many that are tiny."""
        if read % MAX_MEMBERS == 0:
            await asyncio.sleep(PAUSE_SECONDS)

    async def _whole(self) -> Any:
        """The value that comes, read in one step, or `OutOfBounds`."""
        sign = self._sign()
        for again in (False, True):
            if again:
                await self._look()
            try:
                value, end = _DECODER.raw_decode(self._window, self._at - self._begins)
            except RecursionError:
                return await self._passed(sign, f"is nested more than {MAX_NESTING} deep")
            except json.JSONDecodeError:
                if self._last:
                    raise
                continue
            except ValueError:  # of Python's own bound, 4,300 digits
                return await self._passed(sign, "has a number that is too long")
            if self._last or end + _NUMBER_CUT < len(self._window):
                return self._taken(value, end)
        begins = self._at
        passed = await self._passed(sign, f"is larger than {format_size(self._bounds.member)}")
        if self._at - begins < self._bounds.member - _NUMBER_CUT:
            raise ValueError("a member that is no JSON")
        return passed

    @property
    def _last(self) -> bool:
        """True if the window reaches to the end."""
        return self._begins + len(self._window) == len(self._text)

    async def _look(self) -> None:
        """Move the window to what comes."""
        if self._at:
            await asyncio.sleep(PAUSE_SECONDS)
        self._begins, self._window = self._at, self._text[self._at : self._at + self._bounds.member]

    def _taken(self, value: Any, end: int) -> Any:
        """Go behind a value that ends there in the window."""
        begins = self._at - self._begins
        opened = self._window.count("[", begins, end) + self._window.count("{", begins, end)
        self._at = self._begins + end
        deep = opened > MAX_NESTING and _is_too_deep(value)
        return OutOfBounds(f"is nested more than {MAX_NESTING} deep") if deep else value

    async def _passed(self, sign: str, text: str) -> OutOfBounds:
        """Go behind a value without reading it. Raises ValueError if it does not end."""
        if sign not in ("[", "{", '"'):
            raise ValueError("a number without end")
        depth, quoted = 0, False
        while self._at < len(self._text):
            end = read = min(self._at + MAX_PART_CHARACTERS, len(self._text))
            for mark in _MARKS.finditer(self._text, self._at, end):
                read, char = mark.end(), mark[0]
                if char == '"':
                    quoted = not quoted
                elif not quoted and char in "[{":
                    depth += 1
                elif not quoted and char in "]}":
                    depth -= 1
                if depth == 0 and not quoted:
                    self._pass(read)
                    return OutOfBounds(text)
            cut = self._text[end - 1] == "\\" and read < end  # what it escapes is in the next part
            self._pass(end - 1 if cut and end < len(self._text) else end)
            await asyncio.sleep(PAUSE_SECONDS)
        raise ValueError("cut off")

    def _pass(self, to: int) -> None:
        self._may_pass -= to - self._at
        self._at = to
        if self._may_pass < 0:
            raise _BoundsError(
                f"has members that cannot be taken, of more than {format_size(MAX_SKIPPED_CHARACTERS)} in all"
            )


def _values_in(value: Any) -> Any:
    """The value. Raises ValueError if it is out of bounds: it is no member of a list that could be left out."""
    if isinstance(value, OutOfBounds):
        raise _BoundsError(f"has a member that {value.text}")
    return value


def _is_too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_NESTING):
        level = [inner for value in level for inner in (value.values() if isinstance(value, dict) else value)]
        level = [value for value in level if isinstance(value, dict | list)]
    return bool(level)


def format_size(size: int) -> str:
    """A number of bytes, or characters, for people."""
    return f"{size // 1024 // 1024} MiB" if size >= 1024 * 1024 else f"{size // 1024} KiB"
