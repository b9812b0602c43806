"""Provide the currently configured upstream OpenID Providers: their keys, and the look-up of local sessions."""

import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial

from aiohttp import web

from notifier.configuration.live_configuration import LiveConfiguration
from notifier.configuration.loading import LoadedConfiguration
from notifier.delivery.replacements import event_message
from notifier.features.upstreams.session_questions import SessionEndpoint, SessionQuestions
from notifier.features.upstreams.upstream import LocalSessions, Question, SessionsAway, same_session
from notifier.features.upstreams.upstream_issuers import local_issuer
from notifier.features.upstreams.upstream_record import UpstreamRecord
from notifier.features.upstreams.upstream_routes import ConfiguredUpstream, UpstreamAccess, UpstreamRoutes
from notifier.features.upstreams.upstream_settings import ResolveSettings, UpstreamSettings, upstreams_of
from notifier.features.upstreams.upstream_sign_outs import SignOutAccess, SignOutPage, UpstreamFrame, UpstreamSignOuts
from notifier.features.upstreams.upstream_token import LogoutTokenVerifier, UpstreamRules
from notifier.model.client import Algorithm, EgressPolicy, TlsFiles
from notifier.model.frozen import frozen
from notifier.model.ids import new_id
from notifier.model.message import Lane, Outgoing
from notifier.model.origins import origin_of
from notifier.network.http.issuer_document import IssuerDocument, UnreadDocument, issuer_egress
from notifier.network.http.issuer_documents import Discovery, DocumentReader
from notifier.tokens.foreign_keys import all_names
from notifier.tokens.transmitter_keys import TransmitterKeys

WITHIN = 5.0  # seconds for each document of an upstream


@frozen
class _Upstream:
    """An upstream, kept over reloads that do not change it.

    Browsers' look-ups have a separate limit, `browser_questions`, since unauthenticated clients can exhaust it.
    """

    settings: UpstreamSettings
    keys: TransmitterKeys
    questions: SessionQuestions | None
    browser_questions: SessionQuestions | None
    upstream: ConfiguredUpstream


class ConfiguredUpstreams:
    """Returns the upstreams, and looks up the local sessions that end with an upstream's. It follows reloads."""

    def __init__(self, live: LiveConfiguration, record: UpstreamRecord) -> None:
        self._live = live
        self._record = record
        self._reader = DocumentReader()
        self._seen: LoadedConfiguration | None = None
        self._upstreams: Mapping[str, _Upstream] = {}
        self._now()

    def routes(self, publish: Callable[[Lane, Outgoing], Awaitable[None]], page: SignOutPage) -> Iterator[web.RouteDef]:
        """Return the routes of upstreams. `publish` returns once a message is durable, and raises QueueError."""
        access = UpstreamAccess(
            upstream=self.upstream,
            publish=publish,
            event_message=event_message,
            record=self._record.requested,
            clock=time.time,
            new_id=new_id,
        )
        yield from UpstreamRoutes(access).routes()
        by_browser = SignOutAccess(
            frame=self.frame,
            look_up=self.look_up_for_browser,
            publish=publish,
            event_message=event_message,
            page=page,
            registry=self._live.registry,
            record=self._record.requested,
            clock=time.time,
        )
        yield from UpstreamSignOuts(by_browser).routes()

    def upstream(self, name: str) -> ConfiguredUpstream | None:
        """Return the upstream of this name, or None."""
        entry = self._now().get(name)
        return None if entry is None else entry.upstream

    def frame(self, name: str) -> UpstreamFrame | None:
        """Return the browser settings of the upstream of this name, or None."""
        entry = self._now().get(name)
        if entry is None:
            return None
        settings = entry.settings
        above = (origin_of(settings.issuer) or "", *settings.parents)
        return UpstreamFrame(
            name=name,
            issuer=settings.issuer,
            parents=tuple(dict.fromkeys(above)),
            without_iss=settings.without_iss == "allow",
            on=settings.front_channel,
        )

    def has(self, upstream: str) -> bool:
        """Return True if an upstream of this name is configured."""
        return upstream in self._now()

    async def look_up(self, upstream: str, question: Question) -> LocalSessions | SessionsAway:
        """Return the matching local sessions. Never raises."""
        entry = self._now().get(upstream)
        if entry is None:  # a reload has just removed it; the next look-up finds that
            return SessionsAway(text="the upstream is not configured any more")
        return await _looked_up(entry, entry.questions, question)

    async def look_up_for_browser(self, upstream: str, question: Question) -> LocalSessions | SessionsAway | None:
        """Return the matching sessions for an unauthenticated request, limited separately from the worker's look-ups.

        None if no upstream of this name is configured.
        """
        entry = self._now().get(upstream)
        return None if entry is None else await _looked_up(entry, entry.browser_questions, question)

    async def aclose(self) -> None:
        """Stop reading TLS files."""
        await self._reader.close()

    def _now(self) -> Mapping[str, _Upstream]:
        now = self._live.now
        if now is not self._seen:
            before, self._seen = self._upstreams, now
            self._record.know(upstreams_of(now.settings))
            self._upstreams = {
                name: self._configured(name, upstream, now, before.get(name))
                for name, upstream in upstreams_of(now.settings).items()
            }
        return self._upstreams

    def _configured(
        self, name: str, settings: UpstreamSettings, loaded: LoadedConfiguration, before: _Upstream | None
    ) -> _Upstream:
        same = before is not None and before.settings == settings
        keys = TransmitterKeys(settings.issuer, partial(self._read_keys, settings), time.monotonic)
        keys = before.keys if same and before is not None else keys
        questions = before.questions if same and before is not None else questions_for(settings.resolve)
        by_browser = before.browser_questions if same and before is not None else questions_for(settings.resolve)
        rules = UpstreamRules(
            issuer=settings.issuer,
            audiences=frozenset(settings.client_id),
            algorithms=all_names(settings.algorithms or Algorithm),
            max_age=settings.max_age,
        )
        iss = local_issuer(settings, loaded.settings)
        assert iss is not None, "`upstream_mistakes` refuses a configuration that does not say it"
        same_sub = settings.resolve.same_sub
        upstream = ConfiguredUpstream(
            name=name,
            iss=iss,
            verifier=LogoutTokenVerifier(keys, rules, time.time),
            same_sub=None if same_sub is None else same_sub.prefix,
        )
        return _Upstream(
            settings=settings, keys=keys, questions=questions, browser_questions=by_browser, upstream=upstream
        )

    async def _read_keys(self, settings: UpstreamSettings) -> IssuerDocument | UnreadDocument:
        return await read_upstream_keys(settings, self._reader, self._live.now.settings.template().route.egress)


async def _looked_up(
    entry: _Upstream, questions: SessionQuestions | None, question: Question
) -> LocalSessions | SessionsAway:
    if questions is None:  # no look-up is needed any more
        session = same_session(question, entry.upstream.same_sub or "")
        return LocalSessions(iss=entry.upstream.iss, sessions=(session,))
    sessions = await questions.sessions(question)
    return sessions if isinstance(sessions, SessionsAway) else LocalSessions(iss=entry.upstream.iss, sessions=sessions)


async def read_upstream_keys(
    settings: UpstreamSettings, reader: DocumentReader, egress: EgressPolicy
) -> IssuerDocument | UnreadDocument:
    """Read the JWK Set of an upstream, by its discovery unless `jwks_uri` names it. Never raises.

    Unless the settings name algorithms, those of its metadata are returned with it.
    """
    tls = TlsFiles() if settings.tls is None else settings.tls.files()
    if settings.jwks_uri is not None:
        return await reader.read(settings.jwks_uri, egress=issuer_egress(egress), tls=tls, within=WITHIN)
    discovery = Discovery(issuer=settings.issuer, metadata=settings.metadata, tls=tls, within=WITHIN)
    advertised = "id_token_signing_alg_values_supported" if settings.algorithms is None else None
    return await discovery.read_keys(reader, egress, advertised)


def questions_for(resolve: ResolveSettings) -> SessionQuestions | None:
    """Return the look-up of sessions. None if none is needed (`same_sub`)."""
    if resolve.sql is not None:
        from notifier.features.upstreams.session_database import SessionDatabase  # noqa: PLC0415  an extra

        return SessionQuestions(SessionDatabase(resolve.sql))
    if resolve.http is not None:
        return SessionQuestions(SessionEndpoint(resolve.http))
    return None
