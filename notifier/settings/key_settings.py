"""Settings of the keys that sign: where each key is, and how keys that are not files are asked."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Self

from pydantic import AwareDatetime, Field, model_validator

from notifier.settings.feature_settings import AwsKmsSettings, AzureKeySettings, GoogleKmsSettings, VaultKeySettings
from notifier.settings.secret_text import SecretPath
from notifier.settings.values import Count, ExistingFile, Lasting, Section

PLACES = ("file", "pkcs11", "vault", "aws_kms", "azure_key_vault", "google_kms")


class Pkcs11Settings(Section):
    """A key in a PKCS#11 token: an HSM, a smart card, SoftHSM."""

    module: ExistingFile
    """The vendor's library, such as /usr/lib/softhsm/libsofthsm2.so."""
    token: str = Field(min_length=1, max_length=32)
    """The label of the token."""
    label: str | None = Field(None, min_length=1)
    """The label of the private key."""
    id: str | None = Field(None, pattern=r"^([0-9A-Fa-f]{2})+$")
    """Its id, as hexadecimal. Needed if a label has several keys."""
    pin_file: SecretPath
    """A file with the PIN of the token's user."""

    @model_validator(mode="after")
    def _named(self) -> Self:
        if self.label is None and self.id is None:
            raise ValueError("needs label or id, which name the key")
        return self


class KeySettings(Section):
    """A signing key: RSA, EC or Ed25519. Exactly one place is given."""

    file: ExistingFile | None = None
    """The private key, as PEM or JWK."""
    pkcs11: Pkcs11Settings | None = None
    """A key in a PKCS#11 token."""
    vault: VaultKeySettings | None = None
    """A key in Vault's transit engine."""
    aws_kms: AwsKmsSettings | None = None
    """A key in AWS KMS."""
    azure_key_vault: AzureKeySettings | None = None
    """A key in Azure Key Vault."""
    google_kms: GoogleKmsSettings | None = None
    """A key in Google Cloud KMS."""
    not_before: AwareDatetime | None = None
    """When it begins to sign. Left out: at once."""
    kid: str | None = Field(None, min_length=1)
    """Left out: the RFC 7638 thumbprint."""

    @property
    def place(self) -> str:
        """Which place it is in."""
        return next(place for place in PLACES if getattr(self, place) is not None)

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        places = [place for place in PLACES if getattr(self, place) is not None]
        if len(places) != 1:
            has = f"; it has {' and '.join(places)}" if places else ""
            raise ValueError(f"needs one of {', '.join(PLACES)}{has}")
        return self


class SigningSettings(Section):
    """How keys that are not files are asked for signatures."""

    gone: ClassVar[Mapping[str, str]] = {"every": "is gone: it is 5m now"}

    timeout: Annotated[float, Lasting(above=0.0, most=30.0)] = 2.0
    """Time for one signature."""
    concurrency: Count | None = None
    """Signatures at a time by one key. Left out: 2 for PKCS#11, each a process; 16 elsewhere."""
