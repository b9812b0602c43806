"""A stand-in for Amazon SNS: it signs messages, and serves the certificate at the name of a region's server, under TLS.

Its resolver leads that name to loopback, and nothing else anywhere. What asks it still judges the name, the certificate
of the connection, and the address.
"""

import base64
import datetime as dt
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import cache
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from notifier.features.sources.sns_message import SnsTopic
from notifier.features.sources.sns_server import SnsServer
from notifier.features.sources.source_proofs import SnsVerifier
from notifier.model.client import EgressPolicy, TlsFiles
from tests.support.certificates import authority

HOST = "sns.eu-west-1.amazonaws.com"
ARN = "arn:aws:sns:eu-west-1:123456789012:logouts"
CERTIFICATE = f"https://{HOST}/SimpleNotificationService-0123456789abcdef.pem"
SUBSCRIBE = f"https://{HOST}/?Action=ConfirmSubscription&TopicArn={ARN}&Token=t0k3n"
LOOPBACK = EgressPolicy(allow=(ip_network("127.0.0.0/8"),))
NOTIFICATION: Mapping[str, str] = {
    "Type": "Notification",
    "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
    "TopicArn": ARN,
    "Subject": "ended",
    "Message": '{"user": "alice"}',
    "Timestamp": "2026-01-31T12:00:00.000Z",
}
CONFIRMATION: Mapping[str, str] = {
    "Type": "SubscriptionConfirmation",
    "MessageId": "165545c9-2a5c-472c-8df2-7ff2be2b3b1b",
    "Token": "t0k3n",
    "TopicArn": ARN,
    "Message": "You have chosen to subscribe to the topic.\nTo confirm, visit the SubscribeURL.",
    "SubscribeURL": SUBSCRIBE,
    "Timestamp": "2026-01-31T12:00:00.000Z",
}


@cache
def key(bits: int = 2048) -> rsa.RSAPrivateKey:
    """The key by which it signs."""
    return rsa.generate_private_key(65537, bits)


def pem(of: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | None = None, days: int = 1) -> bytes:
    """Return its certificate, valid for these days; a negative number makes an expired certificate."""
    of = of or key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.amazonaws.com")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(of.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=30))
        .not_valid_after(now + dt.timedelta(days=days))
        .sign(of, hashes.SHA256())
    )
    return certificate.public_bytes(Encoding.PEM)


def text_of(message: Mapping[str, str]) -> str:
    """Return the signed text: the names and values, sorted by name, each on a separate line."""
    unsigned = ("SignatureVersion", "Signature", "SigningCertURL", "UnsubscribeURL")
    return "".join(f"{name}\n{message[name]}\n" for name in sorted(message) if name not in unsigned)


def signature_of(message: Mapping[str, str], version: str = "2", by: rsa.RSAPrivateKey | None = None) -> str:
    """In base64."""
    algorithm = hashes.SHA1() if version == "1" else hashes.SHA256()
    return base64.b64encode((by or key()).sign(text_of(message).encode(), padding.PKCS1v15(), algorithm)).decode()


def signed(message: Mapping[str, str] = NOTIFICATION, version: str = "2", /, **more: Any) -> bytes:
    """Return the body that SNS posts. `more`: further members, which are not signed; None omits a member."""
    whole: dict[str, Any] = {
        **message,
        "SignatureVersion": version,
        "Signature": signature_of(message, version),
        "SigningCertURL": CERTIFICATE,
        "UnsubscribeURL": f"https://{HOST}/?Action=Unsubscribe&SubscriptionArn={ARN}:c9135db0",
        "MessageAttributes": {"kind": {"Type": "String", "Value": "nobody signs this"}},
        **more,
    }
    return json.dumps({name: value for name, value in whole.items() if value is not None}).encode()


class Sns(AbstractResolver):
    """The stand-in. It answers with `status`, `headers`, and `certificate` where that is asked for.

    `only`: it has no certificate but CERTIFICATE.
    """

    def __init__(self) -> None:
        self.port = 0
        self.asked: list[str] = []
        self.certificate = pem()
        self.status = 200
        self.headers: dict[str, str] = {}
        self.only = False
        self.verifier: SnsVerifier

    async def handle(self, request: web.BaseRequest) -> web.Response:
        """Answer with the certificate, or to a confirmation."""
        self.asked.append(request.path_qs)
        body = self.certificate if request.path.endswith(".pem") else b"<ConfirmSubscriptionResponse/>"
        missing = self.only and request.path.endswith(".pem") and not CERTIFICATE.endswith(request.path)
        return web.Response(body=body, status=404 if missing else self.status, headers=self.headers)

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:
        """Of aiohttp."""
        if host != HOST:
            raise OSError(None, "Domain name not found")
        return [ResolveResult(hostname=host, host="127.0.0.1", port=self.port, family=family, proto=0, flags=0)]

    async def close(self) -> None:
        """It has nothing to close."""


@asynccontextmanager
async def standing_in(folder: Path, egress: EgressPolicy = LOOPBACK, **given: Any) -> AsyncIterator[Sns]:
    """Serve the stand-in, with a verifier that requests it. `given`: further arguments of the verifier's SnsServer."""
    sns, trusted = Sns(), authority(folder / "sns")
    runner = web.ServerRunner(web.Server(sns.handle), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=trusted.server(HOST)).start()
    sns.port = runner.addresses[0][1]
    made = {"resolver": sns, "tls": TlsFiles(ca_file=trusted.ca_file), **given}
    server = SnsServer(lambda: egress, **made)
    sns.verifier = SnsVerifier(SnsTopic(ARN), server)
    try:
        yield sns
    finally:
        await server.close()
        await runner.cleanup()
