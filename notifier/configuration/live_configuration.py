"""Holds the current configuration: settings, registry, keys and tokens, read and replaced together.

A reload takes all of it or nothing. If any part cannot be read, the old configuration stays in force; the failure is
logged and counted. Changes of issuers, keys, clients, tokens and client defaults take effect at once. Changes that
need a restart are logged.
"""

import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import structlog

from notifier.configuration.clients.answers import HeldAnswers
from notifier.configuration.clients.client_rows import AnswerResult, SourceAnswer, add_first_seen
from notifier.configuration.clients.clients_file import pause_garbage_collection
from notifier.configuration.clients.guard import SourceTarget, guard_answer
from notifier.configuration.clients.layer import Layer
from notifier.configuration.clients.registry_checks import find_excessive_loss, record_losses
from notifier.configuration.configured_feature import key_kinds_of, reader_builder
from notifier.configuration.loading import MAX_LOGGED, LoadedConfiguration, load, log_faults, log_ignored_values
from notifier.configuration.reload_state import ReloadState
from notifier.model.api_token import ApiToken
from notifier.model.client import Algorithm, Client
from notifier.model.errors import ConfigurationError, InputIssue
from notifier.model.registry import ENDLESS_SECONDS, Registry
from notifier.telemetry.audit import write_audit
from notifier.tokens.published_keys import Signing
from notifier.tokens.signers import Signers

PAUSE_SECONDS = 0.001  # seconds that a refresh sleeps between two parts, so that the event loop runs
CLIENTS_PER_FREE = 200  # clients freed in one step
REFUSED_ADVICE = "the old configuration is kept. Correct the files, or accept the loss: notifier reload --accept-loss"


class LiveConfiguration:
    """Holds the last configuration that was read without errors. The pipeline signs and looks up clients with it."""

    def __init__(
        self,
        path: Path | None,
        environ: Mapping[str, str],
        loaded: LoadedConfiguration,
        answers: HeldAnswers | None = None,
        signers: Signers | None = None,
    ) -> None:
        """`answers`: the answers of the registry sources of `loaded`. `signers`: the signers of keys outside files."""
        self.path = path
        self._environ = environ
        self.current = loaded
        self.signers = Signers(key_kinds_of(loaded.features)) if signers is None else signers
        self.answers = HeldAnswers() if answers is None else answers
        self.named: set[Path] = set()
        """The files named by the last reload, even if it failed or was refused."""
        self.reloads = ReloadState(loaded, time.time)

    def registry(self) -> Registry:
        """Return the current registry of clients."""
        return self.current.registry

    def tokens(self) -> tuple[ApiToken, ...] | None:
        """Return the tokens of the API; None if it requires none."""
        return self.current.tokens

    def sign(
        self, iss: str, alg: Algorithm, typ: str | None, claims: Mapping[str, object]
    ) -> Coroutine[None, None, str]:
        """Sign with the current keys. See KeyRing.sign."""
        return self.current.keys.sign(iss, alg, typ, claims)

    def current_keys(self, iss: str) -> tuple[Signing, ...]:
        """Return the keys that sign for the issuer now, one for each algorithm that its keys support."""
        return self.current.keys.current_keys(iss)

    def future_keys(self, iss: str) -> tuple[Signing, ...]:
        """Return the keys that will sign for the issuer later."""
        return self.current.keys.future_keys(iss)

    def reload(self, *, requested: bool, accepted_by: str | None = None) -> bool:
        """Read everything again, and return True if it is in force now.

        `requested`: an operator requested it; otherwise a file has changed. A reload that would make too many clients
        unreachable is refused, unless `accepted_by` names the operator who accepts the loss. Never raises: no file may
        end a running worker.
        """
        self.named = set()
        answers = self.answers.copy()
        try:
            features = self.current.features
            answer_of = partial(answers.get_or_read, reader_builder(features))
            loaded = load(self.path, self._environ, features, self.named, answer_of=answer_of, signers=self.signers)
        except Exception as error:  # noqa: BLE001  see above
            mistakes = map(str, error.mistakes) if isinstance(error, ConfigurationError) else [type(error).__name__]
            self.reloads.on_invalid(list(mistakes), requested=requested)
            return False
        loss = find_excessive_loss(self.current.registry, loaded.registry)
        if loss is not None and accepted_by is None:
            self.reloads.on_refused(f"{loss}; {REFUSED_ADVICE}", requested=requested)
            return False
        if loss is not None:
            write_audit("reload_loss_accepted", who=accepted_by, loss=loss)
        loaded.log_warnings()
        loaded = replace(loaded, registry=self._with_losses(_with_grace(loaded.registry, loaded.layers)))
        if loaded.tokens is None:  # the listener stays open until a restart, so its guard stays too
            loaded = replace(loaded, tokens=self.current.tokens)
        old = _list_clients(self.current.registry)
        self.current, self.answers = loaded, answers
        _free(old)
        self.reloads.on_applied(loaded)
        clients = sum(len(of_issuer) for of_issuer in loaded.registry.clients.values())
        structlog.get_logger().info("reloaded", issuers=len(loaded.registry.issuers), clients=clients)
        return True

    def take_answer(self, name: str, answer: SourceAnswer | None, *, accepted_by: str | None = None) -> AnswerResult:
        """Apply the answer of a registry source (None: the source was dropped). Runs in a thread.

        If too many of the source's clients would become unreachable, these clients stay as they are, except for
        clients that the source has listed for less than a day. All other changes are applied. `accepted_by`: the
        operator who accepts the loss.
        """
        current = self.current
        source, nth = next(
            (source, nth)
            for nth, source in enumerate(current.settings.registry.all_sources)
            if source.source_name == name
        )
        last = self.answers.get(source)
        if answer is not None and current.settings.registry.cache is not None:
            answer = add_first_seen(answer, last)
        pause = PAUSE_SECONDS if current.layers[nth].read else 0  # a worker without clients has no other work
        with pause_garbage_collection():
            target = SourceTarget(
                build_context=current.build_context, registry=current.registry, layers=current.layers,
                source=source, nth=nth, pause=lambda: time.sleep(pause),
            )  # fmt: skip
            guard_result = guard_answer(target, answer, last, accepted=accepted_by is not None)
            del target
            layers = [guard_result.layer if number == nth else layer for number, layer in enumerate(current.layers)]
            registry = self._with_losses(_with_grace(guard_result.built.registry, layers))
        if guard_result.loss is not None and accepted_by is not None:
            write_audit("registry_loss_accepted", who=accepted_by, source=name, loss=guard_result.loss)
        built, result = guard_result.built, guard_result.result
        old_faults = set(current.faults)
        log_faults(new := [fault for fault in built.faults if fault not in old_faults])
        log_ignored_values(*built.registry.newly_ignored(current.registry))
        self.answers.hold(source, result.answer)
        remaining = _remaining_faults(current.faults, built.registry)
        old = _list_clients(current.registry)
        self.current = replace(current, registry=registry, layers=layers, faults=(*remaining, *new))
        del current, built, guard_result
        _free(old)
        return result

    def _with_losses(self, registry: Registry) -> Registry:
        """Return the registry with the recently lost addresses noted, and log the clients that lose theirs now."""
        noted, lost = record_losses(self.current.registry, registry, time.monotonic())
        log = structlog.get_logger()
        for client in lost[:MAX_LOGGED]:
            left = client.client_id not in registry.clients_of(client.iss)
            why = "left the registry" if left else "is registered without an address now"
            log.warning(
                "client_address_lost", iss=client.iss, client_id=client.client_id, reason=why, grace=registry.grace,
                hint="its logouts wait for registry.grace; then those that wait become dead letters (unknown_client)",
            )  # fmt: skip
        if more := len(lost[MAX_LOGGED:]):
            log.warning("clients_address_lost", more=more, hint="`notifier check` counts the clients without a URI")
        return noted


def _with_grace(registry: Registry, layers: Sequence[Layer]) -> Registry:
    """Return the registry, with endless grace for unknown clients while a source was never read."""
    return registry if all(layer.read for layer in layers) else replace(registry, grace=ENDLESS_SECONDS)


def _remaining_faults(faults: Sequence[InputIssue], registry: Registry) -> list[InputIssue]:
    """Return the faults of clients that are still left out. A fault that returns later is logged again."""
    left_out = {f"client {client_id!r}" for of_issuer in registry.faults.values() for client_id in of_issuer}
    return [fault for fault in faults if fault.path.rpartition(" of registry source ")[0] in left_out]


def _list_clients(registry: Registry) -> list[Client]:
    return [client for of_issuer in registry.clients.values() for client in of_issuer.values()]


def _free(clients: list[Client]) -> None:
    """Free the clients in parts: freeing 100,000 at once would block the event loop for 50 ms."""
    while clients:
        del clients[-CLIENTS_PER_FREE:]
        time.sleep(0)
