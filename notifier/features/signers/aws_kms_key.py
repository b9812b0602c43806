"""Signs with a key in AWS KMS, by aiobotocore, which finds and renews credentials in AWS's own way.

| request | |
|---|---|
| `GetPublicKey` | leads from an alias to the key's ARN. An alias can be moved at any time, so the ARN signs |
| `Sign` | `MessageType=RAW` up to 4,096 bytes, where KMS makes the digest; `DIGEST` beyond. ECDSA comes as DER |

The library's own retries are off, and its time limits are far beyond ours: only the 2 s for a signature count.
"""

import hashlib
from collections.abc import Mapping
from contextlib import AsyncExitStack
from types import MappingProxyType
from typing import Any

import botocore.exceptions as refusals
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_der_public_key

from notifier.features.signers.signer_settings import AwsKmsSettings
from notifier.model.client import ED25519_NAMES, Algorithm
from notifier.tokens.jws import PublicKey
from notifier.tokens.published_keys import algorithms_of
from notifier.tokens.signer import PublicHalf, SignatureResult, SignerError, to_raw_ecdsa

MAX_RAW_BYTES = 4096  # bytes of a message that KMS takes
TIMEOUT_SECONDS = 30.0  # after which a request ends whose caller has given up
MAX_CONNECTIONS = 64
_MAX_SHOWN_CHARS = 300  # characters of AWS's text
_NAMES: Mapping[Algorithm, str] = MappingProxyType(
    {
        **{Algorithm(f"RS{size}"): f"RSASSA_PKCS1_V1_5_SHA_{size}" for size in (256, 384, 512)},
        **{Algorithm(f"PS{size}"): f"RSASSA_PSS_SHA_{size}" for size in (256, 384, 512)},
        **{Algorithm(f"ES{size}"): f"ECDSA_SHA_{size}" for size in (256, 384, 512)},
        **dict.fromkeys(ED25519_NAMES, "ED25519_SHA_512"),
    }
)
_THROTTLED = frozenset(
    {"LimitExceededException", "RequestLimitExceeded", "Throttling", "ThrottlingException", "TooManyRequestsException"}
)
_UNAVAILABLE_ERRORS = (refusals.HTTPClientError, refusals.ConnectionError, refusals.MetadataRetrievalError)


class AwsKmsKey:
    """One key."""

    def __init__(self, settings: AwsKmsSettings) -> None:
        self._settings = settings
        self._arn = ""
        self._opened = AsyncExitStack()
        self._client: Any = None

    async def public(self) -> PublicHalf:
        """Fetch the public half. Raises SignerError."""
        named = await self._request("get_public_key", KeyId=self._arn or self._settings.key_id)
        self._arn = str(named["KeyId"])
        key = _public_key(named["PublicKey"])
        offered = frozenset(named.get("SigningAlgorithms", ()))
        lacking = {
            alg: f"AWS KMS does not let this key sign by {_NAMES[alg]}"
            for alg in algorithms_of(key)
            if _NAMES[alg] not in offered
        }
        return PublicHalf(key=key, lacking=lacking)

    async def sign(self, alg: Algorithm, message: bytes) -> bytes:
        """Sign the bytes, and return the signature as JWS has it. Raises SignerError."""
        kind = "RAW"
        if len(message) > MAX_RAW_BYTES and alg not in ED25519_NAMES:
            kind, message = "DIGEST", hashlib.new(f"sha{alg[-3:]}", message).digest()
        answer = await self._request(
            "sign", KeyId=self._arn or self._settings.key_id, Message=message, MessageType=kind,
            SigningAlgorithm=_NAMES[alg],
        )  # fmt: skip
        return to_raw_ecdsa(alg, answer["Signature"]) if alg.startswith("ES") else bytes(answer["Signature"])

    async def close(self) -> None:
        """Close all connections."""
        self._client = None
        opened, self._opened = self._opened, AsyncExitStack()
        await opened.aclose()

    async def _request(self, operation: str, **words: object) -> dict[str, Any]:
        try:
            if self._client is None:
                self._client = await self._new_client()
            answer: dict[str, Any] = await getattr(self._client, operation)(**words)
        except refusals.ClientError as error:
            raise _to_signer_error(error.response) from None
        except refusals.BotoCoreError as error:
            result = SignatureResult.AWAY if isinstance(error, _UNAVAILABLE_ERRORS) else SignatureResult.WRONG
            raise SignerError(" ".join(str(error).split())[:_MAX_SHOWN_CHARS], result) from None
        return answer

    async def _new_client(self) -> Any:
        session = AioSession(profile=self._settings.profile)
        config = AioConfig(
            retries={"total_max_attempts": 1}, connect_timeout=TIMEOUT_SECONDS, read_timeout=TIMEOUT_SECONDS,
            max_pool_connections=MAX_CONNECTIONS,
        )  # fmt: skip
        client = session.create_client("kms", region_name=self._settings.in_region, config=config)
        return await self._opened.enter_async_context(client)


def _to_signer_error(answer: Mapping[str, Any]) -> SignerError:
    """Return the error in AWS's answer: its code, its text, and whether it is permanent."""
    error, about = answer.get("Error", {}), answer.get("ResponseMetadata", {})
    code, status = str(error.get("Code", "")), about.get("HTTPStatusCode", 500)
    words = " ".join(str(error.get("Message", "")).split())[:_MAX_SHOWN_CHARS]
    away = code in _THROTTLED or status == 429 or status >= 500
    text = f"AWS KMS answered {code}{': ' if words else ''}{words}"
    return SignerError(text, SignatureResult.AWAY if away else SignatureResult.WRONG)


def _public_key(der: bytes) -> PublicKey:
    try:
        return load_der_public_key(der)  # type: ignore[return-value]  # the frame judges its kind
    except (ValueError, UnsupportedAlgorithm):
        raise SignerError("the public half from AWS KMS cannot be used", SignatureResult.WRONG) from None
