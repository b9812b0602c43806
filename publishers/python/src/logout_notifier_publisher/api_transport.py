"""Publish to notifier's API, one event after another. Only 202 confirms an event; 400 and 413 reject it for good."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import aiohttp

from logout_notifier_publisher.address import Server
from logout_notifier_publisher.event_transport import (
    Confirmed,
    Failure,
    NeverTaken,
    NotTaken,
    OutgoingEvent,
    PublishOutcome,
)
from logout_notifier_publisher.lane import Lane
from logout_notifier_publisher.publisher_settings import PublisherSettings, words

LONGEST_WAIT = 60.0  # seconds of a Retry-After that are kept
SHOWN = 500  # bytes of a response that are read


class ApiTransport:
    """One HTTP session, for one lane."""

    def __init__(self, settings: PublisherSettings, server: Server, lane: Lane, threads: Executor) -> None:
        self._threads = threads
        self._settings = settings
        self._tls = server.tls
        self._url = f"{server.base}/v1/events" + ("?lane=bulk" if lane is Lane.BULK else "")
        self._host = server.base
        self._session: aiohttp.ClientSession | None = None
        self._answered = False

    @property
    def connected(self) -> bool:
        """Whether the last attempt got a response."""
        return self._answered

    async def ready(self) -> NotTaken | None:
        """Return None: HTTP connects at the first request."""
        return None

    async def publish(self, events: Sequence[OutgoingEvent]) -> list[PublishOutcome]:
        """Publish one event after another. Stop at the first that is not accepted; the later ones stay queued.

        A 403 may concern one issuer alone, so it holds up nothing.
        """
        outcomes: list[PublishOutcome] = []
        try:
            token = await asyncio.get_running_loop().run_in_executor(self._threads, self._settings.read_secret)
            session = await self._opened()
        except (OSError, ValueError) as error:
            named = getattr(error, "filename", None) or "secret_file, ca_file, certificate_file, key_file"
            return [NotTaken(why=Failure.FILES, text=f"{named}: {words(error)}")] * len(events)
        for event in events:
            outcome = await self._post(session, event, token)
            outcomes.append(outcome)
            if isinstance(outcome, NotTaken) and outcome.status != 403:
                return outcomes + [outcome] * (len(events) - len(outcomes))
        return outcomes

    async def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            loop = asyncio.get_running_loop()
            context = await loop.run_in_executor(self._threads, self._settings.tls_context) if self._tls else True
            connector = aiohttp.TCPConnector(ssl=context, resolver=aiohttp.ThreadedResolver(), limit=1)
            timeout = aiohttp.ClientTimeout(total=self._settings.publish_limit)
            self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False)
        return self._session

    async def _post(self, session: aiohttp.ClientSession, event: OutgoingEvent, token: str | None) -> PublishOutcome:
        headers = {"Content-Type": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        try:
            async with session.post(self._url, data=event.body, headers=headers, allow_redirects=False) as answer:
                text = (await answer.content.read(SHOWN)).decode("utf-8", errors="replace")
                self._answered = True
                return _outcome(answer.status, text, answer.headers.get("Retry-After"), self._host)
        except TimeoutError:
            failed = NotTaken(
                why=Failure.TIMED_OUT, text=f"{self._host} did not answer within {self._settings.publish_limit:g} s"
            )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            failed = NotTaken(why=Failure.UNREACHABLE, text=f"{self._host}: {words(error)}")
        self._answered = False
        await self.close()  # a new connection, with the files as they are then
        return failed

    async def close(self) -> None:
        """Drop the connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()


def _outcome(status: int, text: str, retry_after: str | None, host: str) -> PublishOutcome:
    if status == 202:
        return Confirmed()
    if status in (400, 413):
        return NeverTaken(text=f"{host} answered {status}: {' '.join(text.split())[:300]}")
    if status in (401, 403):
        way_out = "look at the token in `secret_file`, its scope `publish`, and the issuer's `publishers`"
        return NotTaken(why=Failure.DENIED, text=f"{host} answered {status}: {way_out}", status=status)
    way_out = "it passes by itself" if status in (408, 429) or status >= 500 else "is `url` notifier's API?"
    return NotTaken(
        why=Failure.REJECTED, text=f"{host} answered {status}: {way_out}", after=_seconds(retry_after), status=status
    )


def _seconds(retry_after: str | None) -> float:
    if not retry_after:
        return 0.0
    if retry_after.strip().isdecimal():
        wanted = float(retry_after)
    else:
        try:
            wanted = (parsedate_to_datetime(retry_after).astimezone(UTC) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError, OverflowError):
            return 0.0
    return min(max(wanted, 0.0), LONGEST_WAIT)
