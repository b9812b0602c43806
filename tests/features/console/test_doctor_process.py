"""The process in which the doctor looks for the console: it ends in an account, whatever becomes of it."""

import asyncio

import pytest

from notifier.features.console import doctor_routes
from notifier.features.console.doctor_routes import Doctor
from tests.system.waiting import until


async def ended(doctor: Doctor) -> dict[str, object]:
    """What it found, once it has looked."""

    async def told() -> dict[str, object]:
        return doctor.document()

    return dict(await until(told, lambda said: said["state"] == "ended"))


async def test_a_machine_without_room_for_a_process_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """And it can be asked again: it is not said to look for ever."""

    async def no_room(*_command: object, **_options: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", no_room)
    monkeypatch.setattr(doctor_routes, "FRESH", 0.0)
    doctor = Doctor(None)
    for _ in range(2):
        doctor.begin()
        assert doctor.document()["state"] == "running"
        assert "could not look" in str((await ended(doctor))["problem"])
    await doctor.close()
