"""A key in an HSM, as an operator names it."""

from typing import Self

from pydantic import Field, model_validator

from notifier.settings.secret_text import SecretPath
from notifier.settings.values import ExistingFile, Section


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
