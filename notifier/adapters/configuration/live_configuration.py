"""The configuration as it is now: settings, registry, keys and tokens, read together and replaced together.

A reload takes all of it or nothing. If something cannot be read, the old configuration stays; the log and a metric say
so. Issuers, keys, clients, tokens, and the defaults that clients inherit take effect at once. Changes that need a
restart are logged.
"""

import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import structlog
from cryptography.fernet import MultiFernet

from notifier.adapters.configuration.config_file import examine_settings, read_credentials, read_subject_key
from notifier.adapters.configuration.event_sources import compile_sources
from notifier.adapters.configuration.file_watch import Stamp, stamps_of
from notifier.adapters.configuration.reload_state import ReloadState
from notifier.adapters.configuration.source_secrets import read_source_secrets
from notifier.adapters.configuration.tokens_file import load_tokens
from notifier.adapters.configuration.upstream_issuers import upstream_mistakes, upstream_warnings
from notifier.adapters.configuration.web_keys import read_web_keys
from notifier.adapters.registries.answers import HeldAnswers
from notifier.adapters.registries.clients_file import AnswerOf, answered, no_collections, read_registry, unanswered
from notifier.adapters.registries.layer import ClientsOf, Layer
from notifier.adapters.registries.layers import Needs, lay_again
from notifier.adapters.signers.key_files import KeySource, examine_keys
from notifier.adapters.signers.key_ring import KeyRing
from notifier.adapters.telemetry.audit import write_audit
from notifier.adapters.tls.listener_context import ListenerContext
from notifier.adapters.tls.pem_files import connecting_context
from notifier.domain.api_token import ApiToken
from notifier.domain.client import Algorithm, Client
from notifier.domain.client_rows import SourceAnswer
from notifier.domain.errors import ConfigurationError, Mistake, OurFault
from notifier.domain.published_keys import Signing
from notifier.domain.registry import Registry
from notifier.domain.registry_checks import find_unsignable, too_much_lost
from notifier.settings.policies import NO_EFFECT
from notifier.settings.service_settings import KeySettings, Settings

TOLD = 20  # warnings of one reading that are logged one by one: there may be as many as clients
PAUSE = 0.001  # seconds between two parts of a refresh, in which the event loop runs
FREED = 200  # clients freed in one step
KEPT = "the old configuration is kept. Correct the files, or accept the loss: notifier reload --accept-loss"


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """Everything that was read at one time. `stamps` were taken before the files were read.

    `warnings`: settings that are accepted and have no effect. `faults`: clients that a registry source has and that
    cannot be used. `needs` and `layers` serve a refresh of a registry source; if there is none, there are no layers.
    `source_secrets` prove the senders of sources, by name. `web_keys` seal the URLs of pages.
    """

    settings: Settings
    registry: Registry
    keys: KeyRing
    tokens: tuple[ApiToken, ...] | None
    stamps: Mapping[Path, Stamp | None]
    warnings: tuple[Mistake, ...] = ()
    faults: tuple[Mistake, ...] = ()
    needs: Needs
    layers: Sequence[Layer] = ()
    source_secrets: Mapping[str, tuple[bytes, ...]] = field(default_factory=dict, repr=False)
    web_keys: MultiFernet | None = field(default=None, repr=False)

    def log_warnings(self) -> None:
        """Log each warning."""
        log = structlog.get_logger()
        for each in self.warnings[:TOLD]:
            log.warning("setting_without_effect", setting=each.path, reason=each.text)
        if more := len(self.warnings[TOLD:]):
            log.warning("settings_without_effect", more=more, hint="`notifier check` lists all")
        log_faults(self.faults)


def log_faults(faults: Sequence[Mistake]) -> None:
    """Log each client that cannot be used."""
    log = structlog.get_logger()
    for each in faults[:TOLD]:
        log.warning("client_left_out", client=each.path, reason=each.text)
    if more := len(faults[TOLD:]):
        log.warning("clients_left_out", more=more, hint="`notifier clients list` tells all")


def load(
    path: Path | None,
    environ: Mapping[str, str],
    named: set[Path] | None = None,
    *,
    starting: bool = False,
    answer_of: AnswerOf = unanswered,
    keep_rows: bool = False,
) -> Loaded:
    """Read everything. Raises ConfigurationError with every mistake of every file.

    What depends on a wrong part is not judged. Adds each file that is named to `named`, even if it raises an error.
    `starting`: also check what a worker reads once, at its start. `answer_of` gives the clients of registry sources
    that are not files. `keep_rows`: have `layers` in any case.
    """
    named = set() if named is None else named
    first = {} if path is None else stamps_of((path.absolute(),))
    usable = examine_settings(path, environ, named)
    settings = usable.settings
    stamps = {**stamps_of(named), **first}
    mistakes = list(usable.mistakes)
    unsure = usable.unsure
    if not settings.issuers:
        text = 'at least one is needed, such as issuers: {"https://id.example.com": {keys: [{file: key.pem}]}}'
        mistakes += [] if "issuers" in unsure else [Mistake("issuers", text)]
        unsure |= {"issuers"}
    sources = {iss: [None if key is None else key_source(key) for key in of] for iss, of in usable.keys.items()}
    keys, of_keys = examine_keys(sources)
    whole = {iss for iss, of_issuer in sources.items() if of_issuer and len(keys.of(iss)) == len(of_issuer)}
    needs = Needs(
        settings=settings,
        algorithms_of=lambda iss: keys.algorithms_of(iss) if iss in whole else frozenset(Algorithm),
        unsure=unsure,
    )
    layered, layers = read_registry(needs, named, answer_of, keep_rows=keep_rows)
    stamps = {**stamps_of(named), **stamps}
    mistakes += [*layered.mistakes, *of_keys]
    mistakes += find_unsignable(layered.registry, needs.algorithms_of)
    warnings = list(layered.warnings)
    tokens = None
    try:
        if settings.api is not None and settings.api.tokens_file is not None:
            tokens = load_tokens(settings.api.tokens_file, None if "issuers" in unsure else settings.issuers)
    except ConfigurationError as error:
        mistakes += error.mistakes
    source_secrets, of_sources = read_source_secrets(settings.sources)
    mistakes += of_sources
    web_keys, of_web = read_web_keys(settings)
    mistakes += of_web
    mistakes += compile_sources(settings, unsure)[1]
    mistakes += upstream_mistakes(settings, unsure)
    if starting:
        mistakes += _mistakes_at_start(settings)
    if mistakes:
        raise ConfigurationError(mistakes)
    if settings.delivery.circuit is not None:
        warnings.insert(0, Mistake("delivery.circuit", NO_EFFECT))
    if settings.api is None:
        text = "has no effect without a section `api`, which opens the listener"
        warnings += [Mistake(f"sources.{name}.http", text) for name, of in settings.sources.items() if of.http]
    warnings += upstream_warnings(settings)
    return Loaded(
        settings=settings, registry=layered.registry, keys=keys, tokens=tokens, stamps=stamps,
        warnings=tuple(warnings), faults=tuple(layered.faults), needs=needs, layers=layers,
        source_secrets=source_secrets, web_keys=web_keys,
    )  # fmt: skip


def _mistakes_at_start(settings: Settings) -> list[Mistake]:
    """Check the secrets and TLS files that a worker reads once. A client's TLS files concern only its deliveries."""
    mistakes: list[Mistake] = []
    looks: list[Callable[[], object]] = [lambda: read_credentials(settings.queue), lambda: read_subject_key(settings)]
    if settings.api is not None and settings.api.tls is not None:
        looks.append(partial(ListenerContext, settings.api.tls, "api"))
    if settings.web is not None and settings.web.tls is not None:
        looks.append(partial(ListenerContext, settings.web.tls, "web"))
    for look in looks:
        try:
            look()
        except ConfigurationError as error:
            mistakes += error.mistakes
    try:
        if settings.queue.tls is not None:
            connecting_context(settings.queue.tls.files())
    except OurFault as fault:
        mistakes.append(Mistake("queue.tls", str(fault)))
    return mistakes


def key_source(key: KeySettings) -> KeySource:
    """The key's settings as the reader of keys takes them."""
    not_before = None if key.not_before is None else key.not_before.timestamp()
    return KeySource(path=key.file, not_before=not_before, kid=key.kid)


class LiveConfiguration:
    """Holds the last good reading. It is the pipeline's signer and gives it the registry."""

    def __init__(
        self, path: Path | None, environ: Mapping[str, str], loaded: Loaded, held: HeldAnswers | None = None
    ) -> None:
        """`held`: what the registry sources of `loaded` answered."""
        self._path = path
        self._environ = environ
        self.now = loaded
        self.answers = HeldAnswers() if held is None else held
        self.named: set[Path] = set()
        """The files that the last reload named, whether or not it was taken."""
        self.reloads = ReloadState(loaded.settings, time.time)

    def registry(self) -> Registry:
        """The clients as registered now."""
        return self.now.registry

    def tokens(self) -> tuple[ApiToken, ...] | None:
        """The tokens of the API; None if it asks for none."""
        return self.now.tokens

    def sign(
        self, iss: str, alg: Algorithm, typ: str | None, claims: Mapping[str, object]
    ) -> Coroutine[None, None, str]:
        """Sign with the keys as they stand now, as KeyRing.sign does."""
        return self.now.keys.sign(iss, alg, typ, claims)

    def signing(self, iss: str) -> tuple[Signing, ...]:
        """What signs for the issuer at this moment, for each algorithm that its keys can do."""
        return self.now.keys.signing(iss)

    def reload(self, *, asked: bool, accepted_by: str | None = None) -> bool:
        """Read everything again; True if it was taken. `asked`: by somebody, not since a file changed.

        It is refused if too many clients could no longer be told. `accepted_by`: who accepts that.

        Never raises: no file may end a worker that runs.
        """
        self.named = set()
        answers = self.answers.copy()
        try:
            loaded = load(self._path, self._environ, self.named, answer_of=answers.held_or_read)
        except Exception as error:  # noqa: BLE001  see above
            mistakes = map(str, error.mistakes) if isinstance(error, ConfigurationError) else [type(error).__name__]
            self.reloads.failed(list(mistakes), asked=asked)
            return False
        loss = too_much_lost(self.now.registry, loaded.registry)
        if loss is not None and accepted_by is None:
            self.reloads.refused(f"{loss}; {KEPT}", asked=asked)
            return False
        if loss is not None:
            write_audit("reload_loss_accepted", who=accepted_by, loss=loss)
        loaded.log_warnings()
        if loaded.tokens is None:  # the listener stays open until a restart, so its guard stays too
            loaded = replace(loaded, tokens=self.now.tokens)
        old = _clients_of(self.now.registry)
        self.now, self.answers = loaded, answers
        _free(old)
        self.reloads.took(loaded.settings)
        clients = sum(len(of_issuer) for of_issuer in loaded.registry.clients.values())
        structlog.get_logger().info("reloaded", issuers=len(loaded.registry.issuers), clients=clients)
        return True

    def take_answer(self, name: str, answer: SourceAnswer, *, accepted_by: str | None = None) -> str | None:
        """Take what a registry source answered; return why not, if so. Runs in a thread.

        It is refused if too many of the source's clients could no longer be told. `accepted_by`: who accepts that.
        """
        now = self.now
        source, nth = next(
            (each, nth) for nth, each in enumerate(now.settings.registry.all_sources) if each.called == name
        )
        layers = list(now.layers)
        layers[nth] = answered(source, answer)
        with no_collections():
            pause = PAUSE if now.layers[nth].read else 0  # a worker that has no clients yet has nothing to do beside
            laid = lay_again(now.needs, now.registry, now.layers, nth, layers[nth], lambda: time.sleep(pause))
            of_source = ClientsOf((now.layers[nth], layers[nth]), tuple(now.settings.issuers))
            loss = too_much_lost(now.registry, laid.registry, of_source)
        if loss is not None and accepted_by is None:
            return f"refused: {loss}; to accept the loss: notifier reload --accept-loss"
        if loss is not None:
            write_audit("registry_loss_accepted", who=accepted_by, source=name, loss=loss)
        told = set(now.faults)
        log_faults(new := [fault for fault in laid.faults if fault not in told])
        self.answers.hold(source, answer)
        still = _still(now.faults, laid.registry)
        old = _clients_of(now.registry)
        self.now = replace(now, registry=laid.registry, layers=layers, faults=(*still, *new))
        del now, laid
        _free(old)
        return None


def _still(faults: Sequence[Mistake], registry: Registry) -> list[Mistake]:
    """Those of clients that are still left out: when one of the others comes back, it is told anew."""
    left_out = {f"client {client_id!r}" for of_issuer in registry.faults.values() for client_id in of_issuer}
    return [fault for fault in faults if fault.path.rpartition(" of registry source ")[0] in left_out]


def _clients_of(registry: Registry) -> list[Client]:
    return [client for of_issuer in registry.clients.values() for client in of_issuer.values()]


def _free(clients: list[Client]) -> None:
    """Free clients that nobody else holds, in parts: 100,000 at once would stop the event loop for 50 ms."""
    while clients:
        del clients[-FREED:]
        time.sleep(0)
