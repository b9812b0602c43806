"""A stand-in for Google Cloud KMS: two calls over gRPC, by Google's own message types.

It refuses each request that differs from the reference.

It shows what Google's own client sends and takes. It does not show what Google does.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from google.cloud import kms_v1

from tests.features.signers.azure_stand_in import unchanged

KEY = "projects/p/locations/europe-west3/keyRings/r/cryptoKeys/logout/cryptoKeyVersions"
_HASHES = {"sha256": hashes.SHA256(), "sha384": hashes.SHA384(), "sha512": hashes.SHA512()}
_Algorithm = kms_v1.CryptoKeyVersion.CryptoKeyVersionAlgorithm


@dataclass(kw_only=True)
class GoogleStandIn:
    """Versions of one key, each with its algorithm. `refusal`: how each signature is refused.

    `passed`: a change of each signature.
    """

    versions: list[tuple[Any, str]] = field(default_factory=list)
    refusal: grpc.StatusCode | None = None
    passed: Callable[[bytes], Awaitable[bytes]] = unchanged
    asked: list[str] = field(default_factory=list)
    port: int = 0

    def channel(self) -> grpc.aio.Channel:
        """A connection to it."""
        return grpc.aio.insecure_channel(f"127.0.0.1:{self.port}")

    async def get_public_key(self, asked: kms_v1.GetPublicKeyRequest, context: Any) -> kms_v1.PublicKey:
        """The public half."""
        key, algorithm = await self._version(asked.name, context)
        pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        return kms_v1.PublicKey(pem=pem, algorithm=getattr(_Algorithm, algorithm), name=asked.name)

    async def asymmetric_sign(self, asked: kms_v1.AsymmetricSignRequest, context: Any) -> kms_v1.AsymmetricSignResponse:
        """Return a signature."""
        self.asked.append(asked.name)
        if self.refusal is not None:
            await context.abort(self.refusal, "a reason")
        key, algorithm = await self._version(asked.name, context)
        if algorithm == "EC_SIGN_ED25519":
            return kms_v1.AsymmetricSignResponse(signature=key.sign(asked.data), name=asked.name)
        kind = f"sha{algorithm[-3:]}"
        digest = getattr(asked.digest, kind)
        if len(digest) != _HASHES[kind].digest_size:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "digest")
        signature = await self.passed(_signature(key, algorithm, kind, digest))
        return kms_v1.AsymmetricSignResponse(signature=signature, name=asked.name)

    async def _version(self, name: str, context: Any) -> tuple[Any, str]:
        key, _, version = name.rpartition("/")
        if key != KEY or int(version) > len(self.versions):
            await context.abort(grpc.StatusCode.NOT_FOUND, f"{name} not found")
        return self.versions[int(version) - 1]


def _signature(
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey,
    algorithm: str,
    kind: str,
    digest: bytes,
) -> bytes:
    how = _HASHES[kind]
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(digest, ec.ECDSA(Prehashed(how)))
    assert isinstance(key, rsa.RSAPrivateKey)
    pss = padding.PSS(padding.MGF1(how), how.digest_size)
    return key.sign(digest, pss if "PSS" in algorithm else padding.PKCS1v15(), Prehashed(how))


def _answering(answer: Callable[[Any, Any], Awaitable[Any]], asked: Any, answered: Any) -> grpc.RpcMethodHandler:
    return grpc.unary_unary_rpc_method_handler(
        answer, request_deserializer=asked.deserialize, response_serializer=answered.serialize
    )


@asynccontextmanager
async def google_kms(pem: bytes | None = None) -> AsyncIterator[GoogleStandIn]:
    """A stand-in that listens, with TLS by this certificate and key if there are any."""
    stand_in, server = GoogleStandIn(), grpc.aio.server()
    calls = {
        "GetPublicKey": _answering(stand_in.get_public_key, kms_v1.GetPublicKeyRequest, kms_v1.PublicKey),
        "AsymmetricSign": _answering(
            stand_in.asymmetric_sign, kms_v1.AsymmetricSignRequest, kms_v1.AsymmetricSignResponse
        ),
    }
    service = "google.cloud.kms.v1.KeyManagementService"
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, calls),))
    if pem is None:
        stand_in.port = server.add_insecure_port("127.0.0.1:0")
    else:
        stand_in.port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(pem, pem)]))
    await server.start()
    try:
        yield stand_in
    finally:
        await server.stop(None)
