"""An error that nothing expected: what operators read of it."""

import errno
import socket
import ssl
from pathlib import Path

import pytest

from notifier.model.errors import ConfigurationError, InputIssue, SourceFault, describe_error

MISSING = "needs sqlalchemy: pip install 'logout-notifier[sql]'"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (SourceFault("answered 500"), "answered 500"),
        (ConfigurationError([InputIssue("registry.sources.db.sql", MISSING)]), f"registry.sources.db.sql: {MISSING}"),
        (OSError(errno.ENOSPC, "any text", "/var/lib/notifier/x"), "No space left on device: /var/lib/notifier/x"),
        (OSError(errno.EXDEV, "any text", b"/a", None, Path("/b")), "Invalid cross-device link: /a -> /b"),
        (OSError(errno.EMFILE, "any text"), "Too many open files"),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "Name or service not known"),
        (socket.gaierror("hush"), "gaierror"),
        (socket.gaierror(socket.EAI_NONAME, 7), "gaierror"),
        (socket.herror(1, "hush"), "herror"),
        (OSError("hush", "hush"), "OSError"),
        (OSError(2**70, "hush"), "OSError"),
        (OSError(-1, "password=hush", "hush"), "OSError"),
        (ConnectionResetError("hush"), "ConnectionResetError"),
        (ssl.SSLError("hush"), "SSLError"),
        (RuntimeError("hush"), "RuntimeError"),
    ],
)
def test_text_of_an_unexpected_error(error: Exception, text: str) -> None:
    """Notifier's and the system's texts with files; of others the class, as theirs may quote what was read."""
    assert describe_error(error) == text


def test_text_of_tls_has_the_reason() -> None:
    """OpenSSL's errors have a number too, which is not the system's."""
    received = ssl.MemoryBIO()
    received.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    connection = ssl.create_default_context().wrap_bio(received, ssl.MemoryBIO(), server_hostname="a.example.com")
    with pytest.raises(ssl.SSLError) as caught:
        connection.do_handshake()
    assert describe_error(caught.value) == "SSLError (WRONG_VERSION_NUMBER)"
