"""Builds the relays of the current configuration: their keys, and the rules for their tokens."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

from notifier.configuration.live_configuration import LiveConfiguration
from notifier.features.upstreams.relay_settings import RelaySettings, relayed_issuers, relays_of
from notifier.features.upstreams.relay_tokens import DeadLetterBudget, Relay, RelayRules, RelayVerifier
from notifier.features.upstreams.server_keys import KEEP_INTERVAL_SECONDS, ServerKeys, result_of
from notifier.features.upstreams.upstream_record import UpstreamRecord
from notifier.features.upstreams.upstream_token import LogoutTokenVerifier
from notifier.model.client import TlsFiles
from notifier.model.egress import HTTP_SETTING
from notifier.network.http.issuer_document import DocumentIssue, IssuerDocument, metadata_uri
from notifier.network.http.issuer_documents import Discovery, DocumentReader
from notifier.operators.status.service_status import RelayState
from notifier.settings.service_settings import Settings

LOOP_NAME = "notifier"
LOOP_HEADERS = {"CDN-Loop": LOOP_NAME}  # RFC 8586
DOCUMENT_TIMEOUT_SECONDS = 1.5  # a token may need metadata and keys, and servers wait 5 s for the answer
KEYS_TIMEOUT_SECONDS = 3.0  # of `jwks_uri`: Hydra makes its keys when they are first read, in 2 to 5 s


class ConfiguredRelays:
    """Returns the current relays."""

    def __init__(self, live: LiveConfiguration, record: UpstreamRecord) -> None:
        self._live = live
        self._record = record
        self._reader = DocumentReader(headers=LOOP_HEADERS)
        self._settings: Settings | None = None
        self._relays: Mapping[str, Relay] = {}
        self._current_relays()  # starts the metrics of each relay at zero

    def names(self) -> Collection[str]:
        """Return the names of all relays."""
        return self._current_relays().keys()

    def find_relay(self, name: str) -> Relay | None:
        """Return the relay of a name; None if it is not configured."""
        return self._current_relays().get(name)

    def states(self) -> list[RelayState]:
        """Return the states of the relays, for operators."""
        last_at = self._record.last_accepted_at
        return [
            RelayState(relay=name, iss=relay.iss, keys=result_of(relay.keys.held), last_token=last_at(name))
            for name, relay in self._current_relays().items()
        ]

    def are_served(self) -> bool:
        """Return whether there are relays, and the JWK Set of each can be served."""
        states = self.states()
        return bool(states) and all(state.is_served for state in states)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Read the keys from time to time while entered, so that a set is held when a server fails."""
        keeping = asyncio.create_task(self._keep())
        try:
            yield
        finally:
            keeping.cancel()
            with suppress(asyncio.CancelledError):
                await keeping
            for relay in self._relays.values():
                relay.keys.cancel()
            await self._reader.close()

    async def _keep(self) -> None:
        while True:
            await asyncio.gather(*(relay.keys.current(None) for relay in self._current_relays().values()))
            await asyncio.sleep(KEEP_INTERVAL_SECONDS)

    def _current_relays(self) -> Mapping[str, Relay]:
        """Return the relays by name. Build them again after a reload; keep those with unchanged settings."""
        settings = self._live.current.settings
        if settings is not self._settings:
            configured, previous = relays_of(settings), self._relays
            self._settings = settings
            self._record.create_relay_series(configured)
            self._relays = {
                name: self._build(name, configured[name], iss, previous.get(name))
                for name, iss in relayed_issuers(settings).items()
            }
            for name, relay in previous.items():
                if self._relays.get(name) is not relay:
                    relay.keys.cancel()
        return self._relays

    def _build(self, name: str, settings: RelaySettings, iss: str, previous: Relay | None) -> Relay:
        if previous is not None and previous.settings == settings and previous.iss == iss:
            return previous

        def read_keys() -> Awaitable[IssuerDocument | DocumentIssue]:
            return read_relay_keys(settings, iss, self._live.current.settings, self._reader)

        def get_own_jwks() -> Sequence[Mapping[str, str]]:
            return self._live.current.keys.jwks(iss)["keys"]

        keys = ServerKeys(name, read_keys, get_own_jwks, time.monotonic)
        server = LogoutTokenVerifier(keys, RelayRules(issuer=iss), time.time)
        return Relay(
            name=name, settings=settings, iss=iss, verifier=RelayVerifier(server, get_own_jwks), keys=keys,
            dead_letters=DeadLetterBudget(time.monotonic), registry=self._live.registry,
        )  # fmt: skip


async def read_relay_keys(
    relay: RelaySettings, iss: str, settings: Settings, reader: DocumentReader
) -> IssuerDocument | DocumentIssue:
    """Return the JWK Set of a relay from `jwks_uri`, otherwise from the `jwks_uri` of its metadata. Never raises.

    `reader` must send LOOP_HEADERS. `egress.allow_http` permits nothing here, as clients verify ID tokens by the set:
    the relay's `allow_http` does.
    """
    egress, issuer = settings.template().route.egress, settings.issuers.get(iss)
    tls = None if issuer is None else issuer.tls
    if relay.jwks_uri is not None:
        policy = replace(egress, allow_http=True)  # `RelaySettings` refuses http unless it is allowed
        return await reader.read_configured(relay.jwks_uri, policy, tls, KEYS_TIMEOUT_SECONDS)
    files = TlsFiles() if tls is None else tls.files()
    discovery = Discovery(issuer=iss, metadata=metadata_uri(iss), tls=files, within=DOCUMENT_TIMEOUT_SECONDS)
    document = await discovery.read_keys(reader, replace(egress, allow_http=relay.allow_http))
    if isinstance(document, DocumentIssue):
        return replace(document, text=document.text.replace(HTTP_SETTING, "allow_http of the relay"))
    return document
