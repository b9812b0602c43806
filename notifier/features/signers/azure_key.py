"""The signer `azure_key_vault`: sign with a key in Azure Key Vault or a managed HSM, by Microsoft's client.

The client obtains and renews credentials. `GET /keys/NAME/VERSION` returns the public key and its permitted operations.
`POST /keys/NAME/VERSION/sign` signs a digest; an ECDSA signature is r‖s. The client's retries are off, since it would
wait for `Retry-After` beyond the caller's time limit.
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

_MAX_SHOWN_CHARS = 300  # of Azure's error text
_CURVES = MappingProxyType({"P-256": SECP256R1(), "P-384": SECP384R1(), "P-521": SECP521R1()})
_Answer = TypeVar("_Answer")


class AzureKey:
    """One version of a key. Satisfies `SignerBackend`. `client_options`: arguments for Microsoft's clients."""

    def __init__(
        self,
        settings: AzureKeySettings,
        client_options: Mapping[str, Any] = MappingProxyType({}),
        files: TlsFiles = TlsFiles(),  # noqa: B008  it is frozen
    ) -> None:
        self._settings = settings
        self._files = files
        self._client_options = {"retry_total": 0, **client_options}
        self._credential: DefaultAzureCredential | None = None
        self._key_client: KeyClient | None = None
        self._signing_client: CryptographyClient | None = None
        self._session: aiohttp.ClientSession | None = None

    async def public(self) -> PublicHalf:
        """Return the public key of the version, and when it was made. Raises SignerError."""
        settings = self._settings
        vault_key = await self._request(lambda: self._open_key_client().get_key(settings.key, settings.version))
        if "sign" not in (vault_key.key_operations or ()):
            raise _wrong_key_error(f"the key {settings.key} may not be used to sign: its key_ops lack it")
        if self._signing_client is None:  # it is for this version only
            self._signing_client = CryptographyClient(
                vault_key, self._open_credential(), transport=self._build_transport(), **self._client_options
            )
        made_at = vault_key.properties.created_on
        return PublicHalf(key=_to_public_key(vault_key), made_at=None if made_at is None else made_at.timestamp())

    async def sign(self, alg: Algorithm, message: bytes) -> bytes:
        """Return the signature of a message in the form of JWS. Raises SignerError."""
        if self._signing_client is None:
            await self.public()
        client = self._signing_client
        assert client is not None, "public() has opened it"
        digest = hashlib.new(f"sha{alg[-3:]}", message).digest()
        name = SignatureAlgorithm(alg.value)
        answer = await self._request(lambda: client.sign(name, digest))
        return bytes(answer.signature)

    async def close(self) -> None:
        """Close the connections."""
        clients = (self._signing_client, self._key_client, self._credential)
        session, self._session = self._session, None
        self._signing_client = self._key_client = self._credential = None
        for client in clients:
            if client is not None:
                await client.close()
        if session is not None:
            await session.close()

    def _open_key_client(self) -> KeyClient:
        """Return Microsoft's client for the vault's keys, which is opened once."""
        if self._key_client is None:
            self._key_client = KeyClient(
                self._settings.vault_url,
                self._open_credential(),
                transport=self._build_transport(),
                **self._client_options,
            )
        return self._key_client

    def _open_credential(self) -> DefaultAzureCredential:
        if self._credential is None:
            self._credential = DefaultAzureCredential(transport=self._build_transport(), **self._client_options)
        return self._credential

    def _build_transport(self) -> AioHttpTransport:
        """Return Microsoft's transport over a session that verifies certificates as other connections do."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=build_client_context(self._files), limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=True,
                auto_decompress=False,
            )
        return AioHttpTransport(session=self._session, session_owner=False)

    async def _request(self, request: Callable[[], Awaitable[_Answer]]) -> _Answer:
        """Return the response to a request of Microsoft's client. Raises SignerError."""
        try:
            return await request()
        except refusals.ClientAuthenticationError as error:
            raise _wrong_key_error(f"Azure lets nobody in: {_shorten(error)}") from None
        except refusals.HttpResponseError as error:
            raise _to_signer_error(error) from None
        except refusals.AzureError as error:
            raise SignerError(f"{self._settings.vault_url}: {_shorten(error)}") from None
        except ValueError as error:  # such as a vault_url that is not the vault's
            raise _wrong_key_error(f"{self._settings.vault_url}: {_shorten(error)}") from None


def _wrong_key_error(text: str) -> SignerError:
    return SignerError(text, SignatureResult.WRONG)


def _shorten(error: Exception | str) -> str:
    """Return the start of an error's text on one line."""
    return " ".join(str(error).split())[:_MAX_SHOWN_CHARS]


def _to_signer_error(error: refusals.HttpResponseError) -> SignerError:
    """Return the error in Azure's response: its code and text, and whether it is permanent."""
    status = error.status_code or 500
    code = "" if error.error is None or not error.error.code else f" {error.error.code}"
    detail = "" if error.error is None or not error.error.message else f": {error.error.message}"
    response: Any = error.response
    headers: Any = {} if response is None else response.headers
    wait = read_retry_after(headers.get("Retry-After"), headers.get("Date"), time.time())
    result = SignatureResult.AWAY if status in (408, 429) or status >= 500 else SignatureResult.WRONG
    return SignerError(_shorten(f"Azure answered {status}{code}{detail}"), result, wait)


def _to_public_key(vault_key: KeyVaultKey) -> PublicKey:
    """Return the public key. Raises SignerError for an unsupported type."""
    key: Any = vault_key.key
    kind = str(getattr(vault_key.key_type, "value", vault_key.key_type))  # an enum only for known types
    try:
        if kind.startswith("RSA"):
            return RSAPublicNumbers(int.from_bytes(key.e), int.from_bytes(key.n)).public_key()
        if kind.startswith("EC") and key.crv in _CURVES:
            x, y = int.from_bytes(key.x), int.from_bytes(key.y)
            return EllipticCurvePublicNumbers(x, y, _CURVES[key.crv]).public_key()
    except ValueError:
        raise _wrong_key_error("the public half from Azure is damaged") from None
    raise _wrong_key_error(f"a key of type {kind} cannot be used: RSA, P-256, P-384 or P-521 is needed")
