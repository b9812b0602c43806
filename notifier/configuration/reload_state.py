"""Records the result of the last reload and the changed settings that need a restart. Logs only changes of these."""

from collections.abc import Callable, Iterator, Sequence

import structlog

from notifier.configuration.loading import LoadedConfiguration
from notifier.model.frozen import frozen
from notifier.model.trouble import Trouble, TroubleKind

# Fixed settings: sections that are read once, at the start. A change needs a restart.
FIXED = ("queue", "ops", "api", "log", "metrics", "shutdown_grace")
FIXED_OF_DELIVERY = ("max_in_flight",)
FIXED_OF_WEB = ("listen", "tls")

MAX_LISTED = 5  # errors and settings that `status` lists


@frozen
class _Failure:
    kind: TroubleKind
    texts: tuple[str, ...]
    since: float


class ReloadState:
    """The reload state of a worker that started with this configuration. `clock`: epoch seconds."""

    def __init__(self, started: LoadedConfiguration, clock: Callable[[], float]) -> None:
        self._started = started
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
        """Record that the files are invalid. The same errors are logged again only if an operator requested it."""
        if self._store_failure(TroubleKind.RELOAD_FAILED, mistakes) or requested:
            self._log.error("reload_failed", mistakes=list(mistakes), kept="the old")

    def on_refused(self, reason: str, *, requested: bool) -> None:
        """Record that the reload would lose too many clients. Logged as in `on_invalid`."""
        if self._store_failure(TroubleKind.RELOAD_REFUSED, [reason]) or requested:
            self._log.error("reload_refused", reason=reason)

    def on_applied(self, loaded: LoadedConfiguration) -> None:
        """Record that this configuration is in force, except for settings that need a restart."""
        self._failure = None
        self.applied_at = self._clock()
        changed = tuple(find_fixed_changes(self._started, loaded))
        if changed == self._changed_fixed:
            return
        if changed:
            self._log.warning("reload_needs_restart", settings=list(changed))
        else:
            self._log.info("restart_no_longer_needed", settings=list(self._changed_fixed))
        self._changed_fixed_since = self._changed_fixed_since if self._changed_fixed else self._clock()
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

    def _store_failure(self, kind: TroubleKind, texts: Sequence[str]) -> bool:
        """Store the failure. Return True if it differs from the stored one."""
        last, texts = self._failure, tuple(texts)
        if last is not None and (last.kind, last.texts) == (kind, texts):
            return False
        self._failure = _Failure(kind=kind, texts=texts, since=self._clock() if last is None else last.since)
        return True


def find_fixed_changes(started: LoadedConfiguration, loaded: LoadedConfiguration) -> list[str]:
    """Return the settings that differ and need a restart."""
    old, new = started.settings, loaded.settings
    changed = [name for name in FIXED if getattr(old, name) != getattr(new, name)]
    before, now = (
        {name: value for part in configuration.parts for name, value in part.fixed.items()}
        for configuration in (started, loaded)
    )
    changed += sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    changed += [
        f"delivery.{name}" for name in FIXED_OF_DELIVERY if getattr(old.delivery, name) != getattr(new.delivery, name)
    ]
    if old.web is None or new.web is None:
        return changed if old.web is new.web else [*changed, "web"]
    return changed + [f"web.{name}" for name in FIXED_OF_WEB if getattr(old.web, name) != getattr(new.web, name)]


def _join_first(texts: Sequence[str], between: str) -> str:
    more = f"{between}and {len(texts) - MAX_LISTED:,} more" if len(texts) > MAX_LISTED else ""
    return between.join(texts[:MAX_LISTED]) + more
