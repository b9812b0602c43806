"""Signs with a key in Google Cloud KMS, by Google's client over gRPC, which finds and renews credentials.

| call | |
|---|---|
| `GetPublicKey` | the public half, and the only algorithm of this version |
| `AsymmetricSign` | signs a digest, or the message itself for Ed25519. ECDSA comes as DER |

The answer names the version that signed. Retries are off, since the client would retry for most of a minute, whatever
its `timeout` is.
"""

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import google.auth
import grpc.aio
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from google.api_core import exceptions as refusals
from google.auth import exceptions as credentials
from google.cloud.kms_v1 import KeyManagementServiceAsyncClient
from google.cloud.kms_v1.services.key_management_service.transports import KeyManagementServiceGrpcAsyncIOTransport

from notifier.features.signers.signer_settings import GoogleKmsSettings
from notifier.model.client import ED25519_NAMES, Algorithm
from notifier.tokens.published_keys import algorithms_of
from notifier.tokens.signer import PublicHalf, SignatureResult, SignerError, to_raw_ecdsa

TIMEOUT_SECONDS = 30.0  # after which a call ends, even if its caller has given up before
_MAX_SHOWN_CHARS = 300  # characters of Google's text
_SCOPES = ("https://www.googleapis.com/auth/cloudkms",)
_FAMILIES: Mapping[str, str] = MappingProxyType({"RSA_SIGN_PKCS1": "RS", "RSA_SIGN_PSS": "PS", "EC_SIGN_P": "ES"})
_LASTING_ERRORS = (
    refusals.NotFound,
    refusals.Forbidden,
    refusals.Unauthorized,
    refusals.BadRequest,  # also a version that is disabled or destroyed
    refusals.MethodNotImplemented,
)


class GoogleKmsKey:
    """One version of a key. `channel` opens a connection in place of Google's client."""

    def __init__(self, settings: GoogleKmsSettings, channel: Callable[[], grpc.aio.Channel] | None = None) -> None:
        self._name = settings.name
        self._channel = channel
        self._client: KeyManagementServiceAsyncClient | None = None

    async def public(self) -> PublicHalf:
        """Fetch the public half. Raises SignerError."""
        public = await self._request("get_public_key", {"name": self._name})
        try:
            key: Any = load_pem_public_key(public.pem.encode())
        except (ValueError, UnsupportedAlgorithm):
            raise _wrong_key_error(
                f"a key of {public.algorithm.name} cannot be used: RSA, P-256, P-384 or Ed25519"
            ) from None
        able = _algorithms(public.algorithm.name)
        text = f"this version of the key signs by {public.algorithm.name} alone"
        lacking = {alg: text for alg in algorithms_of(key) if alg not in able}
        return PublicHalf(key=key, lacking=lacking)

    async def sign(self, alg: Algorithm, message: bytes) -> bytes:
        """Sign the bytes, and return the signature as JWS has it. Raises SignerError."""
        parameters: dict[str, object] = {"name": self._name}
        if alg in ED25519_NAMES:
            parameters["data"] = message
        else:
            kind = f"sha{alg[-3:]}"
            parameters["digest"] = {kind: hashlib.new(kind, message).digest()}
        answer = await self._request("asymmetric_sign", parameters)
        if answer.name != self._name:
            raise SignerError(f"Google signed by {answer.name} where another was asked for")
        return to_raw_ecdsa(alg, answer.signature) if alg.startswith("ES") else bytes(answer.signature)

    async def close(self) -> None:
        """Close its connection."""
        client, self._client = self._client, None
        if client is not None:
            await client.transport.close()  # type: ignore[no-untyped-call]

    async def _request(self, call: str, parameters: Mapping[str, object]) -> Any:
        try:
            if self._client is None:
                self._client = await self._new_client()
            return await getattr(self._client, call)(request=parameters, retry=None, timeout=TIMEOUT_SECONDS)
        except refusals.GoogleAPICallError as error:
            result = SignatureResult.WRONG if isinstance(error, _LASTING_ERRORS) else SignatureResult.AWAY
            status = error.grpc_status_code.name if error.grpc_status_code is not None else type(error).__name__
            raise SignerError(f"Google KMS answered {status}: {_words(error.message)}", result) from None
        except credentials.GoogleAuthError as error:
            away = isinstance(error, credentials.TransportError)
            result = SignatureResult.AWAY if away else SignatureResult.WRONG
            raise SignerError(f"Google lets nobody in: {_words(str(error))}", result) from None

    async def _new_client(self) -> KeyManagementServiceAsyncClient:
        if self._channel is not None:
            return KeyManagementServiceAsyncClient(
                transport=KeyManagementServiceGrpcAsyncIOTransport(channel=self._channel())
            )
        # In Google's cloud this requests credentials from the machine's metadata server, and would block the loop.
        credentials, _ = await asyncio.to_thread(google.auth.default, scopes=_SCOPES)
        return KeyManagementServiceAsyncClient(credentials=credentials)


def _wrong_key_error(text: str) -> SignerError:
    return SignerError(text, SignatureResult.WRONG)


def _words(text: str) -> str:
    return " ".join(text.split())[:_MAX_SHOWN_CHARS]


def _algorithms(name: str) -> frozenset[Algorithm]:
    """Return the names of a version's algorithm: RSA_SIGN_PSS_3072_SHA256 is PS256."""
    if name == "EC_SIGN_ED25519":
        return ED25519_NAMES
    family = next((alg for prefix, alg in _FAMILIES.items() if name.startswith(prefix)), "")
    algorithm = f"{family}{name[-3:]}"
    return frozenset(alg for alg in Algorithm if alg == algorithm)
