"""Makes the keys in HSMs, Vault and the clouds' key services. Modules that need an extra are imported when used."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from notifier.features.signers.pkcs11_session import KeyName, TokenAddress
from notifier.features.signers.pkcs11_token import REQUESTS_PER_PROCESS, Pkcs11Key, Pkcs11Token
from notifier.features.signers.signer_settings import (
    AwsKmsSettings,
    AzureKeySettings,
    GoogleKmsSettings,
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
        "vault": KeyKind(make=_make_vault),
        "aws_kms": KeyKind(make=_make_aws, extra="aws", libraries=("aiobotocore",)),
        "azure_key_vault": KeyKind(make=_make_azure, extra="azure", libraries=azure),
        "google_kms": KeyKind(make=_make_google, extra="google", libraries=("google.cloud.kms_v1",)),
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


def _make_vault(settings: VaultKeySettings, _concurrency: int) -> tuple[SignerBackend, str]:
    from notifier.features.signers.vault_key import VaultKey  # noqa: PLC0415  aiohttp takes 0.1 s

    return VaultKey(settings), settings.called


def _make_aws(settings: AwsKmsSettings, _concurrency: int) -> tuple[SignerBackend, str]:
    from notifier.features.signers.aws_kms_key import AwsKmsKey  # noqa: PLC0415  an extra

    return AwsKmsKey(settings), settings.called


def _make_azure(settings: AzureKeySettings, _concurrency: int) -> tuple[SignerBackend, str]:
    from notifier.features.signers.azure_key import AzureKey  # noqa: PLC0415  an extra

    return AzureKey(settings), settings.called


def _make_google(settings: GoogleKmsSettings, _concurrency: int) -> tuple[SignerBackend, str]:
    from notifier.features.signers.google_kms_key import GoogleKmsKey  # noqa: PLC0415  an extra

    return GoogleKmsKey(settings), settings.called
