"""Makes the keys of Vault and of the clouds' key services. Each is imported only where it is used: some are extras."""

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from types import MappingProxyType

from notifier.adapters.signers.key_place import PlaceFault, PublicHalf, SigningPlace
from notifier.domain.client import Algorithm
from notifier.domain.errors import Mistake
from notifier.domain.signature import SignatureResult
from notifier.settings.key_settings import KeySettings

_EXTRAS: Mapping[str, tuple[str, tuple[str, ...]]] = MappingProxyType(
    {
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


def missing_extra(kind: str, installed: Callable[[str], bool] = _installed) -> str | None:
    """What to install for keys in places of this kind. None if nothing is missing."""
    extra, libraries = _EXTRAS.get(kind, ("", ()))
    if all(map(installed, libraries)):
        return None
    return f"its library is not installed: pip install 'notifier[{extra}]' (the image has it)"


def library_mistakes(
    keys: Mapping[str, Sequence[KeySettings | None]], installed: Callable[[str], bool] = _installed
) -> list[Mistake]:
    """The keys of each issuer whose library is not installed."""
    named = (
        (key.place, f'issuers["{iss}"].keys[{nth}].{key.place}')
        for iss, of_issuer in keys.items()
        for nth, key in enumerate(of_issuer)
        if key is not None
    )
    return [Mistake(where, text) for kind, where in named if (text := missing_extra(kind, installed)) is not None]


def key_in_service(settings: KeySettings, installed: Callable[[str], bool] = _installed) -> tuple[SigningPlace, str]:
    """The place of a key that is in none of our files and tokens, and what the key is called there."""
    if (missing := missing_extra(settings.place, installed)) is not None:
        return UnreadyKey(missing), getattr(settings, settings.place).called
    if settings.vault is not None:
        from notifier.adapters.signers.vault_key import VaultKey  # noqa: PLC0415  aiohttp takes 0.1 s

        return VaultKey(settings.vault), settings.vault.called
    if settings.aws_kms is not None:
        from notifier.adapters.signers.aws_kms_key import AwsKmsKey  # noqa: PLC0415  an extra

        return AwsKmsKey(settings.aws_kms), settings.aws_kms.called
    if settings.azure_key_vault is not None:
        from notifier.adapters.signers.azure_key import AzureKey  # noqa: PLC0415  an extra

        return AzureKey(settings.azure_key_vault), settings.azure_key_vault.called
    assert settings.google_kms is not None  # a key has one place
    from notifier.adapters.signers.google_kms_key import GoogleKmsKey  # noqa: PLC0415  an extra

    return GoogleKmsKey(settings.google_kms), settings.google_kms.called


class UnreadyKey:
    """A key whose library is not installed: whoever asks is told so."""

    def __init__(self, missing: str) -> None:
        self._missing = missing

    async def public(self) -> PublicHalf:
        """Raise PlaceFault."""
        raise PlaceFault(self._missing, SignatureResult.WRONG)

    async def sign(self, _alg: Algorithm, _message: bytes) -> bytes:
        """Raise PlaceFault."""
        raise PlaceFault(self._missing, SignatureResult.WRONG)

    async def close(self) -> None:
        """Nothing is held."""
