"""Read the Fernet keys that seal the URLs of front-channel pages, and validate the section `web`."""

import base64
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.fernet import Fernet, MultiFernet

from notifier.configuration.configured_feature import FeaturePart
from notifier.features.browsers.front_channel_context import OpenedContext, open_context
from notifier.features.browsers.web_settings import web_of
from notifier.model.errors import ConfigurationError, InputIssue
from notifier.model.front_channel import is_on_page
from notifier.model.nearest import explain_unknown_issuer
from notifier.model.origins import origin_of
from notifier.model.printable import counted, stray_character
from notifier.model.record import copy_record
from notifier.model.registry import Registry
from notifier.settings.secret_text import read_text
from notifier.settings.service_settings import Settings

_MAX_KEYS = 10
"""The maximum number of keys in a file. A rotation needs two, since a page is valid for ten minutes."""
_SHARED_SETTING = "web.keys_file"
_KEY_HINT = "make one by `notifier keys web`: 32 random bytes as base64url"


@dataclass(frozen=True, slots=True, kw_only=True)
class PageKeys:
    """The keys of pages. `shared`: of all issuers. `own`: by issuer, where the issuer has keys that no other has.

    `single_issuer`: only one issuer is configured, so that no other shares its keys.
    """

    shared: MultiFernet
    own: Mapping[str, MultiFernet]
    single_issuer: bool

    def keys_of(self, iss: str) -> MultiFernet:
        """Return the keys that seal an issuer's pages: its own keys, otherwise the shared keys."""
        return self.own.get(iss, self.shared)

    def has_exclusive_keys(self, iss: str) -> bool:
        """Return whether no other issuer has the keys that seal this issuer's pages."""
        return self.single_issuer or iss in self.own

    def open(
        self, text: str, now: float, on_foreign_key: Callable[[str], None] = lambda _: None
    ) -> OpenedContext | None:
        """Return the opened context; None if it is invalid, expired, or sealed by a key that only another issuer has.

        `on_foreign_key` receives the context's issuer if another issuer's key sealed it.
        """
        for keys in (self.shared, *self.own.values()):
            opened = open_context(text, keys, now)
            if opened is None:
                continue
            is_own_key = self.own.get(opened.context.iss) is keys
            if is_own_key or keys is self.shared:
                return copy_record(opened, exclusive_key=is_own_key or self.single_issuer)
            on_foreign_key(opened.context.iss)
            return None
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class PagesPart(FeaturePart):
    """What the feature `browsers` read. `keys`: None without `web.keys_file`, or after an error; no page is served."""

    keys: PageKeys | None = field(repr=False)


def read_pages(settings: Settings, registry: Registry, _invalid_sections: frozenset[str]) -> PagesPart:
    """Return the keys of pages, all errors in the section `web`, and its warnings."""
    keys, mistakes = read_web_keys(settings)
    return PagesPart(
        mistakes=mistakes, warnings=[*web_warnings(settings, registry)], secrets=_key_files(settings), keys=keys
    )


def read_web_keys(settings: Settings) -> tuple[PageKeys | None, list[InputIssue]]:
    """Return the keys and all errors. The keys are None without `web.keys_file`, or if there is an error."""
    section = web_of(settings)
    if section is None:
        return None, []
    mistakes = [
        InputIssue(f'web.issuers["{iss}"]', explain_unknown_issuer(iss, settings.issuers))
        for iss in section.issuers
        if iss not in settings.issuers
    ]
    mistakes += [
        InputIssue(f"web.check_session.{name}.issuer", explain_unknown_issuer(page.issuer, settings.issuers))
        for name, page in section.check_session.items()
        if page.issuer not in settings.issuers
    ]
    keys_of, key_mistakes = _read_key_files(_key_files(settings))
    mistakes += key_mistakes
    if mistakes or _SHARED_SETTING not in keys_of:
        return None, mistakes
    own = {iss: keys_of[_own_setting(iss)] for iss in section.issuers if _own_setting(iss) in keys_of}
    return PageKeys(shared=keys_of[_SHARED_SETTING], own=own, single_issuer=len(settings.issuers) == 1), []


def _read_key_files(path_of: Mapping[str, Path]) -> tuple[dict[str, MultiFernet], list[InputIssue]]:
    """Return the keys by the setting of their file, and all errors. Two files may not have a key in common."""
    keys_of: dict[str, MultiFernet] = {}
    mistakes: list[InputIssue] = []
    setting_of: dict[bytes, str] = {}
    for setting, path in path_of.items():
        lines, line_mistakes = _read_lines(setting, path)
        mistakes += line_mistakes
        keys: list[Fernet] = []
        for number, line in enumerate(lines, 1):
            try:
                keys.append(Fernet(line))
            except ValueError:
                error = stray_character(line) or f"is not a Fernet key; {_KEY_HINT}"
                mistakes.append(InputIssue(setting, f"line {number} of {path} {error}"))
                continue
            first_setting = setting_of.setdefault(base64.urlsafe_b64decode(line), setting)
            if first_setting != setting:
                text = f"line {number} of {path} is also a key of {first_setting}"
                mistakes.append(InputIssue(setting, f"{text}: no two issuers may share their own keys"))
        if keys:
            keys_of[setting] = MultiFernet(keys)
    return keys_of, mistakes


def _read_lines(setting: str, path: Path) -> tuple[list[str], list[InputIssue]]:
    """Return the non-empty lines of a key file, and the error if it is unreadable, or has no or too many lines."""
    try:
        lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    except ConfigurationError as error:
        return [], [InputIssue(setting, f"{path} {mistake.text}") for mistake in error.mistakes]
    if not lines:
        return [], [InputIssue(setting, f"{path} is empty; {_KEY_HINT}")]
    if len(lines) > _MAX_KEYS:
        text = f"{path} has {len(lines)} keys, at most {_MAX_KEYS} are allowed; keep those that still open pages"
        return lines, [InputIssue(setting, text)]
    return lines, []


def _key_files(settings: Settings) -> dict[str, Path]:
    """Return the path of each configured key file, by its setting."""
    section = web_of(settings)
    if section is None:
        return {}
    path_of = {_SHARED_SETTING: section.keys_file}
    path_of |= {_own_setting(iss): issuer.keys_file for iss, issuer in section.issuers.items()}
    return {setting: path for setting, path in path_of.items() if path is not None}


def _own_setting(iss: str) -> str:
    return f'web.issuers["{iss}"].keys_file'


def web_warnings(settings: Settings, registry: Registry) -> Iterator[InputIssue]:
    """Yield warnings about pages on another origin than their issuer, and issuers whose clients need a missing page.

    Without a section `web` there are no warnings.
    """
    section = web_of(settings)
    if section is None:
        return
    for iss, pages in section.issuers.items():
        origin = origin_of(iss)
        if origin != origin_of(pages.url):
            text = f"is not on {origin}, as the issuer is: it may refuse the frame, and clients lose cookies"
            yield InputIssue(f'web.issuers["{iss}"].url', text)
    for iss in settings.issuers:
        client_count = sum(is_on_page(client) for client in registry.clients_of(iss).values())
        if client_count > 0 and iss not in section.issuers:
            text = f"is missing, so no browser calls the frontchannel_logout_uri of {counted(client_count, 'client')}"
            yield InputIssue(f'web.issuers["{iss}"]', text)
