"""Changes to the internals of aiohttp, aiormq or pamqp that an update may bring while the library itself keeps working.

With NOTIFIER_TEST_HOOKS=off, a whole run and its child processes use libraries whose internals fit none of our hooks,
so that only public APIs are used.
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
    """Return an equivalent function whose names are invisible from outside."""
    original = vars(of)[name]

    async def later(*words: Any, **more: Any) -> Any:
        return await original(*words, **more)

    def at_once(*words: Any, **more: Any) -> Any:
        return original(*words, **more)

    put(of, name, later if asyncio.iscoroutinefunction(original) else at_once)


def reading(put: Put) -> None:
    """Compute the weight of a frame differently."""
    original = FrameReceiver.get_frame

    async def get_frame(self: FrameReceiver) -> Any:
        weight, channel, frame = await original(self)
        return weight + 1, channel, frame

    put(FrameReceiver, "get_frame", get_frame)


def handing_over(put: Put) -> None:
    """Pass frames from connections to channels differently."""
    _wrapped(put, aiormq.connection.Connection, "_Connection__reader")


def writing(put: Put) -> None:
    """Record publishes in another structure."""
    _wrapped(put, aiormq.Channel, "basic_publish")


def blocking(put: Put) -> None:
    """`ready` yields to the loop first, so that a single step of it does not show the result."""
    original = aiormq.connection.Connection.ready

    async def later(self: aiormq.connection.Connection) -> None:
        await asyncio.sleep(0)
        await original(self)

    put(aiormq.connection.Connection, "ready", later)


def connecting(put: Put) -> None:
    """Pass the connector's arguments differently."""
    _wrapped(put, aiohttp.BaseConnector, "connect")


def watching(put: Put) -> None:
    """Create the connector's protocols elsewhere."""
    _wrapped(put, aiohttp.BaseConnector, "__init__")


def decoding(put: Put) -> None:
    """Look up pamqp's decoders elsewhere."""
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
    """Change all libraries in this process, except alarms: without that hook a blocked publish lasts 10 s."""
    for hook, change in HOOKS.items():
        if hook != "alarms":
            change(put)
