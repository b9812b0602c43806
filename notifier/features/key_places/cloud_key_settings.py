"""Keys in the key services of clouds: AWS KMS, Azure Key Vault, Google Cloud KMS."""

import re
from collections.abc import Mapping
from typing import Annotated, ClassVar, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from notifier.settings.values import Section, WebAddress

_ARN = re.compile(r"^arn:[a-z-]+:kms:([a-z0-9-]+):[0-9]{12}:(key|alias)/[A-Za-z0-9/_-]+$")
_GOOGLE_NAME = re.compile(
    r"^projects/[^/\s]+/locations/[^/\s]+/keyRings/[^/\s]+/cryptoKeys/[^/\s]+/cryptoKeyVersions/[1-9][0-9]*$"
)
_KEY_ID = re.compile(r"^((mrk-)?[0-9a-f-]{32,36}|alias/[A-Za-z0-9/_-]+)$")


def _key_id(value: str) -> str:
    if _ARN.match(value) is None and _KEY_ID.match(value) is None:
        raise ValueError("must be the ARN or the id of a key, or an alias such as alias/logout")
    return value


def _azure_vault(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme != "https" or parts.path not in ("", "/") or "?" in url or "@" in parts.netloc:
        raise ValueError("must be the address of the vault alone, such as https://example.vault.azure.net")
    return url.rstrip("/")


def _google_name(name: str) -> str:
    if _GOOGLE_NAME.match(name) is None:
        text = "projects/P/locations/L/keyRings/R/cryptoKeys/K/cryptoKeyVersions/1"
        raise ValueError(f"must be the name of one version of a key: {text}")
    return name


class AwsKmsSettings(Section):
    """A key in AWS KMS. Credentials are found as AWS's own tools find them."""

    gone: ClassVar[Mapping[str, str]] = {
        "endpoint": "is gone: set the variable AWS_ENDPOINT_URL_KMS, or endpoint_url in AWS's configuration file"
    }

    key_id: Annotated[str, AfterValidator(_key_id)]
    """The key's ARN or id. An alias is followed at the start alone."""
    region: str | None = Field(None, pattern=r"^[a-z]+(-[a-z]+)+-[0-9]+$")
    """Such as eu-central-1. Left out: the ARN's."""
    profile: str | None = Field(None, min_length=1)
    """A profile of AWS's files. Left out: AWS_PROFILE."""

    @property
    def in_region(self) -> str:
        """The region, given or the ARN's. Empty if there is none."""
        arn = _ARN.match(self.key_id)
        return self.region or (arn[1] if arn is not None else "")

    @property
    def called(self) -> str:
        """The key among others."""
        return f"{self.key_id} in {self.in_region}"

    @model_validator(mode="after")
    def _has_region(self) -> Self:
        if not self.in_region:
            raise ValueError("needs region, unless key_id is an ARN")
        return self


class AzureKeySettings(Section):
    """One version of a key in Azure Key Vault, or a managed HSM. Credentials are found as Azure's own tools do."""

    vault_url: Annotated[WebAddress, AfterValidator(_azure_vault)]
    """The vault's address, such as https://example.vault.azure.net."""
    key: str = Field(pattern=r"^[0-9A-Za-z-]{1,127}$")
    """The key's name."""
    version: str = Field(pattern=r"^[0-9a-f]{32}$")
    """The key's version. A newer one gets an entry of its own."""

    @property
    def called(self) -> str:
        """The key among others."""
        return f"{self.vault_url}/keys/{self.key}/{self.version}"


class GoogleKmsSettings(Section):
    """One version of a key in Google Cloud KMS. Credentials are found as Google's own tools find them."""

    name: Annotated[str, AfterValidator(_google_name)]
    """Its resource name, projects/…/cryptoKeyVersions/1. A newer version gets an entry of its own."""

    @property
    def called(self) -> str:
        """The key among others."""
        return self.name
