"""Build the upstream OpenID Providers of the current configuration: their keys, and their look-up of sessions."""

import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial

from aiohttp import web

from notifier.configuration.live_configuration import LiveConfiguration
from notifier.configuration.loading import LoadedConfiguration
from notifier.delivery.replacements import to_event_message
from notifier.features.upstreams.session_lookups import SessionEndpoint, SessionLookups
from notifier.features.upstreams.upstream import LocalSessions, SessionsUnavailable, UpstreamSession, to_local_session
from notifier.features.upstreams.upstream_issuers import local_issuer
from notifier.features.upstreams.upstream_record import UpstreamRecord
from notifier.features.upstreams.upstream_routes import ConfiguredUpstream, UpstreamDependencies, UpstreamRoutes
from notifier.features.upstreams.upstream_settings import ResolveSettings, UpstreamSettings, upstreams_of
from notifier.features.upstreams.upstream_sign_outs import (
    SignOutDependencies,
    SignOutPage,
    UpstreamFrontChannel,
    UpstreamSignOutRoutes,
)
from notifier.features.upstreams.upstream_token import LogoutTokenVerifier, UpstreamRules
from notifier.model.client import Algorithm, EgressPolicy, TlsFiles
from notifier.model.frozen import frozen
from notifier.model.ids import new_id
from notifier.model.message import Lane, Outgoing
from notifier.model.origins import origin_of
from notifier.network.http.issuer_document import DocumentIssue, IssuerDocument, issuer_egress
from notifier.network.http.issuer_documents import Discovery, DocumentReader
from notifier.tokens.foreign_keys import expand_names
from notifier.tokens.transmitter_keys import TransmitterKeys

DOCUMENT_TIMEOUT_SECONDS = 5.0


@frozen
class _UpstreamEntry:
    """An upstream. Keys and look-ups are kept over reloads that do not change its settings.

    `lookups` is None if none is needed (`same_sub`). Requests of browsers use `browser_lookups`, whose separate limit
    unauthenticated clients can exhaust.
    """

    settings: UpstreamSettings
    keys: TransmitterKeys
    lookups: SessionLookups | None
    browser_lookups: SessionLookups | None
    upstream: ConfiguredUpstream


class ConfiguredUpstreams:
    """Returns the current upstreams, and looks up the local sessions that end with a session at an upstream."""

    def __init__(self, live: LiveConfiguration, record: UpstreamRecord) -> None:
        self._live = live
        self._record = record
        self._reader = DocumentReader()
        self._loaded: LoadedConfiguration | None = None
        self._upstreams: Mapping[str, _UpstreamEntry] = {}
        self._current_upstreams()  # starts the metrics of each upstream at zero

    def routes(self, publish: Callable[[Lane, Outgoing], Awaitable[None]], page: SignOutPage) -> Iterator[web.RouteDef]:
        """Return the routes of upstreams. `publish` returns once a message is durable, and raises QueueError."""
        dependencies = UpstreamDependencies(
            find_upstream=self.find_upstream,
            publish=publish,
            event_message=to_event_message,
            record=self._record.on_request,
            clock=time.time,
            new_id=new_id,
        )
        yield from UpstreamRoutes(dependencies).routes()
        sign_out_dependencies = SignOutDependencies(
            find_front_channel=self.find_front_channel,
            look_up=self.look_up_for_browser,
            publish=publish,
            event_message=to_event_message,
            page=page,
            registry=self._live.registry,
            record=self._record.on_request,
            clock=time.time,
        )
        yield from UpstreamSignOutRoutes(sign_out_dependencies).routes()

    def find_upstream(self, name: str) -> ConfiguredUpstream | None:
        """Return the upstream of a name; None if it is not configured."""
        entry = self._current_upstreams().get(name)
        return None if entry is None else entry.upstream

    def find_front_channel(self, name: str) -> UpstreamFrontChannel | None:
        """Return the front-channel settings of an upstream; None if it is not configured."""
        entry = self._current_upstreams().get(name)
        if entry is None:
            return None
        settings = entry.settings
        parents = (origin_of(settings.issuer) or "", *settings.parents)
        return UpstreamFrontChannel(
            name=name,
            issuer=settings.issuer,
            parents=tuple(dict.fromkeys(parents)),
            iss_optional=settings.without_iss == "allow",
            enabled=settings.front_channel,
        )

    def is_configured(self, upstream: str) -> bool:
        """Return whether an upstream of this name is configured."""
        return upstream in self._current_upstreams()

    async def look_up(self, upstream: str, upstream_session: UpstreamSession) -> LocalSessions | SessionsUnavailable:
        """Return the matching local sessions, for a message of the queue. Never raises."""
        entry = self._current_upstreams().get(upstream)
        if entry is None:  # a reload has removed it since `is_configured`
            return SessionsUnavailable(text="the upstream is not configured any more")
        return await _look_up_sessions(entry, entry.lookups, upstream_session)

    async def look_up_for_browser(
        self, upstream: str, upstream_session: UpstreamSession
    ) -> LocalSessions | SessionsUnavailable | None:
        """Return the matching local sessions, for an unauthenticated request of a browser. Never raises.

        None if the upstream is not configured.
        """
        entry = self._current_upstreams().get(upstream)
        return None if entry is None else await _look_up_sessions(entry, entry.browser_lookups, upstream_session)

    async def aclose(self) -> None:
        """Stop reading keys."""
        await self._reader.close()

    def _current_upstreams(self) -> Mapping[str, _UpstreamEntry]:
        """Return the upstreams by name. Build them again after a reload."""
        current = self._live.current
        if current is not self._loaded:
            previous, self._loaded = self._upstreams, current
            self._record.create_series(upstreams_of(current.settings))
            self._upstreams = {
                name: self._build_entry(name, upstream, current, previous.get(name))
                for name, upstream in upstreams_of(current.settings).items()
            }
        return self._upstreams

    def _build_entry(
        self, name: str, settings: UpstreamSettings, loaded: LoadedConfiguration, previous: _UpstreamEntry | None
    ) -> _UpstreamEntry:
        """Return the entry of an upstream. With unchanged settings, keep the keys and look-ups of `previous`."""
        if previous is not None and previous.settings == settings:
            keys, lookups, browser_lookups = previous.keys, previous.lookups, previous.browser_lookups
        else:
            keys = TransmitterKeys(settings.issuer, partial(self._read_keys, settings), time.monotonic)
            lookups = create_session_lookups(settings.resolve)
            browser_lookups = create_session_lookups(settings.resolve)
        rules = UpstreamRules(
            issuer=settings.issuer,
            audiences=frozenset(settings.client_id),
            algorithms=expand_names(settings.algorithms or Algorithm),
            max_age=settings.max_age,
        )
        iss = local_issuer(settings, loaded.settings)
        assert iss is not None, "`check_upstreams` refuses a configuration without it"
        same_sub = settings.resolve.same_sub
        upstream = ConfiguredUpstream(
            name=name,
            iss=iss,
            verifier=LogoutTokenVerifier(keys, rules, time.time),
            same_sub_prefix=None if same_sub is None else same_sub.prefix,
        )
        return _UpstreamEntry(
            settings=settings, keys=keys, lookups=lookups, browser_lookups=browser_lookups, upstream=upstream
        )

    async def _read_keys(self, settings: UpstreamSettings) -> IssuerDocument | DocumentIssue:
        return await read_upstream_keys(settings, self._reader, self._live.current.settings.template().route.egress)


async def _look_up_sessions(
    entry: _UpstreamEntry, lookups: SessionLookups | None, upstream_session: UpstreamSession
) -> LocalSessions | SessionsUnavailable:
    """Return the local sessions by a look-up, or derived from the upstream's session if none is needed."""
    if lookups is None:
        session = to_local_session(upstream_session, entry.upstream.same_sub_prefix or "")
        return LocalSessions(iss=entry.upstream.iss, sessions=(session,))
    sessions = await lookups.look_up(upstream_session)
    if isinstance(sessions, SessionsUnavailable):
        return sessions
    return LocalSessions(iss=entry.upstream.iss, sessions=sessions)


async def read_upstream_keys(
    settings: UpstreamSettings, reader: DocumentReader, egress: EgressPolicy
) -> IssuerDocument | DocumentIssue:
    """Return the JWK Set of an upstream from `jwks_uri`, otherwise from the `jwks_uri` of its metadata. Never raises.

    The document has the algorithms of the metadata, unless the settings have `jwks_uri` or `algorithms`.
    """
    tls = TlsFiles() if settings.tls is None else settings.tls.files()
    if settings.jwks_uri is not None:
        return await reader.read(
            settings.jwks_uri, egress=issuer_egress(egress), tls=tls, within=DOCUMENT_TIMEOUT_SECONDS
        )
    discovery = Discovery(issuer=settings.issuer, metadata=settings.metadata, tls=tls, within=DOCUMENT_TIMEOUT_SECONDS)
    advertised = "id_token_signing_alg_values_supported" if settings.algorithms is None else None
    return await discovery.read_keys(reader, egress, advertised)


def create_session_lookups(resolve: ResolveSettings) -> SessionLookups | None:
    """Return the look-up of local sessions; None if none is needed (`same_sub`)."""
    if resolve.sql is not None:
        from notifier.features.upstreams.session_database import SessionDatabase  # noqa: PLC0415  an extra

        return SessionLookups(SessionDatabase(resolve.sql))
    return None if resolve.http is None else SessionLookups(SessionEndpoint(resolve.http))
