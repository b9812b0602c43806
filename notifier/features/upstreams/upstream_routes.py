"""Accepts logout tokens at `POST /upstreams/{upstream}/backchannel-logout` and `/relays/{upstream}/backchannel-logout`.

Most senders send a token only once. The verified claims are therefore published durably before the response 200, and
the local sessions of an upstream are looked up later by a worker. The token is never stored.

Each response closes its connection. On a connection that is reused, an upstream may send the next token just when the
worker stops: Keycloak then logs `NoHttpResponseException`, and the logout is lost.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol, TypeAlias
from urllib.parse import parse_qsl

from aiohttp import web

from notifier.features.upstreams.upstream_token import SeenTokens, UnacceptedLogout, UpstreamResult, VerifiedLogout
from notifier.model.errors import QueueError
from notifier.model.message import Lane, MessageDraft
from notifier.model.printable import json_text
from notifier.network.listeners.problem import Refusal, problem_response
from notifier.network.listeners.throttle import RequestSlots
from notifier.publishing.route_steps import OncePublisher
from notifier.tokens.security_event_token import KeysUnavailable

BACK_CHANNEL_PATH = "/upstreams/{upstream}/backchannel-logout"
FORM_TYPE = "application/x-www-form-urlencoded"
ANSWER_TIMEOUT_SECONDS = 4.5  # for keys and queue together: most servers give up after 5 s
RETRY_AFTER_SECONDS = "5"  # for the few upstreams that retry
_MAX_FORM_FIELDS = 20  # all but `logout_token` are ignored (Back-Channel Logout 1.0 §2.5)
_NO_STORE_HEADERS = {"Cache-Control": "no-store"}
_TEMPORARY = frozenset(
    {UpstreamResult.KEYS_AWAY, UpstreamResult.QUEUE_AWAY, UpstreamResult.DEAD_LETTERS, UpstreamResult.BUSY}
)

PublishOutgoing: TypeAlias = Callable[[Lane, MessageDraft], Awaitable[None]]
"""Returns once a message is durable. Raises QueueError."""
RecordResult: TypeAlias = Callable[[str, UpstreamResult, str], None]
"""Counts a request of an upstream by result, and logs failures."""


async def publish_all(publish: PublishOutgoing, messages: Iterable[MessageDraft]) -> bool:
    """Publish the messages durably. Return False if the queue is unavailable."""
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_SECONDS):
            for message in messages:
                await publish(Lane.EVENTS, message)
    except (QueueError, TimeoutError):
        return False
    return True


class TokenVerifier(Protocol):
    """Verifies the tokens of one sender."""

    async def verify(self, token: bytes) -> VerifiedLogout | UnacceptedLogout | KeysUnavailable:
        """Verify a token. Never raises."""


class TokenSender(Protocol):
    """A sender of logout tokens. `name` is in metrics and logs."""

    @property
    def name(self) -> str: ...
    @property
    def verifier(self) -> TokenVerifier: ...

    def id_of(self, logout: VerifiedLogout) -> str:
        """Return an id that is the same for copies of a token, at all workers."""

    def to_message(self, logout: VerifiedLogout) -> MessageDraft | UnacceptedLogout:
        """Return the message to publish for a new token, or why none may be published now."""

    def on_unpublished(self, token_id: str) -> None:
        """Forget the message of a token: it could not be published."""


class LogoutTokenRoute:
    """The route by which senders report ended sessions. `find_sender` returns None for an unknown sender.

    `slots`: those for verified tokens, by sender. None: the application limits its requests.
    """

    def __init__(
        self,
        find_sender: Callable[[str], TokenSender | None],
        once: OncePublisher,
        record: RecordResult,
        seen: SeenTokens,
        slots: RequestSlots | None = None,
    ) -> None:
        self._find_sender = find_sender
        self._once = once
        self._record = record
        self._seen = seen
        self._slots = slots or RequestSlots(sys.maxsize, sys.maxsize, "")
        self._publishing: dict[str, asyncio.Task[bool]] = {}

    async def post_logout(self, request: web.Request) -> web.Response:
        """Accept one logout token. The response follows Back-Channel Logout 1.0 §2.8."""
        sender = self._find_sender(request.match_info["upstream"])
        if sender is None:
            answer = problem_response(404, "There is no such address")
        else:
            result, text = await self._accept_token(request, sender)
            self._record(sender.name, result, text)
            answer = to_logout_response(result, text)
        answer.force_close()
        return answer

    async def _accept_token(self, request: web.Request, sender: TokenSender) -> tuple[UpstreamResult, str]:
        """Verify and publish the token of a request. Return the result and the error text."""
        token = await _read_token(request)
        if token is None:
            fields = f"one logout_token, at most {_MAX_FORM_FIELDS} fields, not compressed"
            return UpstreamResult.MALFORMED, f"the body must be {FORM_TYPE} with {fields}"
        deadline = asyncio.get_running_loop().time() + ANSWER_TIMEOUT_SECONDS
        try:
            async with asyncio.timeout_at(deadline):
                logout = await sender.verifier.verify(token)
        except TimeoutError:
            return UpstreamResult.KEYS_AWAY, "the keys of the issuer cannot be read in time; send the token again"
        if isinstance(logout, UnacceptedLogout):
            return logout.result, logout.description
        if isinstance(logout, KeysUnavailable):
            return UpstreamResult.KEYS_AWAY, logout.text
        try:
            with self._slots.hold_slot(sender.name):
                return await self._accept_logout(sender, logout, deadline)
        except Refusal:
            return UpstreamResult.BUSY, "too many tokens at a time; send the token again"

    async def _accept_logout(
        self, sender: TokenSender, logout: VerifiedLogout, deadline: float
    ) -> tuple[UpstreamResult, str]:
        """Publish the token's claims durably, unless the token was accepted before. Return result and error text.

        Copies of a token share one publication. `deadline`: by the clock of the event loop.
        """
        token_id = sender.id_of(logout)
        if self._seen.is_seen(token_id):
            return UpstreamResult.REPLAYED, ""
        publishing = self._publishing.get(token_id)
        if publishing is None:
            message = sender.to_message(logout)
            if isinstance(message, UnacceptedLogout):
                return message.result, message.description
            publishing = asyncio.create_task(self._publish_until(message, sender, token_id, logout.until, deadline))
            self._publishing[token_id] = publishing
        left = deadline - asyncio.get_running_loop().time()
        done, _ = await asyncio.wait({publishing}, timeout=left)
        if not done or not publishing.result():
            return UpstreamResult.QUEUE_AWAY, "the queue is unavailable; send the token again"
        return UpstreamResult.ACCEPTED, ""

    async def _publish_until(
        self, message: MessageDraft, sender: TokenSender, token_id: str, expires_at: float, deadline: float
    ) -> bool:
        try:
            async with asyncio.timeout_at(deadline):
                await self._once.publish(sender.name, token_id, Lane.EVENTS, message, deadline)
            self._seen.add(token_id, expires_at)
        except (QueueError, TimeoutError):
            sender.on_unpublished(token_id)
            return False
        finally:
            del self._publishing[token_id]
        return True


def to_logout_response(result: UpstreamResult, text: str) -> web.Response:
    """Return the response for a result. `text`: the error."""
    if result in (UpstreamResult.ACCEPTED, UpstreamResult.REPLAYED):
        return web.Response(status=200, headers=_NO_STORE_HEADERS)
    status, error, headers = 400, "invalid_request", _NO_STORE_HEADERS
    if result in _TEMPORARY:
        status, error, headers = 503, "temporarily_unavailable", {**headers, "Retry-After": RETRY_AFTER_SECONDS}
    document = {"error": error, "error_description": text}
    return web.json_response(document, status=status, headers=headers, dumps=json_text)


async def _read_token(request: web.Request) -> bytes | None:
    """Return the value of `logout_token` in the form; None unless the form is valid and has exactly one."""
    is_compressed = request.headers.get("Content-Encoding", "identity").lower() != "identity"
    if request.content_type != FORM_TYPE or is_compressed:
        return None
    try:
        fields = parse_qsl((await request.read()).decode("ascii"), max_num_fields=_MAX_FORM_FIELDS)
    except (ValueError, web.RequestPayloadError):
        return None
    tokens = [value for name, value in fields if name == "logout_token"]
    return tokens[0].strip().encode("utf-8", "replace") if len(tokens) == 1 else None
