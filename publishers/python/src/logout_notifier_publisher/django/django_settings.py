"""Read `NOTIFIER` of Django's settings: the publisher's settings, and the functions that supply the data of events."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from django.conf import settings
from django.utils.module_loading import import_string

from logout_notifier_publisher.publisher_settings import PublisherSettings, SettingsError

SID = "notifier_sid"  # the key in the session
_OTHER_FORMS = {"ISSUER": "a URL, ", "CLIENTS": '"*", a list of clients, '}  # of a setting that may be a function
SIGNED_COOKIES = "django.contrib.sessions.backends.signed_cookies"


@dataclass(frozen=True, slots=True, kw_only=True)
class DjangoPublisherSettings:
    """The content of `NOTIFIER` in Django's settings.

    `issuer` and `clients` are called with request (or None) and user, `sub` with the user, `sid` with the request.
    """

    publisher: PublisherSettings
    issuer: Callable[[Any, Any], str]
    clients: Callable[[Any, Any], Any]
    sub: Callable[[Any], str]
    sid: Callable[[Any], str | None]


def read() -> DjangoPublisherSettings:
    """Read `NOTIFIER`. Raises SettingsError, which lists all mistakes."""
    given = getattr(settings, "NOTIFIER", None)
    if not isinstance(given, Mapping):
        raise SettingsError([("NOTIFIER", "is required: a dictionary with URL, SECRET_FILE, OUTBOX and ISSUER")])
    own = {name: given[name] for name in ("ISSUER", "CLIENTS", "SUB", "SID") if name in given}
    mistakes: list[tuple[str, str]] = []
    publisher = None
    try:
        publisher = PublisherSettings.from_mapping({name: given[name] for name in given if name not in own})
    except SettingsError as mistake:
        mistakes += [(name.upper(), text) for name, text in mistake.mistakes]
    issuer = _read_issuer(own.get("ISSUER"), mistakes)
    clients = _read_clients(own.get("CLIENTS", "*"), mistakes)
    sub = _load_function("SUB", own.get("SUB", _default_sub), mistakes)
    sid = _load_function("SID", own.get("SID", _default_sid), mistakes)
    if mistakes or publisher is None:
        raise SettingsError(mistakes)
    return DjangoPublisherSettings(publisher=publisher, issuer=issuer, clients=clients, sub=sub, sid=sid)


def _read_issuer(value: object, mistakes: list[tuple[str, str]]) -> Callable[[Any, Any], str]:
    if isinstance(value, str) and "://" in value:
        return _constant(value)
    if value is None or value == "":
        mistakes.append(("ISSUER", "is required: `iss` of your ID tokens, or the path of a function(request, user)"))
        return _invalid
    return _load_function("ISSUER", value, mistakes)


def _read_clients(value: object, mistakes: list[tuple[str, str]]) -> Callable[[Any, Any], Any]:
    if value == "*" or isinstance(value, list | tuple):
        return _constant(value)
    return _load_function("CLIENTS", value, mistakes)


def _load_function(name: str, value: object, mistakes: list[tuple[str, str]]) -> Callable[..., Any]:
    try:
        found = import_string(value) if isinstance(value, str) else value
    except ImportError as error:
        mistakes.append((name, f"cannot be imported: {error}"))
        return _invalid
    if callable(found):
        return cast("Callable[..., Any]", found)
    mistakes.append((name, f"must be {_OTHER_FORMS.get(name, '')}a function, or its dotted path"))
    return _invalid


def _constant(value: Any) -> Callable[[Any, Any], Any]:
    def answer(request: object, user: object) -> Any:
        del request, user
        return value

    return answer


def _invalid(*arguments: object) -> Any:
    del arguments


def _default_sub(user: Any) -> str:
    return str(user.pk)


def _default_sid(request: Any) -> str | None:
    found = request.session.get(SID)
    return None if found is None else str(found)
