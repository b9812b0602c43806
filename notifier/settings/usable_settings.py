"""Extracts the valid part of a configuration with errors, so that the files it names can be checked too.

Invalid members are removed until the rest is valid. After the first removal no more errors are reported, since they may
result from the gaps. A secret that would be sent unencrypted causes no removal: its section is checked as if that were
allowed, and its source is not read.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from notifier.model.errors import InputIssue
from notifier.settings.input_issues import Loc, explain, model_at
from notifier.settings.key_settings import KeySettings
from notifier.settings.remote_server import IN_CLEAR
from notifier.settings.service_settings import IssuerSettings, Settings

_MAX_TRIES = 10  # validations, after which the defaults are used


@dataclass(frozen=True, slots=True, kw_only=True)
class UsableSettings:
    """The settings with their valid members, and defaults for the others.

    `invalid_sections`: the sections with an error. Checks that depend on them are skipped. `issuers` is among them only
    if the name of an issuer is invalid. An issuer with another error stays, without keys. `keys`: the keys of each
    issuer with a valid name, with None for each invalid key. `insecure_sources`: the registry sources that must not be
    read, since a secret would be sent unencrypted.
    """

    settings: Settings
    mistakes: tuple[InputIssue, ...]
    invalid_sections: frozenset[str]
    keys: Mapping[str, tuple[KeySettings | None, ...]]
    insecure_sources: frozenset[str] = frozenset()


def usable_settings(
    document: Mapping[str, Any], context: dict[str, Any], model: type[Settings] = Settings
) -> UsableSettings:
    """Return the valid part of the document. `context`: the context of pydantic's validation."""
    rest: dict[Any, Any] = dict(document)
    mistakes: list[InputIssue] = []
    invalid_sections: set[str] = set()
    wrong: dict[str, Any] = {}
    insecure_sources: list[Loc] = []
    settings = None
    whole = True
    for _ in range(_MAX_TRIES):
        try:
            settings = model.model_validate(rest, context=context)
            break
        except ValidationError as error:
            if whole:
                mistakes += explain(error, model)
            details = error.errors(include_url=False, include_input=False)
            for detail in details:
                if detail["type"] == IN_CLEAR:
                    rest = _with_allow_http(rest, detail["loc"])
                    insecure_sources.append(detail["loc"])
            if places := [detail["loc"] for detail in details if detail["type"] != IN_CLEAR]:
                whole = False
                _leave_out(rest, places, invalid_sections, wrong, model)
    if settings is None:
        settings, invalid_sections = model(), set(model.model_fields)
    keys: dict[str, tuple[KeySettings | None, ...]] = {iss: issuer.keys for iss, issuer in settings.issuers.items()}
    if wrong:
        named = {iss: IssuerSettings.model_construct(keys=()) for iss in wrong}
        settings = settings.model_copy(update={"issuers": {**settings.issuers, **named}})
        keys |= {iss: _keys_of(raw, context, model) for iss, raw in wrong.items()}
    return UsableSettings(
        settings=settings, mistakes=tuple(mistakes), invalid_sections=frozenset(invalid_sections), keys=keys,
        insecure_sources=frozenset(_sources_at(insecure_sources, settings)),
    )  # fmt: skip


def suggest_sections(name: str, model: type[Settings]) -> set[str]:
    """Return the section that a misspelt name may mean."""
    return set(get_close_matches(name.lower(), model.model_fields, 1))


def _with_allow_http(value: Any, place: Loc) -> Any:
    """Return a copy of the document with `allow_http` at this path."""
    if not place:
        return {**value, "allow_http": True}
    copy: Any = dict(value) if isinstance(value, dict) else list(value)
    copy[place[0]] = _with_allow_http(copy[place[0]], place[1:])
    return copy


def _sources_at(places: Sequence[Loc], settings: Settings) -> Iterator[str]:
    """Yield the registry sources at these paths, unless another error has removed the list of sources."""
    sources = settings.registry.sources
    for place in places:
        match place:
            case ("registry", "sources", int(nth), *_) if nth < len(sources):
                yield sources[nth].source_name


def _leave_out(
    rest: dict[Any, Any],
    places: Sequence[Loc],
    invalid_sections: set[str],
    wrong: dict[str, Any],
    model: type[Settings],
) -> None:
    """Remove the invalid members at these paths. An invalid issuer with a valid name is moved to `wrong`."""
    misnamed = {place[1] for place in places if len(place) > 2 and place[2] == "[key]"}
    for place in places:
        match place:
            case ():  # both listeners have one address
                rest.pop("ops", None)
                _remove_member(rest, "api", "listen")
            case ("issuers", str(iss), *_) if iss not in misnamed:
                wrong.setdefault(iss, _remove_member(rest, "issuers", iss))
            case (section, *below):
                invalid_sections |= (
                    {str(section)} if section in model.model_fields else suggest_sections(str(section), model)
                )
                if below and _has_member(rest.get(section), below[0]):
                    _remove_member(rest, section, below[0])
                elif not (below and below[0] in misnamed):
                    rest.pop(section, None)


def _has_member(section: object, name: object) -> bool:
    return isinstance(section, dict) and name in section


def _remove_member(rest: dict[Any, Any], section: object, name: object) -> Any:
    """Remove a member from a copy of its section in `rest`, and return it."""
    if not _has_member(rest.get(section), name):
        return None
    members = dict(rest[section])
    value = members.pop(name)
    rest[section] = members
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
