"""Waits for the notices of events for a bounded time, for `POST /v1/events?wait=` and `notifier publish --wait`.

A reply contains a notice, which reports the result at one client to a publisher: JSON with a version. `delivered`,
`dead` and `skipped` are final. If the whole event has one result (malformed, unknown issuer, a copy), there is one
reply, without `client_id`.
"""

import asyncio
import json
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal, NotRequired

from pydantic import TypeAdapter
from typing_extensions import TypedDict  # pydantic requires this TypedDict before Python 3.12

from notifier.model.durations import parse_duration
from notifier.model.moment import format_moment, parse_moment
from notifier.model.notice import DeliveryResult, Notice
from notifier.model.reply import ReplyTo
from notifier.model.shared_resources import shared_bound

VERSION = 1
MAX_TEXT_CHARACTERS = 500  # characters of `text`
MAX_WAIT_SECONDS = 30.0  # seconds
MAX_WAITING_REQUESTS = shared_bound(128)  # half of what the API serves at a time, so that others can still publish


class _Reply(TypedDict):
    v: Literal[1]
    fate: DeliveryResult
    iss: str
    event_id: str
    client_id: NotRequired[str | None]
    id: NotRequired[str]
    reason: NotRequired[str | None]
    status: NotRequired[int | None]
    attempts: NotRequired[int]
    next_due: NotRequired[str | None]
    text: NotRequired[str]
    of: NotRequired[int | None]


_REPLY = TypeAdapter(_Reply)


def to_reply_document(notice: Notice) -> dict[str, object]:
    """Return the members of a reply that have a value."""
    document: dict[str, object] = {"fate": notice.fate.value, "iss": notice.iss, "event_id": notice.event_id}
    if notice.next_due is not None:
        document["next_due"] = format_moment(notice.next_due)
    optional: dict[str, object] = {
        "client_id": notice.client_id,
        "id": notice.delivery_id,
        "reason": None if notice.fate is DeliveryResult.DELIVERED else notice.reason,
        "status": notice.status,
        "attempts": notice.attempts or None,
        "of": notice.of,
        "text": notice.text[:MAX_TEXT_CHARACTERS],
    }
    return document | {name: value for name, value in optional.items() if value not in (None, "")}


def dump_reply(notice: Notice) -> bytes:
    """Encode a notice as the body of a reply."""
    return json.dumps({"v": VERSION, **to_reply_document(notice)}, ensure_ascii=False).encode()


def load_reply(body: bytes) -> Notice | None:
    """Decode the body of a reply. Return None if it is not a reply, or if a later release wrote it."""
    try:
        members: dict[str, Any] = {
            name: value for name, value in _REPLY.validate_json(body).items() if value is not None
        }
        del members["v"]
        due = members.pop("next_due", None)
        return Notice(delivery_id=members.pop("id", ""), next_due=None if due is None else parse_moment(due), **members)
    except ValueError:  # pydantic's ValidationError is a ValueError
        return None


def parse_wait(text: str) -> float:
    """Return the seconds of a wait, written as `5s`. Raises ValueError."""
    seconds = parse_duration(text)
    if seconds > MAX_WAIT_SECONDS:
        raise ValueError(f"must be at most {MAX_WAIT_SECONDS:.0f}s")
    return seconds


class EventNotices:
    """The notices of one event so far: the latest notice of each client, or one notice of the whole event."""

    def __init__(self) -> None:
        self._clients: dict[tuple[str, str], Notice] = {}
        self._whole: Notice | None = None
        self._of: int | None = None

    def add(self, notice: Notice) -> None:
        """Add a notice. A notice that is not final does not replace the final notice of its client."""
        if not notice.of or notice.fate is DeliveryResult.DUPLICATE:  # the result of the whole event
            self._whole = notice
            return
        self._whole = None
        self._of = notice.of
        # A client may have several deliveries. A skipped client has none.
        key = (notice.client_id, notice.delivery_id or notice.text)
        known = self._clients.get(key)
        if known is None or not known.settled or notice.settled:
            self._clients[key] = notice

    @property
    def known(self) -> list[Notice]:
        """The notices, in the order in which the first notice of each client arrived."""
        return [*self._clients.values(), *([] if self._whole is None else [self._whole])]

    def document(self) -> dict[str, object]:
        """Return the JSON members: `complete`, the result at each client, and the result of the whole event, if any."""
        clients = [_omit_event(notice) for notice in self._clients.values()]
        whole = {} if self._whole is None else _omit_event(self._whole)
        return {"complete": self.settled, **whole, "clients": clients}

    @property
    def settled(self) -> bool:
        """True when no further notice follows."""
        return self.idle_until(math.inf)

    def idle_until(self, moment: float) -> bool:
        """True if no notice can arrive before `moment` (epoch seconds): each delivery is settled or due later."""
        has_all = self._whole is not None or (self._of is not None and len(self._clients) >= self._of)
        return has_all and all(
            notice.settled or (notice.next_due is not None and notice.next_due >= moment) for notice in self.known
        )


def _omit_event(notice: Notice) -> dict[str, object]:
    """Return the notice without members that the publisher already has or that only distinguish replies."""
    document = to_reply_document(notice)
    return {name: value for name, value in document.items() if name not in ("iss", "event_id", "of", "id")}


class NoticeWait:
    """Collects the notices of some events by key, and waits for them. `clock` returns epoch seconds."""

    def __init__(self, keys: Iterable[str], clock: Callable[[], float]) -> None:
        self.events = {key: EventNotices() for key in keys}
        self._clock = clock
        self._changed = asyncio.Event()
        self._ended = False

    def on_notice(self, key: str, notice: Notice) -> None:
        """Add a notice of the event with this key."""
        if (event := self.events.get(key)) is not None:
            event.add(notice)
            self._changed.set()

    def on_reply(self, body: bytes) -> None:
        """Add the notice of a reply, if this release can read it; the key of its event is the event's id."""
        if (notice := load_reply(body)) is not None:
            self.on_notice(notice.event_id, notice)

    def end(self) -> None:
        """Make `wait` return."""
        self._ended = True
        self._changed.set()

    async def wait(self, seconds: float) -> None:
        """Return after the given seconds, or as soon as no notice can arrive within them."""
        until = self._clock() + seconds
        pending = list(self.events.values())
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not self._ended and (pending := [event for event in pending if not event.idle_until(until)]):
                    await self._changed.wait()
                    self._changed.clear()


class WaitingRequests:
    """The HTTP requests that wait for notices in this process. Replies reach it at `address`."""

    def __init__(
        self, address: str, *, clock: Callable[[], float], new_id: Callable[[], str], most: int = MAX_WAITING_REQUESTS
    ) -> None:
        self._address = address
        self._clock = clock
        self._new_id = new_id
        self._most = most
        self._waiting: dict[str, NoticeWait] = {}
        self._closed = False

    @contextmanager
    def admit(self) -> Iterator[tuple[ReplyTo, NoticeWait] | None]:
        """Count a waiting request for the block. Yield its reply address and wait; None if too many requests wait."""
        if self._closed or len(self._waiting) >= self._most:
            yield None
            return
        key = self._new_id()
        wait = self._waiting[key] = NoticeWait([key], self._clock)
        try:
            yield ReplyTo(to=self._address, correlation_id=key), wait
        finally:
            del self._waiting[key]

    def on_notice(self, correlation_id: str | None, notice: Notice) -> bool:
        """Pass on a reply. Return False if no request here waits for it."""
        if correlation_id is None or (wait := self._waiting.get(correlation_id)) is None:
            return False
        wait.on_notice(correlation_id, notice)
        return True

    def close(self) -> None:
        """End every wait, and admit no further requests, because the process stops."""
        self._closed = True
        for wait in self._waiting.values():
            wait.end()
