"""Defines the settings of signing keys: key files, and external keys in an HSM or key service."""

from collections.abc import Mapping
from typing import ClassVar, TypeVar

from pydantic import AwareDatetime, Field

from notifier.model.defaults import SIGNATURE_TIMEOUT_SECONDS
from notifier.model.durations import format_duration
from notifier.settings.choices import exactly_one
from notifier.settings.file_paths import ExistingFile
from notifier.settings.values import Count, FeatureSection, Section

KindT = TypeVar("KindT", bound=Section)

KEY_KINDS = ("file", "pkcs11", "vault", "aws_kms", "azure_key_vault", "google_kms")


class KeySettings(Section):
    """A signing key: RSA, EC or Ed25519. Exactly one place is given."""

    file: ExistingFile | None = None
    """The private key, as PEM or JWK."""
    pkcs11: FeatureSection | None = None
    """A key in a PKCS#11 token."""
    vault: FeatureSection | None = None
    """A key in Vault's transit engine."""
    aws_kms: FeatureSection | None = None
    """A key in AWS KMS."""
    azure_key_vault: FeatureSection | None = None
    """A key in Azure Key Vault."""
    google_kms: FeatureSection | None = None
    """A key in Google Cloud KMS."""
    not_before: AwareDatetime | None = None
    """When it begins to sign. Left out: at once."""
    kid: str | None = Field(None, min_length=1)
    """Left out: the RFC 7638 thumbprint."""

    @property
    def kind(self) -> str:
        """The kind of its signer: `file`, `pkcs11` and so on."""
        return next(kind for kind in KEY_KINDS if getattr(self, kind) is not None)

    def of_kind(self, kind: type[KindT]) -> KindT | None:
        """Return the settings of its signer if they are of this type; otherwise None."""
        settings = getattr(self, self.kind)
        return settings if isinstance(settings, kind) else None

    _check_one_kind = exactly_one(*KEY_KINDS)


class SigningSettings(Section):
    """How keys that are not files are asked for signatures."""

    gone: ClassVar[Mapping[str, str]] = {
        "every": "is gone: it is 5m now",
        "timeout": f"is gone: it is {format_duration(SIGNATURE_TIMEOUT_SECONDS)} now",
    }

    concurrency: Count | None = None
    """Signatures at a time by one key. Left out: 2 for PKCS#11, each a process; 16 elsewhere."""
