"""The TLS files of the connection to the broker: an unusable file is named with its setting."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from notifier.model.client import TlsFiles
from notifier.model.errors import QueueError, QueueUnavailable
from notifier.queues.rabbitmq.connection import connect
from notifier.queues.rabbitmq.options import RabbitOptions
from tests.support import behaviours as do
from tests.support.certificates import authority
from tests.support.receivers import scripted

URL = "amqps://127.0.0.1:1/"


async def test_a_missing_authority_is_named(tmp_path: Path) -> None:
    """Not as an address that nobody answers at."""
    with pytest.raises(QueueError, match=r"queue\.tls: .*none\.pem cannot be read: No such file"):
        await connect(RabbitOptions(urls=(URL,), tls=TlsFiles(ca_file=tmp_path / "none.pem")), "test")


async def test_encrypted_key_is_refused_without_a_password_prompt(tmp_path: Path) -> None:
    """OpenSSL would ask on the terminal, and the worker would stand there."""
    ca = authority(tmp_path)
    cert_file, key_file = ca.issue("worker"), tmp_path / "key.pem"
    key_file.write_bytes(
        ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    tls = TlsFiles(ca_file=ca.ca_file, cert_file=cert_file, key_file=key_file)
    with pytest.raises(QueueError, match=r"queue\.tls: .*key\.pem is encrypted; store it decrypted"):
        await connect(RabbitOptions(urls=(URL,), tls=tls), "test")


@pytest.mark.parametrize("behaviour", [do.reset(reads=False), do.close(reads=False)])
async def test_a_handshake_that_the_broker_ends_is_named(behaviour: do.Behaviour) -> None:
    """A start waits for it, as for a broker that is not there."""
    async with scripted(behaviour) as receiver:
        url = receiver.origin.replace("http:", "amqps:")
        with pytest.raises(QueueUnavailable, match="ended the connection in the TLS handshake"):
            await connect(RabbitOptions(urls=(url,)), "test")
