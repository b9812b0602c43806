"""Builds what the doctor looks at, from a configuration: one check a queue, issuer, server and certificate."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from yarl import URL

from notifier.adapters.configuration.live_configuration import Loaded
from notifier.adapters.configuration.secret_files import exposed, secrets_of
from notifier.adapters.http import HttpTransport
from notifier.adapters.http.insides import watches
from notifier.adapters.http.issuer_documents import DocumentReader
from notifier.adapters.http.probe import Probe
from notifier.adapters.library_hooks import ADVICE
from notifier.adapters.queues.rabbitmq.insides import prepare
from notifier.adapters.tls.certificates import expiries, presented
from notifier.app.builders import build_queue
from notifier.app.ids import new_id
from notifier.domain.client import TlsFiles
from notifier.domain.errors import ConfigurationError, Mistake
from notifier.domain.issuer_document import IssuerDocument, UnreadDocument, issuer_egress
from notifier.domain.published_keys import Signing
from notifier.operations.canary import CanaryTools, send_canary
from notifier.operations.doctor import Area, Check, Finding, examine, failed, warning
from notifier.operations.doctor_clients import Server, examine_server, expiry_finding, judge_registry, servers_of
from notifier.operations.doctor_issuers import IssuerCase, examine_issuer
from notifier.operations.doctor_queue import examine_queue

ISSUER_WITHIN = 10.0  # seconds for each of an issuer's two documents
BROKER_WITHIN = 60.0  # each host of a cluster has 10 s to connect
FILE_WITHIN = 300.0  # a file is read from beginning to end


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is asked for. `offline`: nothing is connected to; `canary`: the client that gets a token."""

    offline: bool = False
    canary: str | None = None
    canary_issuer: str | None = None


async def examine_installation(
    loaded: Loaded, wish: Wish, started: Callable[[int], None], progress: Callable[[], None]
) -> list[Finding]:
    """What was found; `started` hears how many checks there are, `progress` of each that is done.

    Raises ConfigurationError where the canary's client is none.
    """
    tools = _Tools(loaded)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(tools.reader.close)
        for each in (tools.probe, tools.transport):
            await each.open()
            stack.push_async_callback(each.close)
        checks = list(tools.local())
        if not wish.offline:
            checks += tools.remote()
        if wish.canary is not None:
            checks.append(tools.canary(wish.canary, wish.canary_issuer))
        started(len(checks))
        return await examine(checks, progress)


class _Tools:
    """The adapters, and the checks made with them."""

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded
        self._settings = loaded.settings
        self._clients = [client for of_issuer in loaded.registry.clients.values() for client in of_issuer.values()]
        self.reader = DocumentReader()
        self.probe = Probe()
        self.transport = HttpTransport()

    def local(self) -> Iterator[Check]:
        """What needs no network."""

        async def registry() -> Sequence[Finding]:
            return list(judge_registry(self._clients))

        yield Check(area=Area.CLIENT, subject="clients", within=FILE_WITHIN, run=registry)
        yield Check(area=Area.QUEUE, subject="libraries", within=FILE_WITHIN, run=libraries)
        yield Check(area=Area.KEYS, subject="secrets", within=FILE_WITHIN, run=self._secrets)
        if self._settings.queue.sqlite_file is not None:
            yield self._queue(str(self._settings.queue.sqlite_file), FILE_WITHIN)
        for (use, name), certificate in presented(self._settings, self._loaded.registry).items():
            yield _certificate(use, name, certificate)

    def remote(self) -> Iterator[Check]:
        """What is looked at over the network."""
        if self._settings.queue.sqlite_file is None:
            yield self._queue(self._broker(), BROKER_WITHIN)
        for iss in self._settings.issuers:
            yield self._issuer(iss)
        yield from map(self._server, servers_of(self._clients))

    def canary(self, client_id: str, iss: str | None) -> Check:
        """Raises ConfigurationError where there is no such client, or it has several issuers."""
        found = [client for client in self._clients if client.client_id == client_id and iss in (None, client.iss)]
        if len(found) != 1:
            text = (
                f"there is no client {client_id!r}" if not found else f"{client_id!r} has several issuers: say --issuer"
            )
            raise ConfigurationError([Mistake("--canary", text)])
        (client,) = found
        tools = CanaryTools(signer=self._loaded.keys, transport=self.transport, clock=time.time, new_id=new_id)
        return Check(
            area=Area.CANARY, subject=client_id, within=2 * client.timeout, run=lambda: send_canary(client, tools)
        )

    async def _secrets(self) -> Sequence[Finding]:
        """Those that others may read."""
        files = secrets_of(self._settings, self._loaded.registry)
        found = await asyncio.to_thread(exposed, files)
        return [warning(Area.KEYS, each.setting, each.text, each.advice) for each in found]

    def _broker(self) -> str:
        hosts = [URL(url) for url in self._settings.queue.url]
        return ", ".join(f"{host.host}:{host.port}" if host.port else str(host.host) for host in hosts)

    def _queue(self, where: str, within: float) -> Check:
        queue = build_queue(self._settings.queue)
        return Check(area=Area.QUEUE, subject=where, within=within, run=lambda: examine_queue(queue, where))

    def _issuer(self, iss: str) -> Check:
        settings, keys = self._settings.issuers[iss], self._loaded.keys
        public = {key.kid: key.public for key in keys.of(iss)}
        now = time.time()
        case = IssuerCase(
            iss=iss,
            jwks_uri=settings.jwks_uri,
            signing=[Signing(alg=alg, public=public[kid]) for alg, kid in keys.signing_kids(iss).items()],
            coming=[
                Signing(alg=min(key.algorithms), public=key.public)
                for key in keys.of(iss)
                if key.not_before is not None and key.not_before > now
            ],
            used=Counter(
                client.token.alg for client in self._clients if client.iss == iss and client.backchannel_logout_uri
            ),
        )
        egress = issuer_egress(self._settings.template().route.egress)
        tls = TlsFiles() if settings.tls is None else settings.tls.files()

        async def read(uri: str) -> IssuerDocument | UnreadDocument:
            return await self.reader.read(uri, egress=egress, tls=tls, within=ISSUER_WITHIN)

        return Check(
            area=Area.KEYS,
            subject=iss,
            within=3 * ISSUER_WITHIN,
            run=lambda: examine_issuer(case, read, time.time),
        )

    def _server(self, server: Server) -> Check:
        return Check(
            area=Area.CLIENT,
            subject=server.subject,
            within=2 * server.within + 5,
            run=lambda: examine_server(server, self.probe.reach, time.time),
        )


async def libraries() -> Sequence[Finding]:
    """Those that are inside other than the versions tried: what rests on that is done in their own, slower way."""
    found = ((Area.QUEUE, "aiormq, pamqp", prepare()), (Area.CLIENT, "aiohttp", {"connections": watches()}))
    return [
        warning(area, library, f"{hook}: not as in the versions tried, so the slower way is taken", ADVICE)
        for area, library, looked_at in found
        for hook, fits in looked_at.items()
        if not fits
    ]


def _certificate(use: str, name: str, path: Path) -> Check:
    """One of ours that others must believe."""
    area = {"api": Area.LISTENER, "queue": Area.QUEUE}.get(use, Area.CLIENT)

    async def run() -> Sequence[Finding]:
        found = await asyncio.to_thread(expiries, [((use, name), path)])
        if not found:
            return [failed(area, name, "holds no certificate in PEM", "name our certificate, with its chain")]
        return [expiry_finding(area, name, "is shown by us", found[0][2], time.time())]

    return Check(area=area, subject=name, within=FILE_WITHIN, run=run)
