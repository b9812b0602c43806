"""Watches whether each issuer publishes the signing keys in its JWK Set, and logs changes.

A client cannot verify tokens while the signing key is not published, or is too new for the client to have fetched it.
A 400 of the client then does not count as a rejection of the token. `published` feeds the gauge
`signing_key_published`.
"""

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Iterator

import structlog

from notifier.configuration.live_configuration import LiveConfiguration
from notifier.model.client import Client
from notifier.model.moment import wait_for_event
from notifier.model.presets import warn_of_new_key
from notifier.model.trouble import Trouble, TroubleKind
from notifier.network.http.issuer_document import DocumentIssue, IssuerDocument
from notifier.network.http.issuer_documents import DocumentReader
from notifier.tokens.first_day import SeenKey
from notifier.tokens.key_watch import JwksUnread, KeyChange, KeyMissing, KeyPublished, KeyWatch

READ_TIMEOUT_SECONDS = 10.0  # time for an issuer to answer with its JWK Set
PUBLISH_ADVICE = "publish the output of `notifier keys jwks` there; until then deliveries answered 400 wait"
MAX_PAUSE_SECONDS = 15.0  # a key whose `not_before` has passed is noticed within this time


class SigningKeys:
    """Watches whether each issuer publishes the keys that sign for it. `run` watches until it is cancelled."""

    def __init__(self, live: LiveConfiguration, on_published: Callable[[str], None] = lambda _iss: None) -> None:
        """`on_published` is called with an issuer when a missing key is in the issuer's JWK Set again."""
        self._live = live
        self._on_published = on_published
        self._reader = DocumentReader()
        self._watch = KeyWatch(self._issuers_with_jwks_uri, live, self._read, random.random)
        self._wake = asyncio.Event()
        self._since: dict[tuple[str, str], float] = {}  # by iss and kid; for an unread set, by iss and ""

    def explain_refused_token(self, client: Client) -> str | None:
        """Return why the client cannot verify our tokens; None if no reason is known. Call it after a 400.

        It also makes the next check of the issuer's JWK Set due within seconds.
        """
        iss, alg, now = client.iss, client.token.alg, time.monotonic()
        if self._watch.on_refused_token(iss, now):
            self._wake.set()
        missing_key = self._watch.fault_of(iss, alg)
        if missing_key is not None:
            return f"{missing_key}: no client can verify it"
        return warn_of_new_key(client, self._watch.age(iss, alg, clock=time.time(), now=now))

    def published(self) -> Iterator[tuple[str, str, bool]]:
        """Yield (iss, kid, published) for each key whose issuer's JWK Set was read."""
        return self._watch.published()

    def seen_keys(self) -> Iterator[SeenKey]:
        """Yield each key with the time when this worker first saw it in its issuer's JWK Set."""
        epoch_offset = time.time() - time.monotonic()
        for iss, kid, since, appeared in self._watch.seen_keys():
            yield SeenKey(iss=iss, kid=kid, since=epoch_offset + since, appeared=appeared)

    def troubles(self) -> Iterator[Trouble]:
        """Yield the signing keys that are not published, and the JWK Sets that cannot be read."""
        for iss, kid, problem in self._watch.faults():
            text = f"key {kid}: {problem}; {PUBLISH_ADVICE}"
            yield Trouble(
                kind=TroubleKind.KEY_MISSING, iss=iss, subject=kid, text=text, since=self._since.get((iss, kid))
            )
        for iss, reason in self._watch.unread_sets():
            text = f"its JWK Set {reason}: a key that is missing there goes unnoticed"
            yield Trouble(kind=TroubleKind.JWKS_UNREAD, iss=iss, text=text, since=self._since.get((iss, "")))

    def check_soon(self) -> None:
        """Check the JWK Sets that are due now, because issuers or keys may have changed."""
        self._wake.set()

    async def run(self) -> None:
        """Check each JWK Set when it is due, until cancelled."""
        try:
            while True:
                for change in await self._watch.read_due_sets(time.monotonic()):
                    self._record(change)
                    _log_change(change)
                self._wake.clear()
                due_seconds = self._watch.seconds_until_due(time.monotonic())
                await wait_for_event(self._wake, min(MAX_PAUSE_SECONDS, due_seconds))
        finally:
            await self._reader.close()

    def _record(self, change: KeyChange) -> None:
        match change:
            case KeyMissing():
                self._since.setdefault((change.iss, change.kid), time.time())
            case KeyPublished():
                self._since.pop((change.iss, change.kid), None)
                self._on_published(change.iss)
            case JwksUnread():
                self._since[change.iss, ""] = time.time()

    def _issuers_with_jwks_uri(self) -> Iterable[str]:
        return [iss for iss, issuer in self._live.current.settings.issuers.items() if issuer.jwks_uri is not None]

    async def _read(self, iss: str) -> IssuerDocument | DocumentIssue:
        settings = self._live.current.settings
        issuer = settings.issuers.get(iss)
        if issuer is None or issuer.jwks_uri is None:  # a reload in its thread may remove it at any time
            return DocumentIssue(text="is no longer configured")
        egress = settings.template().route.egress
        return await self._reader.read_configured(issuer.jwks_uri, egress, issuer.tls, READ_TIMEOUT_SECONDS)


def _log_change(change: KeyChange) -> None:
    log = structlog.get_logger()
    match change:
        case KeyMissing():
            log.warning("signing_key_missing", iss=change.iss, kid=change.kid, reason=change.text, hint=PUBLISH_ADVICE)
        case KeyPublished():
            log.info("signing_key_published", iss=change.iss, kid=change.kid)
        case JwksUnread():
            log.warning("jwks_unread", iss=change.iss, reason=change.text)
