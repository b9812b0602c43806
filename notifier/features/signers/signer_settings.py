"""The settings of keys in PKCS#11 tokens (HSMs), AWS KMS, Azure Key Vault, Google Cloud KMS and Vault."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from notifier.settings.choices import exactly_one
from notifier.settings.file_paths import ExistingFile
from notifier.settings.policies import TlsSettings
from notifier.settings.remote_server import server_address
from notifier.settings.secret_text import SecretPath
from notifier.settings.values import Count, Section, WebAddress, is_in_clear


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
    def _check_key_name(self) -> Self:
        if self.label is None and self.id is None:
            raise ValueError("needs label or id, which name the key")
        return self


_ARN = re.compile(r"^arn:[a-z-]+:kms:([a-z0-9-]+):[0-9]{12}:(key|alias)/[A-Za-z0-9/_-]+$")
_GOOGLE_NAME = re.compile(
    r"^projects/[^/\s]+/locations/[^/\s]+/keyRings/[^/\s]+/cryptoKeys/[^/\s]+/cryptoKeyVersions/[1-9][0-9]*$"
)
_KEY_ID = re.compile(r"^((mrk-)?[0-9a-f-]{32,36}|alias/[A-Za-z0-9/_-]+)$")


def _check_aws_key_id(value: str) -> str:
    if _ARN.match(value) is None and _KEY_ID.match(value) is None:
        raise ValueError("must be the ARN or the id of a key, or an alias such as alias/logout")
    return value


def _check_vault_url(url: str) -> str:
    parts = urlsplit(url)
    is_bare = parts.path in ("", "/") and "?" not in url and "@" not in parts.netloc
    if parts.scheme != "https" or not is_bare:
        raise ValueError("must be the address of the vault alone, such as https://example.vault.azure.net")
    return url.rstrip("/")


def _check_google_name(name: str) -> str:
    if _GOOGLE_NAME.match(name) is None:
        example = "projects/P/locations/L/keyRings/R/cryptoKeys/K/cryptoKeyVersions/1"
        raise ValueError(f"must be the name of one version of a key: {example}")
    return name


class AwsKmsSettings(Section):
    """A key in AWS KMS. Credentials are found as AWS's own tools find them."""

    gone: ClassVar[Mapping[str, str]] = {
        "endpoint": "is gone: set the variable AWS_ENDPOINT_URL_KMS, or endpoint_url in AWS's configuration file"
    }

    key_id: Annotated[str, AfterValidator(_check_aws_key_id)]
    """The key's ARN or id. An alias is followed at the start alone."""
    region: str | None = Field(None, pattern=r"^[a-z]+(-[a-z]+)+-[0-9]+$")
    """Such as eu-central-1. Left out: the ARN's."""
    profile: str | None = Field(None, min_length=1)
    """A profile of AWS's files. Left out: AWS_PROFILE."""

    @property
    def in_region(self) -> str:
        """Return the configured region, otherwise that of the ARN; empty without both."""
        if self.region is not None:
            return self.region
        arn = _ARN.match(self.key_id)
        return "" if arn is None else arn[1]

    @property
    def key_name(self) -> str:
        """Return the key's name for logs and errors."""
        return f"{self.key_id} in {self.in_region}"

    @model_validator(mode="after")
    def _check_region(self) -> Self:
        if not self.in_region:
            raise ValueError("needs region, unless key_id is an ARN")
        return self


class AzureKeySettings(Section):
    """One version of a key in Azure Key Vault, or a managed HSM. Credentials are found as Azure's own tools do."""

    vault_url: Annotated[WebAddress, AfterValidator(_check_vault_url)]
    """The vault's address, such as https://example.vault.azure.net."""
    key: str = Field(pattern=r"^[0-9A-Za-z-]{1,127}$")
    """The key's name."""
    version: str = Field(pattern=r"^[0-9a-f]{32}$")
    """The key's version. A newer one gets an entry of its own."""

    @property
    def key_name(self) -> str:
        """Return the key's name for logs and errors."""
        return f"{self.vault_url}/keys/{self.key}/{self.version}"


class GoogleKmsSettings(Section):
    """One version of a key in Google Cloud KMS. Credentials are found as Google's own tools find them."""

    name: Annotated[str, AfterValidator(_check_google_name)]
    """Its resource name, projects/…/cryptoKeyVersions/1. A newer version gets an entry of its own."""

    @property
    def key_name(self) -> str:
        """Return the key's name for logs and errors."""
        return self.name


POD_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


def _check_https(url: str) -> str:
    if is_in_clear(url):
        raise ValueError("must begin with https:// unless Vault, or its agent, is on this machine")
    return url


VaultAddress = Annotated[
    WebAddress,
    server_address("/v1", instead="token_file, approle and kubernetes are for that"),
    AfterValidator(_check_https),
]
VaultName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")]
VaultPath = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*$")]


class AppRoleSettings(Section):
    """Logging in by AppRole."""

    role_id: str = Field(min_length=1)
    """The role's id."""
    secret_id_file: SecretPath
    """A file with a secret id. It is read at each log-in."""
    mount: VaultPath = "approle"
    """Where the method is mounted, below `auth/`."""


class VaultKubernetesSettings(Section):
    """Logging in by the token of the pod's service account."""

    role: VaultName
    """The role in Vault."""
    token_file: Path = POD_TOKEN
    """The service account's token. It is read at each log-in."""
    mount: VaultPath = "kubernetes"
    """Where the method is mounted, below `auth/`."""


class VaultKeySettings(Section):
    """One version of a key in Vault's transit engine. One of `token_file`, `approle` and `kubernetes` is given."""

    address: VaultAddress
    """Vault's address, with its path if any, such as https://vault.example.com:8200."""
    mount: VaultPath = "transit"
    """Where the engine is mounted."""
    key: VaultName
    """The key's name."""
    version: Count
    """The key's version. A newer one gets an entry of its own."""
    namespace: VaultPath | None = None
    """Vault Enterprise's or OpenBao's namespace."""
    token_file: SecretPath | None = None
    """A file with a token. It is read when the token ends."""
    approle: AppRoleSettings | None = None
    """Log in by AppRole."""
    kubernetes: VaultKubernetesSettings | None = None
    """Log in as the pod's service account."""
    tls: TlsSettings | None = None
    """TLS to Vault."""

    @property
    def key_name(self) -> str:
        """Return the key's name for logs and errors."""
        return f"{self.mount}/{self.key} version {self.version}"

    _check_login = exactly_one("token_file", "approle", "kubernetes")
