"""Dex, built from its Go module at a commit, since no release has back-channel logout yet: 23 MB, minutes at first."""

import os
from pathlib import Path

import pytest

from tests.support.go_modules import GoMissing, GoProgram

VERSION = "v0.0.0-20260806151424-ab64ed778070"


def _write_module(folder: Path) -> None:
    (folder / "go.mod").write_text(f"module dex\ngo 1.25.8\nrequire github.com/dexidp/dex {VERSION}\n")


DEX = GoProgram(
    name="dex", version=VERSION, source=Path(__file__).with_name("dex") / "main.go", part="relay",
    write_module=_write_module,
)  # fmt: skip


def found_dex() -> Path:
    """Return the program for a test, which is skipped without it; it fails with NOTIFIER_TEST_RELAY=required."""
    try:
        return DEX.find()
    except GoMissing as missing:
        if os.environ.get("NOTIFIER_TEST_RELAY") == "required":
            pytest.fail(str(missing))
        pytest.skip(str(missing))
