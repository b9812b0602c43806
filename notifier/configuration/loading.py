"""Reads the whole configuration (settings, registry, keys, tokens and secrets) and reports all errors together.

A worker calls `load` at start and at each reload, and commands such as `notifier check` call it once.
"""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import structlog

from notifier.configuration.clients.client_rows import SourceAnswer
from notifier.configuration.clients.clients_file import AnswerOf, no_answer, read_registry
from notifier.configuration.clients.layer import BuildContext, BuiltRegistry, Layer
from notifier.configuration.clients.registry_checks import (
    AlgorithmsOf,
    find_preset_mismatches,
    find_unsignable,
    find_widely_accepted_tokens,
)
from notifier.configuration.configured_feature import ConfiguredFeature, FeaturePart, key_kinds_of, settings_model
from notifier.configuration.file_mistakes import leave_out_files
from notifier.configuration.inline_senders import find_ignored_members, find_unlisted_senders, list_token_senders
from notifier.model.client import Algorithm
from notifier.model.errors import ConfigurationError, InputIssue
from notifier.model.ignored_members import IssueGroup
from notifier.model.message import Binding
from notifier.model.registry import Registry
from notifier.settings.api_tokens import ApiToken, find_expiring_tokens, load_tokens
from notifier.settings.config_file import examine_settings
from notifier.settings.file_watch import Stamp, stamps_of
from notifier.settings.key_settings import KeySettings
from notifier.settings.registry_settings import RegistrySourceSettings
from notifier.settings.service_settings import Settings
from notifier.tokens.key_files import KeySource, examine_keys
from notifier.tokens.key_ring import ExternalKeyEntry, KeyRing
from notifier.tokens.published_keys import thumbprint
from notifier.tokens.signers import Signers

FindMore = Callable[[Settings, Registry, Sequence[Layer], Collection[Path]], Sequence[InputIssue]]
"""Returns more errors, in the part of the configuration without the errors that were found.

The last argument has the missing and empty files that were reported.
"""
FeaturePartT = TypeVar("FeaturePartT", bound=FeaturePart)
MAX_LOGGED = 20  # warnings of one reading that are logged separately: there may be one for each client


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedConfiguration:
    """The result of one reading of the configuration.

    `tokens`: the tokens of the API, None if it requires none. `stamps`: the state of each file before it was read.
    `warnings`: accepted settings that have no effect or a possibly unintended one. `find_shared_keys` returns further
    warnings, which need the public keys of the signers. `faults`: unusable clients of registry sources.
    `build_context` and `layers`: the inputs of the registry, for the refresh of a registry source. Without a source to
    refresh, `layers` is empty. `parts`: the configuration of each feature.
    """

    settings: Settings
    features: Sequence[ConfiguredFeature]
    registry: Registry
    keys: KeyRing
    tokens: tuple[ApiToken, ...] | None
    stamps: Mapping[Path, Stamp | None]
    warnings: tuple[InputIssue, ...] = ()
    faults: tuple[InputIssue, ...] = ()
    build_context: BuildContext
    layers: Sequence[Layer] = ()
    parts: Sequence[FeaturePart] = field(default=(), repr=False)

    def part(self, kind: type[FeaturePartT]) -> FeaturePartT:
        """Return the configuration of the feature whose part has this type."""
        return next(part for part in self.parts if isinstance(part, kind))

    @property
    def bindings(self) -> tuple[Binding, ...]:
        """The exchanges of other applications that the queue is bound to."""
        return tuple(binding for part in self.parts for binding in part.bindings)

    def log_warnings(self) -> None:
        """Log the warnings, the unusable clients, and the ignored values of clients."""
        log = structlog.get_logger()
        warnings = (*find_shared_keys(self.settings, self.keys), *self.warnings)
        for warning in warnings[:MAX_LOGGED]:
            log.warning("configuration_warning", setting=warning.path, reason=warning.text)
        if more := sum(warning.count for warning in warnings[MAX_LOGGED:]):
            log.warning("configuration_warnings", more=more, hint="`notifier check` lists more")
        log_faults(self.faults)
        log_ignored_values([*self.registry.newly_ignored(Registry())])


def log_faults(faults: Sequence[InputIssue]) -> None:
    """Log the clients that cannot be used, the first MAX_LOGGED separately."""
    log = structlog.get_logger()
    for fault in faults[:MAX_LOGGED]:
        log.warning("client_left_out", client=fault.path, reason=fault.text)
    if more := len(faults[MAX_LOGGED:]):
        log.warning("clients_left_out", more=more, hint="`notifier clients list` tells all")


def log_ignored_values(groups: Sequence[IssueGroup]) -> None:
    """Log the values of clients that their registry source may not set: one line for those that are alike."""
    log, lines = structlog.get_logger(), [line for group in groups for line in group.lines]
    for line in lines[:MAX_LOGGED]:
        log.warning("registry_source_beyond", client=line.path, reason=line.text)
    if more := len(lines[MAX_LOGGED:]) + sum(group.unlisted_count for group in groups):
        log.warning("registry_sources_beyond", more=more, hint="`notifier check` tells all")


def load(
    path: Path | None,
    environ: Mapping[str, str],
    features: Sequence[ConfiguredFeature],
    files: set[Path] | None = None,
    *,
    answer_of: AnswerOf = no_answer,
    keep_rows: bool = False,
    signers: Signers | None = None,
    find_more: FindMore | None = None,
) -> LoadedConfiguration:
    """Read the whole configuration. Raises ConfigurationError with the errors of all files.

    Checks that depend on an invalid part are skipped. Adds each configured file to `files`, even after an error.
    `answer_of` returns the clients of a registry source that is not a file. `keep_rows`: return `layers` even if no
    source needs a refresh. `signers`: at a reload, those of the previous reading. `find_more`: further checks.
    """
    files = set() if files is None else files
    config_stamp = {} if path is None else stamps_of((path.absolute(),))
    usable = examine_settings(path, environ, files, settings_model(features))
    settings, invalid_sections = usable.settings, usable.invalid_sections
    mistakes: list[InputIssue] = []
    stamps = {**stamps_of(files), **config_stamp}
    if not settings.issuers and "issuers" not in invalid_sections:
        text = 'at least one is needed, such as issuers: {"https://id.example.com": {keys: [{file: key.pem}]}}'
        mistakes.append(InputIssue("issuers", text))
        invalid_sections |= {"issuers"}
    signers = Signers(key_kinds_of(features)) if signers is None else signers
    keys, algorithms_of, key_errors = read_keys(settings, usable.keys, signers)
    build_context = BuildContext(settings=settings, algorithms_of=algorithms_of, invalid_sections=invalid_sections)

    def get_safe_answer(source: RegistrySourceSettings, folder: Path | None) -> SourceAnswer | None:
        return None if source.source_name in usable.insecure_sources else answer_of(source, folder)

    built, layers = read_registry(build_context, files, get_safe_answer, keep_rows=keep_rows)
    stamps = {**stamps_of(files), **stamps}
    tokens, token_errors = _load_api_tokens(settings, invalid_sections)
    parts = [feature.read(settings, built.registry, invalid_sections) for feature in features]
    mistakes += [*built.mistakes, *key_errors, *find_unsignable(built.registry, algorithms_of), *token_errors]
    mistakes += [mistake for part in parts for mistake in part.mistakes]
    if find_more is not None:
        mistakes += find_more(settings, built.registry, layers, usable.unusable_files | built.unusable_files)
    if mistakes := [*usable.mistakes, *leave_out_files(mistakes, usable.unusable_files)]:
        raise ConfigurationError(mistakes)
    warnings = tuple(_find_warnings(settings, built, tokens or (), parts))
    return LoadedConfiguration(
        settings=settings, features=features, registry=built.registry, keys=keys, tokens=tokens, stamps=stamps,
        warnings=warnings, faults=tuple(built.faults), build_context=build_context,
        layers=layers, parts=parts,
    )  # fmt: skip


def _load_api_tokens(
    settings: Settings, invalid_sections: Collection[str]
) -> tuple[tuple[ApiToken, ...] | None, Sequence[InputIssue]]:
    """Return the tokens of the API, and all errors. The tokens are None if none is required, or after an error."""
    if settings.api is None:
        return None, ()
    if settings.api.tokens_file is None:
        # Without a file the API has no tokens. It requires a token nevertheless if the console has tokens.
        return (() if settings.api.console.knows_tokens else None), ()
    try:
        return load_tokens(settings.api.tokens_file, None if "issuers" in invalid_sections else settings.issuers), ()
    except ConfigurationError as error:
        return None, error.mistakes


def _find_warnings(
    settings: Settings, built: BuiltRegistry, tokens: Sequence[ApiToken], parts: Sequence[FeaturePart]
) -> Iterator[InputIssue]:
    """Yield accepted settings that have no effect or a possibly unintended one."""
    yield from built.warnings
    yield from find_widely_accepted_tokens(built.registry)
    yield from find_preset_mismatches(built.registry)
    senders = [*(sender for part in parts for sender in part.senders), *list_token_senders(tokens)]
    yield from find_ignored_members(settings, built.registry, senders)
    yield from find_unlisted_senders(settings, senders)
    yield from find_expiring_tokens(tokens, time.time())
    for part in parts:
        yield from part.warnings


def find_shared_keys(settings: Settings, keys: KeyRing) -> Iterator[InputIssue]:
    """Yield a warning for each key of an issuer that an issuer configured before it has too.

    Keys are compared by their public half. External keys that were not read yet are compared by their settings.
    """
    owners: dict[object, str] = {}
    for iss, issuer in settings.issuers.items():
        read_keys = keys.keys_of(iss)
        settings_of_read_keys = {key.setting for key in read_keys}
        names: dict[object, str] = {thumbprint(key.public): f"the key {key.kid}" for key in read_keys}
        for nth, key in enumerate(issuer.keys):
            setting = f"keys[{nth}].{key.kind}"
            if key.file is None and f'issuers["{iss}"].{setting}' not in settings_of_read_keys:
                names[key.kind, getattr(key, key.kind)] = f"the key of {setting}"
        for identity, name in names.items():
            owner = owners.setdefault(identity, iss)
            if owner != iss:
                text = (
                    f"{name} is that of {owner}, too: a receiver that checks the key and not the issuer accepts the"
                    " tokens of both; make a key for each, by `notifier keys generate` or in the HSM or key service"
                )
                yield InputIssue(f'issuers["{iss}"].keys', text)


def read_keys(
    settings: Settings, keys: Mapping[str, Sequence[KeySettings | None]], signers: Signers
) -> tuple[KeyRing, AlgorithmsOf, list[InputIssue]]:
    """Read the keys of each issuer in `keys`. Return them, a function that returns their algorithms, and all errors.

    The function returns all algorithms for an issuer while one of its keys is invalid or was not read yet.
    """
    sources, library_errors = key_sources(settings, keys, signers)
    ring, file_errors = examine_keys(sources)

    def algorithms_of(iss: str) -> frozenset[Algorithm]:
        all_keys_read = 0 < len(ring.keys_of(iss)) == len(sources.get(iss, ()))
        return ring.algorithms_of(iss) if all_keys_read else frozenset(Algorithm)

    return ring, algorithms_of, [*library_errors, *file_errors]


def key_sources(
    settings: Settings, keys: Mapping[str, Sequence[KeySettings | None]], signers: Signers
) -> tuple[dict[str, list[KeySource | ExternalKeyEntry | None]], list[InputIssue]]:
    """Return the file or external key of each key of each issuer, and an error for each key without its library.

    None stands for a key with invalid settings or a missing library.
    """
    sources: dict[str, list[KeySource | ExternalKeyEntry | None]] = {}
    mistakes: list[InputIssue] = []
    for iss, issuer_keys in keys.items():
        sources[iss] = []
        for nth, key in enumerate(issuer_keys):
            source = None
            if key is not None:
                setting = f'issuers["{iss}"].keys[{nth}].{key.kind}'
                problem = _find_missing_library(key, signers)
                if problem is None:
                    source = _to_key_source(key, setting, settings, signers)
                else:
                    mistakes.append(InputIssue(setting, problem))
            sources[iss].append(source)
    return sources, mistakes


def _find_missing_library(key: KeySettings, signers: Signers) -> str | None:
    if key.file is not None:
        return None
    kind = signers.kinds.get(key.kind)
    return "is made by no feature of this release" if kind is None else kind.missing()


def _to_key_source(
    key: KeySettings, setting: str, settings: Settings, signers: Signers
) -> KeySource | ExternalKeyEntry:
    not_before = None if key.not_before is None else key.not_before.timestamp()
    if key.file is not None:
        return KeySource(path=key.file, not_before=not_before, kid=key.kid)
    external_key = signers.key(key, settings.signing)
    return ExternalKeyEntry(external_key=external_key, setting=setting, not_before=not_before, kid=key.kid)
