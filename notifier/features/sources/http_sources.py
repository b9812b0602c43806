"""Build the sources that accept events over HTTP from the current configuration, for their routes."""

import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from functools import partial

from notifier.configuration.live_configuration import LiveConfiguration
from notifier.configuration.loading import LoadedConfiguration
from notifier.features.sources.post_rules import Challenge, HttpSource
from notifier.features.sources.sns_message import SnsTopic
from notifier.features.sources.sns_server import SnsServer
from notifier.features.sources.source_presets import SOURCE_PRESETS
from notifier.features.sources.source_proofs import BodySignature, HeaderSecret, Proof, SetVerifier, SnsVerifier
from notifier.features.sources.source_routes import SourceRoutes, once_name
from notifier.features.sources.source_settings import SetSettings, SourceHttpSettings, sources_of
from notifier.features.sources.sources_part import SourcesPart, names_addresses
from notifier.model.message import Lane, MessageDraft
from notifier.network.http.issuer_document import DocumentIssue, IssuerDocument
from notifier.network.http.issuer_documents import DocumentReader
from notifier.publishing.route_steps import ApiLimits, OncePublisher
from notifier.settings.service_settings import Settings
from notifier.tokens.transmitter_keys import TransmitterKeys

READ_TIMEOUT_SECONDS = 5.0  # for the JWK Set of the issuer of Security Event Tokens
_CHALLENGES: Mapping[str | None, Challenge] = {"okta_hook": "okta", "wso2": "websub"}  # by preset


class HttpSources:
    """Returns the currently configured sources, also after a reload. Keys that were read are kept over reloads."""

    def __init__(
        self,
        live: LiveConfiguration,
        publish: Callable[[Lane, MessageDraft], Awaitable[None]],
        sns: SnsServer | None = None,
        once: OncePublisher | None = None,
    ) -> None:
        """`publish` returns once a message is durable, and raises QueueError. `sns` sends the requests to AWS.

        `once` publishes for sources whose sender does not send again.
        """
        self._live = live
        self.routes = SourceRoutes(self.find_source, publish, ApiLimits(), list_names=self.list_names, once=once)
        if once is not None:
            once.add_senders(self.list_once)
        self._reader = DocumentReader()
        self._sns = sns or SnsServer(lambda: self._live.current.settings.template().route.egress)
        self._settings: Settings | None = None
        self._sources: Mapping[str, HttpSource] = {}
        self._keys: dict[SetSettings, TransmitterKeys] = {}

    def find_source(self, name: str) -> HttpSource | None:
        """Return the source of this name; None if it is not configured with `http`."""
        return self._current().get(name)

    def list_names(self) -> Iterable[str]:
        """Return the names of the sources that are configured with `http`."""
        return self._current()

    def list_once(self) -> Collection[str]:
        """Return the names, for metrics, of the sources whose senders do not send again."""
        return [once_name(name) for name, source in self._current().items() if source.sends_once]

    async def aclose(self) -> None:
        """Stop requests for keys and certificates."""
        await self._reader.close()
        await self._sns.close()

    def _current(self) -> Mapping[str, HttpSource]:
        loaded = self._live.current
        if loaded.settings is not self._settings:
            self._build_sources(loaded)
        return self._sources

    def _build_sources(self, loaded: LoadedConfiguration) -> None:
        """Replace all sources by those of a configuration."""
        sources = {}
        for name, source in sources_of(loaded.settings).items():
            if source.http is None:
                continue
            websub, compiled = source.http.websub, loaded.part(SourcesPart).sources[name]
            preset = SOURCE_PRESETS.get(source.preset or "")
            sources[name] = HttpSource(
                compiled=compiled,
                proof=self._build_proof(name, source.http, loaded),
                challenge=_CHALLENGES.get(source.preset) if websub is None else "websub",
                websub=websub,
                sends_once=preset is not None and preset.sends_once and not names_addresses(compiled),
            )
        self._sources, self._settings = sources, loaded.settings

    def _build_proof(self, name: str, http: SourceHttpSettings, loaded: LoadedConfiguration) -> Proof:
        """Return what authenticates the sender of a source."""
        if http.set is not None:
            keys = TransmitterKeys(http.set.issuer, partial(self._read_keys, http.set), time.monotonic)
            keys = self._keys.setdefault(http.set, keys)
            return SetVerifier(keys, issuer=http.set.issuer, audience=http.set.audience, clock=time.time)
        if http.sns is not None:
            return SnsVerifier(SnsTopic(http.sns.topic_arn), self._sns)
        secrets = loaded.part(SourcesPart).proofs[name]
        if http.hmac is not None:
            hmac = http.hmac
            return BodySignature(header=hmac.header, algorithm=hmac.algorithm, prefix=hmac.prefix, secrets=secrets)
        assert http.header is not None, "SourceHttpSettings asks for one of the four"
        return HeaderSecret(header=http.header, values=secrets)

    async def _read_keys(self, settings: SetSettings) -> IssuerDocument | DocumentIssue:
        """Return the JWK Set of the issuer of Security Event Tokens, or why it cannot be read."""
        egress = self._live.current.settings.template().route.egress
        return await self._reader.read_configured(settings.jwks_uri, egress, settings.tls, READ_TIMEOUT_SECONDS)
