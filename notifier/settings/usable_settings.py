"""Extracts the valid part of a configuration with errors, so that the files named there can be checked too.

Invalid members are removed until the remaining document is valid. After the first removal no more errors are reported,
since they may result from the removal. If a secret would be sent unencrypted, its section is not removed: it is checked
as if `allow_http` were set, and its registry source is not read. Nor is the section of a missing or empty file removed,
so that its other files are checked.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from notifier.model.errors import InputIssue
from notifier.settings.file_paths import UNUSABLE_FILE
from notifier.settings.input_issues import Loc, details_of, explain, model_at
from notifier.settings.key_settings import KeySettings
from notifier.settings.remote_server import IN_CLEAR
from notifier.settings.service_settings import IssuerSettings, Settings

_MAX_VALIDATIONS = 10  # then the defaults are used


@dataclass(frozen=True, slots=True, kw_only=True)
class UsableSettings:
    """The settings with their valid members, and defaults for the others.

    `invalid_sections`: the sections with an error. Checks that depend on them are skipped. `issuers` is among them only
    if the name of an issuer is invalid. An issuer with another error stays, without keys. `keys`: the keys of each
    issuer with a valid name, with None for each invalid key. `insecure_sources`: the registry sources that must not be
    read, since a secret would be sent unencrypted. `unusable_files`: the missing and empty files among the settings.
    """

    settings: Settings
    mistakes: tuple[InputIssue, ...]
    invalid_sections: frozenset[str]
    keys: Mapping[str, tuple[KeySettings | None, ...]]
    insecure_sources: frozenset[str] = frozenset()
    unusable_files: frozenset[Path] = frozenset()


def usable_settings(
    document: Mapping[str, Any], context: dict[str, Any], model: type[Settings] = Settings
) -> UsableSettings:
    """Return the valid part of the document. `context`: the context of pydantic's validation."""
    remaining: dict[Any, Any] = dict(document)
    mistakes: list[InputIssue] = []
    invalid_sections: set[str] = set()
    invalid_issuers: dict[str, Any] = {}
    insecure_paths: list[Loc] = []
    unusable_files: set[Path] = set()
    context = {**context, "unusable": unusable_files}
    settings = None
    is_complete = True
    for _ in range(_MAX_VALIDATIONS):
        try:
            settings = model.model_validate(remaining, context=context)
            break
        except ValidationError as error:
            if is_complete:
                mistakes += explain(error, model)
            details = details_of(error)
            for detail in details:
                if detail["type"] == IN_CLEAR:
                    remaining = _with_allow_http(remaining, detail["loc"])
                    insecure_paths.append(detail["loc"])
                elif detail["type"] == UNUSABLE_FILE:
                    unusable_files.add(detail["ctx"]["path"])
                    invalid_sections |= {str(detail["loc"][0])} - {"issuers"}
            invalid_paths = [detail["loc"] for detail in details if detail["type"] not in (IN_CLEAR, UNUSABLE_FILE)]
            if invalid_paths:
                is_complete = False
                _remove_invalid(remaining, invalid_paths, invalid_sections, invalid_issuers, model)
    if settings is None:
        settings, invalid_sections = model(), set(model.model_fields)
    keys: dict[str, tuple[KeySettings | None, ...]] = {iss: issuer.keys for iss, issuer in settings.issuers.items()}
    if invalid_issuers:
        without_keys = {iss: IssuerSettings.model_construct(keys=()) for iss in invalid_issuers}
        settings = settings.model_copy(update={"issuers": {**settings.issuers, **without_keys}})
        keys |= {iss: _keys_of(raw, context, model) for iss, raw in invalid_issuers.items()}
    return UsableSettings(
        settings=settings, mistakes=tuple(mistakes), invalid_sections=frozenset(invalid_sections), keys=keys,
        insecure_sources=frozenset(_sources_at(insecure_paths, settings)), unusable_files=frozenset(unusable_files),
    )  # fmt: skip


def suggest_sections(name: str, model: type[Settings]) -> set[str]:
    """Return the section that a misspelt name may mean; empty if there is none."""
    return set(get_close_matches(name.lower(), model.model_fields, 1))


def _with_allow_http(value: Any, path: Loc) -> Any:
    """Return a copy of the document, with `allow_http` set in the section at this path."""
    if not path:
        return {**value, "allow_http": True}
    copy: Any = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = _with_allow_http(copy[path[0]], path[1:])
    return copy


def _sources_at(paths: Sequence[Loc], settings: Settings) -> Iterator[str]:
    """Yield the names of the registry sources at these paths, unless another error has removed the sources."""
    sources = settings.registry.sources
    for path in paths:
        match path:
            case ("registry", "sources", int(nth), *_) if nth < len(sources):
                yield sources[nth].source_name


def _remove_invalid(
    remaining: dict[Any, Any],
    paths: Sequence[Loc],
    invalid_sections: set[str],
    invalid_issuers: dict[str, Any],
    model: type[Settings],
) -> None:
    """Remove the members at these paths, and record their sections.

    An issuer with a valid name is moved to `invalid_issuers` instead, and its section is not recorded.
    """
    invalid_names = {path[1] for path in paths if len(path) > 2 and path[2] == "[key]"}
    for path in paths:
        match path:
            case ():  # both listeners have one address
                remaining.pop("ops", None)
                _remove_member(remaining, "api", "listen")
            case ("issuers", str(iss), *_) if iss not in invalid_names:
                invalid_issuers.setdefault(iss, _remove_member(remaining, "issuers", iss))
            case (section, *below):
                is_known = section in model.model_fields
                invalid_sections |= {str(section)} if is_known else suggest_sections(str(section), model)
                if below and _has_member(remaining.get(section), below[0]):
                    _remove_member(remaining, section, below[0])
                elif not (below and below[0] in invalid_names):  # the member may be removed already
                    remaining.pop(section, None)


def _has_member(section: object, name: object) -> bool:
    return isinstance(section, dict) and name in section


def _remove_member(document: dict[Any, Any], section: object, name: object) -> Any:
    """Replace a section of the document by a copy without this member. Return the member."""
    if not _has_member(document.get(section), name):
        return None
    members = dict(document[section])
    value = members.pop(name)
    document[section] = members
    return value


def _keys_of(raw: object, context: dict[str, Any], model: type[Settings]) -> tuple[KeySettings | None, ...]:
    keys = raw.get("keys") if isinstance(raw, dict) else None
    kind = model_at(model, ("issuers", "keys"))
    assert kind is not None and issubclass(kind, KeySettings)  # noqa: PT018  one fact
    return tuple(_key(key, context, kind) for key in keys) if isinstance(keys, list) else ()


def _key(raw: object, context: dict[str, Any], kind: type[KeySettings]) -> KeySettings | None:
    try:
        return kind.model_validate(raw, context=context)
    except ValidationError:
        return None
