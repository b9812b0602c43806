"""One cluster for all tests of this folder.

The tests are left out where the cluster cannot be had, unless NOTIFIER_TEST_CLUSTER=required.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.__main__ import found
from tests.cluster.commands import Commands
from tests.support.go_modules import GoMissing
from tests.system.command import ROOT

HELMS = ("helm3", "helm4")


@pytest.fixture(scope="session")
def commands() -> Iterator[Commands]:
    """kubectl and Helm, with a cluster that they reach."""
    try:
        programs = found()
    except GoMissing as missing:
        if os.environ.get("NOTIFIER_TEST_CLUSTER") == "required":
            pytest.fail(str(missing))
        pytest.skip(str(missing))
    words = [sys.executable, "-m", "tests.cluster"]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            path = process.stdout.readline().strip()
            assert path, "the cluster did not start; see above"
            yield Commands(programs, Path(path))
        finally:
            process.send_signal(signal.SIGTERM)


@pytest.fixture(params=HELMS)
def helm(request: pytest.FixtureRequest) -> str:
    """Each Helm, one after the other."""
    name: str = request.param
    return name
