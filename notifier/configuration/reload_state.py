"""Records the result of a worker's last reload, and the changed settings that need a restart.

The same result is logged once, not at each reload.
"""

from collections.abc import Callable, Iterator, Sequence

import structlog

from notifier.configuration.loading import LoadedConfiguration
from notifier.model.record import record
from notifier.model.trouble import Trouble, TroubleKind
from notifier.settings.values import Section

# Fixed settings are read once, at the start. A change needs a restart.
FIXED_SETTINGS = ("queue", "ops", "api", "log", "metrics", "shutdown_grace")
FIXED_DELIVERY_SETTINGS = ("max_in_flight",)
FIXED_WEB_SETTINGS = ("listen", "tls")

MAX_LISTED = 5  # errors and settings that `notifier status` lists


@record
class _Failure:
    kind: TroubleKind
    texts: tuple[str, ...]
    since: float


class ReloadState:
    """The result of the last reload, and the settings that differ from `at_start`, the configuration at the start.

    Of `at_start` only the settings are kept, without the clients and their rows. `clock` returns epoch seconds.
    """

    def __init__(self, at_start: LoadedConfiguration, clock: Callable[[], float]) -> None:
        self._settings, self._fixed_of_features = at_start.settings, _fixed_of_features(at_start)
        self._clock = clock
        self.applied_at = clock()  # when the configuration in force was read
        self._failure: _Failure | None = None
        self._changed_fixed: tuple[str, ...] = ()
        self._changed_fixed_since = 0.0
        self._log = structlog.get_logger()

    @property
    def succeeded(self) -> bool:
        """False if the last reload was refused or failed."""
        return self._failure is None

    @property
    def restart_needed(self) -> bool:
        """True while a setting that needs a restart differs from its value at start."""
        return bool(self._changed_fixed)

    @property
    def problems(self) -> tuple[str, ...]:
        """The reasons why the last reload was refused or failed; empty if it succeeded."""
        return () if self._failure is None else self._failure.texts

    @property
    def changed_fixed_settings(self) -> tuple[str, ...]:
        """The settings that need a restart and differ from their value at start."""
        return self._changed_fixed

    def on_invalid(self, mistakes: Sequence[str], *, requested: bool) -> None:
        """Record that the files are invalid.

        The errors are logged if they have changed since the last reload, or if an operator `requested` the reload.
        """
        if self._store_failure(TroubleKind.RELOAD_FAILED, mistakes) or requested:
            self._log.error("reload_failed", mistakes=list(mistakes), kept="the old")

    def on_refused(self, reason: str, *, requested: bool) -> None:
        """Record that the reload was refused, because too many clients would be lost. Logs as `on_invalid` does."""
        if self._store_failure(TroubleKind.RELOAD_REFUSED, [reason]) or requested:
            self._log.error("reload_refused", reason=reason)

    def on_applied(self, loaded: LoadedConfiguration) -> None:
        """Record that this configuration is in force, except for settings that need a restart."""
        self._failure = None
        self.applied_at = self._clock()
        changed = tuple(self._find_fixed_changes(loaded))
        if changed == self._changed_fixed:
            return
        if changed:
            self._log.warning("reload_needs_restart", settings=list(changed))
        else:
            self._log.info("restart_no_longer_needed", settings=list(self._changed_fixed))
        if not self._changed_fixed:
            self._changed_fixed_since = self._clock()
        self._changed_fixed = changed

    def troubles(self) -> Iterator[Trouble]:
        """Yield the current problems."""
        if self._failure is not None:
            text = _join_first(self._failure.texts, "; ")
            yield Trouble(kind=self._failure.kind, text=text, since=self._failure.since)
        if self._changed_fixed:
            settings = _join_first(self._changed_fixed, ", ")
            text = f"changed since the start, and takes effect after a restart: {settings}"
            yield Trouble(kind=TroubleKind.RESTART_NEEDED, text=text, since=self._changed_fixed_since)

    def _find_fixed_changes(self, loaded: LoadedConfiguration) -> list[str]:
        """Return the settings that differ from those at the start and need a restart to take effect."""
        old, new = self._settings, loaded.settings
        changed = _find_differences(old, new, FIXED_SETTINGS)
        old_fixed, new_fixed = self._fixed_of_features, _fixed_of_features(loaded)
        names = old_fixed.keys() | new_fixed.keys()
        changed += sorted(name for name in names if old_fixed.get(name) != new_fixed.get(name))
        delivery = _find_differences(old.delivery, new.delivery, FIXED_DELIVERY_SETTINGS)
        changed += [f"delivery.{name}" for name in delivery]
        if old.web is None or new.web is None:
            return changed if old.web == new.web else [*changed, "web"]
        return changed + [f"web.{name}" for name in _find_differences(old.web, new.web, FIXED_WEB_SETTINGS)]

    def _store_failure(self, kind: TroubleKind, texts: Sequence[str]) -> bool:
        """Store the failure. Return True if it differs from the stored one."""
        last, texts = self._failure, tuple(texts)
        if last is not None and (last.kind, last.texts) == (kind, texts):
            return False
        self._failure = _Failure(kind=kind, texts=texts, since=self._clock() if last is None else last.since)
        return True


def _fixed_of_features(configuration: LoadedConfiguration) -> dict[str, object]:
    return {name: value for part in configuration.parts for name, value in part.fixed.items()}


def _find_differences(old: Section, new: Section, names: Sequence[str]) -> list[str]:
    return [name for name in names if getattr(old, name) != getattr(new, name)]


def _join_first(texts: Sequence[str], separator: str) -> str:
    """Join the first MAX_LISTED texts, and count the others."""
    more = f"{separator}and {len(texts) - MAX_LISTED:,} more" if len(texts) > MAX_LISTED else ""
    return separator.join(texts[:MAX_LISTED]) + more
