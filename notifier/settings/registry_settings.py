"""Defines the section `registry` of the settings: the sources of clients, and the checks of the cache folder."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar, Self, TypeVar

from pydantic import AfterValidator, Field, model_validator

from notifier.model.defaults import MAX_LIST_BYTES
from notifier.model.registry import InlineRule, Registry
from notifier.settings.choices import exactly_one
from notifier.settings.clients import ClientOptions
from notifier.settings.file_owners import check_own_folder
from notifier.settings.file_paths import ExistingFile, resolve_from_base
from notifier.settings.values import Duration, DurationField, FeatureSection, IssuerId, Section

KINDS = ("file", "sql", "keycloak", "hydra", "wso2", "auth0", "authentik", "http")


RegistryKindT = TypeVar("RegistryKindT", bound=Section)


class RegistrySourceSettings(Section):
    """A place that clients are read from. Exactly one kind is given."""

    gone: ClassVar[Mapping[str, str]] = {"max_answer": f"is gone: it is {MAX_LIST_BYTES // 1024**2}MiB now"}

    name: str | None = Field(None, pattern=r"^[A-Za-z0-9_.-]{1,60}$")
    """Its name in metrics and logs. Left out: its kind."""
    issuer: IssuerId | None = None
    """The issuer whose clients it may have. Left out: Keycloak's realm, else the only issuer."""
    issuers: tuple[IssuerId, ...] | None = Field(None, min_length=1)
    """The same for several: each client of its list names one of them."""
    clients: tuple[str, ...] | None = Field(None, min_length=1)
    """The clients it may have, as patterns: ["shop-*"]. Left out: all of the issuer."""
    every: Annotated[float, DurationField(above=0.2, most=600.0)] = 60.0
    """How often it is read, ± 10 %."""
    timeout: Annotated[float, DurationField(above=0.0, most=600.0)] = 30.0
    """Time for one reading."""
    empty: bool = False
    """It may have no clients. Otherwise a first answer without any is refused: permissions may be missing."""
    file: ExistingFile | None = None
    """YAML or JSON: a list of client metadata."""
    sql: FeatureSection | None = None
    """A database."""
    keycloak: FeatureSection | None = None
    """A realm of Keycloak."""
    hydra: FeatureSection | None = None
    """Ory Hydra."""
    wso2: FeatureSection | None = None
    """WSO2 Identity Server."""
    auth0: FeatureSection | None = None
    """Auth0."""
    authentik: FeatureSection | None = None
    """authentik."""
    http: FeatureSection | None = None
    """A list over HTTP."""

    @property
    def kind(self) -> str:
        """The kind of the source."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    def of_kind(self, kind: type[RegistryKindT]) -> RegistryKindT:
        """Return the settings of its kind, as the feature declares them."""
        settings = getattr(self, self.kind)
        assert isinstance(settings, kind), "the source is of this kind"
        return settings

    @property
    def source_name(self) -> str:
        """The name, by default the kind."""
        return self.name or self.kind

    def permitted_issuers(self, configured: Sequence[str]) -> tuple[str, ...]:
        """Return the issuers whose clients the source may have. `configured`: all configured issuers.

        A file may have clients of all issuers. The result is empty if the issuer of another source is not determined.
        Such a source is refused.
        """
        if self.issuers is not None:
            return self.issuers
        if self.issuer is not None:
            return (self.issuer,)
        if self.file is not None:
            return tuple(configured)
        own_issuer = getattr(getattr(self, self.kind), "own_issuer", None)
        if own_issuer is not None:
            return (own_issuer,)
        return tuple(configured) if len(configured) == 1 else ()

    _check_one_kind = exactly_one(*KINDS)

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        if self.issuer is not None and self.issuers is not None:
            raise ValueError("issuer and issuers are both given; write all in issuers")
        if self.file is not None and (self.issuers is not None or self.clients is not None):
            raise ValueError("issuers and clients cannot be used with file; remove them, and set issuer in its rows")
        if self.hydra is not None and self.issuer is None:
            raise ValueError("needs an issuer: Hydra's list of clients does not name it")
        return self


class RegistrySettings(Section):
    """The clients."""

    file: ExistingFile | None = None
    """YAML or JSON: a list of client metadata."""
    sources: tuple[RegistrySourceSettings, ...] = ()
    """Where clients are read from. A later one overrides an earlier one, member by member."""
    defaults: dict[IssuerId, ClientOptions] = Field({})
    """Settings for each client of an issuer."""
    cache: (
        Annotated[Path, AfterValidator(resolve_from_base), AfterValidator(partial(check_own_folder, content="clients"))]
        | None
    ) = None
    """A folder for the last good answer of each source. Workers start with it if a source is unavailable."""
    inline: InlineRule = Registry().inline
    """Whose events may contain the address of a client. publishers: those of the identity server."""
    grace: Duration = Registry().grace
    """How long a delivery waits for an unknown client or issuer."""

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        if self.file is not None and self.sources:
            raise ValueError("file and sources are both given; write the file as the last of sources")
        names = [source.source_name for source in self.sources]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two sources are called {twice[0]}; give each its own name")
        return self

    @property
    def all_sources(self) -> tuple[RegistrySourceSettings, ...]:
        """The sources. Each overrides the earlier sources. With the setting `file`, that file is the only source."""
        # Not validated again: that would examine the file, in the event loop too.
        return self.sources if self.file is None else (RegistrySourceSettings.model_construct(file=self.file),)
