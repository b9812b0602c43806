"""Makes the keys of Vault and of the clouds' key services. Each is imported only where it is used: some are extras."""

from collections.abc import Mapping
from importlib.util import find_spec
from types import MappingProxyType

from notifier.settings.key_settings import KeySettings
from notifier.tokens.key_place import SigningPlace

_EXTRAS: Mapping[str, tuple[str, tuple[str, ...]]] = MappingProxyType(
    {
        "pkcs11": ("pkcs11", ("pkcs11",)),
        "aws_kms": ("aws", ("aiobotocore",)),
        "azure_key_vault": ("azure", ("azure.identity", "azure.keyvault.keys")),
        "google_kms": ("google", ("google.cloud.kms_v1",)),
    }
)
"""By place: the extra, and what it brings."""


def _installed(library: str) -> bool:
    try:
        return find_spec(library) is not None
    except ModuleNotFoundError:  # nor what it is a part of
        return False


def missing_extra(kind: str) -> str | None:
    """What to install for keys in places of this kind. None if nothing is missing."""
    extra, libraries = _EXTRAS.get(kind, ("", ()))
    if all(map(_installed, libraries)):
        return None
    return f"its library is not installed: pip install 'notifier[{extra}]' (the image has it)"


def key_in_service(settings: KeySettings) -> tuple[SigningPlace, str]:
    """The place of a key that is in none of our files and tokens, and what the key is called there.

    Its library is installed: `missing_extra` was asked.
    """
    if settings.vault is not None:
        from notifier.features.key_places.vault_key import VaultKey  # noqa: PLC0415  aiohttp takes 0.1 s

        return VaultKey(settings.vault), settings.vault.called
    if settings.aws_kms is not None:
        from notifier.features.key_places.aws_kms_key import AwsKmsKey  # noqa: PLC0415  an extra

        return AwsKmsKey(settings.aws_kms), settings.aws_kms.called
    if settings.azure_key_vault is not None:
        from notifier.features.key_places.azure_key import AzureKey  # noqa: PLC0415  an extra

        return AzureKey(settings.azure_key_vault), settings.azure_key_vault.called
    assert settings.google_kms is not None  # a key has one place
    from notifier.features.key_places.google_kms_key import GoogleKmsKey  # noqa: PLC0415  an extra

    return GoogleKmsKey(settings.google_kms), settings.google_kms.called
