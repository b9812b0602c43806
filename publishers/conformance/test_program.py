"""The program of `wrong`, when it is right: what its wrong ways are compared with. Only with `--publisher program`."""

import pytest

from publishers.conformance.cases import *  # noqa: F403

PUBLISHER = "program"
pytestmark = [pytest.mark.full, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]
