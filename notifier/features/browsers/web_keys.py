"""Reads the keys by which the URLs of pages are sealed, and checks what the section `web` says of issuers."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches

from cryptography.fernet import Fernet, MultiFernet

from notifier.configuration.configured_feature import Part
from notifier.model.errors import ConfigurationError, Mistake
from notifier.model.front_channel import is_on_page
from notifier.model.origins import origin_of
from notifier.model.printable import counted
from notifier.model.registry import Registry
from notifier.settings.document_files import read_text
from notifier.settings.service_settings import Settings

_MOST = 10
"""Keys that a file may have. A page lives for ten minutes, so two are enough while one is replaced."""
_MAKE_ONE = "make one by `notifier keys web`: 32 random bytes as base64url"


@dataclass(frozen=True, slots=True, kw_only=True)
class PagesPart(Part):
    """The keys by which the URLs of pages are sealed. None without a section `web`."""

    keys: MultiFernet | None = field(repr=False)


def read_pages(settings: Settings, registry: Registry) -> PagesPart:
    """Return the keys of pages, every mistake in the section `web`, and the warnings."""
    keys, mistakes = read_web_keys(settings)
    return PagesPart(
        mistakes=mistakes,
        warnings=[*web_warnings(settings, registry)],
        secrets={} if settings.web is None else {"web.keys_file": settings.web.keys_file},
        keys=keys,
    )


def read_web_keys(settings: Settings) -> tuple[MultiFernet | None, list[Mistake]]:
    """Return the keys, None without a section `web`, and every mistake."""
    if settings.web is None:
        return None, []
    mistakes = [
        Mistake(f'web.issuers["{iss}"]', _not_configured(iss, settings))
        for iss in settings.web.issuers
        if iss not in settings.issuers
    ]
    mistakes += [
        Mistake(f"web.check_session.{name}.issuer", _not_configured(page.issuer, settings))
        for name, page in settings.web.check_session.items()
        if page.issuer not in settings.issuers
    ]
    setting, path = "web.keys_file", settings.web.keys_file
    try:
        lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    except ConfigurationError as error:
        return None, [*mistakes, *(Mistake(setting, f"{path} {mistake.text}") for mistake in error.mistakes)]
    keys = []
    for nth, line in enumerate(lines, 1):
        try:
            keys.append(Fernet(line))
        except ValueError:
            mistakes.append(Mistake(setting, f"line {nth} of {path} is no Fernet key; {_MAKE_ONE}"))
    if not lines:
        mistakes.append(Mistake(setting, f"{path} is empty; {_MAKE_ONE}"))
    if len(lines) > _MOST:
        mistakes.append(Mistake(setting, f"{path} has {len(lines)} keys; keep the newest and those of its last hour"))
    return (MultiFernet(keys) if keys and not mistakes else None), mistakes


def web_warnings(settings: Settings, registry: Registry) -> Iterator[Mistake]:
    """Pages on another origin than their issuer; issuers with clients that browsers are to call, and without pages.

    Without a section `web` nobody expects any.
    """
    if settings.web is None:
        return
    for iss, pages in settings.web.issuers.items():
        if (origin := origin_of(iss)) != origin_of(pages.url):
            text = f"is not on {origin}, as the issuer is: it may refuse the frame, and clients lose cookies"
            yield Mistake(f'web.issuers["{iss}"].url', text)
    for iss in settings.issuers:
        clients = sum(map(is_on_page, registry.clients_of(iss).values()))
        if clients and iss not in settings.web.issuers:
            text = f"is missing, so no browser calls the frontchannel_logout_uri of {counted(clients, 'client')}"
            yield Mistake(f'web.issuers["{iss}"]', text)


def _not_configured(iss: str, settings: Settings) -> str:
    near = get_close_matches(iss, settings.issuers, 1, 0.0)
    return f"{iss} is not configured under issuers{f'; did you mean {near[0]}?' if near else ''}"
