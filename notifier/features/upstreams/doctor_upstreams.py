"""The doctor's checks of upstream providers: can their tokens be verified, and can local sessions be looked up?"""

import asyncio
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain

from notifier.configuration.loading import LoadedConfiguration
from notifier.features.upstreams.configured_upstreams import (
    DOCUMENT_TIMEOUT_SECONDS,
    create_session_lookups,
    read_upstream_keys,
)
from notifier.features.upstreams.doctor_relays import relay_checks
from notifier.features.upstreams.upstream import SessionsUnavailable, UpstreamSession
from notifier.features.upstreams.upstream_settings import UpstreamSettings, upstreams_of
from notifier.model.errors import InputIssue
from notifier.network.http.issuer_document import IssuerDocument
from notifier.network.http.issuer_documents import DocumentReader
from notifier.operators.doctor.doctor import Area, Check, Finding, Severity, failure, ok, warning
from notifier.operators.doctor.doctor_keys import judge_transmitter
from notifier.settings.service_settings import Settings
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
