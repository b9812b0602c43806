"""Builds and runs the checks of `notifier doctor` for a configuration: of its queue, issuers, clients and files."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Container, Iterator, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from yarl import URL

from notifier.configuration.clients.layer import Layer
from notifier.configuration.clients.registry_checks import is_sent_signatures
from notifier.configuration.clients.source_reading import DirectReader
from notifier.configuration.library_examinations import EXPLAIN_COMMAND, UPDATE_ADVICE, library_hooks
from notifier.configuration.loading import LoadedConfiguration
from notifier.configuration.provenance import effective_clients_of
from notifier.configuration.secret_files import find_exposed_files, secrets_of
from notifier.delivery.channels import build_channels
from notifier.delivery.ports import ChannelTools
from notifier.features import FEATURES
from notifier.model.client import Client, ClientKeysSource, TlsFiles
from notifier.model.errors import QueueError
from notifier.model.ids import new_id
from notifier.model.ignored_members import group_issues
from notifier.model.own_thread import read_in_thread
from notifier.model.presets import PRESETS
from notifier.model.printable import counted
from notifier.network.http.issuer_document import DocumentIssue, IssuerDocument, discovered_egress
from notifier.network.http.issuer_documents import DocumentReader
from notifier.network.http.probe import Probe
from notifier.network.http.transport import HttpTransport
from notifier.network.listeners.certificates import find_presented_files, read_expiries
from notifier.operators.doctor.canary import CanaryTools, canary_client, send_canary
from notifier.operators.doctor.doctor import Area, Check, Finding, examine, failure, group_finding, ok, warning
from notifier.operators.doctor.doctor_clients import Server, examine_server, judge_registry, servers_of
from notifier.operators.doctor.doctor_keys import (
    ExaminedIssuer,
    examine_issuer,
    examine_keys,
    judge_jwks,
    key_sources_of,
)
from notifier.operators.doctor.doctor_queue import examine_queue
from notifier.operators.doctor.doctor_workers import AREAS, Statuses, judge_certificate, judge_hooks, judge_workers
from notifier.operators.status.own_state import read_status
from notifier.operators.status.service_status import ServiceStatus, seen_keys_of
from notifier.queues.building import build_queue
from notifier.queues.sqlite.lock import has_worker
from notifier.settings.api_tokens import find_expiring_tokens
from notifier.settings.policies import TlsSettings
from notifier.tokens.client_encryption import READ_TIMEOUT_SECONDS, ClientEncryption, ClientKeyReader
from notifier.tokens.first_day import Seen

ISSUER_TIMEOUT_SECONDS = 10.0  # for each of the two documents of an issuer
BROKER_TIMEOUT_SECONDS = 60.0  # each host of a cluster has 10 s to connect
FILE_TIMEOUT_SECONDS = 300.0  # a whole queue file may be read
WORKERS_TIMEOUT_SECONDS = 15.0  # for the answers of the workers
SERVER_MARGIN_SECONDS = 5.0  # beyond the time limits of the requests to a server


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorScope:
    """The checks to make. `canary`, `canary_issuer`: the client that receives a token. `offline`: use no network.

    `risk_accepted`: the operator accepts the risk of that canary.
    """

    offline: bool = False
    canary: str | None = None
    canary_issuer: str | None = None
    risk_accepted: bool = False


async def examine_installation(
    loaded: LoadedConfiguration, sources: DirectReader, scope: DoctorScope, progress: Callable[[int, int], None]
) -> list[Finding]:
    """Run the checks of the scope, and return their findings. Raises ConfigurationError as `make_canary` does.

    `progress` receives the number of finished checks and of all checks. `sources`: the reader of the registry sources.
    """
    checks = _Checks(loaded, sources, offline=scope.offline)
    async with AsyncExitStack() as stack:
        for resource in (checks.reader, checks.client_keys, checks.encryption):
            stack.push_async_callback(resource.close)
        for connector in (checks.probe, checks.transport):
            await connector.open()
            stack.push_async_callback(connector.close)
        selected = list(checks.list_local())
        if not scope.offline:
            stack.push_async_callback(loaded.keys.close)
            await loaded.keys.check()
            selected += checks.list_remote()
        if scope.canary is not None:
            selected.append(checks.make_canary(scope.canary, scope))
        stack.push_async_callback(checks.worker_status.close)
        return await examine(selected, progress)


class _Checks:
    """The checks of one configuration, and their dependencies."""

    def __init__(self, loaded: LoadedConfiguration, sources: DirectReader, *, offline: bool) -> None:
        self._loaded = loaded
        self._sources = sources
        self._settings = loaded.settings
        self._clients = [client for clients in loaded.registry.clients.values() for client in clients.values()]
        self.worker_status = _WorkerStatus(loaded, {client.key for client in self._clients}, offline=offline)
        self.reader = DocumentReader()
        self.client_keys = ClientKeyReader()
        self.encryption = ClientEncryption(self.client_keys.read, time.monotonic)
        self.probe = Probe()
        self.transport = HttpTransport()

    def list_local(self) -> Iterator[Check]:
        """Yield the checks that are also made offline. The workers are then queried only through an embedded queue."""

        async def registry() -> Sequence[Finding]:
            return [*judge_registry(self._clients, self._loaded.registry), *judge_jwks(self._clients)]

        async def registry_sources() -> Sequence[Finding]:
            return list(self._check_registry_sources())

        yield Check(area=Area.CLIENT, subject="clients", timeout=FILE_TIMEOUT_SECONDS, run=registry)
        yield Check(area=Area.CLIENT, subject="registry sources", timeout=FILE_TIMEOUT_SECONDS, run=registry_sources)
        yield Check(
            area=Area.WORKER, subject="workers", timeout=2 * WORKERS_TIMEOUT_SECONDS, run=self.worker_status.findings
        )
        yield Check(area=Area.WORKER, subject="libraries", timeout=FILE_TIMEOUT_SECONDS, run=self._check_libraries)
        yield Check(area=Area.KEYS, subject="secrets", timeout=FILE_TIMEOUT_SECONDS, run=self._check_secrets)
        yield Check(area=Area.LISTENER, subject="api.tokens_file", timeout=FILE_TIMEOUT_SECONDS, run=self._check_tokens)
        if self._settings.queue.sqlite_file is not None:
            yield self._check_queue(str(self._settings.queue.sqlite_file), FILE_TIMEOUT_SECONDS)
        for (use, name), certificate in find_presented_files(self._settings, self._loaded.registry).items():
            yield _check_certificate(use, name, certificate)

    async def _check_libraries(self) -> Sequence[Finding]:
        return list(judge_hooks(library_hooks(self._settings), f"{UPDATE_ADVICE}: {EXPLAIN_COMMAND}"))

    async def _check_tokens(self) -> Sequence[Finding]:
        issues = find_expiring_tokens(self._loaded.tokens or (), time.time())
        return [warning(Area.LISTENER, issue.path, *issue.text.split(": ", 1)) for issue in issues]

    def list_remote(self) -> Iterator[Check]:
        """Yield the checks over the network."""
        if self._settings.queue.sqlite_file is None:
            hosts = [URL(url) for url in self._settings.queue.url]
            addresses = ", ".join(f"{host.host}:{host.port}" if host.port else str(host.host) for host in hosts)
            yield self._check_queue(addresses, BROKER_TIMEOUT_SECONDS)
        for iss in self._settings.issuers:
            yield self._check_issuer(iss)
        for feature in FEATURES:
            yield from feature.checks(self._loaded, self.reader)
        yield from map(self._check_server, servers_of(self._clients))
        for source, clients in key_sources_of(self._clients).items():
            yield self._check_client_keys(source, clients)

    def make_canary(self, client_id: str, scope: DoctorScope) -> Check:
        """Return the check that sends a token. Raises ConfigurationError unless exactly one client matches."""
        client = canary_client(self._clients, client_id, scope.canary_issuer)
        tools = ChannelTools(signer=self._loaded.keys, clock=time.time, new_jti=new_id)
        channels = build_channels(tools, self.encryption, [feature.channels for feature in FEATURES])
        canary = CanaryTools(
            channels=channels, transport=self.transport, new_id=new_id, risk_accepted=scope.risk_accepted
        )
        run = partial(send_canary, client, canary)
        return Check(area=Area.CANARY, subject=client_id, timeout=2 * client.timeout, run=run)

    def _check_client_keys(self, source: ClientKeysSource, clients: Sequence[Client]) -> Check:
        timeout = READ_TIMEOUT_SECONDS + SERVER_MARGIN_SECONDS
        run = partial(examine_keys, source, clients, self.client_keys.read)
        return Check(area=Area.CLIENT, subject=source.uri, timeout=timeout, run=run)

    def _check_registry_sources(self) -> Iterator[Finding]:
        for layer in self._loaded.layers:
            if layer.file is not None:
                continue
            subject = f"registry source {layer.name}"
            problem = self._sources.problems.get(layer.name)
            if problem is not None:
                yield failure(Area.CLIENT, subject, problem, "workers keep its last good answer; see the runbook")
            elif layer.name in self._sources.cached:
                yield ok(Area.CLIENT, subject, f"{self._format_served(layer)} in the cache")
            elif self._sources.offline:
                yield ok(Area.CLIENT, subject, "not read, because of --offline, and not in the cache")
            elif layer.rows:
                yield ok(Area.CLIENT, subject, f"{self._format_served(layer)}, read now")
            else:
                yield warning(Area.CLIENT, subject, "has no clients", "register them there, or remove the source")
        for group in group_issues(self._loaded.faults):
            yield group_finding(group, "correct it where the client is registered, or follow the text here")
        for group in self._loaded.registry.ignored_groups():
            yield group_finding(group, "remove it where the client is registered, or write it in a `file` source")

    def _format_served(self, layer: Layer) -> str:
        served = effective_clients_of(self._loaded, layer)
        return counted(served.clients, "client") + (f" ({served.left_out:,} left out)" if served.left_out else "")

    async def _check_secrets(self) -> Sequence[Finding]:
        secrets = secrets_of(self._settings, self._loaded.registry, self._loaded.parts)
        exposures = await read_in_thread("secrets", partial(find_exposed_files, secrets), within=FILE_TIMEOUT_SECONDS)
        return [warning(Area.KEYS, secret.setting, secret.text, secret.advice) for secret in exposures]

    def _check_queue(self, address: str, timeout: float) -> Check:
        queue = build_queue(self._settings.queue, self._loaded.bindings)
        run = partial(examine_queue, queue, address, self._loaded.registry)
        return Check(area=Area.QUEUE, subject=address, timeout=timeout, run=run)

    def _check_issuer(self, iss: str) -> Check:
        settings, keys = self._settings.issuers[iss], self._loaded.keys
        clients = [client for client in self._clients if client.iss == iss]
        operator_uris = (iss,) if settings.jwks_uri is None else (iss, settings.jwks_uri)
        examined = ExaminedIssuer(
            iss=iss,
            jwks_uri=settings.jwks_uri,
            signing=keys.current_keys(iss),
            upcoming=keys.future_keys(iss),
            client_counts=Counter(client.token.alg for client in filter(is_sent_signatures, clients)),
            slow_clients=[client for client in clients if client.preset and PRESETS[client.preset].learns_keys_within],
        )
        read = self._make_reader(settings.tls, *operator_uris)
        return Check(
            area=Area.KEYS, subject=iss, timeout=3 * ISSUER_TIMEOUT_SECONDS + WORKERS_TIMEOUT_SECONDS,
            run=lambda: examine_issuer(examined, read, time.time, self.worker_status.keys),
        )  # fmt: skip

    def _make_reader(
        self, tls: TlsSettings | None, *operator_uris: str
    ) -> Callable[[str], Awaitable[IssuerDocument | DocumentIssue]]:
        """Return a reader of issuers' documents. On the servers of `operator_uris` private addresses are allowed."""
        policy = self._settings.template().route.egress
        files = TlsFiles() if tls is None else tls.files()
        return lambda uri: self.reader.read(
            uri, egress=discovered_egress(policy, uri, *operator_uris), tls=files, within=ISSUER_TIMEOUT_SECONDS
        )

    def _check_server(self, server: Server) -> Check:
        timeout = 2 * server.timeout + SERVER_MARGIN_SECONDS + WORKERS_TIMEOUT_SECONDS
        return Check(
            area=Area.CLIENT, subject=server.subject, timeout=timeout,
            run=lambda: examine_server(server, self.probe.reach, time.time, self.worker_status.client_states),
        )  # fmt: skip


class _WorkerStatus:
    """The answers of the running workers, requested once for all checks."""

    def __init__(self, loaded: LoadedConfiguration, known: Container[tuple[str, str]], *, offline: bool) -> None:
        self._loaded = loaded
        self._known = known
        self._offline = offline
        self._status_task: asyncio.Task[ServiceStatus | None] | None = None

    async def findings(self) -> Sequence[Finding]:
        """Return the findings about the workers; none if they cannot be queried."""
        status = await self._status()
        relays = self._loaded.settings.relays
        return [] if status is None else list(judge_workers(status, self._known, time.time(), relays))

    async def client_states(self) -> Statuses:
        """Return the state of each client at the workers."""
        status = await self._status()
        return {} if status is None else {(client.iss, client.client_id): client for client in status.clients}

    async def keys(self) -> Seen:
        """Return since when the workers see each key in its issuer's JWK Set."""
        status = await self._status()
        return {} if status is None else seen_keys_of(status)

    async def close(self) -> None:
        """Cancel the request."""
        if self._status_task is not None:
            self._status_task.cancel()
            await asyncio.wait({self._status_task})

    async def _status(self) -> ServiceStatus | None:
        if self._status_task is None:
            self._status_task = asyncio.create_task(self._request_status())
        return await asyncio.shield(self._status_task)

    async def _request_status(self) -> ServiceStatus | None:
        queue = self._loaded.settings.queue
        # The request is the doctor's only write to the embedded queue's file. Make it only if a worker can answer.
        can_answer = not self._offline if queue.sqlite_file is None else has_worker(queue.sqlite_file)
        if not can_answer:
            return None
        with suppress(QueueError, TimeoutError):  # the check of the queue reports the reason
            async with asyncio.timeout(WORKERS_TIMEOUT_SECONDS):
                return await read_status(build_queue(queue, self._loaded.bindings), time.time)
        return None


def _check_certificate(use: str, name: str, path: Path) -> Check:
    async def run() -> Sequence[Finding]:
        expiry = await read_in_thread(name, partial(read_expiries, [((use, name), path)]), within=FILE_TIMEOUT_SECONDS)
        return [judge_certificate(use, name, expiry[0][2] if expiry else None, time.time())]

    return Check(area=AREAS[use], subject=name, timeout=FILE_TIMEOUT_SECONDS, run=run)
