"""The process in which the doctor looks for the console: it ends in an account, whatever becomes of it."""

import asyncio
from pathlib import Path
from typing import cast

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


async def test_a_configuration_that_cannot_be_used_is_what_it_finds(tmp_path: Path) -> None:
    """Workers go on with the old one. It must not look as if all were well."""
    config = tmp_path / "notifier.yaml"
    config.write_text("issuers: {}\n")
    doctor = Doctor(config)
    doctor.begin()
    said = await ended(doctor)
    assert "cannot be used" in str(said["problem"])
    assert any(finding["level"] == "failed" for finding in cast("list[dict[str, object]]", said["findings"]))
    await doctor.close()
