"""What of a configuration is right where some of it is wrong, so that the files it names are looked at all the same.

What is wrong is left out, member by member, until the rest holds. Only the first look's mistakes are told: what comes
after them may come of the gaps. `unsure` names what nobody should rest a judgement on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from notifier.adapters.configuration.mistakes import Loc, explain
from notifier.domain.errors import Mistake
from notifier.settings import IssuerSettings, KeySettings, Settings

SECTIONS = frozenset(Settings.model_fields)
_LOOKS = 10  # by then nothing but defaults is left


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """`settings` as far as they are right, the rest as by default. `unsure`: sections of which something is wrong.

    `keys` of every issuer whose name is right, None in the place of a wrong one. `issuers` are unsure only where their
    names are: of one that is wrong in itself the name stands, without keys.
    """

    settings: Settings
    mistakes: tuple[Mistake, ...]
    unsure: frozenset[str]
    keys: Mapping[str, tuple[KeySettings | None, ...]]


def right_parts(document: Mapping[str, Any], context: dict[str, Any]) -> Parts:
    """Read the document as `Settings`, as far as that can be done. `context` is that of the validation."""
    rest: dict[Any, Any] = dict(document)
    mistakes: list[Mistake] = []
    unsure: set[str] = set()
    wrong: dict[str, Any] = {}
    settings = None
    for look in range(_LOOKS):
        try:
            settings = Settings.model_validate(rest, context=context)
            break
        except ValidationError as error:
            if look == 0:
                mistakes += explain(error, Settings)
            places = [detail["loc"] for detail in error.errors(include_url=False, include_input=False)]
            _leave_out(rest, places, unsure, wrong)
    if settings is None:
        settings, unsure = Settings(), set(SECTIONS)
    keys: dict[str, tuple[KeySettings | None, ...]] = {iss: issuer.keys for iss, issuer in settings.issuers.items()}
    if wrong:
        named = {iss: IssuerSettings.model_construct(keys=()) for iss in wrong}
        settings = settings.model_copy(update={"issuers": {**settings.issuers, **named}})
        keys |= {iss: _keys_of(raw, context) for iss, raw in wrong.items()}
    return Parts(settings=settings, mistakes=tuple(mistakes), unsure=frozenset(unsure), keys=keys)


def meant(name: str) -> set[str]:
    """The section that a wrong name may stand for."""
    return set(get_close_matches(name.lower(), SECTIONS, 1))


def _leave_out(rest: dict[Any, Any], places: Sequence[Loc], unsure: set[str], wrong: dict[str, Any]) -> None:
    """Take out what is wrong at these places. Issuers that are wrong in themselves go to `wrong`."""
    misnamed = {place[1] for place in places if len(place) > 2 and place[2] == "[key]"}
    for place in places:
        match place:
            case ():  # the two listeners at one address
                rest.pop("ops", None)
                _without(rest, "api", "listen")
            case ("issuers", str(iss), *_) if iss not in misnamed:
                wrong.setdefault(iss, _without(rest, "issuers", iss))
            case (section, *below):
                unsure |= {str(section)} if section in SECTIONS else meant(str(section))
                if below and _has(rest.get(section), below[0]):
                    _without(rest, section, below[0])
                elif not (below and below[0] in misnamed):
                    rest.pop(section, None)


def _has(section: object, name: object) -> bool:
    return isinstance(section, dict) and name in section


def _without(rest: dict[Any, Any], section: object, name: object) -> Any:
    """Take a member out of a section, and leave the caller's document as it is; returns what it was."""
    if not _has(rest.get(section), name):
        return None
    kept = dict(rest[section])
    value = kept.pop(name)
    rest[section] = kept
    return value


def _keys_of(raw: object, context: dict[str, Any]) -> tuple[KeySettings | None, ...]:
    keys = raw.get("keys") if isinstance(raw, dict) else None
    return tuple(_key(key, context) for key in keys) if isinstance(keys, list) else ()


def _key(raw: object, context: dict[str, Any]) -> KeySettings | None:
    try:
        return KeySettings.model_validate(raw, context=context)
    except ValidationError:
        return None
