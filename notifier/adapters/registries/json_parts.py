"""Reads a large JSON document in parts, with pauses.

One call of `json.loads` keeps the interpreter for itself: for 100,000 clients, the event loop of the worker, in another
thread, would stand still for half a second.
"""

import asyncio
import json
import re
from typing import Any

SMALL = 256 * 1024  # characters, read within about 2 ms
PAUSE = 0.001  # seconds
_BLANKS = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()


async def read_json(body: bytes) -> Any:
    """The value that the document means; None if it is empty. Raises ValueError, RecursionError."""
    text = body.decode().removeprefix("\ufeff")
    if len(text) >= SMALL:
        return await _Parts(text).document()
    return json.loads(text) if text.strip() else None


class _Parts:
    """A text, and how far it is read. A list is read member by member: the whole one, or one in an object."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._pause_at = SMALL

    async def document(self) -> Any:
        sign = self._sign()
        value = await (self._object() if sign == "{" else self._value())
        if self._sign():
            raise ValueError("a second document")
        return value

    def _sign(self) -> str:
        """The next character that is no blank. Empty at the end."""
        found = _BLANKS.match(self._text, self._at)
        self._at = found.end() if found is not None else self._at
        return self._text[self._at : self._at + 1]

    def _take(self, expected: str) -> str:
        sign = self._sign()
        if not sign or sign not in expected:
            raise ValueError(f"{expected!r} is missing")
        self._at += 1
        return sign

    def _whole(self) -> Any:
        self._sign()
        value, self._at = _DECODER.raw_decode(self._text, self._at)
        return value

    async def _value(self) -> Any:
        return await self._list() if self._sign() == "[" else self._whole()

    async def _list(self) -> list[Any]:
        values: list[Any] = []
        sign = self._take("[")
        if self._sign() == "]":
            sign = self._take("]")
        while sign != "]":
            values.append(self._whole())
            sign = self._take(",]")
            if self._at >= self._pause_at:
                self._pause_at = self._at + SMALL
                await asyncio.sleep(PAUSE)
        return values

    async def _object(self) -> dict[str, Any]:
        members: dict[str, Any] = {}
        sign = self._take("{")
        if self._sign() == "}":
            sign = self._take("}")
        while sign != "}":
            if self._sign() != '"':
                raise ValueError("a name is missing")
            name = self._whole()
            self._take(":")
            members[name] = await self._value()
            sign = self._take(",}")
        return members
