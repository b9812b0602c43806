"""Build the keys in HSMs, Vault and the key services of clouds from their settings."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from notifier.configuration.configured_feature import FeaturePart
from notifier.features.signers.pkcs11_session import KeyName, TokenAddress
from notifier.features.signers.pkcs11_token import REQUESTS_PER_PROCESS, Pkcs11Key, Pkcs11Token
from notifier.features.signers.signer_settings import Pkcs11Settings, VaultKeySettings
from notifier.model.registry import Registry
from notifier.settings.service_settings import Settings
from notifier.tokens.signer import SignerBackend
from notifier.tokens.signers import KeyKind

DEFAULT_PROCESSES = 2  # of a PKCS#11 token


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
        "aws_kms": KeyKind(make=_late_factory("aws_kms_key:AwsKmsKey"), extra="aws", libraries=("aiobotocore",)),
        "azure_key_vault": KeyKind(make=_late_factory("azure_key:AzureKey"), extra="azure", libraries=azure),
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


def _late_factory(backend: str) -> Callable[[Any, int], tuple[SignerBackend, str]]:
    """Return the factory of a backend (`module:Class`). It imports the backend when called, as most need an extra."""

    def make(settings: Any, _concurrency: int) -> tuple[SignerBackend, str]:
        backend_class = resolve_name(f"notifier.features.signers.{backend}")
        return backend_class(settings), settings.key_name

    return make
