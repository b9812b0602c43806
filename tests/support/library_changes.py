"""What an update of aiohttp, aiormq or pamqp may change inside, in ways that leave the library itself working.

With NOTIFIER_TEST_HOOKS=off, all tests of a run, and the processes that they start, use libraries whose internals no
faster way fits: everything goes the libraries' public ways.
"""

import asyncio
from collections.abc import Callable
from types import FunctionType
from typing import Any

import aiohttp
import aiormq.connection
from aiormq.connection import FrameReceiver
from pamqp import decode

Put = Callable[[Any, str, Any], None]
"""`setattr`, or that of a monkeypatch."""
Change = Callable[[Put], None]


def _wrapped(put: Put, of: type, name: str) -> None:
    """The same, told in other words: what it names is not seen from outside any more."""
    original = vars(of)[name]

    async def later(*words: Any, **more: Any) -> Any:
        return await original(*words, **more)

    def at_once(*words: Any, **more: Any) -> Any:
        return original(*words, **more)

    put(of, name, later if asyncio.iscoroutinefunction(original) else at_once)


def reading(put: Put) -> None:
    """The weight of a frame is counted in another way."""
    original = FrameReceiver.get_frame

    async def get_frame(self: FrameReceiver) -> Any:
        weight, channel, frame = await original(self)
        return weight + 1, channel, frame

    put(FrameReceiver, "get_frame", get_frame)


def handing_over(put: Put) -> None:
    """Connections give their channels what they read in another way."""
    _wrapped(put, aiormq.connection.Connection, "_Connection__reader")


def writing(put: Put) -> None:
    """Publishes are entered in other books."""
    _wrapped(put, aiormq.Channel, "basic_publish")


def blocking(put: Put) -> None:
    """`ready` gives way to others first, so that one step of it tells nothing."""
    original = aiormq.connection.Connection.ready

    async def later(self: aiormq.connection.Connection) -> None:
        await asyncio.sleep(0)
        await original(self)

    put(aiormq.connection.Connection, "ready", later)


def connecting(put: Put) -> None:
    """The connector gets its arguments in another way."""
    _wrapped(put, aiohttp.BaseConnector, "connect")


def watching(put: Put) -> None:
    """The connector makes its protocols elsewhere."""
    _wrapped(put, aiohttp.BaseConnector, "__init__")


def decoding(put: Put) -> None:
    """pamqp looks its decoders up elsewhere."""
    tables = {"METHODS": dict(decode.METHODS), "TABLE_MAPPING": dict(decode.TABLE_MAPPING)}
    tables["METHODS"] |= {name: getattr(decode, of) for name, of in _STRICT.items()}  # type: ignore[operator]
    tables["TABLE_MAPPING"] |= {b"T": decode.timestamp, b"F": decode.field_table}  # type: ignore[operator]
    elsewhere = vars(decode) | tables
    for name in ("by_type", "embedded_value", "field_table", "field_array"):
        function = getattr(decode, name)
        elsewhere[name] = FunctionType(function.__code__, elsewhere, name, function.__defaults__)
    put(decode, "by_type", elsewhere["by_type"])


_STRICT = {"timestamp": "timestamp", "shortstr": "short_str", "table": "field_table"}
HOOKS: dict[str, Change] = {
    "frames": reading, "messages": handing_over, "confirms": writing, "alarms": blocking, "requests": connecting,
}  # fmt: skip
"""The change by which each hook does not fit."""


def all_hooks_off(put: Put = setattr) -> None:
    """Change all libraries in this process, but keep alarms: without that hook a blocked publish lasts 10 s."""
    for hook, change in HOOKS.items():
        if hook != "alarms":
            change(put)
