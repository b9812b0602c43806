"""What an update of aiormq or pamqp may change inside, in ways that leave the library itself working."""

import asyncio
from collections.abc import Callable
from types import FunctionType
from typing import Any

import aiormq.connection
import pytest
from aiormq.connection import FrameReceiver
from pamqp import decode

Change = Callable[[pytest.MonkeyPatch], None]


def _wrapped(monkeypatch: pytest.MonkeyPatch, of: type, name: str) -> None:
    """The same, told in other words: what it names is not seen from outside any more."""
    original = vars(of)[name]

    async def later(*words: Any, **more: Any) -> Any:
        return await original(*words, **more)

    def at_once(*words: Any, **more: Any) -> Any:
        return original(*words, **more)

    monkeypatch.setattr(of, name, later if asyncio.iscoroutinefunction(original) else at_once)


def reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """The weight of a frame is counted in another way."""
    original = FrameReceiver.get_frame

    async def get_frame(self: FrameReceiver) -> Any:
        weight, channel, frame = await original(self)
        return weight + 1, channel, frame

    monkeypatch.setattr(FrameReceiver, "get_frame", get_frame)


def handing_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections give their channels what they read in another way."""
    _wrapped(monkeypatch, aiormq.connection.Connection, "_Connection__reader")


def writing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Publishes are entered in other books."""
    _wrapped(monkeypatch, aiormq.Channel, "basic_publish")


def blocking(monkeypatch: pytest.MonkeyPatch) -> None:
    """`ready` gives way to others first, so that one step of it tells nothing."""
    original = aiormq.connection.Connection.ready

    async def later(self: aiormq.connection.Connection) -> None:
        await asyncio.sleep(0)
        await original(self)

    monkeypatch.setattr(aiormq.connection.Connection, "ready", later)


def decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """pamqp looks its decoders up elsewhere."""
    tables = {"METHODS": dict(decode.METHODS), "TABLE_MAPPING": dict(decode.TABLE_MAPPING)}
    tables["METHODS"] |= {name: getattr(decode, of) for name, of in _STRICT.items()}  # type: ignore[operator]
    tables["TABLE_MAPPING"] |= {b"T": decode.timestamp, b"F": decode.field_table}  # type: ignore[operator]
    elsewhere = vars(decode) | tables
    for name in ("by_type", "embedded_value", "field_table", "field_array"):
        function = getattr(decode, name)
        elsewhere[name] = FunctionType(function.__code__, elsewhere, name, function.__defaults__)
    monkeypatch.setattr(decode, "by_type", elsewhere["by_type"])


_STRICT = {"timestamp": "timestamp", "shortstr": "short_str", "table": "field_table"}
OF_AIORMQ: tuple[Change, ...] = (reading, handing_over, writing, blocking)
CHANGES: dict[Change, str] = {**dict.fromkeys(OF_AIORMQ, "aiormq"), decoding: "pamqp"}
"""The library of each change."""
