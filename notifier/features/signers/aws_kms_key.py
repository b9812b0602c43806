"""The signer `aws_kms`: sign with a key in AWS KMS, by aiobotocore, which obtains and renews credentials.

`GetPublicKey` returns the public key and the key's ARN. The ARN is then used to sign, since an alias can be moved to
another key. `Sign` has `MessageType=RAW` with a message of up to 4,096 bytes, which KMS hashes, and `DIGEST`
above; an ECDSA signature is DER. The library's retries are off, and its timeouts exceed the caller's.
"""

import hashlib
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

import botocore.exceptions as refusals
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_der_public_key

from notifier.features.signers.signer_settings import AwsKmsSettings
from notifier.model.client import ED25519_NAMES, Algorithm
from notifier.model.shared_resources import shared_bound
from notifier.tokens.jws import PublicKey
from notifier.tokens.published_keys import algorithms_of
from notifier.tokens.signer import PublicHalf, SignatureResult, SignerError, to_raw_ecdsa

MAX_RAW_BYTES = 4096  # of a message with MessageType=RAW
TIMEOUT_SECONDS = 30.0  # of a request; the caller's own limit is shorter
MAX_CONNECTIONS = shared_bound(64)
_MAX_SHOWN_CHARS = 300  # of AWS's error text
_AWS_NAMES: Mapping[Algorithm, str] = {
    **{Algorithm(f"RS{size}"): f"RSASSA_PKCS1_V1_5_SHA_{size}" for size in (256, 384, 512)},
    **{Algorithm(f"PS{size}"): f"RSASSA_PSS_SHA_{size}" for size in (256, 384, 512)},
    **{Algorithm(f"ES{size}"): f"ECDSA_SHA_{size}" for size in (256, 384, 512)},
    **dict.fromkeys(ED25519_NAMES, "ED25519_SHA_512"),
}
_THROTTLING_CODES = frozenset(
    {"LimitExceededException", "RequestLimitExceeded", "Throttling", "ThrottlingException", "TooManyRequestsException"}
)
_UNAVAILABLE_ERRORS = (refusals.HTTPClientError, refusals.ConnectionError, refusals.MetadataRetrievalError)


class AwsKmsKey:
    """One key. Satisfies `SignerBackend`."""

    def __init__(self, settings: AwsKmsSettings) -> None:
        self._settings = settings
        self._arn = ""
        self._resources = AsyncExitStack()
        self._client: Any = None

    async def public(self) -> PublicHalf:
        """Return the public key and the algorithms that the key lacks. Raises SignerError."""
        answer = await self._request("get_public_key", KeyId=self._arn or self._settings.key_id)
        self._arn = str(answer["KeyId"])
        key = _parse_public_key(answer["PublicKey"])
        supported = frozenset(answer.get("SigningAlgorithms", ()))
        lacking = {
            alg: f"AWS KMS does not let this key sign by {_AWS_NAMES[alg]}"
            for alg in algorithms_of(key)
            if _AWS_NAMES[alg] not in supported
        }
        return PublicHalf(key=key, lacking=lacking)

    async def sign(self, alg: Algorithm, message: bytes) -> bytes:
        """Return the signature of a message in the form of JWS. Raises SignerError."""
        message_type = "RAW"
        if len(message) > MAX_RAW_BYTES and alg not in ED25519_NAMES:
            message_type, message = "DIGEST", hashlib.new(f"sha{alg[-3:]}", message).digest()
        answer = await self._request(
            "sign", KeyId=self._arn or self._settings.key_id, Message=message, MessageType=message_type,
            SigningAlgorithm=_AWS_NAMES[alg],
        )  # fmt: skip
        return to_raw_ecdsa(alg, answer["Signature"]) if alg.startswith("ES") else bytes(answer["Signature"])

    async def close(self) -> None:
        """Close all connections."""
        self._client = None
        resources, self._resources = self._resources, AsyncExitStack()
        await resources.aclose()

    async def _request(self, operation: str, **parameters: object) -> dict[str, Any]:
        """Call an operation of AWS's client, and return its response. Raises SignerError."""
        try:
            if self._client is None:
                self._client = await self._open_client()
            answer: dict[str, Any] = await getattr(self._client, operation)(**parameters)
        except refusals.ClientError as error:
            raise _to_signer_error(error.response) from None
        except refusals.BotoCoreError as error:
            result = SignatureResult.AWAY if isinstance(error, _UNAVAILABLE_ERRORS) else SignatureResult.WRONG
            raise SignerError(" ".join(str(error).split())[:_MAX_SHOWN_CHARS], result) from None
        return answer

    async def _open_client(self) -> Any:
        """Return AWS's client, without retries. `close` closes it."""
        session = AioSession(profile=self._settings.profile)
        config = AioConfig(
            retries={"total_max_attempts": 1}, connect_timeout=TIMEOUT_SECONDS, read_timeout=TIMEOUT_SECONDS,
            max_pool_connections=MAX_CONNECTIONS,
        )  # fmt: skip
        client = session.create_client("kms", region_name=self._settings.in_region, config=config)
        return await self._resources.enter_async_context(client)


def _to_signer_error(answer: Mapping[str, Any]) -> SignerError:
    """Return the error in AWS's response: its code and text, and whether it is permanent."""
    error, metadata = answer.get("Error", {}), answer.get("ResponseMetadata", {})
    code, status = str(error.get("Code", "")), metadata.get("HTTPStatusCode", 500)
    message = " ".join(str(error.get("Message", "")).split())[:_MAX_SHOWN_CHARS]
    is_temporary = code in _THROTTLING_CODES or status == 429 or status >= 500
    text = f"AWS KMS answered {code}" + (f": {message}" if message else "")
    return SignerError(text, SignatureResult.AWAY if is_temporary else SignatureResult.WRONG)


def _parse_public_key(der: bytes) -> PublicKey:
    try:
        return load_der_public_key(der)  # type: ignore[return-value]  # the caller refuses other types
    except (ValueError, UnsupportedAlgorithm):
        raise SignerError("the public half from AWS KMS cannot be used", SignatureResult.WRONG) from None
