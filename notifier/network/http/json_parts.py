"""Reads JSON from other parties within bounds and in parts, so that the event loops of this process can run between.

One call of `json.loads` holds the interpreter: 100 MiB of `[],[],…` hold it for ten seconds, and take 2.8 GB. So a
list, or a list in an object, is read member by member from windows of the body, each as long as a member may be. If a
member of a list breaks a bound, only that member is lost: an `OutOfBounds` replaces it.

The body is never decoded as a whole: one emoji would make its text four times as large. Equal names of members share
one string, since they recur in every client of a list: `json` makes new ones for each member.
"""

import asyncio
import json
import re
from dataclasses import dataclass
from itertools import islice
from typing import Any

from notifier.model.defaults import MAX_LIST_ROWS
from notifier.model.record import record

MAX_PART_BYTES = 256 * 1024  # read within about 1 ms, if it has few values
MAX_PART_VALUES = 10_000  # counted by `[`, `{` and `,`; read within about 5 ms, or skipped by their marks
MAX_MEMBERS = 1000  # of a list or object, read within about 3 ms: each takes a call of the decoder
MAX_NESTING = 32  # nested lists and objects in a member; deeper ones exhaust the stack of the code that visits them
MAX_SKIPPED_BYTES = 16 * 1024 * 1024  # of members that are skipped, at up to 1 µs each
MAX_SHARED_NAMES = 1000  # of members, that share one string; a source may invent others
PAUSE_SECONDS = 0.001  # seconds
_NUMBER_CUT = 2  # characters of a number that its parser leaves if the text ends too early: `1.5e+`
_CHARACTER_CUT = 3  # bytes of a character that a window would cut
_BLANKS = re.compile(rb"[ \t\r\n]*")
_VALUES = re.compile(rb"[\[{,]")
_MARKS = re.compile(rb'\\.|["\[\]{}]', re.DOTALL)
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@record
class Bounds:
    """The limits of one answer: bytes in all, and bytes in one member of a list or of the outermost object."""

    answer: int
    member: int = MAX_PART_BYTES

    @property
    def values(self) -> int:
        """Return the most values of an answer, counted by `[`, `{` and `,` before them. `{"a":1},` takes 200 bytes."""
        return self.answer // 16


@dataclass(frozen=True, slots=True)
class OutOfBounds:
    """Replaces a member that exceeds a limit. `text`: the reason."""

    text: str


async def read_json(body: bytes | bytearray, bounds: Bounds) -> Any:
    """Return the parsed value; None if the body is empty. Raises ValueError."""
    try:
        return await _PartReader(body, bounds).document()
    except _BoundsError:
        raise
    except ValueError:
        raise ValueError("is not JSON") from None


class _BoundsError(ValueError):
    """The text may be JSON, but exceeds a bound."""


class _SharedNames(dict[str, str]):
    """The first MAX_SHARED_NAMES names of members. Each name is found, but further ones are not kept."""

    def __missing__(self, name: str) -> str:
        if len(self) < MAX_SHARED_NAMES:
            self[name] = name
        return name

    def share(self, members: list[tuple[str, Any]]) -> dict[str, Any]:
        """Return the members of an object, by the names held here."""
        return {self[name]: value for name, value in members}


class _PartReader:
    """Reads one body from its `_position` on, by a text of it, the window, that ends at `_window_end`.

    `_index`: of the character in the window at `_position`. `_skippable_bytes`: how many more may be skipped.
    """

    def __init__(self, body: bytes | bytearray, bounds: Bounds) -> None:
        self._body = body
        self._bounds = bounds
        self._skippable_bytes = MAX_SKIPPED_BYTES
        self._position = len(_BYTE_ORDER_MARK) if body.startswith(_BYTE_ORDER_MARK) else 0
        self._window, self._window_end, self._index = "", self._position, 0
        # Not a method of this reader: the cycle would keep the body while the garbage collector pauses, and beyond.
        self._decoder = json.JSONDecoder(object_pairs_hook=_SharedNames().share)

    async def document(self) -> Any:
        """Return the value of the whole body; None if it is empty."""
        if sum(map(self._body.count, (b"[", b"{", b","))) > self._bounds.values:
            raise _BoundsError(f"has more than {self._bounds.values} values")
        character = self._next_character()
        if not character:
            return None
        value = await (self._read_object() if character == b"{" else self._read_value())
        if self._next_character():
            raise ValueError("a second document")
        return value

    def _next_character(self) -> bytes:
        """Return the next character that is not white space; empty at the end."""
        blanks = _BLANKS.match(self._body, self._position)
        if blanks is not None:
            self._move(blanks.end())
        return bytes(self._body[self._position : self._position + 1])

    def _move(self, to: int) -> None:
        """Move within the window behind characters of one byte each."""
        self._index += to - self._position
        self._position = to

    def _take(self, expected: bytes) -> bytes:
        """Move behind the next character, which must be one of `expected`, and return it. Raises ValueError."""
        character = self._next_character()
        if not character or character not in expected:
            raise ValueError(f"{expected!r} is missing")
        self._move(self._position + 1)
        return character

    async def _read_value(self) -> Any:
        return (
            await self._read_list() if self._next_character() == b"[" else _require_in_bounds(await self._read_member())
        )

    async def _read_list(self) -> list[Any]:
        values: list[Any] = []
        character = self._take(b"[")
        if self._next_character() == b"]":
            character = self._take(b"]")
        while character != b"]":
            values.append(await self._read_member())
            if len(values) > MAX_LIST_ROWS:  # before the rest, and before its reader copies the rows
                raise _BoundsError(f"has a list of more than {MAX_LIST_ROWS:,} members")
            await self._pause_at_times(len(values))
            character = self._take(b",]")
        return values

    async def _read_object(self) -> dict[str, Any]:
        members: dict[str, Any] = {}
        read = 0
        character = self._take(b"{")
        if self._next_character() == b"}":
            character = self._take(b"}")
        while character != b"}":
            if self._next_character() != b'"':
                raise ValueError("a name is missing")
            name = _require_in_bounds(await self._read_member())
            self._take(b":")
            members[name] = await self._read_value()
            read += 1
            await self._pause_at_times(read)
            character = self._take(b",}")
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
                value, end = self._decoder.raw_decode(self._window, self._index)
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
        start, window_bytes = self._position, self._window_end - self._position
        has_many = window_bytes < self._bounds.member - _CHARACTER_CUT
        many = f"has more than {MAX_PART_VALUES:,} values"
        skipped = await self._skip_value(
            character, many if has_many else f"is larger than {format_size(self._bounds.member)}"
        )
        if self._position - start < window_bytes - _NUMBER_CUT:
            raise ValueError("a member that is no JSON")
        return skipped

    @property
    def _is_last_window(self) -> bool:
        """Return True if the window reaches the end of the body."""
        return self._window_end == len(self._body)

    async def _move_window(self) -> None:
        """Move the window to the current position."""
        if self._position:
            await asyncio.sleep(PAUSE_SECONDS)
        end = min(self._position + self._bounds.member, len(self._body))
        values = _VALUES.finditer(self._body, self._position, end)
        beyond = next(islice(values, MAX_PART_VALUES, None), None)
        if beyond is not None:
            end = beyond.start()
        for _ in range(_CHARACTER_CUT):
            if end < len(self._body) and self._body[end] & 0xC0 == 0x80:  # within a character of UTF-8
                end -= 1
        self._window, self._window_end, self._index = self._body[self._position : end].decode(), end, 0

    def _accept(self, value: Any, end: int) -> Any:
        """Move behind a value that ends at `end` in the window. Return it, or `OutOfBounds` if it is too deep."""
        start = self._index
        opened = self._window.count("[", start, end) + self._window.count("{", start, end)
        self._position += end - start if self._window.isascii() else len(self._window[start:end].encode())
        self._index = end
        deep = opened > MAX_NESTING and is_too_deep(value)
        return OutOfBounds(f"is nested more than {MAX_NESTING} deep") if deep else value

    async def _skip_value(self, character: bytes, text: str) -> OutOfBounds:
        """Move behind a value without reading it, and return the reason `text`. Raises ValueError if it does not end.

        `character`: the first of the value.
        """
        if character not in (b"[", b"{", b'"'):
            raise ValueError("a number without end")
        depth, quoted = 0, False
        while self._position < len(self._body):
            end = read = min(self._position + MAX_PART_BYTES, len(self._body))
            count = 0
            for mark in islice(_MARKS.finditer(self._body, self._position, end), MAX_PART_VALUES):
                read, char, count = mark.end(), mark[0], count + 1
                if char == b'"':
                    quoted = not quoted
                elif not quoted and char in b"[{":
                    depth += 1
                elif not quoted and char in b"]}":
                    depth -= 1
                if depth == 0 and not quoted:
                    self._skip_to(read)
                    return OutOfBounds(text)
            if count == MAX_PART_VALUES:
                end = read
            cut = self._body[end - 1] == ord("\\") and read < end  # what it escapes is in the next part
            self._skip_to(end - 1 if cut and end < len(self._body) else end)
            await asyncio.sleep(PAUSE_SECONDS)
        raise ValueError("cut off")

    def _skip_to(self, to: int) -> None:
        self._skippable_bytes -= to - self._position
        self._position = to
        self._window, self._window_end, self._index = "", to, 0
        if self._skippable_bytes < 0:
            raise _BoundsError(
                f"has members that cannot be taken, of more than {format_size(MAX_SKIPPED_BYTES)} in all"
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
