"""What an update of aiormq or pamqp may change inside, in ways that leave the library itself working."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any

import aiormq.connection
import pytest
from aiormq.connection import FrameReceiver
from pamqp import decode, frame
from structlog.testing import capture_logs

from notifier.queues.rabbitmq import insides
from notifier.queues.rabbitmq.wire import frames

Change = Callable[[pytest.MonkeyPatch], None]
HOOKS = (
    insides.reads,
    insides.hands_over,
    insides.writes,
    insides.tells_blocked,
    insides.decodes,
    insides.bears_anything,
)


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

    monkeypatch.setattr(aiormq.connection, "FrameReceiver", FrameReceiver)
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


def all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worst update but one."""
    for change in CHANGES[:-1]:
        change(monkeypatch)


def bearing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worst: aiormq reads headers strictly, and by another name."""
    all_of_them(monkeypatch)
    original = FrameReceiver.get_frame

    async def get_frame(self: FrameReceiver) -> Any:
        with pytest.MonkeyPatch.context() as strictly:
            strictly.setattr(frame, "unmarshal", frames._strictly)
            return await original(self)

    monkeypatch.setattr(FrameReceiver, "get_frame", get_frame)


CHANGES = (reading, handing_over, writing, blocking, decoding, all_of_them)
OFF: dict[Change, set[str]] = {change: {change.__name__.replace("_", " ")} for change in CHANGES}
OFF[all_of_them] = {hook for change in CHANGES[:-1] for hook in OFF[change]}
OFF[bearing] = OFF[all_of_them] | {"bearing"}


@contextlib.contextmanager
def made(change: Change, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An inside that is another, found so by the hooks that rest on it, and by no other."""
    look_again()
    try:
        monkeypatch.setattr(frame, "unmarshal", frames._strictly)
        change(monkeypatch)
        with capture_logs() as log:
            found = insides.prepare()
        assert {hook for hook, fits in found.items() if not fits} == OFF[change]
        told = {line["hook"]: line["version"] for line in log if line["event"] == "library_hook_off"}
        assert told.keys() == OFF[change]
        assert all(told.values())
        yield
    finally:
        monkeypatch.undo()
        look_again()


def look_again() -> None:
    """Forget which hooks fit."""
    for hook in HOOKS:
        hook.cache_clear()
