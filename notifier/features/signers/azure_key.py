"""Signs with a key in Azure Key Vault or a managed HSM, by Microsoft's client, which finds and renews credentials.

| request | |
|---|---|
| `GET /keys/NAME/VERSION` | the public half, and what the key may be used for |
| `POST /keys/NAME/VERSION/sign` | signs a digest; ECDSA comes as r‖s. Without the version the newest would sign |

The library would wait for `Retry-After` and try again, past our time limit. So its retries are off.
"""

import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

import aiohttp
from azure.core import exceptions as refusals
from azure.core.pipeline.transport import AioHttpTransport
from azure.identity.aio import DefaultAzureCredential
from azure.keyvault.keys import KeyVaultKey
from azure.keyvault.keys.aio import KeyClient
from azure.keyvault.keys.crypto import SignatureAlgorithm
from azure.keyvault.keys.crypto.aio import CryptographyClient
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1, SECP521R1, EllipticCurvePublicNumbers
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers

from notifier.features.signers.signer_settings import AzureKeySettings
from notifier.model.client import Algorithm, TlsFiles
from notifier.model.outcome import read_retry_after
from notifier.network.http.pem_files import build_client_context
from notifier.tokens.jws import PublicKey
from notifier.tokens.signer import PublicHalf, SignatureResult, SignerError

_MAX_SHOWN_CHARS = 300  # characters of Azure's text
_CURVES = MappingProxyType({"P-256": SECP256R1(), "P-384": SECP384R1(), "P-521": SECP521R1()})
_Answer = TypeVar("_Answer")


class AzureKey:
    """One version of a key. `further`: additional arguments for Microsoft's clients."""

    def __init__(
        self,
        settings: AzureKeySettings,
        further: Mapping[str, Any] = MappingProxyType({}),
        files: TlsFiles = TlsFiles(),  # noqa: B008  it is frozen
    ) -> None:
        self._settings = settings
        self._files = files
        self._further = {"retry_total": 0, **further}
        self._credential: DefaultAzureCredential | None = None
        self._keys: KeyClient | None = None
        self._signer: CryptographyClient | None = None
        self._session: aiohttp.ClientSession | None = None

    async def public(self) -> PublicHalf:
        """Fetch the public half. Raises SignerError."""
        settings = self._settings
        vault_key = await self._request(lambda: self._opened().get_key(settings.key, settings.version))
        if "sign" not in (vault_key.key_operations or ()):
            raise _wrong_key_error(f"the key {settings.key} may not be used to sign: its key_ops lack it")
        if self._signer is None:  # the version stays, and so does the client
            self._signer = CryptographyClient(
                vault_key, self._credentials(), transport=self._transport(), **self._further
            )
        made_at = vault_key.properties.created_on
        return PublicHalf(key=_public_key(vault_key), made_at=None if made_at is None else made_at.timestamp())

    async def sign(self, alg: Algorithm, message: bytes) -> bytes:
        """Sign the bytes, and return the signature as JWS has it. Raises SignerError."""
        signer = self._signer
        if signer is None:
            await self.public()
            signer = self._signer
        assert signer is not None  # the public half came with it
        digest = hashlib.new(f"sha{alg[-3:]}", message).digest()
        name = SignatureAlgorithm(alg.value)
        answer = await self._request(lambda: signer.sign(name, digest))
        return bytes(answer.signature)

    async def close(self) -> None:
        """Close its connections."""
        opened = (self._signer, self._keys, self._credential)
        session, self._session = self._session, None
        self._signer = self._keys = self._credential = None
        for client in opened:
            if client is not None:
                await client.close()
        if session is not None:
            await session.close()

    def _opened(self) -> KeyClient:
        if self._keys is None:
            self._keys = KeyClient(
                self._settings.vault_url, self._credentials(), transport=self._transport(), **self._further
            )
        return self._keys

    def _credentials(self) -> DefaultAzureCredential:
        if self._credential is None:
            self._credential = DefaultAzureCredential(transport=self._transport(), **self._further)
        return self._credential

    def _transport(self) -> AioHttpTransport:
        """Return Microsoft's transport over a session that judges certificates as all connections do."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=build_client_context(self._files)),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=True,
                auto_decompress=False,
            )
        return AioHttpTransport(session=self._session, session_owner=False)

    async def _request(self, request: Callable[[], Awaitable[_Answer]]) -> _Answer:
        try:
            return await request()
        except refusals.ClientAuthenticationError as error:
            raise _wrong_key_error(f"Azure lets nobody in: {_words(error)}") from None
        except refusals.HttpResponseError as error:
            raise _to_signer_error(error) from None
        except refusals.AzureError as error:
            raise SignerError(f"{self._settings.vault_url}: {_words(error)}") from None
        except ValueError as error:  # such as an address that the vault does not accept as its own
            raise _wrong_key_error(f"{self._settings.vault_url}: {_words(error)}") from None


def _wrong_key_error(text: str) -> SignerError:
    return SignerError(text, SignatureResult.WRONG)


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:_MAX_SHOWN_CHARS]


def _to_signer_error(error: refusals.HttpResponseError) -> SignerError:
    """Return the error in Azure's answer: its code, its text, and whether it is permanent."""
    status = error.status_code or 500
    code = "" if error.error is None or not error.error.code else f" {error.error.code}"
    detail = "" if error.error is None or not error.error.message else f": {error.error.message}"
    answer: Any = error.response
    headers: Any = {} if answer is None else answer.headers
    wait = read_retry_after(headers.get("Retry-After"), headers.get("Date"), time.time())
    away = status == 429 or status >= 500 or status == 408
    text = " ".join(f"Azure answered {status}{code}{detail}".split())[:_MAX_SHOWN_CHARS]
    return SignerError(text, SignatureResult.AWAY if away else SignatureResult.WRONG, wait)


def _public_key(vault_key: KeyVaultKey) -> PublicKey:
    key: Any = vault_key.key
    kind = str(getattr(vault_key.key_type, "value", vault_key.key_type))  # an enum, if it is known
    try:
        if kind.startswith("RSA"):
            return RSAPublicNumbers(int.from_bytes(key.e), int.from_bytes(key.n)).public_key()
        if kind.startswith("EC") and key.crv in _CURVES:
            x, y = int.from_bytes(key.x), int.from_bytes(key.y)
            return EllipticCurvePublicNumbers(x, y, _CURVES[key.crv]).public_key()
    except ValueError:
        raise _wrong_key_error("the public half from Azure is damaged") from None
    raise _wrong_key_error(f"a key of type {kind} cannot be used: RSA, P-256, P-384 or P-521 is needed")
