"""Build the keys in HSMs, Vault and the key services of clouds from their settings."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, TypeVar

from notifier.configuration.configured_feature import FeaturePart
from notifier.features.signers.pkcs11_session import KeyName, TokenAddress
from notifier.features.signers.pkcs11_token import REQUESTS_PER_PROCESS, Pkcs11Key, Pkcs11Token
from notifier.features.signers.signer_settings import Pkcs11Settings, VaultKeySettings
from notifier.model.client import Algorithm
from notifier.model.registry import Registry
from notifier.model.shared_resources import start_thread
from notifier.settings.service_settings import Settings
from notifier.tokens.signer import PublicHalf, SignerBackend
from notifier.tokens.signers import KeyKind

DEFAULT_PROCESSES = 2  # of a PKCS#11 token
CLOSE_SECONDS = 2.0  # for which `close` waits for a library
_T = TypeVar("_T")


class OwnLoopKey:
    """A key whose library runs in an event loop in a dedicated thread. Satisfies `SignerBackend`.

    The libraries of clouds read files with credentials and tokens in the loop that calls them, at any request.
    """

    def __init__(self, make: Callable[[], SignerBackend]) -> None:
        self._make = make
        self._opened: tuple[asyncio.AbstractEventLoop, SignerBackend] | None = None

    async def public(self) -> PublicHalf:
        """See SignerBackend."""
        return await self._run(lambda backend: backend.public())

    async def sign(self, alg: Algorithm, message: bytes) -> bytes:
        """See SignerBackend."""
        return await self._run(lambda backend: backend.sign(alg, message))

    async def close(self) -> None:
        """Release all resources. If a file hangs, the thread ends when the file answers."""
        opened, self._opened = self._opened, None
        if opened is not None:
            loop, backend = opened
            closing = asyncio.run_coroutine_threadsafe(_close(backend), loop)
            await asyncio.wait({asyncio.wrap_future(closing)}, timeout=CLOSE_SECONDS)

    async def _run(self, request: Callable[[SignerBackend], Coroutine[None, None, _T]]) -> _T:
        if self._opened is None:
            self._opened = asyncio.new_event_loop(), self._make()
            start_thread("files of a key service", partial(_run_until_stopped, self._opened[0]))
        loop, backend = self._opened
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(request(backend), loop))


def _run_until_stopped(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_forever()
    loop.close()


async def _close(backend: SignerBackend) -> None:
    """Close the key, cancel its requests, and stop the running event loop."""
    try:
        await backend.close()
    finally:
        requests = asyncio.all_tasks() - {asyncio.current_task()}
        for request in requests:
            request.cancel()
        await asyncio.gather(*requests, return_exceptions=True)
        asyncio.get_running_loop().call_soon(asyncio.get_running_loop().stop)


def key_kinds() -> Mapping[str, KeyKind]:
    """Return each kind of key by its name in the configuration. Keys in one PKCS#11 token share its processes."""
    tokens: dict[tuple[TokenAddress, int], Pkcs11Token] = {}

    def make_pkcs11(settings: Pkcs11Settings, size: int) -> tuple[SignerBackend, str]:
        """Return the key and its name. `size`: the number of processes."""
        address = TokenAddress(module=settings.module, token=settings.token, pin_file=settings.pin_file)
        token = tokens.setdefault((address, size), Pkcs11Token(address, size))
        key_name = " ".join(name for name in (settings.label, settings.id) if name is not None)
        return Pkcs11Key(token, KeyName(label=settings.label, id=settings.id)), f"{settings.token}/{key_name}"

    azure = ("azure.identity", "azure.keyvault.keys")
    return {
        "pkcs11": KeyKind(
            make=make_pkcs11,
            extra="pkcs11",
            libraries=("pkcs11",),
            concurrency=DEFAULT_PROCESSES,
            requests_per_signature=REQUESTS_PER_PROCESS,
        ),
        "vault": KeyKind(make=_late_factory("vault_key:VaultKey")),
        "aws_kms": KeyKind(
            make=_late_factory("aws_kms_key:AwsKmsKey", own_loop=True), extra="aws", libraries=("aiobotocore",)
        ),
        "azure_key_vault": KeyKind(
            make=_late_factory("azure_key:AzureKey", own_loop=True), extra="azure", libraries=azure
        ),
        "google_kms": KeyKind(
            make=_late_factory("google_kms_key:GoogleKmsKey"), extra="google", libraries=("google.cloud.kms_v1",)
        ),
    }


def read_signers(settings: Settings, _registry: Registry, _invalid_sections: frozenset[str]) -> FeaturePart:
    """Return the files with credentials for signers."""
    return FeaturePart(secrets=dict(_secrets_of_keys(settings)))


def _secrets_of_keys(settings: Settings) -> Iterator[tuple[str, Path | None]]:
    """Yield each setting of a file with credentials for a signer, and its value: the path, or None.

    The token file of a Kubernetes pod is not among them, since Kubernetes provides it.
    """
    for iss, issuer in settings.issuers.items():
        for index, key in enumerate(issuer.keys):
            path = f'issuers["{iss}"].keys[{index}]'
            pkcs11, vault = key.of_kind(Pkcs11Settings), key.of_kind(VaultKeySettings)
            if pkcs11 is not None:
                yield f"{path}.pkcs11.pin_file", pkcs11.pin_file
            if vault is not None:
                yield f"{path}.vault.token_file", vault.token_file
                yield f"{path}.vault.approle.secret_id_file", getattr(vault.approle, "secret_id_file", None)
                yield f"{path}.vault.tls.key_file", getattr(vault.tls, "key_file", None)


def _late_factory(backend: str, *, own_loop: bool = False) -> Callable[[Any, int], tuple[SignerBackend, str]]:
    """Return the factory of a backend (`module:Class`). It imports the backend when called, as most need an extra.

    `own_loop`: the backend's library reads files in the event loop that calls it.
    """

    def make(settings: Any, _concurrency: int) -> tuple[SignerBackend, str]:
        build = partial(resolve_name(f"notifier.features.signers.{backend}"), settings)
        return (OwnLoopKey(build) if own_loop else build()), settings.key_name

    return make
