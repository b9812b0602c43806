"""A key in the transit engine of Vault or OpenBao, and how notifier logs in there."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from notifier.settings.asked_server import server_address
from notifier.settings.policies import TlsSettings
from notifier.settings.secret_text import SecretPath
from notifier.settings.values import Count, Section, WebAddress, in_clear

POD_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


def _private(url: str) -> str:
    if in_clear(url):
        raise ValueError("must begin with https:// unless Vault, or its agent, is on this machine")
    return url


VaultAddress = Annotated[
    WebAddress,
    server_address("/v1", instead="token_file, approle and kubernetes are for that"),
    AfterValidator(_private),
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
    def called(self) -> str:
        """The key among others of this Vault."""
        return f"{self.mount}/{self.key} version {self.version}"

    @model_validator(mode="after")
    def _one_way_in(self) -> Self:
        ways = ("token_file", "approle", "kubernetes")
        logins = [way for way in ways if getattr(self, way) is not None]
        if len(logins) != 1:
            has = f"; it has {' and '.join(logins)}" if logins else ""
            raise ValueError(f"needs one of {', '.join(ways)}{has}")
        return self
