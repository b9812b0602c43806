"""Makes the keys in HSMs, Vault and the clouds' key services."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from notifier.features.signers.pkcs11_session import KeyName, TokenAddress
from notifier.features.signers.pkcs11_token import REQUESTS_PER_PROCESS, Pkcs11Key, Pkcs11Token
from notifier.features.signers.signer_settings import (
    Pkcs11Settings,
    VaultKeySettings,
)
from notifier.settings.service_settings import Settings
from notifier.tokens.signer import SignerBackend
from notifier.tokens.signers import KeyKind

DEFAULT_PROCESSES = 2  # processes of a PKCS#11 token


def key_kinds() -> Mapping[str, KeyKind]:
    """Return each kind of key by its name in the configuration. Keys in one PKCS#11 token share its processes."""
    tokens: dict[tuple[TokenAddress, int], Pkcs11Token] = {}

    def make_pkcs11(settings: Pkcs11Settings, size: int) -> tuple[SignerBackend, str]:
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
        "vault": KeyKind(make=_make("vault_key:VaultKey")),
        "aws_kms": KeyKind(make=_make("aws_kms_key:AwsKmsKey"), extra="aws", libraries=("aiobotocore",)),
        "azure_key_vault": KeyKind(make=_make("azure_key:AzureKey"), extra="azure", libraries=azure),
        "google_kms": KeyKind(
            make=_make("google_kms_key:GoogleKmsKey"), extra="google", libraries=("google.cloud.kms_v1",)
        ),
    }


def secrets_of_keys(settings: Settings) -> Iterator[tuple[str, Path | None]]:
    """Yield the settings of files with which notifier logs in to signers, and the files; None if not set.

    A pod's token is not among them: Kubernetes provides it.
    """
    for iss, issuer in settings.issuers.items():
        for nth, key in enumerate(issuer.keys):
            place = f'issuers["{iss}"].keys[{nth}]'
            if (pkcs11 := key.of_kind(Pkcs11Settings)) is not None:
                yield f"{place}.pkcs11.pin_file", pkcs11.pin_file
            if (vault := key.of_kind(VaultKeySettings)) is not None:
                yield f"{place}.vault.token_file", vault.token_file
                yield f"{place}.vault.approle.secret_id_file", getattr(vault.approle, "secret_id_file", None)
                yield f"{place}.vault.tls.key_file", getattr(vault.tls, "key_file", None)


def _make(backend: str) -> Callable[[Any, int], tuple[SignerBackend, str]]:
    """Return the factory of a backend, named as `module:Class`, that is imported when used: most need an extra."""
    return lambda settings, _: (resolve_name(f"notifier.features.signers.{backend}")(settings), settings.key_name)
