"""The keys that sign: where each of them is, and how those that are not files are asked."""

from typing import Annotated, Self

from pydantic import AwareDatetime, Field, model_validator

from notifier.settings.values import Count, ExistingFile, Lasting, Section

PLACES = ("file",)


class KeySettings(Section):
    """A signing key: RSA, EC or Ed25519. Exactly one place is given."""

    file: ExistingFile | None = Field(None, description="The private key, as PEM or JWK.")
    not_before: AwareDatetime | None = Field(None, description="When it begins to sign. Left out: at once.")
    kid: str | None = Field(None, min_length=1, description="Left out: the RFC 7638 thumbprint.")

    @property
    def place(self) -> str:
        """Which place it is in."""
        return next(place for place in PLACES if getattr(self, place) is not None)

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        given = [place for place in PLACES if getattr(self, place) is not None]
        if len(given) != 1:
            found = f"; it has {' and '.join(given)}" if given else ""
            raise ValueError(f"needs one of {', '.join(PLACES)}{found}")
        return self


class SigningSettings(Section):
    """How keys that are not files are asked for signatures."""

    timeout: Annotated[float, Lasting(above=0.0, most=30.0)] = Field(2.0, description="Time for one signature.")
    concurrency: Count | None = Field(
        None, description="Signatures at a time by one key. Left out: 2 for PKCS#11, each a process; 16 elsewhere."
    )
    every: Annotated[float, Lasting(above=0.2, most=86_400.0)] = Field(
        300.0, description="How often a key that is well is looked at."
    )
