"""Serve `POST /v1/events/{source}`: accept webhooks in the format of their server, from senders without an API token.

A proof of the source replaces the token. The message is published unchanged, and is durable before the response 202. A
worker converts it by the source's mapping. A malformed message becomes a dead letter instead of a 400, since senders of
webhooks ignore a 400, or stop after a few. A Security Event Token is answered according to RFC 8935, and its verified
claims are published instead of the token. Of a message of Amazon SNS, the signed members are published.

Each source has a limit of concurrent requests. If the proof is in the body, an unauthenticated client can send the body
slowly. Until the proof is verified, such a request has a lower limit and a shorter timeout.

`GET` and `OPTIONS` answer the verification requests of Okta, WebSub hubs, and CloudEvents senders such as Event Grid.
"""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import assert_never

import structlog
from aiohttp import web
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily

from notifier.features.sources.post_rules import MAX_TYPE_LENGTH, HttpSource, join_headers
from notifier.features.sources.sns_message import SnsMessage, SnsRefusal
from notifier.features.sources.sns_server import CertificateUnavailable
from notifier.features.sources.source_operations import (
    GET_OPERATION,
    OPTIONS_OPERATION,
    POST_OPERATION,
    RECORDED_STATUSES,
    answer_okta,
    answer_options,
    answer_websub,
    method_refusal,
    proof_refusal,
    reason_of,
)
from notifier.features.sources.source_proofs import BodySignature, HeaderSecret, SetVerifier, SnsVerifier
from notifier.model.documents.sourced import kept_headers, to_sourced
from notifier.model.ids import new_id
from notifier.model.message import Lane, Message, MessageDraft
from notifier.model.moment import Clock, MinuteLimit
from notifier.model.printable import excerpt, json_text
from notifier.network.listeners.problem import Refusal, problem_response
from notifier.network.listeners.throttle import RequestSlots
from notifier.publishing.route_steps import (
    RETRY_AFTER_SECONDS,
    ApiLimits,
    DirectPublisher,
    OncePublisher,
    media_type,
    publish_in_time,
    read_body,
    read_lane,
    refuse_compressed,
)
from notifier.telemetry.families import labelled_family
from notifier.tokens.security_event_token import KeysUnavailable, UnacceptedSet, VerifiedSet

SOURCE_PATH = "/v1/events/{source}"
_MAX_TOPIC_CHARACTERS = 255


class SourceRoutes:
    """The routes of sources. `find_source` returns None for an unknown source, or one without `http`.

    `publish` returns once the message is durable, and raises QueueError. `list_names` returns the configured sources.
    """

    def __init__(
        self,
        find_source: Callable[[str], HttpSource | None],
        publish: Callable[[Lane, MessageDraft], Awaitable[None]],
        limits: ApiLimits,
        clock: Clock = time.time,
        new_id: Callable[[], str] = new_id,
        list_names: Callable[[], Iterable[str]] = tuple,
        once: OncePublisher | None = None,
    ) -> None:
        self._find_source = find_source
        self._list_names = list_names
        self._publish = publish
        self._once = DirectPublisher(publish) if once is None else once
        self._limits = limits
        self._clock = clock
        self._new_id = new_id
        self._verified_slots = RequestSlots(limits.requests, limits.requests_of_token, "to this source")
        self._unverified_slots = RequestSlots(limits.unverified, limits.unverified_of_source, "to this source")
        self._log_limit = MinuteLimit()  # keys: source and status, or source and WebSub mode
        self._counts: dict[tuple[str, str], int] = {}  # keys: source and status

    def families(self) -> Iterator[Metric]:
        """Return the metric families for a scrape. The series of each source start at zero, so alerts see the first."""
        text = "Requests to POST /v1/events/{source}."
        counts = {(name, status): 0 for name in self._list_names() for status in RECORDED_STATUSES} | self._counts
        yield labelled_family(CounterMetricFamily, "source_requests_total", text, ("source", "status"), counts)

    def routes(self) -> Iterator[web.RouteDef]:
        """Return the routes for the API's application."""
        yield web.post(SOURCE_PATH, self.post_event)
        yield web.get(SOURCE_PATH, self.get_challenge, allow_head=False)
        yield web.options(SOURCE_PATH, self.allow_sender)

    @POST_OPERATION
    async def post_event(self, request: web.Request) -> web.Response:
        """Accept one message of a source, and record the response."""
        source = self._source_of(request)
        with self._record_refusals(source.name):
            answer = await self._accept(request, source)
        self._record(source.name, answer)
        return answer

    @GET_OPERATION
    async def get_challenge(self, request: web.Request) -> web.Response:
        """Answer a server's verification request."""
        source = self._source_of(request)
        if source.challenge is None:
            raise method_refusal()
        with self._record_refusals(source.name):
            if source.challenge == "okta":
                return answer_okta(request, source.proof)
            answer = answer_websub(request, source.websub)
            self._log_confirmed(source.name, request)
            return answer

    @OPTIONS_OPERATION
    async def allow_sender(self, request: web.Request) -> web.Response:
        """Answer a CloudEvents sender's request for permission to send."""
        source = self._source_of(request)
        with self._record_refusals(source.name):
            if not isinstance(source.proof, BodySignature):  # no other proof needs the body
                return answer_options(request, source, b"")
            with self._unverified_slots.hold_slot(source.name):
                return answer_options(request, source, await self._read_unverified(request))

    def _source_of(self, request: web.Request) -> HttpSource:
        """Return the source in the path. Raises Refusal (404)."""
        source = self._find_source(request.match_info["source"])
        if source is None:
            title = (
                "No source of this name takes events over HTTP: configure sources.NAME.http,"
                " or send events in notifier's own form to /v1/events"
            )
            raise Refusal(problem_response(404, title))
        return source

    async def _read_unverified(self, request: web.Request) -> bytes:
        return await read_body(request, self._limits, self._limits.unverified_timeout)

    async def _accept(self, request: web.Request, source: HttpSource) -> web.Response:
        """Authenticate, check and publish a message. Raises Refusal."""
        proof = source.proof
        match proof:
            case HeaderSecret():
                if not proof.is_valid(request.headers):
                    raise proof_refusal()
                _check_type(request, source)
                with self._verified_slots.hold_slot(source.name):
                    body = await read_body(request, self._limits)
            case BodySignature():
                _check_type(request, source)
                with self._unverified_slots.hold_slot(source.name):
                    body = await self._read_unverified(request)
                if not proof.is_valid(request.headers, body):
                    raise proof_refusal()
            case SetVerifier():
                return await self._accept_set(request, source, proof)
            case SnsVerifier():
                return await self._accept_sns(request, source, proof)
            case _:
                assert_never(proof)
        source.check_headers(request.headers)
        source.check_body(body)
        content_type = request.headers.get("Content-Type", "")
        if len(content_type) > MAX_TYPE_LENGTH or not content_type.isascii():
            content_type = media_type(request).encode("ascii", "replace").decode()[:MAX_TYPE_LENGTH]
        new_id = await self._accept_message(request, source, body, content_type)
        return web.json_response({"id": new_id}, status=202, dumps=json_text)

    async def _accept_set(self, request: web.Request, source: HttpSource, proof: SetVerifier) -> web.Response:
        """Accept a Security Event Token, and answer according to RFC 8935 §2.2 and §2.3."""
        _check_type(request, source)
        with self._unverified_slots.hold_slot(source.name):
            result = await proof.verify(await self._read_unverified(request))
        unsigned = source.find_unsigned_header(request.headers)
        if isinstance(result, VerifiedSet) and unsigned is not None:
            result = UnacceptedSet(err="invalid_request", description=unsigned)
        match result:
            case VerifiedSet():
                await self._accept_message(request, source, result.claims, "application/json")
                return web.Response(status=202)
            case UnacceptedSet():
                document = {"err": result.err, "description": result.description}
                headers = {"Content-Language": "en"}
                return web.json_response(document, status=400, headers=headers, dumps=json_text)
            case KeysUnavailable():
                raise Refusal(problem_response(503, result.text, headers={"Retry-After": RETRY_AFTER_SECONDS}))
            case _:
                assert_never(result)

    async def _accept_sns(self, request: web.Request, source: HttpSource, proof: SnsVerifier) -> web.Response:
        """Accept an SNS message: a notification, or a message about the subscription."""
        _check_type(request, source)
        with self._unverified_slots.hold_slot(source.name):
            message = await proof.verify(await self._read_unverified(request))
        match message:
            case SnsRefusal():
                raise proof_refusal(f"The message is not accepted: {message.text}")
            case CertificateUnavailable():
                raise Refusal(problem_response(503, message.text, headers={"Retry-After": RETRY_AFTER_SECONDS}))
            case SnsMessage(kind="Notification"):
                source.check_headers(request.headers)
                new_id = await self._accept_message(request, source, message.signed, "application/json")
                return web.json_response({"id": new_id}, status=202, dumps=json_text)
            case SnsMessage():
                if not await proof.handle_subscription(message, source.name):
                    title, headers = "SNS is unreachable; send the message again", {"Retry-After": RETRY_AFTER_SECONDS}
                    raise Refusal(problem_response(503, title, headers=headers))
                return web.json_response({})
            case _:
                assert_never(message)

    async def _accept_message(self, request: web.Request, source: HttpSource, body: bytes, content_type: str) -> str:
        """Publish the message durably, with the source as its publisher. Return the message's new id."""
        lane = read_lane(request)
        headers = join_headers(request.headers.items())
        if source.is_signed:
            headers.pop("messageid", None)  # it is not signed, but would be the event's id with MassTransit
        message = Message(
            lane=lane,
            body=body,
            tag=None,
            content_type=content_type,
            headers=kept_headers(headers, source.compiled.secret_headers, source.compiled.used_names),
            timestamp=self._clock(),
            user_id=source.name,
            source=source.name,
        )
        new_id = self._new_id()
        with self._verified_slots.hold_slot(source.name):
            publish = self._publish_once if source.sends_once else self._publish
            publication = publish(lane, to_sourced(message, new_id))
            await publish_in_time(publication, self._limits, "send the event again")
        structlog.get_logger().info("source_taken", source=source.name, id=new_id)
        return new_id

    async def _publish_once(self, lane: Lane, message: MessageDraft) -> None:
        """Publish for a sender that does not send again. Equal bodies are copies: each has the id of its event."""
        source = str(message.headers["source"])
        event_id = hashlib.blake2b(source.encode() + b"/" + message.body, digest_size=16).hexdigest()
        deadline = asyncio.get_running_loop().time() + self._limits.accept_timeout
        await self._once.publish(once_name(source), event_id, lane, message, deadline)

    @contextmanager
    def _record_refusals(self, source: str) -> Iterator[None]:
        """Count and log the response to an exception that leaves the `with` block."""
        try:
            yield
        except Refusal as refusal:
            self._record(source, refusal.response)
            raise
        except web.HTTPException as error:
            self._record(source, error)
            raise
        except BaseException:
            self._record(source, web.Response(status=500))
            raise

    def _record(self, source: str, answer: web.Response) -> None:
        """Count a response. Log a refusal, which senders seldom show to a person, at most once a minute per status."""
        key = (source, str(answer.status))
        self._counts[key] = self._counts.get(key, 0) + 1
        if answer.status >= 400 and self._log_limit.allows(*key):
            self._log_limit.on_logged(*key)
            reason = reason_of(answer.text or "")
            structlog.get_logger().warning("source_refused", source=source, status=answer.status, reason=reason)

    def _log_confirmed(self, source: str, request: web.Request) -> None:
        """Log that a WebSub hub's request was confirmed, at most once a minute, since it is unauthenticated."""
        mode = request.query["hub.mode"]
        if self._log_limit.allows(source, mode):
            self._log_limit.on_logged(source, mode)
            topic = excerpt(request.query.get("hub.topic", ""), _MAX_TOPIC_CHARACTERS)
            structlog.get_logger().info("sender_allowed", source=source, origin="WebSub hub", mode=mode, topic=topic)


def once_name(source: str) -> str:
    """Return the name of a source among the senders that do not send again, which are relays and upstreams too."""
    return f"source/{source}"


def _check_type(request: web.Request, source: HttpSource) -> None:
    """Raise Refusal (415) for a wrong media type or a compressed body."""
    source.check_type(request.headers.get("Content-Type"))
    refuse_compressed(request)
