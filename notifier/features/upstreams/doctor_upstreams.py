"""The doctor's checks of upstreams and relays: keys, look-ups of sessions, and the JWK Sets that clients get."""

import asyncio
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain

from notifier.configuration.loading import LoadedConfiguration
from notifier.features.upstreams.configured_relays import KEYS_TIMEOUT_SECONDS, LOOP_HEADERS, read_relay_keys
from notifier.features.upstreams.configured_upstreams import (
    DOCUMENT_TIMEOUT_SECONDS,
    create_session_lookups,
    read_upstream_keys,
)
from notifier.features.upstreams.joined_keys import is_joined_set, join_keys, read_server_set
from notifier.features.upstreams.relay_settings import (
    RelaySettings,
    find_relayed_addresses,
    jwks_path,
    relayed_issuers,
    relays_of,
)
from notifier.features.upstreams.upstream import SessionsUnavailable, UpstreamSession
from notifier.features.upstreams.upstream_settings import UpstreamSettings, upstreams_of
from notifier.model.errors import InputIssue
from notifier.model.printable import counted
from notifier.network.http.issuer_document import DocumentIssue, IssuerDocument
from notifier.network.http.issuer_documents import DocumentReader
from notifier.operators.doctor.doctor import Area, Check, Finding, Severity, failure, ok, warning
from notifier.operators.doctor.doctor_keys import judge_transmitter
from notifier.settings.service_settings import Settings
from notifier.tokens.foreign_keys import read_jwks
from notifier.tokens.published_keys import find_publication_faults
from notifier.tokens.transmitter_keys import ReadKeySet

UNKNOWN_SID = "notifier-doctor-asks-for-nobody"
"""A `sid` that no session has."""
_MAX_ANSWER_SECONDS = 30.0  # for a look-up of sessions


def upstream_checks(loaded: LoadedConfiguration, reader: DocumentReader) -> Iterator[Check]:
    """Yield a check of the keys of each upstream, one of each look-up of sessions, and those of relays."""
    yield from relay_checks(loaded, reader)
    egress = loaded.settings.template().route.egress
    for name, upstream in upstreams_of(loaded.settings).items():
        setting = f"upstreams.{name}"
        uri = upstream.metadata if upstream.jwks_uri is None else upstream.jwks_uri
        read_keys = partial(read_upstream_keys, upstream, reader, egress)
        run = partial(examine_keys, setting, uri, read_keys, upstream)
        yield Check(area=Area.KEYS, subject=setting, timeout=2 * DOCUMENT_TIMEOUT_SECONDS + 2, run=run)
        if upstream.resolve.same_sub is None:
            resolve_setting = f"{setting}.resolve"
            examine = partial(examine_sessions, resolve_setting, upstream)
            yield Check(area=Area.ISSUER, subject=resolve_setting, timeout=_MAX_ANSWER_SECONDS + 5, run=examine)


async def examine_keys(setting: str, uri: str, read_keys: ReadKeySet, upstream: UpstreamSettings) -> Sequence[Finding]:
    """Return the findings on an upstream's JWK Set, and a warning if neither metadata nor settings name algorithms.

    With `jwks_uri` no metadata are read, and `upstream_warnings` has this warning.
    """
    document = await read_keys()
    findings = judge_transmitter(setting, uri, document)
    lacks_algorithms = isinstance(document, IssuerDocument) and not document.algorithms
    if lacks_algorithms and upstream.algorithms is None and upstream.jwks_uri is None:
        text = "its metadata have no id_token_signing_alg_values_supported, so tokens by any algorithm are accepted"
        advice = "set its algorithms to the registered id_token_signed_response_alg"
        findings.append(warning(Area.KEYS, setting, text, advice))
    return findings


def find_remote_issues(loaded: LoadedConfiguration) -> Sequence[InputIssue]:
    """Return the errors of databases of sessions, such as a wrong column."""
    return asyncio.run(_check_session_databases(loaded.settings))


async def _check_session_databases(settings: Settings) -> list[InputIssue]:
    """Query each database of sessions for a `sid` that cannot exist. Return the errors, such as a wrong column."""
    examinations = [
        examine_sessions(f"upstreams.{name}.resolve.sql", upstream)
        for name, upstream in upstreams_of(settings).items()
        if upstream.resolve.sql is not None
    ]
    findings = chain.from_iterable(await asyncio.gather(*examinations))
    failures = [finding for finding in findings if finding.level is Severity.FAILED]
    return [InputIssue(finding.subject, f"{finding.text}; {finding.advice}") for finding in failures]


async def examine_sessions(setting: str, upstream: UpstreamSettings) -> Sequence[Finding]:
    """Return the finding of a look-up of a `sid` that cannot exist, which must succeed and find no session."""
    lookups = create_session_lookups(upstream.resolve)
    assert lookups is not None, "the caller skips upstreams with same_sub, which need no look-up"
    sessions = await lookups.look_up(UpstreamSession(iss=upstream.issuer, sub=UNKNOWN_SID, sid=UNKNOWN_SID))
    if isinstance(sessions, SessionsUnavailable):
        advice = "logouts of the upstream wait for it; after delivery.max_age they become dead letters"
        return [failure(Area.ISSUER, setting, f"cannot be asked: {sessions.text}", advice)]
    if sessions:
        advice = "compare it with :sid (and :sub), or users who did not sign out are signed out"
        return [
            failure(Area.ISSUER, setting, f"returned {len(sessions)} sessions for a sid that no session has", advice)
        ]
    return [ok(Area.ISSUER, setting, "can be asked whose session it is")]


def relay_checks(loaded: LoadedConfiguration, reader: DocumentReader) -> Iterator[Check]:
    """Yield two checks of each relay: what notifier reads, and what clients get."""
    timeout = 2 * KEYS_TIMEOUT_SECONDS + 2
    for name, iss in relayed_issuers(loaded.settings).items():
        run = partial(examine_relay, name, relays_of(loaded.settings)[name], iss, loaded)
        yield Check(area=Area.KEYS, subject=f"relays.{name}", timeout=timeout, run=run)
        examine = partial(examine_public_set, name, iss, loaded, reader)
        yield Check(area=Area.KEYS, subject=f"relays.{name} jwks", timeout=timeout, run=examine)


async def examine_relay(name: str, relay: RelaySettings, iss: str, loaded: LoadedConfiguration) -> Sequence[Finding]:
    """Read the keys of a relay as for its tokens. Return the findings on them, and on the clients' addresses."""
    setting, settings = f"relays.{name}", loaded.settings
    loops = find_relayed_addresses(iss, settings, loaded.registry)
    findings = [failure(Area.CLIENT, loop.path, loop.text, "") for loop in loops]
    reader = DocumentReader(headers=LOOP_HEADERS)
    try:
        document = await read_relay_keys(relay, iss, settings, reader)
    finally:
        await reader.close()
    server = document.text if isinstance(document, DocumentIssue) else read_server_set(document.content)
    if isinstance(server, str):
        advice = "set jwks_uri to the server's own address; meanwhile its tokens and its JWK Set are answered 503"
        return [*findings, failure(Area.KEYS, setting, f"the server's keys cannot be used: {server}", advice)]
    if server.has_secrets:
        advice = "have them replaced: whoever can read them can sign in as any user. notifier passes none on"
        findings.append(failure(Area.KEYS, setting, "the server's JWK Set holds private keys", advice))
    joined = join_keys(server, loaded.keys.jwks(iss)["keys"])
    for kid, reason in joined.left_out.items():
        text = f"clients cannot verify tokens by key {kid}: {reason}"
        findings.append(failure(Area.KEYS, setting, text, "give notifier another key"))
    read, added = counted(len(server.passed_on), "key"), counted(joined.added, "key")
    return [*findings, ok(Area.KEYS, setting, f"{read} of the server can be read, and {added} of notifier added")]


async def examine_public_set(
    name: str, iss: str, loaded: LoadedConfiguration, reader: DocumentReader
) -> Sequence[Finding]:
    """Read the set that clients get. Return a finding: it is the joined set, or has notifier's keys anyway, or not.

    No finding if its address is unknown, or it cannot be read: the check of the issuer has one.
    """
    issuer, egress = loaded.settings.issuers[iss], loaded.settings.template().route.egress
    if issuer.jwks_uri is None:
        return []
    document = await reader.read_configured(issuer.jwks_uri, egress, issuer.tls, KEYS_TIMEOUT_SECONDS)
    if isinstance(document, DocumentIssue) or isinstance(published := read_jwks(document.content), str):
        return []
    setting = f"relays.{name}"
    if is_joined_set(document.content):
        return [ok(Area.KEYS, setting, f"clients get the joined set at {issuer.jwks_uri}")]
    faults = find_publication_faults([*loaded.keys.current_keys(iss), *loaded.keys.future_keys(iss)], published)
    if not any(faults.values()):
        return [ok(Area.KEYS, setting, f"the server itself publishes notifier's keys at {issuer.jwks_uri}")]
    advice = f"have the proxy pass that path on to {jwks_path(name)} of the listener `web`"
    return [failure(Area.KEYS, setting, f"clients read {issuer.jwks_uri}, which is not the joined set", advice)]
