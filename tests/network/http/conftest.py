"""Fixtures of several tests of adapters: transports with the names of the machine and with scripted names."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from notifier.model.client import TlsFiles
from notifier.network.http.transport import HttpTransport
from tests.network.http.http_requests import ScriptedResolver, opened
from tests.support.certificates import Authority, authority


@pytest.fixture
async def transport() -> AsyncIterator[HttpTransport]:
    """Return a transport that may connect to loopback, and checks TLS files before each request."""
    async with opened(tls_check_interval=0.0) as transport:
        yield transport


@pytest.fixture
async def named() -> AsyncIterator[HttpTransport]:
    """Return a transport whose resolver finds no name."""
    async with opened(ScriptedResolver({})) as transport:
        yield transport


@pytest.fixture
def ca(tmp_path: Path) -> Authority:
    """Create a certificate authority."""
    return authority(tmp_path / "ca")


@pytest.fixture
def trusted(ca: Authority) -> TlsFiles:
    """Return the TLS files of a client that trusts it."""
    return TlsFiles(ca_file=ca.ca_file)
