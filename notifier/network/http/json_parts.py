"""Reads JSON from other parties within bounds and in parts, so that the event loops of this process can run between.

One call of `json.loads` holds the interpreter: 100 MiB of `[],[],…` hold it for ten seconds, and take 2.8 GB. So a
list, or a list in an object, is read member by member from windows of its text, each as long as a member may be. If a
member of a list breaks a bound, only that member is lost: an `OutOfBounds` replaces it.
"""

import asyncio
import json
import re
from dataclasses import dataclass
from typing import Any

from notifier.model.record import record

MAX_PART_CHARACTERS = 256 * 1024  # characters, read within about 5 ms
MAX_MEMBERS = 1000  # of a list or object, read within about 3 ms: each takes a call of the decoder
MAX_NESTING = 32  # nested lists and objects in a member; deeper ones exhaust the stack of the code that visits them
MAX_SKIPPED_CHARACTERS = 16 * 1024 * 1024  # characters of members that are skipped, at up to 1 µs each
PAUSE_SECONDS = 0.001  # seconds
_NUMBER_CUT = 2  # characters of a number that its parser leaves if the text ends too early: `1.5e+`
_BLANKS = re.compile(r"[ \t\r\n]*")
_MARKS = re.compile(r'\\.|["\[\]{}]', re.DOTALL)
_DECODER = json.JSONDecoder()


@record
class Bounds:
    """The limits of one answer: bytes in all, and characters in one member of a list or of the outermost object."""

    answer: int
    member: int = MAX_PART_CHARACTERS

    @property
    def values(self) -> int:
        """Return the most values of an answer, counted by `[`, `{` and `,` before them. `{"a":1},` takes 200 bytes."""
        return self.answer // 16


@dataclass(frozen=True, slots=True)
class OutOfBounds:
    """Replaces a member that exceeds a limit. `text`: the reason."""

    text: str


async def read_json(body: bytes, bounds: Bounds) -> Any:
    """Return the parsed value; None if the body is empty. Raises ValueError."""
    try:
        text = body.decode().removeprefix("\ufeff")
        return await _PartReader(text, bounds).document() if text.strip() else None
    except _BoundsError:
        raise
    except ValueError:
        raise ValueError("is not JSON") from None


class _BoundsError(ValueError):
    """The text may be JSON, but exceeds a bound."""


class _PartReader:
    """Reads one text from its `_position` on, by a window of it that begins at `_window_start`.

    `_skippable_characters`: how many more characters may be skipped.
    """

    def __init__(self, text: str, bounds: Bounds) -> None:
        self._text = text
        self._bounds = bounds
        self._skippable_characters = MAX_SKIPPED_CHARACTERS
        self._position = 0
        self._window_start = 0
        self._window = ""

    async def document(self) -> Any:
        if sum(map(self._text.count, "[{,")) > self._bounds.values:
            raise _BoundsError(f"has more than {self._bounds.values} values")
        character = self._next_character()
        value = await (self._read_object() if character == "{" else self._read_value())
        if self._next_character():
            raise ValueError("a second document")
        return value

    def _next_character(self) -> str:
        """Return the next character that is not white space; empty at the end."""
        blanks = _BLANKS.match(self._text, self._position)
        self._position = blanks.end() if blanks is not None else self._position
        return self._text[self._position : self._position + 1]

    def _take(self, expected: str) -> str:
        """Move behind the next character, which must be one of `expected`, and return it. Raises ValueError."""
        character = self._next_character()
        if not character or character not in expected:
            raise ValueError(f"{expected!r} is missing")
        self._position += 1
        return character

    async def _read_value(self) -> Any:
        return (
            await self._read_list() if self._next_character() == "[" else _require_in_bounds(await self._read_member())
        )

    async def _read_list(self) -> list[Any]:
        values: list[Any] = []
        character = self._take("[")
        if self._next_character() == "]":
            character = self._take("]")
        while character != "]":
            values.append(await self._read_member())
            await self._pause_at_times(len(values))
            character = self._take(",]")
        return values

    async def _read_object(self) -> dict[str, Any]:
        members: dict[str, Any] = {}
        read = 0
        character = self._take("{")
        if self._next_character() == "}":
            character = self._take("}")
        while character != "}":
            if self._next_character() != '"':
                raise ValueError("a name is missing")
            name = _require_in_bounds(await self._read_member())
            self._take(":")
            members[name] = await self._read_value()
            read += 1
            await self._pause_at_times(read)
            character = self._take(",}")
        return members

    async def _pause_at_times(self, read: int) -> None:
        """Pause after every `MAX_MEMBERS` members: a window holds very many if they are tiny."""
        if read % MAX_MEMBERS == 0:
            await asyncio.sleep(PAUSE_SECONDS)

    async def _read_member(self) -> Any:
        """Return the next value, read in one step, or `OutOfBounds`."""
        character = self._next_character()
        for again in (False, True):  # with the current window, then with a window that begins at the value
            if again:
                await self._move_window()
            try:
                value, end = _DECODER.raw_decode(self._window, self._position - self._window_start)
            except RecursionError:
                return await self._skip_value(character, f"is nested more than {MAX_NESTING} deep")
            except json.JSONDecodeError:
                if self._is_last_window:
                    raise
                continue
            except ValueError:  # of Python's own bound, 4,300 digits
                return await self._skip_value(character, "has a number that is too long")
            if self._is_last_window or end + _NUMBER_CUT < len(self._window):
                return self._accept(value, end)
        start = self._position
        skipped = await self._skip_value(character, f"is larger than {format_size(self._bounds.member)}")
        if self._position - start < self._bounds.member - _NUMBER_CUT:
            raise ValueError("a member that is no JSON")
        return skipped

    @property
    def _is_last_window(self) -> bool:
        """Return True if the window reaches the end of the text."""
        return self._window_start + len(self._window) == len(self._text)

    async def _move_window(self) -> None:
        """Move the window to the current position."""
        if self._position:
            await asyncio.sleep(PAUSE_SECONDS)
        self._window_start = self._position
        self._window = self._text[self._position : self._position + self._bounds.member]

    def _accept(self, value: Any, end: int) -> Any:
        """Move behind a value that ends at `end` in the window. Return it, or `OutOfBounds` if it is too deep."""
        start = self._position - self._window_start
        opened = self._window.count("[", start, end) + self._window.count("{", start, end)
        self._position = self._window_start + end
        deep = opened > MAX_NESTING and is_too_deep(value)
        return OutOfBounds(f"is nested more than {MAX_NESTING} deep") if deep else value

    async def _skip_value(self, character: str, text: str) -> OutOfBounds:
        """Move behind a value without reading it, and return the reason `text`. Raises ValueError if it does not end.

        `character`: the first of the value.
        """
        if character not in ("[", "{", '"'):
            raise ValueError("a number without end")
        depth, quoted = 0, False
        while self._position < len(self._text):
            end = read = min(self._position + MAX_PART_CHARACTERS, len(self._text))
            for mark in _MARKS.finditer(self._text, self._position, end):
                read, char = mark.end(), mark[0]
                if char == '"':
                    quoted = not quoted
                elif not quoted and char in "[{":
                    depth += 1
                elif not quoted and char in "]}":
                    depth -= 1
                if depth == 0 and not quoted:
                    self._skip_to(read)
                    return OutOfBounds(text)
            cut = self._text[end - 1] == "\\" and read < end  # what it escapes is in the next part
            self._skip_to(end - 1 if cut and end < len(self._text) else end)
            await asyncio.sleep(PAUSE_SECONDS)
        raise ValueError("cut off")

    def _skip_to(self, to: int) -> None:
        self._skippable_characters -= to - self._position
        self._position = to
        if self._skippable_characters < 0:
            raise _BoundsError(
                f"has members that cannot be taken, of more than {format_size(MAX_SKIPPED_CHARACTERS)} in all"
            )


def _require_in_bounds(value: Any) -> Any:
    """Return the value. Raises ValueError if it is out of bounds, since only members of lists can be left out."""
    if isinstance(value, OutOfBounds):
        raise _BoundsError(f"has a member that {value.text}")
    return value


def is_too_deep(value: Any) -> bool:
    """Return True if the value has lists and objects nested more than MAX_NESTING deep."""
    level = [value]
    for _ in range(MAX_NESTING):
        level = [value for value in level if isinstance(value, dict | list)]
        level = [inner for value in level for inner in (value.values() if isinstance(value, dict) else value)]
    return any(isinstance(value, dict | list) for value in level)


def format_size(size: int) -> str:
    """Return a number of bytes, or characters, as text for people."""
    return f"{size // 1024 // 1024} MiB" if size >= 1024 * 1024 else f"{size // 1024} KiB"
