"""The signer `google_kms`: sign with a key in Google Cloud KMS, by Google's gRPC client, which obtains credentials.

`GetPublicKey` returns the public key and the algorithm of a key version, which has only one. `AsymmetricSign` signs a
digest, or for Ed25519 the message; an ECDSA signature is DER. Its response names the version that signed. Retries are
off, since the client would retry for most of a minute, whatever its `timeout` is.
"""

import hashlib
from collections.abc import Callable, Mapping
from functools import partial
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
from notifier.model.own_thread import read_in_thread
from notifier.tokens.published_keys import algorithms_of
from notifier.tokens.signer import PublicHalf, SignatureResult, SignerError, to_raw_ecdsa

TIMEOUT_SECONDS = 30.0  # of a call; the caller's own limit is shorter
_CREDENTIALS_SECONDS = 30.0  # for the machine's metadata server, too
_MAX_SHOWN_CHARS = 300  # of Google's error text
_SCOPES = ("https://www.googleapis.com/auth/cloudkms",)
_ALGORITHM_FAMILIES: Mapping[str, str] = {"RSA_SIGN_PKCS1": "RS", "RSA_SIGN_PSS": "PS", "EC_SIGN_P": "ES"}
_PERMANENT_ERRORS = (
    refusals.NotFound,
    refusals.Forbidden,
    refusals.Unauthorized,
    refusals.BadRequest,  # also a version that is disabled or destroyed
    refusals.MethodNotImplemented,
)


class GoogleKmsKey:
    """One version of a key. Satisfies `SignerBackend`. `open_channel` replaces the connection of Google's client."""

    def __init__(self, settings: GoogleKmsSettings, open_channel: Callable[[], grpc.aio.Channel] | None = None) -> None:
        self._name = settings.name
        self._open_channel = open_channel
        self._client: KeyManagementServiceAsyncClient | None = None

    async def public(self) -> PublicHalf:
        """Return the public key and the algorithms that this version lacks. Raises SignerError."""
        public = await self._request("get_public_key", {"name": self._name})
        try:
            key: Any = load_pem_public_key(public.pem.encode())
        except (ValueError, UnsupportedAlgorithm):
            text = f"a key of {public.algorithm.name} cannot be used: RSA, P-256, P-384 or Ed25519"
            raise SignerError(text, SignatureResult.WRONG) from None
        supported = _to_algorithms(public.algorithm.name)
        text = f"this version of the key signs by {public.algorithm.name} alone"
        return PublicHalf(key=key, lacking={alg: text for alg in algorithms_of(key) if alg not in supported})

    async def sign(self, alg: Algorithm, message: bytes) -> bytes:
        """Return the signature of a message in the form of JWS. Raises SignerError."""
        parameters: dict[str, object] = {"name": self._name}
        if alg in ED25519_NAMES:
            parameters["data"] = message
        else:
            hash_name = f"sha{alg[-3:]}"
            parameters["digest"] = {hash_name: hashlib.new(hash_name, message).digest()}
        answer = await self._request("asymmetric_sign", parameters)
        if answer.name != self._name:
            raise SignerError(f"Google signed by {answer.name} where another was asked for")
        return to_raw_ecdsa(alg, answer.signature) if alg.startswith("ES") else bytes(answer.signature)

    async def close(self) -> None:
        """Close the connection."""
        client, self._client = self._client, None
        if client is not None:
            await client.transport.close()  # type: ignore[no-untyped-call]

    async def _request(self, method: str, parameters: Mapping[str, object]) -> Any:
        """Call a method of Google's client, and return its response. Raises SignerError."""
        try:
            if self._client is None:
                self._client = await self._build_client()
            return await getattr(self._client, method)(request=parameters, retry=None, timeout=TIMEOUT_SECONDS)
        except refusals.GoogleAPICallError as error:
            result = SignatureResult.WRONG if isinstance(error, _PERMANENT_ERRORS) else SignatureResult.AWAY
            status = error.grpc_status_code.name if error.grpc_status_code is not None else type(error).__name__
            raise SignerError(f"Google KMS answered {status}: {_shorten(error.message)}", result) from None
        except credentials.GoogleAuthError as error:
            is_temporary = isinstance(error, credentials.TransportError)
            result = SignatureResult.AWAY if is_temporary else SignatureResult.WRONG
            raise SignerError(f"Google lets nobody in: {_shorten(str(error))}", result) from None

    async def _build_client(self) -> KeyManagementServiceAsyncClient:
        if self._open_channel is not None:
            transport = KeyManagementServiceGrpcAsyncIOTransport(channel=self._open_channel())
            return KeyManagementServiceAsyncClient(transport=transport)
        # In Google's cloud this sends requests to the machine's metadata server, which would block the event loop.
        read = partial(google.auth.default, scopes=_SCOPES)
        credentials, _ = await read_in_thread("Google's default credentials", read, within=_CREDENTIALS_SECONDS)
        return KeyManagementServiceAsyncClient(credentials=credentials)


def _shorten(text: str) -> str:
    return " ".join(text.split())[:_MAX_SHOWN_CHARS]


def _to_algorithms(name: str) -> frozenset[Algorithm]:
    """Return the JWS names of Google's algorithm: RSA_SIGN_PSS_3072_SHA256 is PS256. Empty without one."""
    if name == "EC_SIGN_ED25519":
        return ED25519_NAMES
    family = next((alg for prefix, alg in _ALGORITHM_FAMILIES.items() if name.startswith(prefix)), "")
    algorithm = f"{family}{name[-3:]}"
    return frozenset(alg for alg in Algorithm if alg == algorithm)
