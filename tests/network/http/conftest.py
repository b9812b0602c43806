"""What several tests of adapters ask for: a transport, with the machine's names and with scripted ones."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from notifier.model.client import TlsFiles
from notifier.network.http.transport import HttpTransport
from tests.network.http.http_requests import ScriptedResolver, opened
from tests.support.certificates import Authority, authority

NAMES = {
    "rebound.example": ["10.1.2.3"],
    "metadata.example": ["169.254.169.254"],
    "two.example": ["10.1.2.3", "127.0.0.1"],
    "six.example": ["::ffff:127.0.0.1"],
}


@pytest.fixture
async def transport() -> AsyncIterator[HttpTransport]:
    """One that may reach loopback."""
    async with opened() as transport:
        yield transport


@pytest.fixture
async def named() -> AsyncIterator[HttpTransport]:
    """One with scripted names."""
    async with opened(ScriptedResolver(NAMES)) as transport:
        yield transport


@pytest.fixture
def ca(tmp_path: Path) -> Authority:
    """An authority of the test's own."""
    return authority(tmp_path / "ca")


@pytest.fixture
def trusted(ca: Authority) -> TlsFiles:
    """The TLS files of a client who trusts it."""
    return TlsFiles(ca_file=ca.ca_file)
