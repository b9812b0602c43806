"""Provide the currently configured upstream OpenID Providers: their keys, and the look-up of local sessions."""

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
    """An upstream, kept over reloads that do not change it.

    Browsers' look-ups have a separate limit, `browser_lookups`, since unauthenticated clients can exhaust it.
    """

    settings: UpstreamSettings
    keys: TransmitterKeys
    lookups: SessionLookups | None
    browser_lookups: SessionLookups | None
    upstream: ConfiguredUpstream


class ConfiguredUpstreams:
    """Returns the upstreams, and looks up the local sessions that end with an upstream's. It follows reloads."""

    def __init__(self, live: LiveConfiguration, record: UpstreamRecord) -> None:
        self._live = live
        self._record = record
        self._reader = DocumentReader()
        self._loaded: LoadedConfiguration | None = None
        self._upstreams: Mapping[str, _UpstreamEntry] = {}
        self._current_upstreams()

    def routes(self, publish: Callable[[Lane, Outgoing], Awaitable[None]], page: SignOutPage) -> Iterator[web.RouteDef]:
        """Return the routes of upstreams. `publish` returns once a message is durable, and raises QueueError."""
        access = UpstreamDependencies(
            find_upstream=self.find_upstream,
            publish=publish,
            event_message=to_event_message,
            record=self._record.on_request,
            clock=time.time,
            new_id=new_id,
        )
        yield from UpstreamRoutes(access).routes()
        browser_lookups = SignOutDependencies(
            find_front_channel=self.find_front_channel,
            look_up=self.look_up_for_browser,
            publish=publish,
            event_message=to_event_message,
            page=page,
            registry=self._live.registry,
            record=self._record.on_request,
            clock=time.time,
        )
        yield from UpstreamSignOutRoutes(browser_lookups).routes()

    def find_upstream(self, name: str) -> ConfiguredUpstream | None:
        """Return the upstream of this name, or None."""
        entry = self._current_upstreams().get(name)
        return None if entry is None else entry.upstream

    def find_front_channel(self, name: str) -> UpstreamFrontChannel | None:
        """Return the browser settings of the upstream of this name, or None."""
        entry = self._current_upstreams().get(name)
        if entry is None:
            return None
        settings = entry.settings
        above = (origin_of(settings.issuer) or "", *settings.parents)
        return UpstreamFrontChannel(
            name=name,
            issuer=settings.issuer,
            parents=tuple(dict.fromkeys(above)),
            iss_optional=settings.without_iss == "allow",
            enabled=settings.front_channel,
        )

    def is_configured(self, upstream: str) -> bool:
        """Return True if an upstream of this name is configured."""
        return upstream in self._current_upstreams()

    async def look_up(self, upstream: str, upstream_session: UpstreamSession) -> LocalSessions | SessionsUnavailable:
        """Return the matching local sessions. Never raises."""
        entry = self._current_upstreams().get(upstream)
        if entry is None:  # a reload has just removed it; the next look-up finds that
            return SessionsUnavailable(text="the upstream is not configured any more")
        return await _look_up_sessions(entry, entry.lookups, upstream_session)

    async def look_up_for_browser(
        self, upstream: str, upstream_session: UpstreamSession
    ) -> LocalSessions | SessionsUnavailable | None:
        """Return the matching sessions for an unauthenticated request, limited separately from the worker's look-ups.

        None if no upstream of this name is configured.
        """
        entry = self._current_upstreams().get(upstream)
        return None if entry is None else await _look_up_sessions(entry, entry.browser_lookups, upstream_session)

    async def aclose(self) -> None:
        """Stop reading TLS files."""
        await self._reader.close()

    def _current_upstreams(self) -> Mapping[str, _UpstreamEntry]:
        current = self._live.current
        if current is not self._loaded:
            before, self._loaded = self._upstreams, current
            self._record.create_series(upstreams_of(current.settings))
            self._upstreams = {
                name: self._configure(name, upstream, current, before.get(name))
                for name, upstream in upstreams_of(current.settings).items()
            }
        return self._upstreams

    def _configure(
        self, name: str, settings: UpstreamSettings, loaded: LoadedConfiguration, before: _UpstreamEntry | None
    ) -> _UpstreamEntry:
        if before is not None and before.settings == settings:
            keys, lookups, browser_lookups = before.keys, before.lookups, before.browser_lookups
        else:
            keys = TransmitterKeys(settings.issuer, partial(self._read_keys, settings), time.monotonic)
            lookups, browser_lookups = (create_session_lookups(settings.resolve) for _ in range(2))
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
    if lookups is None:  # no look-up is needed any more
        session = to_local_session(upstream_session, entry.upstream.same_sub_prefix or "")
        return LocalSessions(iss=entry.upstream.iss, sessions=(session,))
    sessions = await lookups.look_up(upstream_session)
    return (
        sessions
        if isinstance(sessions, SessionsUnavailable)
        else LocalSessions(iss=entry.upstream.iss, sessions=sessions)
    )


async def read_upstream_keys(
    settings: UpstreamSettings, reader: DocumentReader, egress: EgressPolicy
) -> IssuerDocument | DocumentIssue:
    """Read the JWK Set of an upstream, by its discovery unless `jwks_uri` names it. Never raises.

    Unless the settings name algorithms, those of its metadata are returned with it.
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
    """Return the look-up of sessions. None if none is needed (`same_sub`)."""
    if resolve.sql is not None:
        from notifier.features.upstreams.session_database import SessionDatabase  # noqa: PLC0415  an extra

        return SessionLookups(SessionDatabase(resolve.sql))
    if resolve.http is not None:
        return SessionLookups(SessionEndpoint(resolve.http))
    return None
