"""Watches whether each issuer publishes the keys that sign for it, and logs what has changed.

While a key is not published, `unpublished` says so, and clients' 400s are no rejections. `published` is the gauge
`signing_key_published`.
"""

import asyncio
import random
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress

import structlog

from notifier.adapters.configuration.live_configuration import LiveConfiguration
from notifier.adapters.http.issuer_documents import DocumentReader
from notifier.domain.client import Algorithm, TlsFiles
from notifier.domain.issuer_document import IssuerDocument, UnreadDocument, issuer_egress
from notifier.operations.key_watch import Change, KeyMissing, KeyPublished, KeyWatch, SetUnread

WITHIN = 10.0  # seconds that an issuer has to give its JWK Set
AWAKE_EVERY = 15.0  # seconds after which a key whose `not_before` has passed is seen


class SigningKeys:
    """Watches whether each issuer publishes the keys that sign for it. `run` watches until it is cancelled."""

    def __init__(self, live: LiveConfiguration) -> None:
        self._live = live
        self._reader = DocumentReader()
        self._watch = KeyWatch(self._with_jwks_uri, live, self._read, random.random)
        self._wake = asyncio.Event()

    def unpublished(self, iss: str, alg: Algorithm) -> str | None:
        """Say why no client can verify the issuer's tokens, if that is known. Called after a 400; looks again soon."""
        if self._watch.doubt(iss, time.monotonic()):
            self._wake.set()
        return self._watch.missing(iss, alg)

    def published(self) -> Iterator[tuple[str, str, bool]]:
        """Return (iss, kid, published) for each key whose issuer's JWK Set was read."""
        return self._watch.published()

    def look(self) -> None:
        """Look now at what is new: issuers or keys may have changed."""
        self._wake.set()

    async def run(self) -> None:
        """Look whenever it is time, until cancelled."""
        try:
            while True:
                for change in await self._watch.look(time.monotonic()):
                    _tell(change)
                self._wake.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(AWAKE_EVERY, self._watch.wait(time.monotonic()))):
                        await self._wake.wait()
        finally:
            await self._reader.close()

    def _with_jwks_uri(self) -> Iterable[str]:
        return [iss for iss, issuer in self._live.now.settings.issuers.items() if issuer.jwks_uri is not None]

    async def _read(self, iss: str) -> IssuerDocument | UnreadDocument:
        settings = self._live.now.settings
        issuer = settings.issuers.get(iss)
        if issuer is None or issuer.jwks_uri is None:  # a reload in its thread may take it away at any moment
            return UnreadDocument(text="is no longer configured")
        return await self._reader.read(
            issuer.jwks_uri,
            egress=issuer_egress(settings.template().route.egress),
            tls=TlsFiles() if issuer.tls is None else issuer.tls.files(),
            within=WITHIN,
        )


def _tell(change: Change) -> None:
    log = structlog.get_logger()
    match change:
        case KeyMissing():
            hint = "publish the output of `notifier keys jwks` there; until then deliveries answered 400 wait"
            log.warning("signing_key_missing", iss=change.iss, kid=change.kid, reason=change.text, hint=hint)
        case KeyPublished():
            log.info("signing_key_published", iss=change.iss, kid=change.kid)
        case SetUnread():
            log.warning("jwks_unread", iss=change.iss, reason=change.text)
