"""Keeps what is right of a configuration that has mistakes, so that the files it names can be checked too.

Each try leaves out the wrong members, until the rest is right. Once something is left out, no more mistakes are
reported, since they may come from the gaps. A secret that would be sent in clear leaves no gap: its section is judged
as if that were allowed, and its source is not asked.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from notifier.model.errors import Mistake
from notifier.settings.asked_server import IN_CLEAR
from notifier.settings.key_settings import KeySettings
from notifier.settings.mistakes import Loc, explain, model_at
from notifier.settings.service_settings import IssuerSettings, Settings

_TRIES = 10  # after so many only defaults are left


@dataclass(frozen=True, slots=True, kw_only=True)
class UsableSettings:
    """The members that are right; the others have their defaults.

    `unsure`: the sections with a mistake. Nothing that depends on them is judged.
    `issuers` is unsure only if an issuer's name is wrong. An issuer with another mistake stays, without keys.
    `keys`: those of each issuer with a right name; None in the place of a wrong key. `in_clear`: the registry sources
    that would get a secret in clear, and must not be asked.
    """

    settings: Settings
    mistakes: tuple[Mistake, ...]
    unsure: frozenset[str]
    keys: Mapping[str, tuple[KeySettings | None, ...]]
    in_clear: frozenset[str] = frozenset()


def usable_settings(
    document: Mapping[str, Any], context: dict[str, Any], model: type[Settings] = Settings
) -> UsableSettings:
    """Read what is right of the document by the model. `context` is the context of pydantic's validation."""
    rest: dict[Any, Any] = dict(document)
    mistakes: list[Mistake] = []
    unsure: set[str] = set()
    wrong: dict[str, Any] = {}
    in_clear: list[Loc] = []
    settings = None
    whole = True
    for _ in range(_TRIES):
        try:
            settings = model.model_validate(rest, context=context)
            break
        except ValidationError as error:
            if whole:
                mistakes += explain(error, model)
            details = error.errors(include_url=False, include_input=False)
            for detail in details:
                if detail["type"] == IN_CLEAR:
                    rest = _allowing_http(rest, detail["loc"])
                    in_clear.append(detail["loc"])
            if places := [detail["loc"] for detail in details if detail["type"] != IN_CLEAR]:
                whole = False
                _leave_out(rest, places, unsure, wrong, model)
    if settings is None:
        settings, unsure = model(), set(model.model_fields)
    keys: dict[str, tuple[KeySettings | None, ...]] = {iss: issuer.keys for iss, issuer in settings.issuers.items()}
    if wrong:
        named = {iss: IssuerSettings.model_construct(keys=()) for iss in wrong}
        settings = settings.model_copy(update={"issuers": {**settings.issuers, **named}})
        keys |= {iss: _keys_of(raw, context, model) for iss, raw in wrong.items()}
    return UsableSettings(
        settings=settings, mistakes=tuple(mistakes), unsure=frozenset(unsure), keys=keys,
        in_clear=frozenset(_sources_at(in_clear, settings)),
    )  # fmt: skip


def section_like(name: str, model: type[Settings]) -> set[str]:
    """The section that a misspelt name may mean."""
    return set(get_close_matches(name.lower(), model.model_fields, 1))


def _allowing_http(value: Any, place: Loc) -> Any:
    """The same, with `allow_http` at this place. The caller's document stays unchanged."""
    if not place:
        return {**value, "allow_http": True}
    copy: Any = dict(value) if isinstance(value, dict) else list(value)
    copy[place[0]] = _allowing_http(copy[place[0]], place[1:])
    return copy


def _sources_at(places: Sequence[Loc], settings: Settings) -> Iterator[str]:
    """The names of the registry sources at these places. None is left where something else in their list is wrong."""
    sources = settings.registry.sources
    for place in places:
        match place:
            case ("registry", "sources", int(nth), *_) if nth < len(sources):
                yield sources[nth].called


def _leave_out(
    rest: dict[Any, Any], places: Sequence[Loc], unsure: set[str], wrong: dict[str, Any], model: type[Settings]
) -> None:
    """Take out what is wrong at these places. An issuer with a right name and a mistake goes to `wrong`."""
    misnamed = {place[1] for place in places if len(place) > 2 and place[2] == "[key]"}
    for place in places:
        match place:
            case ():  # both listeners have one address
                rest.pop("ops", None)
                _without(rest, "api", "listen")
            case ("issuers", str(iss), *_) if iss not in misnamed:
                wrong.setdefault(iss, _without(rest, "issuers", iss))
            case (section, *below):
                unsure |= {str(section)} if section in model.model_fields else section_like(str(section), model)
                if below and _has(rest.get(section), below[0]):
                    _without(rest, section, below[0])
                elif not (below and below[0] in misnamed):
                    rest.pop(section, None)


def _has(section: object, name: object) -> bool:
    return isinstance(section, dict) and name in section


def _without(rest: dict[Any, Any], section: object, name: object) -> Any:
    """Take a member out of a section and return it. The caller's document stays unchanged."""
    if not _has(rest.get(section), name):
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
