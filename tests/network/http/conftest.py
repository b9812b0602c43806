"""What several tests of adapters ask for: a transport, with the machine's names and with scripted ones."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from notifier.model.client import TlsFiles
from notifier.network.http.transport import HttpTransport
from tests.network.http.http_requests import ScriptedResolver, opened
from tests.support.certificates import Authority, authority


@pytest.fixture
async def transport() -> AsyncIterator[HttpTransport]:
    """One that may reach loopback."""
    async with opened() as transport:
        yield transport


@pytest.fixture
async def named() -> AsyncIterator[HttpTransport]:
    """One that finds no name."""
    async with opened(ScriptedResolver({})) as transport:
        yield transport


@pytest.fixture
def ca(tmp_path: Path) -> Authority:
    """An authority of the test's own."""
    return authority(tmp_path / "ca")


@pytest.fixture
def trusted(ca: Authority) -> TlsFiles:
    """The TLS files of a client who trusts it."""
    return TlsFiles(ca_file=ca.ca_file)
