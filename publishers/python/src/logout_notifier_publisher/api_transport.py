"""Publish to notifier's API, one event after another."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import aiohttp

from logout_notifier_publisher.address import Server
from logout_notifier_publisher.event_transport import (
    FailureReason,
    OnOutcome,
    OutgoingEvent,
    PublishFailure,
    PublishOutcome,
)
from logout_notifier_publisher.lane import Lane
from logout_notifier_publisher.publish_response import MAX_BODY_BYTES, PublishResponse
from logout_notifier_publisher.publisher_settings import PublisherSettings, format_error

MAX_RETRY_AFTER_SECONDS = 60.0


class ApiTransport:
    """One HTTP session, for one lane."""

    def __init__(self, settings: PublisherSettings, server: Server, lane: Lane, threads: Executor) -> None:
        self._threads = threads
        self._settings = settings
        self._tls = server.tls
        self._url = f"{server.base}/v1/events" + ("?lane=bulk" if lane is Lane.BULK else "")
        self._host = server.base
        self._session: aiohttp.ClientSession | None = None
        self._reachable = False

    @property
    def connected(self) -> bool:
        """Whether the last attempt got a response."""
        return self._reachable

    async def connect(self) -> PublishFailure | None:
        """Return None: HTTP connects at the first request."""
        return None

    async def publish(self, events: Sequence[OutgoingEvent], on_outcome: OnOutcome) -> None:
        """Publish one event after another. Stop at the first failure, since the next events would fail too."""
        try:
            token = await asyncio.get_running_loop().run_in_executor(self._threads, self._settings.read_secret)
            session = await self._get_session()
        except (OSError, ValueError) as error:
            file = getattr(error, "filename", None) or "secret_file, ca_file, certificate_file, key_file"
            on_outcome(0, PublishFailure(reason=FailureReason.FILES, text=f"{file}: {format_error(error)}"))
            return
        for index, event in enumerate(events):
            outcome = await self._post(session, event, token)
            on_outcome(index, outcome)
            if isinstance(outcome, PublishFailure):
                return

    async def _get_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            loop = asyncio.get_running_loop()
            context = (
                await loop.run_in_executor(self._threads, self._settings.create_tls_context) if self._tls else True
            )
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
                response = PublishResponse(
                    status=answer.status,
                    content_type=answer.content_type,
                    server=answer.headers.get("Server"),
                    retry_after=_parse_retry_after(answer.headers.get("Retry-After")),
                    body=await _read_start(answer.content),
                )
                self._reachable = True
                return response.to_outcome(event.id, token, self._host)
        except TimeoutError:
            failed = PublishFailure(
                reason=FailureReason.TIMED_OUT,
                text=f"{self._host} did not respond within {self._settings.publish_limit:g} s",
            )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            failed = PublishFailure(reason=FailureReason.UNREACHABLE, text=f"{self._host}: {format_error(error)}")
        self._reachable = False
        await self.close()  # the next attempt connects with the current files
        return failed

    async def close(self) -> None:
        """Drop the connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()


async def _read_start(content: aiohttp.StreamReader) -> bytes:
    """Return the body up to `MAX_BODY_BYTES`, or as much as arrives within the limit.

    The status suffices: a firewall that never completes its page must not block the lane like an outage.
    """
    body = bytearray()
    try:
        while len(body) < MAX_BODY_BYTES and (part := await content.read(MAX_BODY_BYTES - len(body))):
            body += part
    except (TimeoutError, aiohttp.ClientError, OSError):
        pass
    return bytes(body)


def _parse_retry_after(retry_after: str | None) -> float:
    if not retry_after:
        return 0.0
    if retry_after.strip().isdecimal():
        seconds = float(retry_after)
    else:
        try:
            seconds = (parsedate_to_datetime(retry_after).astimezone(UTC) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError, OverflowError):
            return 0.0
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS)
