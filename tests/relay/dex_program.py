"""Dex, built from its Go module at a commit, since no release has back-channel logout yet.

It is cached in /var/cache/notifier-tests, or in the user's own cache if that is not writable: 23 MB. The first
time takes minutes.
"""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.support.go_modules import GoMissing, check_go, go_build, say
from tests.support.keycloak_installation import KeycloakMissing, cache
from tests.support.made_whole import alone

MODULE, VERSION = "github.com/dexidp/dex", "v0.0.0-20260806151424-ab64ed778070"
SOURCE = Path(__file__).with_name("dex") / "main.go"


def find_dex() -> Path:
    """Return the program, if it has been built. Raise GoMissing."""
    if (program := _place()).exists():
        return program
    raise GoMissing(f"Dex is not built yet in {program.parent}: `make test-everything PART=relay` does it")


def found_dex() -> Path:
    """Return the program for a test, which is skipped without it; it fails with NOTIFIER_TEST_RELAY=required."""
    try:
        return find_dex()
    except GoMissing as missing:
        if os.environ.get("NOTIFIER_TEST_RELAY") == "required":
            pytest.fail(str(missing))
        pytest.skip(str(missing))


def build_dex() -> Path:
    """Return the program, and build it if needed. Raise GoMissing."""
    program = _place()
    if not program.exists():
        check_go("Dex")
        with alone(program), tempfile.TemporaryDirectory(prefix="dex.", dir=program.parent) as work:
            if not program.exists():
                _build(program, Path(work))
    return program


def _place() -> Path:
    """Return the path, which depends on the version and the program's source."""
    digest = hashlib.sha256(VERSION.encode() + SOURCE.read_bytes()).hexdigest()
    try:
        return cache() / f"dex-{digest[:12]}"
    except KeycloakMissing as missing:
        raise GoMissing(str(missing)) from None


def _build(program: Path, work: Path) -> None:
    say(f"building Dex {VERSION} …")
    shutil.copy(SOURCE, work)
    (work / "go.mod").write_text(f"module dex\ngo 1.25.8\nrequire {MODULE} {VERSION}\n")
    go_build(work, work / "made")
    for old in program.parent.glob("dex-*"):
        if old.suffix != ".lock":
            old.unlink()
    (work / "made").rename(program)
