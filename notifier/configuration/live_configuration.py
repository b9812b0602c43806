"""Holds the current configuration of a worker: settings, registry, keys and tokens, read and replaced together.

If any part cannot be read at a reload, the old configuration stays in force, and the failure is logged and counted.
Changed settings that need a restart (`reload_state.py`) are logged; all others take effect at once.
"""

import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import structlog

from notifier.configuration.clients.answers import HeldAnswers
from notifier.configuration.clients.client_rows import AnswerResult, SourceAnswer, add_first_seen
from notifier.configuration.clients.clients_file import pause_garbage_collection
from notifier.configuration.clients.guard import guard_answer
from notifier.configuration.clients.layer import Layer
from notifier.configuration.clients.registry_checks import find_excessive_loss, keep_followers, record_losses
from notifier.configuration.configured_feature import key_kinds_of, merge_jti_prefixes, reader_builder
from notifier.configuration.loading import MAX_LOGGED, LoadedConfiguration, load, log_faults, log_ignored_values
from notifier.configuration.reload_state import ReloadState
from notifier.model.client import Algorithm, Client
from notifier.model.errors import ConfigurationError, InputIssue, describe_error
from notifier.model.registry import ENDLESS_SECONDS, Registry
from notifier.settings.api_tokens import ApiToken
from notifier.telemetry.audit import write_audit
from notifier.tokens.published_keys import Signing
from notifier.tokens.signers import Signers

PAUSE_SECONDS = 0.001  # sleep of a refresh between two steps, so that the event loop runs
CLIENTS_FREED_PER_STEP = 200  # clients; freeing more at a time would block the event loop
REFUSED_ADVICE = "the old configuration is kept. Correct the files, or accept the loss: notifier reload --accept-loss"


@dataclass(frozen=True, slots=True)
class RouteChanges:
    """The `client_id` of clients, by issuer: new ones, ones with another address, and ones with another route.

    It refers to no client: an old registry would take 72 MiB if a list of 200,000 clients changes again meanwhile.
    """

    moved: dict[str, set[str]] = field(default_factory=dict)
    rerouted: dict[str, set[str]] = field(default_factory=dict)

    def updated(self, old: Registry, new: Registry) -> "RouteChanges":
        """Return these changes and those from `old` to `new`, of the clients of `new`."""
        updated = RouteChanges()
        for iss, clients in new.clients.items():
            old_clients, moved_before = old.clients_of(iss), self.moved.get(iss, ())
            moved, rerouted = updated.moved.setdefault(iss, set()), updated.rerouted.setdefault(iss, set())
            for client_id, client in clients.items():
                old_client = old_clients.get(client_id)
                if client_id in moved_before or old_client is None or old_client.logout_uri != client.logout_uri:
                    moved.add(client_id)
                elif client_id in self.rerouted.get(iss, ()) or _is_rerouted(old_client, client):
                    rerouted.add(client_id)
        return updated


class LiveConfiguration:
    """Holds the last configuration that was read without errors, for signatures and for lookups of clients."""

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
        self.configured_files: set[Path] = set()
        """The files that the last reload found in the configuration, even if the reload failed or was refused."""
        self.reloads = ReloadState(loaded, time.time)
        self.jti_prefixes = dict(merge_jti_prefixes(loaded.parts))
        """The first characters of the `jti` of logout tokens, by issuer. A reload changes it in place."""
        self._route_changes: list[RouteChanges] = []  # at most one; two threads use it

    def registry(self) -> Registry:
        """Return the current registry of clients."""
        return self.current.registry

    def take_route_changes(self) -> RouteChanges:
        """Return the changes of clients since the last call."""
        try:
            return self._route_changes.pop()
        except IndexError:
            return RouteChanges()

    def _record_route_changes(self, old: Registry, new: Registry) -> None:
        self._route_changes.append(self.take_route_changes().updated(old, new))

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

    def reload(
        self, *, requested: bool, accepted_by: str | None = None, claim: Callable[[], bool] = lambda: True
    ) -> bool:
        """Read the whole configuration again. Return True if the new configuration is in force.

        `requested`: an operator requested the reload; otherwise a file has changed. A reload that would make too many
        clients unreachable is refused, unless `accepted_by` names the operator who accepts the loss. Without
        effect if `claim` returns False once all is read. Never raises, because no file may end a running worker.
        """
        files: set[Path] = set()
        self.configured_files = files
        answers = self.answers.copy()
        try:
            features = self.current.features
            answer_of = partial(answers.get_or_read, reader_builder(features))
            loaded = load(self.path, self._environ, features, files, answer_of=answer_of, signers=self.signers)
        except Exception as error:  # noqa: BLE001  see above
            if not claim():
                return False
            mistakes = map(str, error.mistakes) if isinstance(error, ConfigurationError) else [describe_error(error)]
            self.reloads.on_invalid(list(mistakes), requested=requested)
            return False
        if not claim():
            return False
        loss = find_excessive_loss(self.current.registry, loaded.registry)
        if loss is not None and accepted_by is None:
            self.reloads.on_refused(f"{loss}; {REFUSED_ADVICE}", requested=requested)
            return False
        if loss is not None:
            write_audit("reload_loss_accepted", who=accepted_by, loss=loss)
        loaded.log_warnings()
        loaded = replace(loaded, registry=self._with_losses(_with_grace(loaded.registry, loaded.layers)))
        if loaded.tokens is None:  # the API's listener stays open until a restart, so it still needs the old tokens
            loaded = replace(loaded, tokens=self.current.tokens)
        old = self.current.registry
        self.current, self.answers = loaded, answers
        self.jti_prefixes |= (jti_prefixes := merge_jti_prefixes(loaded.parts))
        for iss in self.jti_prefixes.keys() - jti_prefixes.keys():
            del self.jti_prefixes[iss]
        self._record_route_changes(old, loaded.registry)
        old_clients = _list_clients(old)
        del old
        _free_clients(old_clients)
        self.reloads.on_applied(loaded)
        client_count = sum(map(len, loaded.registry.clients.values()))
        structlog.get_logger().info("reloaded", issuers=len(loaded.registry.issuers), clients=client_count)
        return True

    def take_answer(self, name: str, answer: SourceAnswer | None, *, accepted_by: str | None = None) -> AnswerResult:
        """Apply the answer of the registry source `name`, or remove its clients if `answer` is None. Call in a thread.

        If too many of the source's clients would become unreachable, these clients stay as they are, except for
        clients that the source has listed for less than a day. All other changes are applied. `accepted_by`: the
        operator who accepts the loss.
        """
        current = self.current
        sources = current.settings.registry.all_sources
        nth, source = next((nth, source) for nth, source in enumerate(sources) if source.source_name == name)
        last = self.answers.get(source)
        if answer is not None and current.settings.registry.cache is not None:
            answer = add_first_seen(answer, last)
        pause = PAUSE_SECONDS if current.layers[nth].read else 0  # a worker without clients has no other work
        with pause_garbage_collection():
            guard_result = guard_answer(
                current.build_context, current.registry, current.layers, nth, answer, last,
                lambda: time.sleep(pause), accepted=accepted_by is not None,
            )  # fmt: skip
            layers = [guard_result.layer if number == nth else layer for number, layer in enumerate(current.layers)]
            registry = self._with_losses(_with_grace(guard_result.built.registry, layers))
        if guard_result.loss is not None and accepted_by is not None:
            write_audit("registry_loss_accepted", who=accepted_by, source=name, loss=guard_result.loss)
        built, result = guard_result.built, guard_result.result
        old_faults = set(current.faults)
        new_faults = [fault for fault in built.faults if fault not in old_faults]
        log_faults(new_faults)
        log_ignored_values([*built.registry.newly_ignored(current.registry)])
        self.answers.hold(source, result.answer)
        remaining_faults = _remaining_faults(current.faults, built.registry)
        self.current = replace(current, registry=registry, layers=layers, faults=(*remaining_faults, *new_faults))
        self._record_route_changes(current.registry, registry)
        old_clients = _list_clients(current.registry)
        del current, built, guard_result  # references that would keep the old clients
        _free_clients(old_clients)
        return result

    def drop_former_followers(self, monotonic: float) -> None:
        """Drop the followers that no file has defined for `registry.grace`. Call only while nothing else is read."""
        registry = self.current.registry
        if registry.has_former_followers(monotonic):
            followers = keep_followers(registry, registry, monotonic)
            self.current = replace(self.current, registry=replace(registry, followers=followers))

    def _with_losses(self, registry: Registry) -> Registry:
        """Return the registry with its recent losses of clients' addresses, and log the new losses."""
        with_losses, lost = record_losses(self.current.registry, registry, time.monotonic())
        log = structlog.get_logger()
        for client in lost[:MAX_LOGGED]:
            has_left = client.client_id not in registry.clients_of(client.iss)
            reason = "left the registry" if has_left else "is registered without an address now"
            log.warning(
                "client_address_lost", iss=client.iss, client_id=client.client_id, reason=reason, grace=registry.grace,
                hint="its logouts wait for registry.grace; then those that wait become dead letters (unknown_client)",
            )  # fmt: skip
        if more := len(lost[MAX_LOGGED:]):
            log.warning("clients_address_lost", more=more, hint="`notifier check` counts the clients without a URI")
        return with_losses


def _with_grace(registry: Registry, layers: Sequence[Layer]) -> Registry:
    """Return the registry. Until each source was read once, deliveries for unknown clients wait without a limit."""
    return registry if all(layer.read for layer in layers) else replace(registry, grace=ENDLESS_SECONDS)


def _remaining_faults(faults: Sequence[InputIssue], registry: Registry) -> list[InputIssue]:
    """Return the faults of clients that are still left out of the registry.

    The other faults are forgotten, so that they are logged again when they recur.
    """
    left_out = {f"client {client_id!r}" for reasons in registry.faults.values() for client_id in reasons}
    return [fault for fault in faults if fault.path.rpartition(" of registry source ")[0] in left_out]


def _is_rerouted(old: Client, new: Client) -> bool:
    return old is not new and (old.route, old.paused) != (new.route, new.paused)


def _list_clients(registry: Registry) -> list[Client]:
    """Return the clients of all issuers."""
    return [client for clients in registry.clients.values() for client in clients.values()]


def _free_clients(clients: list[Client]) -> None:
    """Free the clients that nothing else refers to, in steps. In one, 100,000 would block the event loop for 50 ms."""
    while clients:
        del clients[-CLIENTS_FREED_PER_STEP:]
        time.sleep(0)  # lets the thread of the event loop run
