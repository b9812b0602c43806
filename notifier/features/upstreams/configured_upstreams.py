"""Build the upstream OpenID Providers of the current configuration: their keys, and their look-up of sessions."""

import time
from collections.abc import Callable, Collection, Mapping
from functools import partial

from notifier.configuration.live_configuration import LiveConfiguration
from notifier.features.upstreams.session_lookups import SessionEndpoint, SessionLookups
from notifier.features.upstreams.upstream import (
    SOURCE_PREFIX,
    LocalSessions,
    SessionsUnavailable,
    UpstreamSession,
    UpstreamSessionEnd,
    derive_session_end_id,
    dump_session_end,
    to_local_event,
    to_local_session,
)
from notifier.features.upstreams.upstream_issuers import local_issuer
from notifier.features.upstreams.upstream_record import UpstreamRecord
from notifier.features.upstreams.upstream_settings import ResolveSettings, UpstreamSettings, upstreams_of
from notifier.features.upstreams.upstream_token import LogoutTokenVerifier, VerifiedLogout
from notifier.messages.replacements import to_event_message
from notifier.model.client import EgressPolicy, TlsFiles
from notifier.model.documents.sourced import to_sourced
from notifier.model.ids import new_id
from notifier.model.message import Lane, Message, MessageDraft
from notifier.model.moment import Clock
from notifier.model.record import copy_record, record
from notifier.network.http.issuer_document import DocumentIssue, IssuerDocument
from notifier.network.http.issuer_documents import Discovery, DocumentReader
from notifier.settings.service_settings import Settings
from notifier.tokens.transmitter_keys import ReadKeySet, TransmitterKeys

DOCUMENT_TIMEOUT_SECONDS = 5.0


@record
class Upstream:
    """A configured upstream. `iss`: the issuer of the local sessions.

    `lookups` is None if none is needed (`same_sub`). Requests of browsers use `browser_lookups`, whose separate limit
    unauthenticated clients can exhaust.
    """

    name: str
    settings: UpstreamSettings
    iss: str
    verifier: LogoutTokenVerifier
    lookups: SessionLookups | None
    browser_lookups: SessionLookups | None
    clock: Clock = time.time
    new_message_id: Callable[[], str] = new_id

    def id_of(self, logout: VerifiedLogout) -> str:
        """Return the id of the session end. It is the same at all workers.

        It derives from `jti` and further claims, so that a logout is not dropped if an upstream reuses a `jti`.
        """
        return derive_session_end_id(self.name, logout.iss, logout.jti, str(logout.iat), logout.sub, logout.sid)

    def to_message(self, logout: VerifiedLogout) -> MessageDraft:
        """Return the event of the local session, or a message by which a worker looks it up."""
        session_end = UpstreamSessionEnd(
            upstream=self.name,
            upstream_session=UpstreamSession(iss=logout.iss, sub=logout.sub, sid=logout.sid),
            id=self.id_of(logout),
            ended_at=logout.iat,
        )
        same_sub = self.settings.resolve.same_sub
        if same_sub is not None:
            session = to_local_session(session_end.upstream_session, same_sub.prefix)
            return to_event_message(to_local_event(session_end, self.iss, session))
        message = Message(
            lane=Lane.EVENTS, body=dump_session_end(session_end), tag=None, content_type="application/json",
            timestamp=self.clock(), user_id=self.name, source=SOURCE_PREFIX + self.name,
        )  # fmt: skip
        return to_sourced(message, self.new_message_id())

    def on_unpublished(self, token_id: str) -> None:
        """Do nothing: the tokens of an upstream are not counted."""

    async def look_up(self, upstream_session: UpstreamSession) -> LocalSessions | SessionsUnavailable:
        """Return the matching local sessions, for a message of the queue. Never raises."""
        return await self._look_up(self.lookups, upstream_session)

    async def look_up_for_browser(self, upstream_session: UpstreamSession) -> LocalSessions | SessionsUnavailable:
        """Return the matching local sessions, for an unauthenticated request of a browser. Never raises."""
        return await self._look_up(self.browser_lookups, upstream_session)

    async def _look_up(
        self, lookups: SessionLookups | None, upstream_session: UpstreamSession
    ) -> LocalSessions | SessionsUnavailable:
        same_sub = self.settings.resolve.same_sub
        if same_sub is not None:
            return LocalSessions(iss=self.iss, sessions=(to_local_session(upstream_session, same_sub.prefix),))
        assert lookups is not None, "the settings require one of the three"
        sessions = await lookups.look_up(upstream_session)
        if isinstance(sessions, SessionsUnavailable):
            return sessions
        return LocalSessions(iss=self.iss, sessions=sessions)


class ConfiguredUpstreams:
    """Returns the current upstreams."""

    def __init__(self, live: LiveConfiguration, record: UpstreamRecord) -> None:
        self._live = live
        self._record = record
        self._reader = DocumentReader()
        self._settings: Settings | None = None
        self._upstreams: Mapping[str, Upstream] = {}
        self._current_upstreams()  # starts the metrics of each upstream at zero

    def names(self) -> Collection[str]:
        """Return the names of all upstreams."""
        return self._current_upstreams().keys()

    def find_upstream(self, name: str) -> Upstream | None:
        """Return the upstream of a name; None if it is not configured."""
        return self._current_upstreams().get(name)

    async def aclose(self) -> None:
        """Stop reading keys."""
        await self._reader.close()

    def _current_upstreams(self) -> Mapping[str, Upstream]:
        """Return the upstreams by name. Build them again after a reload."""
        settings = self._live.current.settings
        if settings is not self._settings:
            configured, previous = upstreams_of(settings), self._upstreams
            self._settings = settings
            self._record.create_series(configured)
            self._upstreams = {
                name: self._build(name, upstream, local_issuer(upstream, settings), previous.get(name))
                for name, upstream in configured.items()
            }
        return self._upstreams

    def _build(self, name: str, settings: UpstreamSettings, iss: str | None, previous: Upstream | None) -> Upstream:
        """Return an upstream. With unchanged settings, keep the keys and look-ups of `previous`."""
        assert iss is not None, "`check_upstreams` refuses a configuration without it"
        if previous is not None and previous.settings == settings:
            return copy_record(previous, iss=iss)
        return build_upstream(name, settings, iss, partial(self._read_keys, settings))

    async def _read_keys(self, settings: UpstreamSettings) -> IssuerDocument | DocumentIssue:
        return await read_upstream_keys(settings, self._reader, self._live.current.settings.template().route.egress)


def build_upstream(name: str, settings: UpstreamSettings, iss: str, read_keys: ReadKeySet) -> Upstream:
    """Return an upstream with new keys and look-ups. `iss`: the issuer of the local sessions."""
    keys = TransmitterKeys(settings.issuer, read_keys, time.monotonic)
    return Upstream(
        name=name,
        settings=settings,
        iss=iss,
        verifier=LogoutTokenVerifier(keys, settings, time.time),
        lookups=create_session_lookups(settings.resolve),
        browser_lookups=create_session_lookups(settings.resolve),
    )


async def read_upstream_keys(
    settings: UpstreamSettings, reader: DocumentReader, egress: EgressPolicy
) -> IssuerDocument | DocumentIssue:
    """Return the JWK Set of an upstream from `jwks_uri`, otherwise from the `jwks_uri` of its metadata. Never raises.

    The document has the algorithms of the metadata, unless the settings have `jwks_uri` or `algorithms`.
    """
    if settings.jwks_uri is not None:
        return await reader.read_configured(settings.jwks_uri, egress, settings.tls, DOCUMENT_TIMEOUT_SECONDS)
    tls = TlsFiles() if settings.tls is None else settings.tls.files()
    discovery = Discovery(issuer=settings.issuer, metadata=settings.metadata, tls=tls, within=DOCUMENT_TIMEOUT_SECONDS)
    advertised = "id_token_signing_alg_values_supported" if settings.algorithms is None else None
    return await discovery.read_keys(reader, egress, advertised)


def create_session_lookups(resolve: ResolveSettings) -> SessionLookups | None:
    """Return the look-up of local sessions; None if none is needed (`same_sub`)."""
    if resolve.sql is not None:
        from notifier.features.upstreams.session_database import SessionDatabase  # noqa: PLC0415  an extra

        return SessionLookups(SessionDatabase(resolve.sql))
    return None if resolve.http is None else SessionLookups(SessionEndpoint(resolve.http))
